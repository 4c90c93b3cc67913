//! The keys of a configuration file, as structs.
//!
//! The first of two stages: the values here have the right kind (string, number, list, table) and
//! nothing more is known of them. `check` decides what they mean, and their defaults. `foreign`
//! knows a section by the name of its struct; the doc comments are the text of the JSON Schema and
//! of the reference page.

use schemars::JsonSchema;
use serde::Deserialize;

use super::written::{List, Scalar, Tables, WordOr, Written};

/// The configuration of Ringway.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "file", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct File {
    /// Settings of the whole process.
    pub(crate) global: Option<Written<Global>>,
    /// Addresses that accept connections, by name.
    pub(crate) listener: Tables<Listener>,
    /// Which requests go where. Their order never matters: the more specific one wins.
    pub(crate) route: List<Route>,
    /// Sets of backends that can stand in for each other, by name.
    pub(crate) pool: Tables<Pool>,
    /// Where chosen events are sent.
    pub(crate) webhook: List<Webhook>,
}

/// A place that is told of events, by POST with an object of JSON.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "webhook", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Webhook {
    /// Where they are sent: "http://…" or "https://…".
    pub(crate) url: Option<Written<String>>,
    /// Which events, by their words in the log; absent: all of them.
    pub(crate) events: List<String>,
    /// How often an event that was not taken is sent again, with growing pauses.
    pub(crate) retries: Option<Written<i64>>,
    /// How long one attempt may take.
    pub(crate) timeout: Option<Written<DurationText>>,
}

/// Settings of the whole process.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "global", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Global {
    /// Which cores serve: a number of them, a list such as "0-3,8", or "auto" for the affinity
    /// mask bounded by the CPU limit of the control groups; where that limit decides, no thread is
    /// pinned.
    pub(crate) cores: Option<Written<CoresText>>,
    /// Whether each serving thread is pinned to its core.
    pub(crate) pin: Option<Written<bool>>,
    /// What the threads wait on: "auto", "io_uring" or "epoll". "auto" takes epoll if the kernel
    /// forbids io_uring; "io_uring" then refuses to start.
    pub(crate) driver: Option<Written<String>>,
    /// The admin interface, over HTTP: an address to listen on, "off", or a table with `bind` and
    /// `token-file`.
    pub(crate) admin: Option<Written<WordOr<Admin>>>,
    /// The name of this process in logs, metrics and status; never sent to clients or backends.
    /// Absent: the host name of the machine.
    pub(crate) instance: Option<Written<String>>,
    /// The folder that keeps run-time changes of backends and the key of sticky cookies over a
    /// restart. Absent: `$STATE_DIRECTORY` of a service manager, else `/var/lib/ringway`, else
    /// `$XDG_STATE_HOME/ringway`.
    pub(crate) state_dir: Option<Written<String>>,
    /// The user that the process becomes before it opens anything, if root starts it; absent: none.
    pub(crate) user: Option<Written<String>>,
    /// How the process shuts down.
    pub(crate) shutdown: Option<Written<Shutdown>>,
    /// The operational log.
    pub(crate) log: Option<Written<Log>>,
    /// The limits of the whole process.
    pub(crate) limits: Option<Written<Limits>>,
}

/// The admin interface, over HTTP.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "admin", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Admin {
    /// The address to listen on.
    pub(crate) bind: Option<Written<String>>,
    /// A file with the token that a write must show as `Authorization: Bearer`; absent: writes are
    /// accepted only from this machine.
    pub(crate) token_file: Option<Written<String>>,
}

/// How the process shuts down.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "shutdown", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Shutdown {
    /// How long readiness reports no while traffic is still served, before the drain.
    pub(crate) lameduck: Option<Written<DurationText>>,
    /// How long requests in flight may take to finish.
    pub(crate) drain: Option<Written<DurationText>>,
}

/// The operational log, on standard error.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "log", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Log {
    /// How much is logged: "error", "warn", "info", "debug" or "trace".
    pub(crate) level: Option<Written<String>>,
    /// The format of the log: "text" or "json".
    pub(crate) format: Option<Written<String>>,
}

