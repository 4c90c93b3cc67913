//! The command `top`: what goes on in a running process, on one screen, once a second.
//!
//! It asks for the last frame of statistics, from which the dashboard is drawn, too.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _},
    thread,
    time::Duration,
};

use serde_json::Value;

use super::{
    Exit,
    ask::{Answer, Target, ask},
    say,
};

/// How often the screen is drawn.
const SECOND: Duration = Duration::from_secs(1);

/// How often the first frame is asked for: there is none before two snapshots.
const FIRST: u32 = 20;
const FIRST_AGAIN: Duration = Duration::from_millis(250);

/// Shows the process until it is interrupted; only one frame with `once`, or if nobody sees a
/// screen.
pub(super) fn top(target: &Target<'_>, once: bool, as_json: bool) -> Exit {
    let mut frame = match first(target) {
        Ok(frame) => frame,
        Err(exit) => return exit,
    };
    let is_live = !once && !as_json && io::stdout().is_terminal();
    loop {
        let text = if as_json { format!("{frame}\n") } else { screen(&frame) };
        if !is_live {
            return say::data(&text);
        }
        // The screen is drawn from its upper left corner, and what was below is cleared.
        if say::data(&format!("\x1b[H\x1b[2J{text}\nCtrl-C ends\n")) != Exit::Done {
            return Exit::Failed;
        }
        thread::sleep(SECOND);
        frame = match last(target) {
            Ok(Some(frame)) => frame,
            Ok(None) => continue,
            Err(exit) => return exit,
        };
    }
}

fn first(target: &Target<'_>) -> Result<Value, Exit> {
    for _ in 0..FIRST {
        if let Some(frame) = last(target)? {
            return Ok(frame);
        }
        thread::sleep(FIRST_AGAIN);
    }
    Err(say::failed("the process has nothing to show"))
}

/// The last frame; none if there is none yet.
fn last(target: &Target<'_>) -> Result<Option<Value>, Exit> {
    let Answer { status, body } = ask(target, "GET", "/api/v1/frame", "")?;
    match (status, serde_json::from_str(&body)) {
        (200, Ok(frame)) => Ok(Some(frame)),
        (503, _) => Ok(None),
        _ => Err(say::failed(body.trim_end())),
    }
}

/// One screen.
fn screen(frame: &Value) -> String {
    let mut out = String::new();
    let text = |name: &str| frame[name].as_str().unwrap_or_default().to_owned();
    let _ = writeln!(
        out,
        "ringway {} {}, plan {}",
        text("version"),
        text("instance"),
        count(&frame["generation"])
    );
    for it in frame["trouble"].as_array().into_iter().flatten() {
        let since = it["since"].as_str().map(|at| format!(", since {}", clock(at)));
        let said = it["text"].as_str().unwrap_or_default();
        let level = it["level"].as_str().unwrap_or_default();
        let _ = writeln!(out, "{level}: {said}{}", since.unwrap_or_default());
    }
    if frame["trouble"].as_array().is_none_or(Vec::is_empty) {
        out.push_str("all is well\n");
    }
    let (classes, times, own) = (&frame["classes"], &frame["times"], &frame["own"]);
    let _ = writeln!(
        out,
        "\n{} requests/s (2xx {}, 3xx {}, 4xx {}, 5xx {}), {} in flight, {} waiting, \
         {} connections",
        count(&frame["requests"]),
        count(&classes[2]),
        count(&classes[3]),
        count(&classes[4]),
        count(&classes[5]),
        count(&frame["inFlight"]),
        count(&frame["queued"]),
        count(&frame["connections"]),
    );
    let _ = writeln!(
        out,
        "p50 {} ms, p90 {} ms, p99 {} ms, p99.9 {} ms; Ringway itself p99 {} ms; \
         in {}/s, out {}/s\n",
        millis(&times[0]),
        millis(&times[1]),
        millis(&times[2]),
        millis(&times[3]),
        millis(&own[2]),
        bytes(&frame["bytesIn"]),
        bytes(&frame["bytesOut"]),
    );
    out.push_str(&pools(frame));
    out.push_str(&routes_and_cores(frame));
    out
}

fn pools(frame: &Value) -> String {
    let mut rows = vec![row([
        "POOL/BACKEND",
        "STATE",
        "WEIGHT",
        "IN FLIGHT",
        "REQ/S",
        "P50 MS",
        "P99 MS",
        "ERR/S",
        "SO FAR",
        "WHY",
    ])];
    for pool in frame["pools"].as_array().into_iter().flatten() {
        let name = pool["name"].as_str().unwrap_or_default();
        for it in pool["backends"].as_array().into_iter().flatten() {
            let word = |name: &str| it[name].as_str().unwrap_or_default();
            let live = &it["live"];
            let since = it["since"].as_str().map(|at| format!(" since {}", clock(at)));
            let breaker = match word("breaker") {
                "" | "closed" => "",
                open => open,
            };
            let state = if breaker.is_empty() { word("state") } else { breaker };
            rows.push(row([
                &format!("{name}/{}", word("name")),
                state,
                &count(&it["weight"]),
                &count(&it["activeConnections"]),
                &count(&live["rate"]),
                &millis(&live["times"][0]),
                &millis(&live["times"][2]),
                &count(&live["errors"]),
                &count(&it["totalRequests"]),
                &format!("{}{}", word("reason"), since.unwrap_or_default()),
            ]));
        }
    }
    table(&rows)
}

