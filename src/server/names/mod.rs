//! Name resolution: backends' names are looked up by separate threads, never on a core.
//!
//! `start` waits a while for the first answers; later ones reach the cores by their inboxes. A name
//! without an answer does not prevent a start: its backend gets no requests until there is one.
//! `policy` decides what an answer changes; `resolver.rs` is the thread.

mod resolver;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};

use self::resolver::{Answer, News, Parts, Resolver};
use super::spawn::{self, Death, Thread};
use crate::base::ids::{BackendId, PoolId};
use crate::health::ToHealth;
use crate::observe::reports::{Report, Reporter};
use crate::plan::{Address, Plan};
use crate::policy::resolve;
use crate::shared::inbox::{MovedBackend, Outbox, Unheard};
use crate::worker::ToCore;

/// How names are looked up: a host and a port give addresses. It may block.
pub(super) type Lookup = Arc<dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// How long a start waits for the first answers.
pub(super) const FIRST_ANSWERS: Duration = Duration::from_secs(5);

/// How long an end waits for the thread, which may be in a lookup if there were no more threads.
const LAST_LOOKUP: Duration = Duration::from_millis(100);

/// The system's resolver.
pub(super) fn by_the_system() -> Lookup {
    Arc::new(|host, port| (host, port).to_socket_addrs().map(Iterator::collect))
}

/// The receivers of addresses: every core and the health thread.
#[derive(Clone)]
pub(super) struct Readers {
    pub(super) cores: Vec<Outbox<ToCore>>,
    pub(super) health: Outbox<ToHealth>,
}

impl Readers {
    /// Posts to all of them, without waiting.
    ///
    /// # Errors
    /// `Unheard` if one of them has no room: it must be posted again.
    fn post(&self, found: &Arc<Vec<MovedBackend>>) -> Result<(), Unheard> {
        let now = Instant::now();
        let mut heard = self.health.send(ToHealth::Addresses(Arc::clone(found)), now);
        for core in &self.cores {
            heard = heard.and(core.send(ToCore::Addresses(Arc::clone(found)), now));
        }
        heard
    }
}

/// A backend whose name is looked up.
#[derive(PartialEq, Eq)]
struct Named {
    pool: PoolId,
    backend: BackendId,
    host: String,
    port: u16,
    every: Duration,
}

/// The thread that has names looked up. Dropping it ends the thread; lookups in progress cannot be
/// stopped, and are left behind.
pub(super) struct Names {
    /// The backends whose names are looked up.
    backends: Vec<(PoolId, BackendId)>,
    reporter: Reporter,
    first: Receiver<Answer>,
    /// Dropped when no more answers are wanted.
    wanted: Option<Sender<()>>,
    news: Sender<News>,
    thread: Option<Thread>,
}

impl Names {
    /// Begins to look up the names of a plan; does nothing if there are none.
    ///
    /// # Errors
    /// The kernel's, if it gives no thread.
    pub(super) fn begin(
        plan: &Plan,
        lookup: Lookup,
        death: Death,
        reporter: Reporter,
        readers: Readers,
    ) -> io::Result<Option<Names>> {
        let names = named(plan);
        if names.is_empty() {
            return Ok(None);
        }
        // Without a buffer: an answer is either received by the start or kept by the thread.
        let (to_start, first) = bounded(0);
        let (wanted, over) = bounded(0);
        let news = resolver::news();
        let to_thread = news.0.clone();
        let backends = names.iter().map(|name| (name.pool, name.backend)).collect();
        let told = reporter.clone();
        let given = Parts { names, lookup, reporter: told, readers, start: to_start, news, over };
        let work = move || Resolver::new(given).run();
        let thread =
            spawn::watched("ringway-names".into(), "the names thread".into(), &death, work)?;
        let (wanted, thread) = (Some(wanted), Some(thread));
        Ok(Some(Names { backends, reporter, first, wanted, news: to_thread, thread }))
    }

    /// Whether two plans look up the same names, for the same backends.
    pub(super) fn are_same(one: &Plan, other: &Plan) -> bool {
        named(one) == named(other)
    }

    /// From now on the thread posts by itself, including the first answers: they are not waited
    /// for.
    pub(super) fn at_once(mut self) -> Names {
        self.first = crossbeam_channel::never();
        self
    }

    /// Waits for the first answer for each name, but no longer than `time`, and posts what came.
    /// From then on the thread posts by itself. Returns how many backends have no address.
    pub(super) fn first(&mut self, time: Duration, readers: &Readers) -> usize {
        let until = Instant::now() + time;
        let mut found = Vec::new();
        // Whether each has an address; none = no answer yet.
        let mut known: Vec<Option<bool>> = vec![None; self.backends.len()];
        while known.contains(&None) {
            let Ok(answer) = self.first.recv_deadline(until) else { break };
            let is_first = known[answer.place].is_none();
            known[answer.place] = Some(answer.is_known);
            // That a name resolves is no news at the start.
            if let Some(what) = answer.what.filter(|_| !(is_first && answer.is_known)) {
                self.reporter.tell(what);
            }
            found.extend(answer.found);
        }
        for ((pool, backend), _) in self.backends.iter().zip(&known).filter(|(_, it)| it.is_none())
        {
            let news = (resolve::Change::Unknown, format!("no answer after {time:?}"));
            self.reporter.tell(Report::Name(*pool, *backend, Box::new(news)));
        }
        if !found.is_empty() {
            // Nothing has been sent yet, so there is room.
            let _ = readers.post(&Arc::new(found));
        }
        // Only now may the thread post: what it knows is newer.
        self.first = crossbeam_channel::never();
        known.iter().filter(|known| **known != Some(true)).count()
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.wanted = None;
        // There is room for it besides the end of each lookup.
        let _ = self.news.try_send(News::Stop);
        self.first = crossbeam_channel::never();
        if let Some(thread) = self.thread.take() {
            let _ = thread.end(Instant::now() + LAST_LOOKUP);
        }
    }
}

/// The backends of a plan whose names must be looked up.
fn named(plan: &Plan) -> Vec<Named> {
    let mut names = Vec::new();
    for (pool_id, pool) in &plan.pools {
        for (id, backend) in &pool.backends {
            let Address::Name { host, port } = &backend.address else { continue };
            if !resolve::known(&backend.address).is_empty() {
                continue;
            }
            names.push(Named {
                pool: pool_id,
                backend: id,
                host: host.clone(),
                port: *port,
                every: pool.resolve,
            });
        }
    }
    names
}
