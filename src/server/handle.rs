//! The handle of a running balancer: reads its state, and stops it.
//!
//! Half of the public API. It reads counters and posts messages, and has no part in serving; when
//! it is dropped, nothing is left running.

use std::{
    error::Error,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::{
    StartError,
    changes::Changes,
    control::{Client, Control},
    crew::Crew,
    health_thread::HealthThread,
    run::Sockets,
    tell::Telling,
    upgrade::Ask,
};
use crate::admin::{BackendWrite, BackendWritten};
use crate::base::endpoint::Endpoint;
use crate::net::runtime::DriverInUse;
use crate::observe::{event::Event, events::Events, reports::Reporter, statistics::Statistics};
use crate::plan::{Backend, Checked, Duty, LogLevel, Settings};
use crate::policy::overlay::Order;
use crate::shared::counters::{Counter, Slab};

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// Accept no new connections, finish what runs, and end; at the latest after the plan's
    /// `shutdown.drain`.
    Graceful,
    /// Close everything.
    Now,
}

/// Why nothing was changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum ChangeError {
    /// The order makes no plan: a name that there is not, or is already.
    Order(String),
    /// The plan cannot be put in force.
    Plan(StartError),
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChangeError::Order(why) => f.write_str(why),
            ChangeError::Plan(error) => error.fmt(f),
        }
    }
}

impl Error for ChangeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            ChangeError::Order(_) => None,
            ChangeError::Plan(error) => Some(error),
        }
    }
}

/// The result of a stop.
pub(super) struct Ended {
    /// Everything had finished by itself.
    pub(super) finished: bool,
    /// Threads that did not end.
    pub(super) hung: Vec<String>,
}

/// A running balancer. Dropping it stops everything at once.
pub struct Handle {
    pub(super) addresses: Vec<(String, Endpoint)>,
    pub(super) drain: Duration,
    pub(super) driver: DriverInUse,
    pub(super) cores: String,
    /// At the start.
    pub(super) backends_without_address: usize,
    pub(super) counters: Vec<Arc<Slab>>,
    pub(super) crew: Crew,
    /// Closes when the cores that were started later have ended, of a process that drains.
    pub(super) later_ended: Receiver<()>,
    /// The sockets of each core, if it does not accept connections yet.
    pub(super) held_back: Vec<Sockets>,
    pub(super) control: Control,
    pub(super) changes: Changes,
    pub(super) watch: HealthThread,
    pub(super) telling: Telling,
}

impl Handle {
    /// Where it listens, by the names of the listeners: with the port that was taken if the plan
    /// says 0.
    #[must_use]
    pub fn addresses(&self) -> &[(String, Endpoint)] {
        &self.addresses
    }

    /// What the cores wait on.
    #[must_use]
    pub fn driver(&self) -> DriverInUse {
        self.driver
    }

    /// The cores that served at the start, in the form of the configuration.
    #[must_use]
    pub fn cores(&self) -> &str {
        &self.cores
    }

    /// How many cores serve.
    #[must_use]
    pub fn core_count(&self) -> usize {
        self.control.client().cores().unwrap_or_else(|| self.crew.len())
    }

    /// The events, as a queue of its own for each call: the last ones, such as those of the start,
    /// and all that follow, except those that only help to find a fault.
    #[must_use]
    pub fn events(&self) -> Events {
        self.telling.events(LogLevel::Info)
    }

    /// The same with single requests among them.
    pub(super) fn all_events(&self) -> Events {
        self.telling.events(LogLevel::Debug)
    }

    /// Begins to log events: the caller prints the first lines.
    pub(super) fn begin_to_tell(&mut self) {
        self.telling.begin();
    }

    /// How many backends had no address when it started.
    pub(super) fn backends_without_address(&self) -> usize {
        self.backends_without_address
    }

    /// What has been counted since the start, and what goes on now; none if the thread that knows
    /// hangs by a bug.
    #[must_use]
    pub fn statistics(&self) -> Option<Statistics> {
        self.control.client().statistics()
    }

    /// A metric, summed over the threads: also when they have ended.
    pub(super) fn total(&self, counter: Counter) -> u64 {
        self.counters.iter().fold(0, |sum, slab| sum.wrapping_add(slab.read(counter)))
    }

    /// Reopens the access logs, for log rotation, without waiting; false if there is none, or the
    /// disk is too far behind.
    pub fn reopen_logs(&self) -> bool {
        self.control.client().reopen_logs()
    }

    /// Serves by this plan from now on; returns what that changes, and the addresses that are
    /// bound. For the tests of this crate; `reload` is for everybody else.
    ///
    /// # Errors
    /// Why it does not; then nothing has changed.
    #[doc(hidden)]
    pub fn change(&self, plan: Checked) -> Result<(String, Vec<(String, Endpoint)>), StartError> {
        let changed = self.changes.replace(plan)?;
        Ok((changed.changes.to_string(), changed.addresses))
    }

    /// Serves by another configuration from now on, with the run-time changes that still fit it;
    /// returns what that changes, a line for each.
    ///
    /// # Errors
    /// Why it does not; then nothing has changed.
    pub fn reload(&self, plan: Checked) -> Result<String, ChangeError> {
        let changed = self.changes.replace(plan).map_err(ChangeError::Plan)?;
        Ok(changed.changes.to_string())
    }

