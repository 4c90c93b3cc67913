//! Numbers as digits: decimal, hexadecimal, and Crockford's base 32.
//!
//! Of the last two eight digits at a time, one in each byte of a word, without a branch and without
//! a table: a request has some of them, and they should touch no memory but their own.

/// A byte of one in each place.
const ONES: u64 = 0x0101_0101_0101_0101;

/// Puts the decimal digits of a number in front of what is in a text, of which the rest is free;
/// returns where it begins now. There must be room for them.
#[inline]
pub(crate) fn decimal_before(text: &mut [u8], mut begin: usize, mut number: u16) -> usize {
    loop {
        begin -= 1;
        text[begin] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return begin;
        }
    }
}

/// The hexadecimal digits of these bytes, in lower case.
#[inline]
pub(crate) fn hex<const N: usize>(bytes: [u8; N]) -> [[u8; 2]; N] {
    let digit = |value: u8| value + b'0' + if value > 9 { b'a' - b'9' - 1 } else { 0 };
    bytes.map(|byte| [digit(byte >> 4), digit(byte & 15)])
}

/// Those of one number.
#[inline]
pub(crate) fn hex8(number: u32) -> [u8; 8] {
    let halves = spread(number.into(), 16, 0x0000_ffff_0000_ffff);
    let bytes = spread(halves, 8, 0x00ff_00ff_00ff_00ff);
    let values = spread(bytes, 4, 0x0f0f_0f0f_0f0f_0f0f);
    let letters = at_least(10, values) * u64::from(b'a' - b'9' - 1);
    (values + ONES * u64::from(b'0') + letters).to_be_bytes()
}

/// The 26 digits of a number in Crockford's base 32, which has no I, L, O and U.
#[inline]
pub(crate) fn base32(number: u128) -> [u8; 26] {
    let mut digits = [0; 32];
    for (eight, shift) in digits.as_chunks_mut().0.iter_mut().zip([120, 80, 40, 0]) {
        *eight = base32_8((number >> shift) as u64);
    }
    // The first six are above the number's 128 bits.
    let mut last = [0; 26];
    last.copy_from_slice(&digits[6..]);
    last
}

/// The eight digits of the lowest forty bits.
#[inline]
pub(crate) fn base32_8(bits: u64) -> [u8; 8] {
    let halves = bits & 0xf_ffff | (bits >> 20 & 0xf_ffff) << 32;
    let tens = halves & 0x0000_03ff_0000_03ff | (halves & 0x000f_fc00_000f_fc00) << 6;
    let values = tens & 0x001f_001f_001f_001f | (tens & 0x03e0_03e0_03e0_03e0) << 3;
    let letters = at_least(10, values) * u64::from(b'A' - b'9' - 1);
    let gaps = [18, 20, 22, 27].into_iter().map(|letter| at_least(letter, values)).sum::<u64>();
    (values + ONES * u64::from(b'0') + letters + gaps).to_be_bytes()
}

#[inline]
fn spread(bits: u64, by: u32, kept: u64) -> u64 {
    (bits | bits << by) & kept
}

/// One in each byte whose value, below 128 like the bound, is at least the bound.
#[inline]
fn at_least(bound: u64, values: u64) -> u64 {
    ((values + ONES * (128 - bound)) >> 7) & ONES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn decimal_digits_are_those_of_the_plain_way() {
        for number in 0..=u16::MAX {
            let mut text = *b"......!";
            let begin = decimal_before(&mut text, 6, number);
            assert_eq!(text[begin..], *format!("{number}!").as_bytes());
            assert_eq!(text[..begin], b"......"[..begin]);
        }
    }

    #[test]
    fn digits_are_those_of_the_plain_way() {
        const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
        let mut rng = Rng::seeded(1);
        for _ in 0..10_000 {
            let number = u128::from(rng.next()) << 64 | u128::from(rng.next());
            let text = hex(number.to_be_bytes());
            assert_eq!(str::from_utf8(text.as_flattened()).unwrap(), format!("{number:032x}"));
            let plain: Vec<u8> =
                (0..26).rev().map(|at| DIGITS[(number >> (at * 5) & 31) as usize]).collect();
            assert_eq!(base32(number)[..], plain[..], "{number:x}");
            assert_eq!(base32_8(number as u64)[..], plain[18..], "{number:x}");
            let low = number as u32;
            assert_eq!(str::from_utf8(&hex8(low)).unwrap(), format!("{low:08x}"));
        }
    }
}
