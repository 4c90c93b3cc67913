//! Writer of fields (RFC 7541 §6), without a table of its own and without Huffman codes.
//!
//! A field costs a few bytes more on the wire than it might, and no state: HAProxy and nginx write
//! the same. A table would save bytes where every answer says the same, and cost a search for each
//! field.

/// Stands before the first block of a connection: no table is used, whatever size the peer allows
/// (RFC 7541 §4.2).
pub(crate) const NO_TABLE: u8 = 0x20;

/// A field that may be kept in a table by those behind us, and one that may not (RFC 7541 §7.1.3).
const LITERAL: u8 = 0x00;
const NEVER_KEPT: u8 = 0x10;

/// Appends a field. Its name becomes lower case.
pub(crate) fn field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    let (known, kind) = known(name);
    push_number(kind, 4, known, out);
    if known == 0 {
        push_number(0, 7, name.len(), out);
        let at = out.len();
        out.extend_from_slice(name);
        out.get_mut(at..).unwrap_or_default().make_ascii_lowercase();
    }
    push_number(0, 7, value.len(), out);
    out.extend_from_slice(value);
}

/// A pseudo-field of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pseudo {
    Authority,
    Method,
    Path,
    Scheme,
}

/// Appends a pseudo-field of a request.
pub(crate) fn pseudo(which: Pseudo, value: &[u8], out: &mut Vec<u8>) {
    let (name, entry) = match (which, value) {
        (Pseudo::Method, b"GET") => (2, 2),
        (Pseudo::Method, b"POST") => (2, 3),
        (Pseudo::Path, b"/") => (4, 4),
        (Pseudo::Scheme, b"http") => (6, 6),
        (Pseudo::Scheme, b"https") => (6, 7),
        (Pseudo::Authority, _) => (1, 0),
        (Pseudo::Method, _) => (2, 0),
        (Pseudo::Path, _) => (4, 0),
        (Pseudo::Scheme, _) => (6, 0),
    };
    if entry > 0 {
        return out.push(0x80 | entry);
    }
    push_number(LITERAL, 4, name, out);
    push_number(0, 7, value.len(), out);
    out.extend_from_slice(value);
}

/// Appends the status of an answer.
pub(crate) fn status(status: u16, out: &mut Vec<u8>) {
    let entry = match status {
        200 => 8,
        204 => 9,
        206 => 10,
        304 => 11,
        400 => 12,
        404 => 13,
        500 => 14,
        _ => {
            let digit = |place: u16| b'0' + (status / place % 10) as u8;
            out.extend_from_slice(&[8, 3, digit(100), digit(10), digit(1)]);
            return;
        }
    };
    out.push(0x80 | entry);
}

/// Appends the length of a body.
pub(crate) fn length(length: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x0f, 28 - 15]);
    let at = out.len();
    out.push(0);
    crate::http::grammar::push_decimal(length, out);
    let digits = out.len() - at - 1;
    if let Some(count) = out.get_mut(at) {
        *count = digits as u8;
    }
}

/// The entry of the fixed table that has this name, or 0; and the kind of field it makes.
#[inline]
fn known(name: &[u8]) -> (usize, u8) {
    if let Some(b'x' | b'X' | b't' | b'T') = name.first() {
        // None has such a name that may be written here; most of our own lines begin so.
        return (0, LITERAL);
    }
    let entry = match name.len() {
        3 => one(name, &[(b"age", 21), (b"via", 60)]),
        4 => one(name, &[(b"date", 33), (b"etag", 34), (b"vary", 59), (b"link", 45)]),
        5 => one(name, &[(b"allow", 22), (b"range", 50)]),
        6 => one(name, &[(b"server", 54), (b"accept", 19), (b"expect", 35)]),
        7 => one(name, &[(b"expires", 36), (b"referer", 51)]),
        8 => one(name, &[(b"location", 46), (b"if-match", 39)]),
        10 => match one(name, &[(b"set-cookie", 55), (b"user-agent", 58)]) {
            55 => return (55, NEVER_KEPT),
            entry => entry,
        },
        11 => one(name, &[(b"retry-after", 53)]),
        12 => one(name, &[(b"content-type", 31)]),
        13 => match one(
            name,
            &[
                (b"cache-control", 24),
                (b"last-modified", 44),
                (b"content-range", 30),
                (b"accept-ranges", 18),
                (b"authorization", 23),
                (b"if-none-match", 41),
            ],
        ) {
            23 => return (23, NEVER_KEPT),
            entry => entry,
        },
        14 => one(name, &[(b"content-length", 28)]),
        15 => one(name, &[(b"accept-encoding", 16), (b"accept-language", 17)]),
        16 => one(
            name,
            &[(b"content-encoding", 26), (b"www-authenticate", 61), (b"content-language", 27)],
        ),
        17 => one(name, &[(b"if-modified-since", 40)]),
        19 => one(name, &[(b"content-disposition", 25)]),
        25 => one(name, &[(b"strict-transport-security", 56)]),
        27 => one(name, &[(b"access-control-allow-origin", 20)]),
        _ => 0,
    };
    let is_cookie = entry == 0 && name.eq_ignore_ascii_case(b"cookie");
    if is_cookie { (32, NEVER_KEPT) } else { (entry, LITERAL) }
}

