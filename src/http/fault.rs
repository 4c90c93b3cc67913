//! Faults: why an exchange did not go as asked, and whose fault it was.
//!
//! The list is closed. One table turns a cause into a status, a code, the `Proxy-Status` error (RFC
//! 9209) and a sentence for people. A fault is small and copied freely; it holds no text of any
//! peer.

/// The side at fault, against which it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Proxy,
    Backend,
}

/// A reset of a stream of HTTP/2: by whom, and with which code (RFC 9113 §7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamReset {
    pub(crate) by: Side,
    pub(crate) code: u32,
}

impl StreamReset {
    /// The word for who did it, and the name of the code, if that has one.
    pub(crate) fn words(self) -> (&'static str, Option<&'static str>) {
        const NAMES: [&str; 14] = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
        ];
        let by = match self.by {
            Side::Client => "client",
            Side::Proxy => "ringway",
            Side::Backend => "backend",
        };
        let name = usize::try_from(self.code).ok().and_then(|code| NAMES.get(code));
        (by, name.copied())
    }
}

/// What happened. The codes are the closed list that users see; several causes may share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(dead_code, reason = "the list is closed; rules, limits, queues and TLS will say the rest")]
pub(crate) enum Cause {
    /// Breaks a rule of RFC 9110 or 9112, or is ambiguous.
    BadRequest,
    /// Plain HTTP where TLS is spoken.
    PlainHttp,
    Denied,
    NoRoute,
    /// TRACE or CONNECT.
    MethodRefused,
    /// The head or the next piece of the body did not arrive in time.
    RequestTimeout,
    LengthRequired,
    BodyTooLarge,
    UriTooLong,
    ExpectationFailed,
    Misdirected,
    Limited,
    HeadTooLarge,
    Internal,
    NotImplemented,
    Loop,
    /// Refused, unreachable, reset while connecting.
    ConnectFailed,
    NameNotResolved,
    /// The handshake with the backend failed.
    BackendTls,
    /// Its certificate is not good, or not for it.
    BackendCertificate,
    /// It refused the handshake by an alert.
    BackendTlsAlert,
    /// It speaks plain HTTP where TLS is configured.
    BackendPlain,
    /// It speaks TLS where plain HTTP is configured.
    BackendSecure,
    /// The connection ended before a whole response head.
    BackendReset,
    /// A reused connection ended before any byte of a response: the race of RFC 9112 §9.3.1.
    BackendStale,
    /// The backend says that it has not processed the request (RFC 9113 §8.7).
    BackendUnprocessed,
    /// It speaks HTTP/1 where HTTP/2 is configured.
    BackendOldHttp,
    /// The backend sent no valid response: it does not begin as one, or it was cut within its head.
    BackendProtocol,
    /// We refuse a response for its form: it begins as one, but then breaks a rule or is ambiguous.
    /// This says something about this one response only.
    ResponseRefused,
    /// We refuse a response for the size of its head.
    ResponseHeadTooLarge,
    NoBackend,
    QueueFull,
    QueueTimeout,
    Overloaded,
    ShuttingDown,
    ConnectTimeout,
    ResponseTimeout,
    /// The backend was taken out before any byte of a response, and another is asked. No client
    /// sees it.
    BackendDown,
    Deadline,
    VersionRefused,
    /// The client left.
    ClientAbort,
    /// The client stopped reading the response.
    ClientTimeout,
    /// The response was cut after its head had been sent to the client.
    ResponseIncomplete,
}

/// How a try failed, as far as retries and health depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Failure {
    /// No connection was made.
    Connect,
    /// A reused connection turned out to be closed: it says nothing about the backend.
    Stale,
    /// The backend says that it has not processed the request.
    Unprocessed,
    /// The connection ended before any byte of a response.
    Reset,
    /// No response began in time.
    Timeout,
    /// The backend was taken out before any byte of a response.
    Down,
    /// What came was no response, or not all of a head.
    Answer,
    /// A response that we refuse. A client can cause this on a sound backend by asking for the
    /// right path, so it says nothing about the backend.
    NotTaken,
    /// We ran out of something, a descriptor or a port: it says nothing about the backend.
    Ours,
}

