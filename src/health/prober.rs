//! The running probes: begun when they are due, each a task of its own, with their results.
//!
//! `policy::probes` decides when one is due, `policy::standing` what follows from it. Pools with
//! the same backend each probe it for themselves: what they expect may differ, and so may the
//! consequences. If the probes of a pool begin late, that is reported.

use std::{
    cell::RefCell, collections::HashMap, net::SocketAddr, rc::Rc, sync::Arc, time::Duration,
};

use super::probe::{Limits, Probe, Secure};
use crate::base::{
    endpoint::Endpoint,
    ids::{BackendId, PoolId},
    moment::{Deadline, Micros, Tick},
};
use crate::net::{clock::Clock, io::task, proxy_header, signal::Signal, tls::Ends};
use crate::plan::{Duty, ProxyVersion};
use crate::policy::{
    health::ProbeFault,
    probes::{self, Probes},
};
use crate::worker::Next;

/// Probes of a pool are late if one begins this long after it was due, or its interval if that is
/// longer; reported at most once in `LATE_AGAIN`.
const LATE: Duration = Duration::from_secs(1);
const LATE_AGAIN: Duration = Duration::from_secs(60);

/// A hurried probe has so many times the usual time of one, and at least this long.
const TIMES_USUAL: u32 = 8;
const HURRIED_MIN: Duration = Duration::from_millis(100);

/// A probe that has ended.
pub(super) struct Ended {
    number: u64,
    pub(super) pool: PoolId,
    pub(super) backend: BackendId,
    /// None if nothing was found out.
    pub(super) result: Option<Result<(), ProbeFault>>,
    pub(super) took: Micros,
}

/// The probes of all pools.
pub(super) struct Prober {
    probes: Probes,
    targets: Vec<Target>,
    /// Number of targets so far.
    count: u64,
    /// Whether it has had a plan.
    has_begun: bool,
    news: Rc<News>,
    /// When late probes of each pool are reported again; none = at once.
    late_again: Vec<Option<Tick>>,
    late: Vec<Late>,
    tls: Arc<Ends>,
}

/// A pool whose probes begin late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Late {
    pub(super) pool: PoolId,
    pub(super) late: Duration,
}

/// One backend to probe, and how.
struct Target {
    /// Distinguishes it from all others, including earlier ones in the same seat.
    number: u64,
    pool: PoolId,
    backend: BackendId,
    probe: Rc<Probe>,
    /// With which its connections begin.
    greeting: &'static [u8],
    /// The backend's host, as written.
    host: Rc<str>,
    /// Whether it is in maintenance: it is not probed.
    is_away: bool,
    /// The addresses to probe.
    addresses: Rc<[Endpoint]>,
    interval: Duration,
    time: Duration,
    run: Run,
}

/// The present probe of a backend, and how long they usually take.
#[derive(Clone, Default)]
struct Run {
    /// When it began; none = no probe is in progress.
    began: Option<Tick>,
    /// When it must have ended, if it was hurried.
    hurried_by: Deadline,
    /// Up when it has no more time.
    hurried: Rc<Signal>,
    /// Whether the next has little time.
    next_is_hurried: bool,
    /// How long good ones take, smoothed.
    usual: Option<Micros>,
}

impl Target {
    fn is_wanted(&self) -> bool {
        !self.addresses.is_empty() && !self.is_away
    }
}

/// Signals between the tasks and the thread.
#[derive(Default)]
pub(super) struct News {
    ended: RefCell<Vec<Ended>>,
    /// Up when a probe has ended.
    pub(super) come: Signal,
    /// Up when the thread ends.
    ending: Signal,
}

impl Prober {
    /// For the pools of a plan that are to be probed.
    ///
    /// # Errors
    /// A sentence, if the configured request cannot be sent.
    pub(super) fn new(next: &Next, seed: u64, now: Tick) -> Result<Prober, String> {
        let mut prober = Prober {
            probes: Probes::new(std::iter::empty(), seed),
            targets: Vec::new(),
            count: 0,
            has_begun: false,
            news: Rc::default(),
            late_again: Vec::new(),
            late: Vec::new(),
            tls: Arc::default(),
        };
        prober.replan(next, now)?;
        Ok(prober)
    }

