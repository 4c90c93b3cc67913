//! Retries: whether a request is sent again, and to which backend.
//!
//! Only failed tries and answers that call for a retry come here. `policy` decides what may be
//! repeated; this file carries it out: the part of the body that was sent is recovered, an answer
//! that was declined is kept in case no better one comes, and refused retries are counted.

use std::{ops::ControlFlow, rc::Rc};

use super::{
    Answer, Exchange,
    choose::choose,
    id_of, queue,
    upload::{self, Upload},
};
use crate::base::{
    moment::{Micros, Moment},
    rng::Rng,
};
use crate::http::fault::{Cause, Fault, Side};
use crate::net::{clock::Clock, io::sleep};
use crate::observe::{reports::Attempt, tries::Why};
use crate::policy::retry::{self, Decision, RetryRefusal, TryOutcome};
use crate::proto::{Client, peer::Peer};
use crate::shared::{
    counters::Counter,
    request_times::Phase,
    tally::{Key, Reason},
};
use crate::worker::{NoPick, Pick, Worker};

/// The pick for the next try; or, if there is none, the result that stands.
pub(super) async fn another(
    worker: &Rc<Worker>,
    client: &mut Client,
    exchange: &mut Exchange,
    (outcome, pick): (TryOutcome, Option<Pick>),
    mut result: Result<Answer, Fault>,
) -> ControlFlow<Result<Answer, Fault>, Pick> {
    if let Some(fetched) = &mut exchange.fetched
        && fetched.upload.as_ref().is_some_and(Upload::is_whole)
    {
        let upload = fetched.upload.take();
        upload::recover(client, exchange, upload).await;
    }
    let ended = Clock::moment();
    note(exchange, outcome, ended);
    let is_lost = outcome == TryOutcome::Fault(Cause::BackendDown.into());
    if let Some(instead) = exchange.tries.instead.take()
        && is_lost
        && !exchange.tries.body_gone
    {
        // Decided when the wait was ended, and taken from the budget.
        drop(pick);
        let why = count(worker, exchange, outcome);
        tell(worker, client.peer(), exchange, (outcome, None, ended));
        note_why(exchange, why);
        return ControlFlow::Continue(*instead);
    }
    let mut why = Some(Why::Stale);
    let next = match retry::again(&exchange.pool_plan().retry, &exchange.attempt(outcome)) {
        Decision::Keep => return ControlFlow::Break(exchange.or_declined(result)),
        Decision::Refused(refusal) => Err(refusal),
        Decision::Fresh => {
            exchange.tries.count -= 1;
            wait(worker, exchange).await;
            fresh(worker, exchange, pick)
        }
        Decision::Another => {
            drop(pick);
            // Whoever is asked next is chosen by what is known then.
            wait(worker, exchange).await;
            let next = elsewhere(worker, client, exchange, &mut result).await;
            if next.is_ok() {
                why = count(worker, exchange, outcome);
            }
            next
        }
    };
    tell(worker, client.peer(), exchange, (outcome, next.as_ref().err().copied(), ended));
    let next = match next {
        Ok(next) => next,
        Err(refusal) => {
            worker.count(counter(refusal));
            note_why(exchange, Some(Why::Refused(refusal)));
            return ControlFlow::Break(exchange.or_declined(result));
        }
    };
    if let Ok(answer) = result {
        exchange.decline(answer);
    }
    note_why(exchange, why);
    ControlFlow::Continue(next)
}

/// Waits before the next try, if there have been several.
async fn wait(worker: &Worker, exchange: &Exchange) {
    let wait = retry::pause(exchange.tries.count, &mut Rng::seeded(Clock::moment().micros()));
    if !wait.is_zero() {
        sleep(wait).await;
    }
    worker.clock.renew();
}

/// Notes how a try ended.
fn note(exchange: &mut Exchange, outcome: TryOutcome, ended: Moment) {
    let Exchange { scratch, last, .. } = &mut *exchange;
    let phase = match outcome {
        TryOutcome::Status(_) | TryOutcome::Grpc(_) => Phase::Body,
        TryOutcome::Fault(_) if last.is_sent => Phase::FirstByte,
        TryOutcome::Fault(_) => Phase::Connect,
    };
    let of = (scratch.record.backend, scratch.record.reused);
    exchange.note_try(of, (phase, Some(outcome)), ended);
}

/// Notes why there is another, which begins now, or why there is none.
fn note_why(exchange: &mut Exchange, why: Option<Why>) {
    if let Some(tried) = exchange.scratch.tries.last_mut() {
        (tried.why, tried.next_at) = (why, Clock::moment());
    }
}

