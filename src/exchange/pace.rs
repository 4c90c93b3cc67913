//! How slow a body may be, whichever way it goes (`body-rate`).
//!
//! It is a mean, so a body may pause for as long as it was ahead. Its clock runs only while we wait
//! for the client, to send or to read: it is not to blame for a backend that does not take a body
//! or has nothing more of one. Nothing is ended here: a pace gives a deadline, and the sweep
//! enforces it.

use std::{cell::Cell, time::Duration};

use crate::base::moment::{Deadline, Tick};
use crate::net::clock::Clock;

/// How long a body may be slower than `body-rate` at its beginning: the time a connection over a
/// bad link takes to get going (Apache: 20 s for a head, 10 s for a body).
const RATE_GRACE: Duration = Duration::from_secs(10);

/// The slowest allowed pace of a peer, as a deadline: the moment at which the bytes so far would be
/// too few.
pub(super) struct Pace<'a> {
    clock: &'a Clock,
    rate: u64,
    /// How long that peer was waited for.
    waited: Cell<Duration>,
    /// Since when it is waited for, if it is.
    since: Cell<Option<Tick>>,
}

impl Pace<'_> {
    /// `rate` is in bytes per second; 0 = any rate.
    pub(super) fn begin(clock: &Clock, rate: u64) -> Pace<'_> {
        Pace { clock, rate, waited: Cell::default(), since: Cell::default() }
    }

    /// The peer is waited for from now on. Returns the earlier of a deadline and the moment at
    /// which `bytes` would be too few.
    pub(super) fn wait(&self, bytes: u64, deadline: Deadline) -> Deadline {
        if self.rate == 0 {
            return deadline;
        }
        self.clock.renew();
        deadline.earlier(Deadline::at(self.wait_from(self.clock.tick(), bytes)))
    }

    /// The peer is not waited for any more: the clock stops.
    pub(super) fn rest(&self) {
        if self.rate != 0 {
            self.clock.renew();
            self.rest_from(self.clock.tick());
        }
    }

    fn wait_from(&self, now: Tick, bytes: u64) -> Tick {
        self.rest_from(now);
        self.since.set(Some(now));
        let earned = Duration::from_millis(bytes.saturating_mul(1000) / self.rate);
        now + (RATE_GRACE + earned).saturating_sub(self.waited.get())
    }

    fn rest_from(&self, now: Tick) {
        if let Some(since) = self.since.take() {
            self.waited.set(self.waited.get() + now.since(since));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Tick {
        Tick::from_millis(millis)
    }

    #[test]
    fn the_clock_runs_only_while_the_peer_is_waited_for() {
        let clock = Clock::new();
        let pace = Pace::begin(&clock, 500);
        // For no bytes at the beginning, and for as many bytes as are due in a minute.
        assert_eq!(pace.wait_from(at(1_000), 0), at(11_000));
        assert_eq!(pace.wait_from(at(1_000), 30_000), at(71_000));
        // Another wait for the same peer continues with the same time.
        assert_eq!(pace.wait_from(at(5_000), 30_000), at(71_000));
        // The other side was waited for, an hour long.
        pace.rest_from(at(6_000));
        pace.rest_from(at(7_000));
        assert_eq!(pace.wait_from(at(3_606_000), 30_000), at(3_671_000));
        assert_eq!(pace.wait_from(at(3_607_000), 30_500), at(3_672_000));
        // All is used up.
        pace.rest_from(at(3_700_000));
        assert_eq!(pace.wait_from(at(3_800_000), 30_500), at(3_800_000));
        assert!(pace.wait_from(at(3_900_000), u64::MAX) > at(u64::MAX / 1_000));
    }

    #[test]
    fn without_a_rate_nobody_is_too_slow() {
        let clock = Clock::new();
        let pace = Pace::begin(&clock, 0);
        let seven = Deadline::at(at(7));
        assert_eq!(pace.wait(0, Deadline::NEVER), Deadline::NEVER);
        assert_eq!(pace.wait(0, seven), seven);
        pace.rest();
    }
}
