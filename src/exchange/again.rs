//! Whether a request is asked again, and of whom.
//!
//! A request that got a good answer does not come here. What may be repeated is decided in
//! `policy`; here it is carried out: what was sent of the body is taken back, an answer that was
//! not taken is kept in case no better one comes, and what is refused is counted.

use std::{ops::ControlFlow, rc::Rc};

use super::{Answer, Exchange, attempt, run::choose};
use crate::base::rng::Rng;
use crate::http::fault::Fault;
use crate::net::{clock, io::sleep};
use crate::observe::events::Tried;
use crate::policy::retry::{self, Decision, Outcome, Refusal};
use crate::proto::h1::Client;
use crate::shared::counters::Counter;
use crate::worker::{InFlight, Worker};

/// Who is asked next; or, where nobody is, the result that stands.
pub(super) async fn another(
    worker: &Rc<Worker>,
    client: &mut Client,
    exchange: &mut Exchange,
    outcome: Outcome,
    mut result: Result<Answer, Fault>,
) -> ControlFlow<Result<Answer, Fault>, InFlight> {
    if let Ok(answer) = &mut result {
        attempt::release(client, exchange, answer).await;
    }
    let next = match retry::again(&exchange.plan().retry, &exchange.attempt(outcome)) {
        Decision::Keep => return ControlFlow::Break(exchange.settle(result)),
        Decision::Refused(refusal) => Err(refusal),
        Decision::Fresh => fresh(worker, exchange),
        Decision::Another => elsewhere(worker, exchange),
    };
    tell(worker, exchange, outcome, next.as_ref().err().copied());
    let next = match next {
        Ok(next) => next,
        Err(refusal) => {
            worker.count(counter(refusal));
            return ControlFlow::Break(exchange.settle(result));
        }
    };
    if let Ok(answer) = result {
        exchange.decline(answer);
    }
    let wait = retry::pause(exchange.tries, &mut Rng::seeded(clock::precise()));
    if !wait.is_zero() {
        sleep(wait).await;
    }
    worker.clock.renew();
    ControlFlow::Continue(next)
}

/// Tells of a try that is over, where the log is to say that much.
fn tell(worker: &Worker, exchange: &mut Exchange, outcome: Outcome, refusal: Option<Refusal>) {
    let record = &mut exchange.scratch.record;
    let Some(backend) = record.backend.filter(|_| worker.events.tells_tries()) else { return };
    worker.events.tried(Tried {
        request: *record.request_id.get_or_insert_with(|| worker.request_id()),
        pool: exchange.pool,
        backend,
        connected: exchange.request_sent,
        outcome,
        micros: clock::precise().saturating_sub(exchange.asked),
        refusal,
    });
}

/// Anybody, on a new connection: the one that was kept says nothing about its backend.
fn fresh(worker: &Worker, exchange: &mut Exchange) -> Result<InFlight, Refusal> {
    exchange.stale_before = true;
    exchange.tries -= 1;
    // A client that stays with this backend does so for more than a connection that was bad.
    let pinned = exchange.scratch.reading.pinned();
    if (pinned.is_none() || pinned != exchange.scratch.record.backend)
        && let Ok(other) = choose(worker, exchange)
    {
        return Ok(other);
    }
    let Exchange { in_force, scratch, .. } = exchange;
    let pool = in_force.pool(exchange.pool);
    let same = scratch.record.backend.and_then(|id| pool.pick_again(in_force, id));
    same.map(|picked| picked.in_flight).ok_or(Refusal::NoneLeft)
}

/// One who was not asked yet, if the pool's budget allows it.
fn elsewhere(worker: &Worker, exchange: &mut Exchange) -> Result<InFlight, Refusal> {
    let next = choose(worker, exchange).map_err(|_| Refusal::NoneLeft)?;
    let pool = exchange.in_force.pool(exchange.pool);
    if !pool.may_ask_again(exchange.plan(), worker.clock.now()) {
        return Err(Refusal::BudgetSpent);
    }
    worker.count(Counter::Retries);
    Ok(next)
}

fn counter(refusal: Refusal) -> Counter {
    match refusal {
        Refusal::Answered => Counter::RetryAnswered,
        Refusal::BodyGone => Counter::RetryBodyGone,
        Refusal::NotIdempotent => Counter::RetryNotIdempotent,
        Refusal::NotNamed => Counter::RetryNotNamed,
        Refusal::TriesUsed => Counter::RetryTriesUsed,
        Refusal::NoneLeft => Counter::RetryNoneLeft,
        Refusal::BudgetSpent => Counter::RetryBudgetSpent,
    }
}
