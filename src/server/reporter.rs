//! The thread that turns what cores tell of themselves into lines of the operational log.
//!
//! It sleeps until a core has something to tell, and ends when it is told to. The lines go through
//! `tracing`: whoever runs the process has said where to.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tracing::{debug, info, warn};

use super::standing_lines::{say_of_backend, say_of_late_probes, say_of_pool, why};
use crate::base::moment::{Tick, millis};
use crate::observe::{
    digest::Digest,
    events::{Event, Limit, Tried},
};
use crate::plan::{BackendId, Plan, PoolId};
use crate::policy::{
    retry::{Outcome, Refusal},
    standing::Change,
};
use crate::shared::counters::{Counter, Slab};

/// How long the end waits for the last lines.
const END_MAX: Duration = Duration::from_secs(1);

/// The thread, as whoever started it holds it.
pub(super) struct Reporter {
    to: Sender<Event>,
    /// Dropped when the first line may be told.
    gate: Option<Sender<()>>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
}

impl Reporter {
    /// Starts the thread; it tells nothing before `begin`. `own` is what it counts itself.
    ///
    /// # Errors
    /// Where there can be no more threads.
    pub(super) fn start(
        (to, events): (Sender<Event>, Receiver<Event>),
        plan: Arc<Plan>,
        counters: Vec<Arc<Slab>>,
        own: Arc<Slab>,
    ) -> io::Result<Reporter> {
        let (ending, ended) = bounded(0);
        let (gate, begun) = bounded::<()>(0);
        thread::Builder::new().name("reporter".into()).spawn(move || {
            // Nobody ever sends: it closes when it may begin.
            let _ = begun.recv();
            let lines = Lines { plan, counters };
            // A bug loses the line that shows it, and is told by the panic itself; nobody who
            // serves ends with it.
            while catch_unwind(AssertUnwindSafe(|| run(&events, &lines))).is_err() {
                own.add(Counter::Panics, 1);
            }
            drop(ending);
        })?;
        Ok(Reporter { to, gate: Some(gate), ended })
    }

    /// Tells from now on, what has happened so far first.
    pub(super) fn begin(&mut self) {
        self.gate = None;
    }

    /// Waits for the last lines; the cores have ended.
    pub(super) fn end(&mut self) {
        self.begin();
        let until = Instant::now() + END_MAX;
        // Where it has ended already, both say so at once.
        let _ = self.to.send_deadline(Event::End, until);
        let _ = self.ended.recv_deadline(until);
    }
}

fn run(events: &Receiver<Event>, lines: &Lines) {
    let began = Instant::now();
    let mut digest = Digest::default();
    loop {
        let event = match digest.waits() {
            None => events.recv().map_err(RecvTimeoutError::from),
            Some(time) => events.recv_timeout(time),
        };
        let now = Tick::from_millis(millis(began.elapsed()));
        match event {
            Ok(Event::End) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(event) => digest.observe(event, now).into_iter().for_each(|event| lines.say(event)),
            Err(RecvTimeoutError::Timeout) => {}
        }
        digest.due(now).for_each(|event| lines.say(event));
    }
}

/// What the lines are made of beside the events.
struct Lines {
    plan: Arc<Plan>,
    counters: Vec<Arc<Slab>>,
}

impl Lines {
    fn say(&self, event: Event) {
        match event {
            Event::End => {}
            Event::Standing(pool, Change::Backend { backend, to, cause, lasted, .. }) => {
                let (pool, backend) = self.names(pool, backend);
                say_of_backend((pool, backend), to, &why(cause), millis(lasted));
            }
            Event::Standing(pool, Change::Pool { from, to, sound, of }) => {
                let (pool, _) = self.names(pool, BackendId(0));
                say_of_pool(pool, (from, to), sound, of);
            }
            Event::ProbesLate(pool, late) => {
                let (pool, _) = self.names(pool, BackendId(0));
                say_of_late_probes(pool, millis(late));
            }
            Event::Tried(tried) => self.say_of_try(&tried),
            Event::Unreachable(pool, backend, cause) => {
                let (pool, backend) = self.names(pool, backend);
                warn!(pool, backend, code = cause.row().code, "a backend cannot be reached");
            }
            Event::Reachable(pool, backend) => {
                let (pool, backend) = self.names(pool, backend);
                info!(pool, backend, "a backend can be reached again");
            }
            Event::Limit(Limit::Connections) => warn!(
                open = self.sum(Counter::Connections),
                idle_closed_total = self.sum(Counter::IdleEvicted),
                refused_total = self.sum(Counter::RejectedOverloaded),
                "a limit of connections is reached (limits.connections, or max-connections of a \
                 listener): idle ones are closed to make room, others refused"
            ),
            Event::Limit(Limit::Descriptors) => warn!(
                refused_total = self.sum(Counter::RejectedDescriptors),
                "no descriptor is left: connections are refused"
            ),
            Event::Limit(Limit::LogLines) => warn!(
                dropped_total = self.sum(Counter::AccessLogDropped),
                "an access log is written more slowly than it grows: lines are dropped"
            ),
            Event::Limit(Limit::Outgoing) => warn!(
                "no descriptor, port or memory is left for a connection to a backend: requests \
                 are refused that find none open"
            ),
        }
    }

    fn say_of_try(&self, tried: &Tried) {
        let (pool, backend) = self.names(tried.pool, tried.backend);
        let request_id = tried.request.text();
        let request_id = str::from_utf8(&request_id).unwrap_or_default();
        let (code, status) = match tried.outcome {
            Outcome::Status(status) => ("ok", status),
            Outcome::Fault(fault) => (fault.cause.row().code, 0),
        };
        debug!(
            request_id,
            pool,
            backend,
            phase = if tried.connected { "answer" } else { "connect" },
            code,
            status,
            ms = tried.took.0 as f64 / 1_000.0,
            asked_again = tried.refusal.is_none(),
            refusal = tried.refusal.map_or("", Refusal::code),
            "a try gave no answer that was taken"
        );
    }

    fn names(&self, pool: PoolId, backend: BackendId) -> (&str, &str) {
        let pool = self.plan.pools.get(pool);
        let backend = pool.and_then(|pool| pool.backends.get(backend));
        (pool.map_or("", |pool| &pool.name), backend.map_or("", |backend| &backend.name))
    }

    fn sum(&self, counter: Counter) -> u64 {
        self.counters.iter().fold(0, |sum, slab| sum.wrapping_add(slab.read(counter)))
    }
}
