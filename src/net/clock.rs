//! The worker's clock: milliseconds since the process began, read once in a while.
//!
//! Deadlines are compared with the coarse reading; it is renewed when a request begins and at each
//! round of the sweep. Whoever needs the precise time asks for it.

use std::{
    cell::Cell,
    sync::OnceLock,
    time::{Duration, Instant},
};

static BEGINNING: OnceLock<Instant> = OnceLock::new();

/// A coarse clock that its owner renews.
pub(crate) struct Clock {
    now: Cell<u64>,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        let clock = Clock { now: Cell::new(0) };
        clock.renew();
        clock
    }

    /// The coarse reading, in milliseconds; never 0, which means "no deadline".
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.now.get()
    }

    /// Reads the precise clock and renews the coarse one; in microseconds since the process began.
    #[inline]
    pub(crate) fn renew(&self) -> u64 {
        let micros = precise();
        self.now.set(micros / 1000 + 1);
        micros
    }

    /// Says what time it is.
    #[cfg(test)]
    pub(crate) fn set(&self, now: u64) {
        self.now.set(now);
    }

    /// Whether a deadline has come; 0 never does.
    #[inline]
    pub(crate) fn is_over(&self, deadline: u64) -> bool {
        deadline != 0 && self.now() >= deadline
    }

    /// The coarse time at which something that may take `wait` is over; 0 = never.
    #[inline]
    pub(crate) fn after(&self, wait: Duration) -> u64 {
        if wait.is_zero() {
            0
        } else {
            self.now() + u64::try_from(wait.as_millis()).unwrap_or(u64::MAX / 2)
        }
    }
}

/// The precise clock, in microseconds since the process began.
#[inline]
pub(crate) fn precise() -> u64 {
    let since = BEGINNING.get_or_init(Instant::now).elapsed();
    since.as_secs() * 1_000_000 + u64::from(since.subsec_micros())
}

/// The earlier of two deadlines, of which 0 means never.
#[inline]
pub(crate) fn earlier(a: u64, b: u64) -> u64 {
    match (a, b) {
        (0, other) | (other, 0) => other,
        (a, b) => a.min(b),
    }
}
