//! The tries of an exchange that needed more than one, as its line in the log lists them.
//!
//! A try is noted when it is judged, off the path of a request that succeeds at once. The words are
//! those of the counters: why a request was asked again is the `reason` of `retries_total`, and why
//! it was not that of `retries_refused_total`.

use std::borrow::Cow;

use super::statistics;
use super::text::{push_json, push_millis};
use crate::base::moment::{Micros, Moment};
use crate::http::grpc;
use crate::plan::{BackendId, Pool};
use crate::policy::retry::{RetryRefusal, TryOutcome};
use crate::shared::{request_times::Phase, tally::Reason};

/// Names of the configuration, and our own words.
const NAME_BYTES_MAX: usize = 256;

/// How one try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tried {
    pub(crate) backend: BackendId,
    /// Whether its connection had been used before.
    pub(crate) reused: bool,
    /// What it was in when it ended.
    pub(crate) phase: Phase,
    /// What was wrong with it; none = its answer was taken, or another came first.
    pub(crate) fault: Option<TryOutcome>,
    pub(crate) took: Micros,
    /// Why another followed, or why none did.
    pub(crate) why: Option<Why>,
    /// When the next began.
    pub(crate) next_at: Moment,
}

/// Why the next try was made, or was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The pool retries this.
    Retried(Reason),
    /// The connection was stale, which counts as no try.
    Stale,
    /// The answer was late, and a second copy was answered first.
    Hedged,
    Refused(RetryRefusal),
}

impl Why {
    /// Its word.
    pub(super) fn word(self) -> Cow<'static, str> {
        match self {
            Why::Retried(reason) => statistics::word(reason),
            Why::Stale => "stale".into(),
            Why::Hedged => "hedged".into(),
            Why::Refused(refusal) => refusal.code().into(),
        }
    }
}

impl Tried {
    /// The word of its fault.
    pub(super) fn fault(&self) -> Option<Cow<'static, str>> {
        self.fault.map(|fault| match fault {
            TryOutcome::Status(status) => statistics::word(Reason::Status(status)),
            TryOutcome::Grpc(status) => grpc::word(status).into(),
            TryOutcome::Fault(fault) => fault.code().into(),
        })
    }
}

/// Appends them as a list of JSON.
pub(super) fn push(tries: &[Tried], pool: Option<&Pool>, to: &mut Vec<u8>) {
    to.extend_from_slice(b",\"tries\":[");
    for (place, tried) in tries.iter().enumerate() {
        to.extend_from_slice(if place == 0 { b"{\"backend\":" } else { b",{\"backend\":" });
        let backend = pool.and_then(|pool| pool.backends.get(tried.backend));
        let name = backend.map_or("", |backend| &backend.name);
        push_json(name.as_bytes(), NAME_BYTES_MAX, to);
        to.extend_from_slice(if tried.reused { b",\"reused\":true" } else { b",\"reused\":false" });
        to.extend_from_slice(b",\"phase\":\"");
        to.extend_from_slice(tried.phase.word().as_bytes());
        to.extend_from_slice(b"\",\"fault\":");
        push_word(tried.fault(), to);
        to.extend_from_slice(b",\"ms\":");
        push_millis(tried.took, to);
        to.extend_from_slice(b",\"why\":");
        push_word(tried.why.map(Why::word), to);
        to.push(b'}');
    }
    to.push(b']');
}

fn push_word(word: Option<Cow<'_, str>>, to: &mut Vec<u8>) {
    match word {
        None => to.extend_from_slice(b"null"),
        Some(word) => push_json(word.as_bytes(), NAME_BYTES_MAX, to),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::moment::Tick;
    use crate::http::fault::{Cause, Failure};
    use crate::plan::{Address, Backend};

    #[test]
    fn each_try_says_where_how_it_ended_and_why_there_was_another() {
        let address = ([10, 0, 0, 1], 3000).into();
        let backend = Backend::new("a \"b\"".to_owned(), Address::Socket(address));
        let pool = Pool { backends: vec![backend].into(), ..Pool::default() };
        let tried = |phase, fault, why| Tried {
            backend: BackendId(0),
            reused: why == Some(Why::Stale),
            phase,
            fault,
            took: Micros(1_250),
            why,
            next_at: Tick::from_millis(1).moment(),
        };
        let fault = |cause: Cause| Some(TryOutcome::Fault(cause.into()));
        let tries = [
            tried(Phase::FirstByte, fault(Cause::BackendStale), Some(Why::Stale)),
            tried(
                Phase::Connect,
                fault(Cause::ConnectFailed),
                Some(Why::Retried(Reason::Failure(Failure::Connect))),
            ),
            tried(
                Phase::Body,
                Some(TryOutcome::Status(503)),
                Some(Why::Retried(Reason::Status(503))),
            ),
            tried(Phase::FirstByte, None, Some(Why::Hedged)),
            tried(
                Phase::FirstByte,
                fault(Cause::BackendReset),
                Some(Why::Refused(RetryRefusal::NotIdempotent)),
            ),
            tried(Phase::Body, None, None),
        ];
        let mut line = Vec::new();
        push(&tries, Some(&pool), &mut line);
        let text = String::from_utf8(line).unwrap();
        let list = text.strip_prefix(",\"tries\":").unwrap();
        let list: Vec<serde_json::Value> = serde_json::from_str(list).unwrap();
        let texts = |key: &str| {
            list.iter().map(|one| one[key].as_str().unwrap_or("-").to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            texts("fault"),
            ["backend_reset", "connect_failed", "503", "-", "backend_reset", "-"]
        );
        let why = ["stale", "connect_failure", "503", "hedged", "not_idempotent", "-"];
        assert_eq!(texts("why"), why);
        let phases = ["first_byte", "connect", "body", "first_byte", "first_byte", "body"];
        assert_eq!(texts("phase"), phases);
        assert_eq!(list[0]["backend"], "a \"b\"");
        assert_eq!((&list[0]["ms"], &list[0]["reused"]), (&1.25.into(), &true.into()));
    }
}
