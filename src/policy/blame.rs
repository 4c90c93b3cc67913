//! Whether the end of a try counts for its backend, against it, or not at all.
//!
//! Clients that leave never count, nor does a kept connection that the backend was just closing:
//! neither says anything about the backend. What it answers counts by its status alone; an answer
//! that we do not take for its form counts neither way, as a client brings one about at will by
//! asking for the one path that has it.

use super::retry::Outcome;
use crate::http::fault::{Cause, Failure};
use crate::plan::Statuses;

/// How a try counts: true = the backend did well; none = it says nothing. `had_all_the_time` where
/// it was the only one to be waited for until the exchange was late.
#[inline]
pub(crate) fn blame(outcome: Outcome, failures: &Statuses, had_all_the_time: bool) -> Option<bool> {
    match outcome {
        Outcome::Status(status) => Some(!failures.contains(status)),
        Outcome::Fault(fault) if fault.cause == Cause::Deadline => {
            had_all_the_time.then_some(false)
        }
        Outcome::Fault(fault) => is_failure(fault.cause).then_some(false),
    }
}

#[cold]
fn is_failure(cause: Cause) -> bool {
    match cause.failure() {
        Some(Failure::Connect | Failure::Reset | Failure::Timeout | Failure::Answer) => true,
        Some(Failure::Stale | Failure::NotTaken | Failure::Ours) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Passive;

    #[track_caller]
    fn check(outcome: Outcome, expected: Option<bool>) {
        assert_eq!(blame(outcome, &Passive::default().statuses, false), expected, "{outcome:?}");
    }

    #[test]
    fn an_answer_counts_by_its_status() {
        for status in [101, 200, 304, 404, 429, 500, 501, 505, 600, 999] {
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
        ] {
            check(Outcome::Fault(cause.into()), Some(false));
        }
    }

    /// Else one bad path takes out all backends, one after the other.
    #[test]
    fn an_answer_that_is_not_taken_for_its_form_says_nothing() {
        for cause in [Cause::ResponseRefused, Cause::ResponseHeadTooLarge] {
            check(Outcome::Fault(cause.into()), None);
        }
    }

    #[test]
    fn who_had_all_the_time_of_an_exchange_is_to_blame_that_it_is_late() {
        let late = Outcome::Fault(Cause::Deadline.into());
        assert_eq!(blame(late, &Passive::default().statuses, true), Some(false));
        let left = Outcome::Fault(Cause::ClientAbort.into());
        assert_eq!(blame(left, &Passive::default().statuses, true), None);
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
