//! Events of a running balancer, as typed values with names.
//!
//! Each event has a word for machines, a level and a sentence; the three are in one table. The
//! operational log, `Handle::events` and all other outputs are readers of these values: nothing is
//! put into words anywhere else. `hub.rs` makes them from what threads report by ids.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::base::{backend_set::BACKENDS_MAX, moment::millis};
use crate::plan::LogLevel;
use crate::policy::{standing::Cause, suspicion::Silence};

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A backend passes its probes.
    BackendUp(Transition),
    /// A backend fails its probes.
    BackendDown(Transition),
    /// A backend gets no requests for a while, for its failures.
    BackendEjected(Transition),
    /// An ejected backend gets trial requests.
    BackendReturning(Transition),
    /// An ejected backend takes part again.
    BackendReadmitted(Transition),
    /// The circuit breaker of a backend stops its traffic.
    BreakerOpen(Transition),
    /// The circuit breaker of a backend lets trial requests through.
    BreakerHalfOpen(Transition),
    /// The circuit breaker of a backend lets its traffic through.
    BreakerClosed(Transition),
    /// Too few backends of a pool are usable: all of them are used.
    PanicOn(Usable),
    /// Enough backends of a pool are usable again.
    PanicOff(Usable),
    /// No backend of a pool would be usable: ejected ones are used.
    LenientOn(Usable),
    /// Ejected backends of a pool are left out again.
    LenientOff(Usable),
    /// No connection to a backend can be made. Reported only if no other event about the backend
    /// says so within a few seconds.
    #[non_exhaustive]
    BackendUnreachable {
        /// The backend.
        backend: Backend,
        /// Why, by the code of the access log: `connect_failed`, `connect_timeout`, …
        code: &'static str,
    },
    /// TLS to a backend failed.
    #[non_exhaustive]
    BackendTlsFailed {
        /// The backend.
        backend: Backend,
        /// Why.
        cause: Arc<str>,
    },
    /// Connections to a backend can be made again.
    BackendReachable(Backend),
    /// A backend has answered nobody for far longer than usual, while others answer: it is probed
    /// at once, or counted as failing.
    #[non_exhaustive]
    BackendSuspected {
        /// The backend.
        backend: Backend,
        /// Why.
        cause: Silence,
    },
    /// Probes of a pool begin late.
    #[non_exhaustive]
    ProbesLate {
        /// The pool.
        pool: Arc<str>,
        /// By how much.
        late: Duration,
    },
    /// The name of a backend has other addresses than before.
    #[non_exhaustive]
    NameMoved {
        /// The name.
        name: Named,
        /// Its addresses from now on.
        addresses: Vec<SocketAddr>,
        /// Addresses that get no new requests.
        gone: Vec<SocketAddr>,
    },
    /// The name of a backend resolves again, to the same addresses.
    NameResolved(Named),
    /// The name of a backend does not resolve; its last addresses stay in use.
    #[non_exhaustive]
    NameStale {
        /// The name.
        name: Named,
        /// Why.
        cause: Arc<str>,
    },
    /// The name of a backend does not resolve and has no addresses yet.
    #[non_exhaustive]
    NameUnknown {
        /// The name.
        name: Named,
        /// Why.
        cause: Arc<str>,
    },
    /// Clients do not get through their TLS handshake. Reported once a minute for each listener and
    /// reason.
    #[non_exhaustive]
    HandshakeFailed {
        /// The listener.
        listener: Arc<str>,
        /// One of these clients; none = it is on this machine.
        client: Option<IpAddr>,
        /// Why it does not.
        cause: Arc<str>,
        /// Handshakes that have failed for any reason, on any listener, since the start.
        failed: u64,
    },
    /// A client does something on a connection of HTTP/2 so often that the connection is ended.
    /// Reported once a minute for each listener and reason.
    #[non_exhaustive]
    Http2Abuse {
        /// The listener.
        listener: Arc<str>,
        /// One of these clients; none = it is on this machine.
        client: Option<IpAddr>,
        /// What it does.
        cause: Arc<str>,
    },
    /// Connections do not begin with a proper PROXY header, or come from elsewhere than the proxies
    /// that may connect. Reported once a minute for each listener and reason.
    #[non_exhaustive]
    ProxyHeaderRefused {
        /// The listener.
        listener: Arc<str>,
        /// Where one of them came from; none = it is on this machine.
        client: Option<IpAddr>,
        /// Why it was refused.
        cause: Arc<str>,
        /// Connections that were refused for any of these reasons since the start.
        refused: u64,
    },
    /// An answer for a name lacks more than half of its addresses: these stay in use until answers
    /// have lacked them for as long as the pool's `resolve`.
    #[non_exhaustive]
    NameHeld {
        /// The name.
        name: Named,
        /// What the answer lacks.
        lacking: Vec<SocketAddr>,
    },
    /// The names of a pool have more addresses than a pool has backends: some are not used.
    #[non_exhaustive]
    NamesSurplus {
        /// The pool.
        pool: Arc<str>,
        /// How many are not used.
        unused: usize,
    },
    /// The addresses of names have changed, and the pools cannot take them yet.
    #[non_exhaustive]
    NamesDelayed {
        /// Why.
        cause: Arc<str>,
    },
    /// A limit of client connections is reached.
    #[non_exhaustive]
    ConnectionLimit {
        /// Connections that are open.
        open: u64,
        /// Idle ones closed to make room, since the start.
        idle_closed: u64,
        /// Connections refused, since the start.
        refused: u64,
    },
    /// The process has no descriptor left: client connections are refused.
    #[non_exhaustive]
    DescriptorLimit {
        /// Connections refused for this, since the start.
        refused: u64,
    },
    /// No descriptor, port or memory is left for connections to backends.
    OutgoingLimit,
    /// An access log is written more slowly than it grows: lines are dropped.
    #[non_exhaustive]
    AccessLogBehind {
        /// Lines dropped, since the start.
        dropped: u64,
    },
    /// An access log cannot be written.
    AccessLogFailing(AccessLog),
    /// An access log can be written again.
    #[non_exhaustive]
    AccessLogWritten {
        /// The file; none = standard output.
        file: Option<PathBuf>,
    },
    /// An access log cannot be reopened; the present file is kept.
    AccessLogNotReopened(AccessLog),
    /// An attempt gave no answer that was used. Only if the log level is `debug` or more.
    AttemptFailed(Attempt),
    /// A request failed or was slow. Of many in a second only some are told.
    RequestNoted(Request),
    /// The limit of connections was lowered at the start, to fit the descriptors of the process.
    #[non_exhaustive]
    ConnectionsLowered {
        /// The limit in force.
        connections: u32,
        /// The limit that was wanted.
        wanted: u32,
        /// The descriptors that the process may have.
        descriptors: u64,
        /// The descriptors that the wanted limit needs.
        needed: u64,
    },
    /// epoll serves, as io_uring is not available.
    #[non_exhaustive]
    DriverFallback {
        /// Why.
        cause: Arc<str>,
    },
    /// A listening socket that was given to the process, by the service manager or at an upgrade,
    /// was closed: no listener has its address.
    #[non_exhaustive]
    SocketUnused {
        /// Its address, or what it is.
        address: Arc<str>,
    },
    /// Every user of the machine may read or write a secret file.
    #[non_exhaustive]
    SecretExposed {
        /// The pool that names it.
        pool: Arc<str>,
        /// The file.
        file: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Sticky cookies end with the process, as their secret cannot be kept.
    #[non_exhaustive]
    SecretNotKept {
        /// Why.
        cause: Arc<str>,
    },
    /// A certificate was replaced: new connections get the one that is in its file now.
    CertificateReplaced(Certificate),
    /// What is in a file of certificates cannot be used; what was read from it before stays.
    #[non_exhaustive]
    CertificateRefused {
        /// The file of the certificate.
        file: PathBuf,
        /// Why.
        cause: Arc<str>,
    },
    /// A certificate ends soon.
    #[non_exhaustive]
    CertificateExpires {
        /// The certificate.
        certificate: Certificate,
        /// Whole days until it ends.
        days: u64,
    },
    /// A certificate has ended: clients refuse it.
    CertificateExpired(Certificate),
    /// A list of revoked certificates should have been replaced: what was revoked since then is
    /// still accepted.
    #[non_exhaustive]
    RevocationsStale {
        /// The file.
        file: PathBuf,
    },
    /// The folders of certificates cannot be watched; they are looked at every ten seconds.
    #[non_exhaustive]
    CertificatesUnwatched {
        /// Why.
        cause: Arc<str>,
    },
    /// Another plan is in force.
    #[non_exhaustive]
    Reloaded {
        /// The number of the plan in force.
        generation: u64,
        /// What changed, one line for each change; empty if nothing did.
        changes: Arc<str>,
        /// Keys that differ in the file and keep their value until a restart.
        kept: Arc<str>,
        /// What asked for the reload: `HUP` or `admin`.
        by: Arc<str>,
        /// The peer that asked, if the request came over a socket.
        from: Option<Arc<str>>,
    },
    /// A backend was added at run time.
    BackendAdded(Change),
    /// A backend was removed at run time.
    BackendRemoved(Change),
    /// The weight of a backend or what it is for was set at run time.
    BackendSet(Change),
    /// A run-time change of a backend does not fit the configuration any more, and was dropped.
    #[non_exhaustive]
    ChangeDropped {
        /// The pool.
        pool: Arc<str>,
        /// The backend.
        backend: Arc<str>,
        /// Why it does not fit.
        cause: Arc<str>,
    },
    /// A line of the file that keeps run-time changes cannot be used, and was dropped.
    #[non_exhaustive]
    StateRefused {
        /// The file and the line.
        at: Arc<str>,
        /// Why.
        cause: Arc<str>,
    },
    /// A webhook does not take events. Said once, until it does.
    #[non_exhaustive]
    WebhookFailing {
        /// Its host.
        address: Arc<str>,
        /// Why.
        cause: Arc<str>,
    },
    /// A webhook takes events again.
    #[non_exhaustive]
    WebhookDelivers {
        /// Its host.
        address: Arc<str>,
        /// How many events were given up.
        lost: u64,
    },
    /// The timeline cannot be kept on disk: it ends with the process.
    #[non_exhaustive]
    TimelineNotKept {
        /// Why.
        cause: Arc<str>,
    },
    /// What is in force could not be kept over a restart.
    #[non_exhaustive]
    StateNotKept {
        /// Why.
        cause: Arc<str>,
    },
    /// A configuration was read again and refused; nothing has changed.
    #[non_exhaustive]
    ReloadRefused {
        /// Why, in one sentence.
        cause: Arc<str>,
        /// What asked for the reload: `HUP` or `admin`.
        by: Arc<str>,
        /// The peer that asked, if the request came over a socket.
        from: Option<Arc<str>>,
    },
    /// A new process of the program has taken over; this one finishes what it has.
    #[non_exhaustive]
    Upgraded {
        /// The id of the new process.
        pid: u32,
        /// The version of its program.
        version: Arc<str>,
        /// What asked for it: `USR2` or `admin`.
        by: Arc<str>,
        /// The peer that asked, if the request came over a socket.
        from: Option<Arc<str>>,
    },
    /// No new process has taken over; this one serves on.
    #[non_exhaustive]
    UpgradeRefused {
        /// Why.
        cause: Arc<str>,
        /// What asked for it: `USR2` or `admin`; `upgrade` if the new process died later.
        by: Arc<str>,
        /// The peer that asked, if the request came over a socket.
        from: Option<Arc<str>>,
    },
    /// The process is about to stop: it is not ready any more, and still serves.
    #[non_exhaustive]
    Lameduck {
        /// For how long.
        time: Duration,
    },
    /// No new connections are taken, and what runs finishes.
    #[non_exhaustive]
    Draining {
        /// Client connections that are open.
        connections: u64,
    },
    /// Everything has ended.
    #[non_exhaustive]
    Stopped {
        /// Whether everything had finished by itself; else it was cut.
        finished: bool,
        /// Client connections accepted since the start.
        connections: u64,
        /// Requests since the start.
        requests: u64,
        /// Lines of access logs dropped since the start.
        dropped: u64,
    },
    /// A thread accepts no message, or does not end when it is told to: a bug in Ringway.
    #[non_exhaustive]
    ThreadHung {
        /// The thread.
        thread: Arc<str>,
    },
    /// A thread has died, and no longer does its work: a bug in Ringway.
    #[non_exhaustive]
    ThreadDied {
        /// The thread.
        thread: Arc<str>,
    },
}

