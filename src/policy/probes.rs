//! The schedule of health probes.
//!
//! Pure: time and chance are parameters. A backend is probed at once when its probing begins,
//! spread over a short while unless something waits for it, and then at its interval from the start
//! of one probe to that of the next, with jitter so that many backends do not stay in step. Two
//! probes of a backend never overlap; if too many are in progress, those due wait in the order in
//! which they became due. No pool can take all the slots: it waits while it has as many in progress
//! as there are slots left, leaves one to each pool that has none, and comes after those that have
//! fewer. So backends that do not answer delay only the probes of their own pool.

use std::{collections::HashMap, time::Duration};

use crate::base::{moment::Tick, rng::Rng};

/// The longest time over which first probes are spread: a process that starts, or a name that gets
/// an address, should be probed soon.
const SPREAD: Duration = Duration::from_secs(1);

/// Probes in progress at once; a pool alone has half of them, two have a third each, and so on.
/// While backends answer within 10 ms, 64 probe 6,400 a second. If a thousand of a pool all time
/// out after 2 s, its round takes half a minute instead of their interval, which is the price of
/// the bound: each probe holds a descriptor and about 24 KiB, and a burst of connects is itself a
/// load.
pub(crate) const UNDER_WAY_MAX: usize = 128;

/// The backends that are probed, each known by its index.
pub(crate) struct Probes {
    all: Vec<Probed>,
    under_way: usize,
    /// Of these, the probes of backends that are gone.
    stray: usize,
    /// For each pool.
    under_way_of: Vec<usize>,
    chance: Rng,
}

struct Probed {
    /// The index of its pool in `under_way_of`.
    pool: usize,
    spread: Duration,
    state: State,
    /// Whether it should be probed: it has an address.
    wanted: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Resting,
    /// From then on.
    Due(Tick),
    /// Since then.
    UnderWay(Tick),
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The probe of this backend begins now, this long after it was due.
    Probe { place: usize, late: Duration },
    /// Nothing before then.
    At(Tick),
    /// Nothing, until a probe has ended or a backend is to be probed.
    Nothing,
}

impl Probes {
    /// Backends of pools, with any pool numbers, and their intervals; none is probed yet.
    pub(crate) fn new(backends: impl Iterator<Item = (usize, Duration)>, seed: u64) -> Probes {
        // Only pools that are probed count: another would have a slot kept free for it.
        let mut pools = HashMap::new();
        let probed = |(pool, interval): (usize, Duration)| {
            let next = pools.len();
            Probed {
                pool: *pools.entry(pool).or_insert(next),
                spread: interval.min(SPREAD),
                state: State::Resting,
                wanted: false,
            }
        };
        let all: Vec<Probed> = backends.map(probed).collect();
        let under_way_of = vec![0; pools.len()];
        Probes { all, under_way: 0, stray: 0, under_way_of, chance: Rng::seeded(seed) }
    }

    /// Replaces the backends: pools, intervals, and for those that stay the index that each had.
    /// One that stays continues unchanged; the probe of one that is gone stays in progress until it
    /// has `strayed`.
    pub(crate) fn replan(
        &mut self,
        backends: impl Iterator<Item = (usize, Duration, Option<usize>)> + Clone,
    ) {
        let all = backends.clone().map(|(pool, interval, _)| (pool, interval));
        let mut next = Probes::new(all, u64::from(self.chance.below(u32::MAX)));
        for (place, (_, _, before)) in backends.enumerate() {
            let before = before.and_then(|before| self.all.get_mut(before));
            let (Some(now), Some(before)) = (next.all.get_mut(place), before) else { continue };
            now.wanted = before.wanted;
            now.state = std::mem::replace(&mut before.state, State::Resting);
            if matches!(now.state, State::UnderWay(_)) {
                next.count(place, |count| *count += 1);
            }
        }
        // A probe that was not taken over belongs to no backend any more.
        let is_under_way = |probed: &&Probed| matches!(probed.state, State::UnderWay(_));
        next.stray = self.stray + self.all.iter().filter(is_under_way).count();
        next.under_way += next.stray;
        *self = next;
    }

