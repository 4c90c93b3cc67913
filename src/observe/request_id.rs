//! Request ids of logs, of our error answers and of backends: ULIDs, or what a trusted peer gave.
//!
//! 48 bits of time and 80 random bits, in 26 characters that sort by time. It need not be a secret,
//! only different from all others.

use crate::base::{moment::UnixMillis, rng::Rng, spell};
use crate::http::forward::ID_BYTES_MAX;

/// The id of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RequestId(u128);

impl RequestId {
    /// An id made at this time.
    pub(crate) fn new(UnixMillis(unix_ms): UnixMillis, rng: &mut Rng) -> RequestId {
        let chance = u128::from(rng.next() & 0xffff) << 64 | u128::from(rng.next());
        RequestId(u128::from(unix_ms) << 80 | chance)
    }

    /// One that was made of these bits.
    pub(crate) fn of(bits: u128) -> RequestId {
        RequestId(bits)
    }

    /// Its 26 characters (Crockford's base 32).
    pub(crate) fn text(self) -> [u8; 26] {
        spell::base32(self.0)
    }

    /// Its bits.
    pub(crate) fn bits(self) -> u128 {
        self.0
    }
}

/// An id as it is told: one of ours, or one that a trusted peer has given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IdText {
    bytes: [u8; ID_BYTES_MAX],
    len: u8,
}

impl IdText {
    /// Of an id that was given; what is too long is cut.
    pub(crate) fn given(id: &[u8]) -> IdText {
        let mut bytes = [0; ID_BYTES_MAX];
        let len = id.len().min(ID_BYTES_MAX);
        bytes.iter_mut().zip(id).for_each(|(to, from)| *to = *from);
        IdText { bytes, len: u8::try_from(len).unwrap_or(0) }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// The same as a string: it is of ASCII.
    pub(crate) fn str(&self) -> &str {
        str::from_utf8(self.bytes()).unwrap_or_default()
    }
}

impl From<RequestId> for IdText {
    fn from(id: RequestId) -> IdText {
        IdText::given(&id.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_26_characters_that_sort_by_time_and_never_repeat() {
        let mut rng = Rng::seeded(1);
        let mut seen = std::collections::HashSet::new();
        let mut last = [0; 26];
        for unix_ms in 1_700_000_000_000..1_700_000_001_000 {
            let id = RequestId::new(UnixMillis(unix_ms), &mut rng);
            assert!(id.text() > last && seen.insert(id));
            last = id.text();
        }
        assert_eq!(&RequestId(0).text(), b"00000000000000000000000000");
        assert_eq!(&RequestId(u128::MAX).text(), b"7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
        let text = RequestId(1_469_918_176_385 << 80).text();
        assert_eq!(&text[..10], b"01ARYZ6S41"); // the example of the ULID specification
    }
}