/// A change of a backend, or of its circuit breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transition {
    /// The pool.
    pub pool: Arc<str>,
    /// The backend.
    pub backend: Arc<str>,
    /// Why it changed.
    pub cause: Cause,
    /// How long the earlier state had lasted.
    pub lasted: Duration,
}

/// A change of a backend at run time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The pool.
    pub pool: Arc<str>,
    /// The backend.
    pub backend: Arc<str>,
    /// What is set: `weight 3, draining`; empty for a removal.
    pub changes: Arc<str>,
    /// The number of the plan in force.
    pub generation: u64,
    /// What asked for it: `admin`, `library`, or `drain` where a drain has ended.
    pub by: Arc<str>,
    /// The peer that asked, if the request came over a socket.
    pub from: Option<Arc<str>>,
}

/// How many backends of a pool are usable by their probes and failures.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usable {
    /// The pool.
    pub pool: Arc<str>,
    /// Backends that are usable.
    pub healthy: usize,
    /// Backends that there are.
    pub of: usize,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backend {
    /// Its pool.
    pub pool: Arc<str>,
    /// Its name.
    pub backend: Arc<str>,
}

/// A backend that is configured by host name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Named {
    /// The pool.
    pub pool: Arc<str>,
    /// The backend.
    pub backend: Arc<str>,
    /// The host name and the port.
    pub address: Arc<str>,
}

