//! The command `history`: what has happened to a running process, and how long backends were out.

use std::fmt::Write as _;

use serde_json::Value;

use super::{
    Exit,
    ask::{Answer, Target, ask},
    launch, say,
};
use crate::admin::{HistoryQuery, encoded};
use crate::config;
use crate::server;

/// Which part of it.
pub(super) struct Wanted<'a> {
    pub(super) pool: Option<&'a str>,
    pub(super) backend: Option<&'a str>,
    /// How far back: `24h`.
    pub(super) since: &'a str,
}

/// Prints it.
pub(super) fn history(target: &Target<'_>, wanted: &Wanted<'_>, as_json: bool) -> Exit {
    let mut path = format!("/api/v1/history?since={}", encoded(wanted.since));
    for (name, value) in [("pool", wanted.pool), ("backend", wanted.backend)] {
        if let Some(value) = value {
            let _ = write!(path, "&{name}={}", encoded(value));
        }
    }
    let Answer { status, body } = match ask(target, "GET", &path, "") {
        Ok(answer) => answer,
        Err(Exit::NoInstance) => match on_disk(target, wanted) {
            Some(left) if as_json => return say::data(&format!("{left}\n")),
            Some(left) => return say::data(&described(&left)),
            None => return Exit::NoInstance,
        },
        Err(exit) => return exit,
    };
    let said: Value = serde_json::from_str(&body).unwrap_or_default();
    match status {
        200 if as_json => say::data(&format!("{said}\n")),
        200 => say::data(&described(&said)),
        _ => say::failed(said["error"].as_str().unwrap_or(body.trim_end())),
    }
}

/// What the last process has left on disk.
fn on_disk(target: &Target<'_>, wanted: &Wanted<'_>) -> Option<Value> {
    let files = launch::paths_quietly(target.files)?;
    let loaded = config::load(&files, target.overrides).ok()?;
    let named = |name: Option<&str>| name.map(str::to_owned);
    let query = HistoryQuery {
        pool: named(wanted.pool),
        backend: named(wanted.backend),
        since: config::duration(wanted.since).ok()?,
    };
    let left = server::history_on_disk(&loaded.plan.global, &files, &query)?;
    say::talk("ringway: this is what the last one has left on disk");
    Some(left)
}

/// A line for each event, then one for each backend that was out.
fn described(said: &Value) -> String {
    let mut out = String::new();
    for event in said["events"].as_array().into_iter().flatten() {
        let text = |name: &str| event[name].as_str().filter(|text| !text.is_empty());
        let at = text("at").unwrap_or_default();
        let date = at.get(..10).unwrap_or_default();
        let time = at.get(11..19).unwrap_or_default();
        let _ = write!(out, "{date} {time}Z  {}", text("message").unwrap_or("?"));
        let of = match (text("pool"), text("backend")) {
            (Some(pool), Some(backend)) => Some(format!("{pool}/{backend}")),
            (pool, _) => pool.map(str::to_owned),
        };
        let details = [
            of,
            text("file").map(str::to_owned),
            text("changes").map(str::to_owned),
            text("cause").map(str::to_owned),
            text("code").map(str::to_owned),
            event["lasted_ms"].as_u64().map(|ms| format!("after {}", spoken(ms))),
            text("by").map(|by| match text("from") {
                Some(from) => format!("by {by} from {from}"),
                None => format!("by {by}"),
            }),
            text("version").map(|version| format!("version {version}")),
        ];
        let details: Vec<String> = details.into_iter().flatten().collect();
        if !details.is_empty() {
            let _ = write!(out, ": {}", details.join(", "));
        }
        out.push('\n');
    }
    if out.is_empty() {
        out.push_str("nothing happened\n");
    }
    let available = said["availability"].as_array().into_iter().flatten();
    for (it, place) in available.zip(0_u32..) {
        if place == 0 {
            out.push('\n');
        }
        let text = |name: &str| it[name].as_str().unwrap_or_default();
        let lost = (it["outSeconds"].as_f64().unwrap_or(0.0) * 1_000.0) as u64;
        let still = if it["isOut"] == true { ", and is out now" } else { "" };
        let _ = writeln!(
            out,
            "{}/{}: available {:.3} %, out {} times for {} in all{still}",
            text("pool"),
            text("backend"),
            it["percent"].as_f64().unwrap_or(0.0),
            it["outages"],
            spoken(lost),
        );
    }
    out
}

/// `2h 5m`, `3m 4s`, `1.2s`.
fn spoken(ms: u64) -> String {
    let seconds = ms / 1_000;
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, _) => format!("{:.1}s", ms as f64 / 1_000.0),
        (0, minutes, seconds) => format!("{minutes}m {seconds}s"),
        (hours, minutes, _) => format!("{hours}h {minutes}m"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_event_is_a_line_with_what_where_why_and_who() {
        let said = json!({
            "events": [
                { "at": "2026-11-30T14:03:05.123Z", "message": "backend down", "pool": "app",
                  "backend": "b", "cause": "refused", "lasted_ms": 7_500_000 },
                { "at": "2026-11-30T14:04:00.000Z", "message": "backend set", "pool": "app",
                  "backend": "b", "changes": "weight 3", "by": "admin", "from": "127.0.0.1:9" },
                { "at": "2026-11-30T14:05:00.000Z", "message": "pool in panic", "pool": "app" },
                { "at": "2026-11-30T14:06:00.000Z", "message": "outgoing limit" },
            ],
            "availability": [{ "pool": "app", "backend": "b", "percent": 99.5,
                               "outSeconds": 65.0, "outages": 2, "isOut": true }],
        });
        let expected = "\
2026-11-30 14:03:05Z  backend down: app/b, refused, after 2h 5m
2026-11-30 14:04:00Z  backend set: app/b, weight 3, by admin from 127.0.0.1:9
2026-11-30 14:05:00Z  pool in panic: app
2026-11-30 14:06:00Z  outgoing limit

app/b: available 99.500 %, out 2 times for 1m 5s in all, and is out now
";
        assert_eq!(described(&said), expected);
        assert_eq!(described(&json!({})), "nothing happened\n");
    }
}
