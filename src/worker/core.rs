//! The state of a core that does not depend on the plan, and what all cores of a process share of
//! this kind. Also what cores are told and asked, and what they answer: messages carry values, and
//! no state of another core.

use std::{
    cell::Cell,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    rc::Rc,
    sync::Arc,
};

use crossbeam_channel::Sender;

use super::{Explained, Next};
use crate::base::endpoint::Endpoint;
use crate::conns::Means;
use crate::http::fault::Fault;
use crate::net::tls::Ends;
use crate::observe::{reports::Reporter, writer::Outlet};
use crate::plan::{BackendId, ListenerId, Plan, PoolId, RouteId, Table};
use crate::policy::route::Router;
use crate::shared::{
    bell::Rope,
    certs::Challenges,
    counters::Slab,
    levels::Levels,
    outcomes::Outcomes,
    passages::Passages,
    permits::{Permit, Permits},
    rooms::Rooms,
    spares::Spares,
};

/// What all workers of a process share, whatever plan is in force.
#[derive(Clone)]
pub(crate) struct Process {
    /// How many rows there are in what workers share: for as many workers as there may be, and for
    /// the process before this one, if one has handed over.
    pub(crate) cores: usize,
    /// `ringway-` and eight hex digits, drawn once per process.
    pub(crate) pseudonym: Arc<str>,
    /// Whether memory that is free after a peak is returned to the kernel.
    pub(crate) trims_memory: bool,
    /// Client connections of the process; a plan says how many there may be.
    pub(crate) connections: Permits,
    /// Where failures and trials are posted.
    pub(crate) outcomes: Outcomes,
    /// Room notices between cores, and the bells that wake them.
    pub(crate) rooms: Rooms,
    pub(crate) ropes: Arc<[Rope]>,
    /// The idle connections of each core.
    pub(crate) spares: Spares,
    /// How busy each core is, and the passages into them.
    pub(crate) levels: Levels,
    pub(crate) passages: Passages<Moved>,
    /// Where events are reported.
    pub(crate) reporter: Reporter,
    /// Where a core reports that it has released a plan.
    pub(crate) retired: Sender<Retired>,
}

/// Messages to a core.
pub(crate) enum ToCore {
    /// What authorities look for that check names.
    #[allow(dead_code, reason = "ACME sends it")]
    Challenges(Option<Arc<Challenges>>),
    /// The next plan.
    Plan(Box<CorePlan>),
    /// What TLS needs from now on: a certificate was replaced.
    Tls(Arc<Ends>),
    /// Answer, to show that the core is alive.
    Ping(Sender<()>),
    /// Answer what would become of a request.
    Explain(Box<Question>, Sender<Box<Answered>>),
    /// Accept connections at these sockets from now on, whatever was said before.
    Accept(Vec<Socket>),
    /// Accept no more connections, except those that wait at addresses that are gone, give the
    /// resting ones away, and finish the others; but do not end.
    GiveAway { heir: Heir, gone: Vec<Endpoint> },
    /// Accept connections at these sockets alone, of which other cores may have had some.
    Serve(Vec<Socket>),
    /// Accept no more connections, and give those away that come to rest, but go on with the others
    /// as ever.
    Rest(Heir),
    /// Go on with connections that another process or core has given away.
    Adopt(Vec<RestingClient>),
    /// Take no new connections and finish those there are.
    Drain,
    /// Close everything and end.
    Stop,
}

/// A request that is only asked about.
pub(crate) struct Question {
    pub(crate) listener: ListenerId,
    /// The address that its connection would come from.
    pub(crate) from: SocketAddr,
    /// The port that it would come to.
    pub(crate) port: u16,
    /// Whether by TLS.
    pub(crate) secure: bool,
    /// Its head, as HTTP/1.1 has it.
    pub(crate) head: Vec<u8>,
}

/// What would become of it on a core.
pub(crate) struct Answered {
    /// The plan in force there.
    pub(crate) plan: Arc<Plan>,
    pub(crate) route: Option<RouteId>,
    pub(crate) pool: Option<PoolId>,
    /// The client that it would be for.
    pub(crate) client: Option<IpAddr>,
    /// The backend that a cookie of the client names.
    pub(crate) pinned: Option<BackendId>,
    /// The decision about a backend; or why there would be none, which may be an answer of our own.
    pub(crate) decided: Result<Explained, Option<Fault>>,
}

/// A listening socket of one core.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) listener: ListenerId,
    pub(crate) address: Endpoint,
    pub(crate) fd: OwnedFd,
    /// Another process has it, too, and serves what waits there when this one ends.
    pub(crate) is_shared: bool,
}

/// Who gets the connections of a core that come to rest.
#[derive(Clone)]
pub(crate) struct Heir {
    pub(crate) to: Sender<RestingClient>,
    /// The listeners that it does not have.
    pub(crate) unknown: Vec<ListenerId>,
}

/// A client connection on which nothing is in flight, on its way to another process or core.
#[derive(Debug)]
pub(crate) struct RestingClient {
    pub(crate) listener: ListenerId,
    /// It has had an answer, and awaits its next request.
    pub(crate) is_idle: bool,
    pub(crate) fd: OwnedFd,
}

/// A client connection on its way to another core, with its permits.
pub(crate) struct Moved {
    pub(crate) client: RestingClient,
    pub(crate) permits: [Permit; 2],
}

/// The next plan, with one core's parts of it.
pub(crate) struct CorePlan {
    pub(crate) next: Arc<Next>,
    /// Its own copy of the routes, if they have changed: they are compiled on no core.
    pub(crate) router: Option<Router>,
    /// Its end of each access log that the plan before did not have.
    pub(crate) outlets: Table<ListenerId, Outlet>,
    /// Its sockets of new addresses.
    pub(crate) sockets: Vec<Socket>,
    /// Addresses that change the listener: the earlier one, the address, the next one.
    pub(crate) moved: Vec<(ListenerId, Endpoint, ListenerId)>,
    /// The addresses that are removed.
    pub(crate) gone: Vec<(ListenerId, Endpoint)>,
    /// Dropped when the core has taken the plan; nothing is ever sent.
    pub(crate) taken: Sender<()>,
}

/// A core has dropped everything that it made of a plan, or its routes, or something that outlived
/// that.
#[derive(Debug)]
pub(crate) struct Retired {
    pub(crate) core_index: usize,
    /// None if the core reported that before.
    pub(crate) generation: Option<u64>,
    /// The plan itself, so that no core has to free it.
    pub(crate) plan: Option<Arc<Plan>>,
    /// Routes that the core has dropped, for the same reason.
    pub(crate) router: Option<Router>,
}

/// The parts of its own that a worker gets.
pub(crate) struct WorkerSeed {
    pub(crate) core_index: usize,
    pub(crate) counters: Arc<Slab>,
    /// Its end of the access log of each listener that has one.
    pub(crate) outlets: Table<ListenerId, Outlet>,
}

/// The state of a core that its pools and requests need.
pub(crate) struct Core {
    pub(crate) index: usize,
    pub(crate) process: Process,
    pub(crate) counters: Arc<Slab>,
    /// How many cores serve by the newest plan.
    pub(super) cores: Cell<usize>,
    pub(super) means: Rc<Means>,
    /// How often this core has learned that backends were taken out.
    pub(crate) losses: Cell<u64>,
}
