//! The published bounds of the algorithms, tested in the simulation.
//!
//! A failing seed is printed; `RINGWAY_SEED=<n> cargo test simulation` runs that one alone. Bounds
//! from DECISIONS or from the head of an algorithm are quoted as they are there.

use super::*;
use crate::base::moment::Tick;
use crate::plan::{Algorithm, HashOf, Share};
use crate::policy::balance::tests::pool;
use crate::testkit::allocations;

/// Prints the seed of a run that fails.
struct Tell(u64);

impl Drop for Tell {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {0}: RINGWAY_SEED={0} runs it again", self.0);
        }
    }
}

/// Runs for this many seeds, or for the one that the environment names.
fn seeds(count: u64, run: impl Fn(u64)) {
    let named = std::env::var("RINGWAY_SEED").ok();
    let named = named.map(|seed| seed.parse::<u64>().expect("RINGWAY_SEED is a number"));
    for seed in named.map_or(0..count, |seed| seed..seed + 1) {
        let _tell = Tell(seed);
        run(seed);
    }
}

fn bounded() -> Algorithm {
    Algorithm::Hash { of: HashOf::Uri, bound: Some(Share::percent(125)) }
}

fn by_key(algorithm: &Algorithm) -> bool {
    Needs::of(&Pool { algorithm: algorithm.clone(), ..Pool::default() }).key
}

const CORES: [usize; 4] = [1, 2, 8, 64];

fn world(algorithm: &Algorithm, weights: &[i32], cores: usize, micros: u32) -> World {
    World::new(&Pool { algorithm: algorithm.clone(), ..pool(weights) }, cores, micros, 1)
}

/// What may happen in a simulation of this pool between two requests.
fn something_happens(world: &mut World, pool: &Pool) {
    let nth = world.rng.below(u32::try_from(pool.backends.len()).expect("few backends"));
    let Some(BackendId(index)) = pool.backends.ids().nth(nth as usize) else { return };
    match world.rng.below(60) {
        0 => world.leave(index),
        1 | 2 => world.come_back(index),
        3 => world.backends[usize::from(index)].micros = 1 + world.rng.below(2_000_000),
        4 => world.backends[usize::from(index)].micros = 1 + world.rng.below(20_000),
        5 => world.backends[usize::from(index)].fails ^= true,
        6 => world.wait(world.now + 3_000_000),
        _ => {}
    }
}

/// Backends of any weight, some of them backups, some without new traffic; with empty seats in
/// between.
fn any_pool(algorithm: &Algorithm, rng: &mut Rng) -> Pool {
    let weight = |rng: &mut Rng| match rng.below(8) {
        0 => 0,
        1 => -1 - i32::try_from(rng.below(256)).expect("small"),
        2 => 1 + i32::try_from(rng.below(256)).expect("small"),
        _ => 1,
    };
    let weights: Vec<_> = (0..1 + rng.below(40)).map(|_| weight(rng)).collect();
    let slow_start = std::time::Duration::from_secs(rng.below(2).into());
    let mut pool = Pool { algorithm: algorithm.clone(), slow_start, ..pool(&weights) };
    for seat in 0..rng.below(20) as u16 {
        pool.backends.remove(BackendId(seat * 2));
    }
    pool
}

#[test]
fn whatever_happens_only_those_are_picked_who_may_be() {
    seeds(256, |seed| {
        let mut rng = Rng::seeded(seed);
        let variants = Algorithm::each();
        let algorithm = &variants[usize::try_from(seed).expect("small") % variants.len()];
        let pool = any_pool(algorithm, &mut rng);
        let mut world = World::new(&pool, CORES[rng.below(4) as usize], 5_000, seed);
        let may = |world: &World, backup: bool| {
            let may = |id: &BackendId| {
                let backend = pool.backends.get(*id).expect("it is there");
                backend.weight > 0 && backend.backup == backup
            };
            world.usable.iter().filter(may).map(BackendId::index).collect::<Vec<_>>()
        };
        for _ in 0..200 {
            something_happens(&mut world, &pool);
            let (primaries, backups) = (may(&world, false), may(&world, true));
            let these = if primaries.is_empty() { backups } else { primaries };
            let key = u64::from(rng.below(50));
            let picked = world.ask(1_000, key);
            assert_eq!(picked.is_none(), these.is_empty(), "{algorithm:?} {these:?}");
            assert!(picked.is_none_or(|id| these.contains(&id)), "{picked:?} of {these:?}");
        }
        world.wait(u64::MAX);
        assert_eq!(world.fullest(), (0, 0));
    });
}

