//! This core's view of a pool: who can be asked, the algorithm, the connection pools.
//!
//! Every concern about backends is a set of them, and a pick sees only what is left of all sets.
//! Nothing here decides; the algorithms stand in `policy`, connections are opened in `conns`, and
//! who is well is decided by the health thread: `learn` takes over what it has published.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use super::{Common, InFlight, InForce, PoolShared, queue::Queue};
use crate::base::{
    backend_set::BackendSet,
    ids::{BackendId, PoolId},
};
use crate::conns::{self, Addresses};
use crate::http::fault::Fault;
use crate::net::{buffer::Buffers, clock::Clock, deadlines::Deadlines};
use crate::plan::{self, Pool};
use crate::policy::{
    balance::{Balancer, Candidates, Needs, Sample, Step, Weights},
    budget, resolve,
    sticky::Pins,
};
use crate::proto::h1::Backend;
use crate::shared::{
    backends::Backends,
    counters::Slab,
    load::Rows,
    outcomes::Outcomes,
    permits::{Permit, Permits},
    standing::Publication,
    trials::Trial,
};

/// How long a backend that refused a connection is passed over by the core that it refused, in
/// milliseconds; then one request finds out whether it is back.
const REFUSED_MS: u64 = 1_000;

/// What other cores have in flight is looked up at most this often, in milliseconds, and only
/// while requests come: everything across cores costs something per while, never per request.
const MERGED_MS: u64 = 10;

/// For how long only requests that can be asked again are trials, in milliseconds. Where none of
/// those comes, whoever is left out would stay so for ever.
const CAREFUL_MS: u64 = 1_000;

/// This core's view of a pool.
pub(crate) struct PoolView {
    id: PoolId,
    core_index: usize,
    /// Who has an address: one whose name does not resolve has none.
    reachable: Cell<BackendSet>,
    /// Who has one and may be asked. It is one set, not several, as each set costs every pick.
    usable: Cell<BackendSet>,
    /// Who has one and may be asked with a permit.
    on_trial: Cell<BackendSet>,
    /// Whether there is any of them, and since when.
    has_trials: Cell<bool>,
    trials_since: Cell<u64>,
    /// What the health thread had published when this core last looked, and its epoch; 0 = nothing.
    published: Cell<Option<Publication>>,
    epoch: Cell<u64>,
    weights: Weights,
    balancer: RefCell<Balancer>,
    needs: Needs,
    conns: Vec<RefCell<Addresses>>,
    /// Requests in flight in the whole process: as of `merged_at`, and from there on by `step`.
    /// Kept only where the algorithm needs it.
    in_flight: Vec<Cell<u32>>,
    step: Step,
    merged_at: Cell<u64>,
    /// What this core counts, for all to read.
    rows: Rows,
    /// What all cores count and know of all backends.
    backends: Backends,
    shared: PoolShared,
    /// Where failures are posted; none where nothing follows from them.
    outcomes: Option<Outcomes>,
    pub(super) queue: Option<Queue>,
    /// When this core last told that it could not reach a backend, in coarse milliseconds.
    lost: Vec<Cell<u64>>,
    /// Who would not let this core connect a moment ago, and until when each is passed over.
    refusing: Cell<BackendSet>,
    refusing_until: Vec<Cell<u64>>,
    /// What Host is, where the pool sends the backend's own.
    authorities: Vec<String>,
}

/// What a request wants of a pool.
pub(crate) struct Wanted<'a> {
    /// Who was asked already.
    pub(crate) tried: &'a BackendSet,
    /// What the pool balances by, where it does.
    pub(crate) key: Option<u64>,
    /// Who has answered this client before, where that matters.
    pub(crate) pinned: Option<BackendId>,
    /// Whether it may be lost: then it is no trial, unless there is nobody else or nothing else
    /// comes that could be one.
    pub(crate) careful: bool,
    /// Whether it has waited in line, and those who wait go before it no more.
    pub(crate) called: bool,
    pub(crate) now: u64,
}

