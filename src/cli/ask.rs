//! The commands `reload`, `ready`, `status` and `cert`, for a running process, by its admin
//! interface.
//!
//! The process is found by the Unix socket that its files name; without one by the address in the
//! files, and a default address only if the process says that it reads these files. `--admin` names
//! the address instead and needs no file.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use serde_json::{Value, json};

use super::{Exit, launch, say};
use crate::admin::admin_sockets;
use crate::certs::days_in_words;
use crate::config::{self, Overrides};
use crate::plan::Admin;
use crate::server;

/// How long a connection may take, and an answer: a reload may wait for another one.
const CONNECT: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(60);

/// A way to reach the admin interface of a process.
enum Instance {
    Socket(PathBuf),
    Address {
        address: SocketAddr,
        token: Option<String>,
        /// The files that the process must have been started with; only for a default address.
        files: Option<Vec<String>>,
    },
}

/// An HTTP answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// Which process is asked.
pub(super) struct Target<'a> {
    pub(super) files: &'a [PathBuf],
    pub(super) overrides: &'a Overrides,
    /// `--admin` or `RINGWAY_ADMIN`.
    pub(super) admin: Option<&'a str>,
}

/// Reloads the configuration of the process.
pub(super) fn reload(target: &Target<'_>, dry_run: bool, discard: bool) -> Exit {
    let body = json!({ "dryRun": dry_run, "discard": discard }).to_string();
    let answer = match ask(target, "POST", "/api/v1/reload", &body) {
        Ok(answer) => answer,
        Err(exit) => return exit,
    };
    let Ok(said) = serde_json::from_str::<Value>(&answer.body) else {
        return say::failed(&format!("an answer that is not understood: {}", answer.body));
    };
    if answer.status != 200 {
        let problems = said["problems"].as_str().unwrap_or_default();
        if !problems.is_empty() {
            say::talk(problems.trim_end());
            say::talk("");
        }
        let why = said["error"].as_str().unwrap_or("it does not say why");
        return say::failed(&format!("reload refused, nothing was changed: {why}"));
    }
    let list = |name: &str| -> Vec<String> {
        let of = |value: &Value| value.as_str().map(str::to_owned);
        said[name].as_array().into_iter().flatten().filter_map(of).collect()
    };
    list("warnings").iter().for_each(|it| say::talk(&format!("ringway: warning: {it}")));
    for key in list("kept") {
        say::talk(&format!("ringway: `{key}` of [global] keeps its value until a restart"));
    }
    match list("changes") {
        changes if changes.is_empty() => say::data("nothing changes\n"),
        changes => {
            let closed = said["connectionsClosed"].as_f64().unwrap_or_default();
            let closed = counted(closed, "connection");
            say::data(&format!("{}\n({closed} closed)\n", changes.join("\n")))
        }
    }
}

/// Lets a new process take over from the process.
pub(super) fn upgrade(target: &Target<'_>) -> Exit {
    let answer = match ask(target, "POST", "/api/v1/upgrade", "") {
        Ok(answer) => answer,
        Err(exit) => return exit,
    };
    let Ok(said) = serde_json::from_str::<Value>(&answer.body) else {
        return say::failed(&format!("an answer that is not understood: {}", answer.body));
    };
    if answer.status != 200 {
        let why = said["error"].as_str().unwrap_or("it does not say why");
        return say::failed(&format!("upgrade refused, the running process serves on: {why}"));
    }
    let connections = said["connections"].as_f64().unwrap_or(0.0);
    say::data(&format!(
        "process {} serves (ringway {}); the one before finishes {}, within {}\n",
        said["pid"],
        said["version"].as_str().unwrap_or("?"),
        counted(connections, "connection"),
        spoken(Duration::from_secs(said["drainSeconds"].as_f64().unwrap_or(0.0) as u64)),
    ))
}

/// Prints whether the process may be sent traffic.
pub(super) fn ready(target: &Target<'_>) -> Exit {
    match ask(target, "GET", "/readyz", "") {
        Ok(Answer { status: 200, body }) => say::data(&body),
        Ok(Answer { body, .. }) => say::failed(body.trim_end()),
        Err(exit) => exit,
    }
}

/// Prints the status of the process.
pub(super) fn status(target: &Target<'_>, as_json: bool) -> Exit {
    let answer = match ask(target, "GET", "/api/v1/status", "") {
        Ok(answer) => answer,
        Err(exit) => return exit,
    };
    let said = serde_json::from_str::<Value>(&answer.body);
    match said {
        Ok(said) if answer.status == 200 && as_json => say::data(&format!("{said}\n")),
        Ok(said) if answer.status == 200 => say::data(&described(&said)),
        _ => say::failed(answer.body.trim_end()),
    }
}

