//! The event threads: the hub, and the operational log, which reads it.
//!
//! The hub's thread takes what all others report, adds names and hands it to the readers' queues.
//! The log has a thread of its own, because a log may wait for its disk and the hub must not.

mod log;

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::base::moment::{Tick, millis};
use crate::observe::{
    events::{self, Events},
    hub::Hub,
    reports::{Reporter, ToHub},
};
use crate::plan::{LogLevel, Plan};
use crate::shared::counters::{Counter, Slab};

/// How long the end waits for the last lines.
const END_MAX: Duration = Duration::from_secs(1);

/// How long a new reader waits for the hub, which waits for nothing.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

/// The event threads, as the handle holds them.
pub(super) struct Telling {
    reporter: Reporter,
    /// Dropped when the log may begin.
    gate: Option<Sender<()>>,
    /// Closed when the log has ended.
    ended: Receiver<()>,
}

impl Telling {
    /// Starts the threads; nothing is logged before `begin`. `own` is the slab of the hub.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub(super) fn start(
        (reporter, told): (Reporter, Receiver<ToHub>),
        plan: Arc<Plan>,
        counters: Vec<Arc<Slab>>,
        own: Arc<Slab>,
    ) -> io::Result<Telling> {
        let (log, mut events) = events::queue(LogLevel::Trace);
        let mut hub = Hub::new(plan, counters);
        hub.subscribe(log);
        let dropped = reporter.clone();
        thread::Builder::new().name("ringway-events".into()).spawn(move || {
            // A bug loses the event that shows it, and is reported by the panic itself; no serving
            // thread ends with it.
            let began = Instant::now();
            while catch_unwind(AssertUnwindSafe(|| run(&told, &mut hub, began))).is_err() {
                own.add(Counter::Panics, 1);
            }
        })?;
        let (ending, ended) = bounded(0);
        let (gate, begun) = bounded::<()>(0);
        thread::Builder::new().name("ringway-log".into()).spawn(move || {
            // Nothing is ever sent: it closes when the log may begin.
            let _ = begun.recv();
            // As above; a panic is not counted here, but the hook reports it.
            while catch_unwind(AssertUnwindSafe(|| log::run(&mut events, &dropped))).is_err() {}
            drop(ending);
        })?;
        Ok(Telling { reporter, gate: Some(gate), ended })
    }

    /// The sender with which threads report events.
    pub(super) fn reporter(&self) -> &Reporter {
        &self.reporter
    }

    /// Begins to log, starting with the events so far.
    pub(super) fn begin(&mut self) {
        self.gate = None;
    }

    /// A queue of events of this level and more important ones, with the last ones in it.
    pub(super) fn events(&self, level: LogLevel) -> Events {
        let (subscriber, events) = events::queue(level);
        let until = Instant::now() + HEARD_WITHIN;
        let (done, given) = bounded::<()>(0);
        let subscribe = ToHub::Subscribe(subscriber, done);
        // If the hub has ended the queue ends at once.
        if self.reporter.to_hub().send_deadline(subscribe, until).is_ok() {
            let _ = given.recv_deadline(until);
        }
        events
    }

    /// Waits for the last lines; the reporting threads have ended.
    pub(super) fn end(&mut self) {
        self.begin();
        let until = Instant::now() + END_MAX;
        // If it has ended already, both return at once.
        let _ = self.reporter.to_hub().send_deadline(ToHub::End, until);
        let _ = self.ended.recv_deadline(until);
    }
}

/// The hub's thread. It ends when it is told to, and the queues of its readers with it.
fn run(told: &Receiver<ToHub>, hub: &mut Hub, began: Instant) {
    loop {
        let next = match hub.waits() {
            None => told.recv().map_err(RecvTimeoutError::from),
            Some(time) => told.recv_timeout(time),
        };
        let now = Tick::from_millis(millis(began.elapsed()));
        match next {
            Ok(ToHub::Report(what)) => hub.take(what, now, SystemTime::now()),
            Ok(ToHub::Plan(plan)) => hub.replan(plan),
            Ok(ToHub::Subscribe(reader, done)) => {
                hub.subscribe(reader);
                drop(done);
            }
            Ok(ToHub::End) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        hub.due(now, SystemTime::now());
    }
}
