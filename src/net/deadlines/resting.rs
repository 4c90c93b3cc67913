//! Resting connections: nothing is in flight on them, and they make room when it is needed.
//!
//! A list for each listener and each kind of rest runs through the entries of the slab, so that
//! joining and leaving cost a few stores whatever the number, and connections of one listener do
//! not hide those of another. Room is made from the beginning of a list; the caller decides when
//! and why.

use super::{
    Deadlines, SLICE, Slab,
    ended::Ended,
    entry::{Entry, Kind},
};
use crate::base::{ids::ListenerId, moment::Tick};
use crate::net::fd;

/// No entry.
pub(super) const NONE: u32 = u32::MAX;

/// Connections that are checked for one that can make room. Those passed over have sent what their
/// task reads in this turn, so a second look later finds others.
const LOOKS_MAX: usize = 16;

/// Connections that are checked for those that can be given away.
const LATEST_LOOKS_MAX: usize = 256;

/// The kinds of rest, in the order in which they make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// It has had its last answer, and is read until its client has seen that.
    Lingering,
    /// It is new, and has not sent anything.
    Silent,
    /// It waits for its next request.
    Idle,
}

const KINDS: [Rest; 3] = [Rest::Lingering, Rest::Silent, Rest::Idle];

/// One list: the longest resting, the latest, and how many there are.
#[derive(Clone, Copy)]
struct List {
    first: u32,
    last: u32,
    len: u32,
}

const EMPTY: List = List { first: NONE, last: NONE, len: 0 };

/// The lists of all listeners.
#[derive(Default)]
pub(super) struct Resting {
    by_listener: Vec<[List; KINDS.len()]>,
}

impl Resting {
    /// The next to make room: the longest resting of the first kind that has any, of this listener
    /// or of any. `may_go` decides.
    pub(super) fn next_to_go(
        &self,
        entries: &[Entry],
        listener: Option<ListenerId>,
        may_go: impl Fn(&Entry) -> bool,
    ) -> Option<u32> {
        let mut looks = LOOKS_MAX;
        let mut look = |list: &List| {
            let mut place = list.first;
            while place != NONE && looks > 0 {
                let entry = &entries[place as usize];
                if may_go(entry) {
                    return Some(place);
                }
                looks -= 1;
                place = entry.next;
            }
            None
        };
        KINDS.iter().find_map(|kind| {
            let lists = || self.by_listener.iter().map(|lists| &lists[*kind as usize]);
            match listener {
                Some(id) => look(lists().nth(id.index())?),
                None => lists()
                    .filter_map(|list| Some((entries.get(list.first as usize)?.since, list)))
                    .min_by_key(|(since, _)| *since)
                    .and_then(|(_, list)| look(list))
                    .or_else(|| lists().find_map(&mut look)),
            }
        })
    }

    /// The longest resting of one kind and listener.
    pub(super) fn first(&self, listener: ListenerId, kind: Rest) -> u32 {
        self.by_listener.get(listener.index()).map_or(NONE, |lists| lists[kind as usize].first)
    }

    /// The latest of one kind and listener.
    fn last(&self, listener: ListenerId, kind: Rest) -> u32 {
        self.by_listener.get(listener.index()).map_or(NONE, |lists| lists[kind as usize].last)
    }

    /// The listeners that have lists.
    pub(super) fn listeners(&self) -> impl Iterator<Item = ListenerId> + use<> {
        (0..self.by_listener.len() as u16).map(ListenerId)
    }

    /// An entry that did not rest joins at the end.
    pub(super) fn push(&mut self, entries: &mut [Entry], index: u32, kind: Rest) {
        let listener = entries[index as usize].listener.index();
        if self.by_listener.len() <= listener {
            self.by_listener.resize(listener + 1, [EMPTY; KINDS.len()]);
        }
        let list = &mut self.by_listener[listener][kind as usize];
        list.len += 1;
        let previous = std::mem::replace(&mut list.last, index);
        if previous == NONE {
            list.first = index;
        } else {
            entries[previous as usize].next = index;
        }
        let entry = &mut entries[index as usize];
        entry.rest = Some(kind);
        entry.previous = previous;
        entry.next = NONE;
    }

