//! What a thread counts by name: of a listener, a route, a pool, a backend, and by a code or a
//! reason. There may be many such counts, and few of them are ever used.
//!
//! Each thread has one tally, which it alone writes, with plain loads and stores; anybody reads it.
//! A count is found by its `Key` and comes into being when it is first used, so what is never
//! counted takes no room. It never moves. It stays for as long as the thread does, whatever plan is
//! in force: keys hold seats (`policy/seats`), and a seat that is given anew begins at nought
//! (`forget`).

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release},
};

use crate::base::ids::{BackendId, ListenerId, PoolId, RouteId};
use crate::http::fault::Failure;

/// What is counted, and of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    /// Client connections open.
    Connections(ListenerId),
    /// Those of them that are idle, as of the last round of the core's sweep.
    Idle(ListenerId),
    /// Exchanges that have ended, by the status that the client was sent; 0 = none.
    Requests(ListenerId, Option<RouteId>, u16),
    /// Requests that wait in line.
    Queued(PoolId),
    /// Requests asked again, by what had happened.
    Retries(PoolId, Reason),
    /// Tries that have ended, by the status of the answer; 0 = none.
    Tries(PoolId, BackendId, u16),
    /// The present state of a backend, as the health thread packs it.
    Present(PoolId, BackendId),
    /// How often it was ejected.
    Ejections(PoolId, BackendId),
    /// Probes that failed, by the kind of failure.
    FailedProbes(PoolId, BackendId, u16),
    /// What of `load::Moved` is not in a backend's row: what is rare, or of a process before.
    Moved(PoolId, BackendId, u16),
    /// Tries without an answer that was used, or with one that was cut, by `Failure`; one more than
    /// the last of these is the latter.
    Failed(PoolId, BackendId, u16),
}

/// Why a request was asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// An answer of this status.
    Status(u16),
    /// No answer that was used.
    Failure(Failure),
    /// An answer of this status of gRPC.
    Grpc(u8),
}

/// Above the failures, below every status: where the statuses of gRPC are.
const GRPC: u16 = 64;

/// The kind of `Key::Failed` for an answer that was cut.
pub(crate) const CUT: u16 = Failure::ALL.len() as u16;

impl Reason {
    fn pack(self) -> u64 {
        match self {
            Reason::Status(status) => status.into(),
            // Below every status.
            Reason::Failure(failure) => failure as u64,
            Reason::Grpc(status) => u64::from(GRPC) + u64::from(status),
        }
    }

    fn unpack(packed: u16) -> Reason {
        if let of_grpc @ 0..=16 = packed.wrapping_sub(GRPC) {
            return Reason::Grpc(of_grpc as u8);
        }
        let failure = Failure::ALL.get(usize::from(packed));
        failure.map_or(Reason::Status(packed), |failure| Reason::Failure(*failure))
    }
}

impl Key {
    /// A word that is not zero: from the top a byte that says which it is, then what it is of.
    /// Where the kind of key is known, as it is where something is counted, this is a few shifts.
    #[inline(always)]
    fn pack(self) -> u64 {
        let word = |kind: u64, one: u16, other: u64, last: u64| {
            kind << 56 | u64::from(one) << 40 | other << 16 | last
        };
        match self {
            Key::Connections(listener) => word(1, listener.0, 0, 0),
            Key::Idle(listener) => word(2, listener.0, 0, 0),
            Key::Requests(listener, route, code) => {
                let route = route.map_or(0, |route| u64::from(route.0) + 1);
                word(3, listener.0, route, code.into())
            }
            Key::Queued(pool) => word(4, pool.0, 0, 0),
            Key::Retries(pool, reason) => word(5, pool.0, 0, reason.pack()),
            Key::Tries(pool, backend, code) => word(6, pool.0, backend.0.into(), code.into()),
            Key::Present(pool, backend) => word(7, pool.0, backend.0.into(), 0),
            Key::Ejections(pool, backend) => word(8, pool.0, backend.0.into(), 0),
            Key::FailedProbes(pool, backend, kind) => {
                word(9, pool.0, backend.0.into(), kind.into())
            }
            Key::Moved(pool, backend, what) => word(10, pool.0, backend.0.into(), what.into()),
            Key::Failed(pool, backend, how) => word(11, pool.0, backend.0.into(), how.into()),
        }
    }

