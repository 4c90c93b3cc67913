//! The schedule of name lookups: which name is next, and what is known of each.
//!
//! Pure: time is what has passed since the first lookup, and the lookup itself is done elsewhere.
//! Names are looked up concurrently; one that takes longer than its interval is looked up again
//! after all that have become due meanwhile.

use std::{net::SocketAddr, time::Duration};

use super::resolve::{Change, change};

/// The names of a plan, each known by its index in it.
pub(crate) struct Lookups {
    names: Vec<Name>,
}

struct Name {
    /// From the beginning of one lookup to that of the next.
    every: Duration,
    /// When it is due; none = a lookup is in progress.
    due: Option<Duration>,
    known: Vec<SocketAddr>,
    last: Last,
}

/// How the last lookup ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    NotYet,
    Good,
    Failed,
}

impl Lookups {
    /// For names with these intervals, all due at once.
    pub(crate) fn new(intervals: impl Iterator<Item = Duration>) -> Lookups {
        let name = |every| Name {
            every,
            due: Some(Duration::ZERO),
            known: Vec::new(),
            last: Last::NotYet,
        };
        Lookups { names: intervals.map(name).collect() }
    }

    /// The name to look up next, and when; none if there are no names, or all lookups are in
    /// progress.
    pub(crate) fn next(&self) -> Option<(usize, Duration)> {
        let due = self.names.iter().enumerate();
        let due = due.filter_map(|(place, name)| Some((place, name.due?)));
        due.min_by_key(|(_, due)| *due)
    }

    /// A lookup of this name has begun.
    pub(crate) fn begun(&mut self, place: usize) {
        if let Some(name) = self.names.get_mut(place) {
            name.due = None;
        }
    }

    /// The addresses in use.
    pub(crate) fn known(&self, place: usize) -> &[SocketAddr] {
        self.names.get(place).map_or(&[], |name| &name.known)
    }

    /// Records the answer of a lookup, none = it failed; returns what it changes, if that is news.
    /// `Change::Same` is news after a failure: the name resolves again.
    pub(crate) fn answered(
        &mut self,
        place: usize,
        (began, ended): (Duration, Duration),
        answer: Option<&[SocketAddr]>,
    ) -> Option<Change> {
        let name = self.names.get_mut(place)?;
        name.due = Some(began.saturating_add(name.every).max(ended));
        let change = change(&name.known, answer);
        let (now, is_news) = match &change {
            Change::Now { addresses, .. } => {
                name.known.clone_from(addresses);
                (Last::Good, true)
            }
            Change::Same => (Last::Good, name.last == Last::Failed),
            Change::Kept | Change::Unknown => (Last::Failed, name.last != Last::Failed),
        };
        name.last = now;
        is_news.then_some(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn lookups(intervals: &[u32]) -> Lookups {
        Lookups::new(intervals.iter().map(|every| *every * MS))
    }

    /// Looks names up for a while, each lookup taking its name's time; "a0 b3 …": name and start.
    #[track_caller]
    fn check(intervals: &[u32], takes: &[u32], count: usize, expected: &str) {
        let mut lookups = lookups(intervals);
        let mut now = Duration::ZERO;
        let mut seen = Vec::new();
        for _ in 0..count {
            let (place, due) = lookups.next().unwrap();
            let began = now.max(due);
            now = began + takes[place] * MS;
            lookups.answered(place, (began, now), None);
            seen.push(format!("{}{}", (b'a' + place as u8) as char, began.as_millis()));
        }
        assert_eq!(seen.join(" "), expected);
    }

    #[test]
    fn each_name_is_looked_up_at_its_own_interval() {
        check(&[10], &[0], 4, "a0 a10 a20 a30");
        check(&[10, 25], &[0, 0], 6, "a0 b0 a10 a20 b25 a30");
        // The time that a lookup takes does not add up.
        check(&[10], &[4], 3, "a0 a10 a20");
    }

    #[test]
    fn a_slow_name_does_not_keep_the_others_from_their_turn() {
        check(&[10, 10], &[100, 1], 5, "a0 b100 a101 b201 a202");
        check(&[10, 10, 10], &[100, 1, 1], 6, "a0 b100 c101 a102 b202 c203");
    }

    #[test]
    fn a_name_that_is_being_looked_up_is_not_due() {
        let mut lookups = lookups(&[10, 10]);
        lookups.begun(0);
        assert_eq!(lookups.next(), Some((1, Duration::ZERO)));
        lookups.begun(1);
        assert_eq!(lookups.next(), None);
        lookups.answered(1, (Duration::ZERO, 3 * MS), None);
        assert_eq!(lookups.next(), Some((1, 10 * MS)));
        lookups.answered(0, (Duration::ZERO, 30 * MS), None);
        assert_eq!(lookups.next(), Some((1, 10 * MS)), "the silent one is behind");
    }

    #[test]
    fn there_may_be_no_names() {
        assert_eq!(lookups(&[]).next(), None);
    }

    #[test]
    fn what_is_news_is_told_once() {
        let address = |number: u8| SocketAddr::from(([10, 0, 0, number], 80));
        let now = |addresses: &[u8], gone: &[u8]| Change::Now {
            addresses: addresses.iter().copied().map(address).collect(),
            gone: gone.iter().copied().map(address).collect(),
        };
        let mut lookups = lookups(&[10]);
        for (step, (answer, expected)) in [
            (None, Some(Change::Unknown)),
            (None, None),
            (Some(&[][..]), None),
            (Some(&[1, 2]), Some(now(&[1, 2], &[]))),
            (Some(&[2, 1]), None),
            (None, Some(Change::Kept)),
            (Some(&[]), None),
            (Some(&[1, 2]), Some(Change::Same)),
            (None, Some(Change::Kept)),
            (Some(&[2, 3]), Some(now(&[2, 3], &[1]))),
        ]
        .into_iter()
        .enumerate()
        {
            let answer: Option<Vec<_>> =
                answer.map(|numbers| numbers.iter().copied().map(address).collect());
            let told = lookups.answered(0, (MS, MS), answer.as_deref());
            assert_eq!(told, expected, "step {step}");
        }
        assert_eq!(lookups.known(0), [address(2), address(3)]);
    }
}
