//! The state of one core: the plan in force, its view of each pool, buffers, counters, clock.
//!
//! Floor 7. No loop and no thread: `server` runs them. Everything here belongs to one thread, so it
//! is plain cells; what other threads may read or send is in `shared`.

mod abuse;
mod admission;
mod core;
mod date;
mod descriptors;
mod desks;
mod gauge;
mod in_force;
mod level;
mod line;
mod logs;
mod next;
mod peak;
mod pool;
mod queue;
mod scratch;
#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, Ref, RefCell, RefMut},
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

pub(crate) use self::{
    admission::Admitted,
    core::{
        Answered, Core, CorePlan, Heir, Moved, Process, Question, RestingClient, Retired, Socket,
        ToCore, WorkerSeed,
    },
    gauge::Gauge,
    in_force::InForce,
    next::{Next, NextPool, States},
    pool::{Explained, LeftOut, NoPick, Pick, PoolCore, PoolView, Standing, Wanted, Way},
    queue::{Place, WaitsFor},
    scratch::Scratch,
};
use self::{desks::Desks, level::Level, line::Line, logs::Logs, peak::Peak};

use crate::base::{
    endpoint::Endpoint,
    moment::{Moment, Tick, UnixSeconds},
    rng::Rng,
};
use crate::conns::Means;
use crate::http::{forward::MadeIds, parse::HeadLimits};
use crate::net::{
    buffer::Buffers,
    chance,
    clock::Clock,
    deadlines::Deadlines,
    relay::Pipes,
    signal::Signal,
    tls::{Ends, Front, Gate},
};
use crate::observe::{
    access_log::AccessLine,
    reports::{CoreReporter, Limit},
    request_id::RequestId,
    writer::Outlet,
};
use crate::plan::{self, ListenerId, Plan, Table};
use crate::policy::{penalties::Penalties, route::Router};
use crate::proto::{h2, peer::Peer};
use crate::shared::{
    certs::Challenges,
    counters::{Counter, Slab},
    tally::Key,
};

/// Unused buffers kept warm per worker until a peak is over, as many as may be in use at once: to
/// unmap one and map it again costs a third of a request. Of their 68 KiB only touched pages cost.
const BUFFERS_KEPT: usize = 1024;

/// How many of these stay after a quiet while.
const BUFFERS_QUIET: usize = 16;

/// How long a connection may be idle while its worker drains: its client may have sent something.
const RESTS_MAX: Duration = Duration::from_secs(1);

/// Reusable heads kept per worker; as many as buffers.
const SCRATCHES_KEPT: usize = BUFFERS_KEPT;

/// The state of one core.
pub(crate) struct Worker {
    pub(crate) core: Rc<Core>,
    in_force: RefCell<Rc<InForce>>,
    /// Its routes. No request needs those that it began under: it has found its own in the turn in
    /// which it began.
    router: RefCell<Router>,
    /// Earlier ones that something here may still hold, the newest last.
    older: RefCell<Vec<Weak<InForce>>>,
    pub(crate) clock: Rc<Clock>,
    pub(crate) deadlines: Rc<Deadlines>,
    pub(crate) buffers: Rc<Buffers>,
    pub(crate) pipes: Pipes,
    pub(crate) counters: Arc<Slab>,
    #[expect(clippy::vec_box, reason = "an exchange keeps the box: the room is not copied")]
    scratches: RefCell<Vec<Box<Scratch>>>,
    /// Tasks of streams that rest.
    pub(crate) desks: Desks<h2::Asking>,
    /// Client connections of this worker.
    open: Cell<u32>,
    /// Listeners of this worker that still accept connections, including those that only empty
    /// their queue.
    accepting: Cell<u32>,
    /// Clients that were refused and have not left.
    pub(crate) turned_away: Rc<Cell<u32>>,
    /// Requests so far, as of the last round of the sweep.
    requests_seen: Cell<u64>,
    /// Connections that linger.
    pub(crate) lingering: Rc<Cell<u32>>,
    /// Permits of connections that were closed to make room: the next ones returned are already in
    /// use by the new connections.
    owed: Cell<u32>,
    /// Until then descriptors are about to become free, if any are.
    freed_until: Cell<Option<Tick>>,
    draining: Signal,
    /// Who gets its resting connections while it drains; none = they are closed.
    heir: RefCell<Option<Heir>>,
    /// The end signal of each address that accepts connections.
    listening: RefCell<Vec<Rc<Listening>>>,
    /// Up when this worker drains, no client waits to be let in, and the last has left.
    pub(crate) drained: Signal,
    peak: Peak,
    /// When the last exchange whose times are counted began.
    sampled_at: Cell<Option<Tick>>,
    /// The randomness for request ids.
    chance: RefCell<Rng>,
    /// Those of the last request, from which the next are made.
    ids: RefCell<MadeIds>,
    date: date::Date,
    pub(crate) logs: Logs,
    pub(crate) events: CoreReporter,
    /// What authorities look for that check names; none most of the time.
    challenges: RefCell<Option<Arc<Challenges>>>,
    /// The gate for handshakes with clients.
    pub(crate) gate: Gate,
    /// Whether this core is busier than the others, and what it hands over.
    level: Level,
    /// Stands for the peers of tunnels of which no line is written.
    nobody: RefCell<Option<Rc<Peer>>>,
    /// The lines of streams of HTTP/2 that begin and of those that are given up, and the places of
    /// all of them.
    pub(crate) beginnings: Line,
    pub(crate) endings: Line,
    places: Rc<h2::Places>,
    /// Clients that are not let in for a while.
    penalties: RefCell<Penalties>,
}

