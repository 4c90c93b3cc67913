//! The calls of the admin interface, and how requests map to them.
//!
//! `CALLS` is the whole of it, and `openapi.json` describes the same. `backends` has those about
//! pools and backends.

use serde_json::{Value, json};

use super::{
    Doors, Feed, Refused, Reload, Reloaded, Upgraded, answer::Answer, backends, explain, feed,
    page, request::Request,
};
use crate::http::head::Method;

/// A call of the admin interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Page,
    PageFile,
    Live,
    Ready,
    Metrics,
    Status,
    Stats,
    Certificates,
    Events,
    Stream,
    Frame,
    History,
    Explain,
    OpenApi,
    Reload,
    Upgrade,
    Pools,
    Pool,
    Backends,
    Backend,
    AddBackend,
    SetBackend,
    RemoveBackend,
}

const BACKENDS: &str = "/api/v1/pools/{pool}/backends";
const BACKEND: &str = "/api/v1/pools/{pool}/backends/{backend}";

/// The method and path of each call; a part in braces is a name.
pub(super) const CALLS: [(&str, &str, Call); 23] = [
    ("GET", "/", Call::Page),
    ("GET", "/page/{file}", Call::PageFile),
    ("GET", "/livez", Call::Live),
    ("GET", "/readyz", Call::Ready),
    ("GET", "/metrics", Call::Metrics),
    ("GET", "/api/v1/status", Call::Status),
    ("GET", "/api/v1/stats", Call::Stats),
    ("GET", "/api/v1/certificates", Call::Certificates),
    ("GET", "/api/v1/events", Call::Events),
    ("GET", "/api/v1/stream", Call::Stream),
    ("GET", "/api/v1/frame", Call::Frame),
    ("GET", "/api/v1/history", Call::History),
    ("POST", "/api/v1/explain", Call::Explain),
    ("GET", "/api/v1/openapi.json", Call::OpenApi),
    ("POST", "/api/v1/reload", Call::Reload),
    ("POST", "/api/v1/upgrade", Call::Upgrade),
    ("GET", "/api/v1/pools", Call::Pools),
    ("GET", "/api/v1/pools/{pool}", Call::Pool),
    ("GET", BACKENDS, Call::Backends),
    ("POST", BACKENDS, Call::AddBackend),
    ("GET", BACKEND, Call::Backend),
    ("PATCH", BACKEND, Call::SetBackend),
    ("DELETE", BACKEND, Call::RemoveBackend),
];

/// The description of the calls for programs (OpenAPI 3.1).
pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// A call with the names in its path.
pub(super) struct Called {
    pub(super) call: Call,
    pub(super) names: Vec<String>,
}

impl Called {
    /// The call that a request makes.
    ///
    /// # Errors
    /// 404 for an unknown path, 405 for another method.
    pub(super) fn of(request: &Request) -> Result<Called, Answer> {
        let path = request.head.bytes(request.head.path);
        let method = match request.head.method {
            Method::Head => b"GET",
            _ => request.head.bytes(request.head.method_span),
        };
        let here = CALLS.iter().filter_map(|(by, at, call)| Some((by, names(at, path)?, call)));
        let mut allowed: Vec<&str> = Vec::new();
        for (by, names, call) in here {
            if by.as_bytes() == method {
                return Ok(Called { call: *call, names });
            }
            allowed.push(by);
        }
        if allowed.is_empty() {
            return Err(Answer::error(404, "not_found", "there is no such call"));
        }
        if allowed.contains(&"GET") {
            allowed.push("HEAD");
        }
        Err(Answer::error(405, "method_not_allowed", "this call has another method")
            .with("allow", allowed.join(", ")))
    }

    /// Whether any client may make it under any host name, as probes of an orchestrator do.
    pub(super) fn is_exempt(&self) -> bool {
        matches!(self.call, Call::Live | Call::Ready)
    }

    /// The stream that it asks for, if it does.
    pub(super) fn feed(&self) -> Option<Feed> {
        match self.call {
            Call::Events => Some(Feed::Events),
            Call::Stream => Some(Feed::Stream),
            _ => None,
        }
    }

    /// Whether it is that of scrapers, whose answer is written while it is made.
    pub(super) fn is_scrape(&self) -> bool {
        matches!(self.call, Call::Metrics)
    }

    /// Carries it out, if it asks for no stream.
    pub(super) fn answer(&self, request: &Request, doors: &impl Doors, from: &str) -> Answer {
        match self.call {
            Call::Page => page::index(),
            Call::PageFile => page::file(self.names.first().map_or("", String::as_str)),
            Call::Live => Answer::text(200, "alive"),
            Call::Ready => ready(doors),
            Call::Status => Answer::json(200, &doors.status()).of_generation(doors.generation()),
            Call::Stats => {
                let (generation, stats) = doors.stats();
                Answer::json(200, &stats).of_generation(generation)
            }
            Call::Certificates => {
                Answer::json(200, &json!({ "certificates": doors.certificates() }))
            }
            Call::Events | Call::Stream | Call::Metrics => {
                Answer::error(500, "internal", "a stream")
            }
            Call::Frame => feed::frame(doors),
            Call::History => feed::history(request, doors),
            Call::Explain => explain::answer(request, doors),
            Call::OpenApi => match serde_json::from_str(OPENAPI) {
                Ok(document) => Answer::json(200, &document),
                Err(error) => Answer::error(500, "internal", &error.to_string()),
            },
            Call::Reload => reload(request, doors, from),
            Call::Upgrade => upgrade(request, doors, from),
            Call::Pools | Call::Pool | Call::Backends | Call::Backend => {
                backends::show(self, &doors.pools())
            }
            Call::AddBackend | Call::SetBackend | Call::RemoveBackend => {
                backends::write(self, request, doors, from)
            }
        }
    }
}

