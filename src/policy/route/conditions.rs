//! The conditions of a route besides host and path: methods, fields, protocols, listener.
//!
//! All of them must hold. A method is compared by its bytes, as methods are case-sensitive (RFC
//! 9110 §9.1); one line of a field must have exactly the value.

use super::Asked;
use crate::plan::{ListenerId, Route};

type Bytes = Box<[u8]>;

/// The conditions of a route besides host and path.
#[derive(Clone, Debug)]
pub(super) struct Conditions {
    listener: Option<ListenerId>,
    methods: Box<[Bytes]>,
    /// Protocols, one of which the client of a connection of TCP must speak.
    alpn: Box<[Bytes]>,
    /// Names in lower case, and values.
    headers: Box<[(Bytes, Bytes)]>,
}

impl Conditions {
    pub(super) fn of(route: &Route) -> Conditions {
        let bytes = |text: &String| Bytes::from(text.as_bytes());
        Conditions {
            listener: route.listener,
            methods: route.methods.iter().map(bytes).collect(),
            alpn: route.alpn.iter().map(bytes).collect(),
            headers: route
                .headers
                .iter()
                .map(|(name, value)| (bytes(name), bytes(value)))
                .collect(),
        }
    }

    /// Whether all of them hold.
    pub(super) fn hold(&self, asked: &Asked<'_>) -> bool {
        let method = || asked.head.bytes(asked.head.method_span);
        if let Some(alpn) = asked.tcp {
            // Routes without a listener are for requests.
            return self.listener == Some(asked.listener)
                && (self.alpn.is_empty() || self.alpn.iter().any(|one| alpn.contains(one)));
        }
        self.listener.is_none_or(|listener| listener == asked.listener)
            && (self.methods.is_empty() || self.methods.iter().any(|one| **one == *method()))
            && self.headers.iter().all(|(name, value)| has_field(asked, name, value))
    }
}

fn has_field(asked: &Asked<'_>, name: &[u8], value: &[u8]) -> bool {
    asked.head.headers.named(name).any(|line| line == value)
}