/// Prints the certificates of the process.
pub(super) fn cert(target: &Target<'_>, as_json: bool) -> Exit {
    let answer = match ask(target, "GET", "/api/v1/certificates", "") {
        Ok(answer) => answer,
        Err(exit) => return exit,
    };
    match serde_json::from_str::<Value>(&answer.body) {
        Ok(said) if answer.status == 200 && as_json => say::data(&format!("{said}\n")),
        Ok(said) if answer.status == 200 => say::data(&certificates(&said)),
        _ => say::failed(answer.body.trim_end()),
    }
}

/// The certificates as lines of text, those that end first at the top.
fn certificates(said: &Value) -> String {
    let mut list: Vec<&Value> = said["certificates"].as_array().into_iter().flatten().collect();
    if list.is_empty() {
        return "no certificates: no listener has `tls`\n".to_owned();
    }
    list.sort_by_key(|it| it["notAfter"].as_u64());
    list.into_iter().map(certificate).collect()
}

/// `a.example, b.example: 89 days left, ECDSA P-256 by "R3", a.pem (listener web)`, and what is
/// wrong below it.
fn certificate(it: &Value) -> String {
    let words = |name: &str| -> String {
        let words = it[name].as_array().into_iter().flatten().filter_map(Value::as_str);
        words.collect::<Vec<_>>().join(", ")
    };
    let text = |name: &str| it[name].as_str().unwrap_or("?");
    let left = match it["daysLeft"].as_i64() {
        Some(days @ 0..) => format!("{} left", days_in_words(days)),
        Some(_) => "expired".to_owned(),
        None => "never read".to_owned(),
    };
    let mut line = format!(
        "{}: {left}, {} by \"{}\", {} ({})\n",
        words("names"),
        text("keyType"),
        text("issuer"),
        text("file"),
        words("usedBy"),
    );
    if let Some(problem) = it["problem"].as_str() {
        line.push_str(&format!("  refused, the one before stays: {problem}\n"));
    }
    line
}

/// The status as lines of text.
fn described(said: &Value) -> String {
    let text = |name: &str| said[name].as_str().unwrap_or("?").to_owned();
    let number = |name: &str| said[name].as_f64().unwrap_or(0.0);
    let up = Duration::from_secs(number("uptime_seconds") as u64);
    let mut lines = format!(
        "ringway {}: {}, {}, up {}, plan {}\n",
        text("version"),
        text("driver"),
        counted(number("cores"), "core"),
        spoken(up),
        number("generation"),
    );
    for listener in said["listeners"].as_array().into_iter().flatten() {
        let word = |name: &str| listener[name].as_str().unwrap_or("?");
        lines.push_str(&format!("listener \"{}\" on {}\n", word("name"), word("address")));
    }
    for pool in said["pools"].as_array().into_iter().flatten() {
        let name = pool["name"].as_str().unwrap_or("?");
        let (healthy, total) = (&pool["healthyBackends"], &pool["totalBackends"]);
        lines.push_str(&format!("pool \"{name}\": {healthy} of {total} healthy\n"));
    }
    if let Some(days) = said["certificate_days_left"].as_i64() {
        let all = counted(number("certificates"), "certificate");
        let left = days_in_words(days.max(0));
        let first = if number("certificates") > 1.0 { "the first has " } else { "" };
        lines.push_str(&format!("{all}: {first}{left} left\n"));
    }
    for process in said["draining"].as_array().into_iter().flatten() {
        lines.push_str(&format!(
            "process {} (ringway {}) finishes {}\n",
            process["pid"],
            process["version"].as_str().unwrap_or("?"),
            counted(process["connections"].as_f64().unwrap_or(0.0), "connection"),
        ));
    }
    for line in said["run_time_changes"].as_array().into_iter().flatten() {
        lines.push_str(&format!("run-time change: {}\n", line.as_str().unwrap_or("?")));
    }
    lines
}

/// `1 core`, `2 cores`.
fn counted(count: f64, one: &str) -> String {
    format!("{count} {one}{}", if count == 1.0 { "" } else { "s" })
}

/// `3d 4h`, `5m 20s`.
fn spoken(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m {seconds}s"),
        (0, hours, minutes, _) => format!("{hours}h {minutes}m"),
        (days, hours, ..) => format!("{days}d {hours}h"),
    }
}

