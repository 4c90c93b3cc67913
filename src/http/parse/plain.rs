//! The short way through a whole head in its plain form: each byte is looked at once.
//!
//! Plain is what nearly all peers write: `name: value` with one space and CRLF, no tab, a request
//! line of HTTP/1.1. Anything else, a head that breaks a rule or is incomplete among it, is left to
//! httparse and the checks behind it; nothing is refused here. So there are two ways to one result,
//! and a test holds them against each other. Bytes are looked at eight at a time, as one word.

use super::{
    HeadLimits,
    fields::{Facts, TELLING},
    request::RequestLine,
};
use crate::http::{
    grammar,
    head::Version,
    headers::{Field, Headers, Span},
    names::Name,
};

/// Reads a plain request line.
#[inline]
pub(super) fn request_line(seen: &[u8], limits: &HeadLimits) -> Option<RequestLine> {
    let method_end = seen.iter().position(|byte| !byte.is_ascii_uppercase())?;
    if method_end == 0 || seen.get(method_end) != Some(&b' ') {
        return None;
    }
    let target = method_end + 1;
    let target_end = target + first(seen.get(target..)?, |word| word.below(0x21) | word.del())?;
    let end = target_end + VERSION.len();
    let is_plain = target_end > target && seen.get(target_end..end) == Some(VERSION);
    (is_plain && end <= limits.line_bytes_max).then(|| RequestLine {
        method: Span::new(0, method_end),
        target: Span::new(target, target_end),
        version: Version::Http11,
        end,
    })
}

const VERSION: &[u8] = b" HTTP/1.1\r\n";

/// Reads a plain status line of HTTP/1.1: the status, the range of the reason, where the line ends.
#[inline]
pub(super) fn status_line(seen: &[u8]) -> Option<(u16, Span, usize)> {
    let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', b' ', a, b, c, b' ', rest @ ..] = seen
    else {
        return None;
    };
    let (b'1'..=b'9', b'0'..=b'9', b'0'..=b'9') = (a, b, c) else { return None };
    let digit = |byte: &u8| u16::from(byte - b'0');
    let reason = seen.len() - rest.len();
    let reason_end = reason + first(rest, |word| word.below(b' ') | word.del())?;
    let end = reason_end + 2;
    let status = digit(a) * 100 + digit(b) * 10 + digit(c);
    (seen.get(reason_end..end)? == b"\r\n").then(|| (status, Span::new(reason, reason_end), end))
}

/// Reads the fields from `at` on, at most so many; what they state, and where the head ends. If it
/// is none, `headers` may have some of them.
#[inline]
pub(super) fn fields(
    seen: &[u8],
    mut at: usize,
    most: usize,
    headers: &mut Headers,
) -> Option<(Facts, usize)> {
    let mut facts = Facts::default();
    let mut left = most;
    loop {
        let name_end = match seen.get(at..)? {
            [b'\r', b'\n', ..] => return Some((facts, at + 2)),
            line => at + name_len(line)?,
        };
        let value_start = name_end + 2;
        let rest = match seen.get(name_end..)? {
            [b':', b' ', rest @ ..] if rest.first() != Some(&b' ') => rest,
            _ => return None,
        };
        let value_len = first(rest, |word| word.below(b' ') | word.del())?;
        let value = rest.get(..value_len)?;
        let value_end = value_start + value_len;
        let ends_well = matches!(rest.get(value_len..), Some([b'\r', b'\n', ..]));
        if value.last().is_none_or(|last| *last == b' ') || !ends_well || left == 0 {
            return None;
        }
        let known = Name::of(seen.get(at..name_end)?);
        let (name, span) = (Span::new(at, name_end), Span::new(value_start, value_end));
        if TELLING.contains(known) {
            facts.note(known, value, span);
        }
        headers.push_field(Field { known, removed: false, canonical: true, name, value: span });
        left -= 1;
        at = value_end + 2;
    }
}

