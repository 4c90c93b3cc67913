//! Frames (RFC 9113 §4, §6): their heads, and the small ones whole.

/// What a client sends first (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The length of a frame's head.
pub(super) const HEAD_BYTES: usize = 9;

/// The longest payload: what the standard gives a peer unless we say otherwise, and we do not.
/// Longer frames would have to be gathered before they are understood.
pub(super) const PAYLOAD_MAX: usize = 16_384;

/// The largest window (RFC 9113 §6.9.1), and the largest number of a stream.
pub(super) const WINDOW_MAX: i64 = 0x7fff_ffff;

/// The kinds of frames.
pub(super) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
    /// RFC 9218 §7.1.
    pub(crate) const PRIORITY_UPDATE: u8 = 16;
}

/// The flags of frames.
pub(super) mod flag {
    pub(crate) const ACK: u8 = 1;
    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;
    pub(crate) const PADDED: u8 = 8;
    pub(crate) const PRIORITY: u8 = 32;
}

/// The settings (RFC 9113 §6.5.2, RFC 8441 §3, RFC 9218 §2.1).
pub(super) mod setting {
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const STREAMS_MAX: u16 = 3;
    pub(crate) const INITIAL_WINDOW: u16 = 4;
    pub(crate) const FRAME_MAX: u16 = 5;
    pub(crate) const HEAD_LIST_MAX: u16 = 6;
    pub(crate) const EXTENDED_CONNECT: u16 = 8;
    pub(crate) const NO_OLD_PRIORITIES: u16 = 9;
}

/// Why a stream or a connection ends (RFC 9113 §7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reason(pub(crate) u32);

impl Reason {
    pub(crate) const NO_ERROR: Reason = Reason(0);
    pub(crate) const PROTOCOL: Reason = Reason(1);
    pub(crate) const INTERNAL: Reason = Reason(2);
    pub(crate) const FLOW_CONTROL: Reason = Reason(3);
    pub(crate) const STREAM_CLOSED: Reason = Reason(5);
    pub(crate) const FRAME_SIZE: Reason = Reason(6);
    pub(crate) const REFUSED: Reason = Reason(7);
    pub(crate) const CANCEL: Reason = Reason(8);
    pub(crate) const COMPRESSION: Reason = Reason(9);
    pub(crate) const ENHANCE_YOUR_CALM: Reason = Reason(11);
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) len: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    /// The number of its stream; 0 = the connection.
    pub(super) id: u32,
}

impl FrameHead {
    /// The head at the front of these bytes; none if they are too few.
    #[inline]
    pub(super) fn read(bytes: &[u8]) -> Option<FrameHead> {
        let (head, _) = bytes.split_first_chunk::<HEAD_BYTES>()?;
        let [a, b, c, kind, flags, rest @ ..] = *head;
        Some(FrameHead {
            len: usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c),
            kind,
            flags,
            id: u32::from_be_bytes(rest) & 0x7fff_ffff,
        })
    }

    #[inline]
    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    #[inline]
    pub(super) fn bytes(self) -> [u8; HEAD_BYTES] {
        let [_, a, b, c] = (self.len as u32).to_be_bytes();
        let [d, e, f, g] = self.id.to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }
}

/// A number of 32 bits at the front of a payload.
#[inline]
pub(super) fn number(payload: &[u8]) -> Option<u32> {
    payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// A frame of one number.
pub(super) fn of_number(kind: u8, id: u32, number: u32) -> [u8; 13] {
    let mut frame = [0; 13];
    let (head, payload) = frame.split_at_mut(HEAD_BYTES);
    head.copy_from_slice(&FrameHead { len: 4, kind, flags: 0, id }.bytes());
    payload.copy_from_slice(&number.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written() {
        for head in [
            FrameHead { len: 0, kind: 0, flags: 0, id: 0 },
            FrameHead { len: 0x01_02_03, kind: 4, flags: 5, id: 0x06_07_08_09 },
            FrameHead { len: 0xff_ff_ff, kind: 255, flags: 255, id: 0x7fff_ffff },
        ] {
            assert_eq!(FrameHead::read(&head.bytes()), Some(head));
            assert_eq!(FrameHead::read(&head.bytes()[..8]), None);
        }
        // The first bit of a number means nothing (RFC 9113 §4.1).
        assert_eq!(FrameHead::read(&[0, 0, 0, 0, 0, 255, 255, 255, 255]).unwrap().id, 0x7fff_ffff);
        assert_eq!(of_number(8, 3, 5), [0, 0, 4, 8, 0, 0, 0, 0, 3, 0, 0, 0, 5]);
    }
}
