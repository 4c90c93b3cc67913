//! A simulation of cores and their clients, with the real decisions: 16 and 64 cores, clients that
//! ask again when they are answered (closed) and clients that ask at their own pace (open).
//!
//! Each core serves one request at a time, in the order in which they came. Rounds of cores are not
//! in step. Connections begin on a random core, as the kernel would have it. A client that is to be
//! moved goes when its request is answered. Everything follows from a seed.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::*;
use crate::base::rng::Rng;

const ROUND: u64 = 250_000;

/// In microseconds.
#[derive(Clone, Copy)]
struct Client {
    core: usize,
    /// What one of its requests costs, in the mean.
    cost: u64,
    /// Closed: from an answer to the next request. Open: from one request to the next.
    pause: u64,
    is_open: bool,
    /// When it wished to ask last, and when it asked.
    due: u64,
    asked: u64,
}

impl Client {
    /// What share of a core it would use if it were alone there.
    fn demand(&self) -> f64 {
        let span = if self.is_open { self.pause } else { self.cost + self.pause };
        (self.cost as f64 / span as f64).min(1.0)
    }
}

#[derive(Default)]
struct Core {
    meter: Meter,
    leveller: Leveller,
    wishes: Vec<usize>,
    /// When its next round is, and when the last was.
    round: u64,
    last: u64,
    /// When it has done all that it was given, and how much that was.
    free: u64,
    given: u64,
    requests: u64,
}

struct World {
    clients: Vec<Client>,
    cores: Vec<Core>,
    loads: Vec<CoreLoad>,
    ready: BinaryHeap<Reverse<(u64, usize)>>,
    /// The core that has the next round, and when.
    next: (usize, u64),
    moves: u64,
    rng: Rng,
}

/// How connections are spread over the cores at first.
#[derive(Clone, Copy, PartialEq)]
enum Spread {
    Blindly,
    Evenly,
}

impl World {
    /// Of the clients that `client` makes by their numbers.
    fn new(
        (cores, clients): (usize, usize),
        spread: Spread,
        seed: u64,
        client: impl Fn(usize) -> Client,
    ) -> World {
        let mut rng = Rng::seeded(seed);
        let mut clients: Vec<Client> = (0..clients).map(client).collect();
        let mut ready = BinaryHeap::new();
        for (number, client) in clients.iter_mut().enumerate() {
            client.core = match spread {
                Spread::Blindly => rng.below(cores as u32) as usize,
                Spread::Evenly => number % cores,
            };
            client.due = u64::from(rng.below(client.pause as u32 + 1));
            ready.push(Reverse((client.due, number)));
        }
        let round = |_| Core { round: u64::from(rng.below(ROUND as u32)), ..Core::default() };
        let cores: Vec<Core> = (0..cores).map(round).collect();
        let loads = vec![CoreLoad::default(); cores.len()];
        let mut world = World { clients, cores, loads, ready, next: (0, 0), moves: 0, rng };
        world.find_next_round();
        world
    }

    fn find_next_round(&mut self) {
        let rounds = self.cores.iter().map(|core| core.round).enumerate();
        self.next = rounds.min_by_key(|(_, at)| *at).unwrap();
    }

    /// Goes on until then.
    fn run(&mut self, until: u64) {
        loop {
            let (ready, client) = self.ready.peek().map_or((u64::MAX, 0), |next| next.0);
            let (core, round) = self.next;
            if ready.min(round) > until {
                return;
            }
            if round <= ready {
                self.round(core, round);
                self.find_next_round();
            } else {
                self.ready.pop();
                self.serve(ready, client);
            }
        }
    }

    fn around(&mut self, mean: u64) -> u64 {
        mean / 2 + u64::from(self.rng.below(mean as u32 + 1))
    }

    fn serve(&mut self, now: u64, number: usize) {
        let mut client = self.clients[number];
        let cost = self.around(client.cost);
        let core = &mut self.cores[client.core];
        core.free = core.free.max(now) + cost;
        core.given += cost;
        core.requests += 1;
        client.asked = now;
        let answered = core.free;
        if let Some(to) = core.wishes.pop() {
            client.core = to;
            self.moves += 1;
        }
        let pause = self.around(client.pause);
        client.due = if client.is_open { client.due + pause } else { answered + pause };
        self.ready.push(Reverse((client.due.max(answered), number)));
        self.clients[number] = client;
    }

