//! Answers of the admin interface: a status, fields and a body.

use http::StatusCode;
use serde_json::{Value, json};

use super::guard::Refusal;
use crate::http::fault::Fault;

/// An answer of the admin interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    /// In addition to those of every answer.
    fields: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// A text for people.
    pub(super) fn text(status: u16, text: impl Into<String>) -> Answer {
        let mut body = text.into();
        body.push('\n');
        Answer {
            status,
            content_type: "text/plain; charset=utf-8",
            fields: Vec::new(),
            body: body.into_bytes(),
        }
    }

    pub(super) fn json(status: u16, value: &Value) -> Answer {
        let mut body = value.to_string().into_bytes();
        body.push(b'\n');
        Answer { status, content_type: "application/json", fields: Vec::new(), body }
    }

    /// Without a body.
    pub(super) fn empty(status: u16) -> Answer {
        Answer { status, content_type: "", fields: Vec::new(), body: Vec::new() }
    }

    /// An error: a sentence for people and a stable word for programs.
    pub(super) fn error(status: u16, code: &str, error: &str) -> Answer {
        Answer::json(status, &json!({ "error": error, "code": code }))
    }

    /// With one more field.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Answer {
        self.fields.push((name, value.into()));
        self
    }

    /// With this media type.
    pub(super) fn of_type(self, content_type: &'static str) -> Answer {
        Answer { content_type, ..self }
    }

    /// With the number of the plan it is about as its entity tag.
    pub(super) fn of_generation(self, generation: u64) -> Answer {
        self.with("etag", format!("\"{generation}\""))
    }

    /// The message. `closes`: it is the last of its connection; `bodiless`: it answers HEAD.
    pub(super) fn write(&self, closes: bool, bodiless: bool) -> Vec<u8> {
        let reason = StatusCode::from_u16(self.status).ok().and_then(|it| it.canonical_reason());
        let mut out = format!("HTTP/1.1 {} {}\r\n", self.status, reason.unwrap_or(""));
        let mut field = |name: &str, value: &str| {
            out.push_str(name);
            out.push_str(": ");
            out.push_str(value);
            out.push_str("\r\n");
        };
        // RFC 9110 §8.6: a 204 has no length.
        if self.status != 204 {
            field("content-type", self.content_type);
            field("content-length", &self.body.len().to_string());
        }
        field("cache-control", "no-store");
        field("x-content-type-options", "nosniff");
        for (name, value) in &self.fields {
            field(name, value);
        }
        if closes {
            field("connection", "close");
        }
        out.push_str("\r\n");
        let mut out = out.into_bytes();
        if !bodiless {
            out.extend_from_slice(&self.body);
        }
        out
    }
}

impl From<Fault> for Answer {
    /// A malformed request, refused like on the data path.
    fn from(fault: Fault) -> Answer {
        let row = fault.cause.row();
        Answer::error(row.status, row.code, row.sentence)
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Answer {
        match refusal {
            Refusal::Token => Answer::error(401, "unauthorized", "this call needs the token")
                .with("www-authenticate", "Bearer realm=\"ringway\""),
            Refusal::Elsewhere => Answer::error(
                403,
                "forbidden",
                "without a token-file writes are taken from this machine alone",
            ),
            Refusal::Origin => {
                Answer::error(403, "forbidden", "a page of another origin may not write here")
            }
            Refusal::Host => Answer::error(
                403,
                "forbidden",
                "the Host is a name; use the address of this machine or localhost",
            ),
        }
    }
}
