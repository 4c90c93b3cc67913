//! The schedule of name lookups: which name is next, and what is known of each.
//!
//! Pure: time is what has passed since the first lookup, and the lookup itself is done elsewhere.
//! Names are looked up beside each other, again when their time to live is over and at the latest
//! after `resolve`; one whose lookup takes longer than that is looked up again after all that have
//! become due meanwhile.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::resolve::{Answer, Change, Found, Known};
use crate::plan::Address;

/// However soon an answer expires, a name rests for this long between two lookups, or for `resolve`
/// if that is shorter. Some servers let every answer expire at once.
const REST: Duration = Duration::from_secs(1);

/// The addresses of the names that have any.
pub(crate) type Members = BTreeMap<Address, Arc<[Found]>>;

/// The names that are looked up.
#[derive(Default)]
pub(crate) struct Lookups {
    names: BTreeMap<Address, Name>,
}

struct Name {
    /// From the beginning of one lookup to that of the next, at most.
    resolve: Duration,
    /// When it is due; none = a lookup is in progress.
    due: Option<Duration>,
    known: Known,
    /// The same for those who use them.
    found: Arc<[Found]>,
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
    /// From now on these are looked up, with the longest time between two lookups of each. New ones
    /// are due at once; what is known of the others stays.
    pub(crate) fn want(&mut self, wanted: impl Iterator<Item = (Address, Duration)>) {
        let mut before = std::mem::take(&mut self.names);
        self.names = wanted
            .map(|(address, resolve)| {
                let known = before.remove(&address).map(|name| Name { resolve, ..name });
                (address, known.unwrap_or_else(|| Name::new(resolve)))
            })
            .collect();
    }

    /// The name to look up next, and when; none if there are no names, or all lookups are in
    /// progress.
    pub(crate) fn next(&self) -> Option<(&Address, Duration)> {
        let due = self.names.iter().filter_map(|(address, name)| Some((address, name.due?)));
        due.min_by_key(|(_, due)| *due)
    }

    /// A lookup of this name has begun.
    pub(crate) fn begun(&mut self, address: &Address) {
        if let Some(name) = self.names.get_mut(address) {
            name.due = None;
        }
    }

    /// Whether a lookup of this name has ended, or it is not looked up.
    pub(crate) fn is_answered(&self, address: &Address) -> bool {
        self.names.get(address).is_none_or(|name| name.last != Last::NotYet)
    }

    /// The names that have not been answered yet: that is their answer.
    pub(crate) fn give_up(&mut self) -> Vec<Address> {
        let late = self.names.iter_mut().filter(|(_, name)| name.last == Last::NotYet);
        late.map(|(address, name)| {
            name.last = Last::Failed;
            address.clone()
        })
        .collect()
    }

    /// The addresses in use of all names that have any.
    pub(crate) fn members(&self) -> Members {
        let known = self.names.iter().filter(|(_, name)| !name.found.is_empty());
        known.map(|(address, name)| (address.clone(), Arc::clone(&name.found))).collect()
    }

    /// Records the answer of a lookup, none = it failed; returns what that changes, as far as it
    /// is news. `Change::Same` is news after a failure: the name resolves again.
    pub(crate) fn answered(
        &mut self,
        address: &Address,
        (began, ended): (Duration, Duration),
        answer: Option<&Answer>,
    ) -> Vec<Change> {
        let Some(name) = self.names.get_mut(address) else { return Vec::new() };
        let found = answer.map(|answer| &*answer.found);
        let (change, held) = name.known.take(began, name.resolve, found);
        name.due = Some(name.due_after(answer, (began, ended)));
        let (now, is_news) = match &change {
            Change::Now { .. } => {
                name.found = name.known.found().into();
                (Last::Good, true)
            }
            Change::Same | Change::Held { .. } => (Last::Good, name.last == Last::Failed),
            Change::Kept | Change::Unknown => (Last::Failed, name.last != Last::Failed),
        };
        name.last = now;
        is_news.then_some(change).into_iter().chain(held).collect()
    }
}

impl Name {
    fn new(resolve: Duration) -> Name {
        let (due, known, found) = (Some(Duration::ZERO), Known::default(), Arc::from([]));
        Name { resolve, due, known, found, last: Last::NotYet }
    }

