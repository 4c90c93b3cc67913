//! Connections that go from a core with too much to one with less.
//!
//! `worker/level.rs` says when and to which core; here they leave, arrive, and stay where they were
//! if nobody takes them. A connection in transit keeps its permits, so that limits stay exact, and
//! is in nobody's way: what its client sends meanwhile waits in its socket.

use std::{os::fd::OwnedFd, rc::Rc, time::Duration};

use super::{accept, connection::Arrival};
use crate::net::{
    deadlines::Watched,
    io::{sleep, task},
};
use crate::plan::ListenerId;
use crate::worker::{Admitted, Moved, RestingClient, Worker};

/// The pause between two looks for idle clients, and how many there are in a round: a client that
/// asks again at once is idle for moments only.
const PAUSE: Duration = Duration::from_millis(5);
const LOOKS: usize = 40;

/// After each round: if this core has too much, looks for connections to hand over until the next.
pub(super) fn look(worker: &Rc<Worker>) {
    if worker.has_too_much() {
        let worker = Rc::clone(worker);
        task(async move {
            for _ in 0..LOOKS {
                worker.choose_to_move();
                if !worker.has_too_much() {
                    return;
                }
                sleep(PAUSE).await;
            }
        });
    }
}

/// Hands over a connection that was just accepted, if this core has too much; returns it if it is
/// served here.
#[inline]
pub(super) fn hand_over_new(
    worker: &Rc<Worker>,
    arrival: &Arrival,
    fd: OwnedFd,
    mut admitted: Admitted,
) -> Option<(OwnedFd, Admitted)> {
    if !worker.has_too_much() {
        return Some((fd, admitted));
    }
    let client = RestingClient { listener: arrival.listener, is_idle: false, fd };
    let moved = Moved { client, permits: admitted.take_permits() };
    if let Err(kept) = worker.hand_over_new(moved) {
        take(worker, kept);
    }
    None
}

/// Hands over an idle connection whose task was woken for that; false if it stays, as its
/// descriptor cannot be copied now.
#[cold]
pub(super) fn hand_over_idle(
    worker: &Rc<Worker>,
    listener: ListenerId,
    (copy, watched): (Option<OwnedFd>, &Watched),
    admitted: &mut Admitted,
) -> bool {
    let Some(fd) = copy else {
        watched.goes_on();
        return false;
    };
    let client = RestingClient { listener, is_idle: true, fd };
    let moved = Moved { client, permits: admitted.take_permits() };
    if let Err(kept) = worker.hand_over_chosen(moved) {
        take(worker, kept);
    }
    true
}

/// Takes what other cores have handed over.
pub(super) fn take_all(worker: &Rc<Worker>) {
    while let Some(moved) = worker.next_moved() {
        take(worker, moved);
    }
}

fn take(worker: &Rc<Worker>, Moved { client, permits }: Moved) {
    if let Some(admitted) = Admitted::go_on(worker, client.listener, permits) {
        accept::go_on(worker, client, admitted);
    }
}

/// From now on this core takes nothing from others, and serves what was on its way.
pub(super) fn keep_own(worker: &Rc<Worker>) {
    worker.keeps_its_own();
    take_all(worker);
}
