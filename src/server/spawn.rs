//! One pinned thread and runtime per core.
//!
//! The runtime is built on the thread that uses it (`net/runtime.rs` says which and why); a thread
//! that dies takes the process with it.

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
    run::{self, Sockets},
    stderr,
};
use crate::net::runtime::{DriverInUse, Room, Runtime};
use crate::plan::Driver;
use crate::shared::inbox::{Inbox, ToCore};
use crate::worker::{Next, Own, Process};

/// A turn of a busy core fits.
const ROOM: Room = Room { entries: 4096, completions: 16_384 };

/// How long a thread may take until it serves: it does within milliseconds, and on a machine that
/// is busy with other things within seconds. One that hangs refuses the start.
pub(super) const READY_WITHIN: Duration = Duration::from_secs(15);

/// What a worker says when it is ready to serve, or cannot.
pub(super) type Ready = Result<(DriverInUse, Option<String>), String>;

/// A thread that the process cannot do without, as whoever started it holds it.
pub(super) struct Thread {
    what: String,
    handle: JoinHandle<()>,
    /// Closed when it has ended.
    ended: Receiver<()>,
}

/// What one worker's thread is given.
pub(super) struct Job {
    pub(super) process: Process,
    pub(super) next: Arc<Next>,
    pub(super) own: Own,
    pub(super) core: Option<CoreId>,
    pub(super) driver: Driver,
    pub(super) sockets: Sockets,
    pub(super) inbox: Inbox<ToCore>,
    pub(super) ready: Sender<Ready>,
}

/// Starts a worker's thread.
///
/// # Errors
/// The kernel's, where it gives no thread.
pub(super) fn spawn(job: Job) -> io::Result<Thread> {
    let name = format!("ringway-{}", job.core.map_or(job.own.core_index, |core| core.id));
    let what = format!("core {}", job.own.core_index);
    watched(name, what, || work(job))
}

/// Starts a thread that the process cannot do without.
///
/// # Errors
/// The kernel's, where it gives no thread.
pub(super) fn watched(
    name: String,
    what: String,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<Thread> {
    let (alive, ended) = bounded::<()>(0);
    let said = what.clone();
    let handle = Builder::new().name(name).spawn(move || {
        let _alive = alive;
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            stderr::last_words(&format!(
                "ringway: {said} died by a bug in Ringway; the process ends with it"
            ));
            exit_with_thread();
        }
    })?;
    Ok(Thread { what, handle, ended })
}

impl Thread {
    /// What people call it.
    pub(super) fn what(&self) -> &str {
        &self.what
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        // Nobody ever sends: the channel closes when the thread ends.
        self.ended.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Waits until then for its end; whether it has ended.
    pub(super) fn ends_by(&self, until: Instant) -> bool {
        self.ended.recv_deadline(until) == Err(RecvTimeoutError::Disconnected)
    }

    /// Waits until then for its end, and frees what is left of it.
    ///
    /// # Errors
    /// What people call it, where it has not ended: it is left behind.
    pub(super) fn end(self, until: Instant) -> Result<(), String> {
        if !self.ends_by(until) {
            return Err(self.what);
        }
        // One that panicked has ended the process.
        let _ = self.handle.join();
        Ok(())
    }
}

/// Ends the process with a thread that has died.
#[expect(
    clippy::disallowed_methods,
    reason = "a dead core's clients hang and its listener takes its share, a dead health thread \
              leaves backends up or down for ever: a restart is better"
)]
fn exit_with_thread() -> ! {
    std::process::exit(1)
}

fn work(job: Job) {
    if let Some(core) = job.core {
        core_affinity::set_for_current(core);
    }
    let Job { process, next, own, driver, sockets, inbox, ready, .. } = job;
    match Runtime::build(driver, ROOM) {
        Err(refused) => drop(ready.send(Err(refused))),
        Ok(mut runtime) => {
            let (in_use, why) = (runtime.driver, runtime.why.take());
            runtime.run(run::serve((process, next), own, sockets, inbox, |result| {
                drop(ready.send(result.map(|()| (in_use, why))));
            }));
        }
    }
}
