//! Trial permits: while a backend is half-open or back from an ejection, exactly so many requests
//! at once try it, over all cores.
//!
//! A permit is a lease. A trial ends with the head of its answer, and that may come late through no
//! fault of the backend: an upload that drips, a path that takes its time. So if no permit is left
//! and none was taken for `LEASE_MS`, one more is given, and the next only after a time that is
//! longer by that much again: no client can keep a backend out, and one that hangs gets few
//! requests. The end of a lease decides nothing; the result of its trial still counts while the
//! period lasts.
//!
//! One word per backend. The health thread alone begins and ends a period of trials, which changes
//! the epoch; any core takes a permit and returns it, and its permit remembers the epoch, so one of
//! an earlier period never counts in a later one. Touched only while a backend is on trial: an
//! exception to single writers.

use std::sync::Arc;

use super::atomics::{AtomicU64, Relaxed};
use crate::base::{ids::BackendId, moment::Tick, segments::Segments};

/// How long a trial has its permit for itself, in milliseconds. Nearly all heads come sooner; and
/// if the backend on trial is the only one, no other request is answered meanwhile.
const LEASE_MS: u64 = 1_000;

/// The contents of a word: `epoch << 48 | taken << 20 | left`.
#[derive(Clone, Copy)]
struct Word {
    /// The number of the period.
    epoch: u64,
    /// When the last permit was taken: the truncated millisecond of its `Tick`. It wraps every
    /// three days, and then a lease may be a second longer. 0 = its lease is over.
    taken: u64,
    /// Permits that are left, plus `NONE_LEFT`: below that some lease is over and its permit was
    /// given once more. 0 = not on trial.
    left: u64,
}

const EPOCH_BITS: u32 = 16;
const TAKEN_BITS: u32 = 28;
const LEFT_BITS: u32 = 20;
const NONE_LEFT: u64 = 1 << (LEFT_BITS - 1);

impl Word {
    fn of(word: u64) -> Word {
        let low = |bits: u32| (1 << bits) - 1;
        Word {
            epoch: word >> (TAKEN_BITS + LEFT_BITS),
            taken: word >> LEFT_BITS & low(TAKEN_BITS),
            left: word & low(LEFT_BITS),
        }
    }

    fn packed(self) -> u64 {
        let Word { epoch, taken, left } = self;
        (epoch << TAKEN_BITS | taken) << LEFT_BITS | left
    }

    /// With one permit less, if one may be taken.
    fn with_one_less(self, now: Tick) -> Option<Word> {
        if self.left <= 1 {
            return None;
        }
        let now = now.millis() % (1 << TAKEN_BITS);
        let extra = NONE_LEFT.saturating_sub(self.left);
        let age = now.wrapping_sub(self.taken) % (1 << TAKEN_BITS);
        let is_over = self.taken == 0 || age >= LEASE_MS * (extra + 1);
        (self.left > NONE_LEFT || is_over).then_some(Word {
            taken: now.max(1),
            left: self.left - 1,
            ..self
        })
    }
}

/// The permits of a pool's backends. They live on from plan to plan, and grow with it.
pub(crate) struct Trials(Segments<Arc<AtomicU64>>);

/// A permit to try a backend. Returned when it is dropped: a client that leaves decides nothing.
pub(crate) struct Trial {
    /// None once it is decided.
    word: Option<Arc<AtomicU64>>,
    epoch: u16,
}

impl Trials {
    /// For no backends yet.
    pub(crate) const fn new() -> Trials {
        Trials(Segments::new())
    }

    /// Makes room for this many backends; new ones are not on trial.
    pub(crate) fn grow(&self, backends: usize) {
        self.0.grow(backends, || Arc::new(AtomicU64::new(0)));
    }

    /// A permit to try a backend, if one is left or a lease is over; `now` by the one clock of all
    /// cores.
    pub(crate) fn take(&self, backend: BackendId, now: Tick) -> Option<Trial> {
        let word = self.of(backend)?;
        let one_less = |word| Word::of(word).with_one_less(now).map(Word::packed);
        let former = word.fetch_update(Relaxed, Relaxed, one_less).ok()?;
        Some(Trial { word: Some(Arc::clone(word)), epoch: epoch(former) })
    }

    /// Whether `take` would give one.
    pub(crate) fn has_one(&self, backend: BackendId, now: Tick) -> bool {
        let word = self.of(backend).map(|word| Word::of(word.load(Relaxed)));
        word.is_some_and(|word| word.with_one_less(now).is_some())
    }

    /// Begins a period with this many permits. Only the health thread may call it, and before it
    /// publishes that the backend is on trial.
    pub(crate) fn open(&self, backend: BackendId, permits: u16) {
        self.begin(backend, NONE_LEFT + u64::from(permits));
    }

    /// Ends it. Only the health thread may call it.
    pub(crate) fn close(&self, backend: BackendId) {
        self.begin(backend, 0);
    }

