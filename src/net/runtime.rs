//! Runtime builder: a ring with the flags that make it fast, or epoll.
//!
//! Being interrupted by completions costs 0.4 of a request. If the kernel refuses a flag the next
//! best step serves, and if it refuses io_uring, epoll; the step is logged at the start. A ring
//! belongs to the thread that builds it: no other may submit to it. The builder's caller decides
//! what runs on it.

use std::{fmt, future::Future, io};

use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

use super::{
    io::{end_residents, set_running},
    turns,
};
use crate::plan::Driver;

/// The size of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Entries of the submission queue; monoio makes 256 of fewer.
    pub(crate) entries: u32,
    /// Entries of the completion queue.
    pub(crate) completions: u32,
}

/// What a serving thread waits on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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

/// A runtime of this thread.
pub(crate) struct Runtime {
    built: Built,
    /// What it waits on.
    pub(crate) driver: DriverInUse,
    /// Why it is not the best there is, if it is not.
    pub(crate) why: Option<String>,
}

enum Built {
    Ring(monoio::Runtime<monoio::time::TimeDriver<IoUringDriver>>),
    Epoll(monoio::Runtime<monoio::time::TimeDriver<LegacyDriver>>),
}

impl Runtime {
    /// Builds the best runtime that the kernel allows.
    ///
    /// # Errors
    /// A sentence, if the plan requires io_uring and there is none, or there is not even epoll.
    pub(crate) fn build(driver: Driver, room: Room) -> Result<Runtime, String> {
        if driver == Driver::Epoll {
            return epoll(None);
        }
        let steps = [DriverInUse::IoUring, DriverInUse::IoUringCoop, DriverInUse::IoUringPlain];
        let mut refused = io::Error::from(io::ErrorKind::Unsupported);
        for step in steps {
            match ring(step, room) {
                Ok(ring) => {
                    return Ok(Runtime { built: Built::Ring(ring), driver: step, why: None });
                }
                Err(error) => refused = error,
            }
        }
        let why = explain(&refused);
        match driver {
            Driver::IoUring => Err(why),
            Driver::Auto | Driver::Epoll => epoll(Some(format!("{why}: using epoll"))),
        }
    }

    /// Runs a future to its end, along with the tasks that it spawns.
    pub(crate) fn run<T>(self, future: impl Future<Output = T>) -> T {
        let eager = self.driver == DriverInUse::Epoll;
        let running = async {
            set_running(true);
            // At the start there are descriptors: `server/descriptors.rs` has made sure.
            let _ = turns::begin(eager);
            let output = future.await;
            end_residents().await;
            turns::end();
            set_running(false);
            output
        };
        match self.built {
            Built::Ring(mut ring) => ring.block_on(running),
            Built::Epoll(mut epoll) => epoll.block_on(running),
        }
    }
}

fn ring(
    step: DriverInUse,
    room: Room,
) -> io::Result<monoio::Runtime<monoio::time::TimeDriver<IoUringDriver>>> {
    let mut ring = io_uring::IoUring::builder();
    ring.setup_cqsize(room.completions);
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
        .with_entries(room.entries)
        .enable_timer()
        .build()
}

fn epoll(why: Option<String>) -> Result<Runtime, String> {
    let built = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build();
    let built = built.map_err(|error| format!("no epoll either: {error}"))?;
    Ok(Runtime { built: Built::Epoll(built), driver: DriverInUse::Epoll, why })
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
