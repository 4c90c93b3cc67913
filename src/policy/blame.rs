//! Blame: whether the end of a try counts for its backend, against it, or not at all.
//!
//! Nothing that a client does or fails to do counts against a backend: not that it leaves, not that
//! its body is late, too long or missing, not that it asks for a path whose answer we refuse for
//! its form, in its head or in the framing of its body. A reused connection that the backend was
//! just closing does not count either.
//!
//! A client can also ask for a path that takes for ever, as often as it likes, and all those
//! requests then fail at one moment. So a failure after a long wait is `Late`: it counts against
//! the backend only if that has answered no other request since it was asked.

use std::time::Duration;

use super::retry::TryOutcome;
use crate::base::moment::Tick;
use crate::http::fault::Cause;
use crate::plan::Statuses;

/// A failure after this long says little of the present, whatever its form: behind a backend that
/// is a gateway itself a slow path is a 504, behind one that kills its workers it is a reset.
const LONG: Duration = Duration::from_secs(1);

/// How a try counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As a success.
    Well,
    /// As a failure now.
    Failed,
    /// As a failure, with less weight if the backend has answered others since it was asked.
    Late,
    /// Not at all.
    Nothing,
}

/// What a try was waiting for when it ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    /// Since the head of the request was sent, or the try began.
    pub(crate) since: Tick,
    pub(crate) until: Tick,
    pub(crate) body: Body,
    /// Whether this backend was the only one waited for since the exchange began.
    pub(crate) had_all_the_time: bool,
}

/// How much of the request's body a backend has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Body {
    /// All of it; or there is none, or the client was not asked for it yet.
    #[default]
    Whole,
    /// As much as the backend took.
    Untaken,
    /// As much as the client has sent.
    Coming,
}

/// What brought a cause about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// The client, ourselves, or a coincidence.
    NotItsOwn,
    /// The backend did not accept a connection.
    RetryRefusal,
    /// The backend ended the connection before it answered: perhaps it wanted no more of a body.
    Cut,
    /// The backend did nothing while it was waited for.
    Silence,
    /// The whole exchange took too long; the backend's part may be little.
    Lateness,
}

/// How a try counts that ended in this way, after this wait.
#[inline]
pub(crate) fn blame(outcome: TryOutcome, failures: &Statuses, wait: Wait) -> Verdict {
    match outcome {
        TryOutcome::Status(status) if !failures.contains(status) => Verdict::Well,
        TryOutcome::Status(_) => just_now(wait),
        TryOutcome::Grpc(_) => Verdict::Well,
        TryOutcome::Fault(fault) => blame_for(fault.cause, wait),
    }
}

#[cold]
fn blame_for(cause: Cause, wait: Wait) -> Verdict {
    match (doing(cause), wait.body) {
        (Doing::NotItsOwn, _) | (Doing::Silence, Body::Coming) => Verdict::Nothing,
        (Doing::RetryRefusal, _) | (Doing::Cut, Body::Whole) => just_now(wait),
        (Doing::Cut, Body::Untaken | Body::Coming)
        | (Doing::Silence, Body::Whole | Body::Untaken) => Verdict::Late,
        (Doing::Lateness, Body::Whole) if wait.had_all_the_time => Verdict::Late,
        (Doing::Lateness, _) => Verdict::Nothing,
    }
}

fn just_now(wait: Wait) -> Verdict {
    broken_unheard(wait.since, wait.until)
}

/// How it counts that a backend has broken a connection that it had taken, without a byte.
pub(crate) fn broken_unheard(since: Tick, until: Tick) -> Verdict {
    if until < since + LONG { Verdict::Failed } else { Verdict::Late }
}