    /// Probes the backends of this plan from now on. Those that stay keep their pace; probes in
    /// flight of removed ones end by themselves, and count no more.
    ///
    /// # Errors
    /// Like `new`; nothing has changed then.
    pub(super) fn replan(&mut self, next: &Next, now: Tick) -> Result<(), String> {
        let plan = &next.plan;
        let known = self.targets.iter().enumerate();
        let known: HashMap<_, _> =
            known.map(|(place, target)| ((target.pool, target.backend), place)).collect();
        let mut targets = Vec::new();
        for (pool_id, pool) in &plan.pools {
            let Some(health) = &pool.health else { continue };
            for (id, backend) in &pool.backends {
                let probe = Probe::of(health, (backend, pool.protocol), plan.limits.heads())
                    .map_err(|why| format!("pool \"{}\": {why}", pool.name))?;
                let before = known.get(&(pool_id, id)).copied();
                let same = before.and_then(|before| self.targets.get(before));
                let target = Target {
                    number: same.map_or(0, |same| same.number),
                    is_away: backend.duty == Duty::Maintenance,
                    pool: pool_id,
                    backend: id,
                    probe: Rc::new(probe),
                    greeting: greeting(pool.send_proxy),
                    host: backend.host().into(),
                    addresses: with_port(&backend.address.known(), health.port),
                    interval: health.interval,
                    time: health.timeout,
                    run: same.map_or_else(Run::default, |same| same.run.clone()),
                };
                // One that comes or returns later waits for its first probe.
                let waits = same.is_none_or(|same| same.is_away) && !target.is_away;
                targets.push((target, before, waits && self.has_begun));
            }
        }
        let each = targets.iter();
        self.probes.replan(each.map(|(it, before, _)| (it.pool.index(), it.interval, *before)));
        for place in
            targets.iter().enumerate().filter_map(|(place, (.., waits))| waits.then_some(place))
        {
            self.probes.hurry(place);
        }
        self.has_begun = true;
        self.tls = Arc::clone(&next.tls);
        self.targets = targets.into_iter().map(|(target, ..)| target).collect();
        for (place, target) in self.targets.iter_mut().enumerate() {
            if target.number == 0 {
                self.count += 1;
                target.number = self.count;
            }
            self.probes.want(place, target.is_wanted(), now);
        }
        self.late_again.resize(plan.pools.span(), None);
        Ok(())
    }

    /// What TLS needs from now on.
    pub(super) fn set_tls(&mut self, ends: Arc<Ends>) {
        self.tls = ends;
    }

    /// A backend is suspected: it is probed at once and with little time. A probe in progress has
    /// no more than that from its beginning.
    pub(super) fn hurry(&mut self, id: (PoolId, BackendId), now: Tick) {
        let is_it = |target: &Target| (target.pool, target.backend) == id;
        let Some(place) = self.targets.iter().position(is_it) else { return };
        let Some(target) = self.targets.get_mut(place) else { return };
        match target.run.began {
            Some(began) => target.run.hurried_by = Deadline::at(began + target.hurried_time()),
            None => {
                target.run.next_is_hurried = true;
                self.probes.becomes_due(place, now);
            }
        }
    }

    /// Begins the probes that are due, and ends those that were hurried; returns when the next is
    /// due.
    pub(super) fn begin(&mut self, now: Tick) -> Deadline {
        let mut due = Deadline::NEVER;
        for Target { run, .. } in &mut self.targets {
            if run.hurried_by.is_over(now) {
                run.hurried_by = Deadline::NEVER;
                run.hurried.raise();
            }
            due = due.earlier(run.hurried_by);
        }
        due.earlier(self.begin_due(now))
    }