/// Who was picked.
pub(crate) struct Picked {
    pub(crate) in_flight: InFlight,
    /// It is on trial: what comes of this request decides.
    pub(crate) trial: Option<Trial>,
}

/// Why nobody was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nobody {
    /// Nobody may be asked.
    Usable,
    /// All who may be asked have as much in flight as they may have.
    Free,
}

impl PoolView {
    pub(crate) fn new(
        pool: &Pool,
        id: PoolId,
        (core_index, cores): (usize, usize),
        common: &Common,
        counters: &Slab,
    ) -> PoolView {
        let shared = common.pools[id.index()].clone();
        let each = || pool.backends.iter();
        let view = PoolView {
            id,
            core_index,
            reachable: Cell::new(BackendSet::EMPTY),
            usable: Cell::new(BackendSet::EMPTY),
            on_trial: Cell::new(BackendSet::EMPTY),
            has_trials: Cell::new(false),
            trials_since: Cell::new(0),
            published: Cell::new(None),
            epoch: Cell::new(0),
            weights: Weights::of(&pool.backends),
            balancer: RefCell::new(Balancer::new(pool, &shared.prepared, core_index, cores)),
            needs: Needs::of(pool),
            conns: each()
                .map(|_| RefCell::new(Addresses::new(pool.connections, core_index)))
                .collect(),
            in_flight: each().map(|_| Cell::new(0)).collect(),
            step: Step::new(cores),
            merged_at: Cell::new(0),
            rows: common.backends.load.rows(core_index, id),
            backends: common.backends.clone(),
            outcomes: is_watched(pool).then(|| common.outcomes.clone()),
            queue: shared.line.clone().map(|line| Queue::new(line, core_index)),
            shared,
            lost: each().map(|_| Cell::new(0)).collect(),
            refusing: Cell::new(BackendSet::EMPTY),
            refusing_until: each().map(|_| Cell::new(0)).collect(),
            authorities: each().map(plan::Backend::authority).collect(),
        };
        for (id, backend) in (0..).map(BackendId).zip(&pool.backends) {
            view.move_to(id, &resolve::known(&backend.address), counters);
        }
        view
    }

    /// From now on a backend is at these addresses; without any it cannot be asked.
    pub(crate) fn move_to(&self, id: BackendId, addresses: &[SocketAddr], counters: &Slab) {
        self.conns[id.index()].borrow_mut().move_to(addresses, counters);
        let mut reachable = self.reachable.get();
        if addresses.is_empty() {
            reachable.remove(id);
        } else {
            reachable.insert(id);
        }
        self.reachable.set(reachable);
        self.combine();
        // Those there are now have refused nothing yet.
        self.refusing_until[id.index()].set(0);
    }

    /// A backend to ask that is not among those tried; one that refuses connections only where
    /// there is no other. It has one request more in flight from here on.
    #[inline]
    pub(crate) fn pick(
        &self,
        in_force: &Rc<InForce>,
        wanted: &Wanted<'_>,
    ) -> Result<Picked, Nobody> {
        if let Some(news) = self.shared.published.after(self.epoch.get()) {
            self.learn(news, wanted.now);
        }
        if self.needs.in_flight && wanted.now >= self.merged_at.get() + MERGED_MS {
            self.merge(wanted.now);
        }
        let usable = self.usable.get() & !*wanted.tried;
        if self.is_plain() && wanted.pinned.is_none() {
            let picked = self.balance(self.calm(usable, wanted.now), wanted);
            let Some(backend) = picked else { return self.pick_spare(in_force, wanted) };
            let in_flight = InFlight::begin(in_force, self.id, backend, Permit::NONE);
            return Ok(Picked { in_flight, trial: None });
        }
        match self.pick_with_permits(in_force, wanted, usable) {
            Err(Nobody::Usable) => self.pick_spare(in_force, wanted),
            picked => picked,
        }
    }

