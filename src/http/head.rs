//! The heads of requests and responses as typed values: methods and what may be done with them,
//! versions, and the parts of a first line. Fields are in `headers`, how a head is read in `parse`.
//! *Invariant:* what is not known counts as what may do most.

use super::headers::{Headers, Span};

/// The methods that some rule depends on; all others are `Other` and keep their bytes.
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
    /// Any other that IANA's method registry lists as idempotent.
    OtherIdempotent,
    Other,
}

impl Method {
    /// The method of these bytes. Methods are case-sensitive (RFC 9110 §9.1).
    #[must_use]
    pub(crate) fn of(bytes: &[u8]) -> Method {
        match bytes {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"OPTIONS" => Method::Options,
            b"PATCH" => Method::Patch,
            b"CONNECT" => Method::Connect,
            b"TRACE" => Method::Trace,
            _ => Method::other(bytes),
        }
    }

    /// A method without a rule of its own. The list is the registry's (RFC 9110 §16.1.1, filled by
    /// RFC 7237 and later): of all its entries only LOCK is not idempotent, besides CONNECT, PATCH
    /// and POST.
    #[cold]
    fn other(bytes: &[u8]) -> Method {
        match bytes {
            // WebDAV (RFC 4918), its lists (RFC 3744, 3648, 5323), calendars and references
            // (RFC 4791, 4437), and bindings (RFC 5842).
            b"COPY" | b"MKCOL" | b"MOVE" | b"PROPFIND" | b"PROPPATCH" | b"UNLOCK" | b"ACL"
            | b"ORDERPATCH" | b"SEARCH" | b"MKCALENDAR" | b"MKREDIRECTREF"
            | b"UPDATEREDIRECTREF" | b"BIND" | b"REBIND" | b"UNBIND"
            // Versions (RFC 3253).
            | b"BASELINE-CONTROL" | b"CHECKIN" | b"CHECKOUT" | b"LABEL" | b"MERGE"
            | b"MKACTIVITY" | b"MKWORKSPACE" | b"REPORT" | b"UNCHECKOUT" | b"UPDATE"
            | b"VERSION-CONTROL"
            // The rest: RFC 2068, RFC 9113, and the method for queries with a body.
            | b"LINK" | b"UNLINK" | b"PRI" | b"QUERY" => Method::OtherIdempotent,
            _ => Method::Other,
        }
    }

    /// Whether repeating it has the same effect as sending it once (RFC 9110 §9.2.2). An unknown
    /// method does not count as idempotent.
    #[must_use]
    pub(crate) fn is_idempotent(self) -> bool {
        match self {
            Method::Get
            | Method::Head
            | Method::Put
            | Method::Delete
            | Method::Options
            | Method::Trace
            | Method::OtherIdempotent => true,
            Method::Post | Method::Patch | Method::Connect | Method::Other => false,
        }
    }

    /// Whether it asks for nothing but an answer (RFC 9110 §9.2.1). An unknown method does not
    /// count as safe, nor one that few use.
    #[must_use]
    pub(crate) fn is_safe(self) -> bool {
        match self {
            Method::Get | Method::Head | Method::Options | Method::Trace => true,
            Method::Post
            | Method::Put
            | Method::Delete
            | Method::Patch
            | Method::Connect
            | Method::OtherIdempotent
            | Method::Other => false,
        }
    }
}

/// The version of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    Http10,
    #[default]
    Http11,
    /// Its heads are made into those of HTTP/1.1 when they are read.
    Http2,
}

/// The four forms of a request target (RFC 9112 §3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TargetForm {
    #[default]
    Origin,
    Absolute,
    Authority,
    Asterisk,
}

/// A request's head. Reused: `clear` keeps its capacity.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestHead {
    pub(crate) headers: Headers,
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) form: TargetForm,
    pub(crate) method_span: Span,
    /// Path and query as sent on: without the scheme and authority of an absolute target, and never
    /// empty (RFC 9110 §7.7).
    pub(crate) target: Span,
    /// The path alone, as received.
    pub(crate) path: Span,
    /// The query without its question mark.
    pub(crate) query: Span,
    /// The authority this request is for, as received: from an absolute target, otherwise from
    /// Host; empty if an HTTP/1.0 client sent neither.
    pub(crate) authority: Span,
    /// Whether the client asked for the connection to stay open (RFC 9112 §9.3).
    pub(crate) keep_alive: bool,
    /// Whether it expects 100 (Continue) (RFC 9110 §10.1.1), and is HTTP/1.1.
    pub(crate) expects_continue: bool,
    /// Whether it asks for an upgrade that we would relay (RFC 9110 §7.8).
    pub(crate) upgrade: bool,
}

impl RequestHead {
    /// Empties it and keeps the capacity.
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

/// A response's head. Reused: `clear` keeps its capacity.
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
    /// Empties it and keeps the capacity.
    pub(crate) fn clear(&mut self) {
        let mut headers = std::mem::take(&mut self.headers);
        headers.clear();
        *self = ResponseHead { headers, ..ResponseHead::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// IANA's method registry: name, and whether it is idempotent.
    #[rustfmt::skip]
    const REGISTRY: &[(&str, bool)] = &[
        ("*", false), ("ACL", true), ("BASELINE-CONTROL", true), ("BIND", true), ("CHECKIN", true),
        ("CHECKOUT", true), ("CONNECT", false), ("COPY", true), ("DELETE", true), ("GET", true),
        ("HEAD", true), ("LABEL", true), ("LINK", true), ("LOCK", false), ("MERGE", true),
        ("MKACTIVITY", true), ("MKCALENDAR", true), ("MKCOL", true), ("MKREDIRECTREF", true),
        ("MKWORKSPACE", true), ("MOVE", true), ("OPTIONS", true), ("ORDERPATCH", true),
        ("PATCH", false), ("POST", false), ("PRI", true), ("PROPFIND", true), ("PROPPATCH", true),
        ("PUT", true), ("QUERY", true), ("REBIND", true), ("REPORT", true), ("SEARCH", true),
        ("TRACE", true), ("UNBIND", true), ("UNCHECKOUT", true), ("UNLINK", true),
        ("UNLOCK", true), ("UPDATE", true), ("UPDATEREDIRECTREF", true), ("VERSION-CONTROL", true),
    ];

    /// RFC 9110 §9.2.1.
    #[test]
    fn a_method_is_safe_if_nothing_is_to_be_done() {
        for (name, _) in REGISTRY {
            let safe = matches!(*name, "GET" | "HEAD" | "OPTIONS" | "TRACE");
            assert_eq!(Method::of(name.as_bytes()).is_safe(), safe, "{name}");
        }
    }

    /// RFC 9110 §9.2.2, and §9.1: in this spelling only.
    #[test]
    fn a_method_is_idempotent_where_the_registry_says_so() {
        for (name, idempotent) in REGISTRY {
            assert_eq!(Method::of(name.as_bytes()).is_idempotent(), *idempotent, "{name}");
            for other in [
                name.to_ascii_lowercase(),
                format!("{name}S"),
                format!("X{name}"),
                name[1..].to_owned(),
                name[..name.len() - 1].to_owned(),
            ] {
                let registered = REGISTRY.iter().any(|(name, _)| *name == other);
                let idempotent = Method::of(other.as_bytes()).is_idempotent();
                assert!(registered || !idempotent, "{other}");
            }
        }
        for name in ["", "PURGE", "BREW", "SUBSCRIBE", "NOTIFY", "MKFILE", "POST ", "GET\0"] {
            assert!(!Method::of(name.as_bytes()).is_idempotent(), "{name}");
        }
    }
}