/// Nor does anything that a worker does for it: rule 19.
#[test]
fn no_pick_allocates() {
    for algorithm in Algorithm::each() {
        let slow_start = std::time::Duration::from_secs(1);
        let pool = Pool { algorithm: algorithm.clone(), slow_start, ..pool(&[2, 5, 1, 2, 9]) };
        let World { mut cores, weights, usable, .. } = World::new(&pool, 2, 5_000, 1);
        let Core { balancer, in_flight, .. } = &mut cores[0];
        let id = BackendId(3);
        let picks = (1..100).map(|ms| {
            let now = Tick::from_millis(ms);
            allocations(|| {
                if ms % 40 == 1 {
                    balancer.returned(id, now);
                }
                let key = (ms % 3 > 0).then_some(ms);
                let candidates = Candidates {
                    extra: &[],
                    usable: &usable,
                    weights: &weights,
                    in_flight,
                    now,
                    key,
                };
                assert!(balancer.pick(&candidates).is_some());
                balancer.observe(id, Sample::FirstByte(500), now);
                let published = balancer.published(id);
                balancer.merge(id, [published, 0].into_iter(), now);
            })
        });
        assert_eq!(picks.sum::<u64>(), 0, "{algorithm:?}");
    }
}

/// The largest part by which a backend missed its share, and by how many requests.
fn missed(got: &[u32], weights: &[i32]) -> (f64, f64) {
    let (sum, whole) = (got.iter().sum::<u32>(), weights.iter().sum::<i32>());
    let missed = got.iter().zip(weights).map(|(got, weight)| {
        let share = f64::from(sum) * f64::from(*weight) / f64::from(whole);
        let by = (f64::from(*got) - share).abs();
        (by / share, by)
    });
    missed.fold((0.0, 0.0), |a, b| (a.0.max(b.0), a.1.max(b.1)))
}

/// Under load every backend gets the share of its weight: in turn to within one request of each
/// core, otherwise to within an eighth; or a fifth, if a bound holds so few that one request more
/// or less is much.
#[test]
fn shares_go_by_weight_on_any_number_of_cores() {
    let weights = [5, 3, 1, 1];
    for algorithm in Algorithm::each() {
        for cores in CORES {
            let mut world = world(&algorithm, &weights, cores, 5_000);
            let got = world.ask_many(8_000, 50);
            let (part, by) = missed(&got, &weights);
            println!("{algorithm:?} on {cores} cores: {got:?} {part}");
            let good = match algorithm {
                Algorithm::RoundRobin => by <= cores as f64,
                Algorithm::Hash { bound: Some(_), .. } => part <= 0.2,
                _ => part <= 0.125,
            };
            assert!(good, "{algorithm:?} on {cores} cores: {got:?}");
        }
    }
}

/// A lone client's requests, one after another, reach all backends by weight: to within a tenth, by
/// time to within a third, since a backend that is asked more shows a higher peak.
#[test]
fn a_lone_client_does_not_see_the_heaviest_only() {
    for algorithm in Algorithm::each() {
        let mut world = world(&algorithm, &[5, 3, 1, 1], 1, 5_000);
        let got = world.ask_many(2_000, 20_000);
        println!("{algorithm:?}: {got:?}");
        let least = if algorithm == Algorithm::LeastResponseTime { 650 } else { 900 };
        assert!((least..=1_100).contains(&got[0]), "{algorithm:?}: {got:?}");
    }
}