    /// An entry leaves, if it rested.
    pub(super) fn remove(&mut self, entries: &mut [Entry], index: u32) {
        let entry = &mut entries[index as usize];
        let Some(kind) = entry.rest.take() else { return };
        let (previous, next) = (entry.previous, entry.next);
        let list = &mut self.by_listener[entry.listener.index()][kind as usize];
        list.len -= 1;
        match previous {
            NONE => list.first = next,
            place => entries[place as usize].next = next,
        }
        match next {
            NONE => list.last = previous,
            place => entries[place as usize].previous = previous,
        }
    }
}

impl Deadlines {
    /// How many client connections of this listener are silent or idle.
    pub(crate) fn resting(&self, listener: ListenerId) -> u32 {
        let slab = self.slab.borrow();
        let lists = slab.resting.by_listener.get(listener.index());
        lists.map_or(0, |lists| {
            [Rest::Silent, Rest::Idle].iter().map(|kind| lists[*kind as usize].len).sum()
        })
    }

    /// Closes the client connection that is next to make room, of this listener or of any; false if
    /// none rests. One with a request in its socket does not rest.
    pub(crate) fn make_room(&self, listener: Option<ListenerId>) -> bool {
        let slab = &mut *self.slab.borrow_mut();
        let next = slab.resting.next_to_go(&slab.entries, listener, Entry::may_go);
        let Some(index) = next else { return false };
        slab.close_resting(index);
        true
    }

    /// Closes the connection that has lingered longest.
    pub(crate) fn close_longest_lingering(&self) {
        let slab = &mut *self.slab.borrow_mut();
        let longest = slab
            .resting
            .listeners()
            .map(|id| slab.resting.first(id, Rest::Lingering))
            .filter(|place| *place != NONE)
            .min_by_key(|place| slab.entries[*place as usize].since);
        if let Some(index) = longest {
            slab.close_resting(index);
        }
    }

    /// Closes client connections that have been silent or idle since `until` or longer, the longest
    /// of each listener first, at most a slice of them.
    pub(crate) fn close_resting_since(&self, until: Tick) {
        self.close_resting(|_| true, Some(until));
    }

    /// Wakes the tasks of connections that carry streams, so that they see that the worker drains.
    pub(crate) fn wake_multiplexed(&self) {
        let slab = self.slab.borrow();
        let multiplexed = slab.entries.iter().filter(|it| it.kind == Kind::Multiplexed);
        multiplexed.for_each(Entry::wake);
    }

    /// Closes resting client connections of these listeners; at most a slice of them.
    pub(crate) fn close_resting_of(&self, is_meant: impl Fn(ListenerId) -> bool) {
        self.close_resting(is_meant, None);
    }

    /// Marks resting client connections of these listeners as given away, at most a slice of them,
    /// and wakes their tasks.
    pub(crate) fn give_away_resting(&self, is_meant: impl Fn(ListenerId) -> bool) {
        let slab = &mut *self.slab.borrow_mut();
        let mut left = SLICE;
        for id in slab.resting.listeners().filter(|id| is_meant(*id)) {
            for kind in [Rest::Silent, Rest::Idle] {
                loop {
                    let place = slab.resting.first(id, kind);
                    if place == NONE || left == 0 {
                        break;
                    }
                    left -= 1;
                    slab.resting.remove(&mut slab.entries, place);
                    let entry = &mut slab.entries[place as usize];
                    entry.end_resting(Ended::GivenAway);
                }
            }
        }
    }

