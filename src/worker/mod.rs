//! What one core owns: the plan in force, its view of each pool, buffers, counters, clock.
//!
//! Floor 7. No loop and no thread: `server` runs them. Everything here belongs to one thread, so
//! it is plain cells; what others may read or send stands in `shared`.

mod admission;
mod common;
mod date;
mod descriptors;
mod gauge;
mod in_flight;
mod in_force;
mod logs;
mod peak;
mod pool;
mod queue;
mod scratch;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

pub(crate) use self::{
    admission::Admitted,
    common::{Common, PoolShared},
    gauge::Gauge,
    in_flight::InFlight,
    in_force::InForce,
    pool::{Nobody, Picked, PoolView, Wanted},
    queue::{Place, WaitsFor},
    scratch::Scratch,
};
use self::{logs::Logs, peak::Peak};
use crate::base::{
    ids::ListenerId,
    moment::{Tick, UnixSeconds},
    table::Table,
};
use crate::conns::Means;
use crate::http::parse::HeadLimits;
use crate::net::{
    buffer::Buffers, clock::Clock, deadlines::Deadlines, relay::Pipes, signal::Signal,
};
use crate::observe::{
    access_log::Line,
    request_id::RequestId,
    told::{CoreTeller, Limit},
    writer::Outlet,
};
use crate::shared::{
    counters::{Counter, Slab},
    inbox::Found,
    permits::Permits,
    spares::Spares,
};

/// Buffers kept warm per worker while nobody uses them: 256 of 68 KiB at most.
const BUFFERS_KEPT: usize = 256;

/// Of these, how many stay after a quiet while.
const BUFFERS_QUIET: usize = 16;

/// For how long a connection may rest while its worker drains: its client may have sent something.
const RESTS_MAX: Duration = Duration::from_secs(1);

/// Recycled heads kept per worker.
const SCRATCHES_KEPT: usize = 256;

/// What one core owns.
pub(crate) struct Worker {
    pub(crate) core_index: usize,
    #[allow(dead_code, reason = "the next plan in force is made for as many")]
    pub(crate) cores: usize,
    in_force: RefCell<Rc<InForce>>,
    pub(crate) clock: Rc<Clock>,
    pub(crate) deadlines: Rc<Deadlines>,
    pub(crate) buffers: Rc<Buffers>,
    pub(crate) pipes: Pipes,
    pub(crate) counters: Arc<Slab>,
    pub(crate) head_limits: HeadLimits,
    /// `ringway-` and eight hex digits, drawn once per process.
    pub(crate) pseudonym: Arc<str>,
    /// Client connections of the process.
    pub(crate) connections: Permits,
    /// Client connections of each listener.
    pub(crate) listener_connections: Arc<Table<ListenerId, Permits>>,
    #[expect(clippy::vec_box, reason = "an exchange keeps the box: the room is not copied")]
    scratches: RefCell<Vec<Box<Scratch>>>,
    /// Client connections of this worker.
    open: Cell<u32>,
    /// Listeners of this worker that still take connections, be it only those that wait.
    accepting: Cell<u32>,
    /// Clients that were turned away and have not gone.
    pub(crate) turned_away: Rc<Cell<u32>>,
    /// Connections that linger.
    pub(crate) lingering: Rc<Cell<u32>>,
    /// Permits of connections that were closed to make room: the next to be given back are
    /// already in use by those that came instead.
    owed: Cell<u32>,
    owed_by_listener: Table<ListenerId, Cell<u32>>,
    spares: Spares,
    /// Until then descriptors are about to be free, if any are.
    freed_until: Cell<Option<Tick>>,
    /// How many sockets are this worker's share of those that the process may have.
    share: usize,
    draining: Signal,
    /// Up when this worker drains, no client waits to be let in, and the last has left.
    pub(crate) drained: Signal,
    peak: Peak,
    date: date::Date,
    pub(crate) logs: Logs,
    pub(crate) events: CoreTeller,
}

/// What one worker is given for itself.
pub(crate) struct Own {
    pub(crate) core_index: usize,
    pub(crate) counters: Arc<Slab>,
    /// Its end of the access log of each listener that has one.
    pub(crate) outlets: Table<ListenerId, Outlet>,
}

impl Worker {
    pub(crate) fn new(common: Common, own: Own) -> Rc<Worker> {
        let Own { core_index, counters, outlets } = own;
        let buffers = Buffers::new(BUFFERS_KEPT);
        let means = Means { buffers: Rc::clone(&buffers), counters: Arc::clone(&counters) };
        let in_force = InForce::new(&common, core_index, &Rc::new(means));
        let share = common.plan.limits.descriptors() / common.cores.max(1) as u64;
        let spares = common.spares.clone();
        let Common { plan, cores, pseudonym, connections, listener_connections, .. } = common;
        let teller = common.teller;
        let clock = Rc::new(Clock::new());
        let (limits, level) = (plan.limits, plan.global.log_level);
        let owed_by_listener = plan.listeners.ids().map(|id| (id, Cell::new(0))).collect();
        Rc::new(Worker {
            core_index,
            cores,
            in_force: RefCell::new(Rc::new(in_force)),
            deadlines: Deadlines::new(Rc::clone(&clock)),
            clock,
            buffers,
            pipes: Pipes::default(),
            counters,
            head_limits: limits.heads(),
            pseudonym,
            connections,
            listener_connections,
            scratches: RefCell::default(),
            open: Cell::new(0),
            accepting: Cell::new(0),
            turned_away: Rc::default(),
            lingering: Rc::default(),
            owed: Cell::new(0),
            owed_by_listener,
            spares,
            freed_until: Cell::new(None),
            share: usize::try_from(share).unwrap_or(usize::MAX),
            draining: Signal::default(),
            drained: Signal::default(),
            peak: Peak::default(),
            date: date::Date::default(),
            logs: Logs::new(outlets),
            events: CoreTeller::new(teller, level),
        })
    }

