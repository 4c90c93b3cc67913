//! The process around the balancer: its first line, its signals, its end.
//!
//! It uses the handle like any embedder; a program that embeds the library does not need it, and
//! gets no signal handlers.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use signal_hook::consts::{SIGHUP, SIGINT, SIGUSR1, SIGUSR2, SIGXFSZ};
use tracing::{info, warn};

use super::{
    Handle, StartError, Stop,
    admin_doors::{AdminInterface, AdminSockets},
    given::Given,
    handle::Ended,
    operational_log,
    options::Options,
    reload::Source,
    secrets::state_directories,
    service_manager::ServiceManager,
    signals::{Signals, ToMain, exit_at_once},
    start::{Setup, begin},
    state_file, stderr,
    upgrade::{Means, Taker, Upgrades},
    user::{become_user, unreadable},
};
use crate::admin::{Closing, admin_sockets};
use crate::observe::event::Event;
use crate::plan::{Checked, LogFormat, Plan};

/// Serves until a signal ends the process. A reload reads `source` again, if there is one.
///
/// # Errors
/// Why it does not start.
pub(crate) fn run(plan: Checked, source: Option<Source>) -> Result<(), StartError> {
    let (shutdown, admin) = (plan.global.shutdown, plan.global.admin.clone());
    let (routes, pools) = (plan.routes.len(), plan.pools.len());
    let backends: usize = plan.pools.values().map(|pool| pool.backends.len()).sum();
    let files = source.as_ref().map_or_else(Vec::new, |source| source.files.clone());
    let user = plan.global.user.clone();
    let states = state_file::directories(&plan.global, &state_directories());
    if let Some(user) = &user {
        become_user(user, &folders(&files, &plan))?;
    }
    let (signals, starting) = Signals::hear()?;
    stderr::open()?;
    let log = operational_log::install(&plan.global);
    let format = plan.global.log_format;
    let (options, starting) = (Options::of_the_process(), Some(starting));
    let (taker, given, admin_sockets, before) = match Taker::find()? {
        Some((taker, given, admin, state)) => (Some(taker), given, admin, Some(state)),
        None => (None, Given::by_the_manager()?, AdminSockets::default(), None),
    };
    let own = files.clone();
    let setup = Setup { options, starting, given, before, files: own, ..Setup::default() };
    let mut handle = begin(plan, setup)?;
    let manager = ServiceManager::find(handle.client(), handle.counters.clone())?;
    handle.changes().attach(source, manager.clone(), log);
    let mut admin = AdminInterface::bind(&admin, &files, admin_sockets)?;
    let means = Means {
        client: handle.client(),
        reporter: handle.reporter().clone(),
        manager: manager.clone(),
        main: signals.sender(),
        counters: handle.counters.clone(),
        drain: shutdown.drain,
    };
    let (upgrades, running) = Upgrades::start(means)?;
    stderr::say(&first_line(&handle, admin.address, [routes, pools, backends]));
    if format == LogFormat::Json {
        // A reader of JSON cannot parse the first line.
        let (version, driver) = (env!("CARGO_PKG_VERSION"), handle.driver().to_string());
        let (cores, listeners) = (handle.core_count(), handle.addresses().len());
        info!(version, driver, cores, listeners, routes, pools, backends, "started");
    }
    for (name, address) in handle.addresses() {
        info!("listener \"{name}\" on {address}");
    }
    if let Some(why) = &admin.given_up {
        warn!("admin interface off: {why}; choose an address with --admin, or `admin` in [global]");
    }
    if let Some(user) = user {
        let unread = unreadable(&files).into_iter();
        unread.for_each(|file| {
            warn!("{file} cannot be read by the user \"{user}\": a reload will be refused");
        });
    }
    handle.begin_to_tell();
    if let Some(taker) = &taker {
        taker.is_ready();
        handle.accept();
    }
    admin.open((&files, Some(states)), &handle, Some(&upgrades))?;
    let addresses = handle.addresses().to_vec();
    let stops = match taker {
        // The manager hears of this process when the old one has named it.
        Some(taker) => Some(
            taker
                .serves(addresses, handle.client(), manager.clone())
                .map_err(StartError::system("take over"))?,
        ),
        None => {
            manager.ready();
            None
        }
    };
    let end = first_end(&handle, (&signals, &upgrades), &mut admin);
    running.end();
    if let Some(stops) = stops {
        stops.tell();
    }
    handle.client().leave();
    manager.stopping();
    match end {
        End::Signal(SIGINT) => stop(handle, Duration::ZERO, Stop::Graceful),
        End::Signal(_) => {
            let shutdown = handle.client().shutdown().unwrap_or(shutdown);
            stop(handle, shutdown.lameduck, Stop::Graceful);
        }
        End::LetGo { finished: true } => stop(handle, Duration::ZERO, Stop::Graceful),
        End::LetGo { finished: false } => stop(handle, Duration::ZERO, Stop::Now),
    }
    drop(admin);
    Ok(())
}

