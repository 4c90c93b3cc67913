//! Retries of a pool, as configured.

use std::time::Duration;

use super::share::Share;

/// Which requests are retried, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retry {
    /// All tries, including the first.
    pub attempts: u8,
    /// The failures that are retried.
    pub on: RetryOn,
    /// How long one try may take until its answer begins, if that is less than the pool's
    /// `response`; zero = no bound of its own.
    pub per_try: Duration,
    /// How many retries are allowed in proportion to the requests; none = no bound.
    pub budget: Option<RetryBudget>,
    /// When a slow request is asked of a second backend as well; none = never.
    pub hedge: Option<Hedge>,
    /// Bytes of a request body that are kept so that it can be sent again.
    pub body_bytes_max: u32,
}

/// Hedging: a second copy of a slow request goes to another backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hedge {
    /// How long the first has to begin its answer.
    pub after: HedgeAfter,
    /// The share of requests of which there may be a second copy.
    pub max: Share,
}

/// When a second copy is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeAfter {
    /// After the time within which so many of a hundred answers of the pool begin at present.
    Quantile(u8),
    /// After this time.
    Time(Duration),
}

impl Default for Hedge {
    /// The slowest twentieth.
    fn default() -> Hedge {
        Hedge { after: HedgeAfter::Quantile(95), max: Share::percent(5) }
    }
}

/// The retry budget: a share of the requests of the last ten seconds, plus a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryBudget {
    /// The retries that each request earns.
    pub ratio: Share,
    /// Retries allowed in every second however many requests there are.
    pub per_second: u32,
}

impl Default for RetryBudget {
    /// A fifth and ten, like Finagle and tower.
    fn default() -> RetryBudget {
        RetryBudget { ratio: Share::percent(20), per_second: 10 }
    }
}

impl Default for Retry {
    fn default() -> Retry {
        Retry {
            attempts: 2,
            on: RetryOn {
                connect_failure: true,
                reset_before_response: true,
                backend_down: true,
                ..RetryOn::default()
            },
            per_try: Duration::ZERO,
            budget: Some(RetryBudget::default()),
            hedge: None,
            body_bytes_max: 64 << 10,
        }
    }
}

/// The failures that are retried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)]
#[non_exhaustive]
pub struct RetryOn {
    /// No connection could be made.
    pub connect_failure: bool,
    /// The connection ended before any byte of an answer.
    pub reset_before_response: bool,
    /// The answer was 502.
    pub status_502: bool,
    /// The answer was 503.
    pub status_503: bool,
    /// The answer was 504.
    pub status_504: bool,
    /// The answer did not begin in time.
    pub timeout: bool,
    /// The backend was taken out while the answer had not begun.
    pub backend_down: bool,
    /// A call of gRPC ended without a message: a bit for each status, the lowest for 0.
    pub grpc: u32,
}