    #[allow(clippy::cast_possible_truncation)] // parts are taken out
    fn unpack(word: u64) -> Option<Key> {
        let (one, other, last) = ((word >> 40) as u16, word >> 16 & 0xFF_FFFF, word as u16);
        Some(match word >> 56 {
            1 => Key::Connections(ListenerId(one)),
            2 => Key::Idle(ListenerId(one)),
            3 => {
                let route = other.checked_sub(1).map(|route| RouteId(route as u16));
                Key::Requests(ListenerId(one), route, last)
            }
            4 => Key::Queued(PoolId(one)),
            5 => Key::Retries(PoolId(one), Reason::unpack(last)),
            6 => Key::Tries(PoolId(one), BackendId(other as u16), last),
            7 => Key::Present(PoolId(one), BackendId(other as u16)),
            8 => Key::Ejections(PoolId(one), BackendId(other as u16)),
            9 => Key::FailedProbes(PoolId(one), BackendId(other as u16), last),
            10 => Key::Moved(PoolId(one), BackendId(other as u16), last),
            11 => Key::Failed(PoolId(one), BackendId(other as u16), last),
            _ => return None,
        })
    }
}

/// A count and its key; 0 = nobody's yet.
#[derive(Default)]
struct Entry {
    key: AtomicU64,
    count: AtomicU64,
}

const ENTRIES_OF_LINE: usize = 8;

/// The entries that a key may be at. Two cache lines, as processors fetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Line([Entry; ENTRIES_OF_LINE]);

/// Lines of the first table: 64 counts.
const LINES: usize = 8;

/// How many tables there may be: 131,008 counts, 2 MiB for each core. Only backends that answer
/// with hundreds of codes on a thousand routes lead to more.
const TABLES: usize = 11;

/// What one thread counts by name.
pub(crate) struct Tally {
    first: [Line; LINES],
    /// Each has twice the lines of the one before, and is made when that is full where it is
    /// wanted.
    more: [OnceLock<Box<[Line]>>; TABLES - 1],
    /// Where no room was found.
    lost: AtomicU64,
}

impl Tally {
    pub(crate) fn new() -> Tally {
        let more = [const { OnceLock::new() }; TABLES - 1];
        Tally { first: Default::default(), more, lost: AtomicU64::new(0) }
    }

    /// Adds to a count. Only the tally's thread may call it.
    #[inline(always)]
    pub(crate) fn add(&self, key: Key, amount: u64) {
        self.add_to(key.pack(), amount);
    }

    /// Takes from a count. Only the tally's thread may call it.
    #[inline(always)]
    pub(crate) fn sub(&self, key: Key, amount: u64) {
        self.add_to(key.pack(), amount.wrapping_neg());
    }

    /// Sets a count. Only the tally's thread may call it.
    pub(crate) fn set(&self, key: Key, value: u64) {
        self.count(key.pack()).store(value, Relaxed);
    }

    /// A count as it stands.
    #[cfg(test)]
    pub(crate) fn read(&self, key: Key) -> u64 {
        self.all().filter(|(other, _)| *other == key).map(|(_, count)| count).sum()
    }

