//! Start: from a plan to running threads.
//!
//! Everything that can fail comes before the first thread, except the threads themselves; a refused
//! start leaves nothing behind. Nothing here serves: `run.rs` is what a thread runs, and
//! `handle.rs` is what the caller holds.

use std::{path::PathBuf, sync::Arc, time::Duration};

use core_affinity::CoreId;
use crossbeam_channel::{Sender, bounded, unbounded};

use super::{
    StartError,
    access_logs::{AccessLogs, Outlets},
    addresses::Addresses,
    certificates::Certificates,
    changes::Changes,
    control::{Control, Owner},
    cores,
    crew::Crew,
    descriptors,
    given::Given,
    handle::Handle,
    health_thread::HealthThread,
    ledger::Ledger,
    names::{self, Lookup, Means},
    options::Options,
    readers::Readers,
    roster::Roster,
    run::Sockets,
    serving::{Serving, Spare},
    spawn::{self, CoreJob, Death, READY_WITHIN, Ready},
    state_file::{self, Kept, StateFile},
    tell::Telling,
    upgrade::{self, State},
};
use crate::health;
use crate::net::{chance, runtime::DriverInUse};
use crate::observe::{
    carried::Counts,
    event::Event,
    reports::{self, Reporter},
    statistics::Sources,
};
use crate::plan::{Checked, Plan};
use crate::policy::{
    lookups::Members,
    overlay::{Composed, Layers},
};
use crate::shared::{
    counters::Slab,
    inbox::{Inbox, Outbox, mailbox},
    levels::Levels,
    outcomes::{self, Outcomes},
    passages::Passages,
    permits::Permits,
    rooms::Rooms,
    spares::Spares,
};
use crate::worker::{Next, Process, Retired, ToCore, WorkerSeed};

/// Starts the balancer that a plan describes, in a process that it leaves unchanged.
///
/// # Errors
/// Why it cannot start; nothing is left running then.
pub fn start(plan: Checked) -> Result<Handle, StartError> {
    start_with(plan, Options::default())
}

/// Like `start`, with what the options allow it to do to the process.
///
/// # Errors
/// Like `start`.
pub fn start_with(plan: Checked, options: Options) -> Result<Handle, StartError> {
    let mut handle = begin(plan, Setup { options, ..Setup::default() })?;
    handle.begin_to_tell();
    Ok(handle)
}

/// Further choices of the binary and of this crate's tests.
pub(super) struct Setup {
    pub(super) options: Options,
    /// How names are looked up; none = by name servers.
    pub(super) lookup: Option<Lookup>,
    /// How long a start waits for the first answers for names.
    pub(super) first_answers: Duration,
    /// Dropped before the first core serves: from then on a stop has something to finish.
    pub(super) starting: Option<Sender<()>>,
    /// Listening sockets that another process has opened.
    pub(super) given: Given,
    /// The files of the configuration, if it came from files: run-time changes are kept for them.
    pub(super) files: Vec<PathBuf>,
    /// What the process before this one knew; it says when connections are accepted.
    pub(super) before: Option<State>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            options: Options::default(),
            lookup: None,
            first_answers: names::FIRST_ANSWERS,
            starting: None,
            given: Given::default(),
            files: Vec::new(),
            before: None,
        }
    }
}