/// An address of a listener that accepts connections.
pub(crate) struct Listening {
    of: Cell<ListenerId>,
    address: Endpoint,
    /// Another process serves what waits here when this one ends.
    pub(crate) is_shared: Cell<bool>,
    /// Up when it must accept no more.
    pub(crate) ends: Signal,
    /// Its backlog and the patience of its connections, if the plan has changed them.
    tune: Cell<Option<(u32, Duration)>>,
}

impl Listening {
    /// The listener that has this address now.
    #[inline]
    pub(crate) fn listener(&self) -> ListenerId {
        self.of.get()
    }

    /// The settings that its socket is to take, if they have changed.
    #[inline]
    pub(crate) fn tune(&self) -> Option<(u32, Duration)> {
        self.tune.take()
    }

    fn is(&self, (listener, address): (ListenerId, Endpoint)) -> bool {
        self.listener() == listener && self.address == address
    }
}

impl Worker {
    pub(crate) fn new(process: Process, next: &Next, own: WorkerSeed) -> Rc<Worker> {
        let WorkerSeed { core_index, counters, outlets } = own;
        let buffers = Buffers::new(BUFFERS_KEPT);
        let means = Means {
            buffers: Rc::clone(&buffers),
            counters: Arc::clone(&counters),
            tls: RefCell::new(Arc::clone(&next.tls)),
            head_limits: Cell::new(next.plan.limits.heads()),
        };
        let (reporter, level) = (process.reporter.clone(), next.plan.global.log_level);
        let core = Rc::new(Core {
            index: core_index,
            cores: Cell::new(next.cores),
            process,
            counters: Arc::clone(&counters),
            means: Rc::new(means),
            losses: Cell::new(0),
        });
        let clock = Rc::new(Clock::new());
        let in_force = InForce::new(next, &[], &core, clock.tick());
        // The check of the plan has compiled every expression once: none can fail here.
        let router = Router::compile(&next.plan.routes).unwrap_or_default();
        let beginnings = Line::of_beginnings(&counters);
        let worker = Rc::new(Worker {
            core,
            in_force: RefCell::new(Rc::new(in_force)),
            router: RefCell::new(router),
            older: RefCell::default(),
            deadlines: Deadlines::new(Rc::clone(&clock)),
            clock,
            buffers,
            pipes: Pipes::default(),
            counters,
            scratches: RefCell::default(),
            desks: Desks::default(),
            open: Cell::new(0),
            accepting: Cell::new(0),
            turned_away: Rc::default(),
            requests_seen: Cell::new(0),
            lingering: Rc::default(),
            owed: Cell::new(0),
            freed_until: Cell::new(None),
            draining: Signal::default(),
            heir: RefCell::default(),
            listening: RefCell::default(),
            drained: Signal::default(),
            peak: Peak::default(),
            sampled_at: Cell::new(None),
            chance: RefCell::new(Rng::seeded(chance::drawn())),
            ids: RefCell::default(),
            date: date::Date::default(),
            logs: Logs::new(outlets),
            events: CoreReporter::new(reporter, level),
            challenges: RefCell::default(),
            gate: Gate::default(),
            level: Level::default(),
            nobody: RefCell::default(),
            beginnings,
            endings: Line::of_endings(),
            places: Rc::default(),
            penalties: RefCell::default(),
        });
        worker.levels_by(next.generation);
        worker
    }

