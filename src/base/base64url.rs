//! Base64 for URLs and cookies (RFC 4648 §5), of lengths without padding; and for fields (§4).
//!
//! A length without padding has one spelling only, so comparing spellings compares bytes.

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Appends the encoding of these bytes; their number must be divisible by three.
pub(crate) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    let (triples, rest) = bytes.as_chunks::<3>();
    debug_assert!(rest.is_empty(), "this length needs padding");
    for [a, b, c] in triples {
        let word = u32::from_be_bytes([0, *a, *b, *c]);
        out.extend([18, 12, 6, 0].map(|shift| LETTERS[(word >> shift & 63) as usize]));
    }
}

/// Appends these bytes as they stand in a field (RFC 8941 §3.3.5): `:base64:`, padded.
pub(crate) fn encode_for_field(bytes: &[u8], out: &mut Vec<u8>) {
    let standard = |letter: u8| match letter {
        b'-' => b'+',
        b'_' => b'/',
        other => other,
    };
    out.push(b':');
    for group in bytes.chunks(3) {
        let at = |place: usize| group.get(place).copied().unwrap_or(0);
        let word = u32::from_be_bytes([0, at(0), at(1), at(2)]);
        let letters = [18, 12, 6, 0].map(|shift| LETTERS[(word >> shift & 63) as usize]);
        for (place, letter) in letters.into_iter().enumerate() {
            out.push(if place <= group.len() { standard(letter) } else { b'=' });
        }
    }
    out.push(b':');
}

/// The decoded bytes, if there are exactly `N` of them, a number divisible by three.
pub(crate) fn decode<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let (quads, rest) = text.as_chunks::<4>();
    if quads.len() * 3 != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (quad, triple) in quads.iter().zip(bytes.as_chunks_mut::<3>().0) {
        let mut word = 0;
        for letter in quad {
            word = word << 6 | u32::from(value(*letter)?);
        }
        let [_, a, b, c] = word.to_be_bytes();
        *triple = [a, b, c];
    }
    Some(bytes)
}

fn value(letter: u8) -> Option<u8> {
    Some(match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_a_field_it_is_padded_and_has_the_letters_of_the_standard() {
        for (bytes, expected) in [
            (&b""[..], "::"),
            (b"f", ":Zg==:"),
            (b"fo", ":Zm8=:"),
            (b"foo", ":Zm9v:"),
            (b"foobar", ":Zm9vYmFy:"),
            (b"\xfb\xff\xfe", ":+//+:"),
        ] {
            let mut out = Vec::new();
            encode_for_field(bytes, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn spells_as_rfc_4648_does_and_reads_back() {
        for (bytes, text) in [
            (*b"foobar", "Zm9vYmFy"),
            ([0; 6], "AAAAAAAA"),
            ([0xff, 0xef, 0xbe, 1, 2, 3], "_---AQID"),
        ] {
            let mut out = Vec::new();
            encode(&bytes, &mut out);
            assert_eq!(str::from_utf8(&out), Ok(text));
            assert_eq!(decode::<6>(text.as_bytes()), Some(bytes));
        }
    }

    #[test]
    fn another_length_or_letter_spells_nothing() {
        for text in
            ["Zm9vYmF", "Zm9vYmFyY", "Zm9vYmFyYmFy", "Zm9v", "", "Zm9vYm=y", "Zm9vYm+/", "Zm9v mFy"]
        {
            assert_eq!(decode::<6>(text.as_bytes()), None, "{text}");
        }
    }
}