/// An access log, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccessLog {
    /// The file; none = standard output.
    pub file: Option<PathBuf>,
    /// The system's error.
    pub cause: Arc<str>,
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Certificate {
    /// Its file, as in the configuration.
    pub file: PathBuf,
    /// The names it is for.
    pub names: Vec<Arc<str>>,
    /// The day it ends: `2027-02-28`.
    pub last_day: Arc<str>,
}

/// A request that failed or was slow.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// Its id.
    pub request_id: Arc<str>,
    /// The listener that it came to.
    pub listener: Arc<str>,
    /// The route that took it.
    pub route: Option<Arc<str>>,
    /// The pool.
    pub pool: Option<Arc<str>>,
    /// The backend that was asked last.
    pub backend: Option<Arc<str>>,
    /// The status that its client was sent; 0 = none.
    pub status: u16,
    /// How it ended, by the code of the access log.
    pub code: &'static str,
    /// How often backends were asked.
    pub attempts: u8,
    /// Each of these tries, if there was more than one.
    pub tries: Vec<Try>,
    /// How long it took; none = it was not timed.
    pub took: Option<Duration>,
}

/// One of the tries of a request, in the words of the access log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Try {
    /// The backend that was asked.
    #[serde(serialize_with = "as_text")]
    pub backend: Arc<str>,
    /// Whether its connection had been used before.
    pub reused: bool,
    /// What it was in when it ended.
    pub phase: &'static str,
    /// What was wrong with it; none = its answer was taken, or another came first.
    pub fault: Option<Cow<'static, str>>,
    /// How long it took.
    #[serde(rename = "ms", serialize_with = "as_millis")]
    pub took: Duration,
    /// Why another followed, or why none did.
    pub why: Option<Cow<'static, str>>,
}

