//! The control thread, `ringway-control`: owner of the plan.
//!
//! It alone knows which plans are held, the owners of the seats, the bound addresses and, by
//! `roster.rs`, the names that are looked up. The handle, the reload thread and the admin interface
//! are its clients: each sends a command and waits for the answer. A change of the plan is prepared
//! completely, so that a refusal has changed nothing; then the health thread takes it, and after it
//! each core. What was removed with a plan is forgotten when no thread holds any plan that names
//! it.

use std::{
    collections::{HashMap, HashSet},
    fmt, io,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use crossbeam_channel::{
    Receiver, RecvTimeoutError, Select, Sender, TryRecvError, bounded, unbounded,
};

use super::{
    StartError,
    access_logs::{AccessLogs, Outlets},
    addresses::Addresses,
    certificates::{Certificates, Fresh, Held},
    crew::Member,
    descriptors, ends,
    given::Given,
    ledger::Ledger,
    names::FIRST_ANSWERS,
    readers::Readers,
    roster::{Foreseen, Roster},
    run::Sockets,
    serving::Serving,
    spawn::{self, Death, Thread},
    upgrade::{Ask, Before, Kept},
    vitals,
};
use crate::base::endpoint::Endpoint;
use crate::health::{SeenBackend, ToHealth};
use crate::net::tls::Ends;
use crate::observe::{
    event::Event,
    reports::{Reporter, ToHub},
    statistics::{Sources, Statistics},
};
use crate::plan::{Backend, BackendId, Global, ListenerId, Overlay, Plan, PoolId, Shutdown};
use crate::policy::{
    lookups::Members,
    overlay::{Composed, Layers, Misfit},
    route::Router,
    seats::Changes,
};
use crate::shared::{inbox::Unheard, standing::Publication};
use crate::worker::{Answered, CorePlan, Next, Process, Question, Retired, ToCore};

/// How long a thread may take to accept a message, and to take a plan: it does within a turn.
pub(super) const HEARD_WITHIN: Duration = Duration::from_secs(1);
const TAKEN_WITHIN: Duration = Duration::from_secs(5);

/// How long a client waits for an answer: a change may have to wait for an address that the kernel
/// frees late, and for busy threads.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);

/// How often all counts are read, whether or not anybody asks: some of them go round
/// (`shared/durations.rs`), but not within days.
const READ_AGAIN: Duration = Duration::from_secs(3600);

/// How long an end waits for a command in progress.
const END_WITHIN: Duration = Duration::from_secs(10);

/// An address of a listener: as written, and as bound.
type Bound = (ListenerId, Endpoint, Endpoint);

/// A command to the thread. Each client waits for its answer, so there are never more commands than
/// clients.
enum Command {
    /// Serve by the plan that this makes.
    Change(Edit, Sender<Result<Changed, Denied>>),
    /// Look up the names that these bring; the answer has what closes when they are known.
    Foresee(Foreseen, Sender<Option<Receiver<()>>>),
    /// Answer what that would change.
    Compare(Edit, Sender<Result<Changed, Denied>>),
    /// Answer with what the plan in force is made of, and its number.
    Layers(Sender<(u64, Layers)>),
    /// Answer with what there is to see of pools.
    View(Sender<(View, Receiver<Vec<SeenBackend>>)>),
    /// Answer how many requests a backend of a pool has in flight.
    InFlight((String, String), Sender<Option<u64>>),
    /// Have a core answer what would become of a request; none if it has no room for the question.
    Explain(Box<Question>, Sender<Option<Receiver<Box<Answered>>>>),
    /// Answer with the state of the process, after the cores were asked for a sign of life.
    Look(Sender<(Look, Vec<Asked>)>),
    /// A reload has ended; whether it was taken.
    ReloadEnded(bool),
    /// The process stops soon: it is not ready from now on.
    Leave,
    /// Reopen the access logs; the answer says whether their threads could be told.
    ReopenLogs(Sender<bool>),
    /// What an upgrade asks for.
    Upgrade(Ask),
    /// How many plans are held, including the one in force.
    Held(Sender<usize>),
    /// How many cores serve.
    Cores(Sender<usize>),
    /// The certificates in use.
    Certificates(Sender<Arc<[Held]>>),
    /// What has been counted.
    Statistics(Sender<Statistics>),
    /// End; returns what must be ended when no core writes any more.
    End(Sender<Ended>),
}

/// What is left when the thread ends: the logs, and the cores that were started by reloads.
type Ended = (AccessLogs, Vec<Member<ToCore>>);

/// A core that was asked for a sign of life; none if it had no room for the question.
type Asked = Option<Receiver<()>>;

/// A core that was given a plan: its number, and what closes when it has taken the plan.
type Taking = (usize, Receiver<()>);

/// What a change replaces of the layers that make the plan.
#[derive(Default)]
pub(super) struct Edit {
    pub(super) base: Option<Arc<Plan>>,
    pub(super) overlay: Option<Overlay>,
    pub(super) members: Option<Members>,
    /// The numbers of the plans that it is meant for; none = any.
    pub(super) only_if: Option<Vec<u64>>,
}

/// Why a change was not made.
#[derive(Debug)]
pub(super) enum Denied {
    /// It is meant for another plan than the one of this number, which is in force.
    Moved(u64),
    /// Run-time changes cannot be kept over a restart.
    NotKept(String),
    /// The plan cannot be put in force.
    Plan(StartError),
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Denied::Moved(generation) => write!(f, "plan {generation} is in force"),
            Denied::NotKept(why) => f.write_str(why),
            Denied::Plan(error) => error.fmt(f),
        }
    }
}

