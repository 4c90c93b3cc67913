//! Webhooks: where chosen events are sent.

use std::time::Duration;

/// A place that is told of events.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Webhook {
    /// Where they are sent, by POST: `http` or `https`. It may hold a secret.
    pub url: String,
    /// The words of the events; none = all.
    pub events: Vec<String>,
    /// How often an event that was not taken is sent again.
    pub retries: u8,
    /// How long one attempt may take.
    pub timeout: Duration,
}

impl Webhook {
    /// For all events.
    #[must_use]
    pub fn new(url: String) -> Webhook {
        Webhook { url, events: Vec::new(), retries: 5, timeout: Duration::from_secs(5) }
    }

    /// Whether it wants an event of this word.
    #[must_use]
    pub fn wants(&self, word: &str) -> bool {
        self.events.is_empty() || self.events.iter().any(|event| event == word)
    }

    /// What may be shown of it: scheme and host.
    #[must_use]
    pub fn shown(&self) -> &str {
        let host = self.url.find("://").map_or(0, |at| at + 3);
        let rest = self.url.get(host..).unwrap_or_default();
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let user = rest.get(..end).and_then(|rest| rest.rfind('@')).map_or(0, |at| at + 1);
        rest.get(user..end).unwrap_or_default()
    }
}

/// The words that events have, as far as a webhook may ask for them.
#[rustfmt::skip] // a table
pub const EVENT_WORDS: &[&str] = &[
    "started", "stopped", "lameduck", "draining",
    "backend_up", "backend_down", "backend_ejected", "backend_returning", "backend_readmitted",
    "backend_unreachable", "backend_reachable", "backend_suspected", "backend_tls_failed",
    "breaker_open", "breaker_half_open", "breaker_closed",
    "panic_on", "panic_off", "lenient_on", "lenient_off", "probes_late",
    "name_moved", "name_resolved", "name_stale", "name_held", "name_unknown", "names_surplus", "names_delayed",
    "reload", "reload_refused", "upgrade", "upgrade_refused",
    "backend_added", "backend_removed", "backend_set", "change_dropped", "state_refused", "state_not_kept",
    "certificate_replaced", "certificate_refused", "certificate_expires", "certificate_expired",
    "revocations_stale", "certificates_unwatched", "tls_handshake_failed", "http2_abuse", "proxy_header_refused",
    "connection_limit", "descriptor_limit", "outgoing_limit", "connections_lowered",
    "access_log_behind", "access_log_failing", "access_log_written", "access_log_not_reopened",
    "driver_fallback", "socket_unused", "secret_exposed", "secret_not_kept", "timeline_not_kept",
    "thread_died", "thread_hung",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_the_url_is_not_shown() {
        for (url, shown) in [
            ("https://hooks.example/T0/secret", "hooks.example"),
            ("http://user:word@10.0.0.1:99?token=x", "10.0.0.1:99"),
            ("https://[::1]:8443", "[::1]:8443"),
        ] {
            assert_eq!(Webhook::new(url.to_owned()).shown(), shown);
        }
    }

    #[test]
    fn it_wants_the_events_that_it_names_or_all() {
        let all = Webhook::new("http://a/".to_owned());
        let some = Webhook { events: vec!["reload".to_owned()], ..all.clone() };
        assert!(all.wants("reload") && all.wants("backend_up"));
        assert!(some.wants("reload") && !some.wants("backend_up"));
    }
}
