//! The worker's clock: when it was read last, and what the precise clock says now.
//!
//! Deadlines are compared with the coarse reading; it is renewed when a request begins and at each
//! round of the sweep. The precise clock is read where a time is measured.

use std::{
    cell::Cell,
    sync::OnceLock,
    time::{Duration, Instant},
};

use crate::base::moment::{Deadline, Moment, Tick};

static BEGINNING: OnceLock<Instant> = OnceLock::new();

/// A coarse clock that its owner renews.
pub(crate) struct Clock {
    tick: Cell<Tick>,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        Clock { tick: Cell::new(Clock::moment().tick()) }
    }

    /// The coarse reading.
    #[inline]
    pub(crate) fn tick(&self) -> Tick {
        self.tick.get()
    }

    /// The precise reading.
    #[inline]
    pub(crate) fn moment() -> Moment {
        #[cfg(test)]
        if let Some(played) = crate::testkit::play::now() {
            return played;
        }
        let since = BEGINNING.get_or_init(Instant::now).elapsed();
        Moment::from_micros(since.as_secs() * 1_000_000 + u64::from(since.subsec_micros()))
    }

    /// Reads the precise clock and renews the coarse one.
    #[inline]
    pub(crate) fn renew(&self) -> Moment {
        let moment = Clock::moment();
        self.tick.set(moment.tick());
        moment
    }

    /// Says what time it is.
    #[cfg(test)]
    pub(crate) fn set(&self, tick: Tick) {
        self.tick.set(tick);
    }

    /// Whether a deadline has come.
    #[inline]
    pub(crate) fn is_over(&self, deadline: Deadline) -> bool {
        deadline.is_over(self.tick())
    }

    /// When something is over that begins now and may take `span`.
    #[inline]
    pub(crate) fn after(&self, span: Duration) -> Deadline {
        Deadline::after(self.tick(), span)
    }
}
