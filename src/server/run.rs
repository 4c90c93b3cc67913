//! The main task of a worker's thread: its listeners, its sweep, its inbox; until it is told to
//! end.
//!
//! `spawn.rs` makes the thread, `worker` has its state. It ends when nothing is in flight any more
//! and the logs are handed over; it waits for neither longer than a second.

use std::{io, rc::Rc, sync::Arc, time::Duration};

use super::{accept, level};
use crate::exchange::explain;
use crate::net::{
    io::{ending, resident, sleep},
    turns::next_turn,
    wake::Bell,
};
use crate::shared::inbox::Inbox;
use crate::worker::{CorePlan, Next, Process, Socket, ToCore, Worker, WorkerSeed};

/// One worker's sockets.
pub(super) type Sockets = Vec<Socket>;

/// Messages read before other tasks get their turn.
const BATCH: usize = 64;

/// How long the end waits for tasks to notice it, in steps.
const END_STEP: Duration = Duration::from_millis(5);
const END_STEPS: u32 = 200;

/// Serves until told to stop, or until drained; reports through `ready` when it begins.
pub(super) async fn serve(
    (process, next): (Process, Arc<Next>),
    own: WorkerSeed,
    sockets: Sockets,
    inbox: Inbox<ToCore>,
    ready: impl FnOnce(io::Result<()>),
) {
    let worker = Worker::new(process, &next, own);
    drop(next);
    let begun = begin(&worker, sockets).and_then(|()| Bell::adopt(inbox.bell()));
    let bell = match begun {
        Ok(bell) => bell,
        Err(error) => return ready(Err(error)),
    };
    ready(Ok(()));
    listen(&worker, &inbox, &bell).await;
    end(&worker).await;
    hand_over_logs(&worker).await;
}

/// Starts the tasks that live as long as the worker.
fn begin(worker: &Rc<Worker>, sockets: Sockets) -> io::Result<()> {
    if !sockets.is_empty() {
        worker.takes_from_others();
    }
    accept_at(worker, sockets)?;
    let sweeper = Rc::clone(worker);
    resident(async move {
        let each_round = || {
            sweeper.turn();
            level::look(&sweeper);
        };
        sweeper.deadlines.sweep(each_round).await;
    });
    Ok(())
}

/// Starts to accept connections at these addresses.
fn accept_at(worker: &Rc<Worker>, sockets: Sockets) -> io::Result<()> {
    sockets.into_iter().try_for_each(|socket| accept::begin(worker, socket))
}

/// Continues under the next plan.
fn change(worker: &Rc<Worker>, plan: CorePlan) {
    let CorePlan { next, router, outlets, sockets, moved, gone, taken } = plan;
    worker.change(&next, router, outlets);
    moved.into_iter().for_each(|(from, address, to)| worker.hand_over((from, address), to));
    gone.into_iter().for_each(|address| worker.leave(address));
    // If there is no descriptor left for one, the other cores take the connections there.
    let _ = accept_at(worker, sockets);
    // Whoever waits for it sees that it closes.
    drop(taken);
}

/// Carries out the messages of the inbox, until the end.
async fn listen(worker: &Rc<Worker>, inbox: &Inbox<ToCore>, bell: &Bell) {
    loop {
        match worker.drained.or(bell.rung()).await {
            None | Some(Err(_)) => return,
            Some(Ok(())) => {}
        }
        let mut taken = 0_usize;
        while let Some(message) = inbox.next() {
            taken += 1;
            if taken.is_multiple_of(BATCH) {
                next_turn().await;
            }
            match message {
                ToCore::Challenges(challenges) => worker.answer_challenges(challenges),
                ToCore::Plan(plan) => change(worker, *plan),
                ToCore::Tls(ends) => worker.set_tls(ends),
                // The asker may have stopped waiting.
                ToCore::Ping(answer) => drop(answer.try_send(())),
                ToCore::Explain(question, answer) => {
                    drop(answer.try_send(Box::new(explain::answer(worker, &question))));
                }
                ToCore::Accept(sockets) => {
                    worker.take_back();
                    worker.takes_from_others();
                    // If there is no descriptor left the other cores accept there.
                    let _ = accept_at(worker, sockets);
                }
                ToCore::GiveAway { heir, gone } => {
                    level::keep_own(worker);
                    worker.give_away_all(heir, &gone);
                }
                ToCore::Serve(sockets) => {
                    worker.moves();
                    worker.takes_from_others();
                    let _ = accept_at(worker, sockets);
                }
                ToCore::Rest(heir) => {
                    level::keep_own(worker);
                    worker.rest(heir);
                }
                ToCore::Adopt(connections) => {
                    connections.into_iter().for_each(|one| accept::adopt(worker, one));
                }
                ToCore::Drain => {
                    level::keep_own(worker);
                    worker.drain();
                }
                ToCore::Stop => return,
            }
        }
        level::take_all(worker);
        worker.look_at_notices();
        worker.call_from_lost().await;
        worker.look_for_descriptors();
    }
}

/// Closes everything and waits until nothing is in flight.
async fn end(worker: &Rc<Worker>) {
    level::keep_own(worker);
    worker.leave_queues();
    worker.drain();
    worker.close_conns();
    for _ in 0..END_STEPS {
        worker.deadlines.close_all();
        sleep(END_STEP).await;
        worker.close_conns();
        if worker.deadlines.is_empty() && ending() == 0 && !worker.accepts() {
            return;
        }
    }
}

/// The last lines of the access logs: a writer that is behind has a while to make room.
async fn hand_over_logs(worker: &Worker) {
    for _ in 0..END_STEPS {
        if worker.logs.hand_over() {
            return;
        }
        sleep(END_STEP).await;
    }
}
