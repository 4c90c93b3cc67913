//! The connections of this core to a pool's backends: one connection pool for each.

use std::{cell::Cell, rc::Rc, time::Duration};

use super::PoolView;
use crate::base::ids::BackendId;
use crate::conns;
use crate::http::fault::Fault;
use crate::net::{buffer::Buffers, clock::Clock, deadlines::Deadlines};
use crate::proto::h1::Backend;
use crate::shared::counters::Slab;

impl PoolView {
    /// A warm connection to a backend, if there is a good one; as `conns::warm`.
    pub(crate) async fn warm(
        &self,
        id: BackendId,
        now: u64,
        careful: bool,
        buffers: &Buffers,
        counters: &Slab,
    ) -> Option<Backend> {
        conns::warm(&self.conns[id.index()], now, careful, buffers, counters).await
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
    pub(crate) fn unreachable_told(&self, id: BackendId) -> &Cell<u64> {
        &self.unreachable_told[id.index()]
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
