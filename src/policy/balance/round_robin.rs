//! Smooth weighted round robin, like nginx's: in turn, by weight, the turns of a heavy backend
//! spread out instead of in a row.
//!
//! Each backend has a credit. A pick pays every candidate its weight, takes the one with the most
//! credit (the first of equals) and charges it all that was paid out: 5/1/1 gives a a b a c a a.
//! Credits only ever move between backends, so their sum stays zero, and one that is not usable for
//! a while keeps its credit and its share. With equal weights that comes down to taking turns, and
//! a cursor does it without touching a credit.
//!
//! Every core counts for itself and begins at another point of the turn, and so does every process,
//! so that processes that start often do not all ask the first backend first. Counted from the
//! beginning of a turn, on one core a backend is never more than one request from its exact share;
//! over all cores, never more than one request per core, and one more counted from any point (the
//! simulation below holds it for 1 to 64 cores, whichever get the requests).

use super::Weights;
use crate::base::{backend_set::BackendSet, ids::BackendId};

/// The most picks made in advance so that cores begin apart: a bound on the cost of a new plan.
const AHEAD_MAX: usize = 1024;

/// Whose turn it is, on one core.
#[derive(Clone, Debug)]
pub(crate) struct RoundRobin {
    /// Where the next search begins, with equal weights.
    next: usize,
    /// What each backend is owed, with unequal weights: the sum is zero.
    credits: Vec<i32>,
}

impl RoundRobin {
    /// For the core `core_index` of `cores`, in a process with this seed.
    pub(crate) fn new(
        weights: &Weights,
        seed: u64,
        (core_index, cores): (usize, usize),
    ) -> RoundRobin {
        let mut turn = RoundRobin { next: 0, credits: vec![0; weights.each().len()] };
        let sum: usize = weights.each().iter().copied().map(usize::from).sum();
        let round = if weights.equal() { weights.taking().len() } else { sum.min(AHEAD_MAX) };
        let round = round.max(1);
        let first = usize::try_from(seed % round as u64).unwrap_or_default();
        for _ in 0..(first + core_index * round / cores.max(1)) % round {
            turn.pick(weights.taking(), weights);
        }
        turn
    }

    /// Continues where another instance left off if the shares are the same; otherwise begins anew.
    pub(crate) fn take_over(&mut self, before: RoundRobin, same_weights: bool) {
        if same_weights {
            *self = before;
        }
    }

    /// The next in turn; every candidate has a weight above 0.
    #[inline]
    pub(crate) fn pick(&mut self, usable: &BackendSet, weights: &Weights) -> Option<BackendId> {
        if weights.equal() {
            let picked = usable.next_from(self.next)?;
            // Wraps at the last one, so that no search runs past the end of a small pool.
            let next = picked.index() + 1;
            self.next = if next < self.credits.len() { next } else { 0 };
            return Some(picked);
        }
        self.pick_by_weight(usable, weights.each())
    }

    fn pick_by_weight(&mut self, usable: &BackendSet, weights: &[u16]) -> Option<BackendId> {
        let (mut paid, mut most, mut picked) = (0, i32::MIN, None);
        for id in usable.iter() {
            let credit = self.credits.get_mut(id.index())?;
            let weight = i32::from(*weights.get(id.index())?);
            *credit += weight;
            paid += weight;
            if *credit > most {
                (most, picked) = (*credit, Some(id));
            }
        }
        let picked = picked?;
        if let Some(credit) = self.credits.get_mut(picked.index()) {
            *credit -= paid;
        }
        Some(picked)
    }