    /// One who is left out for its answers alone, as this request has nobody else left.
    #[cold]
    fn pick_spare(&self, in_force: &Rc<InForce>, wanted: &Wanted<'_>) -> Result<Picked, Nobody> {
        let spare = self.published.get().map_or(BackendSet::EMPTY, |published| published.spare);
        let spare = spare & self.reachable.get() & !*wanted.tried;
        let id = self.balance(self.calm(spare, wanted.now), wanted).ok_or(Nobody::Usable)?;
        let slot = self.slot(id).ok_or(Nobody::Usable)?;
        let in_flight = InFlight::begin(in_force, self.id, id, slot);
        Ok(Picked { in_flight, trial: None })
    }

    /// Whether a pick needs no permit of any kind.
    #[inline]
    fn is_plain(&self) -> bool {
        !self.has_trials.get() && self.shared.slots.is_empty()
    }

    /// As `pick`, where somebody is on trial, is bounded or has answered this client before.
    #[cold]
    fn pick_with_permits(
        &self,
        in_force: &Rc<InForce>,
        wanted: &Wanted<'_>,
        usable: BackendSet,
    ) -> Result<Picked, Nobody> {
        if !wanted.called && self.queue.as_ref().is_some_and(|queue| !queue.is_empty()) {
            return Err(Nobody::Free);
        }
        let long_awaited = wanted.now >= self.trials_since.get() + CAREFUL_MS;
        let trying = !wanted.careful || usable.is_empty() || long_awaited;
        let on_trial =
            if trying { self.on_trial.get() & !*wanted.tried } else { BackendSet::EMPTY };
        let mut candidates = self.calm(usable | on_trial, wanted.now);
        let mut nobody = Nobody::Usable;
        let mut pinned = wanted.pinned.filter(|id| candidates.contains(*id));
        loop {
            let picked = pinned.take().or_else(|| self.balance(candidates, wanted));
            let Some(id) = picked else { return Err(nobody) };
            candidates.remove(id);
            let Some(slot) = self.slot(id) else {
                nobody = Nobody::Free;
                continue;
            };
            let Some(trial) = self.trial(id) else { continue };
            let in_flight = InFlight::begin(in_force, self.id, id, slot);
            return Ok(Picked { in_flight, trial });
        }
    }

    /// The same backend once more.
    pub(crate) fn pick_again(&self, in_force: &Rc<InForce>, id: BackendId) -> Option<Picked> {
        let slot = self.slot(id)?;
        let trial = self.trial(id)?;
        let in_flight = InFlight::begin(in_force, self.id, id, slot);
        Some(Picked { in_flight, trial })
    }

    /// The permit that a backend can be asked with only; none where it needs one and none is left.
    #[allow(clippy::option_option, reason = "none is needed, or none is left")]
    fn trial(&self, id: BackendId) -> Option<Option<Trial>> {
        if self.on_trial.get().contains(id) {
            self.backends.trials.take(self.id, id).map(Some)
        } else {
            Some(None)
        }
    }

    /// One of what a backend may have in flight; none where it has that.
    fn slot(&self, id: BackendId) -> Option<Permit> {
        self.shared.slots.get(id.index()).map_or(Some(Permit::NONE), |slots| slots.take())
    }

    /// The algorithm's choice.
    #[inline]
    fn balance(&self, usable: BackendSet, wanted: &Wanted<'_>) -> Option<BackendId> {
        let candidates = Candidates {
            usable: &usable,
            weights: &self.weights,
            in_flight: &self.in_flight,
            now: wanted.now,
            key: wanted.key,
        };
        self.balancer.borrow_mut().pick(&candidates)
    }

