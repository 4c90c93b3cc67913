//! One pinned thread and runtime per core.
//!
//! The runtime is built on the thread that uses it (`net/runtime.rs` says which and why); a thread
//! that dies takes the process with it, if the process is ours.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use core_affinity::CoreId;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};

use super::{
    StartError,
    run::{self, Sockets},
    stderr,
};
use crate::net::runtime::{DriverInUse, Room, Runtime};
use crate::observe::{event::Event, reports::Reporter};
use crate::plan::Driver;
use crate::shared::inbox::Inbox;
use crate::worker::{Next, Process, ToCore, WorkerSeed};

/// A turn of a busy core fits.
const ROOM: Room = Room { entries: 4096, completions: 16_384 };

/// How long a thread may take until it serves: normally milliseconds, on a busy machine seconds.
/// One that hangs refuses the start.
pub(super) const READY_WITHIN: Duration = Duration::from_secs(15);

/// A worker's report that it is ready to serve, or cannot.
pub(super) type Ready = Result<(DriverInUse, Option<String>), StartError>;

/// A thread that the balancer cannot do without, as its owner holds it.
pub(super) struct Thread {
    what: String,
    handle: JoinHandle<()>,
    /// Closed when it has ended.
    ended: Receiver<()>,
}

/// The inputs of one worker's thread.
pub(super) struct CoreJob {
    pub(super) process: Process,
    pub(super) next: Arc<Next>,
    pub(super) own: WorkerSeed,
    pub(super) core: Option<CoreId>,
    pub(super) driver: Driver,
    pub(super) sockets: Sockets,
    pub(super) inbox: Inbox<ToCore>,
    pub(super) ready: Sender<Ready>,
    /// Held while it runs, if anybody waits for that.
    pub(super) alive: Option<Sender<()>>,
}

/// Starts a worker's thread.
///
/// # Errors
/// The kernel's, if it gives no thread.
pub(super) fn spawn(job: CoreJob, death: &Death) -> io::Result<Thread> {
    let name = format!("ringway-{}", job.core.map_or(job.own.core_index, |core| core.id));
    let what = format!("core {}", job.own.core_index);
    watched(name, what, death, || work(job))
}

/// What to do when a thread dies that the balancer cannot do without.
#[derive(Clone)]
pub(super) enum Death {
    /// The process ends with it.
    Exit,
    /// It is reported, and the other threads go on.
    Tell(Reporter),
}

impl Death {
    pub(super) fn new(exits: bool, reporter: &Reporter) -> Death {
        if exits { Death::Exit } else { Death::Tell(reporter.clone()) }
    }

    fn of(&self, thread: &str) {
        match self {
            Death::Exit => {
                stderr::last_words(&format!(
                    "ringway: {thread} died of a bug in Ringway; the process ends with it"
                ));
                exit_with_thread();
            }
            Death::Tell(reporter) => reporter.event(Event::ThreadDied { thread: thread.into() }),
        }
    }
}

/// Starts a thread that the balancer cannot do without.
///
/// # Errors
/// The kernel's, if it gives no thread.
pub(super) fn watched(
    name: String,
    what: String,
    death: &Death,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<Thread> {
    let (alive, ended) = bounded::<()>(0);
    let (said, death) = (what.clone(), death.clone());
    let handle = Builder::new().name(name).spawn(move || {
        let _alive = alive;
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            death.of(&said);
        }
    })?;
    Ok(Thread { what, handle, ended })
}

impl Thread {
    /// Its name for people.
    pub(super) fn what(&self) -> &str {
        &self.what
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        // Nothing is ever sent: the channel closes when the thread ends.
        self.ended.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Waits until then for its end; returns whether it has ended.
    pub(super) fn ends_by(&self, until: Instant) -> bool {
        self.ended.recv_deadline(until) == Err(RecvTimeoutError::Disconnected)
    }

    /// Waits until then for its end, and frees what is left of it.
    ///
    /// # Errors
    /// Its name for people, if it has not ended: it is left behind.
    pub(super) fn end(self, until: Instant) -> Result<(), String> {
        if !self.ends_by(until) {
            return Err(self.what);
        }
        // If it has panicked, that was reported.
        let _ = self.handle.join();
        Ok(())
    }
}

/// Ends the process with a thread that has died.
#[expect(
    clippy::disallowed_methods,
    reason = "a dead core serves no client, a dead health thread leaves backends up or down for \
              ever: a restart is better"
)]
fn exit_with_thread() -> ! {
    std::process::exit(1)
}

fn work(job: CoreJob) {
    if let Some(core) = job.core {
        core_affinity::set_for_current(core);
    }
    let CoreJob { process, next, own, driver, sockets, inbox, ready, alive: _alive, .. } = job;
    own.counters.runs_on(rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned());
    match Runtime::build(driver, ROOM) {
        Err(refused) => drop(ready.send(Err(StartError::Driver(refused)))),
        Ok(mut runtime) => {
            let (in_use, why) = (runtime.driver, runtime.why.take());
            let refused = StartError::system(format!("start core {}", own.core_index));
            runtime.run(run::serve((process, next), own, sockets, inbox, |result| {
                drop(ready.send(result.map(|()| (in_use, why)).map_err(refused)));
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::reports::{self, Report, ToHub};

    #[test]
    fn a_thread_that_dies_in_a_foreign_process_is_told() {
        let (reporter, told) = reports::channel();
        let death = Death::new(false, &reporter);
        let work = || panic!("a bug on purpose");
        let thread = watched("a-test".into(), "core 7".into(), &death, work).unwrap();
        assert!(thread.ends_by(Instant::now() + Duration::from_secs(20)));
        let died = Event::ThreadDied { thread: "core 7".into() };
        let heard: Vec<Report> = told.try_iter().filter_map(ToHub::told).collect();
        assert_eq!(heard, [Report::Event(Box::new(died))]);
    }
}