    fn begin_due(&mut self, now: Tick) -> Deadline {
        loop {
            match self.probes.next(now) {
                probes::Next::Probe { place, late } => {
                    self.note_late(place, late, now);
                    self.probe(place, now);
                }
                probes::Next::At(due) => return Deadline::at(due),
                probes::Next::Nothing => return Deadline::NEVER,
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

    /// The pools whose probes were late since the last call.
    pub(super) fn late(&mut self) -> impl Iterator<Item = Late> {
        self.late.drain(..)
    }

    fn probe(&mut self, place: usize, now: Tick) {
        let Some(target) = self.targets.get_mut(place) else { return };
        let Target { number, pool, backend, greeting, .. } = *target;
        let time = if target.run.next_is_hurried { target.hurried_time() } else { target.time };
        let hurried = Rc::<Signal>::default();
        target.run = Run {
            began: Some(now),
            hurried: Rc::clone(&hurried),
            usual: target.run.usual,
            ..Run::default()
        };
        let (probe, addresses) = (Rc::clone(&target.probe), Rc::clone(&target.addresses));
        let news = Rc::clone(&self.news);
        let secure = self
            .tls
            .backs
            .get(pool)
            .map(|back| Secure { back: Arc::clone(back), host: target.host.to_string() });
        task(async move {
            let limits = Limits { time, greeting, ending: &news.ending, hurried: &hurried };
            let began = Clock::moment();
            let result = probe.run(&addresses, limits, secure.as_ref()).await;
            let took = Clock::moment().since(began);
            news.ended.borrow_mut().push(Ended { number, pool, backend, result, took });
            news.come.raise();
        });
    }

    /// The probes that have ended since the last call; each must be `rested`.
    pub(super) fn ended(&self) -> Vec<Ended> {
        self.news.come.lower();
        self.news.ended.take()
    }

    /// Whether it was the probe of a backend that is still probed.
    pub(super) fn knows(&self, ended: &Ended) -> bool {
        self.place(ended).is_some()
    }

    fn place(&self, ended: &Ended) -> Option<usize> {
        self.targets.iter().position(|target| target.number == ended.number)
    }

    /// The next probe of this backend is due this long after this one began.
    pub(super) fn rest(&mut self, ended: &Ended, interval: Duration, now: Tick) {
        match self.place(ended) {
            Some(place) => {
                self.probes.ended(place, interval, now);
                self.targets.get_mut(place).into_iter().for_each(|target| target.ended(ended));
            }
            None => self.probes.strayed(),
        }
    }

    /// The signal that a probe has ended.
    pub(super) fn news(&self) -> Rc<News> {
        Rc::clone(&self.news)
    }

    /// Ends all probes; returns whether none is in flight any more.
    pub(super) fn end(&mut self, now: Tick) -> bool {
        self.news.ending.raise();
        for ended in self.ended() {
            self.rest(&ended, Duration::ZERO, now);
        }
        self.probes.under_way() == 0
    }
}

impl Target {
    /// The time of a probe that finds out whether a silent backend is there.
    fn hurried_time(&self) -> Duration {
        let usual = self.run.usual.map(|usual| Duration::from_micros(usual.0));
        self.time.min(usual.map_or(self.time, |usual| HURRIED_MIN.max(usual * TIMES_USUAL)))
    }

    /// Its probe has ended.
    fn ended(&mut self, ended: &Ended) {
        (self.run.began, self.run.hurried_by) = (None, Deadline::NEVER);
        if ended.result == Some(Ok(())) {
            let took = ended.took.0;
            self.run.usual = Some(Micros(self.run.usual.map_or(took, |it| (it.0 * 7 + took) / 8)));
        }
    }
}

/// A probe speaks for itself.
fn greeting(version: Option<ProxyVersion>) -> &'static [u8] {
    match version {
        None => b"",
        Some(ProxyVersion::One) => proxy_header::UNKNOWN,
        Some(ProxyVersion::Two) => proxy_header::LOCAL,
    }
}

/// The addresses to probe.
fn with_port(addresses: &[Endpoint], port: Option<u16>) -> Rc<[Endpoint]> {
    let probed = |endpoint: &Endpoint| match (*endpoint, port) {
        (Endpoint::Tcp(address), Some(port)) => SocketAddr::new(address.ip(), port).into(),
        (endpoint, _) => endpoint,
    };
    addresses.iter().map(probed).collect()
}