impl From<StartError> for Denied {
    fn from(error: StartError) -> Denied {
        Denied::Plan(error)
    }
}

/// What there is to see of pools.
pub(super) struct View {
    pub(super) generation: u64,
    pub(super) plan: Arc<Plan>,
    pub(super) overlay: Overlay,
    pub(super) statistics: Statistics,
    /// What the health thread knows; empty if it does not answer.
    pub(super) seen: HashMap<(PoolId, BackendId), SeenBackend>,
}

/// The result of a change.
pub(super) struct Changed {
    pub(super) changes: Changes,
    /// The addresses that are bound, by the name of their listener.
    pub(super) addresses: Vec<(String, Endpoint)>,
    /// The number of the plan in force.
    pub(super) generation: u64,
    /// Keys that differ in the new plan but keep their value until a restart.
    pub(super) kept: Vec<&'static str>,
    /// Run-time changes that do not fit, and were dropped.
    pub(super) misfits: Vec<Misfit>,
    /// Client connections of listeners that are removed.
    pub(super) closed: u64,
    /// The cores that are to take the plan.
    taking: Vec<Taking>,
    /// Those that have not, in a sentence for each.
    pub(super) late: Vec<String>,
}

/// The state of the process.
pub(super) struct Look {
    /// The number of the plan in force.
    pub(super) generation: u64,
    /// How many cores serve.
    pub(super) cores: usize,
    /// The bound addresses, by the name of their listener.
    pub(super) addresses: Vec<(String, Endpoint)>,
    /// Why the process is not ready.
    pub(super) not_ready: Vec<String>,
    /// The cores that do not answer.
    pub(super) silent_cores: Vec<String>,
    /// How many backends are usable, and how many there are.
    pub(super) backends: (usize, usize),
    /// The process before this one, while it finishes what it has.
    pub(super) before: Option<Before>,
}

/// The thread, for its starter.
pub(super) struct Control {
    client: Client,
    thread: Option<Thread>,
}

/// The thread, for its clients.
#[derive(Clone)]
pub(super) struct Client {
    to: Sender<Command>,
    reporter: Reporter,
}

/// What the thread owns.
pub(super) struct Owner {
    pub(super) process: Process,
    pub(super) retired: Receiver<Retired>,
    pub(super) readers: Readers,
    pub(super) roster: Roster,
    pub(super) death: Death,
    /// Whether the descriptor limit may be raised.
    pub(super) may_raise: bool,
    pub(super) access_logs: AccessLogs,
    pub(super) ledger: Ledger,
    pub(super) sources: Sources,
    /// The plan in force.
    pub(super) next: Arc<Next>,
    /// What it is made of.
    pub(super) layers: Layers,
    /// By core, what closes when it has taken its last plan; none = it had no room for one.
    pub(super) last_taken: Vec<Option<Receiver<()>>>,
    /// Whether the last reload was taken.
    pub(super) reloaded: bool,
    pub(super) bound: Vec<Bound>,
    /// Whether the process stops soon.
    pub(super) leaving: bool,
    pub(super) certificates: Certificates,
    /// What files of certificates have become.
    pub(super) renewed: Receiver<Fresh>,
    /// The certificates of the plan in force.
    pub(super) fresh: Fresh,
    /// What was made last of certificates, and what before it.
    pub(super) tls: [Option<Arc<Ends>>; 2],
    /// What it keeps for an upgrade.
    pub(super) kept: Kept,
    /// The cores that serve, and those that may.
    pub(super) serving: Serving,
}

impl Control {
    /// Starts the thread.
    ///
    /// # Errors
    /// The kernel's, if it gives no thread.
    pub(super) fn start(mut owner: Owner) -> io::Result<Control> {
        // Without a bound: there is a command for each waiting client, and no more.
        let (to, commands) = unbounded();
        let (death, reporter) = (owner.death.clone(), owner.process.reporter.clone());
        let work = move || owner.run(&commands);
        let what = "the control thread".into();
        let thread = spawn::watched("ringway-control".into(), what, &death, work)?;
        Ok(Control { client: Client { to, reporter }, thread: Some(thread) })
    }

