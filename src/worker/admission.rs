//! How many client connections are let in: the limit of the process and that of the listener.
//!
//! At a limit the connection that has been idle longest on this core makes room. The one that
//! comes instead takes over its permit at once, although it takes a moment to close: that is the
//! debt kept here, so that the limits stay exact.

use std::rc::Rc;

use super::Worker;
use crate::base::ids::ListenerId;
use crate::shared::{
    counters::Counter,
    permits::{Permit, Permits},
};

/// A client connection that was let in; gives its permits back when it is dropped.
pub(crate) struct Admitted {
    worker: Rc<Worker>,
    /// Both are there until the drop.
    process: Option<Permit>,
    own: Option<Permit>,
    listener: ListenerId,
}

impl Admitted {
    /// Lets a connection in, if there is room or an idle one can make room.
    pub(crate) fn enter(worker: &Rc<Worker>, listener: ListenerId) -> Option<Admitted> {
        let own_limit = &worker.listener_connections[listener.index()];
        let evict = |tag| {
            let evicted = worker.deadlines.close_longest_idle(tag);
            if evicted {
                worker.count(Counter::IdleEvicted);
            }
            evicted
        };
        let (own, owes_own) = take(own_limit, || evict(Some(listener.0)))?;
        let (process, owes) = if owes_own {
            // Who makes room at the listener makes it in the process too.
            (worker.connections.take_over(), true)
        } else {
            take(&worker.connections, || evict(None))?
        };
        if owes {
            worker.owed.set(worker.owed.get() + 1);
        }
        if owes_own {
            let owed = &worker.owed_by_listener[listener.index()];
            owed.set(owed.get() + 1);
        }
        worker.open.set(worker.open.get() + 1);
        worker.counters.add(Counter::Connections, 1);
        worker.count(Counter::Accepted);
        Some(Admitted {
            worker: Rc::clone(worker),
            process: Some(process),
            own: Some(own),
            listener,
        })
    }
}

/// A permit; or that of a connection that closes to make room, which is owed then.
fn take(permits: &Permits, evict: impl FnOnce() -> bool) -> Option<(Permit, bool)> {
    match permits.take() {
        Some(permit) => Some((permit, false)),
        None => evict().then(|| (permits.take_over(), true)),
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let worker = &self.worker;
        let owed = &worker.owed_by_listener[self.listener.index()];
        for (permit, owed) in [(&mut self.process, &worker.owed), (&mut self.own, owed)] {
            // One that another has taken over is not given back.
            if owed.get() > 0
                && let Some(permit) = permit.take()
            {
                owed.set(owed.get() - 1);
                permit.hand_over();
            }
        }
        worker.counters.sub(Counter::Connections, 1);
        worker.open.set(worker.open.get() - 1);
        worker.look_whether_drained();
    }
}
