//! Sticky pools: the backend that a client's cookie names, and the cookie that goes with its
//! answer.
//!
//! `policy::sticky` decides about cookies, the pick which backends can be asked. A pool that is not
//! sticky costs two checks. The cookie is between the client and us: no backend sees it, and none
//! of our own answers carries it.

use super::Exchange;
use crate::base::ids::BackendId;
use crate::http::{cookies, grammar, head::ResponseHead, headers::Headers, names::Name};
use crate::policy::sticky::{CookieReading, Pins};
use crate::shared::counters::Counter;
use crate::worker::{Scratch, Worker};

/// Reads our cookies, for every pick, and removes them from the request, for every try.
#[inline]
pub(super) fn read(worker: &Worker, exchange: &mut Exchange) {
    let Exchange { in_force, scratch, pool, .. } = exchange;
    if let Some(pins) = in_force.pool(*pool).pins() {
        let headers = &mut scratch.request.headers;
        let values = cookies::values(headers, pins.cookie());
        scratch.reading = pins.read(values, worker.unix_seconds());
        cookies::remove(headers, pins.cookie());
    }
}

/// Gives the client its cookie, if it is due, with the answer of this backend, whose head is in the
/// scratch. Called before that head is written, when nothing more is removed.
#[inline]
pub(super) fn answer(worker: &Worker, exchange: &mut Exchange, backend: BackendId) {
    let Exchange { in_force, scratch, pool, .. } = exchange;
    if let Some(pins) = in_force.pool(*pool).pins() {
        pin(worker, pins, scratch, backend);
    }
}

fn pin(worker: &Worker, pins: &Pins, scratch: &mut Scratch, backend: BackendId) {
    let outcome = scratch.reading.outcome(backend);
    scratch.record.sticky = Some(outcome);
    worker.count(counter(outcome));
    let now = worker.unix_seconds();
    let Some(issued) = scratch.reading.issued(backend, now) else { return };
    let secure = scratch.secure;
    let ResponseHead { headers, status, .. } = &mut scratch.response;
    // A shared cache would give one client's cookie to all.
    let cached = *status != 101 && !is_private(headers);
    headers.push_with(Name::SetCookie, b"set-cookie", |out| {
        pins.write(backend, issued, now, secure, out);
    });
    if cached {
        headers.push(Name::CacheControl, b"cache-control", b"private");
    }
}

/// Whether no shared cache may keep this answer (RFC 9111 §5.2.2.5, §5.2.2.7). `private="name"` is
/// about that field only; lines with quotes are not parsed, and an extra line does no harm.
fn is_private(headers: &Headers) -> bool {
    let plain = headers.all(Name::CacheControl).filter(|line| !line.contains(&b'"'));
    let mut directives = plain.flat_map(grammar::list);
    directives.any(|directive| {
        directive.eq_ignore_ascii_case(b"private") || directive.eq_ignore_ascii_case(b"no-store")
    })
}

fn counter(outcome: CookieReading) -> Counter {
    match outcome {
        CookieReading::Kept => Counter::StickyKept,
        CookieReading::Refreshed => Counter::StickyRefreshed,
        CookieReading::Moved => Counter::StickyMoved,
        CookieReading::New => Counter::StickyNew,
        CookieReading::Malformed => Counter::StickyMalformed,
        CookieReading::Forged => Counter::StickyForged,
        CookieReading::Expired => Counter::StickyExpired,
        CookieReading::Unknown => Counter::StickyUnknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_private_where_no_shared_cache_may_keep_it() {
        for (lines, expected) in [
            (&[][..], false),
            (&["no-store"], true),
            (&["max-age=5, Private"], true),
            (&["max-age=5", "NO-STORE"], true),
            (&["public, max-age=5"], false),
            (&["no-cache"], false),
            (&["private=\"set-cookie\""], false),
            (&["private=\"a, private, b\""], false),
            (&["privates, not-private"], false),
        ] {
            let mut headers = Headers::default();
            for line in lines {
                headers.push(Name::CacheControl, b"cache-control", line.as_bytes());
            }
            assert_eq!(is_private(&headers), expected, "{lines:?}");
        }
    }
}
