//! The balancer: picks one of the usable backends by the pool's algorithm.
//!
//! What all algorithms have in common is decided here, once and in this order: weight 0 takes no
//! new traffic; backups serve only if no regular backend can, and then all of them; a backend that
//! has just returned counts for less, except by key; a failing one counts as busier. An algorithm
//! is a struct with a `pick`; it sees the backends that are left and never learns why one is
//! missing. One `Balancer` belongs to one pool on one core, so a pick touches nothing that another
//! core writes, and allocates nothing.

mod draw;
mod failing;
mod hash;
pub(crate) mod key;
mod known;
mod least_connections;
mod least_response_time;
mod load;
mod maglev;
mod random;
mod round_robin;
#[cfg(test)]
mod simulation;
mod slow_start;
mod times;
mod weights;

use std::{cell::Cell, mem, sync::Arc, time::Duration};

pub(crate) use self::load::Step;
pub(crate) use self::times::CarriedTimes;
pub(crate) use self::weights::Weights;
use self::{
    failing::Failing,
    hash::{Hash, Tables},
    least_connections::LeastConnections,
    least_response_time::LeastResponseTime,
    load::Load,
    random::Random,
    round_robin::RoundRobin,
    slow_start::SlowStart,
};
use crate::base::{backend_set::BackendSet, ids::BackendId, moment::Tick, rng::Rng};
use crate::plan::{self, Pool};

/// The inputs of an algorithm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidates<'a> {
    /// The backends that can take this request: healthy, enabled, admitted, not tried yet.
    pub(crate) usable: &'a BackendSet,
    /// The shares of the pool's backends.
    pub(crate) weights: &'a Weights,
    /// Requests in flight at each backend in the whole process, as this core knows it: the sum over
    /// all cores at the last merge, and since then by `Step`. May be empty if `Needs` does not ask
    /// for it.
    pub(crate) in_flight: &'a [Cell<u32>],
    /// What is added to that for each failing backend; empty if none fails, or if unused.
    pub(crate) extra: &'a [u32],
    pub(crate) now: Tick,
    /// The key that `key::of` computed. May be none if `Needs` does not ask for it.
    pub(crate) key: Option<u64>,
}

impl Candidates<'_> {
    /// Requests in flight at a backend, with the addition for its failures.
    #[inline]
    fn in_flight(&self, id: BackendId) -> u32 {
        let extra = self.extra.get(id.index()).copied().unwrap_or_default();
        self.in_flight.get(id.index()).map_or(0, Cell::get).saturating_add(extra)
    }

    /// The same, relative to its weight.
    #[inline]
    fn load(&self, id: BackendId) -> Load {
        Load { in_flight: self.in_flight(id), weight: self.weights.get(id) }
    }
}

/// How a backend did, and how long it took in microseconds if `Needs` asks for times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sample {
    /// The time to the first byte of an answer that is no failure.
    FirstByte(u32),
    /// The time to an answer that is a failure, or to none at all.
    Failed(u32),
}

/// What a worker has to keep for a pool's picks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Requests in flight at each backend, merged over the cores.
    pub(crate) in_flight: bool,
    /// Calls of `observe`, and `published` of each core merged into the others.
    pub(crate) outcomes: bool,
    /// The precise duration of each request, for `observe`.
    pub(crate) times: bool,
    /// A key for each request.
    pub(crate) key: bool,
    /// Requests in flight, for the bound of a hash.
    bound: bool,
}

/// The shortest time between two merges of other cores' requests in flight, which happen only while
/// requests come: work across cores is done per interval, not per request.
const MERGED: Duration = Duration::from_millis(10);

/// With a bound and at most this many counts (cores times backends), a merge happens at each pick:
/// the bound then holds except for what other cores place at the same moment.
const COUNTS_MAX: usize = 1_024;

impl Needs {
    /// The needs of a pool.
    pub(crate) fn of(pool: &Pool) -> Needs {
        let none = Needs::default();
        match &pool.algorithm {
            plan::Algorithm::RoundRobin => none,
            plan::Algorithm::Random | plan::Algorithm::LeastConnections => {
                Needs { in_flight: true, outcomes: true, ..none }
            }
            plan::Algorithm::LeastResponseTime => {
                Needs { in_flight: true, outcomes: true, times: true, ..none }
            }
            plan::Algorithm::IpHash => Needs { key: true, ..none },
            plan::Algorithm::Hash { bound, .. } => {
                let bound = bound.is_some();
                Needs { key: true, in_flight: bound, bound, ..none }
            }
        }
    }

