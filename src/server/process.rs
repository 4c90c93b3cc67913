//! The process around the balancer: its first line, its signals, its end.
//!
//! It uses the handle as anybody would; who embeds the library has no need of it, and gets no
//! signal handlers.

use std::{
    io::{Write as _, stderr},
    time::{Duration, Instant},
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ},
    iterator::Signals,
};
use tracing::{info, warn};

use super::{
    Handle, StartError, Stop,
    handle::Ended,
    operational_log,
    start::{Options, start_with},
};
use crate::plan::{LogFormat, Plan};

/// What the process is told by signals. XFSZ comes where a log has become as large as a file may
/// (`ulimit -f`): it would end who does not listen, and the write says enough.
const SIGNALS: [i32; 7] = [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGXFSZ];

/// Serves until a signal ends it.
///
/// # Errors
/// Where it cannot start.
pub fn run(plan: Plan) -> Result<(), StartError> {
    let shutdown = plan.global.shutdown;
    let (routes, pools) = (plan.routes.len(), plan.pools.len());
    let backends: usize = plan.pools.iter().map(|pool| pool.backends.len()).sum();
    let mut signals = Signals::new(SIGNALS)
        .map_err(|error| StartError(format!("cannot wait for signals: {error}")))?;
    operational_log::install(&plan.global);
    let format = plan.global.log_format;
    let report = Box::new(|is_worse, line: &str| match is_worse {
        true => warn!("{line}"),
        false => info!("{line}"),
    });
    let mut handle = start_with(plan, Options { report, ..Options::default() })?;
    // Nobody may be left to read it.
    let _ = writeln!(stderr(), "{}", first_line(&handle, routes, pools, backends));
    if format == LogFormat::Json {
        // Whoever reads JSON cannot read the first line.
        let (version, driver) = (env!("CARGO_PKG_VERSION"), handle.driver().to_string());
        let (cores, listeners) = (handle.core_count(), handle.addresses().len());
        info!(version, driver, cores, listeners, routes, pools, backends, "started");
    }
    for note in handle.notes() {
        warn!("{note}");
    }
    for (name, address) in handle.addresses() {
        info!("listener \"{name}\" on {address}");
    }
    handle.begin_to_tell();
    let lameduck = match first_end(&handle, &mut signals) {
        SIGINT => Duration::ZERO,
        _ => shutdown.lameduck,
    };
    stop(handle, lameduck, shutdown.drain, signals);
    Ok(())
}

/// What people see first.
fn first_line(handle: &Handle, routes: usize, pools: usize, backends: usize) -> String {
    let many =
        |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let names: std::collections::HashSet<_> =
        handle.addresses().into_iter().map(|(name, _)| name).collect();
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

/// Waits for a signal that ends the process; the others are answered as far as they can be.
fn first_end(handle: &Handle, signals: &mut Signals) -> i32 {
    for signal in signals.forever() {
        match signal {
            SIGHUP => warn!("HUP: reload has not landed yet; nothing was changed"),
            SIGUSR1 if handle.reopen_logs() => info!("USR1: reopening access logs"),
            SIGUSR1 => warn!("USR1: there is no access log to reopen"),
            SIGUSR2 => warn!("USR2: upgrade has not landed yet; nothing was changed"),
            SIGXFSZ => {}
            end => return end,
        }
    }
    SIGTERM
}

/// Ends the process whatever its cores are doing.
#[expect(clippy::disallowed_methods, reason = "who tells twice waits for nothing, not even a core")]
fn exit_at_once(code: i32) -> ! {
    std::process::exit(code)
}

/// Two signals this close together are one: `timeout` and some supervisors tell the process and
/// its group in the same moment.
const SAME: Duration = Duration::from_millis(20);

/// Lameduck, drain, end; a second signal ends at once.
fn stop(mut handle: Handle, lameduck: Duration, drain: Duration, mut signals: Signals) {
    let told = Instant::now();
    std::thread::spawn(move || {
        let again = signals
            .forever()
            .find(|signal| [SIGTERM, SIGINT, SIGQUIT].contains(signal) && told.elapsed() > SAME);
        if again.is_some() {
            warn!("told twice: ending at once");
            exit_at_once(0);
        }
    });
    if !lameduck.is_zero() {
        info!("lameduck for {lameduck:?}");
        // No core ends by itself meanwhile; a second signal ends them all.
        let _ = handle.wait(lameduck);
    }
    let connections = handle.count("connections");
    info!(connections, "draining for at most {drain:?}");
    let Ended { finished, hung } = handle.end_as(Stop::Graceful);
    let how = if finished { "all finished" } else { "what had not finished was cut" };
    info!(
        connections_total = handle.count("connections_accepted_total"),
        requests_total = handle.count("requests_total"),
        access_log_dropped_total = handle.count("access_log_dropped_total"),
        "stopped: {how}"
    );
    if !hung.is_empty() {
        // Whatever hangs must not keep the process.
        exit_at_once(1);
    }
}