    fn begin(&self, backend: BackendId, left: u64) {
        let Some(word) = self.of(backend) else { return };
        let begin = |former| {
            let epoch = u64::from(epoch(former).wrapping_add(1));
            Some(Word { epoch, taken: 0, left }.packed())
        };
        // Anything taken or returned meanwhile belongs to the earlier period. Never refused.
        let _ = word.fetch_update(Relaxed, Relaxed, begin);
    }

    /// The present period of a backend: the result of a trial of another period means nothing any
    /// more.
    pub(crate) fn epoch(&self, backend: BackendId) -> u16 {
        self.of(backend).map_or(0, |word| epoch(word.load(Relaxed)))
    }

    fn of(&self, backend: BackendId) -> Option<&Arc<AtomicU64>> {
        self.0.get(backend.index())
    }
}

/// The period in a word.
#[allow(clippy::cast_possible_truncation)] // it has so many bits
fn epoch(word: u64) -> u16 {
    const { assert!(EPOCH_BITS == u16::BITS && EPOCH_BITS + TAKEN_BITS + LEFT_BITS == u64::BITS) };
    Word::of(word).epoch as u16
}

impl Trial {
    /// The period it belongs to, for the message with its outcome.
    pub(crate) fn epoch(&self) -> u16 {
        self.epoch
    }

    /// Its outcome was posted to the health thread; if it could not be, drop the trial instead.
    /// After a success the next may try at once, whatever others wait for; after a failure none
    /// may, until the health thread has ended the period.
    pub(crate) fn decide(mut self, is_ok: bool) {
        let Some(word) = self.word.take().filter(|_| is_ok) else { return };
        self.give_back(&word, |word| word.taken = 0);
    }