    /// How old the merged figures may become with this many cores and backends.
    pub(crate) fn merged_age_max(self, cores: usize, backends: usize) -> Duration {
        let at_each_pick = self.bound && cores > 1 && cores * backends <= COUNTS_MAX;
        if at_each_pick { Duration::ZERO } else { MERGED }
    }
}

/// What the balancers of all cores share: made once for each pool of a plan.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    seed: u64,
    /// The owners of the keys; empty unless the pool balances by key.
    tables: Arc<Tables>,
}

impl Prepared {
    /// For one pool; its randomness begins with `seed`.
    pub(crate) fn of(pool: &Pool, seed: u64) -> Prepared {
        let tables = if Needs::of(pool).key { Tables::of(pool) } else { Tables::default() };
        Prepared { seed, tables: Arc::new(tables) }
    }
}

/// The balancer of one pool on one core.
#[derive(Clone, Debug)]
pub(crate) struct Balancer {
    backups: BackendSet,
    /// Most pools have none, and then no pick reads that set.
    has_backups: bool,
    /// None if the pool has none, or balances by key.
    slow_start: Option<Box<SlowStart>>,
    /// None if the algorithm ignores load, or handles failures itself.
    failing: Option<Box<Failing>>,
    algorithm: Algorithm,
}

#[derive(Clone, Debug)]
enum Algorithm {
    RoundRobin(RoundRobin),
    Random(Random),
    LeastConnections(LeastConnections),
    LeastResponseTime(LeastResponseTime),
    Hash(Hash),
}

impl Balancer {
    /// For one pool on the core `core_index` of `cores`, so that cores need not begin alike.
    pub(crate) fn new(
        pool: &Pool,
        prepared: &Prepared,
        core_index: usize,
        cores: usize,
    ) -> Balancer {
        let weights = Weights::of(&pool.backends);
        let turn = RoundRobin::new(&weights, prepared.seed, (core_index, cores));
        let rng = Rng::seeded(Rng::seeded(prepared.seed.wrapping_add(core_index as u64)).next());
        let by_key =
            |bound| Algorithm::Hash(Hash::new(Arc::clone(&prepared.tables), bound, turn.clone()));
        let (backends, span) = (pool.backends.len(), pool.backends.span());
        let algorithm = match pool.algorithm {
            plan::Algorithm::RoundRobin => Algorithm::RoundRobin(turn),
            plan::Algorithm::Random => Algorithm::Random(Random::new(rng)),
            plan::Algorithm::LeastConnections => Algorithm::LeastConnections(
                LeastConnections::new(turn, Random::new(rng), cores, backends),
            ),
            plan::Algorithm::LeastResponseTime => {
                Algorithm::LeastResponseTime(LeastResponseTime::new(rng, cores, span))
            }
            plan::Algorithm::IpHash => by_key(None),
            plan::Algorithm::Hash { bound, .. } => by_key(bound),
        };
        let slow_start = if Needs::of(pool).key { None } else { SlowStart::of(pool) };
        let failing = match &algorithm {
            Algorithm::Random(_) | Algorithm::LeastConnections(_) => {
                Some(Box::new(Failing::new(cores, span)))
            }
            // The last one handles failures itself; turns and keys ignore load.
            Algorithm::RoundRobin(_) | Algorithm::Hash(_) | Algorithm::LeastResponseTime(_) => None,
        };
        let backups = backups(pool);
        Balancer { backups, has_backups: !backups.is_empty(), slow_start, failing, algorithm }
    }

    /// The backend to ask; none if no backend may be asked.
    #[inline]
    pub(crate) fn pick(&mut self, candidates: &Candidates<'_>) -> Option<BackendId> {
        let (usable, on_backups) = self.narrowed(candidates.usable, candidates.weights);
        let picked = match (&mut self.algorithm, &self.slow_start) {
            (Algorithm::RoundRobin(turn), None) => turn.pick(&usable, candidates.weights),
            _ => self.pick_with_more(&usable, candidates, on_backups),
        };
        // The algorithm is that of the newest plan: to a request of an earlier one, whose backends
        // have all left since, it can give none of them.
        picked.or_else(|| usable.next_from(0))
    }

