//! The control thread's part of an upgrade: it alone knows the sockets, the names and the state
//! that go to the next process, and what came from the one before. It does what it is asked, and
//! waits for no process. *Invariant:* a copy of a socket is kept only while its address is served.

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::message::{Program, State};
use crate::base::endpoint::Endpoint;
use crate::health::{CarriedBackend, ToHealth};
use crate::net::{clock::Clock, socket_file::SocketFile};
use crate::observe::carried::Counts;
use crate::plan::{BackendId, ListenerId, Plan, PoolId};
use crate::policy::{balance::CarriedTimes, standing::Carried};
use crate::server::{
    control::{Client, Owner},
    run::Sockets,
};
use crate::shared::counters::Slab;
use crate::worker::{Heir, Next, RestingClient, Socket, ToCore};

/// How long a thread may take to accept a message, and the control thread to answer.
const HEARD_WITHIN: Duration = Duration::from_secs(1);
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);

/// What the control thread keeps for an upgrade.
#[derive(Default)]
pub(in crate::server) struct Kept {
    /// Copies of the listening sockets; none if they are handed on no more.
    sockets: Option<Vec<Copied>>,
    /// The files of Unix sockets: each is removed with its address, or at the end.
    files: Vec<SocketFile>,
    /// The process before this one, while it finishes what it has.
    before: Option<Before>,
    /// What earlier processes have counted, and where that is counted here.
    counts: Option<(Arc<Slab>, Counts)>,
}

/// A listening socket.
pub(in crate::server) struct Copied {
    pub(super) address: Endpoint,
    pub(super) is_shared: bool,
    pub(super) fd: OwnedFd,
}

/// The process before this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) struct Before {
    pub(in crate::server) program: Program,
    /// What it still has.
    pub(in crate::server) connections: u64,
}

/// What goes to the next process.
pub(in crate::server) struct Handed {
    pub(super) sockets: Vec<Copied>,
    pub(super) state: State,
}

/// What cores give away, and the names of the listeners.
pub(in crate::server) struct Leaving {
    pub(super) clients: Receiver<RestingClient>,
    pub(super) names: HashMap<ListenerId, String>,
}

/// What the control thread is asked for.
pub(in crate::server) enum Ask {
    /// What the next process gets.
    Hand(Sender<io::Result<Handed>>),
    /// Accept no more, and give resting connections away; the next process serves at these
    /// addresses.
    GiveAway(Option<Vec<(String, Endpoint)>>, Sender<Leaving>),
    /// Serve again.
    TakeBack,
    /// Go on with connections of these listeners.
    Adopt(Vec<(String, bool, OwnedFd)>),
    /// What the process before this one still has.
    Before(Option<Before>),
    /// What the process before this one has counted in all.
    Counts(Box<Counts>),
    /// Keep no copies of sockets any more: the process stops.
    Release,
    /// What has been counted so far.
    Count(Sender<Counts>),
}

impl Kept {
    /// Copies of these sockets, and the counts of earlier processes.
    pub(in crate::server) fn new(
        counts: Option<(Arc<Slab>, Counts)>,
        sockets: &[Sockets],
    ) -> io::Result<Kept> {
        let mut kept = Kept { sockets: Some(Vec::new()), files: Vec::new(), before: None, counts };
        kept.add(sockets)?;
        Ok(kept)
    }