/// The most that the fullest of 10 backends has in flight during a while, relative to the mean.
fn fullest(algorithm: &Algorithm, cores: usize) -> f64 {
    let mut world = world(algorithm, &[1; 10], cores, 20_000);
    world.ask_many(1_000, 50);
    let (mut most, mut sum) = (0, 0);
    for _ in 0..3_000 {
        let key = world.rng.next();
        world.ask(50, key);
        let (fullest, all) = world.fullest();
        most = most.max(fullest);
        sum += all;
    }
    f64::from(most) / (f64::from(sum) / 3_000.0 / 10.0)
}

/// 20,000 requests a second that take 20 ms: on average 40 in flight at each of 10 backends, and
/// half of all of them arrive between two merges with the other cores.
#[test]
fn the_fullest_backend_is_not_far_above_the_mean() {
    for cores in CORES {
        for algorithm in Algorithm::each() {
            let bound = match algorithm {
                Algorithm::LeastConnections if cores <= 2 => 1.2,
                Algorithm::Random | Algorithm::LeastResponseTime if cores <= 2 => 1.25,
                Algorithm::Random | Algorithm::LeastConnections => 1.4,
                Algorithm::LeastResponseTime | Algorithm::RoundRobin => 1.4,
                Algorithm::Hash { bound: Some(_), .. } => 1.45,
                Algorithm::IpHash | Algorithm::Hash { bound: None, .. } => 1.9,
            };
            let fullest = fullest(&algorithm, cores);
            println!("{algorithm:?} on {cores} cores: {fullest:.2}");
            assert!(fullest <= bound, "{algorithm:?} on {cores} cores: {fullest}");
        }
    }
}

/// Half of all requests have one key. Its backend never gets more than the bound, 1.25 times the
/// mean and one. With too many counts to read all of them at each pick, at most 2.5 times the mean
/// and four, since each core may give it some before it hears of the others.
#[test]
fn a_bound_holds_where_one_key_is_asked_for_all_the_time() {
    let exact = CORES.map(|cores| (cores, 10, 1.25, 1.0));
    for (cores, backends, times, more) in exact.into_iter().chain([(64, 17, 2.5, 4.0)]) {
        let mut world = world(&bounded(), &vec![1; backends], cores, 20_000);
        let mut worst = 0_f64;
        for _ in 0..4_000 {
            let key = u64::from(world.rng.below(2)) * world.rng.next();
            let picked = world.ask(50, key).expect("there is room");
            let (given, all) = (world.backends[picked].in_flight, world.fullest().1);
            let mean = f64::from(all) / backends as f64;
            let bound = times * mean + more;
            worst = worst.max(f64::from(given) / (mean + 1.0));
            assert!(f64::from(given) <= bound, "{cores} cores: {given} of {all}");
        }
        println!("{cores} cores: {worst:.2} times the mean");
    }
}

/// The owner of each key among the backends of these names.
fn owners(names: &[String], keys: u64) -> Vec<String> {
    let algorithm = Algorithm::Hash { of: HashOf::Uri, bound: None };
    let mut pool = Pool { algorithm, ..pool(&vec![1; names.len()]) };
    for (backend, name) in pool.backends.values_mut().zip(names) {
        backend.name.clone_from(name);
    }
    let mut world = World::new(&pool, 1, 5_000, 1);
    let mut rng = Rng::seeded(keys);
    (0..keys).map(|_| names[world.ask(0, rng.next()).expect("all can")].clone()).collect()
}

fn names(seed: u64) -> Vec<String> {
    (0..10).map(|index| format!("10.0.{seed}.{index}:8080")).collect()
}

/// One in ten must move; Maglev moves hardly more.
#[test]
fn removing_one_of_ten_moves_at_most_11_percent_of_the_keys() {
    seeds(4, |seed| {
        let mut names = names(seed);
        let before = owners(&names, 5_000);
        let gone = names.remove(usize::try_from(seed).expect("small") * 3);
        let after = owners(&names, 5_000);
        let moved = before.iter().zip(&after).filter(|(was, is)| was != is).count();
        let its_own = before.iter().filter(|was| **was == gone).count();
        println!("{moved} of 5,000, of which {its_own} had to");
        assert!(moved <= 550 && moved - its_own <= 50, "{moved}, of which {its_own} had to");
    });
}

