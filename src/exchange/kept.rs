//! What of a request's body was sent and is kept, so that it can be sent again.
//!
//! Only where asking again is possible at all: the method is idempotent and the pool tries more
//! than once. It is bounded by `retry.body`; a body that outgrows that is forgotten at once, and
//! then nothing is kept. Bytes of the body alone stand here, without any framing.

use std::cell::RefCell;

use super::Exchange;
use crate::http::chunks;
use crate::net::signal::Signal;
use crate::proto::h1::Outgoing;

/// The part of a body that was sent so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    bytes: Vec<u8>,
    bytes_max: usize,
    /// Whether more was sent than is kept.
    outgrown: bool,
}

/// What an upload keeps while it goes on, and how it is told to stop.
#[derive(Default)]
pub(crate) struct Keeping {
    kept: RefCell<Kept>,
    pub(crate) stop: Signal,
}

impl Keeping {
    /// Goes on from what was kept before; nothing where the request cannot be sent again anyway.
    pub(crate) fn of(exchange: &mut Exchange) -> Option<Keeping> {
        let retry = &exchange.pool_plan().retry;
        let idempotent = exchange.scratch.request.method.is_idempotent();
        if !idempotent || retry.attempts < 2 || retry.body_bytes_max == 0 {
            return None;
        }
        let bytes_max = retry.body_bytes_max as usize;
        let before = exchange.kept.take().map(|kept| *kept);
        let kept = before.unwrap_or(Kept { bytes_max, ..Kept::default() });
        Some(Keeping { kept: RefCell::new(kept), stop: Signal::default() })
    }

    /// These bytes of the body are about to be sent.
    pub(crate) fn note(&self, body: &[u8]) {
        self.kept.borrow_mut().note(body);
    }

    /// Something was sent that is not kept: trailers.
    pub(crate) fn forget(&self) {
        self.kept.borrow_mut().forget();
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

    /// Writes it as a backend gets it; `ended` where nothing comes behind it.
    pub(crate) fn write(&self, outgoing: Outgoing, ended: bool, out: &mut Vec<u8>) {
        match outgoing {
            Outgoing::Plain => out.extend_from_slice(&self.bytes),
            Outgoing::Chunked => {
                if !self.bytes.is_empty() {
                    let mut head = [0_u8; 18];
                    let len = chunks::chunk_head(self.bytes.len() as u64, &mut head);
                    out.extend_from_slice(head.get(..len).unwrap_or(&[]));
                    out.extend_from_slice(&self.bytes);
                    out.extend_from_slice(b"\r\n");
                }
                if ended {
                    out.extend_from_slice(b"0\r\n\r\n");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeping(bytes_max: usize) -> Keeping {
        let kept = Kept { bytes_max, ..Kept::default() };
        Keeping { kept: RefCell::new(kept), stop: Signal::default() }
    }

    /// What is sent again of a body that came in these pieces; none = it is not kept.
    #[track_caller]
    fn check(pieces: &[&str], outgoing: Outgoing, ended: bool, expected: Option<&str>) {
        let keeping = keeping(8);
        for piece in pieces {
            keeping.note(piece.as_bytes());
        }
        let written = keeping.into_kept().map(|kept| {
            let mut out = Vec::new();
            kept.write(outgoing, ended, &mut out);
            String::from_utf8(out).unwrap()
        });
        assert_eq!(written.as_deref(), expected);
    }

    #[test]
    fn what_was_sent_is_sent_again_in_one_piece() {
        check(&["abc", "de"], Outgoing::Plain, true, Some("abcde"));
        check(&["abc", "de"], Outgoing::Plain, false, Some("abcde"));
        check(&["abc", "de"], Outgoing::Chunked, false, Some("5\r\nabcde\r\n"));
        check(&["abc", "de"], Outgoing::Chunked, true, Some("5\r\nabcde\r\n0\r\n\r\n"));
        check(&[], Outgoing::Chunked, false, Some(""));
        check(&[], Outgoing::Chunked, true, Some("0\r\n\r\n"));
    }

    #[test]
    fn what_outgrows_the_bound_is_not_kept_not_even_in_part() {
        check(&["12345678"], Outgoing::Plain, true, Some("12345678"));
        check(&["12345678", "9"], Outgoing::Plain, true, None);
        check(&["123456789", "1"], Outgoing::Plain, true, None);
        let trailers = keeping(8);
        trailers.note(b"abc");
        trailers.forget();
        assert_eq!(trailers.into_kept(), None);
    }
}