/// The limits of the whole process.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "limits", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// Client connections, exact for the process. The default is lowered to what the descriptor
    /// limit allows; a value that is written down and does not fit is an error. At the limit a core
    /// closes the connection that is idle longest among its own, not among all; if it has none,
    /// the new client gets 503.
    pub(crate) connections: Option<Written<i64>>,
    /// Bytes of a request head; larger ones are answered with 431. Also of a response head, and of
    /// the trailers of a body: if a backend sends more, the client gets 502.
    pub(crate) header_size: Option<Written<SizeText>>,
    /// Fields of a request head; more are answered with 431. Also of response heads and trailers,
    /// as for `header-size`. (Of interim responses, 1xx, 31 may come before one answer.)
    pub(crate) headers: Option<Written<i64>>,
    /// The slowest body accepted, in either direction: body-rate bytes for each second beyond the
    /// first ten; time spent waiting for the backend does not count; "0B" = only the gaps between
    /// its pieces count.
    pub(crate) body_rate: Option<Written<SizeText>>,
    /// Bytes of a request body; larger ones are answered with 413; "0B" = no limit.
    pub(crate) body_size: Option<Written<SizeText>>,
}

/// One or more addresses that accept connections, and how to talk to what arrives there.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "listener", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Listener {
    /// The addresses to listen on: each an IP address and a port (port 0 takes a free one), or a
    /// Unix socket, as "unix:/run/x.sock" or "unix:@name"; a table where more is to be said of it.
    pub(crate) bind: List<Bind>,
    /// What arrives: "http", or "tcp" for connections whose bytes are passed on both ways.
    pub(crate) mode: Option<Written<String>>,
    /// The pool for requests that match no route (absent: 404), or for all connections of TCP.
    pub(crate) pool: Option<Written<String>>,
    /// TLS: the certificates, and what is asked of clients; absent: plain HTTP.
    pub(crate) tls: Option<Written<ListenerTls>>,
    /// The versions of HTTP that clients may speak: "h1", "h2". With TLS both sides agree on one;
    /// without, a client that speaks HTTP/2 begins with it.
    pub(crate) protocols: List<String>,
    /// The proxies in front that begin each connection with a PROXY header (version 1 or 2): only
    /// they may connect. Absent: there is no such header.
    pub(crate) proxy_protocol: Option<Written<ProxyProtocol>>,
    /// The networks of proxies whose X-Forwarded-* and Forwarded are trusted. They speak for many:
    /// no limit of a single client holds for them.
    pub(crate) trusted_proxies: List<String>,
    /// Client connections of this listener, exact for the process; 0 = only the global limit.
    pub(crate) max_connections: Option<Written<i64>>,
    /// Where requests are logged; absent: nowhere.
    pub(crate) access_log: Option<Written<AccessLog>>,
    /// Whether a client that shuts down its writing half still gets its answer; false: it counts as
    /// gone, and its request is abandoned.
    pub(crate) half_close: Option<Written<bool>>,
    /// How long each wait for a client may take; "0s" = no bound.
    pub(crate) timeouts: Option<Written<ListenerTimeouts>>,
    /// Connections that the kernel holds for each core until they are accepted.
    pub(crate) backlog: Option<Written<i64>>,
}

/// An address to listen on.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename = "bind", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Bind {
    pub(crate) address: Option<Written<String>>,
    pub(crate) mode: Option<Written<String>>,
    pub(crate) owner: Option<Written<String>>,
}

/// Proxies in front that say whom they have accepted.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "proxy-protocol", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct ProxyProtocol {
    /// Their networks.
    pub(crate) from: List<String>,
}

/// TLS in front: the certificates, and what is asked of clients.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "listener-tls", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct ListenerTls {
    /// The certificates, each a table with `cert` and `key`. The first is for clients that name no
    /// host, and for hosts without a certificate.
    pub(crate) certificates: List<Certificate>,
    /// A folder with certificates: `NAME.pem` or `NAME.crt` with its key in `NAME.key`, or both in
    /// one file.
    pub(crate) directory: Option<Written<String>>,
    /// The lowest version that is spoken: "1.2" or "1.3".
    pub(crate) min_version: Option<Written<String>>,
    /// Which clients must show a certificate; absent: no client is asked.
    pub(crate) client_auth: Option<Written<ClientAuth>>,
    /// What a client gets that names a host without a certificate: "default" (the first
    /// certificate) or "refuse" (the alert `unrecognized_name`).
    pub(crate) unknown_name: Option<Written<String>>,
    /// The file with the secret that session tickets are sealed with; instances that share it
    /// resume each other's sessions. Absent: a generated secret.
    pub(crate) ticket_secret_file: Option<Written<String>>,
}