    /// Those among which the algorithm chooses, and whether they are backups.
    #[inline(always)]
    pub(crate) fn narrowed(&self, usable: &BackendSet, weights: &Weights) -> (BackendSet, bool) {
        let usable = *usable & *weights.taking();
        if self.has_backups {
            let primaries = usable & !self.backups;
            if !primaries.is_empty() {
                return (primaries, false);
            }
            return (usable, true);
        }
        (usable, false)
    }

    /// Like `pick`, if it takes more than turns: a separate function, so that turns stay short.
    #[inline(never)]
    fn pick_with_more(
        &mut self,
        usable: &BackendSet,
        candidates: &Candidates<'_>,
        on_backups: bool,
    ) -> Option<BackendId> {
        let narrowed;
        let (usable, weights) = match &mut self.slow_start {
            Some(slow_start) => {
                let weights = slow_start.weights(usable, candidates.now);
                // The weights are of the newest plan, the request perhaps of an earlier one.
                narrowed = *usable & *weights.taking();
                (&narrowed, weights)
            }
            None => (usable, candidates.weights),
        };
        let candidates = Candidates { usable, weights, ..*candidates };
        let extra = match &mut self.failing {
            Some(failing) => failing.extra(&candidates),
            None => &[],
        };
        let candidates = Candidates { extra, ..candidates };
        match &mut self.algorithm {
            Algorithm::RoundRobin(algorithm) => algorithm.pick(usable, weights),
            Algorithm::Random(algorithm) => algorithm.pick(&candidates),
            Algorithm::LeastConnections(algorithm) => algorithm.pick(&candidates),
            Algorithm::LeastResponseTime(algorithm) => algorithm.pick(&candidates),
            Algorithm::Hash(algorithm) => algorithm.pick(&candidates, on_backups),
        }
    }

    /// Continues under a new plan of the same pool: what was learned of the backends stays if the
    /// algorithm stays, and whose turn it is if the weights stay.
    pub(crate) fn replan(
        &mut self,
        pool: &Pool,
        prepared: &Prepared,
        (core_index, cores): (usize, usize),
        same_weights: bool,
    ) {
        let before = mem::replace(self, Balancer::new(pool, prepared, core_index, cores));
        match (&mut self.algorithm, before.algorithm) {
            (Algorithm::RoundRobin(next), Algorithm::RoundRobin(before)) => {
                next.take_over(before, same_weights);
            }
            (Algorithm::Random(next), Algorithm::Random(before)) => *next = before,
            (Algorithm::LeastConnections(next), Algorithm::LeastConnections(before)) => {
                next.take_over(before, same_weights);
            }
            (Algorithm::LeastResponseTime(next), Algorithm::LeastResponseTime(before)) => {
                next.take_over(before);
            }
            (Algorithm::Hash(next), Algorithm::Hash(before)) => {
                next.take_over(before, same_weights);
            }
            // Another algorithm uses other facts.
            (
                Algorithm::RoundRobin(_)
                | Algorithm::Random(_)
                | Algorithm::LeastConnections(_)
                | Algorithm::LeastResponseTime(_)
                | Algorithm::Hash(_),
                _,
            ) => {}
        }
        if let (Some(next), Some(before)) = (&mut self.failing, before.failing) {
            next.take_over(*before);
        }
        if let (Some(next), Some(before)) = (&mut self.slow_start, before.slow_start) {
            next.take_over(*before);
        }
    }

    /// Records how a backend did; nothing unless `Needs` asks for outcomes.
    #[inline]
    pub(crate) fn observe(&mut self, id: BackendId, sample: Sample, now: Tick) {
        match &mut self.algorithm {
            Algorithm::LeastResponseTime(algorithm) => algorithm.observe(id, sample, now),
            Algorithm::Random(_) | Algorithm::LeastConnections(_) => {
                if let Some(failing) = &mut self.failing {
                    failing.observe(id, matches!(sample, Sample::Failed(_)), now);
                }
            }
            Algorithm::RoundRobin(_) | Algorithm::Hash(_) => {}
        }
    }

