//! Cores kept level: when a core hands connections over to others, how many, and to which.
//!
//! The kernel spreads connections over cores blindly: of 64 on 16 cores the fullest gets twice the
//! mean. A core that is busier than the mean by more than an eighth of it and 5 points of a hundred
//! hands over, as many connections as it has too much, at most 32 in three rounds of the sweep; no
//! other does. A core that is busy for less than a tenth of the time keeps what it has: nobody
//! waits there.
//!
//! Each core that has too much works out what all of them should do, by the same numbers, and does
//! its own part of that; so two of them do not fill the same third. *Absent:* which connection goes
//! (the core takes one of those that have asked lately), and how.

#[cfg(test)]
mod simulation;

use crate::base::{
    core_load::CoreLoad,
    moment::{Micros, Moment},
};

/// Connections that a core hands over by one decision: moving one costs about as much as a new one,
/// so that these are less than a hundredth of a core.
const MOVES_MAX: usize = 32;

/// Rounds for which a decision is left to show: as many as a load is measured over.
const PAUSE: u8 = 2;

/// Loads are computed in millionths of a core.
const CORE: u64 = 1_000_000;

/// A core that is less busy than this keeps what it has.
const LEAST: u64 = CORE / 10;

/// A core that is busier than this is full. How much its clients wait tells full cores apart.
const FULL: u16 = 900;

/// How many times as full as another a full core may seem: where clients that seldom ask meet those
/// that ask at once, waiting looks longer than it is.
const TIMES_MAX: u64 = 4;

/// The least time between two readings: less says nothing.
const SPAN_MIN: Micros = Micros(50_000);

/// What a core reads of itself in each round.
#[derive(Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) at: Moment,
    /// How long its thread has been running or waiting for a processor so far.
    pub(crate) worked: Micros,
    /// How many requests it has had so far.
    pub(crate) requests: u64,
    /// How many of its clients have asked since the last round.
    pub(crate) clients: u32,
}

/// Makes loads of readings: over two rounds, so that one burst says little.
#[derive(Default)]
pub(crate) struct Meter {
    /// The one before the last, then the last.
    before: [Option<Reading>; 2],
}

impl Meter {
    /// The load as of this reading; none if there is nothing to compare it with.
    pub(crate) fn read(&mut self, reading: Reading) -> Option<CoreLoad> {
        let [older, last] = self.before;
        if last.is_some_and(|last| reading.at.since(last.at) < SPAN_MIN) {
            return None;
        }
        self.before = [last, Some(reading)];
        let (last, from) = (last?, older.or(last)?);
        let span = reading.at.since(from.at).0.max(1);
        let busy = reading.worked.0.saturating_sub(from.worked.0) * 1_000 / span;
        let requests = reading.requests.saturating_sub(from.requests).max(1);
        let clients = match older {
            Some(_) => u64::from(last.clients + reading.clients).div_ceil(2),
            None => u64::from(reading.clients),
        };
        let short = |number: u64| u16::try_from(number).unwrap_or(u16::MAX);
        Some(CoreLoad {
            busy: short(busy.min(1_000)),
            clients: short(clients),
            cycle: short(clients * span / requests / 2),
            ..CoreLoad::default()
        })
    }

    /// Forgets all readings: the core has been idle since.
    pub(crate) fn forget(&mut self) {
        self.before = [None; 2];
    }
}

/// The decisions of one core.
#[derive(Default)]
pub(crate) struct Leveller {
    pause: u8,
}

impl Leveller {
    /// To which cores this one hands connections over from now on, one to each; none = as decided
    /// before.
    pub(crate) fn next(&mut self, own: usize, loads: &[CoreLoad]) -> Option<Vec<usize>> {
        if self.pause > 0 {
            self.pause -= 1;
            return None;
        }
        let moves = hand_over(own, loads);
        if !moves.is_empty() {
            self.pause = PAUSE;
        }
        Some(moves)
    }
}

/// A core in the computation of who hands over to whom.
struct Share {
    core: usize,
    load: u64,
    /// What one of its clients asks of it, in the mean.
    weight: u64,
    gives: bool,
    moves: usize,
}

/// To which cores a core hands over by these loads.
fn hand_over(own: usize, loads: &[CoreLoad]) -> Vec<usize> {
    let mut shares = shares(loads);
    let total: u64 = shares.iter().map(|share| share.load).sum();
    let Some(mean) = total.checked_div(shares.len() as u64) else { return Vec::new() };
    let bound = LEAST.max(mean + mean / 8 + CORE / 20);
    for (share, clients) in shares.iter_mut().zip(loads.iter().filter(|it| it.takes)) {
        share.gives = share.load > bound && clients.clients > 1;
    }
    let mut own_moves = Vec::new();
    if !shares.iter().any(|share| share.core == own && share.gives) {
        return own_moves;
    }
    while let Some((giver, taker)) = next_move(&shares, mean) {
        let weight = shares[giver].weight;
        shares[giver].load -= weight;
        shares[giver].moves += 1;
        shares[taker].load += weight;
        if shares[giver].core == own {
            own_moves.push(shares[taker].core);
        }
    }
    own_moves
}

