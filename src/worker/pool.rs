//! This core's view of a pool: who can be asked, the algorithm, the connection pools.
//!
//! Every concern about backends is a set of them, and a pick sees only what is left of all sets.
//! Nothing here decides; the algorithms stand in `policy`, connections are opened in `conns`.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use super::InForce;
use crate::base::{
    backend_set::BackendSet,
    ids::{BackendId, PoolId},
};
use crate::conns::{self, Addresses};
use crate::http::fault::Fault;
use crate::net::{buffer::Buffers, clock::Clock, deadlines::Deadlines};
use crate::plan::{self, Pool};
use crate::policy::{
    balance::{Balancer, Candidates, Prepared, Weights},
    resolve,
};
use crate::proto::h1::Backend;
use crate::shared::counters::{Counter, Slab};

/// How long a backend that refused a connection is passed over by the core that it refused, in
/// milliseconds; then one request finds out whether it is back.
const REFUSED_MS: u64 = 1_000;

/// This core's view of a pool.
pub(crate) struct PoolView {
    /// Who stands in the plan and has an address: one whose name does not resolve has none. It is
    /// one set, not two, as each set costs every pick. Health, enablement and admission will be
    /// sets beside it.
    reachable: Cell<BackendSet>,
    weights: Weights,
    balancer: RefCell<Balancer>,
    conns: Vec<RefCell<Addresses>>,
    in_flight: Vec<Cell<u32>>,
    /// When this core last told that it could not reach a backend, in coarse milliseconds.
    lost: Vec<Cell<u64>>,
    /// Who would not let this core connect a moment ago, and until when each is passed over.
    refusing: Cell<BackendSet>,
    refusing_until: Vec<Cell<u64>>,
    /// What Host is, where the pool sends the backend's own.
    authorities: Vec<String>,
}

impl PoolView {
    pub(crate) fn new(pool: &Pool, core_index: usize, cores: usize, counters: &Slab) -> PoolView {
        let prepared = Prepared::of(pool, core_index as u64);
        let view = PoolView {
            reachable: Cell::new(BackendSet::EMPTY),
            weights: Weights::of(&pool.backends),
            balancer: RefCell::new(Balancer::new(pool, &prepared, core_index, cores)),
            conns: pool
                .backends
                .iter()
                .map(|_| RefCell::new(Addresses::new(pool.connections, core_index)))
                .collect(),
            in_flight: pool.backends.iter().map(|_| Cell::new(0)).collect(),
            lost: pool.backends.iter().map(|_| Cell::new(0)).collect(),
            refusing: Cell::new(BackendSet::EMPTY),
            refusing_until: pool.backends.iter().map(|_| Cell::new(0)).collect(),
            authorities: pool.backends.iter().map(plan::Backend::authority).collect(),
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
        // Those there are now have refused nothing yet.
        self.refusing_until[id.index()].set(0);
    }

    /// A backend to ask that is not among those `tried`; one that refuses connections only where
    /// there is no other.
    #[inline]
    pub(crate) fn pick(&self, tried: &BackendSet, now: u64) -> Option<BackendId> {
        let reachable = self.reachable.get() & !*tried;
        let calm = reachable & !self.refusing(now);
        let usable = if calm.is_empty() { reachable } else { calm };
        let candidates = Candidates {
            usable,
            weights: &self.weights,
            in_flight: &self.in_flight,
            now,
            key: None,
        };
        self.balancer.borrow_mut().pick(&candidates)
    }

    /// Notes that a backend would not let us connect.
    pub(crate) fn refused(&self, id: BackendId, now: u64) {
        let mut refusing = self.refusing.get();
        refusing.insert(id);
        self.refusing.set(refusing);
        self.refusing_until[id.index()].set(now + REFUSED_MS);
    }

    /// Who is passed over now.
    #[inline]
    fn refusing(&self, now: u64) -> BackendSet {
        let mut refusing = self.refusing.get();
        if refusing.is_empty() {
            return refusing;
        }
        for id in self.refusing.get().iter() {
            if now >= self.refusing_until[id.index()].get() {
                refusing.remove(id);
            }
        }
        self.refusing.set(refusing);
        refusing
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

/// One request under way at a backend; taken back when it is dropped, whichever way it ended.
pub(crate) struct InFlight {
    in_force: Rc<InForce>,
    pool: PoolId,
    backend: BackendId,
}

impl InFlight {
    pub(crate) fn begin(in_force: &Rc<InForce>, pool: PoolId, backend: BackendId) -> InFlight {
        let cell = &in_force.pool(pool).in_flight[backend.index()];
        cell.set(cell.get() + 1);
        in_force.counters.add(Counter::BackendInFlight, 1);
        InFlight { in_force: Rc::clone(in_force), pool, backend }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let cell = &self.in_force.pool(self.pool).in_flight[self.backend.index()];
        cell.set(cell.get() - 1);
        self.in_force.counters.sub(Counter::BackendInFlight, 1);
    }
}
