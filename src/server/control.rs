//! The control thread, `ringway-control`: owner of the plan.
//!
//! It alone knows which plans are held, the owners of the seats, the bound addresses and the names
//! that are looked up. The handle and the signals are its clients, and so will be an admin API:
//! each sends a command and waits for the answer. A change of the plan is prepared completely, so
//! that a refusal has changed nothing; then the health thread takes it, and after it each core.
//! What was removed with a plan is forgotten when no thread holds any plan that names it.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Select, Sender, bounded, unbounded};

use super::{
    StartError,
    access_logs::{AccessLogs, Outlets},
    addresses::{Addresses, Endpoint},
    descriptors,
    ledger::Ledger,
    names::{Lookup, Names, Readers},
    spawn::{self, Death, Thread},
};
use crate::health::ToHealth;
use crate::observe::{event::Event, told::ToHub};
use crate::plan::{Checked, Global, ListenerId, Plan};
use crate::policy::seats::Changes;
use crate::shared::inbox::Unheard;
use crate::worker::{CorePlan, Next, Process, Retired, ToCore};

/// How long a thread may take to accept a message, and the health thread to take a plan: it does
/// within a turn.
const HEARD_WITHIN: Duration = Duration::from_secs(1);
const TAKEN_WITHIN: Duration = Duration::from_secs(5);

/// How long a client waits for an answer: a change may have to wait for an address that the kernel
/// frees late, and for busy threads.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);

/// How long an end waits for a command in progress.
const END_WITHIN: Duration = Duration::from_secs(10);

/// An address of a listener: as written, and as bound.
type Bound = (ListenerId, SocketAddr, SocketAddr);

/// A command to the thread. Each client waits for its answer, so there are never more commands than
/// clients.
enum Command {
    /// Serve by this plan.
    Change(Box<Plan>, Sender<Result<Changed, StartError>>),
    /// Reopen the access logs; returns whether the writer could be told.
    ReopenLogs(Sender<bool>),
    /// How many plans are held, including the one in force.
    Held(Sender<usize>),
    /// End; returns what must be ended when no core writes any more.
    End(Sender<AccessLogs>),
}

/// The result of a change.
pub(super) struct Changed {
    pub(super) changes: Changes,
    /// The addresses that are bound, by the name of their listener.
    pub(super) addresses: Vec<(String, Endpoint)>,
}

/// The thread, as its clients hold it.
pub(super) struct Control {
    to: Sender<Command>,
    thread: Option<Thread>,
}

/// The state of the thread.
pub(super) struct Owner {
    pub(super) process: Process,
    pub(super) retired: Receiver<Retired>,
    pub(super) readers: Readers,
    pub(super) names: Option<Names>,
    pub(super) lookup: Lookup,
    pub(super) death: Death,
    /// Whether the descriptor limit may be raised.
    pub(super) may_raise: bool,
    pub(super) access_logs: AccessLogs,
    pub(super) ledger: Ledger,
    /// The plan in force.
    pub(super) next: Arc<Next>,
    pub(super) bound: Vec<Bound>,
}

impl Control {
    /// Starts the thread.
    ///
    /// # Errors
    /// The kernel's, if it gives no thread.
    pub(super) fn start(mut owner: Owner) -> io::Result<Control> {
        // Without a bound: there is a command for each waiting client, and no more.
        let (to, commands) = unbounded();
        let death = owner.death.clone();
        let work = move || owner.run(&commands);
        let what = "the control thread".into();
        let thread = spawn::watched("ringway-control".into(), what, &death, work)?;
        Ok(Control { to, thread: Some(thread) })
    }

    /// Serves by this plan from now on.
    ///
    /// # Errors
    /// Why it does not; then nothing has changed.
    pub(super) fn change(&self, plan: Checked) -> Result<Changed, StartError> {
        let hangs = || Err(StartError::Hung("the control thread".into()));
        self.ask(|answer| Command::Change(Box::new(plan.into_plan()), answer)).unwrap_or_else(hangs)
    }

