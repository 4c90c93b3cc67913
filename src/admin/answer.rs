//! Answers of the admin interface: a status, fields and a body.

use std::{
    io::{self, ErrorKind, Write},
    time::Instant,
};

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
        // RFC 9110 §8.6: a 204 has no length.
        let length = (self.status != 204).then(|| self.body.len().to_string());
        let framing = length.as_deref().map(|length| ("content-length", length));
        let mut out = self.head(framing, closes).into_bytes();
        if !bodiless {
            out.extend_from_slice(&self.body);
        }
        out
    }

    /// Its head, with the field that says where its body ends, if one does.
    pub(super) fn head(&self, framing: Option<(&str, &str)>, closes: bool) -> String {
        let reason = StatusCode::from_u16(self.status).ok().and_then(|it| it.canonical_reason());
        let mut out = format!("HTTP/1.1 {} {}\r\n", self.status, reason.unwrap_or(""));
        let mut field = |name: &str, value: &str| {
            out.push_str(name);
            out.push_str(": ");
            out.push_str(value);
            out.push_str("\r\n");
        };
        if self.status != 204 {
            field("content-type", self.content_type);
        }
        framing.iter().for_each(|(name, value)| field(name, value));
        field("cache-control", "no-store");
        field("x-content-type-options", "nosniff");
        for (name, value) in &self.fields {
            field(name, value);
        }
        if closes {
            field("connection", "close");
        }
        out.push_str("\r\n");
        out
    }
}

/// Writes all of it until then; the stream bounds each wait of its own. A client that takes a byte
/// now and then would otherwise keep its place for ever.
///
/// # Errors
/// The connection's, or that the client is too slow.
pub(super) fn give(stream: &mut impl Write, mut bytes: &[u8], until: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if !bytes.is_empty() && Instant::now() >= until {
            return Err(ErrorKind::TimedOut.into());
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A client that takes a byte at a time.
    struct Slow(Vec<u8>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.extend(bytes.first());
            Ok(bytes.len().min(1))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_client_that_takes_a_byte_now_and_then_is_let_go() {
        let mut slow = Slow(Vec::new());
        give(&mut slow, b"abc", Instant::now() + Duration::from_secs(60)).unwrap();
        assert_eq!(slow.0, b"abc");
        let error = give(&mut slow, b"abc", Instant::now()).unwrap_err();
        assert_eq!((error.kind(), slow.0.len()), (ErrorKind::TimedOut, 4));
        give(&mut slow, b"d", Instant::now()).expect("all of it was taken");
    }
}
