//! When each backend is probed.
//!
//! Pure: time and chance are parameters. Backends are probed at once when their probing begins,
//! spread over a short while, and then at their interval from the start of one probe to that of the
//! next, a little sooner or later each time so that many backends do not stay in step. Two probes
//! of a backend never overlap; where too many are under way, those due wait in the order in which
//! they fell due.

use std::time::Duration;

use crate::base::rng::Rng;

/// Over how long the first probes are spread, at the most: a process that starts, or a name that
/// gets an address, is to be looked at soon.
const SPREAD_MS: u64 = 1_000;

/// Probes under way at once. While backends answer within 10 ms, 64 probe 6,400 a second. Where a
/// thousand all time out after 2 s, a round takes half a minute instead of their interval, which is
/// the price of the bound: each probe holds a descriptor and about 24 KiB, and a burst of connects
/// is itself a load.
pub(crate) const UNDER_WAY_MAX: usize = 64;

/// The backends that are probed, each known by its place.
pub(crate) struct Probes {
    all: Vec<Probed>,
    under_way: usize,
    chance: Rng,
}

struct Probed {
    spread_ms: u64,
    state: State,
    /// Whether it is to be probed: it has an address.
    wanted: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Resting,
    /// From then on.
    Due(u64),
    /// Since then.
    UnderWay(u64),
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// This backend's probe begins now.
    Probe(usize),
    /// Nothing before then.
    At(u64),
    /// Nothing, until a probe has ended or a backend is to be probed.
    Nothing,
}

impl Probes {
    /// Backends with these intervals; none is probed yet.
    pub(crate) fn new(intervals: impl Iterator<Item = Duration>, seed: u64) -> Probes {
        let probed = |interval: Duration| Probed {
            spread_ms: millis(interval).min(SPREAD_MS),
            state: State::Resting,
            wanted: false,
        };
        Probes { all: intervals.map(probed).collect(), under_way: 0, chance: Rng::seeded(seed) }
    }

    /// From now on a backend is to be probed, or is not.
    pub(crate) fn want(&mut self, place: usize, wanted: bool, now: u64) {
        let Some(probed) = self.all.get_mut(place) else { return };
        probed.wanted = wanted;
        match (probed.state, wanted) {
            (State::Resting, true) => {
                let spread = self.chance.below(as_u32(probed.spread_ms));
                probed.state = State::Due(now + u64::from(spread));
            }
            (State::Due(_), false) => probed.state = State::Resting,
            (State::Resting, false) | (State::Due(_), true) | (State::UnderWay(_), _) => {}
        }
    }

    /// What is to be done now. A probe that it says to begin has begun.
    pub(crate) fn next(&mut self, now: u64) -> Next {
        if self.under_way >= UNDER_WAY_MAX {
            return Next::Nothing;
        }
        let due = self.all.iter().enumerate().filter_map(|(place, probed)| match probed.state {
            State::Due(due) => Some((due, place)),
            State::Resting | State::UnderWay(_) => None,
        });
        let Some((due, place)) = due.min() else { return Next::Nothing };
        if due > now {
            return Next::At(due);
        }
        if let Some(probed) = self.all.get_mut(place) {
            probed.state = State::UnderWay(now);
        }
        self.under_way += 1;
        Next::Probe(place)
    }

    /// A backend's probe has ended; the next is due `interval` after it began.
    pub(crate) fn ended(&mut self, place: usize, interval: Duration, now: u64) {
        let Some(probed) = self.all.get_mut(place) else { return };
        let State::UnderWay(began) = probed.state else { return };
        self.under_way -= 1;
        let interval = millis(interval);
        let jitter = u64::from(self.chance.below(as_u32(interval / 5 + 1)));
        let due = began + interval - interval / 10 + jitter;
        probed.state = if probed.wanted { State::Due(due.max(now)) } else { State::Resting };
    }

    /// How many are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way
    }
}

fn millis(time: Duration) -> u64 {
    // Far beyond any interval, and far from where sums overflow.
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).min(u64::MAX / 4)
}

fn as_u32(millis: u64) -> u32 {
    u32::try_from(millis).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probes of these intervals that all are wanted at 0.
    fn wanted(intervals: &[u64], seed: u64) -> Probes {
        let intervals = intervals.iter().map(|millis| Duration::from_millis(*millis));
        let mut probes = Probes::new(intervals, seed);
        (0..probes.all.len()).for_each(|place| probes.want(place, true, 0));
        probes
    }

    /// Lets time pass until `end` with probes that take so long; when each began, by its place.
    fn play(probes: &mut Probes, takes: u64, interval: u64, end: u64) -> Vec<Vec<u64>> {
        let interval = Duration::from_millis(interval);
        let mut began = vec![Vec::new(); probes.all.len()];
        let mut under_way: Vec<(u64, usize)> = Vec::new();
        for now in 0..end {
            under_way.retain(|(ends, place)| {
                if *ends <= now {
                    probes.ended(*place, interval, now);
                }
                *ends > now
            });
            while let Next::Probe(place) = probes.next(now) {
                assert!(under_way.iter().all(|(_, other)| *other != place), "two of {place}");
                began[place].push(now);
                under_way.push((now + takes, place));
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
    fn a_probe_that_takes_longer_than_the_interval_is_followed_at_once() {
        let began = play(&mut wanted(&[100], 1), 250, 100, 2_000);
        assert!(began[0].windows(2).all(|pair| pair[1] - pair[0] == 250), "{began:?}");
    }

    #[test]
    fn a_thousand_are_all_probed_and_those_due_first_go_first() {
        let began = play(&mut wanted(&[5_000; 1_000], 3), 10, 5_000, 12_000);
        let rounds = began.iter().map(Vec::len);
        assert!(rounds.clone().min() >= Some(2) && rounds.max() <= Some(3));
        // Too slow for the bound: all get their turn, and none twice before another's once.
        let began = play(&mut wanted(&[1_000; 1_000], 3), 200, 1_000, 12_000);
        let rounds = began.iter().map(Vec::len);
        assert!(rounds.clone().max() <= rounds.min().map(|least| least + 1));
    }

    #[test]
    fn what_is_not_wanted_is_not_probed() {
        let mut probes = wanted(&[100, 100], 1);
        probes.want(1, false, 0);
        let began = play(&mut probes, 7, 100, 1_000);
        assert!(began[0].len() >= 9 && began[1].is_empty());
        // One that is under way is not begun again, whatever is wanted meanwhile.
        assert_eq!(probes.next(1_100), Next::Probe(0));
        probes.want(0, false, 1_100);
        probes.want(0, true, 1_100);
        assert_eq!(probes.next(9_999), Next::Nothing);
        probes.want(0, false, 1_100);
        probes.ended(0, Duration::from_millis(100), 1_107);
        assert_eq!((probes.next(9_999), probes.under_way()), (Next::Nothing, 0));
        probes.want(0, true, 10_000);
        assert!(matches!(probes.next(10_000), Next::At(10_000..10_100) | Next::Probe(0)));
    }
}