    /// Copies new sockets.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub(in crate::server) fn add(&mut self, sockets: &[Sockets]) -> io::Result<()> {
        let Some(kept) = &mut self.sockets else { return Ok(()) };
        for Socket { address, fd, is_shared, .. } in sockets.iter().flatten() {
            let (address, is_shared) = (*address, *is_shared);
            kept.push(Copied { address, is_shared, fd: fd.try_clone()? });
        }
        Ok(())
    }

    /// Copies of the sockets of an address, and whether the service manager has them, too.
    ///
    /// # Errors
    /// If no descriptor is left, or no copies are kept any more.
    pub(in crate::server) fn of(&self, address: Endpoint) -> io::Result<(Vec<OwnedFd>, bool)> {
        let of_address = |it: &&Copied| it.address == address;
        let copied: Vec<_> = self.sockets.iter().flatten().filter(of_address).collect();
        let copies: io::Result<Vec<_>> = copied.iter().map(|it| it.fd.try_clone()).collect();
        let copies = copies?;
        if copies.is_empty() {
            return Err(io::Error::other("it is about to stop"));
        }
        Ok((copies, copied.iter().any(|it| it.is_shared)))
    }

    /// Copies these sockets in place of those before.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub(in crate::server) fn replace(&mut self, sockets: &[Sockets]) -> io::Result<()> {
        self.sockets.iter_mut().for_each(Vec::clear);
        self.add(sockets)
    }

    /// Keeps the files of these sockets for as long as their addresses are served.
    pub(in crate::server) fn keep_files(&mut self, files: Vec<SocketFile>) {
        self.files.extend(files);
    }

    /// Another process has the files now, or has them no more.
    fn give_files_away(&mut self, are_given_away: bool) {
        self.files.iter_mut().for_each(|file| file.give_away(are_given_away));
    }

    /// Closes the copies of addresses that are removed.
    pub(in crate::server) fn remove(&mut self, gone: &[(ListenerId, Endpoint)]) {
        let gone: Vec<Endpoint> = gone.iter().map(|(_, address)| *address).collect();
        self.close(&gone);
    }

    fn close(&mut self, gone: &[Endpoint]) {
        let kept = self.sockets.iter_mut();
        kept.for_each(|kept| kept.retain(|copied| !gone.contains(&copied.address)));
        self.files.retain(|file| !gone.contains(&Endpoint::Unix(file.path)));
    }

    /// What the process before this one still has.
    pub(in crate::server) fn before(&self) -> Option<&Before> {
        self.before.as_ref()
    }

    fn copies(&self) -> io::Result<Vec<Copied>> {
        let copy = |Copied { address, is_shared, fd }: &Copied| {
            let (address, is_shared) = (*address, *is_shared);
            Ok(Copied { address, is_shared, fd: fd.try_clone()? })
        };
        self.sockets.iter().flatten().map(copy).collect()
    }
}

impl Owner {
    /// Does what an upgrade asks for.
    pub(in crate::server) fn upgrade(&mut self, ask: Ask) {
        match ask {
            Ask::Hand(answer) => _ = answer.send(self.hand()),
            Ask::GiveAway(at, answer) => _ = answer.send(self.give_away(at.as_deref())),
            Ask::TakeBack => self.take_back(),
            Ask::Adopt(connections) => self.adopt(connections),
            Ask::Before(before) => self.kept.before = before,
            Ask::Counts(counts) => {
                if let Some((slab, before)) = &mut self.kept.counts {
                    counts.add_to(slab, &self.next.plan, before);
                    *before = *counts;
                }
            }
            Ask::Release => {
                // Nobody finds a Unix socket any more; cores serve what waits there.
                self.kept.files.clear();
                self.kept.sockets = None;
                let until = Instant::now() + HEARD_WITHIN;
                let (later, reporter) = (self.serving.release(), &self.process.reporter);
                later.iter().for_each(|core| core.send(ToCore::Drain, until, reporter));
            }
            Ask::Count(answer) => _ = answer.send(Counts::of(&self.statistics())),
        }
    }

    fn hand(&mut self) -> io::Result<Handed> {
        if self.leaving || self.kept.sockets.is_none() {
            return Err(io::Error::other("it is about to stop"));
        }
        let [secret, ticket_secret] = self.ledger.unkept();
        let state = State {
            pseudonym: Some(self.process.pseudonym.to_string()),
            secret,
            ticket_secret,
            counts: Counts::of(&self.statistics()),
            backends: self.backends(),
            times: self.times(),
        };
        Ok(Handed { sockets: self.kept.copies()?, state })
    }

    /// What is known of each backend of the plan in force, by names.
    fn backends(&self) -> Vec<(String, String, Carried)> {
        let (answer, answered) = bounded(1);
        self.tell_health(ToHealth::Carry(answer));
        let carried = answered.recv_timeout(HEARD_WITHIN).unwrap_or_default();
        let plan = &self.next.plan;
        let named = |(id, backend, carried): CarriedBackend| {
            let pool = plan.pools.get(id)?;
            Some((pool.name.clone(), pool.backends.get(backend)?.name.clone(), carried))
        };
        carried.into_iter().filter_map(named).collect()
    }

    /// What cores know of the times of each backend, by names.
    fn times(&self) -> Vec<(String, String, CarriedTimes)> {
        let now = Clock::moment().tick();
        let mut all = Vec::new();
        for (id, pool) in &self.next.plan.pools {
            let Some(shared) = self.next.pools.get(id) else { continue };
            for (seat, backend) in &pool.backends {
                let known = CarriedTimes::of(shared.state.load.times(seat), now);
                let named = known.map(|known| (pool.name.clone(), backend.name.clone(), known));
                all.extend(named);
            }
        }
        all
    }

