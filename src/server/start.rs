//! From a plan to running threads.
//!
//! Everything that can fail comes before the first thread, but for the threads themselves; a
//! refused start leaves nothing behind. Nothing here serves: `run.rs` is what a thread runs, and
//! `handle.rs` is what whoever started them holds.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use core_affinity::CoreId;
use crossbeam_channel::{Sender, bounded};

use super::{
    access_logs::{AccessLogs, Outlets},
    addresses::Addresses,
    cores,
    crew::Crew,
    descriptors,
    handle::Handle,
    names::{self, Lookup, Names, Readers},
    run::Sockets,
    secrets,
    spawn::{self, Job, READY_WITHIN, Ready},
    tell::Telling,
    watch::Watch,
};
use crate::health;
use crate::net::{chance, runtime::DriverInUse};
use crate::observe::{
    event::Event,
    told::{self, Teller},
};
use crate::plan::{PathPattern, Plan, Table, path_regex};
use crate::policy::seats::{self, Held};
use crate::shared::{
    counters::Slab,
    inbox::{Inbox, Outbox, ToCore, mailbox},
    outcomes::{self, Outcomes},
    permits::Permits,
    rooms::Rooms,
    spares::Spares,
};
use crate::worker::{Next, Own, Process, States};

/// Why nothing was started: one sentence for people.
#[derive(Debug)]
pub struct StartError(pub(super) String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// Starts the balancer that a plan describes.
///
/// # Errors
/// One sentence, and nothing is left running: an address is taken, the cores are not ours,
/// io_uring was insisted on and is not permitted, descriptors are too few, an expression does not
/// compile.
pub fn start(plan: Plan) -> Result<Handle, StartError> {
    let mut handle = start_with(plan, Options::default())?;
    handle.begin_to_tell();
    Ok(handle)
}

/// What the process and the tests of this crate choose for themselves.
pub(super) struct Options {
    /// How names are looked up.
    pub(super) lookup: Lookup,
    /// How long a start waits for the first answers for names.
    pub(super) first_answers: Duration,
    /// Where the state of the process may be, the best place first.
    pub(super) state: Vec<PathBuf>,
    /// Dropped before the first core serves: from then on a stop has something to finish.
    pub(super) starting: Option<Sender<()>>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            lookup: names::by_the_system(),
            first_answers: names::FIRST_ANSWERS,
            state: secrets::state_directories(),
            starting: None,
        }
    }
}

/// As `start`.
pub(super) fn start_with(plan: Plan, options: Options) -> Result<Handle, StartError> {
    let Options { lookup, first_answers, state, starting } = options;
    check_expressions(&plan)?;
    let (mut plan, _) = seats::seat(plan, &Held::new(), &Table::new())
        .map_err(|refused| StartError(refused.to_string()))?;
    let chosen = cores::choose(&plan.global.cores).map_err(StartError)?;
    let cores = chosen.cores.len();
    let (teller, told) = told::channel();
    let lowered = descriptors::fit(&mut plan.limits, cores).map_err(StartError)?;
    let bound = Addresses::take(&plan, cores)?;
    let (outboxes, inboxes) = mailboxes(cores)?;
    let (to_health, inbox) = one_mailbox()?;
    let readers = Readers { cores: outboxes.clone(), health: to_health.clone() };
    let mut names = Names::begin(&plan, lookup, teller.clone(), readers.clone())
        .map_err(|error| StartError(format!("cannot look names up: {error}")))?;
    let mut counters: Vec<_> = (0..cores).map(|_| Slab::new()).collect();
    let (access_logs, outlets) = AccessLogs::open(&plan, &mut counters, &teller)?;
    let (outcomes, posted) = outcomes::channel(to_health.rope().clone());
    let (pins, of_secrets) = secrets::pins(&plan, &state)?;
    let plan = Arc::new(plan);
    let process = process((&outboxes, &counters), (teller.clone(), outcomes));
    let mut states = States::default();
    states.grow(&plan, cores, &process.rooms);
    let next = Arc::new(states.next((1, Arc::clone(&plan)), pins, chance::drawn()));
    let addresses = bound.named(&plan);
    let unknown = names.as_mut().map_or(0, |names| names.first(first_answers, &readers));
    lowered.into_iter().chain(of_secrets).for_each(|event| teller.event(event));
    bound.listen(&plan)?;
    let own = Slab::new();
    counters.push(Arc::clone(&own));
    let telling = Telling::start((teller.clone(), told), plan, counters.clone(), own)
        .map_err(|error| StartError(format!("cannot start the log's thread: {error}")))?;
    let job = health::Job { next: Arc::clone(&next), inbox, posted, teller: teller.clone() };
    let watch = Watch::start(to_health, job)?;
    let mut handle = Handle {
        addresses,
        drain: next.plan.global.shutdown.drain,
        driver: DriverInUse::IoUring,
        cores: chosen.text.clone(),
        backends_without_address: unknown,
        counters,
        crew: Crew::new(teller),
        names,
        watch,
        access_logs,
        telling,
    };
    let sockets = bound.share_out(cores);
    let given = outboxes.into_iter().zip(inboxes).zip(sockets.into_iter().zip(outlets));
    drop(starting);
    let pinned = chosen.may_pin && next.plan.global.pin;
    let each = chosen.cores.into_iter().map(|core| pinned.then_some(core)).zip(given);
    spawn_all(&mut handle, (process, next), each)?;
    Ok(handle)
}