/// The length of the token before a colon.
#[inline]
fn name_len(line: &[u8]) -> Option<usize> {
    let letters = first(line, Word::neither_letter_nor_dash)?;
    let rest = line.get(letters..)?;
    // Digits and the like are rare.
    let len = match rest.first()? {
        b':' => letters,
        _ => letters + rest.iter().position(|byte| !grammar::is_token_byte(*byte))?,
    };
    (len > 0).then_some(len)
}

/// The place of the first byte of which `test` says so.
#[inline(always)]
fn first(bytes: &[u8], test: impl Fn(Word) -> u64) -> Option<usize> {
    let mut rest = bytes;
    while let Some((word, behind)) = rest.split_first_chunk() {
        let hits = test(Word(u64::from_le_bytes(*word)));
        if hits != 0 {
            return Some(bytes.len() - rest.len() + (hits.trailing_zeros() / 8) as usize);
        }
        rest = behind;
    }
    let is_hit = |byte: &u8| test(Word(u64::from(*byte) | REST)) & 0x80 != 0;
    rest.iter().position(is_hit).map(|at| bytes.len() - rest.len() + at)
}

/// Eight bytes. A test gives a word in which the highest bit of each byte that it is true of is set,
/// at least up to the first such byte.
#[derive(Clone, Copy)]
struct Word(u64);

/// This byte in all places.
const fn all(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// Seven bytes of which no test is true, above one.
const REST: u64 = all(b'-') << 8;

impl Word {
    /// Below a byte of ASCII.
    #[inline(always)]
    fn below(self, byte: u8) -> u64 {
        self.0.wrapping_sub(all(byte)) & !self.0 & all(0x80)
    }

    /// DEL.
    #[inline(always)]
    fn del(self) -> u64 {
        Word(self.0 ^ all(0x7f)).below(1)
    }

    /// Neither a letter nor a dash: exact in all places.
    #[inline(always)]
    fn neither_letter_nor_dash(self) -> u64 {
        let low = self.0 & all(0x7f);
        // Of each byte below 0x80, the highest bit says whether it is at least so large.
        let small = low | all(0x20);
        let letter = (small + all(0x80 - b'a')) & !(small + all(0x80 - b'z' - 1));
        let other_than_dash = (low ^ all(b'-')) + all(0x7f);
        ((!letter & other_than_dash) | self.0) & all(0x80)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_test_of_a_word_finds_the_first_byte_that_it_is_true_of() {
        #[track_caller]
        fn check(test: impl Fn(Word) -> u64 + Copy, expected: impl Fn(u8) -> bool) {
            for byte in 0..=255u8 {
                for len in 1..20 {
                    for at in 0..len {
                        // One that is found, or not, before one that is.
                        let mut bytes = vec![b'-'; len];
                        bytes[at] = byte;
                        let found = expected(byte).then_some(at);
                        assert_eq!(first(&bytes, test), found, "{byte:#x} at {at} of {len}");
                        bytes.extend([0, b'-']);
                        let found = found.unwrap_or(len);
                        assert_eq!(first(&bytes, test), Some(found), "{byte:#x} at {at}, nul");
                    }
                }
            }
        }
        check(|word| word.below(b' ') | word.del(), |byte| byte < b' ' || byte == 0x7f);
        check(|word| word.below(0x21) | word.del(), |byte| byte < 0x21 || byte == 0x7f);
        check(Word::neither_letter_nor_dash, |byte| !byte.is_ascii_alphabetic() && byte != b'-');
    }

    /// A name is found by its end alone: no two neighbours may hide each other.
    #[test]
    fn letters_and_dashes_are_told_from_all_others_whatever_stands_beside_them() {
        for pair in 0..=u16::MAX {
            let [a, b] = pair.to_le_bytes();
            let word = Word(u64::from(pair) | all(b'x') << 16);
            let is_other = |byte: u8| !byte.is_ascii_alphabetic() && byte != b'-';
            let expected = u64::from(is_other(a)) << 7 | u64::from(is_other(b)) << 15;
            assert_eq!(word.neither_letter_nor_dash(), expected, "{a:#x} {b:#x}");
        }
    }
}