    fn round(&mut self, own: usize, now: u64) {
        let since = self.cores[own].last;
        let asked = self.clients.iter().filter(|it| it.core == own && it.asked >= since).count();
        let core = &mut self.cores[own];
        let reading = Reading {
            at: Moment::from_micros(now + 1),
            worked: Micros(core.given - core.free.saturating_sub(now)),
            requests: core.requests,
            clients: asked as u32,
        };
        (core.last, core.round) = (now, now + ROUND);
        let Some(load) = core.meter.read(reading) else { return };
        self.loads[own] = CoreLoad { takes: true, ..load };
        if let Some(wishes) = core.leveller.next(own, &self.loads) {
            core.wishes = wishes;
        }
    }

    /// What is asked of the fullest core, as a multiple of the mean.
    fn fullest(&self) -> f64 {
        let of = |core| {
            let on_it = self.clients.iter().filter(|client| client.core == core);
            on_it.map(Client::demand).sum::<f64>()
        };
        let all: Vec<f64> = (0..self.cores.len()).map(of).collect();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        all.iter().fold(0.0, |most: f64, one| most.max(*one)) / mean
    }
}

const fn client(cost: u64, pause: u64, is_open: bool) -> Client {
    Client { core: 0, cost, pause, is_open, due: 0, asked: 0 }
}

/// The seeds of each case.
const SEEDS: u64 = 12;

/// What came of a case, of all seeds the worst.
#[derive(Debug)]
struct Outcome {
    /// How full the fullest core was at the beginning, after two seconds, and after four.
    fullest: [f64; 3],
    /// The same as the mean of all seeds.
    mean: [f64; 3],
    /// Moves in four seconds, of all seeds.
    moves: u64,
}

fn simulate(
    name: &str,
    sizes: (usize, usize),
    spread: Spread,
    of: impl Fn(usize) -> Client,
) -> Outcome {
    let mut outcome = Outcome { fullest: [0.0; 3], mean: [0.0; 3], moves: 0 };
    for seed in 0..SEEDS {
        let mut world = World::new(sizes, spread, seed, &of);
        let Outcome { fullest, mean, .. } = &mut outcome;
        for (seconds, (worst, mean)) in (0..).step_by(2).zip(fullest.iter_mut().zip(mean)) {
            world.run(seconds * 1_000_000);
            *worst = worst.max(world.fullest());
            *mean += world.fullest() / SEEDS as f64;
        }
        outcome.moves += world.moves;
    }
    println!("{name}: {} clients on {} cores: {outcome:.2?}", sizes.1, sizes.0);
    outcome
}

/// Clients that are alike. A request takes 1.6 ms of a core.
const ALIKE: [(&str, Client); 5] = [
    ("closed, cores half busy", client(1_600, 11_200, false)),
    ("closed, cores nearly full", client(1_600, 5_600, false)),
    ("closed, cores full of clients that wait", client(1_600, 400, false)),
    ("open, cores half busy", client(1_600, 12_800, true)),
    ("open, cores nearly full", client(1_600, 8_000, true)),
];

#[test]
fn of_64_clients_on_16_cores_the_fullest_core_has_a_quarter_more_than_the_mean_at_most() {
    for (name, of) in ALIKE {
        let Outcome { fullest, moves, .. } = simulate(name, (16, 64), Spread::Blindly, |_| of);
        assert!(fullest[0] >= 1.75, "{name}: {fullest:?}");
        assert!(fullest[1] <= 1.2501 && fullest[2] <= 1.2501, "{name}: {fullest:?}");
        // What is too much has moved once, and hardly anything else.
        assert!(moves < SEEDS * 32, "{name}: {moves} moves");
    }
}

#[test]
fn of_256_clients_on_64_cores_too_after_four_seconds() {
    for (name, of) in ALIKE {
        let Outcome { fullest, .. } = simulate(name, (64, 256), Spread::Blindly, |_| of);
        assert!(fullest[1] <= 1.5001 && fullest[2] <= 1.2501, "{name}: {fullest:?}");
    }
}

#[test]
fn where_cores_are_level_nothing_moves() {
    for (name, of) in ALIKE {
        let Outcome { moves, .. } = simulate(name, (16, 64), Spread::Evenly, |_| of);
        assert_eq!(moves, 0, "{name}");
    }
}

/// One client in eight asks ten times as much. A core does not know which of its clients they are,
/// so some go back and forth.
#[test]
fn unequal_clients_are_spread_too() {
    for (name, pause, is_open) in [("closed", 16_000, false), ("open", 24_000, true)] {
        let of = |number: usize| {
            let cost = if number.is_multiple_of(8) { 8_000 } else { 800 };
            client(cost, pause, is_open)
        };
        let Outcome { mean, .. } = simulate(name, (16, 64), Spread::Blindly, of);
        assert!(mean[1] <= mean[0] * 0.8 && mean[2] <= mean[0] * 0.7, "{name}: {mean:?}");
    }
}