/// The names in a path, if it has this form.
fn names(form: &str, path: &[u8]) -> Option<Vec<String>> {
    let (mut forms, mut parts) = (form.split('/'), path.split(|byte| *byte == b'/'));
    let mut names = Vec::new();
    loop {
        match (forms.next(), parts.next()) {
            (None, None) => return Some(names),
            (Some(form), Some(part)) if form.starts_with('{') => names.push(decoded(part)?),
            (Some(form), Some(part)) if form.as_bytes() == part => {}
            _ => return None,
        }
    }
}

/// A part of a path without percent-encoding; none if it is no text, or empty.
pub(super) fn decoded(part: &[u8]) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), part);
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        rest = after;
        bytes.push(u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?);
    }
    String::from_utf8(bytes).ok().filter(|name| !name.is_empty())
}

fn upgrade(request: &Request, doors: &impl Doors, from: &str) -> Answer {
    let generation = doors.generation();
    if meant_for(request).is_some_and(|meant| !meant.contains(&generation)) {
        return moved(generation);
    }
    match doors.upgrade(from) {
        Ok(done) => {
            let Upgraded { pid, version, connections, drain } = done;
            let drain = drain.as_secs_f64();
            Answer::json(
                200,
                &json!({
                    "pid": pid, "version": version, "connections": connections,
                    "drainSeconds": drain,
                }),
            )
        }
        Err(refused) => refusal(&refused),
    }
}

/// Nothing has changed, for this reason.
fn refusal(refused: &Refused) -> Answer {
    let Refused { why, problems, .. } = refused;
    Answer::json(422, &json!({ "error": why, "code": "refused", "problems": problems }))
}

fn ready(doors: &impl Doors) -> Answer {
    match doors.not_ready() {
        reasons if reasons.is_empty() => Answer::text(200, "ready"),
        reasons => Answer::text(503, format!("not ready\n{}", reasons.join("\n"))),
    }
}

fn reload(request: &Request, doors: &impl Doors, from: &str) -> Answer {
    let mut how = match options(request) {
        Ok(how) => how,
        Err(refused) => return refused,
    };
    (how.only_if, how.from) = (meant_for(request), from.to_owned());
    match doors.reload(how) {
        Ok(done) => Answer::json(200, &reloaded(&done)).of_generation(done.generation),
        Err(refused) => match refused.moved_to {
            Some(generation) => moved(generation),
            None => refusal(&refused),
        },
    }
}

/// The result of a reload, in the form that the command line also reads.
pub(super) fn reloaded(done: &Reloaded) -> Value {
    let Reloaded { generation, lines, kept, warnings, closed } = done;
    json!({
        "generation": generation,
        "changes": lines,
        "kept": kept,
        "warnings": warnings,
        "connectionsClosed": closed,
    })
}

/// The options in the body: `{"dryRun": true, "discard": true}`, or nothing.
fn options(request: &Request) -> Result<Reload, Answer> {
    let mut how = Reload::default();
    for (name, value) in fields(request)? {
        let into = match name.as_str() {
            "dryRun" => &mut how.dry_run,
            "discard" => &mut how.discard,
            _ => return Err(unfit(&format!("there is no `{name}`; it takes `dryRun`, `discard`"))),
        };
        match value {
            Value::Bool(said) => *into = said,
            _ => return Err(unfit(&format!("`{name}` must be true or false"))),
        }
    }
    Ok(how)
}

/// The fields of the object in the body; none if there is no body.
pub(super) fn fields(request: &Request) -> Result<Vec<(String, Value)>, Answer> {
    if request.body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Vec::new());
    }
    let value: Value = serde_json::from_slice(&request.body)
        .map_err(|error| Answer::error(400, "bad_request", &format!("the body: {error}")))?;
    match value {
        Value::Object(fields) => Ok(fields.into_iter().collect()),
        _ => Err(unfit("the body is not an object")),
    }
}

/// 422: what was sent means nothing.
pub(super) fn unfit(what: &str) -> Answer {
    Answer::error(422, "unprocessable", what)
}

/// The plans that a request is meant for, by their numbers (RFC 9110 §13.1.1); none = any.
pub(super) fn meant_for(request: &Request) -> Option<Vec<u64>> {
    let mut lines = request.head.headers.named(b"if-match").peekable();
    lines.peek()?;
    let mut meant = Vec::new();
    for tag in lines.flat_map(|line| line.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii) {
        if tag == b"*" {
            return None;
        }
        let number = tag.strip_prefix(b"\"").and_then(|tag| tag.strip_suffix(b"\""));
        let number = number.and_then(|number| str::from_utf8(number).ok());
        meant.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    Some(meant)
}

/// 412: the plan of this number is in force, and the request is meant for another.
pub(super) fn moved(generation: u64) -> Answer {
    Answer::error(412, "changed", "another plan is in force now").of_generation(generation)
}