/// A certificate and its key.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "certificate", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Certificate {
    /// The file with the certificate, followed by its chain (PEM).
    pub(crate) cert: Option<Written<String>>,
    /// The file with its private key (PEM, not encrypted); absent: it is in the file of `cert`.
    pub(crate) key: Option<Written<String>>,
    /// A file with an OCSP response that is stapled (DER); absent: none is.
    pub(crate) ocsp: Option<Written<String>>,
}

/// Which clients must show a certificate.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "client-auth", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct ClientAuth {
    /// The file with the certificates of the authorities whose signature is accepted (PEM).
    pub(crate) ca: Option<Written<String>>,
    /// Whether a client without a certificate is turned away: "required" or "optional".
    pub(crate) mode: Option<Written<String>>,
    /// The file with the lists of revoked certificates (PEM); absent: none is looked up.
    pub(crate) crl: Option<Written<String>>,
    /// How many certificates may stand between a client's and an authority of `ca`: 0 to 6.
    pub(crate) depth: Option<Written<i64>>,
}

/// Where requests are logged, and in which format.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "access-log", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct AccessLog {
    /// The file; "-" = standard output.
    pub(crate) path: Option<Written<String>>,
    /// The format of a line: "json", "combined" or "common".
    pub(crate) format: Option<Written<String>>,
}

/// How long each wait for a client may take; "0s" = no bound.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "listener-timeouts", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct ListenerTimeouts {
    /// From the first byte of a request to its whole head: 408.
    pub(crate) client_header: Option<Written<DurationText>>,
    /// Between two pieces of a request body: 408.
    pub(crate) client_body: Option<Written<DurationText>>,
    /// For a client to take any of the data sent to it.
    pub(crate) client_write: Option<Written<DurationText>>,
    /// For a keep-alive connection without a request.
    pub(crate) idle: Option<Written<DurationText>>,
    /// For the TLS handshake.
    pub(crate) tls_handshake: Option<Written<DurationText>>,
    /// For the PROXY header, from accept on.
    pub(crate) proxy_header: Option<Written<DurationText>>,
    /// Without a byte in either direction of a tunnel (WebSocket).
    pub(crate) tunnel: Option<Written<DurationText>>,
    /// Without a byte in a tunnel in which one side has shut down its half.
    pub(crate) half_closed: Option<Written<DurationText>>,
    /// For all of a tunnel, or of a connection of TCP, however busy; then both of its sides are
    /// reset.
    pub(crate) tunnel_life: Option<Written<DurationText>>,
}

/// Which requests, and which pool answers them.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "route", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Route {
    /// Its name in logs and metrics.
    pub(crate) name: Option<Written<String>>,
    /// The listener it is for; absent: every one.
    pub(crate) listener: Option<Written<String>>,
    /// The hosts it is for, each exact or a wildcard such as "*.example.com"; absent: any.
    pub(crate) host: List<String>,
    /// The path it is for and all below it, on segment borders.
    pub(crate) path: Option<Written<String>>,
    /// The one path it is for.
    pub(crate) path_exact: Option<Written<String>>,
    /// A regular expression for the paths it is for; it need not match from the beginning.
    pub(crate) path_regex: Option<Written<String>>,
    /// The methods it is for; absent: any.
    pub(crate) method: List<String>,
    /// The protocols (ALPN) of which a client must speak one; for listeners of TCP, which read
    /// them, and the host, from the first message of TLS. Absent: any.
    pub(crate) alpn: List<String>,
    /// Header fields that must be present with exactly these values.
    pub(crate) header: Tables<String>,
    /// Decides between two routes that are otherwise equally specific: the higher one applies.
    pub(crate) priority: Option<Written<i64>>,
    /// The pool that answers.
    pub(crate) pool: Option<Written<String>>,
}