    /// All counts that are not nought.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Key, u64)> {
        self.entries().filter_map(|entry| {
            let key = Key::unpack(entry.key.load(Acquire))?;
            Some((key, entry.count.load(Relaxed))).filter(|(_, count)| *count != 0)
        })
    }

    /// Sets these counts to nought: what they are of is gone, and its seat may be given to another.
    /// Nobody counts for them any more, so any thread may call it.
    pub(crate) fn forget(&self, is_gone: impl Fn(Key) -> bool) {
        for entry in self.entries() {
            if Key::unpack(entry.key.load(Acquire)).is_some_and(&is_gone) {
                entry.count.store(0, Relaxed);
            }
        }
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        let more = self.more.iter().map_while(OnceLock::get).flatten();
        self.first.iter().chain(more).flat_map(|line| &line.0)
    }

    fn add_to(&self, key: u64, amount: u64) {
        let count = self.count(key);
        count.store(count.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    #[inline]
    fn count(&self, key: u64) -> &AtomicU64 {
        let hash = hash(key);
        for entry in &self.first[place(hash) & (LINES - 1)].0 {
            let found = entry.key.load(Relaxed);
            if found == key {
                return &entry.count;
            }
            if found == 0 {
                return begin(entry, key);
            }
        }
        self.further(key, hash)
    }

    /// Looks in the tables behind the first. No entry is ever given back: a key that is not in a
    /// line with room is in no table.
    #[cold]
    fn further(&self, key: u64, hash: u64) -> &AtomicU64 {
        for (table, count) in self.more.iter().zip(1..) {
            let table = table.get_or_init(|| lines(LINES << count));
            let line = table.get(place(hash) & (table.len() - 1));
            for entry in line.into_iter().flat_map(|line| &line.0) {
                let found = entry.key.load(Relaxed);
                if found == key {
                    return &entry.count;
                }
                if found == 0 {
                    return begin(entry, key);
                }
            }
        }
        &self.lost
    }
}

fn lines(count: usize) -> Box<[Line]> {
    (0..count).map(|_| Line::default()).collect()
}

/// Fibonacci hashing: the upper bits depend on all of the key.
#[inline]
fn hash(key: u64) -> u64 {
    key.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Which line of a table it leads to, as many as its lowest bits say.
#[inline]
fn place(hash: u64) -> usize {
    (hash >> 40) as usize
}

#[cold]
fn begin(entry: &Entry, key: u64) -> &AtomicU64 {
    entry.key.store(key, Release);
    &entry.count
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// One of each kind for each of these numbers.
    fn keys(number: u16) -> Vec<Key> {
        let (listener, pool, backend) = (ListenerId(number), PoolId(number), BackendId(number));
        let failures = Failure::ALL.map(|failure| Key::Retries(pool, Reason::Failure(failure)));
        let mut keys = vec![
            Key::Connections(listener),
            Key::Idle(listener),
            Key::Requests(listener, None, 200),
            Key::Requests(listener, Some(RouteId(number)), 0),
            Key::Requests(ListenerId(0), Some(RouteId(number)), 999),
            Key::Queued(pool),
            Key::Retries(pool, Reason::Status(503)),
            Key::Retries(pool, Reason::Grpc(14)),
            Key::Tries(pool, backend, 0),
            Key::Tries(PoolId(u16::MAX), backend, u16::MAX),
            Key::Present(pool, backend),
            Key::Ejections(pool, backend),
            Key::FailedProbes(pool, backend, number),
        ];
        keys.extend(failures);
        keys
    }

    #[test]
    fn a_key_is_a_word_and_no_other_keys() {
        let mut words = HashMap::new();
        for key in [0, 1, 255, 256, u16::MAX].into_iter().flat_map(keys) {
            assert_eq!(Key::unpack(key.pack()), Some(key));
            let other = words.insert(key.pack(), key).unwrap_or(key);
            assert_eq!(other, key);
        }
        assert_eq!((Key::unpack(0), words.contains_key(&0)), (None, false));
    }

    #[test]
    fn every_count_is_found_again_however_many_there_are() {
        let tally = Tally::new();
        let mut expected = HashMap::new();
        for round in 1..=3 {
            for key in (0..400).flat_map(keys) {
                tally.add(key, round);
                *expected.entry(key).or_insert(0) += round;
            }
        }
        let count = expected.len();
        assert_eq!(tally.all().collect::<HashMap<_, _>>(), expected);
        assert_eq!(tally.all().count(), count, "each stands there once");
        for key in (0..400).flat_map(keys) {
            tally.sub(key, expected.remove(&key).unwrap_or_default());
        }
        assert_eq!(tally.all().next(), None);
        let key =
            |number: u32| Key::Tries(PoolId((number >> 16) as u16), BackendId(number as u16), 1);
        (0..200_000).for_each(|number| tally.add(key(number), 1));
        let (found, lost) = (tally.all().count() as u64, tally.lost.load(Relaxed));
        assert!(found > 90_000 && found + lost == 200_000, "{found} and {lost}");
    }

    #[test]
    fn a_seat_that_is_given_anew_begins_at_nought() {
        let tally = Tally::new();
        let key = |pool| Key::Tries(PoolId(pool), BackendId(1), 200);
        tally.add(key(1), 5);
        tally.add(key(2), 7);
        tally.forget(|key| matches!(key, Key::Tries(PoolId(1), ..)));
        assert_eq!(tally.all().collect::<Vec<_>>(), [(key(2), 7)]);
        tally.add(key(1), 1);
        assert_eq!((tally.read(key(1)), tally.read(key(2))), (1, 7));
    }

    #[test]
    fn what_a_thread_counts_others_read_while_it_counts() {
        let tally = Tally::new();
        let key = |number: u16| Key::Requests(ListenerId(0), Some(RouteId(number % 500)), 200);
        std::thread::scope(|scope| {
            let counts = scope.spawn(|| (0..50_000).for_each(|number| tally.add(key(number), 1)));
            let mut before = 0;
            while !counts.is_finished() {
                let sum: u64 = tally.all().map(|(_, count)| count).sum();
                assert!(sum >= before);
                before = sum;
                std::thread::yield_now();
            }
        });
        assert_eq!(tally.all().map(|(_, count)| count).sum::<u64>(), 50_000);
        assert_eq!(tally.all().count(), 500);
    }

    #[test]
    fn no_line_crosses_two_pairs_of_cache_lines() {
        assert_eq!((size_of::<Line>(), align_of::<Line>()), (128, 128));
    }
}
