//! The health thread, which decides which backends are usable: one for the process, with a runtime
//! of its own.
//!
//! It receives what cores post (`shared::outcomes`), probes backends, and publishes for all cores
//! together which may be asked. `policy` decides what follows from a result. It sleeps until
//! something is posted or due: without requests, probes and failures it makes no system calls.

mod probe;
mod prober;
mod run;
#[cfg(test)]
mod tests;
mod verdicts;
mod watch;

use std::{sync::Arc, time::Duration};

use crossbeam_channel::Sender;

use crate::base::moment::Micros;
use crate::net::{
    runtime::{Room, Runtime},
    tls::Ends,
};
use crate::observe::reports::Reporter;
use crate::plan::{BackendId, Driver, PoolId};
use crate::policy::{
    health::ProbeFault,
    standing::{Carried, Seen},
};
use crate::shared::{bell::Rope, counters::Slab, inbox::Inbox, outcomes::Posted, rooms::Rooms};
use crate::worker::Next;

/// The least that monoio makes; a turn of probes fits.
const ROOM: Room = Room { entries: 256, completions: 1024 };

/// A message to the thread.
pub(crate) enum ToHealth {
    /// The next plan: its usable backends are published at once, and the answer says whether it was
    /// taken. What was removed stays known until it is forgotten.
    Plan(Arc<Next>, Sender<Result<(), String>>),
    /// Answer what is known of each backend, for the process that takes over.
    Carry(Sender<Vec<CarriedBackend>>),
    /// Answer what is known of each backend, for people.
    Show(Sender<Vec<SeenBackend>>),
    /// What TLS needs from now on: a certificate was replaced.
    Tls(Arc<Ends>),
    /// No thread holds a plan any more that names these: a pool, or one of its backends.
    Forget(Vec<(PoolId, Option<BackendId>)>),
    /// End.
    Stop,
}

/// What is known of a backend, as it is handed to the next process.
pub(crate) type CarriedBackend = (PoolId, BackendId, Carried);

/// What is known of a backend, as people are shown it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeenBackend {
    pub(crate) pool: PoolId,
    pub(crate) backend: BackendId,
    pub(crate) seen: Seen,
    /// Its last probe.
    pub(crate) probe: Option<Probed>,
}

/// A probe that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probed {
    /// How long ago.
    pub(crate) ago: Duration,
    pub(crate) result: Result<(), ProbeFault>,
    pub(crate) took: Micros,
}

/// The inputs of the thread.
pub(crate) struct HealthJob {
    pub(crate) next: Arc<Next>,
    pub(crate) inbox: Inbox<ToHealth>,
    pub(crate) posted: Posted,
    pub(crate) reporter: Reporter,
    /// What this thread counts.
    pub(crate) counters: Arc<Slab>,
    /// Notices to the cores, and their bells.
    pub(crate) rooms: Rooms,
    pub(crate) ropes: Arc<[Rope]>,
    /// What an earlier process knew of the backends.
    pub(crate) carried: Vec<CarriedBackend>,
}

impl HealthJob {
    /// Watches over the backends until told to end; calls `ready` when it begins.
    ///
    /// # Errors
    /// A sentence, if there is no runtime or a probe cannot be sent.
    pub(crate) fn run(self, ready: impl FnOnce()) -> Result<(), String> {
        let driver = match self.next.plan.global.driver {
            // The cores report which driver there is, and why; this thread serves with what it
            // gets.
            Driver::Auto | Driver::IoUring => Driver::Auto,
            Driver::Epoll => Driver::Epoll,
        };
        Runtime::build(driver, ROOM)?.run(run::run(self, ready)).map_err(|error| error.to_string())
    }
}
