//! When a request is asked again.

use std::time::Duration;

use super::share::Share;

/// When a request is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retry {
    /// All tries, the first among them.
    pub attempts: u8,
    /// After what.
    pub on: RetryOn,
    /// How long one try may take until its answer begins, where that is less than the pool's
    /// `response`; zero = no bound of its own.
    pub per_try: Duration,
    /// How many retries there may be beside the requests; none = no bound.
    pub budget: Option<RetryBudget>,
    /// Bytes of a request body that are kept so that it can be sent again.
    pub body_bytes_max: u32,
}

/// How many retries there may be: a share of the requests and some, of the last ten seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryBudget {
    /// For each request so much of a retry.
    pub ratio: Share,
    /// So many in every second whatever the requests are.
    pub per_second: u32,
}

impl Default for RetryBudget {
    /// A fifth and ten, as Finagle and tower have it.
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
                ..RetryOn::default()
            },
            per_try: Duration::ZERO,
            budget: Some(RetryBudget::default()),
            body_bytes_max: 64 << 10,
        }
    }
}

/// What a request may be asked again after.
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
}
