//! The calls of the admin interface, and how requests map to them.

use serde_json::{Value, json};

use super::{Doors, Reload, Reloaded, answer::Answer, request::Request};
use crate::http::head::Method;

/// A call of the admin interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Live,
    Ready,
    Status,
    OpenApi,
    Reload,
}

/// The method and path of each call.
pub(super) const CALLS: [(&str, &str, Call); 5] = [
    ("GET", "/livez", Call::Live),
    ("GET", "/readyz", Call::Ready),
    ("GET", "/api/v1/status", Call::Status),
    ("GET", "/api/v1/openapi.json", Call::OpenApi),
    ("POST", "/api/v1/reload", Call::Reload),
];

/// The description of the calls for programs (OpenAPI 3.1).
pub(super) const OPENAPI: &str = include_str!("openapi.json");

impl Call {
    /// The call that a request makes.
    ///
    /// # Errors
    /// 404 for an unknown path, 405 for another method.
    pub(super) fn of(request: &Request) -> Result<Call, Answer> {
        let path = request.head.bytes(request.head.path);
        let method = match request.head.method {
            Method::Head => b"GET",
            _ => request.head.bytes(request.head.method_span),
        };
        let here = || CALLS.iter().filter(|(_, at, _)| at.as_bytes() == path);
        if let Some((_, _, call)) = here().find(|(by, _, _)| by.as_bytes() == method) {
            return Ok(*call);
        }
        let mut allowed: Vec<&str> = here().map(|(by, _, _)| *by).collect();
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
    pub(super) fn is_exempt(self) -> bool {
        match self {
            Call::Live | Call::Ready => true,
            Call::Status | Call::OpenApi | Call::Reload => false,
        }
    }

    /// Carries it out.
    pub(super) fn answer(self, request: &Request, doors: &impl Doors, from: &str) -> Answer {
        match self {
            Call::Live => Answer::text(200, "alive"),
            Call::Ready => ready(doors),
            Call::Status => Answer::json(200, &doors.status()).of_generation(doors.generation()),
            Call::OpenApi => match serde_json::from_str(OPENAPI) {
                Ok(document) => Answer::json(200, &document),
                Err(error) => Answer::error(500, "internal", &error.to_string()),
            },
            Call::Reload => reload(request, doors, from),
        }
    }
}

fn ready(doors: &impl Doors) -> Answer {
    match doors.not_ready() {
        reasons if reasons.is_empty() => Answer::text(200, "ready"),
        reasons => Answer::text(503, format!("not ready\n{}", reasons.join("\n"))),
    }
}

fn reload(request: &Request, doors: &impl Doors, from: &str) -> Answer {
    let how = match options(request) {
        Ok(dry_run) => Reload { dry_run, from: from.to_owned() },
        Err(refused) => return refused,
    };
    if let Some(refused) = has_moved_on(request, doors.generation()) {
        return refused;
    }
    match doors.reload(how) {
        Ok(done) => Answer::json(200, &reloaded(&done)).of_generation(done.generation),
        Err(refused) => Answer::json(
            422,
            &json!({ "error": refused.why, "code": "refused", "problems": refused.problems }),
        ),
    }
}

/// The result of a reload, in the form that the command line also reads.
pub(super) fn reloaded(done: &Reloaded) -> Value {
    let Reloaded { generation, lines, kept, warnings } = done;
    json!({ "generation": generation, "changes": lines, "kept": kept, "warnings": warnings })
}

/// Whether to return only what would change: `{"dryRun": true}`, or nothing.
fn options(request: &Request) -> Result<bool, Answer> {
    if request.body.iter().all(u8::is_ascii_whitespace) {
        return Ok(false);
    }
    let value: Value = serde_json::from_slice(&request.body)
        .map_err(|error| Answer::error(400, "bad_request", &format!("the body: {error}")))?;
    let unfit = |what: &str| Answer::error(422, "unprocessable", what);
    let Value::Object(fields) = value else { return Err(unfit("the body is not an object")) };
    let mut dry_run = false;
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("dryRun", Value::Bool(said)) => dry_run = said,
            ("dryRun", _) => return Err(unfit("`dryRun` must be true or false")),
            _ => return Err(unfit(&format!("there is no `{name}`; it takes `dryRun`"))),
        }
    }
    Ok(dry_run)
}

/// 412 if the request is meant for another plan than the one in force (RFC 9110 §13.1.1).
fn has_moved_on(request: &Request, generation: u64) -> Option<Answer> {
    let mut tags = request.head.headers.named(b"if-match").peekable();
    tags.peek()?;
    let own = format!("\"{generation}\"");
    let names = |tag: &[u8]| tag.trim_ascii() == b"*" || tag.trim_ascii() == own.as_bytes();
    let is_meant = tags.any(|line| line.split(|byte| *byte == b',').any(names));
    (!is_meant).then(|| {
        Answer::error(412, "changed", "another plan is in force now").of_generation(generation)
    })
}