/// The table of causes: a new one must be added here.
fn doing(cause: Cause) -> Doing {
    match cause {
        // The client did it or failed to.
        Cause::BadRequest
        | Cause::PlainHttp
        | Cause::MethodRefused
        | Cause::RequestTimeout
        | Cause::LengthRequired
        | Cause::BodyTooLarge
        | Cause::UriTooLong
        | Cause::ExpectationFailed
        | Cause::Misdirected
        | Cause::Limited
        | Cause::HeadTooLarge
        | Cause::NotImplemented
        | Cause::VersionRefused
        | Cause::ClientAbort
        | Cause::ClientTimeout => Doing::NotItsOwn,
        // Our own decisions and limits.
        Cause::Denied
        | Cause::NoRoute
        | Cause::Internal
        | Cause::Loop
        | Cause::NoBackend
        | Cause::QueueFull
        | Cause::QueueTimeout
        | Cause::Overloaded
        | Cause::ShuttingDown => Doing::NotItsOwn,
        // A sound backend gives such an answer to any client that asks for the right path.
        Cause::ResponseRefused | Cause::ResponseHeadTooLarge => Doing::NotItsOwn,
        // It is out already, for what others found.
        Cause::BackendDown => Doing::NotItsOwn,
        // It closed the connection while it was reused (RFC 9112 §9.3.1).
        Cause::BackendStale => Doing::NotItsOwn,
        // It sends some requests away, or all before it ends: those that it has begun tell more.
        Cause::BackendUnprocessed => Doing::NotItsOwn,
        Cause::ConnectFailed
        | Cause::NameNotResolved
        | Cause::BackendTls
        | Cause::BackendCertificate
        | Cause::BackendTlsAlert
        | Cause::BackendPlain
        | Cause::BackendOldHttp => Doing::RetryRefusal,
        Cause::BackendReset
        | Cause::BackendProtocol
        | Cause::BackendSecure
        | Cause::ResponseIncomplete => Doing::Cut,
        Cause::ConnectTimeout | Cause::ResponseTimeout => Doing::Silence,
        Cause::Deadline => Doing::Lateness,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Passive;

    use Body::{Coming, Untaken, Whole};
    use Verdict::{Failed, Late, Nothing, Well};

    /// How an outcome counts after a wait of this kind, short and long.
    #[track_caller]
    fn check(outcome: TryOutcome, body: Body, had_all_the_time: bool, expected: [Verdict; 2]) {
        let said = [LONG - Duration::from_millis(1), LONG].map(|span| {
            let since = Tick::from_millis(5);
            let wait = Wait { since, until: since + span, body, had_all_the_time };
            blame(outcome, &Passive::default().statuses, wait)
        });
        assert_eq!(said, expected, "{outcome:?} {body:?} {had_all_the_time}");
    }

    #[test]
    fn an_answer_counts_by_its_status() {
        for body in [Whole, Untaken, Coming] {
            for status in [101, 200, 304, 404, 429, 500, 501, 505, 600, 999] {
                check(TryOutcome::Status(status), body, false, [Well, Well]);
            }
            for status in [502, 503, 504] {
                check(TryOutcome::Status(status), body, false, [Failed, Late]);
            }
        }
    }

    /// All causes in their order. A row each: with the whole request at the backend, with as much
    /// as it took, and with as much as the client has sent; each after a short and a long wait.
    #[rustfmt::skip]
    const TABLE: &[(Cause, [[Verdict; 2]; 3])] = {
        const NOBODY: [[Verdict; 2]; 3] = [[Nothing; 2]; 3];
        const REFUSES: [[Verdict; 2]; 3] = [[Failed, Late]; 3];
        const CUTS: [[Verdict; 2]; 3] = [[Failed, Late], [Late; 2], [Late; 2]];
        const SILENT: [[Verdict; 2]; 3] = [[Late; 2], [Late; 2], [Nothing; 2]];
        &[
            (Cause::BadRequest, NOBODY),
            (Cause::PlainHttp, NOBODY),
            (Cause::Denied, NOBODY),
            (Cause::NoRoute, NOBODY),
            (Cause::MethodRefused, NOBODY),
            (Cause::RequestTimeout, NOBODY),
            (Cause::LengthRequired, NOBODY),
            (Cause::BodyTooLarge, NOBODY),
            (Cause::UriTooLong, NOBODY),
            (Cause::ExpectationFailed, NOBODY),
            (Cause::Misdirected, NOBODY),
            (Cause::Limited, NOBODY),
            (Cause::HeadTooLarge, NOBODY),
            (Cause::Internal, NOBODY),
            (Cause::NotImplemented, NOBODY),
            (Cause::Loop, NOBODY),
            (Cause::ConnectFailed, REFUSES),
            (Cause::NameNotResolved, REFUSES),
            (Cause::BackendTls, REFUSES),
            (Cause::BackendCertificate, REFUSES),
            (Cause::BackendTlsAlert, REFUSES),
            (Cause::BackendPlain, REFUSES),
            (Cause::BackendSecure, CUTS),
            (Cause::BackendReset, CUTS),
            (Cause::BackendStale, NOBODY),
            (Cause::BackendUnprocessed, NOBODY),
            (Cause::BackendOldHttp, REFUSES),
            (Cause::BackendProtocol, CUTS),
            (Cause::ResponseRefused, NOBODY),
            (Cause::ResponseHeadTooLarge, NOBODY),
            (Cause::NoBackend, NOBODY),
            (Cause::QueueFull, NOBODY),
            (Cause::QueueTimeout, NOBODY),
            (Cause::Overloaded, NOBODY),
            (Cause::ShuttingDown, NOBODY),
            (Cause::ConnectTimeout, SILENT),
            (Cause::ResponseTimeout, SILENT),
            (Cause::BackendDown, NOBODY),
            // Unless no other backend was waited for, which has a test of its own.
            (Cause::Deadline, NOBODY),
            (Cause::VersionRefused, NOBODY),
            (Cause::ClientAbort, NOBODY),
            (Cause::ClientTimeout, NOBODY),
            (Cause::ResponseIncomplete, CUTS),
        ]
    };

    #[test]
    fn a_fault_counts_by_whose_doing_it_is() {
        for (place, (cause, expected)) in TABLE.iter().enumerate() {
            assert_eq!(*cause as usize, place, "{cause:?} is missing, or not in its place");
            for (body, expected) in [Whole, Untaken, Coming].into_iter().zip(*expected) {
                check(TryOutcome::Fault((*cause).into()), body, false, expected);
                if *cause != Cause::Deadline {
                    check(TryOutcome::Fault((*cause).into()), body, true, expected);
                }
            }
        }
    }

    #[test]
    fn who_had_all_the_time_of_an_exchange_is_to_blame_that_it_is_late() {
        let late = TryOutcome::Fault(Cause::Deadline.into());
        check(late, Whole, true, [Late; 2]);
        check(late, Untaken, true, [Nothing; 2]);
        check(late, Coming, true, [Nothing; 2]);
    }
}