fn routes_and_cores(frame: &Value) -> String {
    let mut routes = vec![row(["ROUTE", "REQ/S", "5XX/S", "P50 MS", "P99 MS", "SO FAR"])];
    for it in frame["routes"].as_array().into_iter().flatten() {
        routes.push(row([
            it["name"].as_str().unwrap_or("-"),
            &count(&it["rate"]),
            &count(&it["errors"]),
            &millis(&it["times"][0]),
            &millis(&it["times"][2]),
            &count(&it["requests"]),
        ]));
    }
    let mut cores = vec![row(["CORE", "BUSY", "REQ/S", "CONNECTIONS"])];
    for (it, index) in frame["cores"].as_array().into_iter().flatten().zip(0_u32..) {
        let busy = it["busy"].as_f64().map_or("-".to_owned(), |it| format!("{:.0} %", it * 100.0));
        let cells = [index.to_string(), busy, count(&it["rate"]), count(&it["connections"])];
        cores.push(cells.to_vec());
    }
    format!("\n{}\n{}", table(&routes), table(&cores))
}

fn row<const CELLS: usize>(cells: [&str; CELLS]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// Columns as wide as their widest cell; the first is aligned to the left, and the last.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            let is_text = column == 0 || cell.chars().any(char::is_alphabetic);
            if is_text { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn count(value: &Value) -> String {
    match value.as_f64() {
        None => "-".to_owned(),
        Some(number) if number >= 1e6 => format!("{:.1}M", number / 1e6),
        Some(number) if number >= 1e4 => format!("{:.1}k", number / 1e3),
        Some(number) if number >= 100.0 || number.fract() == 0.0 => format!("{number:.0}"),
        Some(number) => format!("{number:.1}"),
    }
}

fn millis(value: &Value) -> String {
    match value.as_f64() {
        None => "-".to_owned(),
        Some(time) if time >= 10.0 => format!("{time:.0}"),
        Some(time) => format!("{time:.2}"),
    }
}

fn bytes(value: &Value) -> String {
    let bytes = value.as_f64().unwrap_or(0.0);
    match bytes {
        1e9.. => format!("{:.2} GB", bytes / 1e9),
        1e6.. => format!("{:.1} MB", bytes / 1e6),
        1e3.. => format!("{:.1} kB", bytes / 1e3),
        _ => format!("{bytes:.0} B"),
    }
}

/// The time of a date, in UTC as in logs.
pub(super) fn clock(at: &str) -> String {
    at.get(11..19).map_or_else(|| at.to_owned(), |time| format!("{time}Z"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_screen_says_what_is_wrong_first_and_who_is_slow() {
        let frame = json!({
            "version": "1.2.3", "instance": "lb-1", "generation": 7,
            "trouble": [{ "level": "warn", "text": "app/b is down: refused",
                          "since": "2026-11-30T14:03:05.123Z" }],
            "requests": 12_345.0, "classes": [0.0, 0.0, 12_000.0, 0.0, 300.0, 45.5],
            "inFlight": 3, "queued": 0, "connections": 8, "bytesIn": 999.0, "bytesOut": 2.5e6,
            "times": [0.1, 2.0, 30.0, 400.0], "own": [0.05, 0.06, 0.07, 0.08],
            "pools": [{ "name": "app", "backends": [
                { "name": "a", "state": "up", "breaker": "closed", "weight": 1,
                  "activeConnections": 3, "totalRequests": 99, "reason": "nothing has failed",
                  "since": null, "live": { "rate": 5.25, "errors": 0.0,
                                           "times": [1.0, 2.0, 350.0, 400.0] } },
                { "name": "bb", "state": "up", "breaker": "open", "weight": 10,
                  "activeConnections": 0, "totalRequests": 0, "reason": "circuit breaker open",
                  "since": "2026-11-30T14:03:05.123Z", "live": null },
            ] }],
            "routes": [{ "name": null, "rate": 1.0, "errors": 0.0, "times": null, "requests": 4 }],
            "cores": [{ "busy": 0.423, "rate": 1.0, "connections": 8 }],
        });
        let expected = "\
ringway 1.2.3 lb-1, plan 7
warn: app/b is down: refused, since 14:03:05Z

12.3k requests/s (2xx 12.0k, 3xx 0, 4xx 300, 5xx 45.5), 3 in flight, 0 waiting, 8 connections
p50 0.10 ms, p90 2.00 ms, p99 30 ms, p99.9 400 ms; Ringway itself p99 0.07 ms; \
in 999 B/s, out 2.5 MB/s

POOL/BACKEND  STATE  WEIGHT  IN FLIGHT  REQ/S  P50 MS  P99 MS  ERR/S  SO FAR  WHY
app/a         up          1          3    5.2    1.00     350      0      99  nothing has failed
app/bb        open       10          0      -       -       -      -       0  \
circuit breaker open since 14:03:05Z

ROUTE  REQ/S  5XX/S  P50 MS  P99 MS  SO FAR
-          1      0       -       -       4

CORE  BUSY  REQ/S  CONNECTIONS
0     42 %      1            8
";
        assert_eq!(screen(&frame), expected);
    }
}
