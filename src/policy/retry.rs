//! The retry decision: may the same request be sent again? One table, no I/O.
//!
//! What RFC 9110 §9.2.2 and RFC 9112 §9.3.1 forbid is refused whatever the configuration says:
//! nothing is repeated that may have had an effect, and nothing once the client has got a byte of
//! an answer. What they allow is retried if the pool's `retry` names it. A request that met a
//! closing reused connection is always sent again, once, and that counts as no try: it says nothing
//! about the backend, and the client must not notice. So is one that a backend of HTTP/2 says it
//! has not processed, whatever its method (RFC 9113 §8.7). Every call of gRPC is a POST, so its
//! method says nothing: who names a status of gRPC says that such calls may be asked again.

use std::time::Duration;

use crate::base::rng::Rng;
use crate::http::{
    fault::{Failure, Fault},
    head::Method,
};
use crate::plan::Retry;

/// The longest wait before the third try, and before any (Envoy's: full jitter, 25 ms to 250 ms).
const PAUSE_MS: u32 = 25;
const PAUSE_MS_MAX: u32 = 250;

/// How one try ended, and what it left behind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) method: Method,
    pub(crate) outcome: TryOutcome,
    /// The tries so far, including this one; those that met a stale connection do not count.
    pub(crate) tries: u8,
    /// Whether an earlier try of this request met a stale connection.
    pub(crate) stale_before: bool,
    /// Whether any byte of the request was given to the kernel in this try.
    pub(crate) request_sent: bool,
    /// Whether a byte of the body was sent that we no longer hold.
    pub(crate) body_gone: bool,
    /// Whether the client got any byte of an answer, including an interim one.
    pub(crate) answered: bool,
}

/// How one try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TryOutcome {
    /// With an answer of this status, of which nothing was relayed yet.
    Status(u16),
    /// With an answer of 200 that is one head, whose status of gRPC the pool names.
    Grpc(u8),
    Fault(Fault),
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// No reason to retry: the outcome stands.
    Keep,
    /// Ask another backend; it counts as a try.
    Another,
    /// Ask on a new connection, of another backend or, if there is none, of the same; it counts as
    /// no try.
    Fresh,
    /// There was a reason to retry, but it is not allowed: the outcome stands.
    Refused(RetryRefusal),
}

/// Why a request is not retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RetryRefusal {
    /// The client has got a part of the answer.
    Answered,
    /// A part of the body is gone.
    BodyGone,
    /// It might do twice what must be done once.
    NotIdempotent,
    /// `retry.on` does not name what happened.
    NotNamed,
    /// All of `retry.attempts` are used up.
    TriesUsed,
    /// Every backend was asked already. Set by the caller, which picks.
    NoneLeft,
    /// The pool's budget is spent. Set by the caller, which holds it.
    BudgetSpent,
}

impl RetryRefusal {
    /// The stable token for logs and metrics.
    #[must_use]
    pub(crate) fn code(self) -> &'static str {
        match self {
            RetryRefusal::Answered => "answered",
            RetryRefusal::BodyGone => "body_gone",
            RetryRefusal::NotIdempotent => "not_idempotent",
            RetryRefusal::NotNamed => "not_named",
            RetryRefusal::TriesUsed => "tries_used",
            RetryRefusal::NoneLeft => "none_left",
            RetryRefusal::BudgetSpent => "budget_spent",
        }
    }
}

impl TryOutcome {
    /// Whether it may be a reason to retry; most are none.
    #[inline]
    pub(crate) fn calls_for_another(self) -> bool {
        match self {
            TryOutcome::Status(status) => matches!(status, 502..=504),
            TryOutcome::Grpc(_) | TryOutcome::Fault(_) => true,
        }
    }

    /// The status of the answer; 0 = there is none.
    #[inline]
    pub(crate) fn status(self) -> u16 {
        match self {
            TryOutcome::Status(status) => status,
            TryOutcome::Grpc(_) => 200,
            TryOutcome::Fault(_) => 0,
        }
    }
}

/// How long to wait before the next try: the first retry goes to another backend at once; later
/// ones wait for a random moment, so that requests that failed together do not return together.
pub(crate) fn pause(tries: u8, rng: &mut Rng) -> Duration {
    if tries < 2 {
        return Duration::ZERO;
    }
    let most = (PAUSE_MS << (tries - 2).min(8)).min(PAUSE_MS_MAX);
    Duration::from_millis(u64::from(rng.below(most + 1)))
}