/// Also if another core, started with another seed, has the backends in another order.
#[test]
fn two_ringways_with_the_same_pool_agree_on_every_key() {
    seeds(2, |seed| {
        let names = names(seed);
        let mut turned: Vec<_> = names.iter().rev().cloned().collect();
        turned.swap(2, 5);
        assert!(owners(&names, 5_000) == owners(&turned, 5_000));
    });
}

/// One of five is slow for two seconds. It then gets next to nothing, and once it is fast again it
/// is back at half of its share within 60 s, and never flooded.
#[test]
fn one_that_was_slow_once_gets_its_share_back() {
    for cores in [1, 8, 64] {
        let mut world = world(&Algorithm::LeastResponseTime, &[1; 5], cores, 5_000);
        let seconds = |world: &mut World, count: u32| world.ask_many(100 * count, 10_000)[0];
        seconds(&mut world, 5);
        world.backends[0].micros = 1_000_000;
        let while_slow = seconds(&mut world, 2);
        world.backends[0].micros = 5_000;
        let afterwards = (0..6).map(|_| seconds(&mut world, 10)).collect::<Vec<_>>();
        println!("{cores} cores: {while_slow} of 200, then {afterwards:?} of 1,000");
        assert!(while_slow <= 20, "{cores} cores: {while_slow}");
        let back = afterwards.iter().position(|count| *count >= 100);
        assert!(back.is_some(), "{cores} cores: {afterwards:?}");
        assert!(afterwards.iter().all(|count| *count <= 400), "{cores} cores: {afterwards:?}");
    }
}

/// One of five answers 500 at once. It looks a hundred times faster than the others and idle, but
/// gets at most one request in thirty; once it works again it gets its share back.
#[test]
fn one_that_fails_fast_is_no_black_hole() {
    for cores in [1, 8, 64] {
        for gap in [10_000, 200] {
            let mut world = world(&Algorithm::LeastResponseTime, &[1; 5], cores, 20_000);
            world.ask_many(1_000, gap);
            let other = std::mem::replace(
                &mut world.backends[0],
                Backend { micros: 200, fails: true, ..Backend::default() },
            );
            world.backends[0].in_flight = other.in_flight;
            world.ask_many(500, gap);
            let got = world.ask_many(2_500, gap)[0];
            println!("{cores} cores, every {gap} us: {got} of 2,500");
            assert!(got <= 83, "{cores} cores, every {gap} us: {got} of 2,500");
            world.backends[0].micros = 20_000;
            world.backends[0].fails = false;
            world.wait(world.now + 60_000_000);
            let got = world.ask_many(2_500, gap)[0];
            assert!(got >= 250, "{cores} cores, every {gap} us: {got} of 2,500 once it works");
        }
    }
}

/// The same for the algorithms that use requests in flight, of which a backend that fails at once
/// never has any: one request after another and many at once, whatever its weight. It gets less
/// than a third of its share, and once it works again its share.
#[test]
fn one_that_fails_at_once_attracts_nobody_who_looks_for_the_least() {
    for algorithm in [Algorithm::LeastConnections, Algorithm::Random] {
        for cores in [1, 2, 8, 64] {
            for (weights, gap) in [
                (&[1, 1, 1, 1, 1][..], 50_000),
                (&[1, 1, 1, 1, 1], 200),
                (&[1, 5, 3, 2], 50_000),
                (&[1, 5, 3, 2], 200),
                (&[5, 1, 1, 3], 50_000),
                (&[5, 1, 1, 3], 200),
                (&[1, 1], 50_000),
                (&[1, 1], 400),
                (&[1; 40], 100),
            ] {
                let mut world = world(&algorithm, weights, cores, 20_000);
                let share = 2_500 * weights[0] / weights.iter().sum::<i32>();
                let share = u32::try_from(share).expect("small");
                world.ask_many(1_000, gap);
                (world.backends[0].micros, world.backends[0].fails) = (200, true);
                world.ask_many(500, gap);
                let got = world.ask_many(2_500, gap)[0];
                println!("{algorithm:?}, {cores} cores, {weights:?}, {gap} us: {got} for {share}");
                assert!(
                    got <= share / 3,
                    "{weights:?}, {cores} cores, {gap} us: {got} for {share}"
                );
                (world.backends[0].micros, world.backends[0].fails) = (20_000, false);
                world.wait(world.now + 60_000_000);
                let got = world.ask_many(2_500, gap)[0];
                assert!(got >= share * 3 / 4, "{weights:?}, {cores} cores: {got} once it works");
            }
        }
    }
}