/// A set of backends that can stand in for each other, with one policy.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "pool", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Pool {
    /// Its backends: each an address, or a table if there is more to say. Each address that a name
    /// has is a backend of its own, called `NAME#ADDRESS`; `srv:NAME` stands for SRV records.
    pub(crate) backends: List<Backend>,
    /// When names of backends are looked up again at the latest; sooner if their answers expire. An
    /// answer that lacks more than half of the addresses is believed after this time.
    pub(crate) resolve: Option<Written<DurationText>>,
    /// How a backend is picked: "round-robin" (it honours weights), "weighted" (the same),
    /// "random" (the better of two), "least-connections", "ip-hash", "least-response-time", or a
    /// table with `hash`.
    pub(crate) balance: Option<Written<WordOr<Balance>>>,
    /// The seed of the hashes: with the same seed and the same backends, a client or key goes to
    /// the same backend on every instance.
    pub(crate) hash_seed: Option<Written<String>>,
    /// The protocol spoken to backends: "h1", "h2" (HTTP/2 over TLS; a backend must agree to it) or
    /// "h2c" (HTTP/2 without TLS). A connection of HTTP/2 carries as many requests at a time as the
    /// backend takes, at most 100; then another is opened, up to `connections.max-idle`.
    pub(crate) protocol: Option<Written<String>>,
    /// Whether backends are told the certificate that the client has shown, as Client-Cert and
    /// Client-Cert-Chain (RFC 9440). Fields of these names from clients are always removed.
    pub(crate) client_cert: Option<Written<bool>>,
    /// The Host that backends receive: "client" (as it came), "backend" (its address as written) or
    /// a host of your choice.
    pub(crate) host: Option<Written<String>>,
    /// TLS to the backends; absent: plain HTTP.
    pub(crate) tls: Option<Written<PoolTls>>,
    /// The version (1 or 2) of the PROXY header that says to a backend who the client is; each
    /// request then has a connection of its own. Absent: none.
    pub(crate) send_proxy_protocol: Option<Written<i64>>,
    /// How backends are probed; absent: no probes.
    pub(crate) health: Option<Written<Health>>,
    /// Outlier ejection: when a backend that fails requests is left out for a while.
    pub(crate) passive: Option<Written<Passive>>,
    /// The circuit breaker of each backend; absent: no breaker.
    pub(crate) breaker: Option<Written<Breaker>>,
    /// When a request is retried.
    pub(crate) retry: Option<Written<Retry>>,
    /// Which requests stay with one backend, by a cookie; absent: none.
    pub(crate) sticky: Option<Written<Sticky>>,
    /// How long a returning backend takes to reach its full share; "0s" = at once.
    pub(crate) slow_start: Option<Written<DurationText>>,
    /// The share of usable backends below which all are used, even those that are down; 0 = never.
    pub(crate) panic: Option<Written<ShareNumber>>,
    /// The queue for requests when every backend is at its `max-in-flight`.
    pub(crate) queue: Option<Written<Queue>>,
    /// The idle connections that each core keeps to each backend.
    pub(crate) connections: Option<Written<Connections>>,
    /// How long each wait for a backend may take; "0s" = no bound.
    pub(crate) timeouts: Option<Written<PoolTimeouts>>,
}

/// TLS to backends.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "pool-tls", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct PoolTls {
    /// The name that is asked for and that the certificate must have; absent: the host of the
    /// backend's address.
    pub(crate) server_name: Option<Written<String>>,
    /// The file with the certificates of the authorities whose signature is accepted (PEM); absent:
    /// those of the system.
    pub(crate) ca: Option<Written<String>>,
    /// The file with the certificate that is shown to backends that ask for one (PEM).
    pub(crate) cert: Option<Written<String>>,
    /// The file with its private key (PEM); absent: it is in the file of `cert`.
    pub(crate) key: Option<Written<String>>,
    /// Whether the certificate of a backend must be good; false protects from nobody who can reach
    /// the network in between.
    pub(crate) verify: Option<Written<bool>>,
}

/// One server of a pool.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename = "backend", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Backend {
    pub(crate) address: Option<Written<String>>,
    pub(crate) weight: Option<Written<i64>>,
    pub(crate) name: Option<Written<String>>,
    pub(crate) backup: Option<Written<bool>>,
    pub(crate) max_in_flight: Option<Written<i64>>,
}

