//! Waiting in front of a full pool: until a backend has room, the time is over, or the client has
//! left.

use std::rc::Rc;

use super::{Exchange, choose::choose};
use crate::http::fault::{Cause, Fault};
use crate::net::{clock::Clock, leaving::Leaves};
use crate::proto::h1::Client;
use crate::worker::{InFlight, Nobody, Place, WaitsFor, Worker};

/// Waits for room at a backend.
pub(super) async fn wait(
    worker: &Rc<Worker>,
    client: &Client,
    exchange: &mut Exchange,
    what: WaitsFor,
) -> Result<InFlight, Fault> {
    let since = Clock::moment();
    let picked = wait_until_called(worker, client, exchange, what).await;
    exchange.in_force.left_the_queue(exchange.pool);
    worker.clock.renew();
    if exchange.scratch.record.logged {
        let times = &mut exchange.scratch.record.times;
        let waited = Clock::moment().since(since);
        times.queue = Some(times.queue.unwrap_or_default() + waited);
        times.waited += waited;
    }
    picked
}

async fn wait_until_called(
    worker: &Rc<Worker>,
    client: &Client,
    exchange: &mut Exchange,
    what: WaitsFor,
) -> Result<InFlight, Fault> {
    let timeout = worker.clock.after(exchange.pool_plan().queue.timeout);
    let by = exchange.deadline.earlier(timeout);
    let for_client = exchange.for_client(client, Leaves::End);
    let now = worker.clock.tick();
    let place = Place::take(&exchange.in_force, exchange.pool, by, (now, Some(for_client)), what);
    let place = place.ok_or(Cause::QueueFull)?;
    exchange.since = Some(place.since());
    // Whether there may be more to learn from the client's socket than that it closes.
    let mut silent = true;
    let (mut looks, mut was_called) = (place.is_first(), false);
    if !looks {
        place.comes_behind();
    }
    loop {
        while looks {
            match choose(worker, exchange) {
                Ok(picked) => return Ok(picked),
                Err(Nobody::Usable) => return Err(Cause::NoBackend.into()),
                Err(Nobody::Free(what)) => looks = place.wait_for(what),
            }
        }
        if was_called {
            place.passes_on();
        }
        while !place.called().is_raised() {
            if silent {
                let readable = client.stream.readable();
                silent = place.called().or(readable).await.is_none();
            } else {
                place.called().or(std::future::pending::<()>()).await;
            }
            if for_client.has_left() {
                return Err(Cause::ClientAbort.into());
            }
        }
        worker.clock.renew();
        if worker.clock.is_over(exchange.deadline) {
            return Err(Cause::Deadline.into());
        }
        if worker.clock.is_over(place.by()) {
            return Err(Cause::QueueTimeout.into());
        }
        place.renew();
        (looks, was_called) = (true, true);
    }
}