    /// Reopens the access logs without waiting; false if there is none, or the disk is too far
    /// behind.
    pub(super) fn reopen_logs(&self) -> bool {
        self.ask(Command::ReopenLogs).unwrap_or(false)
    }

    /// How many plans are held, including the one in force.
    pub(super) fn held(&self) -> usize {
        self.ask(Command::Held).unwrap_or(0)
    }

    fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Option<T> {
        let (answer, answered) = bounded(1);
        self.to.send(command(answer)).ok()?;
        answered.recv_timeout(ANSWERED_WITHIN).ok()
    }

    /// Ends the thread: no plan changes any more, and no name is looked up. Returns the access
    /// logs, and the thread's name if it does not end.
    pub(super) fn end(&mut self) -> (Option<AccessLogs>, Option<String>) {
        let Some(thread) = self.thread.take() else { return (None, None) };
        let until = Instant::now() + END_WITHIN;
        let (answer, answered) = bounded(1);
        let logs = match self.to.send(Command::End(answer)) {
            Ok(()) => answered.recv_deadline(until).ok(),
            Err(_) => None,
        };
        (logs, thread.end(until).err())
    }
}

/// A prepared change.
struct Prepared {
    next: Arc<Next>,
    changes: Changes,
    outlets: Vec<Outlets>,
    addresses: Addresses,
    gone: Vec<(ListenerId, SocketAddr)>,
    /// The thread that looks up the names of the next plan, if they are others.
    names: Option<Option<Names>>,
    events: Vec<Event>,
}

impl Owner {
    fn run(&mut self, commands: &Receiver<Command>) {
        let retired = self.retired.clone();
        let mut either = Select::new();
        either.recv(commands);
        either.recv(&retired);
        loop {
            either.ready();
            self.free();
            match commands.try_recv() {
                Ok(Command::Change(plan, answer)) => drop(answer.send(self.change(*plan))),
                Ok(Command::ReopenLogs(answer)) => drop(answer.send(self.access_logs.reopen())),
                Ok(Command::Held(answer)) => drop(answer.send(self.ledger.held())),
                Ok(Command::End(answer)) => {
                    self.names = None;
                    drop(answer.send(std::mem::take(&mut self.access_logs)));
                    return;
                }
                Err(error) if error.is_disconnected() => return,
                Err(_) => {}
            }
        }
    }

    /// Frees what no thread holds any more: plans, and the seats of what only they named. These are
    /// assigned by the next change at the earliest, of which the health thread hears after this.
    fn free(&mut self) {
        let gone = self.ledger.free(self.retired.try_iter());
        if !gone.is_empty() {
            self.tell_health(ToHealth::Forget(gone));
        }
    }

    fn change(&mut self, plan: Plan) -> Result<Changed, StartError> {
        let prepared = self.prepare(plan)?;
        self.take(prepared)
    }

    /// Does everything that can fail, without telling any thread.
    fn prepare(&mut self, mut plan: Plan) -> Result<Prepared, StartError> {
        let cores = self.process.cores;
        let before = Arc::clone(&self.next.plan);
        require_restart(&before.global, &plan.global)?;
        let lowered = descriptors::fit(&mut plan.limits, cores, self.may_raise);
        let lowered = lowered.map_err(StartError::Descriptors)?;
        let lowered = lowered.filter(|_| plan.limits.connections != before.limits.connections);
        let (plan, changes) = self.ledger.seat(plan)?;
        let known: Vec<_> = self.bound.iter().map(|(id, written, _)| (*id, *written)).collect();
        let addresses = Addresses::take(&plan, cores, &known)?;
        addresses.listen(&plan)?;
        let is_bound = |id: ListenerId, written: &SocketAddr| {
            plan.listeners.get(id).is_some_and(|listener| listener.bind.contains(written))
        };
        let gone = self.bound.iter().filter(|(id, written, _)| !is_bound(*id, written));
        let gone = gone.map(|(id, _, bound)| (*id, *bound)).collect();
        let outlets = self.access_logs.outlets(&plan, Some(&before), cores)?;
        let names = self.names_of(&plan)?;
        let (next, mut events) = self.ledger.next(plan, &self.process, Some(&self.next))?;
        events.extend(lowered);
        Ok(Prepared { next, changes, outlets, addresses, gone, names, events })
    }

