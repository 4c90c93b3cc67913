//! Grammar shared by all messages: tokens, lists, whitespace, numbers (RFC 9110 §5.6).
//!
//! Bytes in, bytes out; the meaning of a field is not known here.

/// Whether a byte is allowed in a token (RFC 9110 §5.6.2).
#[inline]
pub(crate) const fn is_token_byte(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'!' | b'#' | b'$' | b'%' | b'&'
        | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// Whether these bytes are a token.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_token_byte(*byte))
}

/// Whether a byte is allowed in a field value (RFC 9110 §5.5): no control but a tab.
#[inline]
pub(crate) const fn is_value_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=0x7e | 0x80..)
}

/// Without the optional whitespace around it (RFC 9110 §5.6.3). Not `trim_ascii`, which removes
/// line ends and form feeds too.
#[inline]
pub(crate) fn trim(bytes: &[u8]) -> &[u8] {
    trim_end(trim_start(bytes))
}

/// Without the optional whitespace after it.
#[inline]
pub(crate) fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Without the optional whitespace before it.
#[inline]
pub(crate) fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

/// The members of a comma-separated list, trimmed, without empty ones (RFC 9110 §5.6.1.2). Not for
/// lists whose members may be quoted strings.
#[inline]
pub(crate) fn list(value: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim).filter(|member| !member.is_empty())
}

/// The two sides of the first `=`, trimmed.
#[inline]
pub(crate) fn pair(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, value) = bytes.split_at_checked(memchr::memchr(b'=', bytes)?)?;
    Some((trim(name), trim(value.get(1..)?)))
}

/// A number of digits only: no sign, no space, no list. `None` if it does not fit.
pub(crate) fn digits(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return None;
    }
    bytes.iter().try_fold(0u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Appends a number in decimal.
#[inline]
pub(crate) fn push_decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut places = [0; 20]; // u64::MAX has twenty
    let mut start = places.len();
    for place in places.iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
        start -= 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(places.get(start..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_no_delimiters_controls_or_other_bytes() {
        for byte in 0..=255u8 {
            let expected = byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&byte);
            assert_eq!(is_token_byte(byte), expected, "{byte:#x}");
        }
        assert!(!is_token(b""));
    }

    #[test]
    fn a_list_is_split_at_commas_and_trimmed() {
        #[track_caller]
        fn check(value: &str, expected: &[&str]) {
            let members: Vec<&[u8]> = list(value.as_bytes()).collect();
            assert_eq!(members, expected.iter().map(|m| m.as_bytes()).collect::<Vec<_>>());
        }
        check("", &[]);
        check(" , ,", &[]);
        check("a", &["a"]);
        check("a,b", &["a", "b"]);
        check("\ta b \t,, c", &["a b", "c"]);
    }

    #[test]
    fn a_pair_is_split_at_its_first_equals_sign() {
        #[track_caller]
        fn check(text: &str, expected: Option<(&str, &str)>) {
            let expected = expected.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            assert_eq!(pair(text.as_bytes()), expected, "{text}");
        }
        check("a=b", Some(("a", "b")));
        check(" a\t=  b c ", Some(("a", "b c")));
        check("a==b=", Some(("a", "=b=")));
        check("=", Some(("", "")));
        check("a", None);
        check("", None);
    }

    #[test]
    fn a_number_is_digits_only_and_fits() {
        #[track_caller]
        fn check(text: &str, expected: Option<u64>) {
            assert_eq!(digits(text.as_bytes()), expected, "{text}");
            if let Some(number) = expected {
                let mut out = Vec::new();
                push_decimal(number, &mut out);
                assert_eq!(out, number.to_string().as_bytes());
            }
        }
        check("0", Some(0));
        check("007", Some(7));
        check("128", Some(128));
        check("18446744073709551615", Some(u64::MAX));
        check("18446744073709551616", None);
        check("99999999999999999999", None);
        for bad in ["", "+5", "-1", " 5", "5 ", "5,5", "0x5", "5.0", "٣", "1e3"] {
            check(bad, None);
        }
    }
}