    /// Adds a backend to a pool: its name, its address and its weight. Every core knows it when
    /// this returns; if the pool is probed it is sent traffic after its first good probe.
    ///
    /// # Errors
    /// Why it was not added.
    pub fn add_backend(&self, pool: &str, backend: &Backend) -> Result<(), ChangeError> {
        let Backend { name, address, weight, .. } = backend;
        let (backend, address) = (name.clone(), address.clone());
        let order = Order::Add { pool: pool.into(), backend, address, weight: *weight };
        self.order(order, None).map(|_| ())
    }

    /// Removes a backend. With a time it drains first, and is removed when it has nothing in
    /// flight, at the latest after that time. What is in flight then ends by itself.
    ///
    /// # Errors
    /// Why it was not removed.
    pub fn remove_backend(
        &self,
        pool: &str,
        backend: &str,
        drain: Option<Duration>,
    ) -> Result<(), ChangeError> {
        let order = Order::Remove { pool: pool.into(), backend: backend.into() };
        self.order(order, drain).map(|_| ())
    }

    /// Sets the weight of a backend, 0 to 256.
    ///
    /// # Errors
    /// Why it was not set.
    pub fn set_weight(&self, pool: &str, backend: &str, weight: u16) -> Result<(), ChangeError> {
        self.set(pool, backend, Settings { weight: Some(weight), duty: None })
    }

    /// Sets what a backend is for.
    ///
    /// # Errors
    /// Why it was not set.
    pub fn set_duty(&self, pool: &str, backend: &str, duty: Duty) -> Result<(), ChangeError> {
        self.set(pool, backend, Settings { weight: None, duty: Some(duty) })
    }

    /// Gives a backend no new traffic, except from clients that stay with it.
    ///
    /// # Errors
    /// Why it does not drain.
    pub fn drain_backend(&self, pool: &str, backend: &str) -> Result<(), ChangeError> {
        self.set_duty(pool, backend, Duty::Draining)
    }

    fn set(&self, pool: &str, backend: &str, settings: Settings) -> Result<(), ChangeError> {
        let order = Order::Set { pool: pool.into(), backend: backend.into(), settings };
        self.order(order, None).map(|_| ())
    }

    fn order(&self, order: Order, drain: Option<Duration>) -> Result<BackendWritten, ChangeError> {
        let write = BackendWrite { order, drain, only_if: None, from: String::new() };
        let written = self.changes.write(write, "library");
        written.map_err(|denied| ChangeError::Order(denied.to_string()))
    }

    /// How many plans some thread still holds, including the one in force. Like `change`.
    #[doc(hidden)]
    #[must_use]
    pub fn plans_held(&self) -> usize {
        self.control.client().held()
    }

    /// Where events are reported.
    pub(super) fn reporter(&self) -> &Reporter {
        self.telling.reporter()
    }

    /// A client of the control thread.
    pub(super) fn client(&self) -> Client {
        self.control.client().clone()
    }

    /// What changes the plan in force.
    pub(super) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Accepts connections from now on, if that was held back at the start.
    pub(super) fn accept(&mut self) {
        self.crew.accept(std::mem::take(&mut self.held_back));
    }

    /// Begins to drain and returns at once; `stop` or `wait` end it.
    pub fn drain(&self) {
        let connections = self.total(Counter::Connections);
        self.telling.reporter().event(Event::Draining { connections });
        self.control.client().upgrade(Ask::Release);
        self.crew.drain();
    }

    /// Waits until every core has ended, but no longer than `time`; returns whether they have.
    #[must_use]
    pub fn wait(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let ended = Err(RecvTimeoutError::Disconnected);
        self.crew.wait(until) && self.later_ended.recv_deadline(until) == ended
    }

    /// Stops and waits for all threads; true if everything had finished by itself. A thread that
    /// hangs through a bug gets ten seconds, is named in the log (`tracing`) and left behind.
    pub fn stop(mut self, stop: Stop) -> bool {
        let Ended { finished, hung } = self.end_as(stop);
        finished && hung.is_empty()
    }

    /// Like `stop`, if the counts are still needed afterwards.
    pub(super) fn end_as(&mut self, stop: Stop) -> Ended {
        let finished = match stop {
            Stop::Now => false,
            Stop::Graceful => {
                self.drain();
                let shutdown = self.control.client().shutdown();
                self.wait(shutdown.map_or(self.drain, |shutdown| shutdown.drain))
            }
        };
        Ended { finished, hung: self.end(finished) }
    }

    /// Ends all threads; returns the names of those that do not end. `finished` says whether the
    /// cores had ended by themselves.
    fn end(&mut self, finished: bool) -> Vec<String> {
        let (ended, hangs) = self.control.end();
        let (access_logs, later) = ended.unzip();
        self.crew.join(later.unwrap_or_default());
        let mut hung = self.crew.stop();
        hung.extend(hangs);
        hung.extend(self.watch.end(self.telling.reporter()));
        for what in &hung {
            self.telling.reporter().event(Event::ThreadHung { thread: what.as_str().into() });
        }
        if let Some(mut access_logs) = access_logs {
            access_logs.end();
        }
        self.telling.reporter().event(Event::Stopped {
            finished,
            connections: self.total(Counter::Accepted),
            requests: self.total(Counter::Requests),
            dropped: self.total(Counter::AccessLogDropped),
        });
        self.telling.end();
        hung
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // What `stop` has ended already hears nothing any more.
        self.end(false);
    }
}