    /// Takes over what the health thread has published.
    #[cold]
    fn learn(&self, news: Publication, now: u64) {
        self.epoch.set(news.epoch);
        let before = self.published.replace(Some(news));
        let were = before.map_or(BackendSet::EMPTY, |before| before.on_trial);
        if !(news.on_trial & !were).is_empty() {
            self.trials_since.set(now);
        }
        self.combine();
        let Some(before) = before else { return };
        for id in (news.usable & !before.usable).iter() {
            self.balancer.borrow_mut().returned(id, now);
            // Whoever it refused before, it is said to be back.
            self.refusing_until[id.index()].set(0);
        }
        let _ = self.call_next();
    }

    fn combine(&self) {
        let reachable = self.reachable.get();
        let published = self.published.get();
        self.usable.set(published.map_or(reachable, |who| reachable & who.usable));
        self.on_trial.set(published.map_or(BackendSet::EMPTY, |who| reachable & who.on_trial));
        self.has_trials.set(!self.on_trial.get().is_empty());
    }

    /// Looks up what the other cores have in flight, and what they know.
    #[cold]
    fn merge(&self, now: u64) {
        self.merged_at.set(now);
        let load = &self.backends.load;
        let mut balancer = self.balancer.borrow_mut();
        for (id, merged) in (0..).map(BackendId).zip(&self.in_flight) {
            let own = self.rows.row(id);
            let others = load.in_flight_of_others(self.core_index, self.id, id);
            merged.set(own.in_flight().wrapping_add(others));
            if self.needs.times {
                own.publish_times(balancer.published(id));
                balancer.merge(id, load.times_of_others(self.core_index, self.id, id), now);
            }
        }
    }

    /// One request more is under way at a backend.
    #[inline]
    pub(super) fn begin(&self, id: BackendId) {
        self.rows.row(id).begin();
        if self.needs.in_flight {
            let cell = &self.in_flight[id.index()];
            self.step.begin(cell);
        }
    }

    /// One less.
    #[inline]
    pub(super) fn end(&self, id: BackendId) {
        self.rows.row(id).end();
        if self.needs.in_flight {
            let cell = &self.in_flight[id.index()];
            self.step.end(cell, self.rows.row(id).in_flight());
        }
    }

    /// What this pool's algorithm needs to know.
    #[inline]
    pub(crate) fn needs(&self) -> Needs {
        self.needs
    }

    /// Counts how a backend has done, and posts what may change who is asked.
    #[inline]
    pub(crate) fn settle(&self, id: BackendId, ok: bool, trial: Option<Trial>) {
        self.rows.row(id).count(ok);
        if !ok || trial.is_some() {
            self.post(id, ok, trial);
        }
    }

    #[cold]
    fn post(&self, id: BackendId, ok: bool, trial: Option<Trial>) {
        let Some(outcomes) = &self.outcomes else { return };
        match trial {
            None => outcomes.failed(self.id, id, self.backends.load.totals(self.id, id)),
            Some(trial) => {
                if outcomes.tried(self.id, id, trial.epoch(), ok) {
                    trial.decide(ok);
                }
            }
        }
    }

    /// Notes how long a backend took, where the algorithm wants to know.
    pub(crate) fn timed(&self, id: BackendId, sample: Sample, now: u64) {
        self.balancer.borrow_mut().observe(id, sample, now);
    }

    /// Calls who waits first, now that there is room; or says which other core to tell.
    pub(super) fn call_next(&self) -> Option<usize> {
        self.queue.as_ref()?.call()
    }

    /// Whether it is worth a look for whoever waits: there is room, or nobody to wait for.
    pub(super) fn has_news_for_the_queue(&self) -> bool {
        let who = self.usable.get() | self.on_trial.get();
        let has_room =
            |id: BackendId| self.shared.slots.get(id.index()).is_none_or(Permits::has_room);
        who.is_empty() || who.iter().any(has_room)
    }