    /// A client of the thread.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Ends the thread: no plan changes any more, and no name is looked up. Returns the access
    /// logs and the cores that it has started, which still run, and the name of the thread if it
    /// does not end.
    pub(super) fn end(&mut self) -> (Option<Ended>, Option<String>) {
        let Some(thread) = self.thread.take() else { return (None, None) };
        let until = Instant::now() + END_WITHIN;
        let (answer, answered) = bounded(1);
        let ended = match self.client.to.send(Command::End(answer)) {
            Ok(()) => answered.recv_deadline(until).ok(),
            Err(_) => None,
        };
        (ended, thread.end(until).err())
    }
}

impl Client {
    /// Serves by the plan that this makes from now on.
    ///
    /// # Errors
    /// Why it does not; then nothing has changed.
    pub(super) fn change(&self, edit: Edit) -> Result<Changed, Denied> {
        // What a change brings serves at once, if its names answer in time.
        if let Some(foreseen) = Foreseen::of(&edit)
            && let Some(known) = self.ask(|answer| Command::Foresee(foreseen, answer)).flatten()
        {
            let _ = known.recv_timeout(FIRST_ANSWERS);
        }
        let mut changed = self.ask(|answer| Command::Change(edit, answer)).unwrap_or_else(hangs)?;
        // The answer promises that requests from now on are served under this plan. It is waited
        // for here, so that a core that hangs holds up nobody else.
        let until = Instant::now() + TAKEN_WITHIN;
        for (core, taken) in changed.taking.drain(..) {
            if taken.recv_deadline(until) == Err(RecvTimeoutError::Timeout) {
                let thread = format!("core {core}").into();
                changed.late.push(late(core));
                self.reporter.event(Event::ThreadHung { thread });
            }
        }
        Ok(changed)
    }

    /// Reopens the access logs without waiting; false if there is none, or the disk is too far
    /// behind.
    pub(super) fn reopen_logs(&self) -> bool {
        self.ask(Command::ReopenLogs).unwrap_or(false)
    }

    /// What that would change; nothing is changed.
    ///
    /// # Errors
    /// As for `change`, as far as they can be known.
    pub(super) fn compare(&self, edit: Edit) -> Result<Changed, Denied> {
        self.ask(|answer| Command::Compare(edit, answer)).unwrap_or_else(hangs)
    }

    /// The number of the plan in force, and what it is made of; none if the thread hangs or has
    /// ended.
    pub(super) fn layers(&self) -> Option<(u64, Layers)> {
        self.ask(Command::Layers)
    }

    /// What there is to see of pools.
    pub(super) fn view(&self) -> Option<View> {
        let (mut view, seen) = self.ask(Command::View)?;
        let seen = seen.recv_timeout(HEARD_WITHIN).unwrap_or_default();
        view.seen = seen.into_iter().map(|it| ((it.pool, it.backend), it)).collect();
        measure(&mut view.statistics);
        Some(view)
    }

    /// How many requests a backend has in flight; none if the plan in force does not have it.
    pub(super) fn in_flight(&self, pool: &str, backend: &str) -> Option<u64> {
        let of = (pool.to_owned(), backend.to_owned());
        self.ask(|answer| Command::InFlight(of, answer)).flatten()
    }

    /// What would become of a request on the first core; none if that hangs.
    pub(super) fn explain(&self, question: Question) -> Option<Box<Answered>> {
        let question = Box::new(question);
        let answered = self.ask(|answer| Command::Explain(question, answer)).flatten()?;
        answered.recv_timeout(HEARD_WITHIN).ok()
    }

    /// The state of the process; none if the thread hangs or has ended.
    pub(super) fn look(&self) -> Option<Look> {
        let (mut look, asked) = self.ask(Command::Look)?;
        let until = Instant::now() + HEARD_WITHIN;
        let is_silent = |asked: &Asked| {
            asked.as_ref().is_none_or(|answered| answered.recv_deadline(until).is_err())
        };
        let silent = asked.iter().enumerate().filter(|(_, asked)| is_silent(asked));
        look.silent_cores =
            silent.map(|(core, _)| format!("core {core} does not answer")).collect();
        look.not_ready.extend(look.silent_cores.iter().cloned());
        Some(look)
    }

    /// A reload has ended; `taken` says whether it was.
    pub(super) fn reload_ended(&self, taken: bool) {
        let _ = self.to.send(Command::ReloadEnded(taken));
    }