/// Sends a request to the process by the first way that works.
pub(super) fn ask(
    target: &Target<'_>,
    method: &str,
    path: &str,
    body: &str,
) -> Result<Answer, Exit> {
    let instances = instances(target)?;
    let mut tried = Vec::new();
    for instance in &instances {
        let asked = match instance {
            Instance::Address { files: Some(files), .. } => {
                exchange(instance, "GET", "/api/v1/status", "").and_then(|status| {
                    match is_of(&status, files) {
                        true => exchange(instance, method, path, body),
                        false => Err(io::Error::other("serves another configuration")),
                    }
                })
            }
            _ => exchange(instance, method, path, body),
        };
        match asked {
            Ok(answer) => return Ok(answer),
            Err(error) => tried.push(format!("{}: {error}", instance.name())),
        }
    }
    say::talk(&format!("ringway: no running instance: {}", tried.join("; ")));
    Err(Exit::NoInstance)
}

/// The ways to reach the process, the best first.
fn instances(target: &Target<'_>) -> Result<Vec<Instance>, Exit> {
    if let Some(address) = target.admin {
        let Ok(address) = address.parse() else {
            return Err(say::usage(&format!(
                "`{address}` is not an address: --admin 127.0.0.1:9900"
            )));
        };
        // The token, if there are files that name it.
        let token = loaded(target).and_then(|admin| token(&admin));
        return Ok(vec![Instance::Address { address, token, files: None }]);
    }
    let files = launch::paths(target.files)?;
    let mut ways: Vec<_> = admin_sockets(&files).into_iter().map(Instance::Socket).collect();
    let admin = loaded(target).unwrap_or_default();
    let token = token(&admin);
    if let Some(address) = admin.bind {
        let files = (!admin.is_written).then(|| crate::admin::named(&files));
        ways.push(Instance::Address { address, token, files });
    }
    Ok(ways)
}

/// The admin settings of the files; none if the files cannot be read.
fn loaded(target: &Target<'_>) -> Option<Admin> {
    let files = launch::paths_quietly(target.files)?;
    let loaded = config::load(&files, target.overrides).ok()?;
    Some(loaded.plan.global.admin.clone())
}

fn token(admin: &Admin) -> Option<String> {
    server::admin_token(admin.token_file.as_deref()?).ok()
}

fn is_of(status: &Answer, files: &[String]) -> bool {
    let said = serde_json::from_str::<Value>(&status.body).unwrap_or_default();
    said["files"] == json!(files)
}

impl Instance {
    fn name(&self) -> String {
        match self {
            Instance::Socket(path) => path.display().to_string(),
            Instance::Address { address, .. } => address.to_string(),
        }
    }
}

/// Sends one request and reads its answer.
fn exchange(instance: &Instance, method: &str, path: &str, body: &str) -> io::Result<Answer> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !body.is_empty() {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    match instance {
        Instance::Socket(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(ANSWER))?;
            stream.set_write_timeout(Some(CONNECT))?;
            talk(stream, &format!("{head}Host: localhost\r\n\r\n{body}"))
        }
        Instance::Address { address, token, .. } => {
            let stream = TcpStream::connect_timeout(address, CONNECT)?;
            stream.set_read_timeout(Some(ANSWER))?;
            stream.set_write_timeout(Some(CONNECT))?;
            if let Some(token) = token {
                head.push_str(&format!("Authorization: Bearer {token}\r\n"));
            }
            talk(stream, &format!("{head}Host: {address}\r\n\r\n{body}"))
        }
    }
}

/// The most bytes of an answer that are read; no answer is longer.
const ANSWER_MAX: u64 = 16 << 20;

fn talk(mut stream: impl Read + Write, request: &str) -> io::Result<Answer> {
    stream.write_all(request.as_bytes())?;
    let mut text = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let unread = || io::Error::other("its answer is not understood");
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(unread)?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    let status = status.and_then(|status| status.parse().ok()).ok_or_else(unread)?;
    Ok(Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_listed_by_their_end_with_what_is_wrong_below() {
        let said = json!({ "certificates": [
            {
                "names": ["a.example", "b.example"], "daysLeft": 89, "notAfter": 2,
                "keyType": "ECDSA P-256", "issuer": "R3", "file": "a.pem",
                "usedBy": ["listener web"], "problem": null,
            },
            {
                "names": ["c.example"], "daysLeft": -3, "notAfter": 1, "keyType": "RSA 2048",
                "issuer": "R3", "file": "c.pem", "usedBy": ["listener web", "pool app"],
                "problem": "c.pem has no certificate",
            },
        ]});
        assert_eq!(
            certificates(&said),
            "c.example: expired, RSA 2048 by \"R3\", c.pem (listener web, pool app)\n  \
             refused, the one before stays: c.pem has no certificate\n\
             a.example, b.example: 89 days left, ECDSA P-256 by \"R3\", a.pem (listener web)\n"
        );
        assert!(certificates(&json!({ "certificates": [] })).starts_with("no certificates"));
    }
}