    /// Looks after who waits on this core.
    pub(super) fn look_after_queue(&self, now: u64) {
        if let Some(queue) = self.queue.as_ref().filter(|queue| !queue.is_empty()) {
            queue.look_after(now);
        }
    }

    /// Whether the pool's budget allows one more retry, which is then taken from it.
    pub(crate) fn may_ask_again(&self, plan: &Pool, now: u64) -> bool {
        let (Some(left), Some(plan)) = (&self.shared.budget, &plan.retry.budget) else {
            return true;
        };
        let fresh = if budget::is_due(left.left(), now) {
            left.fresh(self.backends.load.requests(self.id))
        } else {
            0
        };
        left.take(|left| budget::take(plan, left, fresh, now))
    }

    /// Notes that a backend would not let us connect.
    pub(crate) fn refused(&self, id: BackendId, now: u64) {
        let mut refusing = self.refusing.get();
        refusing.insert(id);
        self.refusing.set(refusing);
        self.refusing_until[id.index()].set(now + REFUSED_MS);
    }

    /// Without those who are passed over now; all of them where that leaves nobody.
    #[inline]
    fn calm(&self, usable: BackendSet, now: u64) -> BackendSet {
        if self.refusing.get().is_empty() {
            return usable;
        }
        let calm = usable & !self.refusing(now);
        if calm.is_empty() { usable } else { calm }
    }

    /// Who is passed over now.
    fn refusing(&self, now: u64) -> BackendSet {
        let mut refusing = self.refusing.get();
        for id in self.refusing.get().iter() {
            if now >= self.refusing_until[id.index()].get() {
                refusing.remove(id);
            }
        }
        self.refusing.set(refusing);
        refusing
    }

    /// What writes and reads the cookies of its clients; none where it is not sticky.
    #[inline]
    pub(crate) fn pins(&self) -> Option<&Pins> {
        self.shared.pins.as_deref()
    }

    /// A backend's address as Host has it.
    pub(crate) fn authority(&self, id: BackendId) -> &[u8] {
        self.authorities[id.index()].as_bytes()
    }

    /// A warm connection to a backend, if there is a good one.
    #[inline]
    pub(crate) fn take(
        &self,
        id: BackendId,
        now: u64,
        careful: bool,
        buffers: &Buffers,
        counters: &Slab,
    ) -> Option<Backend> {
        self.conns[id.index()].borrow_mut().take(now, careful, buffers, counters)
    }

    /// Keeps a connection, if it may be kept.
    #[inline]
    pub(crate) fn give(
        &self,
        id: BackendId,
        backend: Backend,
        now: u64,
        buffers: &Buffers,
        counters: &Slab,
    ) {
        self.conns[id.index()].borrow_mut().give(backend, now, buffers, counters);
    }

    /// Opens a connection to a backend.
    ///
    /// # Errors
    /// As `conns::open`.
    pub(crate) async fn open(
        &self,
        id: BackendId,
        time: Duration,
        clock: &Clock,
        deadlines: &Rc<Deadlines>,
        counters: &Slab,
    ) -> Result<Backend, Fault> {
        conns::open(&self.conns[id.index()], time, clock, deadlines, counters).await
    }

    /// When this core last told that it could not reach a backend; 0 = never.
    pub(crate) fn lost(&self, id: BackendId) -> &Cell<u64> {
        &self.lost[id.index()]
    }

    /// Closes idle connections whose time is over.
    pub(crate) fn expire(&self, now: u64, buffers: &Buffers, counters: &Slab) {
        for conns in &self.conns {
            conns.borrow_mut().expire(now, buffers, counters);
        }
    }

    /// Closes all idle connections.
    pub(crate) fn clear(&self, counters: &Slab) {
        for conns in &self.conns {
            conns.borrow_mut().clear(counters);
        }
    }
}

/// Whether anything follows from failures of a pool's backends.
fn is_watched(pool: &Pool) -> bool {
    pool.passive.failures_max > 0 || pool.breaker.is_some()
}