    /// When it is looked up again.
    fn due_after(&self, answer: Option<&Answer>, (began, ended): (Duration, Duration)) -> Duration {
        let rest = REST.min(self.resolve);
        let after = match answer.filter(|answer| !answer.found.is_empty()) {
            Some(answer) => answer.time_to_live.unwrap_or(self.resolve).clamp(rest, self.resolve),
            // Nobody serves until there is an answer.
            None if self.known.found().is_empty() => rest,
            None => self.resolve,
        };
        // What is held is decided as soon as it can be.
        let decided = self.known.held_since().map(|since| since.saturating_add(self.resolve));
        let decided = decided.filter(|decided| *decided > began).unwrap_or(Duration::MAX);
        began.saturating_add(after).min(decided).max(ended)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Names `a`, `b` … with these intervals in milliseconds.
    fn lookups(intervals: &[u32]) -> Lookups {
        let mut lookups = Lookups::default();
        lookups.want((0..).zip(intervals).map(|(place, every)| (name(place), *every * MS)));
        lookups
    }

    fn name(place: u8) -> Address {
        Address::Name { host: ((b'a' + place) as char).to_string(), port: 80 }
    }

    fn address(number: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, number], 80))
    }

    fn answer(numbers: &[u8], time_to_live: Option<Duration>) -> Answer {
        let found = |number: &u8| Found { at: address(*number), service: None };
        Answer { found: numbers.iter().map(found).collect(), time_to_live }
    }

    /// Looks names up for a while, each lookup taking its name's time; "a0 b3 …": name and start.
    #[track_caller]
    fn check(intervals: &[u32], takes: &[u32], count: usize, expected: &str) {
        let mut lookups = lookups(intervals);
        let mut now = Duration::ZERO;
        let mut seen = Vec::new();
        for _ in 0..count {
            let (address, due) = lookups.next().unwrap();
            let address = address.clone();
            let Address::Name { host, .. } = &address else { unreachable!() };
            let began = now.max(due);
            now = began + takes[usize::from(host.as_bytes()[0] - b'a')] * MS;
            seen.push(format!("{host}{}", began.as_millis()));
            lookups.answered(&address, (began, now), Some(&answer(&[1], None)));
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
        let (a, b) = (name(0), name(1));
        lookups.begun(&a);
        assert_eq!(lookups.next(), Some((&b, Duration::ZERO)));
        lookups.begun(&b);
        assert_eq!(lookups.next(), None);
        lookups.answered(&b, (Duration::ZERO, 3 * MS), None);
        assert_eq!(lookups.next(), Some((&b, 10 * MS)));
        lookups.answered(&a, (Duration::ZERO, 30 * MS), None);
        assert_eq!(lookups.next(), Some((&b, 10 * MS)), "the silent one is behind");
    }

    /// After one answer to a name with 10 s, when it is due again.
    fn due(known: &[u8], answered: Option<(&[u8], Option<u64>)>) -> u64 {
        let mut lookups = lookups(&[10_000]);
        let at = |time| (time, time);
        if !known.is_empty() {
            lookups.answered(&name(0), at(Duration::ZERO), Some(&answer(known, None)));
        }
        let answered =
            answered.map(|(numbers, seconds)| answer(numbers, seconds.map(Duration::from_secs)));
        lookups.answered(&name(0), at(Duration::from_secs(100)), answered.as_ref());
        lookups.next().unwrap().1.as_secs() - 100
    }

    #[test]
    fn a_name_is_looked_up_again_when_its_answer_expires_and_at_the_latest_after_its_interval() {
        assert_eq!(due(&[], Some((&[1], None))), 10, "the hosts file");
        assert_eq!(due(&[], Some((&[1], Some(600)))), 10);
        assert_eq!(due(&[1], Some((&[1], Some(4)))), 4);
        assert_eq!(due(&[1], Some((&[1], Some(0)))), 1, "it rests");
        assert_eq!(due(&[1], None), 10);
        assert_eq!(due(&[1], Some((&[], Some(2)))), 10);
        assert_eq!(due(&[], None), 1, "nobody serves");
    }

    #[test]
    fn what_is_held_is_looked_at_as_soon_as_it_can_be_decided() {
        let mut lookups = lookups(&[10_000]);
        let second = Duration::from_secs(1);
        let mut take = |at: u32, numbers: &[u8]| {
            let answer = answer(numbers, Some(4 * second));
            lookups.answered(&name(0), (at * second, at * second), Some(&answer));
            (lookups.next().unwrap().1.as_secs(), lookups.members()[&name(0)].len())
        };
        assert_eq!(take(0, &[1, 2, 3]), (4, 3));
        assert_eq!(take(4, &[1]), (8, 3));
        assert_eq!(take(8, &[1]), (12, 3));
        assert_eq!(take(12, &[1]), (14, 3));
        assert_eq!(take(14, &[1]), (18, 1));
    }

    #[test]
    fn what_is_known_of_names_that_stay_stays() {
        let mut lookups = lookups(&[10, 10]);
        let at = |time| (time, time);
        lookups.answered(&name(1), at(MS), Some(&answer(&[1], None)));
        lookups.want([(name(1), 5 * MS), (name(2), 7 * MS)].into_iter());
        assert!(lookups.is_answered(&name(1)) && !lookups.is_answered(&name(2)));
        assert_eq!(lookups.members().keys().collect::<Vec<_>>(), [&name(1)]);
        assert_eq!(lookups.next(), Some((&name(2), Duration::ZERO)));
        assert_eq!(lookups.answered(&name(0), at(MS), None), [], "nobody asks for it any more");
        lookups.want(std::iter::empty());
        assert_eq!(lookups.next(), None);
    }

    #[test]
    fn what_is_news_is_told_once() {
        let now = |addresses: &[u8], gone: &[u8]| Change::Now {
            addresses: addresses.iter().copied().map(address).collect(),
            gone: gone.iter().copied().map(address).collect(),
        };
        let held = |lacking: &[u8]| Change::Held {
            lacking: lacking.iter().copied().map(address).collect(),
        };
        let mut lookups = lookups(&[10]);
        for (step, (numbers, expected)) in [
            (None, vec![Change::Unknown]),
            (None, vec![]),
            (Some(&[][..]), vec![]),
            (Some(&[1, 2]), vec![now(&[1, 2], &[])]),
            (Some(&[2, 1]), vec![]),
            (None, vec![Change::Kept]),
            (Some(&[]), vec![]),
            (Some(&[1, 2]), vec![Change::Same]),
            (None, vec![Change::Kept]),
            (Some(&[2, 3]), vec![now(&[2, 3], &[1])]),
            (Some(&[4]), vec![now(&[2, 3, 4], &[]), held(&[2, 3])]),
            (Some(&[4]), vec![]),
        ]
        .into_iter()
        .enumerate()
        {
            let answer = numbers.map(|numbers| answer(numbers, None));
            let told = lookups.answered(&name(0), (MS, MS), answer.as_ref());
            assert_eq!(told, expected, "step {step}");
        }
    }
}