#[inline]
fn one<const N: usize>(name: &[u8], entries: &[(&[u8; N], usize)]) -> usize {
    let spelled = entries.iter().find(|(known, _)| name.eq_ignore_ascii_case(*known));
    spelled.map_or(0, |(_, entry)| *entry)
}

/// Appends a number behind a prefix of so many bits, below these upper ones (RFC 7541 §5.1).
#[inline]
fn push_number(upper: u8, prefix: u32, number: usize, out: &mut Vec<u8>) {
    let full = (1_usize << prefix) - 1;
    if number < full {
        out.push(upper | number as u8);
        return;
    }
    out.push(upper | full as u8);
    let mut rest = number - full;
    while rest >= 0x80 {
        out.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::{
        super::{decode::Decoder, table::STATIC},
        *,
    };

    fn read(block: &[u8]) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let read =
            Decoder::default().read(block, |name, value| fields.push((text(name), text(value))));
        read.unwrap();
        fields
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let long = "x".repeat(5_000);
        let mut names: Vec<&str> =
            STATIC.iter().map(|(name, _)| *name).filter(|it| !it.starts_with(':')).collect();
        names.extend(["x", "cookie", "x-request-id", "Content-Type", "ETag", &long]);
        for name in names {
            for value in ["", "a", &long[..126], &long[..127], &long[..128], &long] {
                let mut out = Vec::new();
                field(name.as_bytes(), value.as_bytes(), &mut out);
                assert_eq!(read(&out), [(name.to_ascii_lowercase(), value.to_owned())]);
                let cost = out.len() - value.len();
                assert!(STATIC.iter().all(|(known, _)| *known != name) || cost < 8 + name.len());
            }
        }
    }

    #[test]
    fn a_pseudo_field_of_a_request_is_a_field_of_its_own() {
        for (which, name, values) in [
            (Pseudo::Authority, ":authority", ["a", "", "b:1"]),
            (Pseudo::Method, ":method", ["GET", "POST", "PUT"]),
            (Pseudo::Path, ":path", ["/", "*", "/index.html"]),
            (Pseudo::Scheme, ":scheme", ["http", "https", "x"]),
        ] {
            for value in values {
                let mut out = Vec::new();
                pseudo(which, value.as_bytes(), &mut out);
                assert_eq!(read(&out), [(name.to_owned(), value.to_owned())]);
            }
        }
    }

    #[test]
    fn a_status_and_a_length_are_fields_of_their_own() {
        for number in 100..1_000 {
            let mut out = Vec::new();
            status(number, &mut out);
            assert_eq!(read(&out), [(":status".to_owned(), number.to_string())]);
        }
        for number in [0, 9, 10, 1_234, u64::MAX] {
            let mut out = Vec::new();
            length(number, &mut out);
            assert_eq!(read(&out), [("content-length".to_owned(), number.to_string())]);
        }
    }

    /// RFC 7541 §7.1.3.
    #[test]
    fn what_is_secret_is_never_kept() {
        for name in ["set-cookie", "cookie", "Authorization"] {
            let mut out = Vec::new();
            field(name.as_bytes(), b"s", &mut out);
            assert_eq!(out[0] & 0xf0, NEVER_KEPT, "{name}");
        }
    }
}
