//! Counters and gauges: the table of metrics of the whole process, a `Tally` of those that belong
//! to a listener, a route, a pool or a backend, and the times of requests. Each thread that counts
//! has one `Slab` of all three.
//!
//! Only its thread writes a slab, with plain loads and stores; any thread may read it, and sums are
//! made on reading. A sum taken while threads count may miss what happens meanwhile, but is never
//! too high.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

use super::{request_times::RequestTimes, tally::Tally};

/// How a metric changes over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How long things took, by length.
    Histogram,
}

/// One row of the table.
pub(crate) struct Metric {
    /// The name of its family, without the prefix `ringway_`.
    pub(crate) family: &'static str,
    /// The labels that tell it from the others of its family, if any: name and value of each.
    pub(crate) label: &'static [(&'static str, &'static str)],
    pub(crate) kind: Kind,
    pub(crate) help: &'static str,
}

macro_rules! counters {
    ($(
        $variant:ident, $kind:ident, $name:literal [$($axis:ident = $value:literal),*],
        $help:literal;
    )*) => {
        /// A metric of the whole process, or of each core; the table has its name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(usize)]
        #[non_exhaustive]
        pub enum Counter { $(#[doc = $help] $variant,)* }

        impl Counter {
            /// All of them.
            pub const ALL: &[Counter] = &[$(Counter::$variant,)*];
        }

        /// The table of metrics, in the order of `Counter`.
        const TABLE: &[Metric] = &[
            $(Metric {
                family: $name,
                label: &[$((stringify!($axis), $value)),*],
                kind: Kind::$kind,
                help: $help,
            },)*
        ];
    };
}

#[rustfmt::skip]
counters! {
    Accepted, Counter, "connections_accepted_total" [], "Client connections accepted";
    RejectedOverloaded, Counter, "connections_rejected_total" [reason = "overloaded"], "Client connections refused because a limit was reached";
    RejectedDescriptors, Counter, "connections_rejected_total" [reason = "descriptors"], "Client connections refused because no descriptor was left";
    RejectedProxyHeader, Counter, "connections_rejected_total" [reason = "proxy_header"], "Client connections refused because they did not begin with a proper PROXY header";
    RejectedAbuse, Counter, "connections_rejected_total" [reason = "abuse"], "Client connections refused because earlier ones from their address had to be ended again and again";
    IdleEvicted, Counter, "connections_idle_evicted_total" [], "Idle client connections closed to make room";
    MovedNew, Counter, "connections_moved_total" [state = "new"], "Client connections handed over to a core that is less busy, by the core that was busier";
    MovedIdle, Counter, "connections_moved_total" [state = "idle"], "Client connections handed over to a core that is less busy, by the core that was busier";
    Load, Gauge, "core_load_ratio" [], "The share of the last half second in which each core was running or waiting for a processor, in thousandths";
    Connections, Gauge, "core_connections" [], "Client connections open on each core";
    Requests, Counter, "core_requests_total" [], "Requests that began on each core: their head was read whole, or refused";
    InFlight, Gauge, "requests_in_flight" [], "Exchanges in flight";
    RequestBytes, Counter, "request_bytes_total" [], "Bytes read from clients, including heads and framing";
    ResponseBytes, Counter, "response_bytes_total" [], "Bytes sent to clients, including heads and framing";
    Refused, Counter, "refused_total" [], "Exchanges answered with a fault of the closed list";
    ClientAborts, Counter, "client_aborts_total" [], "Clients that left before their answer was whole";
    ClientTimeouts, Counter, "client_timeouts_total" [], "Clients cut because they stopped reading";
    Incomplete, Counter, "responses_incomplete_total" [], "Answers cut after their head had been sent";
    RetryAnswered, Counter, "retries_refused_total" [reason = "answered"], "Requests not retried: the client had got a part of an answer";
    RetryBodyGone, Counter, "retries_refused_total" [reason = "body_gone"], "Requests not retried: a part of the body was gone";
    RetryNotIdempotent, Counter, "retries_refused_total" [reason = "not_idempotent"], "Requests not retried: it might have done twice what must be done once";
    RetryNotNamed, Counter, "retries_refused_total" [reason = "not_named"], "Requests not retried: `retry.on` does not name what happened";
    RetryTriesUsed, Counter, "retries_refused_total" [reason = "tries_used"], "Requests not retried: all of `retry.attempts` were used up";
    RetryNoneLeft, Counter, "retries_refused_total" [reason = "none_left"], "Requests not retried: no other backend was left";
    RetryBudgetSpent, Counter, "retries_refused_total" [reason = "budget_spent"], "Requests not retried: the pool's budget was spent";
    HedgesWon, Counter, "hedges_total" [result = "won"], "Second copies of slow requests that were answered first";
    HedgesLost, Counter, "hedges_total" [result = "lost"], "Second copies of slow requests that were cancelled or failed";
    BackendOpened, Counter, "backend_connections_opened_total" [], "Connections opened to backends";
    BackendReuse, Counter, "backend_connection_reuse_total" [], "Requests sent on a connection used before";
    BackendConnectFailures, Counter, "backend_connect_failures_total" [], "Connections to backends that could not be made";
    BackendClosedIdle, Counter, "backend_connections_closed_total" [reason = "closed"], "Idle backend connections that the backend closed";
    BackendUnasked, Counter, "backend_connections_closed_total" [reason = "unasked"], "Backend connections closed because unasked bytes came";
    BackendSuspected, Counter, "backend_connections_closed_total" [reason = "suspected"], "Backend connections not used again because their address had sent more than an answer lately";
    BackendExpired, Counter, "backend_connections_closed_total" [reason = "expired"], "Idle backend connections closed because their time was over";
    BackendEvicted, Counter, "backend_connections_closed_total" [reason = "evicted"], "Idle backend connections closed because descriptors ran short";
    BackendStale, Counter, "backend_connections_stale_total" [], "Reused connections that died before any byte of an answer";
    BackendAnswersRefused, Counter, "backend_answers_refused_total" [], "Answers refused for the form of their head or body, or the size of their head";
    BackendIdle, Gauge, "backend_connections" [state = "idle"], "Connections to backends: in use by requests and tunnels, or idle";
    StickyKept, Counter, "sticky_total" [result = "kept"], "Answers of the backend that the client's cookie names";
    StickyRefreshed, Counter, "sticky_total" [result = "refreshed"], "The same, with the cookie refreshed";
    StickyMoved, Counter, "sticky_total" [result = "moved"], "Answers of another backend than the client's cookie names";
    StickyNew, Counter, "sticky_total" [result = "new"], "Answers that set a cookie for a client without one";
    StickyMalformed, Counter, "sticky_total" [result = "malformed"], "Answers to cookies that we never write";
    StickyForged, Counter, "sticky_total" [result = "forged"], "Answers to cookies that were not signed by us for this pool";
    StickyExpired, Counter, "sticky_total" [result = "expired"], "Answers to cookies that have expired";
    StickyUnknown, Counter, "sticky_total" [result = "unknown"], "Answers to cookies of a backend that is gone";
    AccessLogDropped, Counter, "access_log_dropped_total" [], "Lines of access logs that could not be written";
    TlsNew13, Counter, "tls_handshakes_total" [version = "1.3", resumed = "no"], "Handshakes with clients that were completed";
    TlsResumed13, Counter, "tls_handshakes_total" [version = "1.3", resumed = "yes"], "Handshakes with clients that were completed";
    TlsNew12, Counter, "tls_handshakes_total" [version = "1.2", resumed = "no"], "Handshakes with clients that were completed";
    TlsResumed12, Counter, "tls_handshakes_total" [version = "1.2", resumed = "yes"], "Handshakes with clients that were completed";
    TlsRefused, Counter, "tls_handshake_failures_total" [reason = "refused"], "Handshakes that we refused: nothing in common, a certificate that is not good, garbage";
    TlsAlerted, Counter, "tls_handshake_failures_total" [reason = "alert"], "Handshakes that the client broke off by an alert, such as one for our certificate";
    TlsLeft, Counter, "tls_handshake_failures_total" [reason = "left"], "Handshakes that the client left, or that the network broke";
    TlsTimeout, Counter, "tls_handshake_failures_total" [reason = "timeout"], "Handshakes that took longer than timeouts.tls-handshake";
    TlsPlainHttp, Counter, "tls_handshake_failures_total" [reason = "plain_http"], "Plain HTTP on a port that speaks TLS";
    Http2Malformed, Counter, "http2_malformed_requests_total" [], "Requests of HTTP/2 that broke a rule and were reset";
    Http2Resets, Counter, "http2_abuse_total" [reason = "resets"], "Connections of HTTP/2 ended because their clients reset streams before they were answered";
    Http2Provoked, Counter, "http2_abuse_total" [reason = "provoked_resets"], "Connections of HTTP/2 ended because their clients made us reset streams";
    Http2Heads, Counter, "http2_abuse_total" [reason = "heads"], "Connections of HTTP/2 ended because their clients sent heads that were too large, or in too many frames";
    Http2Settings, Counter, "http2_abuse_total" [reason = "settings"], "Connections of HTTP/2 ended because their clients sent settings all the time";
    Http2Pings, Counter, "http2_abuse_total" [reason = "pings"], "Connections of HTTP/2 ended because their clients sent pings all the time";
    Http2Priorities, Counter, "http2_abuse_total" [reason = "priorities"], "Connections of HTTP/2 ended because their clients sent priorities all the time";
    Http2WindowUpdates, Counter, "http2_abuse_total" [reason = "window_updates"], "Connections of HTTP/2 ended because their clients gave room for nothing all the time";
    Http2EmptyData, Counter, "http2_abuse_total" [reason = "empty_data"], "Connections of HTTP/2 ended because their clients sent empty frames all the time";
    Http2Useless, Counter, "http2_abuse_total" [reason = "useless"], "Connections of HTTP/2 ended because their clients sent frames that mean nothing all the time";
    Tunnels, Gauge, "tunnels" [], "Upgraded connections open";
    Panics, Counter, "panics_total" [], "Connections ended by a panic: each is a bug";
}

impl Counter {
    pub(crate) fn row(self) -> &'static Metric {
        &TABLE[self as usize]
    }
}

/// What one thread counts.
#[repr(align(128))]
pub(crate) struct Slab {
    cells: [AtomicU64; TABLE.len()],
    /// Its counts by name.
    tally: Tally,
    /// How long requests took.
    times: RequestTimes,
    /// The id of its thread; 0 = unknown. Written once, at the thread's beginning.
    thread: AtomicU32,
}

impl Slab {
    pub(crate) fn new() -> Arc<Slab> {
        let cells = [const { AtomicU64::new(0) }; TABLE.len()];
        let (tally, times) = (Tally::new(), RequestTimes::new());
        Arc::new(Slab { cells, tally, times, thread: AtomicU32::new(0) })
    }

    /// Notes the id of its thread.
    pub(crate) fn runs_on(&self, thread: u32) {
        self.thread.store(thread, Relaxed);
    }

    /// The id of its thread; 0 = unknown.
    pub(crate) fn thread(&self) -> u32 {
        self.thread.load(Relaxed)
    }

    /// How long requests took.
    pub(crate) fn times(&self) -> &RequestTimes {
        &self.times
    }

    /// Its counts by name.
    #[inline]
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Adds to a metric. Only the slab's thread may call it.
    #[inline]
    pub(crate) fn add(&self, counter: Counter, amount: u64) {
        let cell = &self.cells[counter as usize];
        cell.store(cell.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// Subtracts from a gauge. Only the slab's thread may call it.
    #[inline]
    pub(crate) fn sub(&self, counter: Counter, amount: u64) {
        self.add(counter, amount.wrapping_neg());
    }

    /// The present value of a metric.
    pub(crate) fn read(&self, counter: Counter) -> u64 {
        self.cells[counter as usize].load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_returns_to_nought_and_names_are_unique() {
        let slab = Slab::new();
        slab.add(Counter::InFlight, 2);
        slab.sub(Counter::InFlight, 2);
        assert_eq!(slab.read(Counter::InFlight), 0);
        let mut names: Vec<_> = TABLE.iter().map(|row| (row.family, row.label)).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len());
        for (row, counter) in TABLE.iter().zip(Counter::ALL) {
            assert_eq!((row.family, row.label), (counter.row().family, counter.row().label));
            assert_eq!(row.kind == Kind::Counter, row.family.ends_with("_total"), "{}", row.family);
            assert!(!row.help.is_empty());
        }
    }
}
