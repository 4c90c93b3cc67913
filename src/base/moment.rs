//! Types for time: readings of the coarse and the precise clock, deadlines, and wall time.
//!
//! The clocks count from the start of the process; `net::clock` reads them. A span is a `Duration`,
//! or `Micros` where every request measures some and a division each time would cost. A reading is
//! never zero inside, so an `Option` of one takes no more room than the reading.

use std::{
    num::NonZeroU64,
    ops::{Add, AddAssign, Sub},
    time::Duration,
};

/// A reading of the coarse clock, in milliseconds. Its owner updates that clock now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(NonZeroU64);

/// A reading of the precise clock, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(NonZeroU64);

/// The tick at which something is due, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Deadline(Option<Tick>);

/// A span between two moments, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Micros(pub(crate) u64);

/// Wall time: milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UnixMillis(pub(crate) u64);

/// Wall time: seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UnixSeconds(pub(crate) u64);

/// A span in whole milliseconds; `u64::MAX` if it is longer than the clock can count.
#[inline]
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Tick {
    /// The tick this many milliseconds after the start of the process.
    #[inline]
    pub(crate) const fn from_millis(millis: u64) -> Tick {
        Tick(NonZeroU64::MIN.saturating_add(millis))
    }

    /// Milliseconds since the start of the process.
    #[inline]
    pub(crate) const fn millis(self) -> u64 {
        self.0.get() - 1
    }

    /// The same point in time on the precise clock.
    #[inline]
    pub(crate) const fn moment(self) -> Moment {
        Moment::from_micros(self.millis().saturating_mul(1000))
    }

    /// How long ago `earlier` was; zero if it is still to come.
    #[inline]
    pub(crate) fn since(self, earlier: Tick) -> Duration {
        Duration::from_millis(self.0.get().saturating_sub(earlier.0.get()))
    }

    /// The tick this long before; at the earliest the start of the process.
    #[inline]
    pub(crate) fn before(self, span: Duration) -> Tick {
        Tick::from_millis(self.millis().saturating_sub(millis(span)))
    }
}

impl Add<Duration> for Tick {
    type Output = Tick;

    #[inline]
    fn add(self, span: Duration) -> Tick {
        Tick(self.0.saturating_add(millis(span)))
    }
}

impl Moment {
    /// The moment this many microseconds after the start of the process.
    #[inline]
    pub(crate) const fn from_micros(micros: u64) -> Moment {
        Moment(NonZeroU64::MIN.saturating_add(micros))
    }

    /// Microseconds since the start of the process.
    #[inline]
    pub(crate) const fn micros(self) -> u64 {
        self.0.get() - 1
    }

    /// The coarse clock's reading at this moment.
    #[inline]
    pub(crate) const fn tick(self) -> Tick {
        Tick::from_millis(self.micros() / 1000)
    }

    /// How long ago `earlier` was; zero if it is still to come.
    #[inline]
    pub(crate) const fn since(self, earlier: Moment) -> Micros {
        Micros(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl Deadline {
    /// No bound.
    pub(crate) const NEVER: Deadline = Deadline(None);

    /// Due at this tick.
    #[inline]
    pub(crate) const fn at(tick: Tick) -> Deadline {
        Deadline(Some(tick))
    }

    /// For something that begins now and may take `span`. A span of zero means no bound, as in the
    /// configuration; no other code interprets zero.
    #[inline]
    pub(crate) fn after(now: Tick, span: Duration) -> Deadline {
        if span.is_zero() { Deadline::NEVER } else { Deadline(Some(now + span)) }
    }

    /// The tick, if there is one.
    #[inline]
    pub(crate) const fn tick(self) -> Option<Tick> {
        self.0
    }

    /// Whether it never comes.
    #[inline]
    pub(crate) const fn is_never(self) -> bool {
        self.0.is_none()
    }

    /// Whether it has come.
    #[inline]
    pub(crate) fn is_over(self, now: Tick) -> bool {
        self.0.is_some_and(|tick| tick <= now)
    }

    /// The earlier of two.
    #[inline]
    pub(crate) fn earlier(self, other: Deadline) -> Deadline {
        match (self.0, other.0) {
            (None, _) => other,
            (_, None) => self,
            (Some(one), Some(two)) => Deadline(Some(one.min(two))),
        }
    }
}

impl From<Option<Tick>> for Deadline {
    #[inline]
    fn from(tick: Option<Tick>) -> Deadline {
        Deadline(tick)
    }
}

impl Add for Micros {
    type Output = Micros;

    #[inline]
    fn add(self, other: Micros) -> Micros {
        Micros(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Micros {
    #[inline]
    fn add_assign(&mut self, other: Micros) {
        *self = *self + other;
    }
}

impl Sub for Micros {
    type Output = Micros;

    #[inline]
    fn sub(self, other: Micros) -> Micros {
        Micros(self.0.saturating_sub(other.0))
    }
}

impl UnixMillis {
    /// The second that contains it.
    #[inline]
    pub(crate) const fn seconds(self) -> UnixSeconds {
        UnixSeconds(self.0 / 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(millis: u64) -> Tick {
        Tick::from_millis(millis)
    }

    #[test]
    fn readings_come_back_as_they_were_made() {
        for number in [0, 1, 999, 1_000, 123_456_789, 1 << 40] {
            assert_eq!(tick(number).millis(), number);
            assert_eq!(Moment::from_micros(number).micros(), number);
            assert_eq!(Moment::from_micros(number).tick(), tick(number / 1000));
        }
        assert_eq!(size_of::<(Option<Tick>, Option<Moment>, Deadline)>(), 24);
    }

    #[test]
    fn spans_stop_at_the_ends_of_the_clock() {
        assert_eq!(tick(7).since(tick(4)), Duration::from_millis(3));
        assert_eq!(tick(4).since(tick(7)), Duration::ZERO);
        assert_eq!(Moment::from_micros(4).since(Moment::from_micros(7)), Micros(0));
        assert_eq!(tick(7).before(Duration::from_millis(4)), tick(3));
        assert_eq!(tick(7).before(Duration::MAX), tick(0));
        assert!(tick(1) + Duration::MAX > tick(u64::MAX - 2));
        assert_eq!(Micros(u64::MAX) + Micros(1), Micros(u64::MAX));
        assert_eq!(Micros(1) - Micros(2), Micros(0));
    }

    #[test]
    fn a_deadline_comes_or_never_does() {
        let at = |millis| Deadline::at(tick(millis));
        assert!(!at(5).is_over(tick(4)) && at(5).is_over(tick(5)) && at(5).is_over(tick(6)));
        assert!(!Deadline::NEVER.is_over(tick(u64::MAX)));
        assert_eq!(at(5).earlier(at(6)), at(5));
        assert_eq!(at(6).earlier(at(5)), at(5));
        assert_eq!(at(6).earlier(Deadline::NEVER), at(6));
        assert_eq!(Deadline::NEVER.earlier(at(6)), at(6));
        assert_eq!(Deadline::after(tick(5), Duration::from_millis(2)), at(7));
        assert!(Deadline::after(tick(5), Duration::ZERO).is_never());
        // Less than the clock can tell is due at once, which is not never.
        assert_eq!(Deadline::after(tick(5), Duration::from_nanos(1)), at(5));
    }

    #[test]
    fn milliseconds_lie_in_a_second() {
        assert_eq!(UnixMillis(1_999).seconds(), UnixSeconds(1));
    }
}