/// Picks a backend by a hash of a part of the request.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "balance", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Balance {
    /// What is hashed: "header:NAME", "cookie:NAME", "query:NAME" or "uri" (path and query).
    /// Requests without it are balanced in turn.
    pub(crate) hash: Option<Written<String>>,
    /// How far above its share of requests in flight a backend may go before its keys move on to
    /// the next, as a factor above 1, such as 1.25; absent: no bound.
    pub(crate) bound: Option<Written<ShareNumber>>,
}

/// How backends are probed.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "health", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Health {
    /// What a probe is: "http" (a GET and an expected answer, in the pool's protocol), "tcp" (a
    /// connection) or "grpc" (grpc.health.v1 says SERVING).
    pub(crate) r#type: Option<Written<String>>,
    /// The path of the GET, with a query if needed.
    pub(crate) path: Option<Written<String>>,
    /// The service that a probe of type "grpc" asks for; absent: the server as a whole.
    pub(crate) service: Option<Written<String>>,
    /// The Host of the request; absent: the backend's address as written.
    pub(crate) host: Option<Written<String>>,
    /// The port that is probed; absent: the backend's own.
    pub(crate) port: Option<Written<i64>>,
    /// Extra fields of the GET.
    pub(crate) headers: Tables<String>,
    /// What the first 64 KiB of the answer's body must contain; absent: anything.
    pub(crate) body: Option<Written<String>>,
    /// The statuses that count as success: 200, "200-399", or a list of these.
    pub(crate) status: Option<List<StatusText>>,
    /// From the start of a probe to the start of the next.
    pub(crate) interval: Option<Written<DurationText>>,
    /// For the whole probe, at most the interval; absent: "2s", or the interval if that is less.
    pub(crate) timeout: Option<Written<DurationText>>,
    /// Successes in a row that mark a backend up.
    pub(crate) rise: Option<Written<i64>>,
    /// Failures in a row that mark it down.
    pub(crate) fall: Option<Written<i64>>,
}

/// Outlier ejection: when a backend that fails requests is left out for a while.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "passive", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Passive {
    /// Failures in a row that eject it, with no success on any core since the first of them; 0 =
    /// never eject for them.
    pub(crate) max_failures: Option<Written<i64>>,
    /// The statuses that count as failures: 503, "502-504", or a list of these, 100 to 999. No
    /// answer always counts.
    pub(crate) statuses: Option<List<StatusText>>,
    /// How long the first ejection lasts; each further one twice as long, up to 300 s.
    pub(crate) eject: Option<Written<DurationText>>,
    /// The share of the pool that may be ejected at once, 0 to 1. One backend always may be, the
    /// last usable one never.
    pub(crate) max_ejected: Option<Written<ShareNumber>>,
    /// A connection of TCP that its backend ends sooner counts as a failure; "0s" = none does for
    /// that. (One that it resets before its first byte always does.)
    pub(crate) min_life: Option<Written<DurationText>>,
}

/// The circuit breaker of each backend: closed it lets requests through, open none, half-open a few
/// trials.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "breaker", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Breaker {
    /// The share of failures within the window at which it opens; above 0, at most 1.
    pub(crate) error_ratio: Option<Written<ShareNumber>>,
    /// The fewest requests within the window for it to open.
    pub(crate) min_requests: Option<Written<i64>>,
    /// The time over which requests are counted.
    pub(crate) window: Option<Written<DurationText>>,
    /// How long it stays open the first time; each further time in a row twice as long.
    pub(crate) open: Option<Written<DurationText>>,
    /// The longest it stays open.
    pub(crate) max_open: Option<Written<DurationText>>,
    /// Requests in flight at once while it is half-open, exact for the process; one more if none of
    /// them is answered within a second.
    pub(crate) probes: Option<Written<i64>>,
    /// How many of them must succeed for it to close.
    pub(crate) successes: Option<Written<i64>>,
    /// Whether it may open for the last usable backend too: requests are then answered with 503
    /// instead of going to one that fails.
    pub(crate) allow_empty: Option<Written<bool>>,
}