fn as_text<S: Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(text)
}

fn as_millis<S: Serializer>(span: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(span.as_secs_f64() * 1_000.0)
}

/// An attempt that gave no answer that was used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// The id of the request.
    pub request_id: Arc<str>,
    /// The pool.
    pub pool: Arc<str>,
    /// The backend.
    pub backend: Arc<str>,
    /// Whether a connection was made.
    pub connected: bool,
    /// What went wrong, by the code of the access log; `ok` if it was the status.
    pub code: &'static str,
    /// The status of the answer; 0 = none.
    pub status: u16,
    /// How long it took.
    pub took: Duration,
    /// Why no other attempt followed; none = one did.
    pub refusal: Option<&'static str>,
}

impl Event {
    /// The word for machines.
    #[must_use]
    pub fn word(&self) -> &'static str {
        self.row().0
    }

    /// How important it is.
    #[must_use]
    pub fn level(&self) -> LogLevel {
        self.row().1
    }

    /// The sentence; the fields say which backend it was, and why.
    #[must_use]
    pub fn sentence(&self) -> &'static str {
        self.row().2
    }

    /// Its word, level, sentence and the fields that it has, for programs.
    pub(crate) fn object(&self) -> Map<String, Value> {
        let level = format!("{:?}", self.level()).to_lowercase();
        let mut object = Map::new();
        object.insert("event".into(), self.word().into());
        object.insert("level".into(), level.into());
        object.insert("message".into(), self.sentence().into());
        if let Ok(Value::Object(fields)) = serde_json::to_value(self.fields()) {
            object.extend(fields.into_iter().filter(|(_, value)| !value.is_null()));
        }
        object
    }

    #[rustfmt::skip] // a table
    fn row(&self) -> (&'static str, LogLevel, &'static str) {
        use LogLevel::{Debug, Error, Info, Warn};
        match self {
            Event::BackendUp(_) => ("backend_up", Info, "backend up"),
            Event::BackendDown(_) => ("backend_down", Warn, "backend down"),
            Event::BackendEjected(_) => ("backend_ejected", Warn, "backend ejected for its failures"),
            Event::BackendReturning(_) => ("backend_returning", Info, "backend awaiting a trial request"),
            Event::BackendReadmitted(_) => ("backend_readmitted", Info, "backend readmitted"),
            Event::BreakerOpen(_) => ("breaker_open", Warn, "circuit breaker open: the backend gets no requests"),
            Event::BreakerHalfOpen(_) => ("breaker_half_open", Info, "circuit breaker half-open: the backend gets trial requests"),
            Event::BreakerClosed(_) => ("breaker_closed", Info, "circuit breaker closed: the backend gets requests again"),
            Event::PanicOn(_) => ("panic_on", Warn, "pool in panic: too few backends are usable, all of them are used"),
            Event::PanicOff(_) => ("panic_off", Info, "pool out of panic: enough backends are usable again"),
            Event::LenientOn(_) => ("lenient_on", Warn, "pool without a usable backend: ejected ones are used"),
            Event::LenientOff(_) => ("lenient_off", Info, "pool with usable backends again: ejected ones are left out"),
            Event::BackendUnreachable { .. } => ("backend_unreachable", Warn, "backend unreachable"),
            Event::BackendTlsFailed { .. } => ("backend_tls_failed", Warn, "TLS to a backend failed"),
            Event::BackendReachable(_) => ("backend_reachable", Info, "backend reachable again"),
            Event::BackendSuspected { .. } => ("backend_suspected", Info, "backend suspected: it answers nobody"),
            Event::ProbesLate { .. } => ("probes_late", Warn, "probes late: too many backends of the pool do not answer, or the machine is busy"),
            Event::NameMoved { .. } => ("name_moved", Info, "name of a backend resolves to other addresses"),
            Event::NameResolved(_) => ("name_resolved", Info, "name of a backend resolves again"),
            Event::NameStale { .. } => ("name_stale", Warn, "name of a backend does not resolve any more: its last addresses stay in use"),
            Event::NameHeld { .. } => ("name_held", Warn, "answer for the name of a backend lacks more than half of its addresses: these stay in use for now"),
            Event::NamesSurplus { .. } => ("names_surplus", Warn, "names of a pool have more addresses than a pool has backends: some are not used"),
            Event::NamesDelayed { .. } => ("names_delayed", Warn, "addresses of names have changed and cannot be used yet"),
            Event::NameUnknown { .. } => ("name_unknown", Warn, "name of a backend does not resolve: the backend gets no requests until there is an address"),
            Event::HandshakeFailed { .. } => ("tls_handshake_failed", Info, "TLS handshake of a client failed"),
            Event::Http2Abuse { .. } => ("http2_abuse", Warn, "connection of HTTP/2 ended: its client does too often what costs us more than it"),
            Event::ProxyHeaderRefused { .. } => ("proxy_header_refused", Warn, "connection without a proper PROXY header refused"),
            Event::ConnectionLimit { .. } => ("connection_limit", Warn, "connection limit reached (limits.connections, or max-connections of a listener): idle connections are closed to make room, others refused"),
            Event::DescriptorLimit { .. } => ("descriptor_limit", Warn, "descriptors used up: connections are refused"),
            Event::OutgoingLimit => ("outgoing_limit", Warn, "descriptors, ports or memory used up for connections to backends: requests that find none open are refused"),
            Event::AccessLogBehind { .. } => ("access_log_behind", Warn, "access log written more slowly than it grows: lines are dropped"),
            Event::AccessLogFailing(_) => ("access_log_failing", Warn, "access log cannot be written: lines are counted and dropped"),
            Event::AccessLogWritten { .. } => ("access_log_written", Info, "access log can be written again"),
            Event::AccessLogNotReopened(_) => ("access_log_not_reopened", Warn, "access log cannot be reopened: the present file is kept"),
            Event::RequestNoted(_) => ("request_noted", Debug, "request failed or slow"),
            Event::AttemptFailed(_) => ("attempt_failed", Debug, "attempt failed"),
            Event::ConnectionsLowered { .. } => ("connections_lowered", Warn, "connection limit lowered to fit the descriptors of this process (LimitNOFILE in the systemd unit, or `ulimit -n`, allows more)"),
            Event::DriverFallback { .. } => ("driver_fallback", Warn, "io_uring not available: epoll in use"),
            Event::SocketUnused { .. } => ("socket_unused", Warn, "listening socket that was given closed: no listener has its address"),
            Event::SecretExposed { .. } => ("secret_exposed", Warn, "secret file may be read or written by every user of this machine: chmod o= it"),
            Event::SecretNotKept { .. } => ("secret_not_kept", Warn, "secret of sticky cookies not kept: the cookies end with this process; name a `secret-file`"),
            Event::CertificateReplaced(_) => ("certificate_replaced", Info, "certificate replaced: new connections get the one in its file"),
            Event::CertificateRefused { .. } => ("certificate_refused", Error, "certificate refused: the one in use stays"),
            Event::CertificateExpires { .. } => ("certificate_expires", Warn, "certificate ends soon"),
            Event::CertificateExpired(_) => ("certificate_expired", Error, "certificate has ended: clients refuse it"),
            Event::RevocationsStale { .. } => ("revocations_stale", Warn, "list of revoked certificates out of date: what was revoked since then is still accepted"),
            Event::CertificatesUnwatched { .. } => ("certificates_unwatched", Warn, "folders of certificates cannot be watched: they are looked at every ten seconds"),
            Event::Reloaded { .. } => ("reload", Info, "configuration reloaded"),
            Event::BackendAdded(_) => ("backend_added", Info, "backend added"),
            Event::BackendRemoved(_) => ("backend_removed", Info, "backend removed"),
            Event::BackendSet(_) => ("backend_set", Info, "backend set"),
            Event::ChangeDropped { .. } => ("change_dropped", Warn, "run-time change does not fit the configuration any more: dropped"),
            Event::StateRefused { .. } => ("state_refused", Warn, "run-time change that was kept does not fit: dropped"),
            Event::StateNotKept { .. } => ("state_not_kept", Warn, "run-time changes not kept over a restart"),
            Event::TimelineNotKept { .. } => ("timeline_not_kept", Warn, "timeline not kept on disk: its events are in memory alone"),
            Event::WebhookFailing { .. } => ("webhook_failing", Warn, "webhook does not take events: they are sent again, and given up in the end"),
            Event::WebhookDelivers { .. } => ("webhook_delivers", Info, "webhook takes events again"),
            Event::ReloadRefused { .. } => ("reload_refused", Error, "configuration refused: the one in force stays"),
            Event::Upgraded { .. } => ("upgrade", Info, "a new process has taken over"),
            Event::UpgradeRefused { .. } => ("upgrade_refused", Error, "no new process has taken over: this one serves on"),
            Event::Lameduck { .. } => ("lameduck", Info, "lameduck: not ready any more, but still serving"),
            Event::Draining { .. } => ("draining", Info, "draining: no new connections are taken"),
            Event::Stopped { finished: true, .. } => ("stopped", Info, "stopped: all finished"),
            Event::Stopped { finished: false, .. } => ("stopped", Info, "stopped: unfinished connections were cut"),
            Event::ThreadDied { .. } => ("thread_died", Error, "thread died of a bug in Ringway: its work is no longer done"),
            Event::ThreadHung { .. } => ("thread_hung", Error, "thread hangs through a bug in Ringway: it is left behind"),
        }
    }
}

