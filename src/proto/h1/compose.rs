//! Composing requests for a backend: the head, and the part of the body that other backends got
//! before.

use super::Outgoing;
use crate::http::{chunks, write};
use crate::proto::Asking;

/// Writes a request's head, with the part of its body that was sent before and must be sent again.
#[inline]
pub(super) fn request(asking: &Asking<'_>, room: &mut Vec<u8>) {
    room.clear();
    write::request(asking.head, asking.host, asking.length, room);
    if let Some((bytes, is_whole)) = asking.before {
        frame(Outgoing::of(asking.length), bytes, is_whole, room);
    }
}

/// Writes bytes of a body in one piece; `is_whole` if nothing follows them.
fn frame(outgoing: Outgoing, bytes: &[u8], is_whole: bool, room: &mut Vec<u8>) {
    match outgoing {
        Outgoing::Plain => room.extend_from_slice(bytes),
        Outgoing::Chunked => {
            if !bytes.is_empty() {
                let mut head = [0_u8; 18];
                let len = chunks::chunk_head(bytes.len() as u64, &mut head);
                room.extend_from_slice(head.get(..len).unwrap_or(&[]));
                room.extend_from_slice(bytes);
                room.extend_from_slice(chunks::CHUNK_END);
            }
            if is_whole {
                room.extend_from_slice(chunks::LAST_CHUNK);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_sent_again_in_one_piece() {
        #[track_caller]
        fn check(bytes: &str, outgoing: Outgoing, is_whole: bool, expected: &str) {
            let mut room = Vec::new();
            frame(outgoing, bytes.as_bytes(), is_whole, &mut room);
            assert_eq!(String::from_utf8(room).unwrap(), expected);
        }
        check("abcde", Outgoing::Plain, true, "abcde");
        check("abcde", Outgoing::Plain, false, "abcde");
        check("abcde", Outgoing::Chunked, false, "5\r\nabcde\r\n");
        check("abcde", Outgoing::Chunked, true, "5\r\nabcde\r\n0\r\n\r\n");
        check("", Outgoing::Chunked, false, "");
        check("", Outgoing::Chunked, true, "0\r\n\r\n");
    }
}