impl Failure {
    pub(crate) const ALL: [Failure; 9] = [
        Failure::Connect,
        Failure::Stale,
        Failure::Unprocessed,
        Failure::Reset,
        Failure::Timeout,
        Failure::Down,
        Failure::Answer,
        Failure::NotTaken,
        Failure::Ours,
    ];

    /// The stable token for metrics.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Failure::Connect => "connect_failure",
            Failure::Stale => "stale",
            Failure::Unprocessed => "unprocessed",
            Failure::Reset => "reset_before_response",
            Failure::Timeout => "timeout",
            Failure::Down => "backend_down",
            Failure::Answer => "no_answer",
            Failure::NotTaken => "answer_refused",
            Failure::Ours => "overloaded",
        }
    }
}

/// Why an exchange did not go as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) side: Side,
    pub(crate) cause: Cause,
}

/// One row of the table of faults.
pub(crate) struct CauseFacts {
    pub(crate) side: Side,
    /// 0 if no answer can be given any more.
    pub(crate) status: u16,
    /// The stable token: error body, access log, metric.
    pub(crate) code: &'static str,
    /// The error type of RFC 9209 §2.3.
    pub(crate) proxy_status: &'static str,
    /// The sentence for people.
    pub(crate) sentence: &'static str,
}

impl Fault {
    /// The fault of a cause, with the side from the table.
    #[inline]
    #[must_use]
    pub(crate) fn new(cause: Cause) -> Fault {
        Fault { side: cause.row().side, cause }
    }

    /// The status of the answer; 0 if none can be given any more.
    #[must_use]
    pub(crate) fn status(self) -> u16 {
        self.cause.row().status
    }

    /// The stable token for logs, metrics and the error body.
    #[must_use]
    pub(crate) fn code(self) -> &'static str {
        self.cause.row().code
    }

    /// Whether we still know where the client's next request begins.
    #[must_use]
    pub(crate) fn leaves_framing_sound(self) -> bool {
        match self.cause {
            Cause::BadRequest
            | Cause::PlainHttp
            | Cause::RequestTimeout
            | Cause::BodyTooLarge
            | Cause::UriTooLong
            | Cause::ExpectationFailed
            | Cause::HeadTooLarge
            | Cause::NotImplemented
            | Cause::VersionRefused
            | Cause::ShuttingDown
            | Cause::ClientAbort
            | Cause::ClientTimeout
            | Cause::ResponseIncomplete => false,
            Cause::Denied
            | Cause::NoRoute
            | Cause::MethodRefused
            | Cause::LengthRequired
            | Cause::Misdirected
            | Cause::Limited
            | Cause::Internal
            | Cause::Loop
            | Cause::ConnectFailed
            | Cause::NameNotResolved
            | Cause::BackendTls
            | Cause::BackendCertificate
            | Cause::BackendTlsAlert
            | Cause::BackendPlain
            | Cause::BackendSecure
            | Cause::BackendDown
            | Cause::BackendReset
            | Cause::BackendStale
            | Cause::BackendUnprocessed
            | Cause::BackendOldHttp
            | Cause::BackendProtocol
            | Cause::ResponseRefused
            | Cause::ResponseHeadTooLarge
            | Cause::NoBackend
            | Cause::QueueFull
            | Cause::QueueTimeout
            | Cause::Overloaded
            | Cause::ConnectTimeout
            | Cause::ResponseTimeout
            | Cause::Deadline => true,
        }
    }
}