/// The fields of an event, by their names in logs and streams.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Fields<'a> {
    pub(crate) request_id: Option<&'a str>,
    pub(crate) pool: Option<&'a str>,
    pub(crate) backend: Option<&'a str>,
    pub(crate) phase: Option<&'static str>,
    pub(crate) code: Option<&'static str>,
    pub(crate) status: Option<u16>,
    pub(crate) cause: Option<String>,
    pub(crate) lasted_ms: Option<u64>,
    pub(crate) late_ms: Option<u64>,
    pub(crate) ms: Option<f64>,
    pub(crate) asked_again: Option<bool>,
    pub(crate) refusal: Option<&'static str>,
    pub(crate) healthy: Option<usize>,
    pub(crate) of: Option<usize>,
    pub(crate) listener: Option<&'a str>,
    pub(crate) route: Option<&'a str>,
    pub(crate) attempts: Option<u8>,
    pub(crate) tries: Option<&'a [Try]>,
    pub(crate) client: Option<String>,
    pub(crate) failed_total: Option<u64>,
    pub(crate) address: Option<&'a str>,
    pub(crate) addresses: Option<String>,
    pub(crate) gone: Option<String>,
    pub(crate) open: Option<u64>,
    pub(crate) idle_closed_total: Option<u64>,
    pub(crate) refused_total: Option<u64>,
    pub(crate) dropped_total: Option<u64>,
    pub(crate) file: Option<String>,
    pub(crate) mode: Option<String>,
    pub(crate) names: Option<String>,
    pub(crate) days: Option<u64>,
    pub(crate) last_day: Option<&'a str>,
    pub(crate) connections: Option<u32>,
    pub(crate) wanted: Option<u32>,
    pub(crate) descriptors: Option<u64>,
    pub(crate) needed: Option<u64>,
    pub(crate) thread: Option<&'a str>,
    pub(crate) connections_total: Option<u64>,
    pub(crate) requests_total: Option<u64>,
    pub(crate) access_log_dropped_total: Option<u64>,
    pub(crate) generation: Option<u64>,
    pub(crate) changes: Option<&'a str>,
    pub(crate) by: Option<&'a str>,
    pub(crate) from: Option<&'a str>,
    pub(crate) pid: Option<u32>,
    pub(crate) version: Option<&'a str>,
}

