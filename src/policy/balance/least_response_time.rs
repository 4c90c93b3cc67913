//! Least response time: of two drawn by weight, the one with the shorter wait for a first byte.
//!
//! A backend is judged by the peak of its times to the first byte, which decays within tens of
//! seconds (so one that was slow once is tried again), by the share of requests that failed, and by
//! what it has in flight. A failure never looks fast: it counts as at least the pool's median; more
//! than one in twenty make a backend count as busier (`failing`). An unknown backend is assumed to
//! have the pool's median; one not heard of for long half of it, so that it is tried and not
//! flooded.
//!
//! Each core keeps what it saw itself, publishes it packed into a word, and merges what the others
//! have published: peaks by the highest, failures by the mean. All of it decays at one pace, so a
//! merge stays valid as time goes by.

use std::time::Duration;

use super::{
    Candidates, Sample, draw,
    failing::{self, relative_load},
    known::Known,
};
use crate::base::{ids::BackendId, moment::Tick, rng::Rng};

/// Costs within this factor count as equal.
const SAME: f32 = 1.05;

/// How old the summary of the whole pool may be.
const PICTURE: Duration = Duration::from_millis(10);

/// The shortest time assumed, in microseconds: load counts even after all times have decayed.
const MICROS_MIN: f32 = 1.0;

/// Two choices by cost, on one core.
#[derive(Clone, Debug)]
pub(crate) struct LeastResponseTime {
    rng: Rng,
    known: Known,
    picture: Picture,
}

/// What is usual among the candidates.
#[derive(Clone, Debug)]
struct Picture {
    /// The median of the known times, the lower of two.
    micros: f32,
    /// The mean of what is in flight per mean weight.
    load: f32,
    /// When it is computed again; none = at once.
    due: Option<Tick>,
    /// Scratch space for the median.
    room: Vec<f32>,
}

impl LeastResponseTime {
    pub(crate) fn new(rng: Rng, cores: usize, backends: usize) -> LeastResponseTime {
        let picture =
            Picture { micros: 0.0, load: 0.0, due: None, room: Vec::with_capacity(backends) };
        LeastResponseTime { rng, known: Known::new(cores, backends), picture }
    }

    /// Continues with what another instance knows.
    pub(crate) fn take_over(&mut self, before: LeastResponseTime) {
        self.rng = before.rng;
        self.known.take_over(before.known);
    }

    /// The better of two; every candidate has a weight above 0.
    #[inline]
    pub(crate) fn pick(&mut self, candidates: &Candidates<'_>) -> Option<BackendId> {
        if self.picture.due.is_none_or(|due| candidates.now >= due) {
            self.picture.draw(&self.known, candidates);
        }
        let (first, second) = draw::two(candidates.usable, candidates.weights, &mut self.rng)?;
        let Some(second) = second else { return Some(first) };
        let second_is_better = self.cost(second, candidates) * SAME < self.cost(first, candidates);
        Some(if second_is_better { second } else { first })
    }

    /// The cost of waiting for a backend.
    ///
    /// Its weight already gives it its share of the draws. So its load counts per weight, and the
    /// time of an idle backend does not: with both divided by the weight, the heaviest of idle
    /// backends would win every draw it is in.
    #[inline]
    fn cost(&self, id: BackendId, candidates: &Candidates<'_>) -> f32 {
        let (micros, failing) = match self.known.of(id) {
            Some(times) => {
                let (micros, failing) = times.at(candidates.now);
                (micros.max(self.picture.micros / 2.0), failing)
            }
            None => (self.picture.micros, 0.0),
        };
        let load = relative_load(id, candidates);
        micros.max(MICROS_MIN) * failing::busyness(load, failing, self.picture.load)
    }