impl Cause {
    /// How the try failed; none if another backend could not do better.
    #[cold]
    #[must_use]
    pub(crate) fn failure(self) -> Option<Failure> {
        match self {
            Cause::ConnectFailed
            | Cause::ConnectTimeout
            | Cause::NameNotResolved
            | Cause::BackendTls
            | Cause::BackendCertificate
            | Cause::BackendTlsAlert
            | Cause::BackendPlain
            | Cause::BackendOldHttp => Some(Failure::Connect),
            Cause::BackendStale => Some(Failure::Stale),
            Cause::BackendUnprocessed => Some(Failure::Unprocessed),
            Cause::BackendReset => Some(Failure::Reset),
            Cause::ResponseTimeout => Some(Failure::Timeout),
            Cause::BackendDown => Some(Failure::Down),
            Cause::BackendProtocol | Cause::BackendSecure => Some(Failure::Answer),
            Cause::ResponseRefused | Cause::ResponseHeadTooLarge => Some(Failure::NotTaken),
            Cause::Overloaded => Some(Failure::Ours),
            Cause::BadRequest
            | Cause::PlainHttp
            | Cause::Denied
            | Cause::NoRoute
            | Cause::MethodRefused
            | Cause::RequestTimeout
            | Cause::LengthRequired
            | Cause::BodyTooLarge
            | Cause::UriTooLong
            | Cause::ExpectationFailed
            | Cause::Misdirected
            | Cause::Limited
            | Cause::HeadTooLarge
            | Cause::Internal
            | Cause::NotImplemented
            | Cause::Loop
            | Cause::NoBackend
            | Cause::QueueFull
            | Cause::QueueTimeout
            | Cause::ShuttingDown
            | Cause::Deadline
            | Cause::VersionRefused
            | Cause::ClientAbort
            | Cause::ClientTimeout
            | Cause::ResponseIncomplete => None,
        }
    }
}

impl From<Cause> for Fault {
    #[inline]
    fn from(cause: Cause) -> Fault {
        Fault::new(cause)
    }
}

