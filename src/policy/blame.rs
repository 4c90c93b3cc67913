//! Whether the end of a try counts for its backend, against it, or not at all.
//!
//! Clients that leave never count, nor does a kept connection that the backend was just closing:
//! neither says anything about the backend. What it answers counts by its status alone.

use super::retry::Outcome;
use crate::http::fault::Cause;
use crate::plan::Statuses;

/// How a try counts: true = the backend did well; none = it says nothing.
#[inline]
pub(crate) fn blame(outcome: Outcome, failures: &Statuses) -> Option<bool> {
    match outcome {
        Outcome::Status(status) => Some(!failures.contains(status)),
        Outcome::Fault(fault) => is_failure(fault.cause).then_some(false),
    }
}

#[cold]
fn is_failure(cause: Cause) -> bool {
    match cause {
        Cause::ConnectFailed
        | Cause::ConnectTimeout
        | Cause::NameNotResolved
        | Cause::BackendTls
        | Cause::BackendReset
        | Cause::BackendProtocol
        | Cause::ResponseHeadTooLarge
        | Cause::ResponseTimeout => true,
        Cause::BackendStale
        | Cause::BadRequest
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
        | Cause::Overloaded
        | Cause::ShuttingDown
        | Cause::Deadline
        | Cause::VersionRefused
        | Cause::ClientAbort
        | Cause::ClientTimeout
        | Cause::ResponseIncomplete => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Passive;

    #[track_caller]
    fn check(outcome: Outcome, expected: Option<bool>) {
        assert_eq!(blame(outcome, &Passive::default().statuses), expected, "{outcome:?}");
    }

    #[test]
    fn an_answer_counts_by_its_status() {
        for status in [101, 200, 304, 404, 429, 500, 501, 505] {
            check(Outcome::Status(status), Some(true));
        }
        for status in [502, 503, 504] {
            check(Outcome::Status(status), Some(false));
        }
    }

    #[test]
    fn what_the_backend_failed_to_do_counts_against_it() {
        for cause in [
            Cause::ConnectFailed,
            Cause::ConnectTimeout,
            Cause::BackendReset,
            Cause::BackendProtocol,
            Cause::ResponseTimeout,
            Cause::ResponseHeadTooLarge,
        ] {
            check(Outcome::Fault(cause.into()), Some(false));
        }
    }

    #[test]
    fn what_a_client_did_or_a_stale_connection_says_nothing() {
        for cause in [
            Cause::ClientAbort,
            Cause::ClientTimeout,
            Cause::RequestTimeout,
            Cause::BackendStale,
            Cause::Deadline,
            Cause::Overloaded,
            Cause::ShuttingDown,
        ] {
            check(Outcome::Fault(cause.into()), None);
        }
    }
}