impl Event {
    /// The fields that it has.
    pub(crate) fn fields(&self) -> Fields<'_> {
        let none = Fields::default();
        match self {
            Event::BackendUp(it)
            | Event::BackendDown(it)
            | Event::BackendEjected(it)
            | Event::BackendReturning(it)
            | Event::BackendReadmitted(it)
            | Event::BreakerOpen(it)
            | Event::BreakerHalfOpen(it)
            | Event::BreakerClosed(it) => Fields {
                cause: Some(it.cause.to_string()),
                lasted_ms: Some(millis(it.lasted)),
                ..Fields::of(&it.pool, &it.backend)
            },
            Event::PanicOn(it)
            | Event::PanicOff(it)
            | Event::LenientOn(it)
            | Event::LenientOff(it) => {
                let Usable { pool, healthy, of } = it;
                Fields { pool: Some(pool), healthy: Some(*healthy), of: Some(*of), ..none }
            }
            Event::BackendUnreachable { backend, code } => {
                Fields { code: Some(code), ..Fields::of(&backend.pool, &backend.backend) }
            }
            Event::BackendTlsFailed { backend, cause } => Fields {
                cause: Some(cause.to_string()),
                ..Fields::of(&backend.pool, &backend.backend)
            },
            Event::BackendReachable(it) => Fields::of(&it.pool, &it.backend),
            Event::BackendSuspected { backend, cause } => Fields {
                cause: Some(cause.to_string()),
                ..Fields::of(&backend.pool, &backend.backend)
            },
            Event::ProbesLate { pool, late } => {
                Fields { pool: Some(pool), late_ms: Some(millis(*late)), ..none }
            }
            Event::NameMoved { name, addresses, gone } => Fields {
                addresses: Some(list(addresses)),
                gone: (!gone.is_empty()).then(|| list(gone)),
                ..name.fields()
            },
            Event::NameResolved(name) => name.fields(),
            Event::NameHeld { name, lacking } => {
                let count = lacking.len();
                let cause = format!("{count} are lacking: {}", list(lacking));
                Fields { cause: Some(cause), ..name.fields() }
            }
            Event::NamesSurplus { pool, unused } => {
                let cause = format!("{unused} are not used: a pool has at most {BACKENDS_MAX}");
                Fields { pool: Some(pool), cause: Some(cause), ..none }
            }
            Event::NamesDelayed { cause } => Fields { cause: Some(cause.to_string()), ..none },
            Event::NameStale { name, cause } | Event::NameUnknown { name, cause } => {
                Fields { cause: Some(cause.to_string()), ..name.fields() }
            }
            Event::HandshakeFailed { listener, client, cause, failed } => Fields {
                listener: Some(listener),
                client: client.map(|client| client.to_string()),
                cause: Some(cause.to_string()),
                failed_total: Some(*failed),
                ..none
            },
            Event::Http2Abuse { listener, client, cause } => Fields {
                listener: Some(listener),
                client: client.map(|client| client.to_string()),
                cause: Some(cause.to_string()),
                ..none
            },
            Event::ProxyHeaderRefused { listener, client, cause, refused } => Fields {
                listener: Some(listener),
                client: client.map(|client| client.to_string()),
                cause: Some(cause.to_string()),
                refused_total: Some(*refused),
                ..none
            },
            Event::ConnectionLimit { open, idle_closed, refused } => Fields {
                open: Some(*open),
                idle_closed_total: Some(*idle_closed),
                refused_total: Some(*refused),
                ..none
            },
            Event::DescriptorLimit { refused } => Fields { refused_total: Some(*refused), ..none },
            Event::OutgoingLimit => none,
            Event::AccessLogBehind { dropped } => Fields { dropped_total: Some(*dropped), ..none },
            Event::AccessLogFailing(it) | Event::AccessLogNotReopened(it) => {
                Fields { file: Some(shown(&it.file)), cause: Some(it.cause.to_string()), ..none }
            }
            Event::AccessLogWritten { file } => Fields { file: Some(shown(file)), ..none },
            Event::RequestNoted(request) => request.fields(),
            Event::AttemptFailed(attempt) => attempt.fields(),
            Event::ConnectionsLowered { connections, wanted, descriptors, needed } => Fields {
                connections: Some(*connections),
                wanted: Some(*wanted),
                descriptors: Some(*descriptors),
                needed: Some(*needed),
                ..none
            },
            Event::DriverFallback { cause } | Event::SecretNotKept { cause } => {
                Fields { cause: Some(cause.to_string()), ..none }
            }
            Event::SocketUnused { address } => Fields { address: Some(address), ..none },
            Event::SecretExposed { pool, file, mode } => Fields {
                pool: Some(pool),
                file: Some(file.display().to_string()),
                mode: Some(format!("{mode:03o}")),
                ..none
            },
            Event::CertificateReplaced(it) | Event::CertificateExpired(it) => it.fields(),
            Event::CertificateRefused { file, cause } => Fields {
                file: Some(file.display().to_string()),
                cause: Some(cause.to_string()),
                ..none
            },
            Event::CertificateExpires { certificate, days } => {
                Fields { days: Some(*days), ..certificate.fields() }
            }
            Event::RevocationsStale { file } => {
                Fields { file: Some(file.display().to_string()), ..none }
            }
            Event::CertificatesUnwatched { cause } => {
                Fields { cause: Some(cause.to_string()), ..none }
            }
            Event::Reloaded { generation, changes, kept, by, from } => Fields {
                generation: Some(*generation),
                changes: (!changes.is_empty()).then_some(changes),
                cause: (!kept.is_empty()).then(|| format!("kept until a restart: {kept}")),
                by: Some(by),
                from: from.as_deref(),
                ..none
            },
            Event::BackendAdded(it) | Event::BackendRemoved(it) | Event::BackendSet(it) => Fields {
                generation: Some(it.generation),
                changes: (!it.changes.is_empty()).then_some(&it.changes),
                by: Some(&it.by),
                from: it.from.as_deref(),
                ..Fields::of(&it.pool, &it.backend)
            },
            Event::ChangeDropped { pool, backend, cause } => {
                Fields { cause: Some(cause.to_string()), ..Fields::of(pool, backend) }
            }
            Event::StateRefused { at, cause } => {
                Fields { file: Some(at.to_string()), cause: Some(cause.to_string()), ..none }
            }
            Event::TimelineNotKept { cause } | Event::StateNotKept { cause } => {
                Fields { cause: Some(cause.to_string()), ..none }
            }
            Event::WebhookFailing { address, cause } => {
                Fields { address: Some(address), cause: Some(cause.to_string()), ..none }
            }
            Event::WebhookDelivers { address, lost } => {
                Fields { address: Some(address), dropped_total: Some(*lost), ..none }
            }
            Event::ReloadRefused { cause, by, from } => Fields {
                cause: Some(cause.to_string()),
                by: Some(by),
                from: from.as_deref(),
                ..none
            },
            Event::Upgraded { pid, version, by, from } => Fields {
                pid: Some(*pid),
                version: Some(version),
                by: Some(by),
                from: from.as_deref(),
                ..none
            },
            Event::UpgradeRefused { cause, by, from } => Fields {
                cause: Some(cause.to_string()),
                by: Some(by),
                from: from.as_deref(),
                ..none
            },
            Event::Lameduck { time } => Fields { ms: Some(millis(*time) as f64), ..none },
            Event::Draining { connections } => Fields { open: Some(*connections), ..none },
            Event::Stopped { connections, requests, dropped, .. } => Fields {
                connections_total: Some(*connections),
                requests_total: Some(*requests),
                access_log_dropped_total: Some(*dropped),
                ..none
            },
            Event::ThreadHung { thread } | Event::ThreadDied { thread } => {
                Fields { thread: Some(thread), ..none }
            }
        }
    }
}

