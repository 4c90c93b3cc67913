//! Replay buffer: the part of a request's body that was sent and is kept, so that it can be sent
//! again.
//!
//! Used only if a retry is possible at all: the method is idempotent, or the backends may send any
//! request back unprocessed (HTTP/2), and the pool tries more than once. It is bounded by
//! `retry.body`; a body that outgrows that is dropped at once, and then nothing is kept. Only bytes
//! of the body are kept, without framing.

use std::cell::RefCell;

use super::Exchange;
use crate::net::signal::Signal;
use crate::plan::Protocol;
use crate::proto::Piece;

/// The part of a body that was sent so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    bytes: Vec<u8>,
    bytes_max: usize,
    /// Whether more was sent than is kept.
    outgrown: bool,
}

/// What an upload keeps while it goes on, and the signal that stops it.
#[derive(Default)]
pub(crate) struct Keeping {
    kept: RefCell<Kept>,
    pub(crate) stop: Signal,
}

impl Keeping {
    /// Continues from what was kept before; none if the request cannot be sent again anyway.
    pub(crate) fn of(exchange: &mut Exchange) -> Option<Keeping> {
        let retry = &exchange.pool_plan().retry;
        let idempotent = exchange.scratch.request.method.is_idempotent();
        // One of HTTP/2 may send any request back unprocessed.
        let may_be_repeated = idempotent || exchange.pool_plan().protocol != Protocol::H1;
        if !may_be_repeated || retry.attempts < 2 || retry.body_bytes_max == 0 {
            return None;
        }
        let bytes_max = retry.body_bytes_max as usize;
        let before = exchange.tries.kept.take().map(|kept| *kept);
        let kept = before.unwrap_or(Kept { bytes_max, ..Kept::default() });
        Some(Keeping { kept: RefCell::new(kept), stop: Signal::default() })
    }

    /// This piece of the body is about to be sent. Trailers are not kept.
    pub(crate) fn note(&self, piece: &Piece) {
        let mut kept = self.kept.borrow_mut();
        kept.note(piece.bytes());
        if piece.has_trailers() {
            kept.forget();
        }
    }

    /// Whether all that was sent is kept.
    pub(crate) fn has_all(&self) -> bool {
        !self.kept.borrow().outgrown
    }

    /// All that was sent, if it was kept.
    pub(crate) fn into_kept(self) -> Option<Kept> {
        Some(self.kept.into_inner()).filter(|kept| !kept.outgrown)
    }
}

impl Kept {
    fn note(&mut self, body: &[u8]) {
        if self.bytes.len() + body.len() > self.bytes_max {
            self.forget();
        } else if !self.outgrown {
            self.bytes.extend_from_slice(body);
        }
    }

    fn forget(&mut self) {
        self.outgrown = true;
        self.bytes = Vec::new();
    }

    /// The bytes of the body.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeping(bytes_max: usize) -> Keeping {
        let kept = Kept { bytes_max, ..Kept::default() };
        Keeping { kept: RefCell::new(kept), stop: Signal::default() }
    }

    /// What is kept of a body that came in these pieces; none = it is not kept.
    #[track_caller]
    fn check(pieces: &[&str], expected: Option<&str>) {
        let keeping = keeping(8);
        for piece in pieces {
            keeping.kept.borrow_mut().note(piece.as_bytes());
        }
        let kept = keeping.into_kept();
        assert_eq!(kept.as_ref().map(Kept::bytes), expected.map(str::as_bytes));
    }

    #[test]
    fn what_outgrows_the_bound_is_not_kept_not_even_in_part() {
        check(&[], Some(""));
        check(&["abc", "de"], Some("abcde"));
        check(&["12345678"], Some("12345678"));
        check(&["12345678", "9"], None);
        check(&["123456789", "1"], None);
        let trailers = keeping(8);
        trailers.kept.borrow_mut().note(b"abc");
        trailers.kept.borrow_mut().forget();
        assert_eq!(trailers.into_kept(), None);
    }
}