    /// Shakes hands with this from now on; connections keep theirs.
    pub(crate) fn set_tls(&self, ends: Arc<Ends>) {
        self.core.means.tls.replace(ends);
    }

    /// TLS of a listener, if it speaks it.
    #[inline]
    pub(crate) fn front(&self, id: ListenerId) -> Option<Front> {
        self.core.means.tls.borrow().fronts.get(id).cloned()
    }

    /// Whether an authority may be looking for something.
    #[inline]
    pub(crate) fn has_challenges(&self) -> bool {
        self.challenges.borrow().is_some()
    }

    /// What authorities may be looking for.
    pub(crate) fn challenges(&self) -> Option<Arc<Challenges>> {
        self.challenges.borrow().clone()
    }

    /// Answers authorities with these from now on; none = with nothing.
    pub(crate) fn answer_challenges(&self, challenges: Option<Arc<Challenges>>) {
        self.challenges.replace(challenges);
    }

    /// Whether a request for this host may come over a connection to this listener that was made
    /// for this name.
    pub(crate) fn agrees(&self, id: ListenerId, name: &str, host: &str) -> bool {
        let tls = self.core.means.tls.borrow();
        tls.fronts.get(id).is_none_or(|front| front.store.agrees(Some(name), host))
    }

    /// The plan in force, and what this worker made of it.
    #[inline]
    pub(crate) fn in_force(&self) -> Rc<InForce> {
        Rc::clone(&self.in_force.borrow())
    }

    /// Puts this plan in force. What began under the one before ends under it.
    pub(crate) fn change(
        &self,
        next: &Next,
        router: Option<Router>,
        outlets: Table<ListenerId, Outlet>,
    ) {
        let now = self.clock.renew().tick();
        let before = self.all_in_force();
        let in_force = Rc::new(InForce::new(next, &before, &self.core, now));
        self.change_routes(router, &before[0].plan, &next.plan);
        self.events.set_level(next.plan.global.log_level);
        self.levels_by(next.generation);
        self.set_tls(Arc::clone(&next.tls));
        self.core.means.head_limits.set(next.plan.limits.heads());
        self.logs.change(outlets, |id| {
            let listener = next.plan.listeners.get(id);
            listener.is_none_or(|listener| listener.access_log.is_some())
        });
        let former = self.in_force.replace(in_force);
        let mut older = self.older.borrow_mut();
        older.retain(|older| older.strong_count() > 0);
        older.push(Rc::downgrade(&former));
        drop(older);
        self.tune_listeners(&before[0].plan, &next.plan);
        self.leave_listeners();
    }

    /// Finds routes by those of the next plan from now on: by `router`, if it was compiled
    /// elsewhere.
    fn change_routes(&self, router: Option<Router>, before: &Plan, next: &Plan) {
        let router = match router {
            Some(router) => router,
            None if before.routes == next.routes => return,
            None => Router::compile(&next.routes).unwrap_or_default(),
        };
        let former = self.router.replace(router);
        let (core_index, generation, plan) = (self.core.index, None, None);
        let retired = Retired { core_index, generation, plan, router: Some(former) };
        // The owner may be gone when the process ends.
        let _ = self.core.process.retired.send(retired);
    }

