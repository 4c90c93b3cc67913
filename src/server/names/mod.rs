//! The names of backends: looked up by a thread of their own, never on a core.
//!
//! `start` waits a while for the first answers; later ones reach the cores by their inboxes. A name
//! without an answer is no refusal to start: its backend gets no requests until there is one. What
//! an answer changes is decided in `policy`; `resolver.rs` is the thread.

mod resolver;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use self::resolver::{Answer, Resolver};
use crate::base::ids::{BackendId, PoolId};
use crate::plan::{Address, Plan};
use crate::policy::resolve;
use crate::shared::inbox::{Found, Outbox, ToCore, ToHealth, Unheard};

/// How names are looked up: a host and a port give addresses. It may block.
pub(super) type Lookup = Box<dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send>;

/// Who is told, in one line each, what changes while the balancer runs; with `true` of what is
/// worse than before.
pub(super) type Report = Box<dyn Fn(bool, &str) + Send>;

/// How long a start waits for the first answers.
pub(super) const FIRST_ANSWERS: Duration = Duration::from_secs(5);

/// How long an end waits for the thread: a lookup under way cannot be stopped, and may take long.
const LAST_LOOKUP: Duration = Duration::from_millis(100);

/// The system's resolver.
pub(super) fn by_the_system() -> Lookup {
    Box::new(|host, port| (host, port).to_socket_addrs().map(Iterator::collect))
}

/// Who is told where backends are: every core and the health thread.
#[derive(Clone)]
pub(super) struct Readers {
    pub(super) cores: Vec<Outbox<ToCore>>,
    pub(super) health: Outbox<ToHealth>,
}

impl Readers {
    /// Posts to all of them, and waits for none.
    ///
    /// # Errors
    /// `Unheard` where one of them has no room: it has to be posted again.
    fn post(&self, found: &Arc<Vec<Found>>) -> Result<(), Unheard> {
        let now = Instant::now();
        let mut heard = self.health.send(ToHealth::Addresses(Arc::clone(found)), now);
        for core in &self.cores {
            heard = heard.and(core.send(ToCore::Addresses(Arc::clone(found)), now));
        }
        heard
    }
}

/// A backend whose name has to be looked up.
struct Named {
    pool: PoolId,
    backend: BackendId,
    host: String,
    port: u16,
    every: Duration,
    /// `pool "app": backend app.internal:8080`
    label: String,
}

/// The thread that looks names up. Dropping it ends the thread, or leaves it to its last lookup.
pub(super) struct Names {
    labels: Vec<String>,
    first: Receiver<Answer>,
    stop: Option<Sender<()>>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

/// What a start knows of the names.
#[derive(Debug, Default)]
pub(super) struct First {
    /// What the operator should know.
    pub(super) notes: Vec<String>,
    /// Backends that have no address.
    pub(super) unknown: usize,
}

impl Names {
    /// Begins to look up the names of a plan; nothing where there are none.
    ///
    /// # Errors
    /// The kernel's, where it gives no thread.
    pub(super) fn begin(
        plan: &Plan,
        lookup: Lookup,
        report: Report,
        readers: Readers,
    ) -> io::Result<Option<Names>> {
        let names = named(plan);
        if names.is_empty() {
            return Ok(None);
        }
        // Without room: an answer is either taken by the start or kept by the thread.
        let (to_start, first) = bounded(0);
        let (stop, stopped) = bounded(0);
        let (alive, ended) = bounded::<()>(0);
        let labels = names.iter().map(|name| name.label.clone()).collect();
        let resolver = Resolver::new(names, lookup, report, readers, to_start, stopped);
        let thread = Builder::new().name("ringway-names".into()).spawn(move || {
            resolver.run();
            drop(alive);
        })?;
        Ok(Some(Names { labels, first, stop: Some(stop), ended, thread: Some(thread) }))
    }

    /// Waits for the first answer for each name, but no longer than `time`, and posts what came.
    /// From then on the thread posts by itself.
    pub(super) fn first(&mut self, time: Duration, readers: &Readers) -> First {
        let until = Instant::now() + time;
        let mut notes = Vec::new();
        let mut found = Vec::new();
        // Whether each has an address; none = not answered yet.
        let mut known: Vec<Option<bool>> = vec![None; self.labels.len()];
        while known.contains(&None) {
            let Ok(answer) = self.first.recv_deadline(until) else { break };
            let is_first = known[answer.place].is_none();
            known[answer.place] = Some(answer.is_known);
            // That a name resolves is no news at the start.
            if !(is_first && answer.is_known) {
                notes.extend(answer.line);
            }
            found.extend(answer.found);
        }
        for (label, _) in self.labels.iter().zip(&known).filter(|(_, known)| known.is_none()) {
            notes.push(format!("{label} has no answer after {time:?}; {UNTIL_THEN}"));
        }
        if !found.is_empty() {
            // Nothing has been sent yet, so there is room.
            let _ = readers.post(&Arc::new(found));
        }
        // Only now may the thread post: what it knows is newer.
        self.first = crossbeam_channel::never();
        let unknown = known.iter().filter(|known| **known != Some(true)).count();
        First { notes, unknown }
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.stop = None;
        self.first = crossbeam_channel::never();
        let waited = self.ended.recv_timeout(LAST_LOOKUP);
        if waited == Err(RecvTimeoutError::Disconnected)
            && let Some(thread) = self.thread.take()
        {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// What is said of a backend without an address.
const UNTIL_THEN: &str = "it gets no requests until there is an address";

/// The backends of a plan whose names have to be looked up.
fn named(plan: &Plan) -> Vec<Named> {
    let mut names = Vec::new();
    for (pool_id, pool) in (0..).map(PoolId).zip(&plan.pools) {
        for (id, backend) in (0..).map(BackendId).zip(&pool.backends) {
            let Address::Name { host, port } = &backend.address else { continue };
            if !resolve::known(&backend.address).is_empty() {
                continue;
            }
            let written = backend.authority();
            let name = match &backend.name {
                name if *name == written => String::new(),
                name => format!("\"{name}\" at "),
            };
            names.push(Named {
                pool: pool_id,
                backend: id,
                host: host.clone(),
                port: *port,
                every: pool.resolve,
                label: format!("pool \"{}\": backend {name}{written}", pool.name),
            });
        }
    }
    names
}
