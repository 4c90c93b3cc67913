//! One pinned thread and runtime per core.
//!
//! The runtime is built on the thread that uses it (`net/runtime.rs` says which and why); a thread
//! that dies takes the process with it.

use std::{
    io::{self, Write as _, stderr},
    panic::{AssertUnwindSafe, catch_unwind},
    thread::{Builder, JoinHandle},
};

use core_affinity::CoreId;
use crossbeam_channel::Sender;

use super::run::{self, Sockets};
use crate::net::runtime::{DriverInUse, Room, Runtime};
use crate::plan::Driver;
use crate::shared::inbox::Inbox;
use crate::worker::{Common, Own};

/// A turn of a busy core fits.
const ROOM: Room = Room { entries: 4096, completions: 16_384 };

/// What a worker says when it is ready to serve, or cannot.
pub(super) type Ready = Result<(DriverInUse, Option<String>), String>;

/// What one worker's thread is given.
pub(super) struct Job {
    pub(super) common: Common,
    pub(super) own: Own,
    pub(super) core: Option<CoreId>,
    pub(super) driver: Driver,
    pub(super) sockets: Sockets,
    pub(super) inbox: Inbox,
    pub(super) ready: Sender<Ready>,
    /// Dropped when the worker has ended.
    pub(super) alive: Sender<()>,
}

/// Starts a worker's thread.
///
/// # Errors
/// The kernel's, where it gives no thread.
pub(super) fn spawn(job: Job) -> io::Result<JoinHandle<()>> {
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
) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name).spawn(move || {
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            let _ = writeln!(
                stderr(),
                "ringway: {what} died by a bug in Ringway; the process ends with it"
            );
            exit_with_thread();
        }
    })
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
    let Job { common, own, driver, sockets, inbox, ready, alive, .. } = job;
    match Runtime::build(driver, ROOM) {
        Err(refused) => drop(ready.send(Err(refused))),
        Ok(mut runtime) => {
            let (in_use, why) = (runtime.driver, runtime.why.take());
            runtime.run(run::serve(common, own, sockets, inbox, |result| {
                drop(ready.send(result.map(|()| (in_use, why))));
            }));
        }
    }
    drop(alive);
}
