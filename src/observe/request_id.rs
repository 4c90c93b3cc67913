//! Request ids of logs and of our error answers: ULIDs.
//!
//! 48 bits of time and 80 random bits, in 26 characters that sort by time. It need not be a secret,
//! only different from all others.

use crate::base::{moment::UnixMillis, rng::Rng};

/// The id of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RequestId(u128);

impl RequestId {
    /// An id made at this time.
    pub(crate) fn new(UnixMillis(unix_ms): UnixMillis, rng: &mut Rng) -> RequestId {
        let chance = u128::from(rng.next() & 0xffff) << 64 | u128::from(rng.next());
        RequestId(u128::from(unix_ms) << 80 | chance)
    }

    /// Its 26 characters (Crockford's base 32).
    pub(crate) fn text(self) -> [u8; 26] {
        const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
        let mut text = [b'0'; 26];
        let mut rest = self.0;
        for place in text.iter_mut().rev() {
            *place = DIGITS[(rest & 31) as usize];
            rest >>= 5;
        }
        text
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
