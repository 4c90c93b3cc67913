//! The operational log: the destination, format and level of `tracing`.
//!
//! The process installs it, never `start`: a program that embeds Ringway has a log of its own.
//! Lines of JSON name their process, since they are read where those of many come together. No
//! thread that logs waits for stderr (`stderr.rs`).

use std::fmt;

use tracing::{Event, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer, Registry,
    fmt::{
        FmtContext, FormatEvent,
        format::{self, Format, Json, JsonFields, Writer},
    },
    layer::SubscriberExt as _,
    reload,
    util::SubscriberInitExt as _,
};

use super::stderr::Lines;
use crate::plan::{Global, LogFormat, LogLevel};

/// The log that was installed.
pub(super) struct OperationalLog {
    set: Box<dyn Fn(LevelFilter) + Send>,
}

impl OperationalLog {
    /// Sets how much it says.
    pub(super) fn set_level(&self, level: LogLevel) {
        (self.set)(filter(level));
    }
}

/// Sends the output of `tracing` to stderr, as the plan says. A log that is installed already
/// stays.
pub(super) fn install(global: &Global) -> OperationalLog {
    let log = tracing_subscriber::fmt::layer()
        .with_writer(Lines)
        .log_internal_errors(false) // it would say them on stderr, or panic
        .with_target(false)
        // A log for machines has no colours, whatever other crates turn on.
        .with_ansi(false);
    let level = filter(global.log_level);
    match global.log_format {
        LogFormat::Json => {
            let named = Named::new(&global.instance);
            begin(log.fmt_fields(JsonFields::new()).event_format(named), level)
        }
        // The journal has a timestamp of its own for each line.
        LogFormat::Text if is_the_journal() => begin(log.without_time(), level),
        LogFormat::Text => begin(log, level),
    }
}

fn begin(log: impl Layer<Registry> + Send + Sync, level: LevelFilter) -> OperationalLog {
    let (filter, handle) = reload::Layer::new(level);
    let _ = Registry::default().with(log).with(filter).try_init();
    OperationalLog { set: Box::new(move |level| drop(handle.reload(level))) }
}

/// Whether stderr goes to the journal: systemd gives its device and inode in JOURNAL_STREAM
/// (systemd.exec(5)), and children that write elsewhere inherit the variable.
fn is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(std::io::stderr())
        .is_ok_and(|stat| is_stream(&stream, stat.st_dev, stat.st_ino))
}

fn is_stream(named: &str, device: u64, inode: u64) -> bool {
    let parts = named.trim().split_once(':');
    let numbers = parts.and_then(|(dev, ino)| Some((dev.parse().ok()?, ino.parse().ok()?)));
    numbers == Some((device, inode))
}

/// Lines of JSON that end with the name of the process.
struct Named {
    json: Format<Json>,
    /// Written in place of the closing brace.
    end: String,
}

impl Named {
    fn new(instance: &str) -> Named {
        let json = format::json().flatten_event(true).with_target(false);
        let instance = serde_json::Value::from(instance);
        Named {
            json: json.with_current_span(false).with_span_list(false),
            end: format!(",\"instance\":{instance}}}"),
        }
    }
}

impl FormatEvent<Registry, JsonFields> for Named {
    fn format_event(
        &self,
        context: &FmtContext<'_, Registry, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.json.format_event(context, Writer::new(&mut line), event)?;
        let open = line.trim_end().strip_suffix('}').ok_or(fmt::Error)?;
        writeln!(writer, "{open}{}", self.end)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        for (named, expected) in [
            ("8:4711", true),
            ("8:4711\n", true),
            ("8:4712", false),
            ("9:4711", false),
            ("", false),
            ("8", false),
            ("8:4711:1", false),
            ("x:4711", false),
        ] {
            assert_eq!(is_stream(named, 8, 4711), expected, "{named:?}");
        }
    }
}