    fn give_back(&self, word: &AtomicU64, then: impl Fn(&mut Word)) {
        let one_more = |former| {
            let mut word = Word::of(former);
            word.left += 1;
            then(&mut word);
            (epoch(former) == self.epoch).then(|| word.packed())
        };
        // Refused: the period is over, and its permits with it.
        let _ = word.fetch_update(Relaxed, Relaxed, one_more);
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Some(word) = self.word.take() {
            self.give_back(&word, |_| {});
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::atomics::{every_order, spawn};
    use super::*;

    const BACKEND: BackendId = BackendId(1);
    const NOW: Tick = Tick::from_millis(5);
    const LEASE: Duration = Duration::from_millis(LEASE_MS);

    /// Trials of two backends, neither on trial.
    fn none() -> Arc<Trials> {
        let trials = Arc::new(Trials::new());
        trials.grow(2);
        trials
    }

    /// Trials of which `permits` may be in flight.
    fn opened(permits: u16) -> Arc<Trials> {
        let trials = none();
        trials.open(BACKEND, permits);
        trials
    }

    /// Takes all permits that are left.
    fn left(trials: &Trials) -> usize {
        let all: Vec<Trial> = std::iter::from_fn(|| trials.take(BACKEND, NOW)).collect();
        all.len()
    }

    #[test]
    fn gives_out_exactly_as_many_as_were_opened() {
        every_order(|| {
            let trials = opened(2);
            let (first, second) = (trials.take(BACKEND, NOW), trials.take(BACKEND, NOW));
            assert!(first.is_some() && second.is_some());
            assert!(trials.take(BACKEND, NOW).is_none());
            drop(first);
            assert_eq!(left(&trials), 1);
            assert!(trials.take(BackendId(0), NOW).is_none(), "it is not on trial");
            assert!(trials.take(BackendId(2), NOW).is_none(), "there is none");
        });
    }

    #[test]
    fn a_success_lets_the_next_try_and_a_failure_nobody() {
        every_order(|| {
            let trials = opened(1);
            trials.take(BACKEND, NOW).unwrap().decide(true);
            assert_eq!(left(&trials), 1);
            trials.take(BACKEND, NOW).unwrap().decide(false);
            assert_eq!(left(&trials), 0);
            trials.close(BACKEND);
            assert_eq!(left(&trials), 0);
            trials.open(BACKEND, 1);
            assert_eq!(left(&trials), 1);
        });
    }

    /// Times at which a permit is requested in a period that began with this many: `+` if one is
    /// given. `<` drops the first one given and still held, `=` decides that it succeeded.
    #[track_caller]
    fn check_leases(permits: u16, asks: &[(u64, char)]) {
        let asks = asks.to_vec();
        every_order(move || {
            let trials = opened(permits);
            let mut held = std::collections::VecDeque::new();
            for (number, (now, expected)) in asks.iter().enumerate() {
                match expected {
                    '<' => drop(held.pop_front()),
                    '=' => held.pop_front().map_or((), |trial: Trial| trial.decide(true)),
                    _ => {
                        let taken = trials.take(BACKEND, Tick::from_millis(*now));
                        assert_eq!(taken.is_some(), *expected == '+', "{number} of {asks:?}");
                        held.extend(taken);
                    }
                }
            }
        });
    }

    #[test]
    fn a_lease_that_is_over_lets_one_more_try_and_each_later_one_after_longer() {
        check_leases(1, &[(5, '+'), (1_004, '-'), (1_005, '+'), (3_004, '-'), (3_005, '+')]);
        check_leases(2, &[(5, '+'), (900, '+'), (1_899, '-'), (1_900, '+'), (2_900, '-')]);
        // Undecided, each returns what it took: no more are in flight than there were permits.
        let (first, second) = ([(5, '+'), (1_005, '+')], [(1_006, '-'), (0, '<'), (1_007, '-')]);
        let third = [(0, '<'), (1_008, '+'), (1_009, '-')];
        check_leases(1, &[&first[..], &second, &third].concat());
        // A success lets the next try at once, though another hangs.
        check_leases(1, &[(5, '+'), (1_005, '+'), (0, '='), (1_006, '+'), (1_007, '-')]);
        // The clock wraps.
        let round = 1 << TAKEN_BITS;
        check_leases(1, &[(round - 5, '+'), (round + 994, '-'), (round + 995, '+')]);
    }

    #[test]
    fn who_is_not_on_trial_is_never_tried_however_long_ago_it_was() {
        every_order(|| {
            let trials = none();
            assert!(trials.take(BACKEND, Tick::from_millis(1 << 40)).is_none());
            trials.open(BACKEND, u16::MAX);
            trials.close(BACKEND);
            assert!(trials.take(BACKEND, Tick::from_millis(1 << 40)).is_none());
        });
    }

    #[test]
    fn two_cores_that_find_a_lease_over_take_one_permit() {
        every_order(|| {
            let trials = opened(1);
            let hanging = trials.take(BACKEND, NOW).unwrap();
            let other = Arc::clone(&trials);
            let other = spawn(move || other.take(BACKEND, NOW + LEASE));
            let own = trials.take(BACKEND, NOW + LEASE);
            let other = other.join().unwrap();
            assert!(own.is_some() != other.is_some());
            drop((own, other, hanging));
            assert_eq!(left(&trials), 1);
        });
    }

    #[test]
    fn two_cores_that_race_for_one_permit_get_one() {
        every_order(|| {
            let trials = opened(1);
            let other = Arc::clone(&trials);
            let other = spawn(move || other.take(BACKEND, NOW));
            let own = trials.take(BACKEND, NOW);
            let other = other.join().unwrap();
            assert!(own.is_some() != other.is_some());
            drop((own, other));
            assert_eq!(left(&trials), 1);
        });
    }

    #[test]
    fn a_client_that_leaves_gives_back_what_it_took_and_no_more() {
        every_order(|| {
            let trials = opened(1);
            let other = Arc::clone(&trials);
            let leaving = spawn(move || drop(other.take(BACKEND, NOW)));
            let own = trials.take(BACKEND, NOW);
            leaving.join().unwrap();
            assert_eq!(usize::from(own.is_some()) + left(&trials), 1);
        });
    }

    #[test]
    fn a_core_that_ends_gives_back_what_its_requests_held() {
        every_order(|| {
            let trials = opened(2);
            let core = Arc::clone(&trials);
            let ending = spawn(move || {
                let _held = [core.take(BACKEND, NOW), core.take(BACKEND, NOW)];
                // The core's tasks are dropped with their requests.
            });
            let own = trials.take(BACKEND, NOW);
            ending.join().unwrap();
            assert_eq!(usize::from(own.is_some()) + left(&trials), 2);
        });
    }

    #[test]
    fn a_permit_of_an_earlier_period_does_not_leak_into_a_later_one() {
        every_order(|| {
            let trials = opened(1);
            let early = trials.take(BACKEND, NOW).unwrap();
            let of_early = early.epoch();
            let leaving = spawn(move || drop(early));
            trials.close(BACKEND);
            trials.open(BACKEND, 1);
            let own = trials.take(BACKEND, NOW).unwrap();
            leaving.join().unwrap();
            assert_ne!(own.epoch(), of_early);
            assert_eq!(own.epoch(), trials.epoch(BACKEND));
            assert_eq!(left(&trials), 0, "the early one was given back to the later period");
        });
    }

    #[test]
    fn a_permit_taken_while_its_period_ends_is_of_one_period() {
        every_order(|| {
            let trials = opened(1);
            let other = Arc::clone(&trials);
            let taking = spawn(move || other.take(BACKEND, NOW));
            trials.close(BACKEND);
            trials.open(BACKEND, 1);
            let taken = taking.join().unwrap();
            let is_present =
                taken.as_ref().is_some_and(|taken| taken.epoch() == trials.epoch(BACKEND));
            assert_eq!(usize::from(is_present) + left(&trials), 1);
            drop(taken);
            assert_eq!(left(&trials), 1);
        });
    }
}