    /// Records how long a backend took.
    pub(crate) fn observe(&mut self, id: BackendId, sample: Sample, now: Tick) {
        let (micros, failed) = match sample {
            Sample::FirstByte(micros) => (micros as f32, false),
            Sample::Failed(micros) => ((micros as f32).max(self.picture.micros), true),
        };
        self.known.see(id, micros.max(MICROS_MIN), failed, now);
    }

    /// What this core itself knows of a backend, packed.
    pub(crate) fn published(&self, id: BackendId) -> u64 {
        self.known.published(id)
    }

    /// Merges what the other cores have published about a backend.
    pub(crate) fn merge(&mut self, id: BackendId, others: impl Iterator<Item = u64>, now: Tick) {
        self.known.merge(id, others, now);
    }

    /// A backend returned: what was known of it no longer counts.
    pub(crate) fn forget(&mut self, id: BackendId, now: Tick) {
        self.known.forget(id, now);
    }

    /// Invariants after every step.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        self.known.check_invariants();
    }
}

impl Picture {
    fn draw(&mut self, known: &Known, candidates: &Candidates<'_>) {
        self.due = Some(candidates.now + PICTURE);
        self.room.clear();
        let (mut load, mut count) = (0.0, 0.0);
        for id in candidates.usable.iter() {
            load += relative_load(id, candidates);
            count += 1.0;
            if let Some(times) = known.of(id) {
                self.room.push(times.at(candidates.now).0);
            }
        }
        self.load = load / f32::max(count, 1.0);
        self.micros = match self.room.len().checked_sub(1) {
            Some(last) => *self.room.select_nth_unstable_by(last / 2, f32::total_cmp).1,
            None => 0.0,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::base::backend_set::BackendSet;
    use crate::policy::balance::Weights;

    /// One core's view of some backends, all usable.
    struct Core {
        algorithm: LeastResponseTime,
        weights: Weights,
        in_flight: Vec<Cell<u32>>,
    }

    impl Core {
        fn new(in_flight: &[u32]) -> Core {
            Core {
                algorithm: LeastResponseTime::new(Rng::seeded(3), 1, in_flight.len()),
                weights: Weights::new(in_flight.iter().map(|_| 1)),
                in_flight: in_flight.iter().copied().map(Cell::new).collect(),
            }
        }

        fn see(&mut self, id: u16, sample: Sample, now: u64) {
            self.algorithm.observe(BackendId(id), sample, Tick::from_millis(now));
            self.algorithm.check_invariants();
        }

        /// How many of 1,000 picks each backend gets.
        fn picks(&mut self, now: u64) -> Vec<u32> {
            let usable = BackendSet::first(self.in_flight.len());
            let (weights, in_flight) = (&self.weights, &self.in_flight);
            let now = Tick::from_millis(now);
            let candidates =
                Candidates { extra: &[], usable: &usable, weights, in_flight, now, key: None };
            let mut counts = vec![0; self.in_flight.len()];
            for _ in 0..1_000 {
                counts[self.algorithm.pick(&candidates).expect("one is usable").index()] += 1;
            }
            counts
        }
    }

    #[test]
    fn picks_the_faster_and_the_less_loaded() {
        let mut core = Core::new(&[0, 0, 0]);
        [9_000, 5_000, 7_000].into_iter().zip(0..).for_each(|(micros, id)| {
            core.see(id, Sample::FirstByte(micros), 100);
        });
        let picks = core.picks(100);
        assert!(picks[0] == 0 && picks[1] > 600 && picks[2] > 250, "{picks:?}");
        core.in_flight[1].set(1);
        core.algorithm.picture.due = None;
        let picks = core.picks(100);
        assert!(picks[1] == 0 && picks[2] > 600, "{picks:?}");
    }

    #[test]
    fn backends_that_are_nearly_the_same_share() {
        let mut core = Core::new(&[0, 0]);
        core.see(0, Sample::FirstByte(5_000), 100);
        core.see(1, Sample::FirstByte(5_200), 100);
        let picks = core.picks(100);
        assert!(picks.iter().all(|count| (420..=580).contains(count)), "{picks:?}");
        core.see(1, Sample::FirstByte(5_300), 100);
        assert_eq!(core.picks(100), [1_000, 0]);
    }

    #[test]
    fn one_of_which_nothing_is_known_is_like_the_median() {
        let mut core = Core::new(&[0, 0, 0, 0]);
        assert!(core.picks(100).iter().all(|count| *count > 180), "nothing is known of any");
        for (id, micros) in [(0, 1_000), (1, 5_000), (2, 9_000)] {
            core.see(id, Sample::FirstByte(micros), 100);
        }
        let picks = core.picks(200);
        assert!(picks[2] == 0 && picks[0] > 400, "{picks:?}");
        assert!(picks[1] > 100 && picks[3] > 100, "{picks:?}");
    }

    #[test]
    fn a_failure_is_never_faster_than_an_answer() {
        let mut core = Core::new(&[0, 0]);
        for now in 100..200 {
            core.see(0, Sample::FirstByte(20_000), now);
            core.picks(now);
            core.see(1, Sample::Failed(300), now);
        }
        assert_eq!(core.picks(200), [1_000, 0]);
        // Nor if the others are busy and it is not.
        core.in_flight[0].set(40);
        core.algorithm.picture.due = None;
        assert_eq!(core.picks(200), [1_000, 0]);
    }

    #[test]
    fn one_that_was_slow_once_is_tried_again_and_not_flooded() {
        let mut core = Core::new(&[0, 0, 0]);
        core.see(2, Sample::FirstByte(1_000_000), 0);
        let again = (0..100_000).step_by(100).find(|now| {
            (0..2).for_each(|id| core.see(id, Sample::FirstByte(5_000), *now));
            core.picks(*now)[2] > 0
        });
        // 10 s times ln (1 s / 5 ms) = 53 s.
        assert!((50_000..54_000).contains(&again.expect("at last")), "{again:?}");
        (0..2).for_each(|id| core.see(id, Sample::FirstByte(5_000), 200_000));
        assert!(core.picks(200_000)[2] > 600, "long forgotten");
        core.in_flight[2].set(2);
        assert_eq!(core.picks(200_000)[2], 0, "two are under way: wait and see");
    }

    #[test]
    fn what_one_core_saw_the_others_know() {
        let (mut one, mut other) = (Core::new(&[0, 0]), Core::new(&[0, 0]));
        one.see(0, Sample::FirstByte(5_000), 100);
        one.see(1, Sample::FirstByte(80_000), 100);
        for id in [0, 1].map(BackendId) {
            let published = one.algorithm.published(id);
            other.algorithm.merge(id, [published, 0].into_iter(), Tick::from_millis(105));
            other.algorithm.check_invariants();
            assert_eq!(other.algorithm.published(id), 0, "it saw nothing itself");
        }
        assert_eq!(other.picks(105), [1_000, 0]);
        other.algorithm.forget(BackendId(1), Tick::from_millis(105));
        other.algorithm.picture.due = None;
        assert!(other.picks(105)[1] > 400, "it came back: nothing is known");
        let published = one.algorithm.published(BackendId(1));
        other.algorithm.merge(BackendId(1), [published].into_iter(), Tick::from_millis(115));
        assert!(other.picks(115)[1] > 400, "it was published before");
    }

    #[test]
    fn a_load_counts_for_its_weight_and_an_idle_one_gets_its_share() {
        let mut core = Core::new(&[0, 0]);
        core.weights = Weights::new([3, 1].into_iter());
        (0..2).for_each(|id| core.see(id, Sample::FirstByte(5_000), 100));
        let picks = core.picks(100);
        assert!((700..=800).contains(&picks[0]), "{picks:?}");
        core.in_flight[0].set(6);
        core.in_flight[1].set(2);
        core.algorithm.picture.due = None;
        let picks = core.picks(100);
        assert!((700..=800).contains(&picks[0]), "{picks:?}");
    }
}
