//! The worker's clock: its last coarse reading, the precise clock, and wall time.
//!
//! Deadlines are compared with the coarse reading; it is updated when a request begins and at each
//! round of the sweep. The precise clock is read to measure durations. Wall time is computed from
//! the precise clock, so it is read at most four times a second.

use std::{
    cell::Cell,
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::base::moment::{Deadline, Micros, Moment, Tick, UnixMillis, UnixSeconds};

static BEGINNING: OnceLock<Instant> = OnceLock::new();

/// How long wall time is computed from one reading: a step of the clock may go unnoticed for this
/// long.
const WALL_GOOD: Micros = Micros(250_000);

/// A coarse clock that its owner updates.
pub(crate) struct Clock {
    tick: Cell<Tick>,
    /// The precise reading that the coarse one was made of.
    last: Cell<Moment>,
    wall: Cell<Option<Wall>>,
}

/// A reading of wall time.
#[derive(Clone, Copy)]
struct Wall {
    read_at: Moment,
    /// From 1970 to the start of the precise clock.
    beginning: Micros,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        let now = Clock::moment();
        Clock { tick: Cell::new(now.tick()), last: Cell::new(now), wall: Cell::new(None) }
    }

    /// The coarse reading.
    #[inline]
    pub(crate) fn tick(&self) -> Tick {
        self.tick.get()
    }

    /// The precise clock, as of when it was last renewed.
    #[inline]
    pub(crate) fn last(&self) -> Moment {
        self.last.get()
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

    /// How long this thread has been running on a processor so far.
    pub(crate) fn worked() -> Micros {
        let worked = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let part = |number: i64| u64::try_from(number).unwrap_or(0);
        Micros(part(worked.tv_sec) * 1_000_000 + part(worked.tv_nsec) / 1_000)
    }

    /// Reads the precise clock and updates the coarse one.
    #[inline]
    pub(crate) fn renew(&self) -> Moment {
        let moment = Clock::moment();
        self.tick.set(moment.tick());
        self.last.set(moment);
        moment
    }

    /// Wall time at this moment.
    #[inline]
    pub(crate) fn unix(&self, moment: Moment) -> UnixMillis {
        let known = self.wall.get().filter(|wall| moment.since(wall.read_at) < WALL_GOOD);
        let wall = known.unwrap_or_else(|| self.read_wall());
        UnixMillis((wall.beginning.0 + moment.micros()) / 1000)
    }

    /// Wall time, read anew: for what is no request.
    pub(crate) fn unix_now() -> UnixSeconds {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixSeconds(now.as_secs())
    }

    #[cold]
    fn read_wall(&self) -> Wall {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = Micros(u64::try_from(now.as_micros()).unwrap_or_default());
        let read_at = Clock::moment();
        let wall = Wall { read_at, beginning: micros - Micros(read_at.micros()) };
        self.wall.set(Some(wall));
        wall
    }

    /// Sets the time.
    #[cfg(test)]
    pub(crate) fn set(&self, tick: Tick) {
        self.tick.set(tick);
        self.last.set(tick.moment());
    }

    /// Whether a deadline has passed.
    #[inline]
    pub(crate) fn is_over(&self, deadline: Deadline) -> bool {
        deadline.is_over(self.tick())
    }

    /// The deadline of something that begins now and may take `span`.
    #[inline]
    pub(crate) fn after(&self, span: Duration) -> Deadline {
        Deadline::after(self.tick(), span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_is_read_once_in_a_while_and_reckoned_in_between() {
        let clock = Clock::new();
        let read_at = Moment::from_micros(5_000_000);
        clock.wall.set(Some(Wall { read_at, beginning: Micros(70_000_000) }));
        let at = |micros| clock.unix(Moment::from_micros(micros));
        assert_eq!(at(4_999_000), UnixMillis(74_999), "the coarse clock may be behind");
        assert_eq!(at(5_249_999), UnixMillis(75_249));
        assert!(at(5_250_000) > UnixMillis(1_700_000_000_000), "it has been read anew");
    }
}