    /// The probe of a backend that is gone has ended.
    pub(crate) fn strayed(&mut self) {
        self.stray = self.stray.saturating_sub(1);
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// The first probe of a backend begins at once, if none has begun.
    pub(crate) fn hurry(&mut self, place: usize) {
        if let Some(probed) = self.all.get_mut(place) {
            probed.spread = Duration::ZERO;
        }
    }

    /// From now on a backend is probed, or is not.
    pub(crate) fn want(&mut self, place: usize, wanted: bool, now: Tick) {
        let Some(probed) = self.all.get_mut(place) else { return };
        probed.wanted = wanted;
        match (probed.state, wanted) {
            (State::Resting, true) => {
                let spread = below(probed.spread, &mut self.chance);
                probed.state = State::Due(now + spread);
            }
            (State::Due(_), false) => probed.state = State::Resting,
            (State::Resting, false) | (State::Due(_), true) | (State::UnderWay(_), _) => {}
        }
    }

    /// This backend is probed at once, if it is probed and no probe of it is in progress.
    pub(crate) fn becomes_due(&mut self, place: usize, now: Tick) {
        if let Some(probed) = self.all.get_mut(place)
            && let State::Due(due) = probed.state
        {
            probed.state = State::Due(due.min(now));
        }
    }

    /// What to do now. A returned `Probe` counts as begun.
    pub(crate) fn next(&mut self, now: Tick) -> Next {
        let left = UNDER_WAY_MAX.saturating_sub(self.under_way);
        let with_none = self.under_way_of.iter().filter(|of_pool| **of_pool == 0).count();
        let may = |of_pool: usize| of_pool < left && (of_pool == 0 || with_none < left);
        let (mut first, mut later) = (None, None);
        for (place, probed) in self.all.iter().enumerate() {
            let State::Due(due) = probed.state else { continue };
            match self.under_way_of.get(probed.pool) {
                Some(of_pool) if !may(*of_pool) => {}
                Some(of_pool) if due <= now => {
                    let this = (*of_pool, due, place);
                    first = Some(first.map_or(this, |first| this.min(first)));
                }
                Some(_) | None => later = Some(later.map_or(due, |later| due.min(later))),
            }
        }
        let Some((_, due, place)) = first else { return later.map_or(Next::Nothing, Next::At) };
        if let Some(probed) = self.all.get_mut(place) {
            probed.state = State::UnderWay(now);
            self.count(place, |count| *count += 1);
        }
        Next::Probe { place, late: now.since(due) }
    }

    fn count(&mut self, place: usize, change: impl Fn(&mut usize)) {
        change(&mut self.under_way);
        let pool = self.all.get(place).map(|probed| probed.pool);
        if let Some(of_pool) = pool.and_then(|pool| self.under_way_of.get_mut(pool)) {
            change(of_pool);
        }
    }

    /// A backend's probe has ended; the next is due `interval` after it began.
    pub(crate) fn ended(&mut self, place: usize, interval: Duration, now: Tick) {
        let Some(probed) = self.all.get_mut(place) else { return };
        let State::UnderWay(began) = probed.state else { return };
        let jitter = below(interval / 5 + Duration::from_millis(1), &mut self.chance);
        let due = began + (interval - interval / 10).saturating_add(jitter);
        probed.state = if probed.wanted { State::Due(due.max(now)) } else { State::Resting };
        self.count(place, |count| *count -= 1);
    }

    /// How many are in progress.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way
    }
}