/// The reasons to retry, as far as they differ in what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trigger {
    /// No connection was made.
    Connect,
    /// We ran out of something, usually for a connection.
    Ours,
    /// A reused connection turned out to be closed.
    Stale,
    /// The backend has not processed it.
    Unprocessed,
    /// A connection ended before any byte of an answer.
    Reset,
    /// No answer began in time.
    Timeout,
    /// The backend was taken out before any byte of an answer.
    Down,
    /// An answer with a status that can be named.
    Status(u16),
    /// The same with one of gRPC.
    Grpc(u8),
}

/// Whether the request may be retried after this try, and how.
#[must_use]
pub(crate) fn again(retry: &Retry, attempt: &Attempt) -> Decision {
    let Some(trigger) = trigger(attempt.outcome) else {
        return Decision::Keep;
    };
    if let Err(refusal) = allowed(trigger, attempt) {
        return Decision::Refused(refusal);
    }
    if matches!(trigger, Trigger::Stale | Trigger::Unprocessed) && !attempt.stale_before {
        return Decision::Fresh;
    }
    if !named(trigger, retry) {
        return Decision::Refused(RetryRefusal::NotNamed);
    }
    if attempt.tries >= retry.attempts {
        return Decision::Refused(RetryRefusal::TriesUsed);
    }
    Decision::Another
}

/// The reason to retry that an outcome gives, if any.
fn trigger(outcome: TryOutcome) -> Option<Trigger> {
    let cause = match outcome {
        TryOutcome::Status(status @ 502..=504) => return Some(Trigger::Status(status)),
        TryOutcome::Status(_) => return None,
        TryOutcome::Grpc(status) => return Some(Trigger::Grpc(status)),
        TryOutcome::Fault(fault) => fault.cause,
    };
    match cause.failure()? {
        Failure::Connect => Some(Trigger::Connect),
        Failure::Ours => Some(Trigger::Ours),
        Failure::Stale => Some(Trigger::Stale),
        Failure::Unprocessed => Some(Trigger::Unprocessed),
        Failure::Reset => Some(Trigger::Reset),
        Failure::Timeout => Some(Trigger::Timeout),
        Failure::Down => Some(Trigger::Down),
        Failure::Answer | Failure::NotTaken => None,
    }
}

/// What the standard forbids, whatever the configuration says.
fn allowed(trigger: Trigger, attempt: &Attempt) -> Result<(), RetryRefusal> {
    if attempt.answered {
        return Err(RetryRefusal::Answered);
    }
    if attempt.body_gone {
        return Err(RetryRefusal::BodyGone);
    }
    // Without a connection nothing was sent; a request that was never sent had no effect (RFC 9110
    // §9.2.2).
    let had_no_effect = matches!(trigger, Trigger::Connect | Trigger::Unprocessed);
    let is_asked_for = matches!(trigger, Trigger::Grpc(_));
    let sent = attempt.request_sent && !had_no_effect;
    if sent && !is_asked_for && !attempt.method.is_idempotent() {
        return Err(RetryRefusal::NotIdempotent);
    }
    Ok(())
}

