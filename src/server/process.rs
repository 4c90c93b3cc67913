//! The process around the balancer: its first line, its signals, its end.
//!
//! It uses the handle like any embedder; a program that embeds the library does not need it, and
//! gets no signal handlers.

use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGUSR1, SIGUSR2, SIGXFSZ};
use tracing::{info, warn};

use super::{
    Handle, StartError, Stop,
    handle::Ended,
    operational_log,
    options::Options,
    signals::{Signals, exit_at_once},
    start::{Setup, begin},
    stderr,
};
use crate::plan::{Checked, LogFormat};

/// Serves until a signal ends it.
///
/// # Errors
/// If it cannot start.
pub(crate) fn run(plan: Checked) -> Result<(), StartError> {
    let shutdown = plan.global.shutdown;
    let (routes, pools) = (plan.routes.len(), plan.pools.len());
    let backends: usize = plan.pools.values().map(|pool| pool.backends.len()).sum();
    let (signals, starting) = Signals::hear()?;
    stderr::open()?;
    operational_log::install(&plan.global);
    let format = plan.global.log_format;
    let (options, starting) = (Options::of_the_process(), Some(starting));
    let mut handle = begin(plan, Setup { options, starting, ..Setup::default() })?;
    stderr::say(&first_line(&handle, routes, pools, backends));
    if format == LogFormat::Json {
        // A reader of JSON cannot parse the first line.
        let (version, driver) = (env!("CARGO_PKG_VERSION"), handle.driver().to_string());
        let (cores, listeners) = (handle.core_count(), handle.addresses().len());
        info!(version, driver, cores, listeners, routes, pools, backends, "started");
    }
    for (name, address) in handle.addresses() {
        info!("listener \"{name}\" on {address}");
    }
    handle.begin_to_tell();
    let lameduck = match first_end(&handle, &signals) {
        SIGINT => Duration::ZERO,
        _ => shutdown.lameduck,
    };
    stop(handle, lameduck, shutdown.drain);
    Ok(())
}

/// The first line that people see.
fn first_line(handle: &Handle, routes: usize, pools: usize, backends: usize) -> String {
    let many =
        |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let names: std::collections::HashSet<_> =
        handle.addresses().iter().map(|(name, _)| name).collect();
    let up = backends - handle.backends_without_address();
    format!(
        "ringway {}: {}, {} ({}), {}, {}, {} ({up}/{backends} backends up), admin off",
        env!("CARGO_PKG_VERSION"),
        handle.driver(),
        many(handle.core_count(), "core"),
        handle.cores(),
        many(names.len(), "listener"),
        many(routes, "route"),
        many(pools, "pool"),
    )
}

/// Waits for a signal that ends the process; handles the others as far as possible.
fn first_end(handle: &Handle, signals: &Signals) -> i32 {
    loop {
        match signals.next() {
            SIGHUP => warn!("HUP: reload has not landed yet; nothing was changed"),
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
fn stop(mut handle: Handle, lameduck: Duration, drain: Duration) {
    if !lameduck.is_zero() {
        info!("lameduck for {lameduck:?}");
        // No core ends by itself meanwhile.
        let _ = handle.wait(lameduck);
    }
    let connections = handle.count("connections");
    info!(connections, "draining for at most {drain:?}");
    let Ended { finished, hung } = handle.end_as(Stop::Graceful);
    let how = if finished { "all finished" } else { "unfinished connections were cut" };
    info!(
        connections_total = handle.count("connections_accepted_total"),
        requests_total = handle.count("requests_total"),
        access_log_dropped_total = handle.count("access_log_dropped_total"),
        "stopped: {how}"
    );
    stderr::flush();
    if !hung.is_empty() {
        // A thread that hangs must not keep the process.
        exit_at_once(1);
    }
}