    /// The compiled routes of this plan, which is in force: for what began in this turn.
    #[inline]
    pub(crate) fn routes_of(&self, in_force: &Rc<InForce>) -> Ref<'_, Router> {
        debug_assert!(Rc::ptr_eq(in_force, &self.in_force.borrow()), "it is another plan's");
        self.router.borrow()
    }

    /// The plan in force and all before it that something here still holds, the newest first.
    fn all_in_force(&self) -> Vec<Rc<InForce>> {
        let older = self.older.borrow();
        let older = older.iter().rev().filter_map(Weak::upgrade);
        std::iter::once(self.in_force()).chain(older).collect()
    }

    /// A peer of this listener of which nothing is told: one for all of them, as each is 104 bytes.
    pub(crate) fn nobody(&self, listener: ListenerId) -> Rc<Peer> {
        let nobody = &mut *self.nobody.borrow_mut();
        match nobody {
            Some(known) if known.listener == listener => Rc::clone(known),
            _ => Rc::clone(nobody.insert(Rc::new(Peer::nobody(listener)))),
        }
    }

    /// Whether connections of this listener are served: it is in the plan in force.
    #[inline]
    pub(crate) fn serves(&self, listener: ListenerId) -> bool {
        self.in_force.borrow().listeners.get(listener).is_some()
    }

    /// Sockets of listeners that stay take what has changed before they accept the next time.
    fn tune_listeners(&self, before: &Plan, next: &Plan) {
        let settings = |it: &plan::Listener| (it.backlog, it.patience());
        for at in self.listening.borrow().iter() {
            let [before, next] =
                [before, next].map(|plan| plan.listeners.get(at.listener()).map(settings));
            if let Some(next) = next.filter(|next| before.is_some_and(|before| before != *next)) {
                at.tune.set(Some(next));
            }
        }
    }

    /// Closes resting connections of removed listeners.
    fn leave_listeners(&self) {
        self.deadlines.close_resting_of(|id| !self.serves(id));
    }

    /// The limits of heads in the plan in force.
    pub(crate) fn head_limits(&self) -> HeadLimits {
        self.in_force.borrow().head_limits
    }

    /// Whether this worker accepts no more connections and finishes those it has.
    #[inline]
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_raised()
    }

    /// Begins to drain.
    pub(crate) fn drain(&self) {
        self.heir.take();
        self.draining.raise();
        self.desks.close();
        self.listening.borrow().iter().for_each(|it| it.ends.raise());
        self.look_whether_drained();
    }

    /// Another process has the listening sockets, too, and takes over: no more connections are
    /// accepted, and those that rest, or come to rest, are given to it. The worker does not end
    /// when all have left: it may take back what it gave.
    /// What waits at the addresses that are `gone` there is served here.
    pub(crate) fn give_away_all(&self, heir: Heir, gone: &[Endpoint]) {
        let is_gone = |it: &&Rc<Listening>| gone.contains(&it.address);
        self.listening.borrow().iter().filter(is_gone).for_each(|it| it.ends.raise());
        self.heir.replace(Some(heir));
        self.draining.raise();
        self.leave_to_others();
        self.give_away_resting();
    }

    /// Other cores serve in this one's place: it accepts no more connections, and gives those away
    /// that come to rest. It goes on with the others, and is there if it is needed again.
    pub(crate) fn rest(&self, heir: Heir) {
        // It may have given all away, and taken that back.
        self.take_back();
        self.heir.replace(Some(heir));
        self.leave_to_others();
        self.give_away_resting();
    }

    /// Serves where it is told next, and nowhere else.
    pub(crate) fn moves(&self) {
        self.take_back();
        self.leave_to_others();
    }

    /// Accepts no more connections; others have the sockets, too, and what waits there.
    fn leave_to_others(&self) {
        // What waits at an address that is removed is served here.
        let listening = self.listening.borrow();
        for listening in listening.iter().filter(|it| !it.ends.is_raised()) {
            listening.is_shared.set(true);
            listening.ends.raise();
        }
    }

    /// Gives away what rests, but connections with a session of TLS, which cannot go along, and
    /// those that the heir has no listener for.
    fn give_away_resting(&self) {
        let heir = self.heir.borrow();
        let Some(heir) = &*heir else { return };
        let tls = self.core.means.tls.borrow();
        let may_go = |id| tls.fronts.get(id).is_none() && !heir.unknown.contains(&id);
        self.deadlines.give_away_resting(may_go);
    }

    /// Gives a connection away.
    pub(crate) fn give_away(&self, connection: RestingClient) {
        if let Some(heir) = &*self.heir.borrow() {
            // If nobody takes it the connection is closed.
            let _ = heir.to.send(connection);
        }
    }

    /// Serves again as before it gave everything away.
    pub(crate) fn take_back(&self) {
        if self.heir.take().is_some() {
            self.draining.lower();
        }
    }

    /// Begins to accept connections at one more address of a listener.
    pub(crate) fn begin_to_accept(
        &self,
        (listener, address): (ListenerId, Endpoint),
        is_shared: bool,
    ) -> Rc<Listening> {
        self.accepting.set(self.accepting.get() + 1);
        let ends = Signal::default();
        if self.is_draining() {
            ends.raise();
        }
        let is_shared = Cell::new(is_shared);
        let listening = Rc::new(Listening {
            of: Cell::new(listener),
            address,
            is_shared,
            ends,
            tune: Cell::new(None),
        });
        self.listening.borrow_mut().push(Rc::clone(&listening));
        listening
    }

    /// Gives an address to another listener.
    pub(crate) fn hand_over(&self, address: (ListenerId, Endpoint), to: ListenerId) {
        let listening = self.listening.borrow();
        listening.iter().filter(|it| it.is(address)).for_each(|it| it.of.set(to));
    }

    /// An address accepts no more connections than those that wait.
    pub(crate) fn leave(&self, address: (ListenerId, Endpoint)) {
        let listening = self.listening.borrow();
        listening.iter().filter(|it| it.is(address)).for_each(|it| it.ends.raise());
    }

    /// It accepts no more, and what waits at its addresses is left there: it ends.
    pub(crate) fn leave_queues(&self) {
        self.listening.borrow().iter().for_each(|it| it.is_shared.set(true));
    }

    /// Whether a task of it has a listening socket.
    pub(crate) fn accepts(&self) -> bool {
        self.accepting.get() > 0
    }

    /// An address has accepted the last of those that waited.
    pub(crate) fn end_to_accept(&self, listening: &Rc<Listening>) {
        self.listening.borrow_mut().retain(|it| !Rc::ptr_eq(it, listening));
        self.accepting.set(self.accepting.get() - 1);
        self.look_whether_drained();
    }

    fn look_whether_drained(&self) {
        let ends = self.is_draining() && self.heir.borrow().is_none();
        if ends && self.accepting.get() == 0 && self.open.get() == 0 {
            self.drained.raise();
        }
    }

    #[inline]
    pub(crate) fn count(&self, counter: Counter) {
        self.counters.add(counter, 1);
    }

    /// Reusable buffers for one exchange, empty.
    pub(crate) fn scratch(&self) -> Box<Scratch> {
        self.scratches.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes the buffers of an exchange back.
    pub(crate) fn recycle(&self, mut scratch: Box<Scratch>) {
        let mut kept = self.scratches.borrow_mut();
        if kept.len() < SCRATCHES_KEPT && scratch.is_small() {
            scratch.clear();
            kept.push(scratch);
        }
    }

    /// The date for a `Date` field.
    pub(crate) fn http_date(&self) -> [u8; 29] {
        self.date.now(&self.clock)
    }

    /// Wall time, by the coarse clock.
    pub(crate) fn unix_seconds(&self) -> UnixSeconds {
        self.clock.unix(self.clock.tick().moment()).seconds()
    }

    /// A new request id, made at this moment.
    pub(crate) fn request_id(&self, moment: Moment) -> RequestId {
        RequestId::new(self.clock.unix(moment), &mut self.chance.borrow_mut())
    }

    /// The ids of a request that goes to a backend, and its own, which it may have already.
    #[inline]
    pub(crate) fn make_ids(
        &self,
        moment: Moment,
        id: &mut Option<RequestId>,
    ) -> RefMut<'_, MadeIds> {
        let mut ids = self.ids.borrow_mut();
        match id {
            Some(id) => ids.spell(id.bits()),
            None => {
                let made = ids.make(self.clock.unix(moment), &mut self.chance.borrow_mut());
                *id = Some(RequestId::of(made));
            }
        }
        ids
    }

    /// Writes a line of an access log.
    pub(crate) fn log(&self, line: &AccessLine<'_>) {
        let dropped = self.logs.write(line, self.clock.tick());
        if dropped > 0 {
            self.counters.add(Counter::AccessLogDropped, dropped);
            self.events.limit(Limit::LogLines, self.clock.tick());
        }
    }

    /// Calls the requests that wait here for room that other cores have made, and learns which
    /// backends were taken out.
    pub(crate) fn look_at_notices(&self) {
        let (in_force, now) = (self.in_force(), self.clock.tick());
        for pool in self.core.process.rooms.take(self.core.index) {
            if let Some(view) = in_force.pools.get(pool) {
                view.core.offers_room();
                view.core.hear(now);
            }
        }
    }

    /// Calls the requests that wait at backends that were taken out.
    pub(crate) async fn call_from_lost(&self) {
        let lost: Vec<_> = self.in_force().pools.values().filter_map(|it| it.core.lost()).collect();
        for (pool, backends) in lost {
            self.deadlines.call(pool, backends.iter()).await;
        }
    }

    /// Whether the times of an exchange that begins now are counted: of all that begin in one
    /// millisecond, the first.
    #[inline]
    pub(crate) fn is_sample(&self, now: Tick) -> bool {
        self.sampled_at.replace(Some(now)) != Some(now)
    }

    /// Periodic work: called by the sweep after each round.
    pub(crate) fn turn(&self) {
        let now = self.clock.tick();
        for in_force in self.all_in_force() {
            for pool in in_force.pools.values() {
                pool.expire(now);
                pool.core.hear(now);
                pool.core.look_after_queue(now);
            }
        }
        self.ring_for_lost();
        self.stir_health();
        self.forget_older();
        self.leave_listeners();
        self.keep_to_share();
        self.keep_level();
        self.give_away_resting();
        if self.is_draining() {
            self.deadlines.close_resting_since(now.before(RESTS_MAX));
            self.deadlines.wake_multiplexed();
        }
        for id in self.in_force.borrow().listeners.ids() {
            let idle = u64::from(self.deadlines.resting(id));
            self.counters.tally().set(Key::Idle(id), idle);
        }
        // The sweep rests while nothing is watched, however long that is.
        self.logs.turn(now, self.deadlines.is_empty());
        self.give_memory_back();
    }

    /// The health thread sleeps while nothing is asked.
    fn stir_health(&self) {
        let requests = self.counters.read(Counter::Requests);
        let is_news = self.requests_seen.replace(requests) != requests;
        if is_news || self.counters.read(Counter::InFlight) > 0 {
            self.core.process.outcomes.stir();
        }
    }

    /// A publication that could not be read when its notice came was read since.
    fn ring_for_lost(&self) {
        if self.in_force().pools.values().any(|it| it.core.has_lost())
            && let Some(rope) = self.core.process.ropes.get(self.core.index)
        {
            rope.pull();
        }
    }

    /// Forgets what was kept for earlier plans.
    fn forget_older(&self) {
        let mut older = self.older.borrow_mut();
        if !older.is_empty() {
            older.retain(|older| older.strong_count() > 0);
            if older.is_empty() {
                self.logs.keep(|id| self.serves(id));
            }
        }
    }

    /// After a peak: memory of the buffer pools is returned to the kernel, and that of the
    /// allocator too if the process is ours.
    fn give_memory_back(&self) {
        if self.peak.is_over(self.counters.read(Counter::Requests)) {
            self.buffers.shrink(BUFFERS_QUIET);
            self.scratches.borrow_mut().truncate(BUFFERS_QUIET);
            self.desks.keep(BUFFERS_QUIET);
            h2::give_memory_back();
            self.logs.give_memory_back();
            if self.core.process.trims_memory {
                crate::net::fd::trim_heap();
            }
        }
    }

    /// Closes idle connections to backends: the worker ends.
    pub(crate) fn close_conns(&self) {
        for in_force in self.all_in_force() {
            in_force.pools.values().for_each(|pool| pool.close_idle());
        }
    }
}
