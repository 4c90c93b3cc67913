//! The cookies of a request (RFC 6265 §4.2, §5.4): reads them by name and removes them.
//!
//! What a value means is not known here. Names are compared byte for byte, as user agents do.

use super::{
    grammar,
    headers::{Headers, Span},
    names::Name,
};

/// The values of the cookies of this name, in order, over all lines.
pub(crate) fn values<'h>(headers: &'h Headers, name: &[u8]) -> impl Iterator<Item = &'h [u8]> {
    let pairs = headers.all(Name::Cookie).flat_map(|line| line.split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| value_of(pair, name))
}

/// The value of a pair, if it has this name.
fn value_of<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    grammar::pair(pair).and_then(|(named, value)| (named == name).then_some(value))
}

/// Removes the cookies of this name. The others keep their bytes and their order; a line with no
/// other cookie is removed.
pub(crate) fn remove(headers: &mut Headers, name: &[u8]) {
    if values(headers, name).next().is_none() {
        return;
    }
    for at in 0..headers.fields.len() {
        let Headers { bytes, fields, .. } = headers;
        let Some(field) = fields.get_mut(at).filter(|f| f.known == Name::Cookie && !f.removed)
        else {
            continue;
        };
        let pairs = || field.value.of(bytes).split(|byte| *byte == b';');
        if !pairs().any(|pair| value_of(pair, name).is_some()) {
            continue;
        }
        let start = bytes.len();
        copy_others(field.value, name, bytes);
        field.value = Span::new(start, bytes.len());
        // The line's name has moved to another offset.
        field.canonical = false;
        field.removed = field.value.len == 0;
    }
}

/// Appends the pairs of a line that have other names, with the separators between them.
fn copy_others(line: Span, name: &[u8], bytes: &mut Vec<u8>) {
    let begun = bytes.len();
    let mut at = line.start as usize;
    while at <= line.end().min(begun) {
        let rest = bytes.get(at..line.end()).unwrap_or_default();
        let pair = rest.split(|byte| *byte == b';').next().unwrap_or_default();
        let next = at + pair.len() + 1;
        if value_of(pair, name).is_none() {
            if bytes.len() > begun {
                bytes.push(b';');
            } else {
                // The space after a removed semicolon is removed too.
                at = next - 1 - grammar::trim_start(pair).len();
            }
            bytes.extend_from_within(at..next - 1);
        }
        at = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{names::NameSet, write};

    fn headers(lines: &[&str]) -> Headers {
        let mut headers = Headers::default();
        headers.push(Name::Host, b"host", b"a");
        for line in lines {
            headers.push(Name::Cookie, b"Cookie", line.as_bytes());
        }
        headers.push(Name::Other, b"x", b"1");
        headers
    }

    #[test]
    fn cookies_are_found_by_their_whole_name_over_all_lines() {
        let lines = ["rw=1; Rw=2; rww=3;rw=4", "a=rw=5; rw = 6 ;rw;", "rw=", "rw==7=; rw=\"8\""];
        let headers = headers(&lines);
        let found: Vec<_> = values(&headers, b"rw").map(|v| str::from_utf8(v).unwrap()).collect();
        assert_eq!(found, ["1", "4", "6", "", "=7=", "\"8\""]);
        assert_eq!(values(&headers, b"none").count(), 0);
    }

    #[track_caller]
    fn check(lines: &[&str], expected: &[&str]) {
        let mut headers = headers(lines);
        remove(&mut headers, b"rw");
        let mut out = Vec::new();
        write::fields(&headers, NameSet::default(), &mut out);
        let expected: String = expected.iter().map(|line| format!("Cookie: {line}\r\n")).collect();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!("host: a\r\n{expected}x: 1\r\n"),
            "{lines:?}"
        );
        assert_eq!(values(&headers, b"rw").count(), 0, "{lines:?}");
    }

    #[test]
    fn one_cookie_goes_and_the_rest_stays_byte_for_byte() {
        check(&["rw=x"], &[]);
        check(&["rw=x; a=1"], &["a=1"]);
        check(&["a=1; rw=x"], &["a=1"]);
        check(&["a=1; rw=x; b=2"], &["a=1; b=2"]);
        check(&["a=1;rw=x;b=2;  c=\"3;\""], &["a=1;b=2;  c=\"3;\""]);
        check(&["rw=x; rw=y; a=1; rw=z"], &["a=1"]);
        check(&["rw=x;"], &[]);
        check(&["rw=x; ;"], &[]);
        check(&["a=1; rw = x ; b"], &["a=1; b"]);
        check(&["a=1; arw=x; rwb=y; RW=z; a=rw=1"], &["a=1; arw=x; rwb=y; RW=z; a=rw=1"]);
        check(&["a=1", "rw=x", "b=2; rw=y", "c=3;;"], &["a=1", "b=2", "c=3;;"]);
        check(&[""], &[""]);
        check(&[], &[]);
    }
}
