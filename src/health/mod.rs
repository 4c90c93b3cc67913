//! The thread that decides who is healthy: one for the process, with a runtime of its own.
//!
//! It hears what cores post (`shared::outcomes`), probes backends, and publishes for all cores
//! together who may be asked. What follows from a result is decided in `policy`. It sleeps until
//! something is posted or due: without probes and failures it makes no system calls.

mod probe;
mod prober;
mod run;
#[cfg(test)]
mod tests;
mod verdicts;

use std::sync::Arc;

use crate::net::runtime::{Room, Runtime};
use crate::observe::told::Teller;
use crate::plan::Driver;
use crate::shared::{
    inbox::{Inbox, ToHealth},
    outcomes::Posted,
};
use crate::worker::Next;

/// As many as monoio makes at the least; a turn of probes fits.
const ROOM: Room = Room { entries: 256, completions: 1024 };

/// What the thread is given.
pub(crate) struct Job {
    pub(crate) next: Arc<Next>,
    pub(crate) inbox: Inbox<ToHealth>,
    pub(crate) posted: Posted,
    pub(crate) teller: Teller,
}

impl Job {
    /// Watches over the backends until told to end; says through `ready` when it begins.
    ///
    /// # Errors
    /// A sentence, where there is no runtime or a probe cannot be sent.
    pub(crate) fn run(self, ready: impl FnOnce()) -> Result<(), String> {
        let driver = match self.next.plan.global.driver {
            // What there is, and why, is said by the cores; this thread serves with what it gets.
            Driver::Auto | Driver::IoUring => Driver::Auto,
            Driver::Epoll => Driver::Epoll,
        };
        Runtime::build(driver, ROOM)?.run(run::run(self, ready)).map_err(|error| error.to_string())
    }
}