/// The cores that take part, with their loads.
fn shares(loads: &[CoreLoad]) -> Vec<Share> {
    let is_full = |load: &&CoreLoad| load.takes && load.busy >= FULL;
    let shortest = loads.iter().filter(is_full).map(|load| load.cycle.max(1)).min();
    let share = |(core, load): (usize, &CoreLoad)| {
        let busy = u64::from(load.busy) * (CORE / 1_000);
        let load_now = match shortest {
            // As if each of its clients could ask as often as those of the core where they wait
            // least.
            Some(shortest) if load.busy >= FULL => {
                let shortest = u64::from(shortest);
                (busy * u64::from(load.cycle).max(shortest) / shortest).min(busy * TIMES_MAX)
            }
            Some(_) | None => busy,
        };
        let weight = (load_now / u64::from(load.clients.max(1))).max(1);
        Share { core, load: load_now, weight, gives: false, moves: 0 }
    };
    loads.iter().enumerate().filter(|(_, load)| load.takes).map(share).collect()
}

/// From which share to which a connection goes next: from the fullest that gives to the emptiest,
/// as long as that makes the fullest of the two less full by half a connection at least.
fn next_move(shares: &[Share], mean: u64) -> Option<(usize, usize)> {
    let may_give = |it: &Share| it.gives && it.moves < MOVES_MAX && it.load >= mean + it.weight / 2;
    let places = || shares.iter().enumerate();
    let (taker, least) = places().min_by_key(|(_, share)| share.load)?;
    let fits = |giver: &Share| least.load + giver.weight + giver.weight / 2 <= giver.load;
    let givers = places().filter(|(place, it)| *place != taker && may_give(it) && fits(it));
    let (giver, _) = givers.max_by_key(|(_, share)| share.load)?;
    Some((giver, taker))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(busy: u16, clients: u16) -> CoreLoad {
        CoreLoad { busy, clients, cycle: 10, takes: true, plan: 1 }
    }

    /// What each core hands over by these loads.
    #[track_caller]
    fn check(loads: &[CoreLoad], expected: &[&[usize]]) {
        let moves: Vec<Vec<usize>> = (0..loads.len()).map(|own| hand_over(own, loads)).collect();
        assert_eq!(moves, expected, "{loads:?}");
    }

    #[test]
    fn who_is_busier_than_the_mean_by_the_margin_hands_over_and_nobody_else() {
        check(&[load(600, 6), load(200, 2)], &[&[1, 1], &[]]);
        check(&[load(500, 5), load(400, 4)], &[&[], &[]]);
        // One more would only swap them.
        check(&[load(600, 3), load(400, 2)], &[&[], &[]]);
        check(&[load(600, 2), load(0, 0)], &[&[1], &[]]);
        // The only client of a core stays.
        check(&[load(600, 1), load(0, 0)], &[&[], &[]]);
        // Nobody waits.
        check(&[load(99, 9), load(0, 0)], &[&[], &[]]);
        check(&[load(120, 12), load(0, 0)], &[&[1; 6], &[]]);
        check(&[load(900, 9)], &[&[]]);
        check(&[], &[]);
    }

    #[test]
    fn no_core_is_filled_by_two() {
        let (full, empty) = (load(600, 6), load(200, 2));
        check(&[full, full, empty, empty], &[&[3, 3], &[2, 2], &[], &[]]);
        check(&[full, empty, load(400, 4)], &[&[1, 1], &[], &[]]);
    }

    #[test]
    fn a_core_that_serves_no_more_neither_takes_nor_counts() {
        let gone = CoreLoad { takes: false, ..load(0, 0) };
        check(&[load(600, 6), gone], &[&[], &[]]);
        check(&[load(600, 6), gone, load(200, 2)], &[&[2, 2], &[], &[]]);
        check(&[gone, load(600, 6), load(600, 6)], &[&[], &[], &[]]);
    }

    #[test]
    fn full_cores_differ_by_how_long_their_clients_wait() {
        let full = |cycle, clients| CoreLoad { cycle, ..load(980, clients) };
        check(&[full(80, 8), full(80, 8)], &[&[], &[]]);
        check(&[full(120, 12), full(40, 4)], &[&[1; 4], &[]]);
        // Heavy clients here, light ones there.
        assert!(!hand_over(0, &[full(800, 8), full(80, 8)]).is_empty());
        // What one of them asks says nothing of one that is not full.
        check(&[CoreLoad { cycle: 9_000, ..load(500, 9) }, load(500, 9)], &[&[], &[]]);
    }

    #[test]
    fn moves_are_bounded_and_left_to_show() {
        let loads = [load(900, 900), load(0, 0)];
        let mut leveller = Leveller::default();
        assert_eq!(leveller.next(0, &loads).map(|moves| moves.len()), Some(MOVES_MAX));
        assert_eq!(leveller.next(0, &loads), None);
        assert_eq!(leveller.next(0, &loads), None);
        assert_eq!(leveller.next(0, &loads).map(|moves| moves.len()), Some(MOVES_MAX));
        assert_eq!(Leveller::default().next(1, &loads), Some(Vec::new()));
    }

    #[test]
    fn a_load_is_the_mean_of_two_rounds() {
        let reading = |ms: u64, worked: u64, requests, clients| Reading {
            at: Moment::from_micros(1 + ms * 1_000),
            worked: Micros(worked * 1_000),
            requests,
            clients,
        };
        let mut meter = Meter::default();
        assert_eq!(meter.read(reading(0, 7, 50, 9)), None);
        let first = meter.read(reading(250, 32, 150, 4)).unwrap();
        assert_eq!(first, CoreLoad { busy: 100, clients: 4, cycle: 5_000, ..CoreLoad::default() });
        assert_eq!(meter.read(reading(260, 42, 151, 4)), None, "too soon");
        let second = meter.read(reading(500, 107, 1_050, 6)).unwrap();
        assert_eq!(second, CoreLoad { busy: 200, clients: 5, cycle: 1_250, ..CoreLoad::default() });
        meter.forget();
        assert_eq!(meter.read(reading(900, 107, 1_050, 6)), None);
    }
}
