//! Who is asked: at first, again, and after a wait in line.
//!
//! Which sets there are and what an algorithm makes of them is the pool's (`worker::PoolView`) and
//! `policy::balance`'s; here stands what of the exchange they are told.

use super::Exchange;
use crate::http::framing::BodyLength;
use crate::worker::{InFlight, Nobody, Picked, Wanted, Worker};

/// Every concern about a backend is one set; the algorithm sees only their intersection. Who is
/// picked has one request more in flight from here on.
pub(super) fn choose(worker: &Worker, exchange: &mut Exchange) -> Result<InFlight, Nobody> {
    let Exchange { in_force, scratch, length, .. } = exchange;
    let wanted = Wanted {
        tried: &scratch.tried,
        key: scratch.key,
        pinned: scratch.reading.pinned(),
        careful: !scratch.request.method.is_idempotent() || may_be_slow(*length),
        since: exchange.since,
        now: worker.clock.tick(),
    };
    let Picked { in_flight, trial } = in_force.pool(exchange.pool).pick(in_force, &wanted)?;
    exchange.trial = trial.map(Box::new);
    Ok(in_flight)
}

/// Whether its answer may have to wait for its client, which sends a body as fast as it likes.
fn may_be_slow(body: BodyLength) -> bool {
    match body {
        BodyLength::None | BodyLength::Fixed(0) => false,
        BodyLength::Fixed(_) | BodyLength::Chunked | BodyLength::UntilClose => true,
    }
}