/// Refuses a plan with an expression that no core could compile. `config` has tried those of files;
/// a plan may come from elsewhere, and would lose its routes without a word.
fn check_expressions(plan: &Plan) -> Result<(), StartError> {
    for route in plan.routes.values() {
        let PathPattern::Regex(expression) = &route.path else { continue };
        if let Err(error) = path_regex(expression) {
            // The library draws a picture; its last line says what is wrong.
            let picture = error.to_string();
            let said = picture.lines().last().unwrap_or_default();
            let said = said.strip_prefix("error: ").unwrap_or(said);
            let refusal = format!("the expression of route \"{}\" does not compile: ", route.name);
            return Err(StartError(refusal + said));
        }
    }
    Ok(())
}

/// What one core is given: its mailbox, its sockets, its ends of the logs.
type Given = ((Outbox<ToCore>, Inbox<ToCore>), (Sockets, Outlets));

/// Starts the workers and waits until all of them serve.
fn spawn_all(
    handle: &mut Handle,
    (process, next): (Process, Arc<Next>),
    cores: impl Iterator<Item = (Option<CoreId>, Given)>,
) -> Result<(), StartError> {
    let global = &next.plan.global;
    let (ready, readiness) = bounded::<Ready>(process.cores);
    for (core_index, (core, ((outbox, inbox), (sockets, outlets)))) in cores.enumerate() {
        let counters = Arc::clone(&handle.counters[core_index]);
        let job = Job {
            process: process.clone(),
            next: Arc::clone(&next),
            own: Own { core_index, counters, outlets },
            core,
            driver: global.driver,
            sockets,
            inbox,
            ready: ready.clone(),
        };
        let thread = spawn::spawn(job)
            .map_err(|error| StartError(format!("cannot start core {core_index}: {error}")))?;
        handle.crew.add(outbox, thread);
    }
    drop(ready);
    let mut reason = None;
    for _ in 0..process.cores {
        let said = readiness.recv_timeout(READY_WITHIN);
        let said =
            said.map_err(|_| StartError("a core hangs at its start, or has ended".into()))?;
        let (driver, why) = said.map_err(StartError)?;
        handle.driver = driver;
        reason = why.or(reason);
    }
    // All cores have the same.
    if let Some(why) = reason {
        handle.telling.teller().event(Event::DriverFallback { cause: why.into() });
    }
    Ok(())
}

/// Both ends of the mailboxes of all cores.
type Mailboxes = (Vec<Outbox<ToCore>>, Vec<Inbox<ToCore>>);

/// A mailbox for each core.
fn mailboxes(cores: usize) -> Result<Mailboxes, StartError> {
    let all: Result<Vec<_>, _> = (0..cores).map(|_| one_mailbox()).collect();
    Ok(all?.into_iter().unzip())
}

fn one_mailbox<T>() -> Result<(Outbox<T>, Inbox<T>), StartError> {
    mailbox().map_err(|error| StartError(format!("cannot make a mailbox: {error}")))
}

/// What all workers share, whatever plan is in force.
fn process(
    (outboxes, counters): (&[Outbox<ToCore>], &[Arc<Slab>]),
    (teller, outcomes): (Teller, Outcomes),
) -> Process {
    let cores = outboxes.len();
    let ropes = || outboxes.iter().map(|outbox| outbox.rope().clone());
    Process {
        cores,
        pseudonym: pseudonym(),
        connections: Permits::new(0),
        outcomes,
        rooms: Rooms::new(cores),
        ropes: ropes().collect(),
        spares: Spares::new(counters.iter().cloned(), ropes()),
        teller,
        retired: crossbeam_channel::unbounded().0,
    }
}

/// `ringway-` and eight hex digits, for Via.
fn pseudonym() -> Arc<str> {
    format!("ringway-{:08x}", chance::drawn() as u32).into()
}
