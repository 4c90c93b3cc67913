//! The operational log: where `tracing` writes to, in which format, and how much.
//!
//! The process installs it, never `start`: whoever embeds Ringway has a log of his own.

use tracing::level_filters::LevelFilter;

use crate::plan::{Global, LogFormat, LogLevel};

/// Sends what is told through `tracing` to stderr, as the plan says. Where a log is installed
/// already it stays.
pub(super) fn install(global: &Global) {
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(filter(global.log_level))
        .with_target(false);
    let _ = match global.log_format {
        LogFormat::Json => {
            let log = log.json().flatten_event(true);
            log.with_current_span(false).with_span_list(false).try_init()
        }
        // The journal has a time of its own for each line.
        LogFormat::Text if std::env::var_os("JOURNAL_STREAM").is_some() => {
            log.without_time().try_init()
        }
        LogFormat::Text => log.try_init(),
    };
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