/// Starts everything; nothing is logged yet.
pub(super) fn begin(plan: Checked, setup: Setup) -> Result<Handle, StartError> {
    let Setup { options, lookup, first_answers, starting, mut given, files, .. } = setup;
    let directories = state_file::directories(&plan.global, &options.state_directories);
    let mut state = (!files.is_empty()).then(|| StateFile::new(&directories, &files));
    let holds_back = setup.before.is_some();
    let before = setup.before.unwrap_or_default();
    let State { pseudonym, secret, ticket_secret, counts, backends, times } = before;
    let mut ledger = Ledger::new(directories);
    ledger.inherit([secret, ticket_secret]);
    let base = Arc::new(plan.into_plan());
    let Kept { overlay, dropped } =
        state.as_mut().map_or_else(Kept::default, |state| state.read(&base));
    let mut layers = Layers { base, overlay, members: Members::new() };
    let (mut plan, _) = ledger.seat(layers.compose().plan)?;
    let chosen = cores::choose(&plan.global.cores).map_err(StartError::Cores)?;
    let cores = chosen.cores.len();
    let (reporter, told) = reports::channel();
    let death = Death::new(options.exit_on_death, &reporter);
    let may_raise = options.raise_descriptor_limit;
    let lowered =
        descriptors::fit(&mut plan.limits, cores, may_raise).map_err(StartError::Descriptors)?;
    descriptors::make_room(&plan.limits, cores);
    let mut bound = Addresses::take(&plan, cores, &[], &mut given)?;
    let (mut certificates, renewed) = Certificates::new(death.clone(), reporter.clone());
    let fresh = certificates.read(&plan)?;
    let (mut outboxes, mut inboxes) = mailboxes(chosen.room)?;
    let (to_health, inbox) = one_mailbox()?;
    let of_cores = outboxes.iter().take(cores).cloned().collect();
    let readers = Readers { cores: of_cores, health: to_health.clone() };
    let mut counters: Vec<_> = (0..chosen.room).map(|_| Slab::new()).collect();
    let of_logs = Slab::new();
    let mut access_logs = AccessLogs::new(Arc::clone(&of_logs), reporter.clone());
    let outlets = access_logs.outlets(&plan, None, cores)?;
    let (outcomes, posted) = outcomes::channel(to_health.rope().clone());
    let (to_control, retired) = unbounded();
    let tell = (reporter.clone(), outcomes, to_control);
    let mut process = process((&outboxes, &counters), tell, (pseudonym, options.trim_memory));
    // The process before this one has a row, too.
    process.cores += usize::from(holds_back);
    counters.push(of_logs);
    let earlier = Slab::new();
    counters.push(Arc::clone(&earlier));
    let servers = options.name_servers;
    let lookup = lookup.unwrap_or_else(|| names::by_the_system(servers));
    let mut roster = Roster::new(Means::new(lookup, &reporter, &death));
    roster.first(&mut layers, first_answers).map_err(StartError::system("look names up"))?;
    // Seats of listeners, routes and pools follow from their names and are those of before.
    let Composed { plan: resolved, surplus, .. } = layers.compose();
    let (plan, _) = ledger.seat(Plan { limits: plan.limits, ..resolved })?;
    roster.note(surplus, &reporter);
    let unknown = plan.pools.values().flat_map(|pool| pool.backends.values());
    let unknown = unknown.filter(|backend| backend.address.is_looked_up()).count();
    let later = outboxes.drain(cores..).zip(inboxes.drain(cores..)).zip(&counters[cores..]);
    let later = later.map(|((outbox, inbox), counters)| Spare {
        outbox,
        inbox,
        counters: Arc::clone(counters),
    });
    // The one that is started next is the last.
    let later: Vec<Spare> = later.rev().collect();
    let (next, of_secrets) = ledger.next(plan, &process, (None, &fresh.certs, cores))?;
    upgrade::tell_times(&next, times, chosen.room);
    ledger.publish(&next, cores);
    certificates.keep(&fresh);
    let plan = Arc::clone(&next.plan);
    counts.add_to(&earlier, &plan, &Counts::default());
    let addresses = bound.named(&plan);
    lowered
        .into_iter()
        .chain(of_secrets)
        .chain(given.close())
        .chain(dropped)
        .for_each(|event| reporter.event(event));
    bound.listen(&plan)?;
    let own = Slab::new();
    counters.push(Arc::clone(&own));
    let of_health = Slab::new();
    counters.push(Arc::clone(&of_health));
    let telling = Telling::start((reporter.clone(), told), plan, counters.clone(), own)
        .map_err(StartError::system("start the log's thread"))?;
    let job = health::HealthJob {
        next: Arc::clone(&next),
        inbox,
        posted,
        reporter: reporter.clone(),
        counters: of_health,
        rooms: process.rooms.clone(),
        ropes: Arc::clone(&process.ropes),
        carried: upgrade::known(&next.plan, backends),
    };
    let watch = HealthThread::start(to_health, job, &death)?;
    let (of_addresses, files) = (bound.bound(), bound.files());
    let sockets = bound.share_out(cores);
    let mut kept = upgrade::Kept::new(Some((earlier, counts)), &sockets)
        .map_err(StartError::system("copy the listening sockets"))?;
    kept.keep_files(files);
    let is_pinned = chosen.may_pin && next.plan.global.pin;
    let (serving, later_ended) = Serving::new((&chosen.cores, is_pinned), later);
    let owner = Owner {
        serving,
        process: process.clone(),
        retired,
        readers,
        roster,
        death: death.clone(),
        may_raise,
        access_logs,
        ledger,
        sources: Sources::new(counters.clone(), cores),
        next: Arc::clone(&next),
        layers,
        last_taken: (0..cores).map(|_| Some(bounded(0).1)).collect(),
        reloaded: true,
        bound: of_addresses,
        leaving: false,
        certificates,
        renewed,
        fresh,
        tls: [None, None],
        kept,
    };
    let control = Control::start(owner).map_err(StartError::system("start the control thread"))?;
    let changes = Changes::start(control.client().clone(), reporter.clone(), state)?;
    let mut handle = Handle {
        addresses,
        changes,
        drain: next.plan.global.shutdown.drain,
        driver: DriverInUse::IoUring,
        cores: chosen.text.clone(),
        backends_without_address: unknown,
        counters,
        crew: Crew::new(reporter),
        later_ended,
        held_back: Vec::new(),
        control,
        watch,
        telling,
    };
    let sockets = match holds_back {
        true => std::mem::replace(&mut handle.held_back, sockets),
        false => sockets,
    };
    let sockets = sockets.into_iter().chain(std::iter::repeat_with(Vec::new));
    let given = outboxes.into_iter().zip(inboxes).zip(sockets.into_iter().zip(outlets));
    drop(starting);
    let each = chosen.cores.into_iter().map(|core| is_pinned.then_some(core)).zip(given);
    spawn_all(&mut handle, (process, next), &death, each)?;
    Ok(handle)
}