    /// Marks idle client connections of these listeners as given away, the latest first and at most
    /// `count`, and wakes their tasks; none that has been idle since before `since`, and none that
    /// carries streams. Returns how many there were.
    pub(crate) fn give_away_latest(
        &self,
        count: usize,
        since: Tick,
        is_meant: impl Fn(ListenerId) -> bool,
    ) -> usize {
        let slab = &mut *self.slab.borrow_mut();
        let (mut given, mut looks) = (0, LATEST_LOOKS_MAX);
        for id in slab.resting.listeners().filter(|id| is_meant(*id)) {
            let mut place = slab.resting.last(id, Rest::Idle);
            while place != NONE && given < count && looks > 0 {
                looks -= 1;
                let entry = &slab.entries[place as usize];
                if entry.since < since {
                    break;
                }
                let (index, is_plain) = (place, entry.kind == Kind::Client);
                place = entry.previous;
                if is_plain {
                    slab.resting.remove(&mut slab.entries, index);
                    slab.entries[index as usize].end_resting(Ended::GivenAway);
                    given += 1;
                }
            }
        }
        given
    }

    fn close_resting(&self, is_meant: impl Fn(ListenerId) -> bool, until: Option<Tick>) {
        let slab = &mut *self.slab.borrow_mut();
        let mut left = SLICE;
        for id in slab.resting.listeners().filter(|id| is_meant(*id)) {
            for kind in [Rest::Silent, Rest::Idle] {
                let mut place = slab.resting.first(id, kind);
                while place != NONE && left > 0 {
                    let entry = &slab.entries[place as usize];
                    if until.is_some_and(|until| entry.since > until) {
                        break;
                    }
                    let (index, may_go) = (place, entry.may_go());
                    place = entry.next;
                    left -= 1;
                    if may_go {
                        slab.close_resting(index);
                    }
                }
            }
        }
    }
}

impl Slab {
    /// Marks it as ended and wakes the task, which says so and closes it; nothing is read before.
    fn close_resting(&mut self, index: u32) {
        self.resting.remove(&mut self.entries, index);
        let entry = &mut self.entries[index as usize];
        entry.end_resting(Ended::Closed);
    }
}

impl Entry {
    /// Whether it really rests: bytes in its socket are a request that came before us.
    fn may_go(&self) -> bool {
        self.rest == Some(Rest::Lingering) || !fd::has_bytes(self.fd)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::{fd::AsRawFd, unix::net::UnixStream},
        rc::Rc,
    };

    use super::*;
    use crate::base::{
        moment::{Deadline, Tick},
        rng::Rng,
    };
    use crate::net::{
        clock::Clock,
        deadlines::{Deadlines, Ended, Watch, Watched},
    };