    /// The thread that looks up the names of the next plan, if they are others; it posts nothing
    /// yet.
    fn names_of(&self, plan: &Plan) -> Result<Option<Option<Names>>, StartError> {
        if Names::are_same(&self.next.plan, plan) {
            return Ok(None);
        }
        let (lookup, teller) = (self.lookup.clone(), self.process.teller.clone());
        Names::begin(plan, lookup, self.death.clone(), teller, self.readers.clone())
            .map(Some)
            .map_err(StartError::system("look names up"))
    }

    /// Tells all threads: the health thread first, so that no core asks a backend that it does not
    /// know. From then on the plan is in force, whatever a core may do.
    fn take(&mut self, prepared: Prepared) -> Result<Changed, StartError> {
        let Prepared { next, changes, outlets, addresses, gone, names, events } = prepared;
        let (answer, answered) = bounded(1);
        self.tell_health(ToHealth::Plan(Arc::clone(&next), answer));
        match answered.recv_timeout(TAKEN_WITHIN) {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return Err(StartError::Plan(why)),
            Err(_) => return Err(StartError::Hung("the health thread".into())),
        }
        let teller = &self.process.teller;
        let until = Instant::now() + HEARD_WITHIN;
        // The hub waits for nothing.
        let _ = teller.to_hub().send_deadline(ToHub::Plan(Arc::clone(&next.plan)), until);
        events.into_iter().for_each(|event| teller.event(event));
        if names.is_some() {
            self.names = None;
        }
        let (plan, cores) = (&next.plan, self.readers.cores.len());
        self.bound.retain(|(id, _, bound)| !gone.contains(&(*id, *bound)));
        self.bound.extend(addresses.bound());
        let sockets = addresses.share_out(cores);
        for ((core, sockets), outlets) in self.readers.cores.iter().zip(sockets).zip(outlets) {
            let (next, gone) = (Arc::clone(&next), gone.clone());
            let plan = ToCore::Plan(Box::new(CorePlan { next, outlets, sockets, gone }));
            if core.send(plan, Instant::now() + HEARD_WITHIN) == Err(Unheard) {
                teller.event(Event::ThreadHung { thread: "a core".into() });
            }
        }
        self.ledger.publish(&next, cores);
        if let Some(names) = names {
            self.names = names.map(Names::at_once);
        }
        let name = |id: ListenerId| plan.listener(id).name.clone();
        let named = |(id, _, bound): &Bound| (name(*id), Endpoint::Tcp(*bound));
        let addresses = self.bound.iter().map(named).collect();
        self.next = next;
        Ok(Changed { changes, addresses })
    }

    fn tell_health(&self, message: ToHealth) {
        let until = Instant::now() + HEARD_WITHIN;
        if self.readers.health.send(message, until) == Err(Unheard) {
            let thread = "the health thread".into();
            self.process.teller.event(Event::ThreadHung { thread });
        }
    }
}

/// Refuses what only another process can take.
fn require_restart(now: &Global, next: &Global) -> Result<(), StartError> {
    let changed = [
        ("cores", now.cores != next.cores),
        ("pin", now.pin != next.pin),
        ("driver", now.driver != next.driver),
    ];
    match changed.iter().find(|(_, changed)| *changed) {
        Some((key, _)) => Err(StartError::Restart(key)),
        None => Ok(()),
    }
}
