//! Waiting in front of a full pool: until a backend has room, the time is over, or the client has
//! left.
//!
//! Even a half-close counts as leaving: nothing has been sent to the client yet.

use std::{future::Future, rc::Rc, time::Duration};

use super::{
    Exchange,
    choose::{Errand, choose},
};
use crate::base::moment::Tick;
use crate::http::fault::{Cause, Fault};
use crate::net::{
    clock::Clock,
    leaving::{ForClient, Leaves},
};
use crate::proto::Client;
use crate::worker::{NoPick, Pick, Place, WaitsFor, Worker};

/// Waits for room at a backend, on behalf of an exchange.
pub(super) async fn wait(
    worker: &Rc<Worker>,
    client: &Client,
    exchange: &mut Exchange,
    what: WaitsFor,
) -> Result<Pick, Fault> {
    let since = Clock::moment();
    let timeout = exchange.pool_plan().queue.timeout;
    let for_client = exchange.for_client(client, Leaves::End);
    let signs = (|| client.stirs(), || client.has_left(for_client));
    let mut errand = exchange.errand(worker);
    let picked = wait_as(worker, &mut errand, what, (timeout, for_client), signs).await;
    let waits_since = errand.wanted.since;
    errand.pool.core.offers_room();
    exchange.queued_since = waits_since;
    worker.clock.renew();
    if exchange.scratch.record.is_timed() {
        let times = &mut exchange.scratch.record.times;
        let waited = Clock::moment().since(since);
        times.queue = Some(times.queue.unwrap_or_default() + waited);
        times.waited += waited;
    }
    picked
}

/// Waits for room at a backend, for any errand; `readable` is a wait for a sign of the client,
/// `has_left` a look at it.
async fn wait_as<T>(
    worker: &Worker,
    errand: &mut Errand<'_>,
    what: WaitsFor,
    (timeout, client): (Duration, ForClient),
    (readable, has_left): (impl Fn() -> T, impl Fn() -> bool),
) -> Result<Pick, Fault>
where
    T: Future,
{
    let by = errand.deadline.earlier(worker.clock.after(timeout));
    let now = worker.clock.tick();
    let place = Place::take(errand.pool, by, (now, Some(client)), what).ok_or(Cause::QueueFull)?;
    errand.wanted.since = Some(place.since());
    // Whether the client's socket may still tell more than that it closes.
    let mut silent = true;
    let (mut looks, mut was_called) = (place.looks_at_once(), false);
    loop {
        while looks {
            match look(errand, worker.clock.tick()) {
                Ok(pick) => return Ok(pick),
                Err(NoPick::NoneUsable) => return Err(Cause::NoBackend.into()),
                Err(NoPick::AllFull(what)) => looks = place.wants(what),
            }
        }
        if was_called {
            place.passes_on();
        }
        while !place.called().is_raised() {
            if silent {
                silent = place.called().or(readable()).await.is_none();
            } else {
                place.called().or(std::future::pending::<()>()).await;
            }
            if has_left() {
                return Err(Cause::ClientAbort.into());
            }
        }
        worker.clock.renew();
        if worker.clock.is_over(errand.deadline) {
            return Err(Cause::Deadline.into());
        }
        if worker.clock.is_over(place.by()) {
            return Err(Cause::QueueTimeout.into());
        }
        place.woke();
        (looks, was_called) = (true, true);
    }
}

fn look(errand: &mut Errand<'_>, now: Tick) -> Result<Pick, NoPick> {
    errand.wanted.now = now;
    choose(errand)
}
