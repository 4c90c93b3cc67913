//! Which probes run: begun when they are due, each a task of its own, and what they found.
//!
//! When one is due is decided in `policy::probes`, what follows from it in `policy::standing`.
//! Pools that have the same backend probe it each for themselves: what they expect may differ, and
//! so may what they do with it. Where the probes of a pool begin late, people are told.

use std::{cell::RefCell, net::SocketAddr, rc::Rc, time::Duration};

use super::probe::{Limits, Probe};
use crate::base::{
    ids::{BackendId, PoolId},
    moment::{Deadline, Tick},
};
use crate::net::{io::task, signal::Signal};
use crate::plan::Plan;
use crate::policy::{
    health::ProbeFault,
    probes::{Next, Probes},
    resolve,
};
use crate::shared::inbox::Found;

/// Probes of a pool are late if one begins so long after it was due, or its interval if that is
/// longer; told of at most once in `LATE_AGAIN`.
const LATE: Duration = Duration::from_secs(1);
const LATE_AGAIN: Duration = Duration::from_secs(60);

/// A probe that has ended.
pub(super) struct Ended {
    place: usize,
    pub(super) pool: PoolId,
    pub(super) backend: BackendId,
    /// None where nothing was found out.
    pub(super) result: Option<Result<(), ProbeFault>>,
}

/// The probes of all pools.
pub(super) struct Prober {
    probes: Probes,
    targets: Vec<Target>,
    news: Rc<News>,
    /// When each pool's probes are told to be late again; none = at once.
    late_again: Vec<Option<Tick>>,
    late: Vec<Late>,
}

/// A pool whose probes begin late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Late {
    pub(super) pool: PoolId,
    pub(super) late: Duration,
}

/// Who is probed, and how.
struct Target {
    pool: PoolId,
    backend: BackendId,
    probe: Rc<Probe>,
    addresses: Rc<[SocketAddr]>,
    /// The port that is probed, where it is not the backend's.
    port: Option<u16>,
    interval: Duration,
    time: Duration,
}

/// What the tasks and the thread say to each other.
#[derive(Default)]
pub(super) struct News {
    ended: RefCell<Vec<Ended>>,
    /// Up when a probe has ended.
    pub(super) come: Signal,
    /// Up when the thread ends.
    ending: Signal,
}

impl Prober {
    /// Of the pools of a plan that are to be probed.
    ///
    /// # Errors
    /// A sentence, where what is configured cannot be sent.
    pub(super) fn new(plan: &Plan, seed: u64, now: Tick) -> Result<Prober, String> {
        let mut targets = Vec::new();
        for (pool_id, pool) in &plan.pools {
            let Some(health) = &pool.health else { continue };
            for (id, backend) in &pool.backends {
                let probe = Probe::of(health, backend, plan.limits.heads())
                    .map_err(|why| format!("pool \"{}\": {why}", pool.name))?;
                targets.push(Target {
                    pool: pool_id,
                    backend: id,
                    probe: Rc::new(probe),
                    addresses: at(&resolve::known(&backend.address), health.port),
                    port: health.port,
                    interval: health.interval,
                    time: health.timeout,
                });
            }
        }
        let backends = targets.iter().map(|target| (target.pool.index(), target.interval));
        let mut probes = Probes::new(backends, seed);
        for (place, target) in targets.iter().enumerate() {
            probes.want(place, !target.addresses.is_empty(), now);
        }
        let late_again = vec![None; plan.pools.span()];
        Ok(Prober { probes, targets, news: Rc::default(), late_again, late: Vec::new() })
    }

    /// Backends have moved.
    pub(super) fn moved(&mut self, found: &[Found], now: Tick) {
        for (place, target) in self.targets.iter_mut().enumerate() {
            let is_it =
                |found: &&Found| (found.pool, found.backend) == (target.pool, target.backend);
            if let Some(found) = found.iter().find(is_it) {
                target.addresses = at(&found.addresses, target.port);
                self.probes.want(place, !target.addresses.is_empty(), now);
            }
        }
    }

    /// Begins the probes that are due; when the next is.
    pub(super) fn begin(&mut self, now: Tick) -> Deadline {
        loop {
            match self.probes.next(now) {
                Next::Probe { place, late } => {
                    self.note_late(place, late, now);
                    self.probe(place);
                }
                Next::At(due) => return Deadline::at(due),
                Next::Nothing => return Deadline::NEVER,
            }
        }
    }

    fn note_late(&mut self, place: usize, late: Duration, now: Tick) {
        let Some(target) = self.targets.get(place) else { return };
        let Some(again) = self.late_again.get_mut(target.pool.index()) else { return };
        if late >= target.interval.max(LATE) && again.is_none_or(|again| now >= again) {
            *again = Some(now + LATE_AGAIN);
            self.late.push(Late { pool: target.pool, late });
        }
    }

    /// The pools whose probes are late, since this was asked.
    pub(super) fn late(&mut self) -> impl Iterator<Item = Late> {
        self.late.drain(..)
    }

    fn probe(&self, place: usize) {
        let Some(target) = self.targets.get(place) else { return };
        let Target { pool, backend, time, .. } = *target;
        let (probe, addresses) = (Rc::clone(&target.probe), Rc::clone(&target.addresses));
        let news = Rc::clone(&self.news);
        task(async move {
            let limits = Limits { time, ending: &news.ending };
            let result = probe.run(&addresses, limits).await;
            news.ended.borrow_mut().push(Ended { place, pool, backend, result });
            news.come.raise();
        });
    }

    /// The probes that have ended since this was asked; each is to be `rested`.
    pub(super) fn ended(&self) -> Vec<Ended> {
        self.news.come.lower();
        self.news.ended.take()
    }

    /// The next probe of this backend is due so long after this one began.
    pub(super) fn rest(&mut self, ended: &Ended, interval: Duration, now: Tick) {
        self.probes.ended(ended.place, interval, now);
    }

    /// What says that a probe has ended.
    pub(super) fn news(&self) -> Rc<News> {
        Rc::clone(&self.news)
    }

    /// Ends all probes; whether none is under way any more.
    pub(super) fn end(&mut self, now: Tick) -> bool {
        self.news.ending.raise();
        for ended in self.ended() {
            self.probes.ended(ended.place, Duration::ZERO, now);
        }
        self.probes.under_way() == 0
    }
}

/// The addresses to probe.
fn at(addresses: &[SocketAddr], port: Option<u16>) -> Rc<[SocketAddr]> {
    let with_port = |address: &SocketAddr| {
        SocketAddr::new(address.ip(), port.unwrap_or_else(|| address.port()))
    };
    addresses.iter().map(with_port).collect()
}
