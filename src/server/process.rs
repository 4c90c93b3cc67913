//! The process around the balancer: its first line, its signals, its end.
//!
//! It uses the handle like any embedder; a program that embeds the library does not need it, and
//! gets no signal handlers.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use signal_hook::consts::{SIGHUP, SIGINT, SIGUSR1, SIGUSR2, SIGXFSZ};
use tracing::{info, warn};

use super::{
    Handle, StartError, Stop, admin_doors,
    given::Given,
    handle::Ended,
    operational_log,
    options::Options,
    reload::Source,
    secrets::state_directories,
    service_manager::ServiceManager,
    signals::{Signals, exit_at_once},
    start::{Setup, begin},
    state_file, stderr,
    user::{become_user, unreadable},
};
use crate::admin::admin_sockets;
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
    if let Some(user) = &user {
        become_user(user, &folders(&files, &plan))?;
    }
    let (signals, starting) = Signals::hear()?;
    stderr::open()?;
    operational_log::install(&plan.global);
    let format = plan.global.log_format;
    let (options, starting) = (Options::of_the_process(), Some(starting));
    let given = Given::by_the_manager()?;
    let mut handle =
        begin(plan, Setup { options, starting, given, files: files.clone(), ..Setup::default() })?;
    let manager = ServiceManager::find(handle.client(), handle.counters.clone())?;
    handle.changes().attach(source, manager.clone());
    let opened = admin_doors::open(&admin, &files, &handle)?;
    stderr::say(&first_line(&handle, opened.address, [routes, pools, backends]));
    if format == LogFormat::Json {
        // A reader of JSON cannot parse the first line.
        let (version, driver) = (env!("CARGO_PKG_VERSION"), handle.driver().to_string());
        let (cores, listeners) = (handle.core_count(), handle.addresses().len());
        info!(version, driver, cores, listeners, routes, pools, backends, "started");
    }
    for (name, address) in handle.addresses() {
        info!("listener \"{name}\" on {address}");
    }
    if let Some(why) = &opened.given_up {
        warn!("admin interface off: {why}; choose an address with --admin, or `admin` in [global]");
    }
    if let Some(user) = user {
        let unread = unreadable(&files).into_iter();
        unread.for_each(|file| {
            warn!("{file} cannot be read by the user \"{user}\": a reload will be refused");
        });
    }
    handle.begin_to_tell();
    manager.ready();
    let lameduck = match first_end(&handle, &signals) {
        SIGINT => Duration::ZERO,
        _ => shutdown.lameduck,
    };
    handle.client().leave();
    manager.stopping();
    stop(handle, lameduck);
    drop(opened);
    Ok(())
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

/// Waits for a signal that ends the process, and carries out the others.
fn first_end(handle: &Handle, signals: &Signals) -> i32 {
    loop {
        match signals.next() {
            SIGHUP => handle.changes().begin_reload("HUP"),
            SIGUSR1 if handle.reopen_logs() => info!("USR1: reopening access logs"),
            SIGUSR1 => warn!("USR1: there is no access log to reopen"),
            SIGUSR2 => warn!("USR2: upgrade has not landed yet; nothing was changed"),
            SIGXFSZ => {}
            end => return end,
        }
    }
}

/// Lameduck, drain, end. Nothing here can fail or needs a thread that does not exist yet; a second
/// signal ends the process meanwhile (`signals.rs`).
fn stop(mut handle: Handle, lameduck: Duration) {
    if !lameduck.is_zero() {
        handle.reporter().event(Event::Lameduck { time: lameduck });
        // No core ends by itself meanwhile.
        let _ = handle.wait(lameduck);
    }
    let Ended { hung, .. } = handle.end_as(Stop::Graceful);
    stderr::flush();
    if !hung.is_empty() {
        // A thread that hangs must not keep the process.
        exit_at_once(1);
    }
}