    /// Invariants after every step.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        assert_eq!(self.credits.iter().sum::<i32>(), 0, "a pick only moves credit");
        assert!(self.next == 0 || self.next < self.credits.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    /// Picks once for each letter of `expected` with the backends of `weights`, all usable.
    fn check(weights: &[u16], expected: &str) {
        let weights = Weights::new(weights.iter().copied());
        let mut turn = RoundRobin::new(&weights, 0, (0, 1));
        let mut pick = || turn.pick(weights.taking(), &weights).expect("one is usable");
        let picked: String = expected.bytes().map(|_| letter(pick())).collect();
        assert_eq!(picked, expected, "{weights:?}");
    }

    fn letter(id: BackendId) -> char {
        char::from(b'a' + u8::try_from(id.0).expect("few backends"))
    }

    #[test]
    fn takes_turns_by_weight_and_smoothly() {
        check(&[5, 1, 1], "aabacaaaabacaa");
        check(&[3, 2, 1], "abacbaabacba");
        check(&[4, 2], "abaaba");
        check(&[1, 1, 1], "abcabc");
        check(&[2, 2], "abab");
        check(&[9], "aaa");
    }

    #[test]
    fn steps_over_unusable_backends_without_disturbing_shares() {
        for weights in [vec![1, 1, 1, 1], vec![4, 3, 2, 1]] {
            let weights = Weights::new(weights.into_iter());
            let mut turn = RoundRobin::new(&weights, 0, (0, 1));
            let mut usable = *weights.taking();
            usable.remove(BackendId(1));
            let round: u16 = usable.iter().map(|id| weights.each()[id.index()]).sum();
            let mut counts = [0; 4];
            for _ in 0..round * 100 {
                let picked = turn.pick(&usable, &weights);
                counts[picked.expect("one is usable").index()] += 1;
            }
            let shares: Vec<_> = weights.each().iter().map(|weight| weight * 100).collect();
            assert_eq!(counts, [shares[0], 0, shares[2], shares[3]]);
        }
    }

    #[test]
    fn cores_begin_apart() {
        for weights in [vec![1; 8], vec![8, 7, 6, 5, 4, 3, 2, 1]] {
            let weights = Weights::new(weights.into_iter());
            for seed in [0, 5, u64::MAX] {
                let first = |core| {
                    let mut turn = RoundRobin::new(&weights, seed, (core, 8));
                    turn.pick(weights.taking(), &weights)
                };
                let firsts: std::collections::HashSet<_> = (0..8).filter_map(first).collect();
                assert!(firsts.len() >= 4, "{weights:?}: {firsts:?}");
            }
        }
    }

    #[test]
    fn processes_begin_anywhere() {
        for weights in [vec![1; 8], vec![1, 2, 3], vec![0, 1, 0, 1], vec![1], vec![]] {
            let weights = Weights::new(weights.into_iter());
            let first =
                |seed| RoundRobin::new(&weights, seed, (0, 1)).pick(weights.taking(), &weights);
            let mut rng = Rng::seeded(1);
            let firsts: std::collections::HashSet<_> =
                (0..200).filter_map(|_| first(rng.next())).collect();
            assert_eq!(firsts.len(), weights.taking().len(), "{weights:?}: {firsts:?}");
        }
    }

    /// The largest distance of any backend from its share, over the picks of all cores, at any
    /// moment of `picks` requests that arrive on random cores.
    fn spread(weights: &Weights, cores: usize, picks: u32, rng: &mut Rng) -> f64 {
        let sum: u32 = weights.each().iter().copied().map(u32::from).sum();
        let mut turns: Vec<_> =
            (0..cores).map(|core| RoundRobin::new(weights, 7, (core, cores))).collect();
        let mut counts = vec![0_u32; weights.each().len()];
        let mut worst = 0_f64;
        for done in 1..=picks {
            let core = rng.below(u32::try_from(cores).expect("few cores")) as usize;
            turns[core].check_invariants();
            counts[turns[core].pick(weights.taking(), weights).expect("one is usable").index()] +=
                1;
            for (count, weight) in counts.iter().zip(weights.each()) {
                let share = f64::from(done) * f64::from(*weight) / f64::from(sum);
                worst = worst.max((f64::from(*count) - share).abs());
            }
        }
        worst
    }

    #[test]
    fn spread_over_all_cores_is_bounded_by_their_number() {
        for seed in 0..64 {
            let mut rng = Rng::seeded(seed);
            let cores = 1 + seed as usize;
            let backends = 2 + rng.below(30);
            let equal = Weights::new((0..backends).map(|_| 3));
            let drawn = (0..backends).map(|_| 1 + u16::try_from(rng.below(20)).expect("small"));
            let unequal = Weights::new(drawn);
            for weights in [&equal, &unequal] {
                let worst = spread(weights, cores, 2_000, &mut rng);
                // One more, as they begin within a turn.
                let bound = cores as f64 + 1.0;
                assert!(worst <= bound, "seed {seed}: {cores} cores, {weights:?}: {worst}");
            }
        }
    }
}