/// Reports a finished try, if the log level asks for it, and why there is no other.
fn tell(
    worker: &Worker,
    peer: &Peer,
    exchange: &mut Exchange,
    (outcome, refusal, ended): (TryOutcome, Option<RetryRefusal>, Moment),
) {
    let backend = exchange.scratch.record.backend;
    let Some(backend) = backend.filter(|_| worker.events.tells_attempts()) else { return };
    worker.events.attempt(Attempt {
        request: id_of(worker, peer, &mut exchange.scratch),
        pool: exchange.pool,
        backend,
        connected: exchange.last.is_sent,
        outcome,
        took: exchange.last.timed_from.map_or(Micros(0), |since| ended.since(since)),
        refusal,
    });
}

/// Any backend, on a new connection: the stale one says nothing about its backend. If all others
/// are full, the same one with its old permits.
fn fresh(
    worker: &Worker,
    exchange: &mut Exchange,
    pick: Option<Pick>,
) -> Result<Pick, RetryRefusal> {
    exchange.tries.stale_before = true;
    // A client that stays with this backend does not leave it for one bad connection.
    let pinned = exchange.scratch.reading.pinned();
    if (pinned.is_none() || pinned != exchange.scratch.record.backend)
        && let Ok(other) = choose(&exchange.errand(worker))
    {
        return Ok(other);
    }
    let pool = exchange.in_force.pool(exchange.pool);
    let same = pick.and_then(|pick| pool.pick_again(pick, worker.clock.tick()));
    same.ok_or(RetryRefusal::NoneLeft)
}

/// A backend that was not asked yet, if the pool's budget allows it. If all of them are full, a
/// request without any answer waits in the queue; one with an answer holds what others wait for,
/// and does not.
async fn elsewhere(
    worker: &Rc<Worker>,
    client: &Client,
    exchange: &mut Exchange,
    result: &mut Result<Answer, Fault>,
) -> Result<Pick, RetryRefusal> {
    let next = match alive(worker, exchange).map_or_else(|| choose(&exchange.errand(worker)), Ok) {
        Ok(next) => Ok(next),
        Err(NoPick::AllFull(what)) if result.is_err() && exchange.tries.declined.is_none() => {
            Err(what)
        }
        Err(NoPick::AllFull(_) | NoPick::NoneUsable) => return Err(RetryRefusal::NoneLeft),
    };
    let pool = exchange.in_force.pool(exchange.pool);
    if !pool.may_ask_again(exchange.pool_plan(), worker.clock.tick()) {
        return Err(RetryRefusal::BudgetSpent);
    }
    let next = match next {
        Ok(next) => next,
        Err(what) => match queue::wait(worker, client, exchange, what).await {
            Ok(next) => next,
            Err(fault) => {
                // In vain: the result of the try stands, unless the client has left.
                if fault.side == Side::Client {
                    *result = Err(fault);
                }
                return Err(RetryRefusal::NoneLeft);
            }
        },
    };
    Ok(next)
}

/// For the last try of a request that has found servers gone: one that is known to be there, as
/// several may go at one moment.
fn alive(worker: &Worker, exchange: &Exchange) -> Option<Pick> {
    if exchange.tries.count + 1 < exchange.pool_plan().retry.attempts {
        return None;
    }
    let mut errand = exchange.errand(worker);
    let tried = *errand.wanted.tried;
    let rather_not = tried | !errand.pool.alive(errand.wanted.now, tried);
    errand.wanted.tried = &rather_not;
    choose(&errand).ok()
}

/// Counts a retry, and what it is for.
fn count(worker: &Worker, exchange: &Exchange, outcome: TryOutcome) -> Option<Why> {
    let reason = match outcome {
        TryOutcome::Status(status) => Reason::Status(status),
        TryOutcome::Grpc(status) => Reason::Grpc(status),
        TryOutcome::Fault(fault) => Reason::Failure(fault.cause.failure()?),
    };
    worker.counters.tally().add(Key::Retries(exchange.pool, reason), 1);
    Some(Why::Retried(reason))
}

fn counter(refusal: RetryRefusal) -> Counter {
    match refusal {
        RetryRefusal::Answered => Counter::RetryAnswered,
        RetryRefusal::BodyGone => Counter::RetryBodyGone,
        RetryRefusal::NotIdempotent => Counter::RetryNotIdempotent,
        RetryRefusal::NotNamed => Counter::RetryNotNamed,
        RetryRefusal::TriesUsed => Counter::RetryTriesUsed,
        RetryRefusal::NoneLeft => Counter::RetryNoneLeft,
        RetryRefusal::BudgetSpent => Counter::RetryBudgetSpent,
    }
}