    /// How to stop, by the plan in force; none if the thread does not answer at once, as a stop
    /// waits for nothing.
    pub(super) fn shutdown(&self) -> Option<Shutdown> {
        let (answer, answered) = bounded(1);
        self.to.send(Command::Layers(answer)).ok()?;
        let (_, layers) = answered.recv_timeout(HEARD_WITHIN).ok()?;
        Some(layers.base.global.shutdown)
    }

    /// Makes the process not ready from now on.
    pub(super) fn leave(&self) {
        let _ = self.to.send(Command::Leave);
    }

    /// How many plans are held, including the one in force.
    pub(super) fn held(&self) -> usize {
        self.ask(Command::Held).unwrap_or(0)
    }

    /// How many cores serve; none where the thread hangs by a bug, or has ended.
    pub(super) fn cores(&self) -> Option<usize> {
        self.ask(Command::Cores)
    }

    /// What has been counted; none where the thread hangs by a bug.
    pub(super) fn statistics(&self) -> Option<Statistics> {
        let mut statistics = self.ask(Command::Statistics)?;
        measure(&mut statistics);
        Some(statistics)
    }

    /// The same, without what the kernel counts of the process.
    pub(super) fn counted(&self) -> Option<Statistics> {
        let mut statistics = self.ask(Command::Statistics)?;
        measure_cores(&mut statistics);
        Some(statistics)
    }

    /// The certificates in use; none where the thread hangs by a bug.
    pub(super) fn certificates(&self) -> Arc<[Held]> {
        self.ask(Command::Certificates).unwrap_or_default()
    }

    /// Does what an upgrade asks for.
    pub(super) fn upgrade(&self, ask: Ask) {
        // If the thread has ended nothing waits for it.
        let _ = self.to.send(Command::Upgrade(ask));
    }

    fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Option<T> {
        let (answer, answered) = bounded(1);
        self.to.send(command(answer)).ok()?;
        answered.recv_timeout(ANSWERED_WITHIN).ok()
    }
}

/// Adds what the kernel counts.
fn measure(statistics: &mut Statistics) {
    measure_cores(statistics);
    statistics.process = vitals::of_process();
}

fn measure_cores(statistics: &mut Statistics) {
    for core in statistics.cores.iter_mut().filter(|core| core.thread != 0) {
        core.cpu = vitals::of_thread(core.thread);
    }
}

/// Said of a core that has not taken a plan.
fn late(core: usize) -> String {
    format!("core {core} does not answer, and still serves by an earlier plan")
}

fn hangs<T>() -> Result<T, Denied> {
    Err(Denied::Plan(StartError::Hung("the control thread".into())))
}