impl Cause {
    /// Its row of the table.
    #[rustfmt::skip]
    #[must_use]
    pub(crate) fn row(self) -> &'static CauseFacts {
        use Side::{Backend, Client, Proxy};
        macro_rules! row {
            ($side:ident, $status:literal, $code:literal, $proxy:literal, $text:literal) => {
                &CauseFacts { side: $side, status: $status, code: $code, proxy_status: $proxy, sentence: $text }
            };
        }
        match self {
            Cause::BadRequest => row!(Client, 400, "bad_request", "http_request_error", "The request breaks HTTP's rules"),
            Cause::PlainHttp => row!(Client, 400, "bad_request", "http_request_error", "Plain HTTP was sent to a port that speaks HTTPS: use https://"),
            Cause::Denied => row!(Proxy, 403, "denied", "http_request_denied", "Denied"),
            Cause::NoRoute => row!(Proxy, 404, "no_route", "destination_not_found", "No route for this request"),
            Cause::MethodRefused => row!(Client, 405, "method_refused", "http_request_denied", "This method is not allowed here"),
            Cause::RequestTimeout => row!(Client, 408, "request_timeout", "http_request_error", "The request did not arrive in time"),
            Cause::LengthRequired => row!(Client, 411, "length_required", "http_request_error", "The request needs a length"),
            Cause::BodyTooLarge => row!(Client, 413, "body_too_large", "http_request_error", "The request body is too large"),
            Cause::UriTooLong => row!(Client, 414, "uri_too_long", "http_request_error", "The request target is too long"),
            Cause::ExpectationFailed => row!(Client, 417, "expectation_failed", "http_request_error", "The expectation cannot be met"),
            Cause::Misdirected => row!(Client, 421, "misdirected", "http_request_error", "This connection does not serve that host"),
            Cause::Limited => row!(Client, 429, "limited", "http_request_denied", "Too many requests"),
            Cause::HeadTooLarge => row!(Client, 431, "head_too_large", "http_request_error", "The request head is too large"),
            Cause::Internal => row!(Proxy, 500, "internal", "proxy_internal_error", "Internal error"),
            Cause::NotImplemented => row!(Client, 501, "not_implemented", "http_request_error", "Not implemented"),
            Cause::Loop => row!(Proxy, 502, "loop", "proxy_loop_detected", "The request came back to this proxy"),
            Cause::ConnectFailed => row!(Backend, 502, "connect_failed", "connection_refused", "The backend refused the connection"),
            Cause::NameNotResolved => row!(Backend, 502, "name_not_resolved", "dns_error", "The backend's name could not be resolved"),
            Cause::BackendTls => row!(Backend, 502, "backend_tls", "tls_protocol_error", "TLS to the backend failed"),
            Cause::BackendCertificate => row!(Backend, 502, "backend_tls", "tls_certificate_error", "The certificate of the backend is not good"),
            Cause::BackendTlsAlert => row!(Backend, 502, "backend_tls", "tls_alert_received", "The backend refused the TLS handshake"),
            Cause::BackendPlain => row!(Backend, 502, "backend_tls", "tls_protocol_error", "The backend speaks plain HTTP where TLS is configured"),
            Cause::BackendSecure => row!(Backend, 502, "backend_tls", "tls_protocol_error", "The backend speaks TLS where plain HTTP is configured"),
            Cause::BackendReset => row!(Backend, 502, "backend_reset", "connection_terminated", "The backend closed the connection before answering"),
            Cause::BackendStale => row!(Backend, 502, "backend_reset", "connection_terminated", "The backend closed the connection before answering"),
            Cause::BackendUnprocessed => row!(Backend, 502, "backend_reset", "connection_terminated", "The backend sent the request back unprocessed"),
            Cause::BackendOldHttp => row!(Backend, 502, "backend_protocol", "http_protocol_error", "The backend speaks HTTP/1 where HTTP/2 is configured"),
            Cause::BackendProtocol => row!(Backend, 502, "backend_protocol", "http_protocol_error", "The backend's answer breaks HTTP's rules"),
            Cause::ResponseRefused => row!(Backend, 502, "backend_protocol", "http_protocol_error", "The backend's answer breaks HTTP's rules"),
            Cause::ResponseHeadTooLarge => row!(Backend, 502, "response_head_too_large", "http_response_header_section_size", "The backend's answer has too large a head"),
            Cause::NoBackend => row!(Backend, 503, "no_backend", "destination_unavailable", "No healthy backends available"),
            Cause::QueueFull => row!(Proxy, 503, "queue_full", "connection_limit_reached", "The queue is full"),
            Cause::QueueTimeout => row!(Proxy, 503, "queue_timeout", "connection_limit_reached", "No backend became free in time"),
            Cause::Overloaded => row!(Proxy, 503, "overloaded", "connection_limit_reached", "Too many connections"),
            Cause::ShuttingDown => row!(Proxy, 503, "shutting_down", "proxy_internal_response", "Shutting down"),
            Cause::ConnectTimeout => row!(Backend, 504, "connect_timeout", "connection_timeout", "Gateway Timeout"),
            Cause::ResponseTimeout => row!(Backend, 504, "response_timeout", "http_response_timeout", "Gateway Timeout"),
            Cause::BackendDown => row!(Backend, 504, "response_timeout", "http_response_timeout", "Gateway Timeout"),
            Cause::Deadline => row!(Backend, 504, "deadline", "http_response_timeout", "Gateway Timeout"),
            Cause::VersionRefused => row!(Client, 505, "version_refused", "http_request_error", "This version of HTTP is not spoken here"),
            Cause::ClientAbort => row!(Client, 0, "client_abort", "http_request_error", "The client left"),
            Cause::ClientTimeout => row!(Client, 0, "client_timeout", "http_request_error", "The client stopped reading"),
            Cause::ResponseIncomplete => row!(Backend, 0, "response_incomplete", "http_response_incomplete", "The backend's answer ended early"),
        }
    }
}
