//! The operational log as a reader of events: one line each, through `tracing`.
//!
//! The process decides where `tracing` writes. Neither words nor levels are chosen here: they are
//! in the table of `observe/event.rs`.

use crate::observe::{
    event::{Event, Fields},
    events::Events,
    reports::Reporter,
};
use crate::plan::LogLevel;

/// Logs events until there are no more. `reporter` knows how many never became an event.
pub(super) fn run(events: &mut Events, reporter: &Reporter) {
    let mut lost = 0;
    while let Some(happened) = events.next() {
        say(&happened.event);
        let all = events.dropped() + reporter.dropped();
        if all > lost {
            let events = all - lost;
            tracing::warn!(event = "events_dropped", events, "events lost: too many at once");
            lost = all;
        }
    }
}

/// One line of this level. The fields that an event does not have are left out.
macro_rules! line {
    ($level:ident, $event:expr) => {{
        #[rustfmt::skip]
        let Fields {
            request_id, pool, backend, phase, code, status, cause, lasted_ms, late_ms, ms,
            asked_again, refusal, healthy, of, listener, route, attempts, client, failed_total, address, addresses, gone, open, idle_closed_total,
            refused_total, dropped_total, file, mode, names, days, last_day, connections, wanted,
            descriptors, needed, thread, generation, changes, by, from, pid, version, connections_total, requests_total,
            access_log_dropped_total,
            // Each has a line of its own.
            tries: _,
        } = $event.fields();
        tracing::$level!(
            event = $event.word(), request_id, pool, backend, phase, code, status, cause, lasted_ms,
            late_ms, ms, asked_again, refusal, healthy, of, listener, route, attempts, client,
            failed_total, address,
            addresses, gone, open,
            idle_closed_total, refused_total, dropped_total, file, mode, names, days, last_day,
            connections, wanted,
            descriptors, needed, thread, generation, changes, by, from, pid, version,
            connections_total, requests_total, access_log_dropped_total, "{}", $event.sentence()
        )
    }};
}

fn say(event: &Event) {
    match event.level() {
        LogLevel::Error => line!(error, event),
        LogLevel::Warn => line!(warn, event),
        LogLevel::Info => line!(info, event),
        LogLevel::Debug => line!(debug, event),
        LogLevel::Trace => line!(trace, event),
    }
}