/// What a plan that was put in force changes, the keys that it keeps, and who is to take it.
type Taken = (Changes, Vec<&'static str>, (Vec<Taking>, Vec<String>));

/// What has closed already.
fn closed() -> Receiver<()> {
    bounded(0).1
}

/// Whether a core has not taken its last plan yet.
fn is_behind(last: Option<&Receiver<()>>) -> bool {
    last.is_none_or(|last| last.try_recv() == Err(TryRecvError::Empty))
}

/// A prepared change.
struct Prepared {
    next: Arc<Next>,
    fresh: Fresh,
    changes: Changes,
    outlets: Vec<Outlets>,
    kept: Vec<&'static str>,
    /// Its sockets, those that stay bound, and the cores that serve if they are others: then all
    /// sockets are shared out anew.
    to: (Addresses, StillBound, Option<Vec<usize>>),
    events: Vec<Event>,
}

/// What a plan makes of the addresses that are bound.
#[derive(Default)]
struct StillBound {
    /// Addresses that stay bound, with their listener under this plan.
    stays: Vec<Bound>,
    /// Those that change the listener: the earlier one, the address, the next one.
    moved: Vec<(ListenerId, Endpoint, ListenerId)>,
    gone: Vec<(ListenerId, Endpoint)>,
}

impl StillBound {
    /// An address stays bound if any listener has it: connections that wait there are served, and
    /// no other process can take it in between.
    fn under(plan: &Plan, bound: &[Bound]) -> StillBound {
        let mut still = StillBound::default();
        for (id, written, bound) in bound.iter().copied() {
            let has_it = |id| plan.listeners.get(id).is_some_and(|at| at.bind.contains(&written));
            // With port 0 each listener has an address of its own.
            let heir = || plan.listeners.ids().find(|id| written.is_one() && has_it(*id));
            match if has_it(id) { Some(id) } else { heir() } {
                None => still.gone.push((id, bound)),
                Some(owner) => {
                    still.stays.push((owner, written, bound));
                    if owner != id {
                        still.moved.push((id, bound, owner));
                    }
                }
            }
        }
        still
    }

    /// The listener of each, and the address as written.
    fn known(&self) -> Vec<(ListenerId, Endpoint)> {
        self.stays.iter().map(|(id, written, _)| (*id, *written)).collect()
    }
}

impl Owner {
    fn run(&mut self, commands: &Receiver<Command>) {
        let (retired, renewed) = (self.retired.clone(), self.renewed.clone());
        let resting = self.serving.resting().clone();
        let members = self.roster.posted().clone();
        let mut either = Select::new();
        either.recv(commands);
        either.recv(&retired);
        either.recv(&renewed);
        either.recv(&resting);
        either.recv(&members);
        loop {
            if either.ready_timeout(self.roster.due().unwrap_or(READ_AGAIN)).is_err() {
                self.statistics();
            }
            self.free();
            self.move_resting();
            self.take_members();
            renewed.try_iter().last().into_iter().for_each(|fresh| self.renew(fresh));
            match commands.try_recv() {
                Ok(Command::Change(edit, answer)) => {
                    let changed = self.change(edit);
                    if changed.is_err() {
                        // What it would have brought is looked up no more.
                        self.want_names();
                    }
                    drop(answer.send(changed));
                }
                Ok(Command::Foresee(what, answer)) => drop(answer.send(self.foresee(what))),
                Ok(Command::Compare(edit, answer)) => drop(answer.send(self.compare(edit))),
                Ok(Command::Layers(answer)) => {
                    drop(answer.send((self.next.generation, self.layers.clone())));
                }
                Ok(Command::View(answer)) => drop(answer.send(self.view())),
                Ok(Command::InFlight((pool, backend), answer)) => {
                    _ = answer.send(self.in_flight(&pool, &backend));
                }
                Ok(Command::Explain(question, answer)) => {
                    drop(answer.send(self.explain(question)));
                }
                Ok(Command::Look(answer)) => drop(answer.send(self.look())),
                Ok(Command::Upgrade(ask)) => self.upgrade(ask),
                Ok(Command::Leave) => self.leaving = true,
                Ok(Command::ReloadEnded(taken)) => self.reloaded = taken,
                Ok(Command::ReopenLogs(answer)) => drop(answer.send(self.access_logs.reopen())),
                Ok(Command::Held(answer)) => drop(answer.send(self.ledger.held())),
                Ok(Command::Cores(answer)) => drop(answer.send(self.serving.now().len())),
                Ok(Command::Certificates(answer)) => drop(answer.send(self.fresh.held.clone())),
                Ok(Command::Statistics(answer)) => drop(answer.send(self.statistics())),
                Ok(Command::End(answer)) => {
                    self.roster.end();
                    self.end_certificates();
                    let logs = std::mem::take(&mut self.access_logs);
                    drop(answer.send((logs, self.serving.end())));
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

    pub(super) fn statistics(&mut self) -> Statistics {
        let pools = &self.next.pools;
        let state = |pool| Some(&*pools.get(pool)?.state);
        let mut statistics = self.sources.snapshot(SystemTime::now(), &self.next.plan, state);
        statistics.config_generation = self.next.generation;
        statistics.config_last_reload_successful = self.reloaded;
        statistics.certificates = self.fresh.held.iter().map(Held::statistics).collect();
        statistics
    }

    fn view(&mut self) -> (View, Receiver<Vec<SeenBackend>>) {
        let (answer, seen) = bounded(1);
        self.tell_health(ToHealth::Show(answer));
        let statistics = self.statistics();
        let (plan, overlay) = (Arc::clone(&self.next.plan), self.layers.overlay.clone());
        let generation = self.next.generation;
        (View { generation, plan, overlay, statistics, seen: HashMap::new() }, seen)
    }

    fn in_flight(&self, pool: &str, backend: &str) -> Option<u64> {
        let Next { plan, pools, .. } = &*self.next;
        let (id, pool) = plan.pools.iter().find(|(_, it)| it.name == pool)?;
        let load = &pools.get(id)?.state.load;
        let is_it = |it: &Backend| {
            it.name == backend || it.member.as_ref().is_some_and(|of| of.entry == backend)
        };
        let seats = pool.backends.iter().filter(|(_, it)| is_it(it));
        // Of a name, at all its addresses.
        seats.map(|(seat, _)| u64::from(load.in_flight(seat))).reduce(|one, more| one + more)
    }

    /// The layers after an edit, and the plan that they make.
    fn edited(&self, edit: Edit) -> Result<(Layers, Composed), Denied> {
        let Edit { base, overlay, members, only_if } = edit;
        let generation = self.next.generation;
        if only_if.is_some_and(|meant| !meant.contains(&generation)) {
            return Err(Denied::Moved(generation));
        }
        let Layers { base: before, overlay: amended, members: known } = self.layers.clone();
        let (base, overlay) = (base.unwrap_or(before), overlay.unwrap_or(amended));
        let layers = Layers { base, overlay, members: members.unwrap_or(known) };
        let composed = layers.compose();
        Ok((Layers { overlay: composed.overlay.clone(), ..layers }, composed))
    }

    pub(super) fn change(&mut self, edit: Edit) -> Result<Changed, Denied> {
        let is_read = edit.base.is_some();
        let may_bring_names = is_read || edit.overlay.is_some();
        let (layers, Composed { plan, misfits, surplus, .. }) = self.edited(edit)?;
        let before = Arc::clone(&self.next.plan);
        let prepared = self.prepare(plan, is_read)?;
        let closed = self.closed(&before, &prepared.next.plan);
        let (changes, kept, (taking, late)) = self.take(prepared)?;
        self.layers = layers;
        if may_bring_names {
            self.want_names();
        }
        self.roster.note(surplus, &self.process.reporter);
        let (generation, addresses) = (self.next.generation, self.addresses());
        Ok(Changed { changes, addresses, generation, kept, misfits, closed, taking, late })
    }

    /// How many client connections listeners have that the next plan does not.
    fn closed(&self, now: &Plan, next: &Plan) -> u64 {
        let is_gone =
            |id: ListenerId| now.listeners.get(id).is_some() && next.listeners.get(id).is_none();
        self.sources.connections(is_gone)
    }

    /// Does everything that can fail, without telling any thread. A plan that was read says on how
    /// many cores.
    fn prepare(&mut self, mut plan: Plan, is_read: bool) -> Result<Prepared, StartError> {
        let before = Arc::clone(&self.next.plan);
        let mut kept = keep(&before.global, &mut plan.global);
        let serving = match is_read {
            true => self.cores_of(&mut plan, &mut kept)?,
            false => self.serving.now().to_vec(),
        };
        let cores = serving.len();
        let lowered = descriptors::fit(&mut plan.limits, cores, self.may_raise);
        let lowered = lowered.map_err(StartError::Descriptors)?;
        let lowered = lowered.filter(|_| plan.limits.connections != before.limits.connections);
        // What gets a seat that another had begins to count at nought.
        self.sources.forget(&self.ledger.named(), |pool| self.ledger.state(pool));
        let (plan, changes) = self.ledger.seat(plan)?;
        let bound = StillBound::under(&plan, &self.bound);
        let mut addresses = Addresses::take(&plan, cores, &bound.known(), &mut Given::default())?;
        let is_moved = serving != self.serving.now();
        if is_moved {
            let copies = |address| self.kept.of(address);
            addresses = addresses.share_again(&plan, cores, (&bound.stays, copies))?;
        }
        let outlets = self.access_logs.outlets(&plan, Some(&before), self.readers.cores.len())?;
        let fresh = self.certificates.read(&plan)?;
        let (next, mut events) = {
            let held = (Some(&*self.next), &*fresh.certs, cores);
            self.ledger.next(plan, &self.process, held)?
        };
        events.extend(lowered);
        Addresses::allow_again(&next.plan, &bound.stays)?;
        // Last: what waits at a socket that is closed again would be lost.
        addresses.listen(&next.plan)?;
        let serving = is_moved.then_some(serving);
        let to = (addresses, bound, serving);
        Ok(Prepared { next, fresh, changes, outlets, kept, to, events })
    }

    /// Tells all threads: the health thread first, so that no core asks a backend that it does not
    /// know. From then on the plan is in force, whatever a core may do.
    fn take(&mut self, prepared: Prepared) -> Result<Taken, StartError> {
        let Prepared { next, fresh, changes, outlets, kept, to, events } = prepared;
        let (answer, answered) = bounded(1);
        self.tell_health(ToHealth::Plan(Arc::clone(&next), answer));
        match answered.recv_timeout(TAKEN_WITHIN) {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return Err(StartError::Plan(why)),
            Err(_) => return Err(StartError::Hung("the health thread".into())),
        }
        let reporter = &self.process.reporter;
        let until = Instant::now() + HEARD_WITHIN;
        // The hub waits for nothing.
        let _ = reporter.to_hub().send_deadline(ToHub::Plan(Arc::clone(&next.plan)), until);
        events.into_iter().for_each(|event| reporter.event(event));
        let (mut addresses, bound, serving) = to;
        let files = addresses.files();
        self.bound = if serving.is_some() { Vec::new() } else { bound.stays.clone() };
        self.bound.extend(addresses.bound());
        let cores = serving.as_deref().unwrap_or(self.serving.now()).len();
        descriptors::make_room(&next.plan.limits, cores);
        let shares = addresses.share_out(cores);
        self.kept.remove(&bound.gone);
        self.kept.keep_files(files);
        let kept_shares = match &serving {
            Some(_) => self.kept.replace(&shares),
            None => self.kept.add(&shares),
        };
        if let Err(error) = kept_shares {
            // They are served, but not handed on.
            let cause = format!("new sockets will be missing at an upgrade: {error}").into();
            let by = "reload".into();
            reporter.event(Event::UpgradeRefused { cause, by, from: None });
        }
        // By the number of the core.
        let mut sockets: Vec<Sockets> = self.readers.cores.iter().map(|_| Vec::new()).collect();
        let serving = match serving {
            Some(numbers) => Some((numbers, shares)),
            None => {
                let numbers = self.serving.now().iter();
                numbers.zip(shares).for_each(|(number, share)| sockets[*number] = share);
                None
            }
        };
        let taking = self.tell_plan(&next, &bound, sockets.into_iter().zip(outlets));
        self.ledger.publish(&next, self.readers.cores.len());
        self.next = next;
        self.certificates.keep(&fresh);
        self.fresh = fresh;
        if let Some((numbers, shares)) = serving {
            self.serve_on(numbers, shares);
        }
        Ok((changes, kept, taking))
    }

    /// Gives each core the next plan, with its sockets of new addresses and its ends of new logs;
    /// returns the cores that are to take it, and sentences about those that are known to hang.
    fn tell_plan(
        &mut self,
        next: &Arc<Next>,
        bound: &StillBound,
        each: impl Iterator<Item = (Sockets, Outlets)>,
    ) -> (Vec<Taking>, Vec<String>) {
        let reporter = &self.process.reporter;
        // Compiling thousands of routes takes longer than a core may pause.
        let is_other = self.next.plan.routes != next.plan.routes;
        let router = is_other.then(|| Router::compile(&next.plan.routes).ok()).flatten();
        let (mut taking, mut hung) = (Vec::new(), Vec::new());
        self.last_taken.resize_with(self.readers.cores.len(), || Some(closed()));
        for ((core, (sockets, outlets)), number) in self.readers.cores.iter().zip(each).zip(0..) {
            let (next, gone, moved) = (Arc::clone(next), bound.gone.clone(), bound.moved.clone());
            let (taken, taken_by) = bounded(0);
            let router = router.clone();
            let plan = CorePlan { next, router, outlets, sockets, moved, gone, taken };
            let last = self.last_taken.get_mut(number);
            // One that has not taken the last plan yet was waited for then.
            let is_behind = last.as_ref().is_some_and(|last| is_behind(last.as_ref()));
            let patience = if is_behind { Duration::ZERO } else { HEARD_WITHIN };
            let sent = core.send(ToCore::Plan(Box::new(plan)), Instant::now() + patience);
            if sent.is_err() {
                let thread = format!("core {number}").into();
                reporter.event(Event::ThreadHung { thread });
            } else if !is_behind {
                taking.push((number, taken_by.clone()));
            }
            if sent.is_err() || is_behind {
                hung.push(late(number));
            }
            last.into_iter().for_each(|last| *last = sent.is_ok().then(|| taken_by.clone()));
        }
        (taking, hung)
    }

    /// Gives what files of certificates have become to all cores; connections keep theirs.
    fn renew(&mut self, fresh: Fresh) {
        // Of a plan that is not in force any more, it comes too late.
        if fresh.number != self.fresh.number {
            return;
        }
        // Nothing of it can fail: rustls has accepted the same with other certificates.
        let Ok(tls) = ends::renewed(&self.next, &fresh.certs) else { return };
        let until = Instant::now() + HEARD_WITHIN;
        let _ = self.readers.health.send(ToHealth::Tls(Arc::clone(&tls)), until);
        for core in &self.readers.cores {
            if core.send(ToCore::Tls(Arc::clone(&tls)), until) == Err(Unheard) {
                self.process.reporter.event(Event::ThreadHung { thread: "a core".into() });
            }
        }
        self.fresh = fresh;
        // What was before is freed here and not on a core, which has let go of it by the next time.
        self.tls = [self.tls[1].take(), Some(tls)];
    }

    fn end_certificates(&mut self) {
        if let Some(thread) = self.certificates.end() {
            self.process.reporter.event(Event::ThreadHung { thread: thread.into() });
        }
    }

    /// What this plan would change. It binds new addresses and releases them, and does nothing
    /// else.
    fn compare(&self, edit: Edit) -> Result<Changed, Denied> {
        let is_read = edit.base.is_some();
        let (_, Composed { mut plan, misfits, .. }) = self.edited(edit)?;
        let before = &self.next.plan;
        let mut kept = keep(&before.global, &mut plan.global);
        let cores = match is_read {
            true => self.chosen(&mut plan, &mut kept)?.0.len(),
            false => self.serving.now().len(),
        };
        descriptors::fit(&mut plan.limits, cores, false).map_err(StartError::Descriptors)?;
        let (plan, changes) = self.ledger.compare(plan)?;
        let bound = StillBound::under(&plan, &self.bound);
        Addresses::take(&plan, cores, &bound.known(), &mut Given::default())?;
        let (generation, addresses) = (self.next.generation, self.addresses());
        let (closed, taking, late) = (self.closed(before, &plan), Vec::new(), Vec::new());
        Ok(Changed { changes, addresses, generation, kept, misfits, closed, taking, late })
    }

    /// The bound addresses, by the name of their listener.
    fn addresses(&self) -> Vec<(String, Endpoint)> {
        let name = |id: ListenerId| self.next.plan.listener(id).name.clone();
        self.bound.iter().map(|(id, _, bound)| (name(*id), *bound)).collect()
    }

    fn look(&self) -> (Look, Vec<Asked>) {
        let mut not_ready = Vec::new();
        if self.leaving {
            not_ready.push("the process is about to stop".to_owned());
        }
        not_ready.extend(self.empty_pools());
        let (generation, backends) = (self.next.generation, self.usable());
        let (addresses, silent_cores) = (self.addresses(), Vec::new());
        let before = self.kept.before().cloned();
        let cores = self.serving.now().len();
        let look = Look { generation, cores, addresses, not_ready, silent_cores, backends, before };
        (look, self.asked())
    }

    /// How many backends are usable, and how many there are.
    fn usable(&self) -> (usize, usize) {
        let Next { plan, pools, .. } = &*self.next;
        plan.pools.iter().fold((0, 0), |(up, all), (id, pool)| {
            let count = pool.backends.len();
            let seen = pools.get(id).and_then(|pool| pool.state.published.after(0));
            let is_up = |seen: &Publication| {
                pool.backends.ids().filter(|it| seen.usable.contains(*it)).count()
            };
            // Nothing is published before the first change: all are usable.
            (up + seen.as_ref().map_or(count, is_up), all + count)
        })
    }

    /// Passes a question on to the first core that serves.
    fn explain(&self, question: Box<Question>) -> Option<Receiver<Box<Answered>>> {
        let core = self.readers.cores.get(*self.serving.now().first()?)?;
        let (answer, answered) = bounded(1);
        let sent = core.send(ToCore::Explain(question, answer), Instant::now());
        sent.ok().map(|()| answered)
    }

    /// Asks all cores for a sign of life.
    fn asked(&self) -> Vec<Asked> {
        let asked = self.readers.cores.iter().map(|core| {
            let (answer, answered) = bounded(1);
            core.send(ToCore::Ping(answer), Instant::now()).ok().map(|()| answered)
        });
        asked.collect()
    }

    /// Pools named by a route or a listener that have no usable backend.
    fn empty_pools(&self) -> Vec<String> {
        let Next { plan, pools, .. } = &*self.next;
        let of_listeners = plan.listeners.values().filter_map(|listener| listener.pool);
        let named: HashSet<PoolId> =
            of_listeners.chain(plan.routes.values().map(|route| route.pool)).collect();
        let is_empty = |id: &PoolId| {
            let state = pools.get(*id).and_then(|pool| pool.state.published.after(0));
            state.is_some_and(|seen| {
                let sets = [seen.usable, seen.on_trial, seen.spare];
                let may_be_asked = |id| sets.iter().any(|set| set.contains(id));
                !plan.pool(*id).backends.ids().any(may_be_asked)
            })
        };
        let mut names: Vec<&str> =
            named.into_iter().filter(is_empty).map(|id| plan.pool(id).name.as_str()).collect();
        names.sort_unstable();
        names.into_iter().map(|name| format!("pool \"{name}\" has no usable backend")).collect()
    }

    pub(super) fn tell_health(&self, message: ToHealth) {
        let until = Instant::now() + HEARD_WITHIN;
        if self.readers.health.send(message, until) == Err(Unheard) {
            let thread = "the health thread".into();
            self.process.reporter.event(Event::ThreadHung { thread });
        }
    }
}

/// Keeps the settings that cannot change without a restart; returns the keys that would have
/// changed.
fn keep(now: &Global, next: &mut Global) -> Vec<&'static str> {
    let changed = [
        ("pin", now.pin != next.pin),
        ("driver", now.driver != next.driver),
        ("admin", now.admin != next.admin),
        ("log.format", now.log_format != next.log_format),
        ("state-dir", now.state_dir != next.state_dir),
        ("user", now.user != next.user),
    ];
    (next.pin, next.driver) = (now.pin, now.driver);
    next.admin.clone_from(&now.admin);
    next.log_format = now.log_format;
    next.state_dir.clone_from(&now.state_dir);
    next.user.clone_from(&now.user);
    changed.into_iter().filter_map(|(key, changed)| changed.then_some(key)).collect()
}
