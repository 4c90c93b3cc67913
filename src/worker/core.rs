//! What belongs to one core whatever plan is in force, and what all cores of a process share so.

use std::{rc::Rc, sync::Arc};

use crossbeam_channel::Sender;

use crate::conns::Means;
use crate::observe::{told::Teller, writer::Outlet};
use crate::plan::{ListenerId, Plan, Table};
use crate::shared::{
    bell::Rope, counters::Slab, outcomes::Outcomes, permits::Permits, rooms::Rooms, spares::Spares,
};

/// What all workers of a process share, whatever plan is in force.
#[derive(Clone)]
pub(crate) struct Process {
    /// How many workers there are.
    pub(crate) cores: usize,
    /// `ringway-` and eight hex digits, drawn once per process.
    pub(crate) pseudonym: Arc<str>,
    /// Whether memory that is free after a peak goes back to the kernel.
    pub(crate) trims_memory: bool,
    /// Client connections of the process; how many there may be is what a plan says.
    pub(crate) connections: Permits,
    /// Where failures and trials are posted.
    pub(crate) outcomes: Outcomes,
    /// What cores tell each other of room, and what wakes each of them.
    pub(crate) rooms: Rooms,
    pub(crate) ropes: Arc<[Rope]>,
    /// What each core could do without.
    pub(crate) spares: Spares,
    /// Where what happens is told.
    pub(crate) teller: Teller,
    /// Where a core says that it holds a plan no more.
    pub(crate) retired: Sender<Retired>,
}

/// A thread has dropped all that it made of a plan.
#[allow(dead_code, reason = "the owner of the plan reads it")]
#[derive(Debug)]
pub(crate) struct Retired {
    /// The core's index; the health thread has none.
    pub(crate) core_index: usize,
    pub(crate) generation: u64,
    /// The plan itself, so that no core has to free it.
    pub(crate) plan: Arc<Plan>,
}

/// What one worker is given for itself.
pub(crate) struct Own {
    pub(crate) core_index: usize,
    pub(crate) counters: Arc<Slab>,
    /// Its end of the access log of each listener that has one.
    pub(crate) outlets: Table<ListenerId, Outlet>,
}

/// What belongs to one core: what its pools and requests need besides.
pub(crate) struct Core {
    pub(crate) index: usize,
    pub(crate) process: Process,
    pub(crate) counters: Arc<Slab>,
    pub(super) means: Rc<Means>,
}