    fn give_away(&mut self, at: Option<&[(String, Endpoint)]>) -> Leaving {
        self.leaving = true;
        let serves = |address| at.is_none_or(|at| at.iter().any(|it| it.1 == address));
        let knows = |name: &str| at.is_none_or(|at| at.iter().any(|it| it.0 == name));
        let bound = self.bound.iter().map(|(_, _, bound)| *bound);
        let gone: Vec<Endpoint> = bound.filter(|address| !serves(*address)).collect();
        self.kept.close(&gone);
        self.kept.give_files_away(true);
        let (to, clients) = unbounded();
        let listeners = self.next.plan.listeners.iter();
        let unknown = listeners.clone().filter(|(_, it)| !knows(&it.name)).map(|(id, _)| id);
        let heir = Heir { to, unknown: unknown.collect() };
        self.tell_cores(|_| ToCore::GiveAway { heir: heir.clone(), gone: gone.clone() });
        Leaving { clients, names: listeners.map(|(id, it)| (id, it.name.clone())).collect() }
    }

    /// Serves again from copies of the sockets.
    fn take_back(&mut self) {
        self.leaving = false;
        self.kept.give_files_away(false);
        let numbers = self.serving.now();
        let mut shares: Vec<Sockets> = numbers.iter().map(|_| Vec::new()).collect();
        for (number, copied) in self.kept.copies().unwrap_or_default().into_iter().enumerate() {
            let Copied { address, is_shared, fd } = copied;
            let of = self.bound.iter().find(|(_, _, bound)| *bound == address);
            let Some((listener, ..)) = of else { continue };
            let place = number % numbers.len();
            shares[place].push(Socket { listener: *listener, address, fd, is_shared });
        }
        let until = Instant::now() + HEARD_WITHIN;
        for (number, share) in numbers.iter().zip(shares) {
            if let Some(core) = self.readers.cores.get(*number) {
                let _ = core.send(ToCore::Accept(share), until);
            }
        }
        self.rest();
    }

    /// Goes on with connections of these listeners.
    fn adopt(&mut self, connections: Vec<(String, bool, OwnedFd)>) {
        let listeners = self.next.plan.listeners.iter();
        let ids: HashMap<&str, ListenerId> =
            listeners.map(|(id, it)| (it.name.as_str(), id)).collect();
        let known = connections.into_iter().filter_map(|(listener, is_idle, fd)| {
            let listener = ids.get(listener.as_str()).copied()?;
            Some(RestingClient { listener, is_idle, fd })
        });
        self.share_out(known.collect());
    }

    fn tell_cores(&self, mut message: impl FnMut(usize) -> ToCore) {
        let until = Instant::now() + HEARD_WITHIN;
        for (number, core) in self.readers.cores.iter().enumerate() {
            // A core that hangs is found by all who wait for it.
            let _ = core.send(message(number), until);
        }
    }
}

/// Publishes what an earlier process knew of the times of backends, as a core would: in the row
/// after those of the cores.
pub(in crate::server) fn tell_times(
    next: &Next,
    times: Vec<(String, String, CarriedTimes)>,
    row: usize,
) {
    let now = Clock::moment().tick();
    for (pool, backend, known) in times {
        let pool = next.plan.pools.iter().find(|(_, it)| it.name == pool);
        let Some((id, pool)) = pool else { continue };
        let seat = pool.backends.iter().find(|(_, it)| it.name == backend);
        let Some((seat, _)) = seat else { continue };
        let row = next.pools.get(id).and_then(|it| it.state.load.row(row, seat));
        row.into_iter().for_each(|row| row.publish_times(known.word(now)));
    }
}

/// What an earlier process knew of backends, by the ids of a plan.
pub(in crate::server) fn known(
    plan: &Plan,
    backends: Vec<(String, String, Carried)>,
) -> Vec<CarriedBackend> {
    let mut ids: HashMap<(&str, &str), (PoolId, BackendId)> = HashMap::new();
    for (id, pool) in &plan.pools {
        for (backend, it) in &pool.backends {
            ids.insert((&pool.name, &it.name), (id, backend));
        }
    }
    let known = |(pool, backend, carried): (String, String, Carried)| {
        let (pool, backend) = *ids.get(&(pool.as_str(), backend.as_str()))?;
        Some((pool, backend, carried))
    };
    backends.into_iter().filter_map(known).collect()
}

/// Asks the control thread and waits for its answer.
pub(super) fn ask<T>(client: &Client, ask: impl FnOnce(Sender<T>) -> Ask) -> io::Result<T> {
    let (answer, answered) = bounded(1);
    client.upgrade(ask(answer));
    let hangs = |_| io::Error::other("the control thread does not answer");
    answered.recv_timeout(ANSWERED_WITHIN).map_err(hangs)
}