    /// What this core itself knows of a backend, packed for its row; 0 = nothing.
    #[inline]
    pub(crate) fn published(&self, id: BackendId) -> u64 {
        match &self.algorithm {
            Algorithm::LeastResponseTime(algorithm) => algorithm.published(id),
            Algorithm::Random(_) | Algorithm::LeastConnections(_) => {
                self.failing.as_ref().map_or(0, |failing| failing.published(id))
            }
            Algorithm::RoundRobin(_) | Algorithm::Hash(_) => 0,
        }
    }

    /// Merges what the other cores have published about a backend.
    pub(crate) fn merge(&mut self, id: BackendId, others: impl Iterator<Item = u64>, now: Tick) {
        match &mut self.algorithm {
            Algorithm::LeastResponseTime(algorithm) => algorithm.merge(id, others, now),
            Algorithm::Random(_) | Algorithm::LeastConnections(_) => {
                if let Some(failing) = &mut self.failing {
                    failing.merge(id, others, now);
                }
            }
            Algorithm::RoundRobin(_) | Algorithm::Hash(_) => {}
        }
    }

    /// A backend returned, or is new: its slow start begins, and what was known of it is dropped.
    /// Not for those that exist when the process begins.
    pub(crate) fn returned(&mut self, id: BackendId, now: Tick) {
        if let Some(slow_start) = &mut self.slow_start {
            slow_start.begin(id, now);
        }
        match &mut self.algorithm {
            Algorithm::LeastResponseTime(algorithm) => algorithm.forget(id, now),
            Algorithm::Random(_) | Algorithm::LeastConnections(_) => {
                if let Some(failing) = &mut self.failing {
                    failing.forget(id, now);
                }
            }
            Algorithm::RoundRobin(_) | Algorithm::Hash(_) => {}
        }
    }

    /// Invariants after every step.
    #[cfg(test)]
    fn check_invariants(&self) {
        if let Some(slow_start) = &self.slow_start {
            slow_start.check_invariants();
        }
        if let Some(failing) = &self.failing {
            failing.check_invariants();
        }
        match &self.algorithm {
            Algorithm::RoundRobin(turn)
            | Algorithm::LeastConnections(LeastConnections::All(turn)) => {
                turn.check_invariants();
            }
            Algorithm::LeastResponseTime(algorithm) => algorithm.check_invariants(),
            Algorithm::Hash(algorithm) => algorithm.check_invariants(),
            Algorithm::Random(_) | Algorithm::LeastConnections(LeastConnections::Two(_)) => {}
        }
    }
}

