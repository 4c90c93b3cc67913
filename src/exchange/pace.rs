//! How slow a body may be, whichever way it goes (`body-rate`).
//!
//! It is a mean from the beginning on, so a body may pause for as long as it was ahead. Nothing is
//! ended here: a pace gives a deadline, and whoever waits hands it to the sweep.

use crate::net::clock;
use crate::worker::{InForce, Worker};

/// How long a body may be slower than `body-rate` at its beginning, in milliseconds.
const RATE_GRACE_MS: u64 = 5_000;

/// The slowest pace that a body may have, as a deadline: the moment at which the bytes so far
/// would be too few.
pub(super) struct Pace {
    began: u64,
    rate: u64,
}

impl Pace {
    pub(super) fn begin(worker: &Worker, in_force: &InForce) -> Pace {
        Pace { began: worker.clock.now(), rate: in_force.plan.limits.body_rate_min }
    }

    /// The earlier of a deadline and the moment at which `bytes` would be too few.
    pub(super) fn by(&self, bytes: u64, deadline: u64) -> u64 {
        if self.rate == 0 {
            return deadline;
        }
        let earned = bytes.saturating_mul(1000) / self.rate;
        clock::earlier(deadline, self.began.saturating_add(RATE_GRACE_MS).saturating_add(earned))
    }
}