    /// The plan in force, and what this worker made of it.
    #[inline]
    pub(crate) fn in_force(&self) -> Rc<InForce> {
        Rc::clone(&self.in_force.borrow())
    }

    /// Whether this worker takes no more connections and finishes those it has.
    #[inline]
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_raised()
    }

    /// Up when this worker takes no more connections.
    #[inline]
    pub(crate) fn draining(&self) -> &Signal {
        &self.draining
    }

    /// Begins to drain.
    pub(crate) fn drain(&self) {
        self.draining.raise();
        self.look_whether_drained();
    }

    /// One more listener takes connections.
    pub(crate) fn begin_to_accept(&self) {
        self.accepting.set(self.accepting.get() + 1);
    }

    /// A listener has taken the last of those that waited.
    pub(crate) fn end_to_accept(&self) {
        self.accepting.set(self.accepting.get() - 1);
        self.look_whether_drained();
    }

    fn look_whether_drained(&self) {
        if self.is_draining() && self.accepting.get() == 0 && self.open.get() == 0 {
            self.drained.raise();
        }
    }

    #[inline]
    pub(crate) fn count(&self, counter: Counter) {
        self.counters.add(counter, 1);
    }

    /// Recycled room for one exchange, empty.
    pub(crate) fn scratch(&self) -> Box<Scratch> {
        self.scratches.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes the room of an exchange back.
    pub(crate) fn recycle(&self, mut scratch: Box<Scratch>) {
        let mut kept = self.scratches.borrow_mut();
        if kept.len() < SCRATCHES_KEPT && scratch.is_small() {
            scratch.clear();
            kept.push(scratch);
        }
    }

    /// The date for a `Date` field.
    pub(crate) fn http_date(&self) -> [u8; 29] {
        self.date.at(self.clock.tick())
    }

    /// Wall time, by the coarse clock.
    pub(crate) fn unix_seconds(&self) -> UnixSeconds {
        self.logs.unix_millis(self.clock.tick().moment()).seconds()
    }

    /// A new id of a request, made now.
    pub(crate) fn request_id(&self) -> RequestId {
        self.logs.request_id(self.clock.renew())
    }

    /// Writes a line of an access log.
    pub(crate) fn log(&self, line: &Line<'_>) {
        let dropped = self.logs.write(line, self.clock.tick());
        if dropped > 0 {
            self.counters.add(Counter::AccessLogDropped, dropped);
            self.events.limit(Limit::LogLines, self.clock.tick());
        }
    }

    /// Calls who waits here for room that other cores have made.
    pub(crate) fn look_for_room(&self) {
        let in_force = self.in_force();
        in_force.rooms_told(self.core_index).for_each(|pool| in_force.left_the_queue(pool));
    }

    /// Notes where backends that have names are now.
    pub(crate) fn move_backends(&self, found: &[Found]) {
        let in_force = self.in_force();
        for Found { pool, backend, addresses } in found {
            // It may be of another plan than the one in force here.
            let known = in_force.plan.pools.get(*pool);
            if known.is_some_and(|pool| pool.backends.get(*backend).is_some()) {
                in_force.pool(*pool).move_to(*backend, addresses);
            }
        }
    }

    /// What is due once in a while: called by the sweep after each round.
    pub(crate) fn turn(&self) {
        let now = self.clock.tick();
        let in_force = self.in_force();
        for pool in in_force.pools.values() {
            pool.expire(now);
            pool.look_after_queue(now);
        }
        self.keep_to_share();
        if self.is_draining() {
            self.deadlines.close_resting_since(now.before(RESTS_MAX));
        }
        // The sweep rests while nothing is watched, however long that is.
        self.logs.turn(now, self.deadlines.is_empty());
        self.give_memory_back();
    }

    /// After a peak: what the pools of buffers and the allocator keep goes back to the kernel.
    fn give_memory_back(&self) {
        if self.peak.is_over(self.counters.read(Counter::Requests)) {
            self.buffers.shrink(BUFFERS_QUIET);
            self.scratches.borrow_mut().truncate(BUFFERS_QUIET);
            self.logs.give_memory_back();
            crate::net::fd::trim_heap();
        }
    }

    /// Closes what is idle towards backends: the worker ends.
    pub(crate) fn close_conns(&self) {
        for pool in self.in_force().pools.values() {
            pool.close_idle();
        }
    }
}
