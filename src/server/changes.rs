//! Changes of what is in force: reloads, and run-time changes of backends.
//!
//! One thread carries them out in order, so that each change sees the one before it, and the files
//! read last are in force. A drain that is to end in a removal is waited for here, too. The plan
//! itself belongs to the control thread, which makes it of the layers that this thread replaces.

use std::{
    collections::VecDeque,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::{
    StartError,
    backend_writes::{Leaving, WriteOutcome},
    control::{Changed, Client, Denied},
    operational_log::OperationalLog,
    reload::{self, ReloadOutcome, Source},
    service_manager::ServiceManager,
    state_file::StateFile,
};
use crate::admin::{BackendWrite, Reload, WriteDenied};
use crate::observe::{event::Event, reports::Reporter};
use crate::plan::Checked;

/// Changes that may wait for the one in progress. A signal that finds the queue full is dropped:
/// reloads that wait read the files after it, and of those for signals only the last is done.
const WAITING_MAX: usize = 64;

/// How long a caller waits: longer than the control thread may take to answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// How often a backend that is to be removed is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A change, and where its result goes.
enum Change {
    Attach { source: Option<Source>, manager: ServiceManager, log: OperationalLog },
    Reload { how: Reload, by: &'static str, answer: Option<Sender<ReloadOutcome>> },
    Write { write: BackendWrite, by: &'static str, answer: Sender<WriteOutcome> },
    Replace { plan: Box<Checked>, answer: Sender<Result<Changed, StartError>> },
}

impl Change {
    /// Whether it is a reload that nobody waits for.
    fn is_for_a_signal(&self) -> bool {
        matches!(self, Change::Reload { answer: None, .. })
    }
}

/// The thread, for those that want something changed.
#[derive(Clone)]
pub(super) struct Changes {
    to: Sender<Change>,
}

/// The state of the thread.
pub(super) struct Changer {
    pub(super) source: Option<Source>,
    /// Whom reloads are told, in a process of ours.
    pub(super) manager: Option<ServiceManager>,
    /// The log of the process, if it is ours.
    pub(super) log: Option<OperationalLog>,
    pub(super) client: Client,
    pub(super) reporter: Reporter,
    /// What keeps run-time changes over a restart; none where nothing is restarted.
    pub(super) state: Option<StateFile>,
    /// Backends that are removed when they are empty.
    pub(super) leaving: Vec<Leaving>,
}

impl Changes {
    /// Starts the thread.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn start(
        client: Client,
        reporter: Reporter,
        state: Option<StateFile>,
    ) -> Result<Changes, StartError> {
        let (to, changes) = bounded(WAITING_MAX);
        let mut changer = Changer {
            source: None,
            manager: None,
            log: None,
            client,
            reporter,
            state,
            leaving: Vec::new(),
        };
        thread::Builder::new()
            .name("ringway-changes".into())
            .spawn(move || changer.run(&changes))
            .map_err(StartError::system("start the thread that changes what is in force"))?;
        Ok(Changes { to })
    }

    /// From now on reloads read `source` again, if there is one, and the manager is told of them.
    pub(super) fn attach(
        &self,
        source: Option<Source>,
        manager: ServiceManager,
        log: OperationalLog,
    ) {
        let _ = self.to.send(Change::Attach { source, manager, log });
    }

    /// Begins a reload for a signal, without waiting.
    pub(super) fn begin_reload(&self, by: &'static str) {
        let how = Reload::default();
        let _ = self.to.try_send(Change::Reload { how, by, answer: None });
    }

    /// Reloads, and waits for the result.
    pub(super) fn reload(&self, how: Reload, by: &'static str) -> ReloadOutcome {
        let late = || Err(reload::refused(LATE.into()));
        self.ask(|answer| Change::Reload { how, by, answer: Some(answer) }).unwrap_or_else(late)
    }

    /// Changes a backend, and waits for the result.
    pub(super) fn write(&self, write: BackendWrite, by: &'static str) -> WriteOutcome {
        let late = || Err(WriteDenied::Failed(LATE.into()));
        self.ask(|answer| Change::Write { write, by, answer }).unwrap_or_else(late)
    }

    /// Serves by another configuration, and waits for the result.
    pub(super) fn replace(&self, plan: Checked) -> Result<Changed, StartError> {
        let late = || Err(StartError::Hung("the thread that changes what is in force".into()));
        let plan = Box::new(plan);
        self.ask(|answer| Change::Replace { plan, answer }).unwrap_or_else(late)
    }

    fn ask<T>(&self, change: impl FnOnce(Sender<T>) -> Change) -> Option<T> {
        let until = Instant::now() + ANSWERED_WITHIN;
        let (answer, answered) = bounded(1);
        self.to.send_deadline(change(answer), until).ok()?;
        answered.recv_deadline(until).ok()
    }
}

/// Said where another change takes too long.
const LATE: &str = "another change takes too long; nothing is known of this one";

impl Changer {
    fn run(&mut self, changes: &Receiver<Change>) {
        let mut waiting = VecDeque::new();
        loop {
            waiting.extend(changes.try_iter());
            let next = match waiting.pop_front() {
                // One that nobody waits for is not needed where a later one reads the same files.
                Some(next) if next.is_for_a_signal() => {
                    if waiting.iter().any(Change::is_for_a_signal) {
                        continue;
                    }
                    Ok(next)
                }
                Some(next) => Ok(next),
                None if self.leaving.is_empty() => {
                    changes.recv().map_err(|_| RecvTimeoutError::Disconnected)
                }
                None => changes.recv_timeout(LOOK),
            };
            // A caller may have stopped waiting.
            match next {
                Ok(Change::Attach { source, manager, log }) => {
                    (self.source, self.manager, self.log) = (source, Some(manager), Some(log));
                }
                Ok(Change::Reload { how, by, answer }) => {
                    let outcome = self.reload(&how, by);
                    answer.into_iter().for_each(|answer| _ = answer.send(outcome.clone()));
                }
                Ok(Change::Write { write, by, answer }) => _ = answer.send(self.write(&write, by)),
                Ok(Change::Replace { plan, answer }) => _ = answer.send(self.replace(*plan)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.look_after_leaving();
        }
    }

    fn replace(&mut self, plan: Checked) -> Result<Changed, StartError> {
        let how = Reload::default();
        match self.serve_by(plan, &how) {
            Ok(changed) => Ok(changed),
            Err(Denied::Plan(error)) => Err(error),
            Err(Denied::NotKept(why)) => Err(StartError::Plan(why)),
            // No number was given.
            Err(Denied::Moved(generation)) => {
                Err(StartError::Plan(format!("plan {generation} is in force")))
            }
        }
    }

    /// An event.
    pub(super) fn tell(&self, event: Event) {
        self.reporter.event(event);
    }
}