/// The inputs of one core: its mailbox, its sockets, its ends of the logs.
type CoreShare = ((Outbox<ToCore>, Inbox<ToCore>), (Sockets, Outlets));

/// Starts the workers and waits until all of them serve.
fn spawn_all(
    handle: &mut Handle,
    (process, next): (Process, Arc<Next>),
    death: &Death,
    cores: impl Iterator<Item = (Option<CoreId>, CoreShare)>,
) -> Result<(), StartError> {
    let global = &next.plan.global;
    let (ready, readiness) = bounded::<Ready>(next.cores);
    for (core_index, (core, ((outbox, inbox), (sockets, outlets)))) in cores.enumerate() {
        let counters = Arc::clone(&handle.counters[core_index]);
        let job = CoreJob {
            process: process.clone(),
            next: Arc::clone(&next),
            own: WorkerSeed { core_index, counters, outlets },
            core,
            driver: global.driver,
            sockets,
            inbox,
            ready: ready.clone(),
            alive: None,
        };
        let thread = spawn::spawn(job, death)
            .map_err(StartError::system(format!("start core {core_index}")))?;
        handle.crew.add(outbox, thread);
    }
    drop(ready);
    let mut reason = None;
    for _ in 0..next.cores {
        let said = readiness.recv_timeout(READY_WITHIN);
        let (driver, why) = said.map_err(|_| StartError::Hung("a core".into()))??;
        handle.driver = driver;
        reason = why.or(reason);
    }
    // All cores have the same.
    if let Some(why) = reason {
        handle.telling.reporter().event(Event::DriverFallback { cause: why.into() });
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
    mailbox().map_err(StartError::system("make a mailbox"))
}

/// What all workers share, whatever plan is in force.
fn process(
    (outboxes, counters): (&[Outbox<ToCore>], &[Arc<Slab>]),
    (reporter, outcomes, retired): (Reporter, Outcomes, Sender<Retired>),
    (pseudonym, trims_memory): (Option<String>, bool),
) -> Process {
    let cores = outboxes.len();
    let ropes = || outboxes.iter().map(|outbox| outbox.rope().clone());
    Process {
        cores,
        pseudonym: pseudonym.map_or_else(drawn_pseudonym, Arc::from),
        trims_memory,
        connections: Permits::new(0),
        outcomes,
        rooms: Rooms::new(cores),
        ropes: ropes().collect(),
        spares: Spares::new(counters.iter().cloned(), ropes()),
        levels: Levels::new(cores),
        passages: Passages::new(ropes()),
        reporter,
        retired,
    }
}

/// `ringway-` and eight hex digits, for Via.
fn drawn_pseudonym() -> Arc<str> {
    format!("ringway-{:08x}", chance::drawn() as u32).into()
}
