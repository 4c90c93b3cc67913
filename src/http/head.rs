//! The heads of the two messages: what stands before the body.

use super::headers::{Headers, Span};

/// The methods that some rule asks for; all the others are `Other` and keep their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Patch,
    Connect,
    Trace,
    Other,
}

impl Method {
    /// Whether repeating it has the effect of doing it once (RFC 9110 §9.2.2). A method we do not
    /// know is not taken for idempotent.
    #[must_use]
    pub(crate) fn is_idempotent(self) -> bool {
        match self {
            Method::Get
            | Method::Head
            | Method::Put
            | Method::Delete
            | Method::Options
            | Method::Trace => true,
            Method::Post | Method::Patch | Method::Connect | Method::Other => false,
        }
    }
}

/// The version of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    Http10,
    #[default]
    Http11,
}

/// The four shapes of a request target (RFC 9112 §3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TargetForm {
    #[default]
    Origin,
    Absolute,
    Authority,
    Asterisk,
}

/// A request's head. Recycled: `clear` keeps its room.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestHead {
    pub(crate) headers: Headers,
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) form: TargetForm,
    pub(crate) method_span: Span,
    /// Path and query as they are sent on: of an absolute target without scheme and authority,
    /// never empty (RFC 9110 §7.7).
    pub(crate) target: Span,
    /// The path alone, as received.
    pub(crate) path: Span,
    /// The query without its question mark.
    pub(crate) query: Span,
    /// The authority this request is for, as received: of the target where it is absolute, else
    /// of Host; empty where an HTTP/1.0 client sent neither.
    pub(crate) authority: Span,
    /// Whether the client asked for the connection to stay open (RFC 9112 §9.3).
    pub(crate) keep_alive: bool,
    /// Whether it expects 100 (Continue) (RFC 9110 §10.1.1), and is of HTTP/1.1.
    pub(crate) expects_continue: bool,
    /// Whether it asks for an upgrade that we would relay (RFC 9110 §7.8).
    pub(crate) upgrade: bool,
}

impl RequestHead {
    /// Forgets everything but keeps the room.
    pub(crate) fn clear(&mut self) {
        let mut headers = std::mem::take(&mut self.headers);
        headers.clear();
        *self = RequestHead { headers, ..RequestHead::default() };
    }

    /// A range of this head as bytes.
    #[inline]
    pub(crate) fn bytes(&self, span: Span) -> &[u8] {
        span.of(&self.headers.bytes)
    }
}

/// A response's head. Recycled: `clear` keeps its room.
#[derive(Clone, Debug, Default)]
pub(crate) struct ResponseHead {
    pub(crate) headers: Headers,
    pub(crate) status: u16,
    pub(crate) version: Version,
    pub(crate) reason: Span,
    /// Whether the backend lets its connection stay open (RFC 9112 §9.3).
    pub(crate) keep_alive: bool,
}

impl ResponseHead {
    /// Forgets everything but keeps the room.
    pub(crate) fn clear(&mut self) {
        let mut headers = std::mem::take(&mut self.headers);
        headers.clear();
        *self = ResponseHead { headers, ..ResponseHead::default() };
    }
}