impl<'a> Fields<'a> {
    fn of(pool: &'a str, backend: &'a str) -> Fields<'a> {
        Fields { pool: Some(pool), backend: Some(backend), ..Fields::default() }
    }
}

impl Named {
    pub(crate) fn new(pool: &str, backend: &str, address: &str) -> Named {
        Named { pool: pool.into(), backend: backend.into(), address: address.into() }
    }

    fn fields(&self) -> Fields<'_> {
        Fields { address: Some(&self.address), ..Fields::of(&self.pool, &self.backend) }
    }
}

impl Certificate {
    pub(crate) fn new(file: PathBuf, names: Vec<Arc<str>>, last_day: &str) -> Certificate {
        Certificate { file, names, last_day: Arc::from(last_day) }
    }

    fn fields(&self) -> Fields<'_> {
        Fields {
            file: Some(self.file.display().to_string()),
            names: Some(self.names.join(", ")),
            last_day: Some(&self.last_day),
            ..Fields::default()
        }
    }
}

impl Request {
    fn fields(&self) -> Fields<'_> {
        Fields {
            request_id: Some(&self.request_id),
            listener: Some(&self.listener),
            route: self.route.as_deref(),
            pool: self.pool.as_deref(),
            backend: self.backend.as_deref(),
            status: Some(self.status),
            code: Some(self.code),
            attempts: Some(self.attempts),
            tries: Some(&*self.tries).filter(|tries| !tries.is_empty()),
            ms: self.took.map(|took| took.as_secs_f64() * 1_000.0),
            ..Fields::default()
        }
    }
}

impl Attempt {
    fn fields(&self) -> Fields<'_> {
        Fields {
            request_id: Some(&self.request_id),
            phase: Some(if self.connected { "answer" } else { "connect" }),
            code: Some(self.code),
            status: Some(self.status),
            ms: Some(self.took.as_secs_f64() * 1_000.0),
            asked_again: Some(self.refusal.is_none()),
            refusal: Some(self.refusal.unwrap_or_default()),
            ..Fields::of(&self.pool, &self.backend)
        }
    }
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
}

fn shown(file: &Option<PathBuf>) -> String {
    file.as_ref().map_or("standard output".into(), |path| path.display().to_string())
}