/// A random span less than this, in whole milliseconds.
fn below(span: Duration, chance: &mut Rng) -> Duration {
    let most = u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
    Duration::from_millis(chance.below(most).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::moment::millis;

    fn at(millis: u64) -> Tick {
        Tick::from_millis(millis)
    }

    /// Probes of one pool with these intervals, all wanted from 0 on.
    fn wanted(intervals: &[u64], seed: u64) -> Probes {
        wanted_of(&[intervals], seed)
    }

    /// The same for several pools.
    fn wanted_of(pools: &[&[u64]], seed: u64) -> Probes {
        let backends = pools.iter().enumerate().flat_map(|(pool, intervals)| {
            intervals.iter().map(move |millis| (pool, Duration::from_millis(*millis)))
        });
        let mut probes = Probes::new(backends, seed);
        (0..probes.all.len()).for_each(|place| probes.want(place, true, at(0)));
        probes
    }

    /// Lets time pass until `end` with probes that take this long; returns when each began, by
    /// backend.
    fn play(probes: &mut Probes, takes: u64, interval: u64, end: u64) -> Vec<Vec<u64>> {
        play_each(probes, |_| takes, interval, end)
    }

    /// The same with probes that each take as long as their pool says.
    fn play_each(
        probes: &mut Probes,
        takes: impl Fn(usize) -> u64,
        interval: u64,
        end: u64,
    ) -> Vec<Vec<u64>> {
        let interval = Duration::from_millis(interval);
        let mut began = vec![Vec::new(); probes.all.len()];
        let mut under_way: Vec<(u64, usize)> = Vec::new();
        for now in 0..end {
            under_way.retain(|(ends, place)| {
                if *ends <= now {
                    probes.ended(*place, interval, at(now));
                }
                *ends > now
            });
            while let Next::Probe { place, late } = probes.next(at(now)) {
                let last = began[place].last().copied().unwrap_or_default();
                assert!(millis(late) <= now - last, "it was not due before the last began");
                assert!(under_way.iter().all(|(_, other)| *other != place), "two of {place}");
                began[place].push(now);
                under_way.push((now + takes(probes.all[place].pool), place));
            }
            assert_eq!(probes.under_way(), under_way.len());
            assert!(under_way.len() <= UNDER_WAY_MAX);
        }
        began
    }

    #[test]
    fn the_first_probe_comes_within_a_second_and_the_next_at_the_interval() {
        for seed in 0..64 {
            let began = play(&mut wanted(&[5_000, 300], seed), 7, 5_000, 30_000);
            assert!(began[0][0] < 1_000 && began[1][0] < 300, "seed {seed}: {began:?}");
            for pair in began[0].windows(2) {
                let after = pair[1] - pair[0];
                assert!((4_500..=5_500).contains(&after), "seed {seed}: {after} ms");
            }
        }
    }

    #[test]
    fn one_that_something_waits_for_is_probed_at_once() {
        for seed in 0..64 {
            let mut probes = Probes::new([(0, Duration::from_secs(30))].into_iter(), seed);
            probes.hurry(0);
            probes.want(0, true, at(7));
            let now = Next::Probe { place: 0, late: Duration::ZERO };
            assert_eq!(probes.next(at(7)), now, "seed {seed}");
        }
    }

    #[test]
    fn a_probe_that_takes_longer_than_the_interval_is_followed_at_once() {
        let began = play(&mut wanted(&[100], 1), 250, 100, 2_000);
        assert!(began[0].windows(2).all(|pair| pair[1] - pair[0] == 250), "{began:?}");
    }

    #[test]
    fn a_thousand_are_all_probed_and_those_due_first_go_first() {
        let began = play(&mut wanted(&[5_000; 1_000], 3), 10, 5_000, 12_000);
        let rounds = began.iter().map(Vec::len);
        assert!(rounds.clone().min() >= Some(2) && rounds.max() <= Some(3));
        // Too slow for the half that a pool has: all get their turn, and none twice before another
        // once.
        let began = play(&mut wanted(&[1_000; 1_000], 3), 200, 1_000, 12_000);
        let rounds = began.iter().map(Vec::len);
        assert!(rounds.clone().max() <= rounds.min().map(|least| least + 1));
    }

    #[test]
    fn what_is_not_wanted_is_not_probed() {
        let mut probes = wanted(&[100, 100], 1);
        probes.want(1, false, at(0));
        let began = play(&mut probes, 7, 100, 1_000);
        assert!(began[0].len() >= 9 && began[1].is_empty());
        // A probe in progress is not begun again, whatever is wanted meanwhile.
        assert!(matches!(probes.next(at(1_100)), Next::Probe { place: 0, .. }));
        probes.want(0, false, at(1_100));
        probes.want(0, true, at(1_100));
        assert_eq!(probes.next(at(9_999)), Next::Nothing);
        probes.want(0, false, at(1_100));
        probes.ended(0, Duration::from_millis(100), at(1_107));
        assert_eq!((probes.next(at(9_999)), probes.under_way()), (Next::Nothing, 0));
        probes.want(0, true, at(10_000));
        let soon = at(10_000)..at(10_100);
        assert!(match probes.next(at(10_000)) {
            Next::At(due) => soon.contains(&due),
            next => matches!(next, Next::Probe { .. }),
        });
    }

    /// The longest time between two probes of a backend, for each pool.
    fn longest(probes: &Probes, began: &[Vec<u64>]) -> Vec<u64> {
        let mut longest = vec![0; probes.under_way_of.len()];
        for (probed, began) in probes.all.iter().zip(began) {
            let gaps = began.windows(2).map(|pair| pair[1] - pair[0]);
            longest[probed.pool] = gaps.fold(longest[probed.pool], u64::max);
        }
        longest
    }

    /// Four hundred that time out after 2 s used to keep all slots busy for twelve seconds.
    #[test]
    fn silent_backends_delay_the_probes_of_their_own_pool() {
        let (silent, well) = ([5_000; 400], [2_500; 20]);
        for silent_pools in [1, 2, 5, 40, 100] {
            let count = silent.len() / silent_pools;
            let mut pools = vec![&silent[..count]; silent_pools];
            pools.push(&well);
            let mut probes = wanted_of(&pools, 3);
            let takes = |pool| if pool == silent_pools { 10 } else { 2_000 };
            let began = play_each(&mut probes, takes, 2_500, 20_000);
            let longest = longest(&probes, &began);
            let well = longest.last().copied().unwrap();
            assert!(well <= 2_800, "{silent_pools} silent pools: {longest:?}");
            assert!(began.iter().all(|began| !began.is_empty()), "all get their turn");
        }
    }

    #[test]
    fn as_many_pools_as_there_are_places_and_more_all_get_their_turn() {
        let pools = vec![&[1_000, 1_000][..]; UNDER_WAY_MAX * 2];
        let began = play(&mut wanted_of(&pools, 3), 500, 1_000, 12_000);
        let rounds = began.iter().map(Vec::len);
        assert!(rounds.clone().max() <= rounds.min().map(|least| least + 2));
    }

    /// Pools that are not probed keep no slots free.
    #[test]
    fn a_pool_has_as_many_places_whatever_its_number_is() {
        for before in [0, 1, 31, 63, 500] {
            let mut pools = vec![&[][..]; before];
            pools.push(&[1_000; 100]);
            let mut probes = wanted_of(&pools, 3);
            let begin = || matches!(probes.next(at(2_000)), Next::Probe { .. }).then_some(());
            let begun = std::iter::from_fn(begin).count();
            assert_eq!(begun, UNDER_WAY_MAX / 2, "behind {before} pools without probes");
        }
    }

    #[test]
    fn it_says_how_late_a_probe_is() {
        let mut probes = wanted(&[100; 100], 1);
        let begun = |probes: &mut Probes, now| {
            let mut begun = Vec::new();
            while let Next::Probe { place, late } = probes.next(at(now)) {
                begun.push((place, millis(late)));
            }
            begun
        };
        let first = begun(&mut probes, 100);
        assert_eq!(first.len(), UNDER_WAY_MAX / 2);
        assert!(first.iter().all(|(_, late_ms)| *late_ms <= 100));
        probes.ended(first[0].0, Duration::from_millis(100), at(1_000));
        let later = begun(&mut probes, 1_000);
        assert!(matches!(later[..], [(_, 900..=1_000)]), "{later:?}");
    }

    #[test]
    fn those_that_stay_go_on_under_the_next_plan_and_those_that_are_gone_end() {
        let mut probes = wanted(&[10, 10, 10], 1);
        let mut begun = Vec::new();
        while let Next::Probe { place, .. } = probes.next(at(10)) {
            begun.push(place);
        }
        begun.sort_unstable();
        assert_eq!((begun, probes.under_way()), (vec![0, 1, 2], 3));
        let ms = Duration::from_millis(10);
        // The first is gone, the last is now the second, and one is new.
        probes.replan([(0, ms, Some(1)), (0, ms, Some(2)), (0, ms, None)].into_iter());
        assert_eq!(probes.under_way(), 3);
        assert!(matches!(probes.next(at(10)), Next::Nothing), "none is probed twice");
        probes.want(2, true, at(10));
        assert!(matches!(probes.next(at(2_000)), Next::Probe { place: 2, .. }));
        probes.strayed();
        assert_eq!(probes.under_way(), 3);
        for place in 0..3 {
            probes.ended(place, ms, at(2_010));
        }
        assert_eq!(probes.under_way(), 0);
        assert!(matches!(probes.next(at(2_030)), Next::Probe { .. }));
    }
}
