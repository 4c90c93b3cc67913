//! A simulation for balancing: cores, backends that slow down, fail, leave and return, and a
//! virtual clock.
//!
//! Only tests use it; `tests` has what must hold in it. A core knows its own requests exactly and
//! those of the others as of its last merge, up to 10 ms ago or now, like a worker. Everything
//! follows from a seed. After each step the invariants of the balancer that was asked are checked.

mod tests;

use std::{cell::Cell, cmp::Reverse, collections::BinaryHeap};

use super::{Balancer, Candidates, Needs, Prepared, Sample, Step, Weights};
use crate::base::{backend_set::BackendSet, ids::BackendId, moment::Tick, rng::Rng};
use crate::plan::Pool;

/// The state of the simulation.
struct World {
    weights: Weights,
    usable: BackendSet,
    backends: Vec<Backend>,
    cores: Vec<Core>,
    step: Step,
    needs: Needs,
    under_way: BinaryHeap<Reverse<Request>>,
    /// In microseconds.
    now: u64,
    rng: Rng,
}

/// How a backend behaves, and what it got.
#[derive(Clone, Copy, Default)]
struct Backend {
    /// The mean time to its first byte: times vary from half of it to half more.
    micros: u32,
    fails: bool,
    in_flight: u32,
    /// Requests that it ever got.
    asked: u32,
}

struct Core {
    balancer: Balancer,
    /// Its own requests.
    own: Vec<u32>,
    /// Requests of all cores, as this core knows them.
    in_flight: Vec<Cell<u32>>,
    /// What it publishes to the others about times.
    published: Vec<u64>,
    /// When it merges again.
    merges: Tick,
}

/// Requests in flight; the first to end is the least.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Request {
    ends: u64,
    core: usize,
    backend: usize,
    micros: u32,
    failed: bool,
}

impl World {
    /// All backends are usable and take `micros`.
    fn new(pool: &Pool, cores: usize, micros: u32, seed: u64) -> World {
        let prepared = Prepared::of(pool, seed);
        let backends = pool.backends.span();
        let core = |index| Core {
            balancer: Balancer::new(pool, &prepared, index, cores),
            own: vec![0; backends],
            in_flight: (0..backends).map(|_| Cell::new(0)).collect(),
            published: vec![0; backends],
            merges: Tick::from_millis(0),
        };
        World {
            weights: Weights::of(&pool.backends),
            usable: pool.backends.ids().collect(),
            backends: vec![Backend { micros, ..Backend::default() }; backends],
            cores: (0..cores).map(core).collect(),
            step: Step::new(cores),
            needs: Needs::of(pool),
            under_way: BinaryHeap::new(),
            now: 1_000,
            rng: Rng::seeded(seed),
        }
    }

    fn tick(&self) -> Tick {
        Tick::from_millis(self.now / 1_000)
    }

    /// One request arrives on a random core, on average `gap` microseconds after the last; returns
    /// its backend.
    fn ask(&mut self, gap: u32, key: u64) -> Option<usize> {
        let gap = u64::from(self.rng.below(2 * gap + 1));
        self.wait(self.now + gap);
        let core = self.rng.below(u32::try_from(self.cores.len()).expect("few cores")) as usize;
        if self.tick() >= self.cores[core].merges {
            self.merge(core);
        }
        let now = self.tick();
        let Core { balancer, own, in_flight, .. } = &mut self.cores[core];
        let (usable, weights) = (&self.usable, &self.weights);
        let candidates = Candidates { extra: &[], usable, weights, in_flight, now, key: Some(key) };
        let picked = balancer.pick(&candidates);
        balancer.check_invariants();
        let picked = picked?.index();
        own[picked] += 1;
        self.step.begin(&in_flight[picked]);
        let backend = &mut self.backends[picked];
        backend.in_flight += 1;
        backend.asked += 1;
        let micros = backend.micros / 2 + self.rng.below(backend.micros);
        let ends = self.now + u64::from(micros);
        let failed = backend.fails;
        self.under_way.push(Reverse(Request { ends, core, backend: picked, micros, failed }));
        Some(picked)
    }

    /// This many requests, each with a key of its own; returns how many each backend got.
    fn ask_many(&mut self, requests: u32, gap: u32) -> Vec<u32> {
        let before: Vec<_> = self.backends.iter().map(|backend| backend.asked).collect();
        for _ in 0..requests {
            let key = self.rng.next();
            self.ask(gap, key);
        }
        self.backends.iter().zip(before).map(|(backend, before)| backend.asked - before).collect()
    }

    /// Ends every request that is due by then.
    fn wait(&mut self, until: u64) {
        while self.under_way.peek().is_some_and(|Reverse(request)| request.ends <= until) {
            let Some(Reverse(request)) = self.under_way.pop() else { return };
            self.now = request.ends;
            self.end(&request);
        }
        self.now = until;
    }

    fn end(&mut self, request: &Request) {
        let now = self.tick();
        let id = BackendId(u16::try_from(request.backend).expect("few backends"));
        self.backends[request.backend].in_flight -= 1;
        let core = &mut self.cores[request.core];
        core.own[request.backend] -= 1;
        self.step.end(&core.in_flight[request.backend], core.own[request.backend]);
        let sample = match request.failed {
            true => Sample::Failed(request.micros),
            false => Sample::FirstByte(request.micros),
        };
        core.balancer.observe(id, sample, now);
        core.balancer.check_invariants();
        core.published[request.backend] = core.balancer.published(id);
    }

    /// A core merges what the others have in flight and publish.
    fn merge(&mut self, index: usize) {
        let now = self.tick();
        self.cores[index].merges =
            now + self.needs.merged_age_max(self.cores.len(), self.backends.len());
        for (place, backend) in self.backends.iter().enumerate() {
            self.cores[index].in_flight[place].set(backend.in_flight);
        }
        let known = if self.needs.outcomes { self.backends.len() } else { 0 };
        for place in 0..known {
            let others = (0..self.cores.len()).filter(|other| *other != index);
            let words: Vec<_> = others.map(|other| self.cores[other].published[place]).collect();
            let id = BackendId(u16::try_from(place).expect("few backends"));
            self.cores[index].balancer.merge(id, words.into_iter(), now);
        }
        self.cores[index].balancer.check_invariants();
    }

    /// A backend gets no more requests, but finishes those it has.
    fn leave(&mut self, index: u16) {
        self.usable.remove(BackendId(index));
    }

    /// It is back.
    fn come_back(&mut self, index: u16) {
        let (id, now) = (BackendId(index), self.tick());
        self.usable.insert(id);
        for core in &mut self.cores {
            core.balancer.returned(id, now);
            core.published[id.index()] = core.balancer.published(id);
        }
    }

    /// Requests in flight at the fullest backend, and in total.
    fn fullest(&self) -> (u32, u32) {
        let each = || self.backends.iter().map(|backend| backend.in_flight);
        (each().max().unwrap_or_default(), each().sum())
    }
}
