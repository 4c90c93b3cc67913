//! What belongs to one core whatever plan is in force, and what all cores of a process share so.

use std::{net::SocketAddr, os::fd::OwnedFd, rc::Rc, sync::Arc};

use crossbeam_channel::Sender;

use super::Next;
use crate::conns::Means;
use crate::observe::{told::Teller, writer::Outlet};
use crate::plan::{ListenerId, Plan, Table};
use crate::shared::{
    bell::Rope, counters::Slab, inbox::Found, outcomes::Outcomes, permits::Permits, rooms::Rooms,
    spares::Spares,
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

/// What a core can be told.
pub(crate) enum ToCore {
    /// These backends have moved. The names thread has at most one such message on its way.
    Addresses(Arc<Vec<Found>>),
    /// This is the next plan.
    Plan(Box<CorePlan>),
    /// Take no new connections and finish those there are.
    Drain,
    /// Close everything and end.
    Stop,
}

/// The next plan, and what one core is given for it.
pub(crate) struct CorePlan {
    pub(crate) next: Arc<Next>,
    /// Its end of each access log that the plan before had not.
    pub(crate) outlets: Table<ListenerId, Outlet>,
    /// Its sockets of addresses that come.
    pub(crate) sockets: Vec<(ListenerId, SocketAddr, OwnedFd)>,
    /// The addresses that go.
    pub(crate) gone: Vec<(ListenerId, SocketAddr)>,
}

/// A core has dropped all that it made of a plan, or something that outlived that.
#[derive(Debug)]
pub(crate) struct Retired {
    pub(crate) core_index: usize,
    /// None where the core said so before.
    pub(crate) generation: Option<u64>,
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