/// If all fail alike, none counts as busier than another.
#[test]
fn where_all_fail_all_get_their_shares() {
    for algorithm in [Algorithm::LeastConnections, Algorithm::Random] {
        for cores in [1, 8] {
            let weights = [3, 1, 1, 1];
            let mut world = world(&algorithm, &weights, cores, 20_000);
            world.backends.iter_mut().for_each(|backend| backend.fails = true);
            let got = world.ask_many(6_000, 1_000);
            println!("{algorithm:?}, {cores} cores: {got:?}");
            assert!(missed(&got, &weights).0 <= 0.25, "{algorithm:?}, {cores} cores: {got:?}");
        }
    }
}

/// One client requests slow paths, a dozen at once and again and again, each of which occupies its
/// backend for half a minute: the requests of all others go by weight as before.
#[test]
fn slow_paths_of_one_client_keep_nobody_from_the_others() {
    for algorithm in Algorithm::each() {
        for cores in [1, 8] {
            let weights = [1, 1, 1, 1];
            let mut world = world(&algorithm, &weights, cores, 5_000);
            let mut got = [0; 4];
            for _ in 0..10 {
                world.backends.iter_mut().for_each(|backend| backend.micros = 30_000_000);
                world.ask_many(12, 100);
                world.backends.iter_mut().for_each(|backend| backend.micros = 5_000);
                for (sum, more) in got.iter_mut().zip(world.ask_many(1_000, 4_000)) {
                    *sum += more;
                }
            }
            let share = missed(&got, &weights).0;
            println!("{algorithm:?}, {cores} cores: {got:?}");
            // A backend with more of the slow ones gets fewer of the others, which is the point.
            assert!(share <= 0.4, "{algorithm:?}, {cores} cores: {got:?}");
        }
    }
}

/// One of four returns: within a tenth of its slow start it has at most 30 % of its share, in the
/// middle of it more and not the whole, afterwards the whole; by key it has the whole at once.
#[test]
fn one_that_comes_back_gets_its_share_little_by_little() {
    for algorithm in Algorithm::each() {
        for cores in [1, 8] {
            let slow_start = std::time::Duration::from_secs(10);
            let pool = Pool { algorithm: algorithm.clone(), slow_start, ..pool(&[2; 4]) };
            let mut world = World::new(&pool, cores, 5_000, 1);
            world.leave(1);
            world.ask_many(2_000, 1_000);
            world.come_back(1);
            let got: Vec<_> = (0..12).map(|_| world.ask_many(1_000, 1_000)[1]).collect();
            println!("{algorithm:?} on {cores} cores: {got:?} of 1,000 each");
            let [first, middle, last] = [got[0], got[4], got[11]];
            if by_key(&algorithm) {
                assert!(first >= 200, "{algorithm:?} on {cores} cores: {got:?}");
            } else {
                assert!(first <= 75, "{algorithm:?} on {cores} cores: {got:?}");
                assert!((100..=220).contains(&middle), "{algorithm:?} on {cores} cores: {got:?}");
            }
            assert!(last >= 200, "{algorithm:?} on {cores} cores: {got:?}");
        }
    }
}
