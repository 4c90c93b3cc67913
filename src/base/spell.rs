//! Numbers as digits: hexadecimal, and Crockford's base 32.
//!
//! Written without a branch and without a table, as loops over fixed arrays: a request has about a
//! hundred such digits, and the compiler makes a few wide instructions of them.

/// The hexadecimal digits of these bytes, in lower case.
#[inline]
pub(crate) fn hex<const N: usize>(bytes: [u8; N]) -> [[u8; 2]; N] {
    let digit = |value: u8| value + b'0' + if value > 9 { b'a' - b'9' - 1 } else { 0 };
    bytes.map(|byte| [digit(byte >> 4), digit(byte & 15)])
}

/// The 26 digits of a number in Crockford's base 32, which has no I, L, O and U.
#[inline]
pub(crate) fn base32(number: u128) -> [u8; 26] {
    let mut values = [0; 32];
    for (eight, shift) in values.as_chunks_mut().0.iter_mut().zip([120, 80, 40, 0]) {
        *eight = fives((number >> shift) as u64);
    }
    let gap = |value: u8, from: u8| u8::from(value >= from);
    let digits = values.map(|value| {
        let letter = gap(value, 10) * (b'A' - b'9' - 1);
        let gaps = gap(value, 18) + gap(value, 20) + gap(value, 22) + gap(value, 27);
        value + b'0' + letter + gaps
    });
    // The first six are above the number's 128 bits.
    let mut last = [0; 26];
    last.copy_from_slice(&digits[6..]);
    last
}

/// The lowest forty bits in groups of five, one in each byte.
#[inline]
fn fives(bits: u64) -> [u8; 8] {
    let halves = bits & 0xf_ffff | (bits >> 20 & 0xf_ffff) << 32;
    let tens = halves & 0x0000_03ff_0000_03ff | (halves & 0x000f_fc00_000f_fc00) << 6;
    let fives = tens & 0x001f_001f_001f_001f | (tens & 0x03e0_03e0_03e0_03e0) << 3;
    fives.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

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
        }
    }
}
