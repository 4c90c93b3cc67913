//! The Huffman code of HPACK (RFC 7541 §5.2, appendix B).
//!
//! The code is canonical: among codes of one length, and from each length to the next, they are
//! numbers in order. So the lengths of the codes say all. What is up to eight bits long, which is
//! nearly all text, is found by one look.

use super::decode::Unreadable;

/// The length of the code of each byte, and of the end.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// The length of the longest code.
const LENGTH_MAX: usize = 30;

/// The symbol that ends a text, and must not occur in one.
const END: u16 = 256;

/// What the lengths say.
struct Codes {
    /// The symbols, in the order of their codes.
    symbols: [u16; 257],
    /// Of each length: the place of its first symbol, its first code, and the code after its last.
    place: [u16; LENGTH_MAX + 1],
    first: [u32; LENGTH_MAX + 1],
    limit: [u32; LENGTH_MAX + 1],
    /// By the first eight bits: symbol and length of a code that is not longer; length 0 = longer.
    short: [(u8, u8); 256],
}

#[allow(clippy::indexing_slicing)] // evaluated when compiled
const CODES: Codes = {
    let mut codes = Codes {
        symbols: [0; 257],
        place: [0; LENGTH_MAX + 1],
        first: [0; LENGTH_MAX + 1],
        limit: [0; LENGTH_MAX + 1],
        short: [(0, 0); 256],
    };
    let (mut code, mut place, mut length) = (0_u32, 0, 1);
    while length <= LENGTH_MAX {
        code <<= 1;
        codes.place[length] = place as u16;
        codes.first[length] = code;
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                codes.symbols[place] = symbol as u16;
                if length <= 8 {
                    let from = (code as usize) << (8 - length);
                    let mut rest = 0;
                    while rest < 1 << (8 - length) {
                        codes.short[from + rest] = (symbol as u8, length as u8);
                        rest += 1;
                    }
                }
                place += 1;
                code += 1;
            }
            symbol += 1;
        }
        codes.limit[length] = code;
        length += 1;
    }
    codes
};

static TABLE: Codes = CODES;

/// Appends a text that is read from these bytes.
///
/// # Errors
/// If they are none: the end is in it, or it is not padded with ones, by less than a byte.
pub(super) fn decode(bytes: &[u8], text: &mut Vec<u8>) -> Result<(), Unreadable> {
    let mut rest = bytes;
    // The next bits, from the highest on, and how many there are.
    let (mut bits, mut count) = (0_u64, 0_u32);
    // As long as there are enough: four short codes without a look at how many bits are left.
    while count > 32 || fill(&mut bits, &mut count, &mut rest) {
        let (symbols, lengths) = four(bits);
        if lengths == 0 {
            let (symbol, length) = next(bits);
            if symbol == END {
                return Err(Unreadable);
            }
            text.push(symbol as u8);
            bits <<= length;
            count -= u32::from(length);
        } else {
            text.extend_from_slice(&symbols);
            bits <<= lengths;
            count -= lengths;
        }
    }
    let mut rest = rest.iter();
    loop {
        while count <= 56
            && let Some(byte) = rest.next()
        {
            bits |= u64::from(*byte) << (56 - count);
            count += 8;
        }
        let (symbol, length) = next(bits);
        if u32::from(length) > count {
            let ones = u64::MAX.checked_shl(64 - count).unwrap_or_default();
            return if count < 8 && bits == ones { Ok(()) } else { Err(Unreadable) };
        }
        if symbol == END {
            return Err(Unreadable);
        }
        text.push(symbol as u8);
        bits <<= length;
        count -= u32::from(length);
    }
}

/// Takes four bytes more, if there are as many.
#[inline]
fn fill(bits: &mut u64, count: &mut u32, rest: &mut &[u8]) -> bool {
    let Some((bytes, behind)) = rest.split_first_chunk::<4>() else { return false };
    *bits |= u64::from(u32::from_be_bytes(*bytes)) << (32 - *count);
    (*count, *rest) = (*count + 32, behind);
    true
}