/// Whether the pool retries this. A second stale connection counts as a reset.
fn named(trigger: Trigger, retry: &Retry) -> bool {
    let on = &retry.on;
    match trigger {
        Trigger::Connect | Trigger::Unprocessed | Trigger::Ours => on.connect_failure,
        Trigger::Stale | Trigger::Reset => on.reset_before_response,
        Trigger::Timeout => on.timeout,
        Trigger::Down => on.backend_down,
        Trigger::Status(502) => on.status_502,
        Trigger::Status(503) => on.status_503,
        Trigger::Status(_) => on.status_504,
        Trigger::Grpc(status) => on.grpc >> status & 1 == 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fault::Cause;
    use crate::plan::RetryOn;

    use Decision::{Another, Fresh, Keep, Refused};
    use RetryRefusal::{Answered, BodyGone, NotIdempotent, NotNamed, TriesUsed};

    fn everything() -> Retry {
        let on = RetryOn {
            connect_failure: true,
            reset_before_response: true,
            status_502: true,
            status_503: true,
            status_504: true,
            timeout: true,
            backend_down: true,
            grpc: 1 << 14,
        };
        Retry { attempts: 2, on, ..Retry::default() }
    }

    fn nothing() -> Retry {
        Retry { on: RetryOn::default(), ..everything() }
    }

    /// A first GET without a body, fully sent.
    fn get(outcome: impl Into<TryOutcome>) -> Attempt {
        Attempt {
            method: Method::Get,
            outcome: outcome.into(),
            tries: 1,
            stale_before: false,
            request_sent: true,
            body_gone: false,
            answered: false,
        }
    }

    fn post(outcome: impl Into<TryOutcome>) -> Attempt {
        Attempt { method: Method::Post, ..get(outcome) }
    }

    impl From<Cause> for TryOutcome {
        fn from(cause: Cause) -> TryOutcome {
            TryOutcome::Fault(cause.into())
        }
    }

    impl From<u16> for TryOutcome {
        fn from(status: u16) -> TryOutcome {
            TryOutcome::Status(status)
        }
    }

    #[track_caller]
    fn check(retry: Retry, attempt: Attempt, expected: Decision) {
        assert_eq!(again(&retry, &attempt), expected, "{retry:?}, {attempt:?}");
    }

    const CONNECT: [Cause; 4] =
        [Cause::ConnectFailed, Cause::ConnectTimeout, Cause::NameNotResolved, Cause::BackendTls];

    #[test]
    fn a_failed_connect_is_tried_elsewhere_with_any_method() {
        for cause in CONNECT {
            check(everything(), get(cause), Another);
            check(everything(), post(cause), Another);
            check(everything(), Attempt { request_sent: false, ..post(cause) }, Another);
            check(Retry::default(), post(cause), Another);
            check(nothing(), get(cause), Refused(NotNamed));
        }
    }

    /// Another backend may have a connection left, or a port.
    #[test]
    fn what_fails_for_want_of_something_of_ours_is_tried_elsewhere() {
        let unsent = Attempt { request_sent: false, ..post(Cause::Overloaded) };
        check(Retry::default(), unsent, Another);
        check(nothing(), unsent, Refused(NotNamed));
        check(everything(), get(Cause::Overloaded), Another);
        check(everything(), post(Cause::Overloaded), Refused(NotIdempotent));
    }

    /// RFC 9112 §9.3.1.
    #[test]
    fn a_stale_connection_is_retried_once_and_counts_as_no_try() {
        let stale = Cause::BackendStale;
        check(nothing(), get(stale), Fresh);
        check(Retry { attempts: 1, ..nothing() }, get(stale), Fresh);
        check(everything(), Attempt { tries: 2, ..get(stale) }, Fresh);
        check(everything(), post(stale), Refused(NotIdempotent));
        check(everything(), Attempt { request_sent: false, ..post(stale) }, Fresh);
        check(everything(), Attempt { body_gone: true, ..get(stale) }, Refused(BodyGone));
        // The second time it is a reset like any other.
        let again = Attempt { stale_before: true, ..get(stale) };
        check(everything(), again, Another);
        check(nothing(), again, Refused(NotNamed));
        check(everything(), Attempt { tries: 2, ..again }, Refused(TriesUsed));
    }

    /// RFC 9113 §8.7.
    #[test]
    fn what_was_not_processed_is_sent_again_whatever_it_is() {
        let refused = Cause::BackendUnprocessed;
        for attempt in [get(refused), post(refused)] {
            check(nothing(), attempt, Fresh);
            check(nothing(), Attempt { body_gone: true, ..attempt }, Refused(BodyGone));
            check(everything(), Attempt { answered: true, ..attempt }, Refused(Answered));
            // The second time it is a try, as with a connection that is not made.
            let again = Attempt { stale_before: true, ..attempt };
            check(everything(), again, Another);
            check(nothing(), again, Refused(NotNamed));
            check(everything(), Attempt { tries: 2, ..again }, Refused(TriesUsed));
        }
    }

    /// RFC 9110 §9.2.2.
    #[test]
    fn what_may_have_had_an_effect_is_repeated_only_if_idempotent() {
        let outcomes: [TryOutcome; 6] = [
            Cause::BackendReset.into(),
            Cause::BackendDown.into(),
            Cause::ResponseTimeout.into(),
            502.into(),
            503.into(),
            504.into(),
        ];
        for outcome in outcomes {
            for method in [
                Method::Get,
                Method::Head,
                Method::Put,
                Method::Delete,
                Method::Options,
                Method::OtherIdempotent,
            ] {
                check(everything(), Attempt { method, ..get(outcome) }, Another);
            }
            for method in [Method::Post, Method::Patch, Method::Other] {
                let refused = Refused(NotIdempotent);
                check(everything(), Attempt { method, ..get(outcome) }, refused);
            }
            check(nothing(), get(outcome), Refused(NotNamed));
        }
        for cause in [Cause::BackendReset, Cause::BackendDown] {
            check(everything(), Attempt { request_sent: false, ..post(cause) }, Another);
        }
    }

    /// Every call is a POST.
    #[test]
    fn a_call_of_grpc_is_asked_again_for_a_status_that_is_named() {
        let unavailable = TryOutcome::Grpc(14);
        for attempt in [get(unavailable), post(unavailable)] {
            check(everything(), attempt, Another);
            check(nothing(), attempt, Refused(NotNamed));
            check(everything(), Attempt { tries: 2, ..attempt }, Refused(TriesUsed));
            check(everything(), Attempt { body_gone: true, ..attempt }, Refused(BodyGone));
            check(everything(), Attempt { answered: true, ..attempt }, Refused(Answered));
        }
        check(everything(), post(TryOutcome::Grpc(13)), Refused(NotNamed));
    }

    #[test]
    fn each_word_of_the_configuration_stands_for_itself() {
        let off = nothing().on;
        for (on, outcome) in [
            (RetryOn { connect_failure: true, ..off }, Cause::ConnectFailed.into()),
            (RetryOn { reset_before_response: true, ..off }, Cause::BackendReset.into()),
            (RetryOn { timeout: true, ..off }, Cause::ResponseTimeout.into()),
            (RetryOn { backend_down: true, ..off }, Cause::BackendDown.into()),
            (RetryOn { status_502: true, ..off }, TryOutcome::Status(502)),
            (RetryOn { status_503: true, ..off }, TryOutcome::Status(503)),
            (RetryOn { status_504: true, ..off }, TryOutcome::Status(504)),
        ] {
            check(Retry { on, ..nothing() }, get(outcome), Another);
            let others: [TryOutcome; 7] = [
                Cause::ConnectFailed.into(),
                Cause::BackendDown.into(),
                Cause::BackendReset.into(),
                Cause::ResponseTimeout.into(),
                502.into(),
                503.into(),
                504.into(),
            ];
            for other in others.into_iter().filter(|other| *other != outcome) {
                check(Retry { on, ..nothing() }, get(other), Refused(NotNamed));
            }
        }
    }

    #[test]
    fn nothing_is_repeated_once_the_client_has_seen_a_byte_or_the_body_is_gone() {
        let outcomes: [TryOutcome; 5] = [
            Cause::BackendReset.into(),
            Cause::BackendDown.into(),
            Cause::BackendStale.into(),
            Cause::ResponseTimeout.into(),
            503.into(),
        ];
        for outcome in outcomes {
            for attempt in [get(outcome), post(outcome)] {
                check(everything(), Attempt { answered: true, ..attempt }, Refused(Answered));
                check(everything(), Attempt { body_gone: true, ..attempt }, Refused(BodyGone));
            }
        }
    }

    #[test]
    fn tries_end_at_the_bound() {
        for (attempts, tries, expected) in [
            (1, 1, Refused(TriesUsed)),
            (2, 1, Another),
            (2, 2, Refused(TriesUsed)),
            (3, 2, Another),
            (255, 255, Refused(TriesUsed)),
        ] {
            let retry = Retry { attempts, ..everything() };
            check(retry, Attempt { tries, ..get(Cause::ConnectFailed) }, expected);
        }
    }

    #[test]
    fn answers_and_faults_that_are_nobodys_to_repeat_stand() {
        for status in [200, 204, 304, 404, 408, 421, 429, 500, 501, 505, 600, 999] {
            check(everything(), get(status), Keep);
        }
        for cause in [
            Cause::BackendProtocol,
            Cause::ResponseRefused,
            Cause::ResponseHeadTooLarge,
            Cause::ResponseIncomplete,
            Cause::NoBackend,
            Cause::Deadline,
            Cause::ClientAbort,
            Cause::ClientTimeout,
            Cause::RequestTimeout,
            Cause::BodyTooLarge,
            Cause::ShuttingDown,
        ] {
            check(everything(), get(cause), Keep);
        }
    }
}
