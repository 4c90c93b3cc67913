//! The list of the idle: client connections that wait for a next request, longest idle first.
//!
//! A list through the entries of the slab, so that coming and going cost a few stores whatever the
//! number. Whoever needs room closes from its beginning; why, and when, is not known here.

use super::Entry;

/// No entry.
pub(super) const NONE: u32 = u32::MAX;

/// How far the list is searched for a connection of a certain listener.
const SEARCH_MAX: usize = 1024;

/// Ends of the list: the longest idle, the latest.
#[derive(Default)]
pub(super) struct IdleList {
    first: Option<u32>,
    last: Option<u32>,
}

impl IdleList {
    /// The longest idle of all.
    pub(super) fn first(&self) -> Option<u32> {
        self.first
    }

    /// The longest idle, of one listener if `tag` says so.
    pub(super) fn longest(&self, entries: &[Entry], tag: Option<u16>) -> Option<u32> {
        let mut place = self.first;
        for _ in 0..SEARCH_MAX {
            let entry = &entries[place? as usize];
            if tag.is_none_or(|tag| tag == entry.tag) {
                return place;
            }
            place = (entry.next != NONE).then_some(entry.next);
        }
        None
    }

    /// An entry that was not idle joins at the end.
    pub(super) fn push(&mut self, entries: &mut [Entry], index: u32) {
        let previous = self.last.replace(index);
        match previous {
            Some(last) => entries[last as usize].next = index,
            None => self.first = Some(index),
        }
        let entry = &mut entries[index as usize];
        entry.idle = true;
        entry.previous = previous.unwrap_or(NONE);
        entry.next = NONE;
    }

    /// An entry leaves, if it was idle.
    pub(super) fn remove(&mut self, entries: &mut [Entry], index: u32) {
        let entry = &mut entries[index as usize];
        if !entry.idle {
            return;
        }
        entry.idle = false;
        let (previous, next) = (entry.previous, entry.next);
        match previous {
            NONE => self.first = (next != NONE).then_some(next),
            place => entries[place as usize].next = next,
        }
        match next {
            NONE => self.last = (previous != NONE).then_some(previous),
            place => entries[place as usize].previous = previous,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        os::{fd::AsRawFd, unix::net::UnixStream},
        rc::Rc,
    };

    use crate::base::rng::Rng;
    use crate::net::{
        clock::Clock,
        deadlines::{Deadlines, Ended, Ends, Watched},
    };

    /// Chance against a plain queue: who comes, goes, rests and is needed again, in any order.
    #[test]
    fn the_list_of_the_idle_is_a_queue_whatever_happens() {
        for seed in 0..64 {
            let mut rng = Rng::seeded(seed);
            let deadlines = Deadlines::new(Rc::new(Clock::new()));
            // One descriptor for all: what is shut down does not matter here.
            let (ours, _peer) = UnixStream::pair().unwrap();
            let mut watched: Vec<(u64, Watched)> = Vec::new();
            let mut queue: VecDeque<u64> = VecDeque::new();
            for step in 1..400_u64 {
                let at = rng.below(watched.len() as u32) as usize;
                match (rng.below(6), watched.get(at)) {
                    (0 | 1, _) | (_, None) => {
                        let new = deadlines.watch(ours.as_raw_fd(), Ends::Reading, 0);
                        watched.push((step, new));
                    }
                    (2, Some((name, one))) => {
                        one.busy();
                        queue.retain(|other| other != name);
                    }
                    (3, Some((name, _))) => {
                        queue.retain(|other| other != name);
                        watched.swap_remove(at);
                    }
                    (_, Some((name, one))) => {
                        one.idle(step, 0);
                        if !queue.contains(name) {
                            queue.push_back(*name);
                        }
                    }
                }
                assert_eq!(deadlines.len(), watched.len(), "seed {seed}, step {step}");
            }
            while let Some(name) = queue.pop_front() {
                assert!(deadlines.close_longest_idle(None), "seed {seed}: {name} is missing");
                let ended = |(_, one): &&(u64, Watched)| one.ended() == Ended::Closed;
                let closed: Vec<u64> = watched.iter().filter(ended).map(|(one, _)| *one).collect();
                assert_eq!(closed, [name], "seed {seed}");
                watched.retain(|(other, _)| *other != name);
            }
            assert!(!deadlines.close_longest_idle(None), "seed {seed}");
        }
    }
}