/// Four symbols at the front of at least 32 bits, and the length of all their codes; 0 if one is
/// longer than eight bits.
#[inline]
fn four(mut bits: u64) -> ([u8; 4], u32) {
    let (mut symbols, mut lengths, mut is_long) = ([0; 4], 0, false);
    for symbol in &mut symbols {
        let (known, length) =
            TABLE.short.get(usize::from((bits >> 56) as u8)).copied().unwrap_or_default();
        *symbol = known;
        bits <<= length;
        lengths += u32::from(length);
        is_long |= length == 0;
    }
    (symbols, if is_long { 0 } else { lengths })
}

/// The symbol at the front of these bits, and its length.
#[inline]
fn next(bits: u64) -> (u16, u8) {
    let short = TABLE.short.get((bits >> 56) as usize).copied().unwrap_or_default();
    if short.1 > 0 { (u16::from(short.0), short.1) } else { longer(bits) }
}

#[cold]
fn longer(bits: u64) -> (u16, u8) {
    for length in 9..=LENGTH_MAX {
        let code = (bits >> (64 - length)) as u32;
        let bounds = (TABLE.limit.get(length), TABLE.first.get(length), TABLE.place.get(length));
        if let (Some(limit), Some(first), Some(place)) = bounds
            && code < *limit
        {
            let at = usize::from(*place) + (code - first) as usize;
            return (TABLE.symbols.get(at).copied().unwrap_or(END), length as u8);
        }
    }
    (END, LENGTH_MAX as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    /// A text in code, by the letter of the standard.
    fn encoded(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let (mut bits, mut count) = (0_u64, 0);
        let mut push = |code: u32, length: u32| {
            bits = bits << length | u64::from(code);
            count += length;
            while count >= 8 {
                out.push((bits >> (count - 8)) as u8);
                count -= 8;
            }
        };
        for byte in text {
            let place = CODES.symbols.iter().position(|it| *it == u16::from(*byte)).unwrap();
            let length = usize::from(LENGTHS[usize::from(*byte)]);
            let code = CODES.first[length] + (place - usize::from(CODES.place[length])) as u32;
            push(code, length as u32);
        }
        push(0x7f, 7);
        out
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: Option<&str>) {
        let mut text = Vec::new();
        let decoded = decode(bytes, &mut text).ok().map(|()| text);
        assert_eq!(decoded.as_deref(), expected.map(str::as_bytes), "{bytes:x?}");
    }

    /// RFC 7541 appendix C.4 and C.6.
    #[test]
    fn the_examples_of_the_standard_are_read() {
        check(
            &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff],
            Some("www.example.com"),
        );
        check(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], Some("no-cache"));
        check(&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f], Some("custom-key"));
        check(&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf], Some("custom-value"));
        check(&[0x64, 0x02], Some("302"));
        check(&[0x64, 0x0e, 0xff], Some("307"));
        check(&[0xae, 0xc3, 0x77, 0x1a, 0x4b], Some("private"));
        check(&[], Some(""));
    }

    /// RFC 7541 §5.2.
    #[test]
    fn padding_is_ones_and_less_than_a_byte_and_there_is_no_end_in_a_text() {
        check(&[0x07], Some("0"));
        check(&[0x00], None);
        check(&[0x06], None);
        check(&[0x07, 0xff], None);
        check(&[0xff], None);
        check(&[0xff, 0xff, 0xff, 0xff], None);
        check(&[0xff, 0xff, 0xff, 0xfc], None);
    }

    #[test]
    fn every_text_is_read_as_it_was_written() {
        let all: Vec<u8> = (0..=255).collect();
        let mut texts = vec![all.clone(), all.iter().rev().copied().collect()];
        for seed in 0..2_000 {
            let mut rng = Rng::seeded(seed);
            let span = [256, 128, 32][rng.below(3) as usize];
            let length = rng.below(40);
            texts.push((0..length).map(|_| (b' ' as u32 + rng.below(span)) as u8).collect());
        }
        for text in texts {
            let mut read = Vec::new();
            decode(&encoded(&text), &mut read).unwrap();
            assert_eq!(read, text);
        }
    }
}