    /// Random events against a plain list: connections of three listeners come, leave, rest and are
    /// needed again, in any order. The right one makes room, whichever listener asks.
    #[test]
    fn the_lists_are_queues_whatever_happens() {
        for seed in 0..64 {
            let mut rng = Rng::seeded(seed);
            let deadlines = Deadlines::new(Rc::new(Clock::new()));
            // One descriptor for all: what is shut down does not matter here.
            let (ours, _peer) = UnixStream::pair().unwrap();
            let mut watched: Vec<(u64, ListenerId, Watched)> = Vec::new();
            let mut queue: Vec<(Rest, u64, ListenerId)> = Vec::new();
            for step in 1..400_u64 {
                let at = rng.below(watched.len() as u32) as usize;
                match (rng.below(7), watched.get(at)) {
                    (0 | 1, _) | (_, None) => {
                        let listener = ListenerId(rng.below(3) as u16);
                        watched.push((
                            step,
                            listener,
                            deadlines.watch(ours.as_raw_fd(), Watch::Client(listener)),
                        ));
                    }
                    (2, Some((name, _, one))) => {
                        one.busy();
                        queue.retain(|(_, other, _)| other != name);
                    }
                    (3, Some((name, ..))) => {
                        queue.retain(|(_, other, _)| other != name);
                        watched.swap_remove(at);
                    }
                    (_, Some((name, listener, one))) => {
                        let kind = KINDS[rng.below(3) as usize];
                        if !queue.iter().any(|(_, other, _)| other == name) {
                            queue.push((kind, *name, *listener));
                        }
                        one.rests(kind, Tick::from_millis(step), Deadline::NEVER);
                    }
                }
                assert_eq!(deadlines.len(), watched.len(), "seed {seed}, step {step}");
            }
            queue.sort_by_key(|(kind, ..)| *kind as u8);
            while !queue.is_empty() {
                let of = Some(ListenerId(rng.below(4) as u16)).filter(|of| of.0 < 3);
                let goes = queue.iter().position(|(.., its)| of.is_none_or(|of| of == *its));
                assert_eq!(deadlines.make_room(of), goes.is_some(), "seed {seed}");
                let Some(goes) = goes else { continue };
                let (_, name, _) = queue.remove(goes);
                let ended =
                    |(.., one): &&(u64, ListenerId, Watched)| one.reading() == Some(Ended::Closed);
                let closed: Vec<u64> = watched.iter().filter(ended).map(|(one, ..)| *one).collect();
                assert_eq!(closed, [name], "seed {seed}");
                watched.retain(|(other, ..)| *other != name);
            }
            assert!(!deadlines.make_room(None), "seed {seed}");
        }
    }

    #[test]
    fn those_that_asked_last_are_given_away_and_no_others() {
        let deadlines = Deadlines::new(Rc::new(Clock::new()));
        let (ours, _peer) = UnixStream::pair().unwrap();
        let watch =
            |listener| deadlines.watch(ours.as_raw_fd(), Watch::Client(ListenerId(listener)));
        let rests = |one: &Watched, ms| {
            one.rests(Rest::Idle, Tick::from_millis(ms), Deadline::NEVER);
        };
        let all: Vec<_> = [0, 0, 0, 0, 0, 1, 2].map(watch).into();
        all[4].is_multiplexed();
        all.iter().zip([10, 100, 120, 130, 140, 150, 160]).for_each(|(one, ms)| rests(one, ms));
        all[3].busy();
        let is_meant = |ListenerId(listener)| listener < 2;
        let given = |count| {
            let given = deadlines.give_away_latest(count, Tick::from_millis(100), is_meant);
            let is_given = |it: &Watched| it.reading() == Some(Ended::GivenAway);
            (given, all.iter().map(is_given).collect::<Vec<_>>())
        };
        let [y, n] = [true, false];
        assert_eq!(given(1), (1, vec![n, n, y, n, n, n, n]));
        assert_eq!(given(9), (2, vec![n, y, y, n, n, y, n]));
        all[1].goes_on();
        assert_eq!(given(9), (0, vec![n, n, y, n, n, y, n]));
    }

    /// 1,200 that rest at one listener do not hide the only one of another.
    #[test]
    fn one_listener_does_not_hide_what_rests_at_another() {
        let deadlines = Deadlines::new(Rc::new(Clock::new()));
        let (ours, _peer) = UnixStream::pair().unwrap();
        let watch =
            |listener| deadlines.watch(ours.as_raw_fd(), Watch::Client(ListenerId(listener)));
        let many: Vec<_> = (0..1_200).map(|_| watch(0)).collect();
        many.iter().for_each(|one| one.rests(Rest::Idle, Tick::from_millis(1), Deadline::NEVER));
        let other = watch(1);
        other.rests(Rest::Idle, Tick::from_millis(2), Deadline::NEVER);
        assert!(deadlines.make_room(Some(ListenerId(1))));
        assert_eq!(other.reading(), Some(Ended::Closed));
        assert!(
            !deadlines.make_room(Some(ListenerId(1))) && !deadlines.make_room(Some(ListenerId(7)))
        );
    }
}