/// Why the process ends.
enum End {
    Signal(i32),
    /// Another process has taken over, and everything here has finished or its time is over.
    LetGo {
        finished: bool,
    },
}

/// The folders of the system that a process with these files uses.
fn folders(files: &[PathBuf], plan: &Plan) -> Vec<PathBuf> {
    let socket = admin_sockets(files).into_iter().next();
    let of_socket = socket.and_then(|path| Some(path.parent()?.to_path_buf()));
    let states = state_file::directories(&plan.global, &state_directories());
    of_socket.into_iter().chain(states.into_iter().take(1)).collect()
}

/// The first line that is printed.
fn first_line(
    handle: &Handle,
    admin: Option<SocketAddr>,
    [routes, pools, backends]: [usize; 3],
) -> String {
    let many =
        |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let names: std::collections::HashSet<_> =
        handle.addresses().iter().map(|(name, _)| name).collect();
    let up = backends - handle.backends_without_address();
    format!(
        "ringway {}: {}, {} ({}), {}, {}, {} ({up}/{backends} backends up), admin {}",
        env!("CARGO_PKG_VERSION"),
        handle.driver(),
        many(handle.core_count(), "core"),
        handle.cores(),
        many(names.len(), "listener"),
        many(routes, "route"),
        many(pools, "pool"),
        admin.map_or("off".into(), |address| format!("http://{address}")),
    )
}

/// Waits for what ends the process, and carries out the rest.
fn first_end(
    handle: &Handle,
    (signals, upgrades): (&Signals, &Upgrades),
    admin: &mut AdminInterface,
) -> End {
    let path = admin.path();
    loop {
        match signals.next() {
            ToMain::Signal(SIGHUP) => handle.changes().begin_reload("HUP"),
            ToMain::Signal(SIGUSR1) if handle.reopen_logs() => {
                info!("USR1: reopening access logs");
            }
            ToMain::Signal(SIGUSR1) => warn!("USR1: there is no access log to reopen"),
            ToMain::Signal(SIGUSR2) => upgrades.begin("USR2"),
            ToMain::Signal(SIGXFSZ) => {}
            ToMain::Signal(end) => return End::Signal(end),
            ToMain::LetGo { finished } => return End::LetGo { finished },
            ToMain::AdminSockets(answer) => _ = answer.send(admin.sockets()),
            ToMain::Admin { is_open: false, answer } => {
                admin.leave();
                let _ = answer.send(admin.close());
            }
            ToMain::Admin { is_open: true, answer } => {
                admin.take_back(path.clone());
                if let Err(why) = admin.reopen() {
                    warn!("{why}");
                }
                let _ = answer.send(Closing::default());
            }
        }
    }
}

/// Lameduck, drain, end. Nothing here can fail or needs a thread that does not exist yet; a second
/// signal ends the process meanwhile (`signals.rs`).
fn stop(mut handle: Handle, lameduck: Duration, how: Stop) {
    if !lameduck.is_zero() {
        handle.reporter().event(Event::Lameduck { time: lameduck });
        // No core ends by itself meanwhile.
        let _ = handle.wait(lameduck);
    }
    let Ended { hung, .. } = handle.end_as(how);
    stderr::flush();
    if !hung.is_empty() {
        // A thread that hangs must not keep the process.
        exit_at_once(1);
    }
}
