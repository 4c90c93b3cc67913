//! Bytes of a head looked at eight at a time, as one word.
//!
//! A test of a word gives a word in which the highest bit of a byte is set if the test is true of
//! it. Some tests are exact in all bytes, others up to the first byte of which they are true, which
//! is enough to find it. No table, no instruction of one processor alone.

/// Eight bytes; the first is the lowest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Word(u64);

/// The highest bit of each byte.
const HIGHEST: u64 = all(0x80);

/// This byte in all places.
const fn all(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

impl Word {
    #[inline(always)]
    pub(crate) fn of(bytes: [u8; 8]) -> Word {
        Word(u64::from_le_bytes(bytes))
    }

    /// Up to eight bytes, and dashes behind them.
    #[inline(always)]
    pub(crate) fn of_rest(bytes: &[u8]) -> Word {
        let mut rest = [b'-'; 8];
        rest.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
        Word::of(rest)
    }

    /// A control byte: below the space, or DEL. Up to the first.
    #[inline(always)]
    pub(crate) fn control(self) -> u64 {
        self.below(b' ')
    }

    /// Below the byte, or DEL. Up to the first.
    #[inline(always)]
    pub(crate) fn below(self, byte: u8) -> u64 {
        // Of bytes below 0x80, the first has its highest bit for those below, the second for DEL.
        let below = self.0.wrapping_sub(all(byte));
        let del = (self.0 & !HIGHEST) + all(1);
        (below | del) & !self.0 & HIGHEST
    }

    /// Neither a letter nor a dash. Exact.
    #[inline(always)]
    pub(crate) fn neither_letter_nor_dash(self) -> u64 {
        let low = self.0 & !HIGHEST;
        // Of each byte below 0x80, the highest bit says whether it is at least so large.
        let small = low | all(0x20);
        let letter = (small + all(0x80 - b'a')) & !(small + all(0x80 - b'z' - 1));
        let other_than_dash = (low ^ all(b'-')) + all(0x7f);
        ((!letter & other_than_dash) | self.0) & HIGHEST
    }

    /// Neither a small letter nor a dash. Exact.
    #[inline(always)]
    pub(crate) fn neither_small_nor_dash(self) -> u64 {
        // Of letters and the dash, only large letters have no such bit.
        self.neither_letter_nor_dash() | (!self.0 & all(0x20)) << 2
    }

    /// One of these bytes, which are ASCII. Exact.
    #[inline(always)]
    pub(crate) fn is_one_of<const N: usize>(self, bytes: [u8; N]) -> u64 {
        let low = self.0 & !HIGHEST;
        let other =
            bytes.iter().fold(HIGHEST, |other, byte| other & ((low ^ all(*byte)) + all(0x7f)));
        !(other | self.0) & HIGHEST
    }
}

/// The place of the first byte of which `test` is true.
#[inline(always)]
pub(crate) fn first(bytes: &[u8], test: impl Fn(Word) -> u64) -> Option<usize> {
    let mut rest = bytes;
    loop {
        let (hits, behind) = match rest.split_first_chunk() {
            Some((word, behind)) => (test(Word::of(*word)), behind),
            None if rest.is_empty() => return None,
            None => (test(Word::of_rest(rest)), &[][..]),
        };
        if hits != 0 {
            return Some(bytes.len() - rest.len() + (hits.trailing_zeros() / 8) as usize);
        }
        rest = behind;
    }
}

/// Like `first`, faster for long runs of bytes of which it is not.
#[inline(always)]
pub(crate) fn first_far(bytes: &[u8], test: impl Fn(Word) -> u64) -> Option<usize> {
    let mut rest = bytes;
    while let Some((pair, behind)) = rest.split_first_chunk::<16>() {
        let (Some(low), Some(high)) = (pair.first_chunk(), pair.last_chunk()) else { break };
        let (low, high) = (test(Word::of(*low)), test(Word::of(*high)));
        if low | high != 0 {
            let bits =
                if low != 0 { low.trailing_zeros() } else { u64::BITS + high.trailing_zeros() };
            return Some(bytes.len() - rest.len() + (bits / 8) as usize);
        }
        rest = behind;
    }
    first(rest, test).map(|at| bytes.len() - rest.len() + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_test_finds_the_first_byte_that_it_is_true_of() {
        #[track_caller]
        fn check(test: impl Fn(Word) -> u64 + Copy, expected: impl Fn(u8) -> bool) {
            for byte in 0..=255u8 {
                for len in 1..36 {
                    for at in 0..len {
                        let mut bytes = vec![b'-'; len];
                        bytes[at] = byte;
                        let found = expected(byte).then_some(at);
                        assert_eq!(first(&bytes, test), found, "{byte:#x} at {at} of {len}");
                        assert_eq!(first_far(&bytes, test), found, "{byte:#x} at {at} of {len}");
                        // One that is found behind one that is or is not.
                        bytes.extend([0, b'-']);
                        let found = if expected(0) { found.or(Some(len)) } else { found };
                        assert_eq!(first(&bytes, test), found, "{byte:#x} at {at}, nul");
                        assert_eq!(first_far(&bytes, test), found, "{byte:#x} at {at}, nul");
                    }
                }
            }
        }
        check(Word::control, |byte| byte < b' ' || byte == 0x7f);
        check(|word| word.below(0x21), |byte| byte < 0x21 || byte == 0x7f);
        check(Word::neither_letter_nor_dash, |byte| !byte.is_ascii_alphabetic() && byte != b'-');
        let is_small = |byte: u8| byte.is_ascii_lowercase() || byte == b'-';
        check(Word::neither_small_nor_dash, |byte| !is_small(byte));
        check(|word| word.is_one_of([b'/', b'.']), |byte| byte == b'/' || byte == b'.');
        assert_eq!(first(&[], Word::control), None);
    }

    /// Where all places count, no two neighbours may hide each other.
    #[test]
    fn an_exact_test_tells_each_byte_whatever_stands_beside_it() {
        for pair in 0..=u16::MAX {
            let [a, b] = pair.to_le_bytes();
            let word = Word(u64::from(pair) | all(b'x') << 16);
            let is_other = |byte: u8| !byte.is_ascii_alphabetic() && byte != b'-';
            let in_two = |is: fn(u8) -> bool| u64::from(is(a)) << 7 | u64::from(is(b)) << 15;
            assert_eq!(word.neither_letter_nor_dash(), in_two(is_other), "{a:#x} {b:#x}");
            let is_small = |byte: u8| !byte.is_ascii_lowercase() && byte != b'-';
            assert_eq!(word.neither_small_nor_dash(), in_two(is_small), "{a:#x} {b:#x}");
            assert_eq!(word.is_one_of([b'.']), in_two(|byte| byte == b'.'), "{a:#x} {b:#x}");
        }
    }
}