/// The backends that serve only if no regular one can.
fn backups(pool: &Pool) -> BackendSet {
    let mut set = BackendSet::EMPTY;
    for (id, backend) in &pool.backends {
        if backend.backup {
            set.insert(id);
        }
    }
    set
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::plan::{Address, Backend};

    /// A pool with backends of these weights; a weight below zero is a backup's.
    pub(crate) fn pool(weights: &[i32]) -> Pool {
        let backend = |(index, weight): (usize, &i32)| Backend {
            weight: u16::try_from(weight.abs()).unwrap(),
            backup: *weight < 0,
            ..Backend::new(format!("b{index}"), Address::Socket(([127, 0, 0, 1], 3000).into()))
        };
        Pool {
            name: "app".into(),
            backends: weights.iter().enumerate().map(backend).collect(),
            ..Pool::default()
        }
    }

    /// Candidates of which nothing else is known.
    pub(crate) fn plain<'a>(usable: &'a BackendSet, weights: &'a Weights) -> Candidates<'a> {
        Candidates {
            extra: &[],
            usable,
            weights,
            in_flight: &[],
            now: Tick::from_millis(1),
            key: None,
        }
    }

    /// Picks once for each letter of `expected` (`a` is the first backend, `-` is none), with the
    /// backends named in `down` not usable.
    fn check(weights: &[i32], down: &str, expected: &str) {
        let pool = pool(weights);
        let mut balancer = Balancer::new(&pool, &Prepared::of(&pool, 0), 0, 1);
        let mut usable = BackendSet::first(weights.len());
        for letter in down.bytes() {
            usable.remove(BackendId(u16::from(letter - b'a')));
        }
        let weights = Weights::of(&pool.backends);
        let picked: String = expected
            .chars()
            .map(|_| match balancer.pick(&plain(&usable, &weights)) {
                Some(BackendId(id)) => char::from(b'a' + u8::try_from(id).unwrap()),
                None => '-',
            })
            .collect();
        balancer.check_invariants();
        assert_eq!(picked, expected, "weights {:?}, down {down:?}", weights);
    }

    #[test]
    fn picks_nobody_where_nobody_is_usable() {
        check(&[], "", "--");
        check(&[1, 1], "ab", "--");
        check(&[0, 0], "", "--");
    }

    #[test]
    fn a_request_of_an_earlier_plan_gets_one_of_its_backends_whatever_the_newest_is() {
        let algorithms = [
            plan::Algorithm::RoundRobin,
            plan::Algorithm::Random,
            plan::Algorithm::LeastConnections,
            plan::Algorithm::LeastResponseTime,
            plan::Algorithm::Hash { of: plan::HashOf::Uri, bound: None },
            plan::Algorithm::Hash { of: plan::HashOf::Uri, bound: Some(plan::Share::percent(125)) },
        ];
        // Seats that the newest plan does not have, or has given up; of equal weights and others.
        let plans = [&[1, 2, 3, 4][..], &[0, 0, 5], &[7], &[0, 2, 0, 2], &[0, 0, -3, -1]];
        for ((old, new), slow_start) in plans
            .iter()
            .flat_map(|old| plans.iter().map(move |new| (old, new)))
            .flat_map(|both| [0, 10].map(|seconds| (both, Duration::from_secs(seconds))))
        {
            for algorithm in &algorithms {
                let pool = |weights: &[i32]| Pool {
                    algorithm: algorithm.clone(),
                    slow_start,
                    ..pool(weights)
                };
                let (old, new) = (pool(old), pool(new));
                let mut balancer = Balancer::new(&old, &Prepared::of(&old, 0), 0, 1);
                balancer.replan(&new, &Prepared::of(&new, 0), (0, 1), false);
                balancer.returned(BackendId(0), Tick::from_millis(1));
                let weights = Weights::of(&old.backends);
                // Of both plans, as long as a request holds the old one.
                let usable = BackendSet::first(4);
                for key in 0..50 {
                    let candidates =
                        Candidates { key: Some(key << 57), ..plain(&usable, &weights) };
                    let picked = balancer.pick(&candidates);
                    assert!(
                        picked.is_some_and(|id| weights.taking().contains(id)),
                        "{picked:?}: {algorithm:?} {old:?} {new:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn gives_weight_zero_no_new_traffic() {
        check(&[1, 0, 1], "", "acac");
        check(&[3, 0, 1], "", "aacaaaca");
        check(&[1, 0, 1], "ac", "--");
    }

    #[test]
    fn asks_backups_only_when_no_other_is_usable() {
        check(&[1, -1, 1, -1], "", "acac");
        check(&[1, -1, 1, -1], "a", "cccc");
        check(&[1, -1, 1, -1], "ac", "bdbd");
        check(&[0, -1], "", "bb");
    }

    /// Pools of every algorithm.
    fn all() -> Vec<Pool> {
        let of = |algorithm| Pool { algorithm, ..pool(&[1, 1, 1]) };
        plan::Algorithm::each().into_iter().map(of).collect()
    }

    /// Picks with keys, often enough to see which backends it prefers.
    fn picks(balancer: &mut Balancer, pool: &Pool, count: u64) -> Vec<BackendId> {
        let weights = Weights::of(&pool.backends);
        let in_flight: Vec<_> = weights.each().iter().map(|_| Cell::new(0)).collect();
        let usable = *weights.taking();
        let pick = |key| {
            let key = Some(Rng::seeded(key).next());
            let candidates = Candidates {
                usable: &usable,
                weights: &weights,
                in_flight: &in_flight,
                extra: &[],
                now: Tick::from_millis(1_000),
                key,
            };
            balancer.pick(&candidates).expect("all are usable")
        };
        let picked = (0..count).map(pick).collect();
        balancer.check_invariants();
        picked
    }

    /// An algorithm is fed what `Needs` asks for: what it learns from anything else it would never
    /// hear.
    #[test]
    fn what_an_algorithm_learns_from_is_what_it_asks_for() {
        let fast = [Sample::FirstByte(100); 3];
        for pool in all() {
            // What it does after these samples, one of each backend, ten times.
            let after = |samples: [Sample; 3]| {
                let mut balancer = Balancer::new(&pool, &Prepared::of(&pool, 3), 0, 2);
                let at = (0..10).flat_map(|_| (0..).map(BackendId).zip(samples));
                let now = Tick::from_millis(900);
                at.for_each(|(id, sample)| balancer.observe(id, sample, now));
                let published = [0, 1, 2].map(|id| balancer.published(BackendId(id)));
                (published, picks(&mut balancer, &pool, 60))
            };
            let needs = Needs::of(&pool);
            let slow = [Sample::FirstByte(90_000), fast[1], fast[2]];
            let failing = [Sample::Failed(100), fast[1], fast[2]];
            assert_eq!(after(slow) != after(fast), needs.times, "{:?}", pool.algorithm);
            assert_eq!(after(failing) != after(fast), needs.outcomes, "{:?}", pool.algorithm);
        }
    }

    #[test]
    fn an_equal_plan_changes_no_pick() {
        for pool in all() {
            let prepared = Prepared::of(&pool, 3);
            let mut balancer = Balancer::new(&pool, &prepared, 0, 2);
            let now = Tick::from_millis(900);
            for (id, micros) in [(0, 90_000), (1, 500), (2, 700)] {
                balancer.observe(BackendId(id), Sample::FirstByte(micros), now);
            }
            (0..50).for_each(|_| balancer.observe(BackendId(2), Sample::Failed(9), now));
            picks(&mut balancer, &pool, 7);
            let mut other = balancer.clone();
            other.replan(&pool, &prepared, (0, 2), true);
            let published =
                |balancer: &Balancer| [0, 1, 2].map(|id| balancer.published(BackendId(id)));
            assert_eq!(published(&balancer), published(&other), "{:?}", pool.algorithm);
            let both = [&mut balancer, &mut other].map(|it| picks(it, &pool, 60));
            assert_eq!(both[0], both[1], "{:?}", pool.algorithm);
        }
    }

    #[test]
    fn what_was_learned_of_those_that_stay_is_kept_and_those_that_come_are_picked() {
        for before in all() {
            let mut balancer = Balancer::new(&before, &Prepared::of(&before, 3), 0, 2);
            let now = Tick::from_millis(900);
            (0..50).for_each(|_| balancer.observe(BackendId(0), Sample::Failed(90_000), now));
            let published = balancer.published(BackendId(0));
            let next = Pool { algorithm: before.algorithm.clone(), ..pool(&[1, 2, 1, 1]) };
            balancer.replan(&next, &Prepared::of(&next, 3), (0, 2), false);
            balancer.returned(BackendId(3), now);
            assert_eq!(balancer.published(BackendId(0)), published, "{:?}", next.algorithm);
            let picked: BackendSet = picks(&mut balancer, &next, 200).into_iter().collect();
            assert!(picked.contains(BackendId(3)), "{:?}", next.algorithm);
            // A request that began under the plan before has its own weights.
            let picked = picks(&mut balancer, &before, 200);
            assert!(picked.iter().all(|id| id.index() < 3), "{:?}", next.algorithm);
        }
    }

    #[test]
    fn a_slow_start_goes_on_and_whoever_weighs_nothing_by_now_is_not_drawn() {
        let slow = |weights: &[i32]| Pool {
            slow_start: std::time::Duration::from_secs(10),
            algorithm: plan::Algorithm::Random,
            ..pool(weights)
        };
        let (before, next) = (slow(&[1, 1, 1]), slow(&[1, 1, 0]));
        let mut balancer = Balancer::new(&before, &Prepared::of(&before, 3), 0, 1);
        balancer.returned(BackendId(1), Tick::from_millis(1_000));
        balancer.replan(&next, &Prepared::of(&next, 3), (0, 1), false);
        let picked = picks(&mut balancer, &before, 400);
        let count = |id| picked.iter().filter(|it| **it == BackendId(id)).count();
        assert_eq!(count(2), 0);
        assert!((1..120).contains(&count(1)), "{} of 400", count(1));
    }
}