/// When a request is retried.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "retry", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Retry {
    /// All tries of a request, including the first; 1 = no retries.
    pub(crate) attempts: Option<Written<i64>>,
    /// The failures that are retried: "connect-failure", "reset-before-response", "backend-down"
    /// (the backend was taken out before its answer began), "timeout", "502", "503", "504",
    /// and for calls of gRPC that end without a message "grpc:unavailable" and the other statuses.
    pub(crate) on: Option<List<String>>,
    /// How long one try may wait for the answer to begin, if that is less than the pool's
    /// `response`; "0s" = no bound of its own.
    pub(crate) per_try: Option<Written<DurationText>>,
    /// How many retries are allowed in proportion to the requests; "off" = as many as `attempts`
    /// allows.
    pub(crate) budget: Option<Written<WordOr<Budget>>>,
    /// When a request whose answer is late is asked of a second backend as well: the first answer
    /// counts. Only idempotent methods, with no body or one that is at hand; "off" = never.
    pub(crate) hedge: Option<Written<WordOr<Hedge>>>,
    /// Bytes of a request body that are kept so that it can be sent again; a longer one is not
    /// retried once some of it has been sent. "0B" = none is kept.
    pub(crate) body: Option<Written<SizeText>>,
}

/// A second copy of a request whose answer is late.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "hedge", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Hedge {
    /// How long the answer has to begin: a duration, or "p95", the time within which 95 of 100
    /// answers of the pool begin at present ("p1" to "p99").
    pub(crate) after: Option<Written<DurationText>>,
    /// The share of requests of which there may be a second copy, above 0, at most 1. The retry
    /// budget holds, too.
    pub(crate) max: Option<Written<ShareNumber>>,
}

/// How many retries are allowed in proportion to the requests of the last ten seconds.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "budget", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Budget {
    /// Retries that each request earns, 0 to 1.
    pub(crate) ratio: Option<Written<ShareNumber>>,
    /// Retries in every second, however few requests there are.
    pub(crate) per_second: Option<Written<i64>>,
}

/// Stickiness: requests that carry our cookie stay with one backend.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "sticky", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Sticky {
    /// The cookie's name.
    pub(crate) cookie: Option<Written<String>>,
    /// The file with the key that signs the cookie's values; instances that share it accept each
    /// other's cookies. Absent: a generated key, which is kept.
    pub(crate) secret_file: Option<Written<String>>,
    /// How long it stays valid without a request; "0s" = for ever.
    pub(crate) max_idle: Option<Written<DurationText>>,
    /// How long it stays valid at all; "0s" = for ever.
    pub(crate) max_life: Option<Written<DurationText>>,
    /// Whether browsers send it with cross-site requests: "lax" = with links, "strict" = never,
    /// "none" = always, which requires TLS before the client.
    pub(crate) same_site: Option<Written<String>>,
}

/// The queue for requests when every backend is at its `max-in-flight`. A client that closes while
/// it waits counts as gone, even if it shuts down only its writing half.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "queue", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Queue {
    /// Requests that may wait, exact for the process; 0 = no queue.
    pub(crate) size: Option<Written<i64>>,
    /// The longest wait: 503.
    pub(crate) timeout: Option<Written<DurationText>>,
}

/// The idle connections that each core keeps to each backend.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "connections", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Connections {
    /// Idle connections kept.
    pub(crate) max_idle: Option<Written<i64>>,
    /// How long a connection may stay idle.
    pub(crate) idle_timeout: Option<Written<DurationText>>,
    /// Requests on one connection; 0 = no bound.
    pub(crate) max_requests: Option<Written<i64>>,
}

/// How long each wait for a backend may take; "0s" = no bound.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "pool-timeouts", rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct PoolTimeouts {
    /// For a connection to be made: 504.
    pub(crate) connect: Option<Written<DurationText>>,
    /// For a backend to take any of the data sent to it: 504.
    pub(crate) write: Option<Written<DurationText>>,
    /// From the end of the request to the whole head of the answer: 504.
    pub(crate) response: Option<Written<DurationText>>,
    /// Between two pieces of the answer's body.
    pub(crate) body: Option<Written<DurationText>>,
    /// For the whole exchange: 504.
    pub(crate) request: Option<Written<DurationText>>,
}

/// A duration with its unit.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct DurationText(pub(crate) Scalar);

/// A size with its unit.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct SizeText(pub(crate) Scalar);

/// Which cores serve.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct CoresText(pub(crate) Scalar);

/// A share of a whole, or a factor.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct ShareNumber(pub(crate) Scalar);

/// A status, or a range of statuses.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct StatusText(pub(crate) Scalar);
