//! One pinned thread and runtime per core.
//!
//! The ring is built on the thread that uses it. Its flags are what makes it fast: being
//! interrupted by completions costs 0.4 of a request. Where the kernel refuses a flag the next
//! best step serves, and where it refuses io_uring, epoll; which step it is, is said at the start.

use std::{
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    thread::{Builder, JoinHandle},
};

use core_affinity::CoreId;
use crossbeam_channel::Sender;
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

use super::run::{self, Sockets};
use crate::net::io::{set_eager, set_running};
use crate::plan::Driver;
use crate::shared::inbox::Inbox;
use crate::worker::{Common, Own};

/// Entries of the submission queue: a turn of a busy core fits.
const ENTRIES: u32 = 4096;

/// Entries of the completion queue.
const COMPLETIONS: u32 = 16_384;

/// What a worker waits on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverInUse {
    /// io_uring with all flags.
    IoUring,
    /// io_uring of a kernel before 6.1, with `COOP_TASKRUN`; as fast.
    IoUringCoop,
    /// io_uring without flags.
    IoUringPlain,
    /// epoll.
    Epoll,
}

impl fmt::Display for DriverInUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DriverInUse::IoUring => "io_uring",
            DriverInUse::IoUringCoop => "io_uring (cooperative)",
            DriverInUse::IoUringPlain => "io_uring (plain)",
            DriverInUse::Epoll => "epoll",
        })
    }
}

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
    Builder::new().name(name).spawn(move || {
        let index = job.own.core_index;
        if catch_unwind(AssertUnwindSafe(|| work(job))).is_err() {
            eprintln!("ringway: core {index} died by a bug in Ringway; the process ends with it");
            exit_with_core();
        }
    })
}

/// Ends the process with a core that has died.
#[expect(
    clippy::disallowed_methods,
    reason = "a dead core's clients hang and its listener takes its share: a restart is better"
)]
fn exit_with_core() -> ! {
    std::process::exit(1)
}

fn work(job: Job) {
    if let Some(core) = job.core {
        core_affinity::set_for_current(core);
    }
    let Job { common, own, driver, sockets, inbox, ready, alive, .. } = job;
    match build(driver) {
        Err(refused) => drop(ready.send(Err(refused))),
        Ok((runtime, in_use, why)) => {
            let serving = async move {
                set_running(true);
                set_eager(in_use == DriverInUse::Epoll);
                run::serve(common, own, sockets, inbox, |result| {
                    drop(ready.send(result.map(|()| (in_use, why))));
                })
                .await;
                set_running(false);
            };
            match runtime {
                Built::Ring(mut runtime) => runtime.block_on(serving),
                Built::Epoll(mut runtime) => runtime.block_on(serving),
            }
        }
    }
    drop(alive);
}

enum Built {
    Ring(monoio::Runtime<monoio::time::TimeDriver<IoUringDriver>>),
    Epoll(monoio::Runtime<monoio::time::TimeDriver<LegacyDriver>>),
}

/// Builds the best runtime that the kernel allows; and why it is not the best there is.
fn build(driver: Driver) -> Result<(Built, DriverInUse, Option<String>), String> {
    if driver == Driver::Epoll {
        return Ok((epoll()?, DriverInUse::Epoll, None));
    }
    let steps = [DriverInUse::IoUring, DriverInUse::IoUringCoop, DriverInUse::IoUringPlain];
    let mut refused = io::Error::from(io::ErrorKind::Unsupported);
    for step in steps {
        match ring(step) {
            Ok(runtime) => return Ok((Built::Ring(runtime), step, None)),
            Err(error) => refused = error,
        }
    }
    let why = explain(&refused);
    match driver {
        Driver::IoUring => Err(why),
        Driver::Auto | Driver::Epoll => {
            Ok((epoll()?, DriverInUse::Epoll, Some(format!("{why}: using epoll"))))
        }
    }
}

fn ring(step: DriverInUse) -> io::Result<monoio::Runtime<monoio::time::TimeDriver<IoUringDriver>>> {
    let mut ring = io_uring::IoUring::builder();
    ring.setup_cqsize(COMPLETIONS);
    match step {
        DriverInUse::IoUring => {
            ring.setup_single_issuer().setup_defer_taskrun();
        }
        DriverInUse::IoUringCoop => {
            ring.setup_coop_taskrun();
        }
        DriverInUse::IoUringPlain | DriverInUse::Epoll => {}
    }
    RuntimeBuilder::<IoUringDriver>::new()
        .uring_builder(ring)
        .with_entries(ENTRIES)
        .enable_timer()
        .build()
}

fn epoll() -> Result<Built, String> {
    RuntimeBuilder::<LegacyDriver>::new()
        .enable_timer()
        .build()
        .map(Built::Epoll)
        .map_err(|error| format!("no epoll either: {error}"))
}

/// Why there is no ring, and what to do about it.
fn explain(error: &io::Error) -> String {
    let hint = match error.raw_os_error() {
        Some(libc::EPERM) => {
            " (kernel.io_uring_disabled, or a container's seccomp profile, such as Docker's \
             default)"
        }
        Some(libc::ENOSYS) => " (this kernel has none, or a seccomp profile hides it)",
        Some(libc::ENOMEM) => " (the limit of locked memory is too low: ulimit -l)",
        _ => "",
    };
    format!("io_uring is not permitted here: {error}{hint}")
}
