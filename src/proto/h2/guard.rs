//! What a peer may make a connection do for nothing, by kind: so many times at once, and so many a
//! second.
//!
//! Honest peers do each of these things at times; whoever does them all the time means harm (CVE
//! 2019-9511 to 9518, 2023-44487, 2024-27316, 2025-8671). The bounds are far above what browsers,
//! curl and gRPC do, and far below what would slow others down: a core takes some millions of such
//! frames a second.

use crate::base::moment::Tick;

/// A thing that costs us more than the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Abuse {
    /// Streams that are reset before their answer ("rapid reset").
    Resets,
    /// Streams that we have to reset ("made you reset").
    Provoked,
    /// Blocks in too many frames, or of too many bytes, or that become heads that are too large.
    Heads,
    Settings,
    Pings,
    /// Priorities, of RFC 7540 and RFC 9218.
    Priorities,
    WindowUpdates,
    /// Frames of a body without a byte and without an end.
    EmptyData,
    /// Frames for streams that have ended, and of unknown kinds.
    Useless,
}

/// A kind, what may come at once, and what may come each second.
const BOUNDS: [(Abuse, u32, u32); 9] = [
    // A page that is left resets all of its streams, at most 100.
    (Abuse::Resets, 300, 50),
    (Abuse::Provoked, 150, 20),
    (Abuse::Heads, 20, 2),
    (Abuse::Settings, 20, 2),
    // gRPC pings to learn how much is under way.
    (Abuse::Pings, 1_000, 200),
    (Abuse::Priorities, 1_000, 200),
    // Besides those for what we have sent.
    (Abuse::WindowUpdates, 1_000, 500),
    (Abuse::EmptyData, 200, 50),
    (Abuse::Useless, 1_000, 200),
];

impl Abuse {
    #[cfg(test)]
    pub(crate) fn all() -> impl Iterator<Item = Abuse> {
        BOUNDS.into_iter().map(|(abuse, ..)| abuse)
    }

    /// For people.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Abuse::Resets => "it resets streams before they are answered",
            Abuse::Provoked => "it makes us reset streams",
            Abuse::Heads => "its heads are too large, or in too many frames",
            Abuse::Settings => "it sends settings all the time",
            Abuse::Pings => "it sends pings all the time",
            Abuse::Priorities => "it sends priorities all the time",
            Abuse::WindowUpdates => "it gives room for nothing all the time",
            Abuse::EmptyData => "it sends empty frames all the time",
            Abuse::Useless => "it sends frames that mean nothing all the time",
        }
    }
}

/// The count of each thing, less what may come in the time that has passed.
#[derive(Default)]
pub(super) struct Guard {
    counts: [u32; BOUNDS.len()],
    since: Option<Tick>,
}

impl Guard {
    /// Time passes.
    #[inline]
    pub(super) fn looks(&mut self, now: Tick) {
        let since = *self.since.get_or_insert(now);
        let seconds = now.since(since).as_secs();
        if seconds > 0 {
            self.since = Some(now);
            let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
            for (count, (_, _, rate)) in self.counts.iter_mut().zip(BOUNDS) {
                *count = count.saturating_sub(rate.saturating_mul(seconds));
            }
        }
    }

    /// Something comes once more; whether it has come too often.
    #[inline]
    pub(super) fn notes(&mut self, what: Abuse) -> bool {
        match (self.counts.get_mut(what as usize), BOUNDS.get(what as usize)) {
            (Some(count), Some((_, most, _))) => {
                *count += 1;
                *count > *most
            }
            _ => false,
        }
    }

    /// It may come this many times for a reason.
    #[inline]
    pub(super) fn excuses(&mut self, what: Abuse, times: u32) {
        if let Some(count) = self.counts.get_mut(what as usize) {
            *count = count.saturating_sub(times);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_its_time_is_never_too_much_and_a_flood_is() {
        for (place, (what, most, rate)) in BOUNDS.into_iter().enumerate() {
            assert_eq!(what as usize, place, "a table in the order of its kinds");
            let mut guard = Guard::default();
            guard.looks(Tick::from_millis(1));
            assert!((0..most).all(|_| !guard.notes(what)) && guard.notes(what), "{what:?}");
            // All that it may at once, and then its rate for an hour.
            let mut guard = Guard::default();
            guard.looks(Tick::from_millis(1));
            assert!((0..most).all(|_| !guard.notes(what)));
            for second in 1..3_600 {
                guard.looks(Tick::from_millis(1 + second * 1_000));
                assert!((0..rate).all(|_| !guard.notes(what)), "{what:?}");
            }
            assert!(guard.notes(what), "and not one more");
            guard.excuses(what, 2);
            assert!(!guard.notes(what));
        }
        assert_eq!(Abuse::all().count(), BOUNDS.len());
    }
}
