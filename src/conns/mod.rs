//! Connection pools: connections to one backend, kept warm by one worker.
//!
//! Floor 6. Last in, first out, so that few stay in use and the others expire; bounded in number
//! and in idle time, the backend's own hint honoured. Every idle connection has a receive posted:
//! one that the backend closed, or wrote to unasked, is found out before it is used. Here is the
//! connection pool of one address; `addresses.rs` has those of all addresses of a backend.

mod addresses;

pub(crate) use self::addresses::{Addresses, open};
use crate::net::{buffer::Buffers, stream::Quiet};
use crate::plan::Connections;
use crate::proto::h1::Backend;
use crate::shared::counters::{Counter, Slab};

/// A connection this young may carry a request that cannot be sent again, in milliseconds.
const YOUNG_MS: u64 = 1_000;

/// What comes back in one burst may be wanted in the next: up to so many connections are kept
/// beyond the limit until a round of the sweep found no use for them. Without this a load of 512
/// clients opened a connection for every eighth request.
const SURPLUS_MAX: usize = 1_024;
const SURPLUS_MS: u64 = 250;

struct Idle {
    backend: Backend,
    until: u64,
}

/// The idle connections to one address of a backend.
struct Conns {
    idle: Vec<Idle>,
    options: Connections,
}

impl Conns {
    fn new(options: Connections) -> Conns {
        Conns { idle: Vec::new(), options }
    }

    /// A warm connection, if one is good. Where `careful` (the request may not be sent twice),
    /// only one that was in use a moment ago.
    fn take(
        &mut self,
        now: u64,
        careful: bool,
        buffers: &Buffers,
        counters: &Slab,
    ) -> Option<Backend> {
        while let Some(idle) = self.idle.pop() {
            if careful && now > idle.backend.idle_since + YOUNG_MS {
                self.idle.push(idle);
                return None;
            }
            counters.sub(Counter::BackendIdle, 1);
            if let Some(why) = idle.spent(now, buffers) {
                counters.add(why, 1);
                continue;
            }
            return Some(idle.backend);
        }
        None
    }

    /// Keeps a connection whose answer was whole, if it may be kept.
    fn give(&mut self, mut backend: Backend, now: u64, buffers: &Buffers, counters: &Slab) {
        let Connections { idle_max, idle_timeout, requests_max } = self.options;
        let spent = requests_max != 0 && backend.requests >= requests_max;
        if spent || idle_max == 0 || self.idle.len() >= usize::from(idle_max).max(SURPLUS_MAX) {
            return;
        }
        let own = u64::try_from(idle_timeout.as_millis()).unwrap_or(u64::MAX / 2);
        // A second less than it says, so that we close first.
        let hint = backend
            .keeps_idle
            .map_or(u64::MAX, |seconds| u64::from(seconds).saturating_sub(1) * 1000);
        let keep = own.min(hint);
        if keep == 0 || backend.post_receive(buffers).is_err() {
            return;
        }
        backend.idle_since = now;
        counters.add(Counter::BackendIdle, 1);
        self.idle.push(Idle { backend, until: now.saturating_add(keep) });
    }

    /// Closes the connections whose time is over and those that are no good any more; and of those
    /// that are more than may be kept, the ones that a whole round found no use for.
    fn expire(&mut self, now: u64, buffers: &Buffers, counters: &Slab) {
        let surplus = self.idle.len().saturating_sub(usize::from(self.options.idle_max));
        let unused = |idle: &Idle| idle.backend.idle_since + SURPLUS_MS <= now;
        let surplus = self.idle.iter().take(surplus).take_while(|idle| unused(idle)).count();
        counters.sub(Counter::BackendIdle, surplus as u64);
        counters.add(Counter::BackendExpired, surplus as u64);
        self.idle.drain(..surplus);
        self.idle.retain(|idle| match idle.spent(now, buffers) {
            None => true,
            Some(why) => {
                counters.sub(Counter::BackendIdle, 1);
                counters.add(why, 1);
                false
            }
        });
    }

    /// Closes them all.
    fn clear(&mut self, counters: &Slab) {
        counters.sub(Counter::BackendIdle, self.idle.len() as u64);
        self.idle.clear();
    }
}

impl Idle {
    /// Why it can be used no more, if so.
    fn spent(&self, now: u64, buffers: &Buffers) -> Option<Counter> {
        match self.backend.stream.quiet(buffers) {
            Quiet::Closed => Some(Counter::BackendClosedIdle),
            Quiet::Unasked => Some(Counter::BackendUnasked),
            Quiet::Yes if now >= self.until => Some(Counter::BackendExpired),
            Quiet::Yes => None,
        }
    }
}
