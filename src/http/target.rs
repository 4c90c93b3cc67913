//! Request targets, hosts, and the normalised path that routes are compared with.
//!
//! Three questions: which of the four forms a target has and where its parts begin (RFC 9112 §3.2),
//! whether this is a host that we serve (RFC 9110 §4.2, §7.2), and under which path a route sees
//! it. The target that is sent on is never changed here.
//!
//! # The rule for paths
//!
//! A path goes to the backend byte for byte as it came. Routes are compared with a copy in which
//! everything is equal that any server considers equal: percent-encoded unreserved characters are
//! decoded (RFC 3986 §6.2.2.2), other encodings are in capitals, `\`, `%5C` and `%2F` are slashes,
//! the parameters of a segment (`;` or `%3B` and what follows in it, RFC 3986 §3.3) are cut, and
//! runs of slashes are one. So no spelling leads past a route. A path that servers would resolve to
//! another one is refused with 400: a dot segment in any spelling (`..`, `%2e.`, `..;x`), and
//! `%00`. Clients resolve dot segments themselves before they ask (RFC 3986 §5.2.4).

use super::{
    fault::{Cause, Fault},
    head::{Method, TargetForm},
    words::Word,
};
use std::{net::Ipv6Addr, ops::Range};

/// The ranges of a target's parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) form: TargetForm,
    /// Empty unless the form is absolute or authority.
    pub(crate) authority: Range<usize>,
    /// Empty if an absolute target has none.
    pub(crate) path: Range<usize>,
    /// Without its question mark.
    pub(crate) query: Range<usize>,
}

/// Reads a target; which forms are allowed depends on the method (RFC 9112 §3.2).
pub(crate) fn read(method: Method, target: &[u8]) -> Result<Target, Fault> {
    // Not the grammar of RFC 3986, which many clients break harmlessly (`|`, `{`, `"`). But no
    // fragment, which never belongs in a target, no controls and nothing beyond ASCII.
    let clean = |byte: u8| (0x21..=0x7e).contains(&byte) && byte != b'#';
    if target.is_empty() || !target.iter().fold(true, |all, byte| all & clean(*byte)) {
        return Err(Cause::BadRequest.into());
    }
    if method == Method::Connect {
        return authority_form(target);
    }
    if target.first() == Some(&b'/') {
        let (path, query) = path_and_query(target, 0);
        return Ok(Target { form: TargetForm::Origin, authority: 0..0, path, query });
    }
    if target == b"*" && method == Method::Options {
        return Ok(Target { form: TargetForm::Asterisk, authority: 0..0, path: 0..1, query: 1..1 });
    }
    absolute_form(target)
}

/// `host:port`, for CONNECT only (RFC 9112 §3.2.3): the port must be there.
fn authority_form(target: &[u8]) -> Result<Target, Fault> {
    let end = target.len();
    match parts(target) {
        Some((_, Some(port))) if !port.is_empty() => Ok(Target {
            form: TargetForm::Authority,
            authority: 0..end,
            path: end..end,
            query: end..end,
        }),
        _ => Err(Cause::BadRequest.into()),
    }
}

/// `http://host/path` (RFC 9112 §3.2.2). User information is refused (RFC 9110 §4.2.4).
fn absolute_form(target: &[u8]) -> Result<Target, Fault> {
    let scheme = |name: &[u8]| {
        target
            .get(..name.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(name))
            .then_some(name.len())
    };
    let start = scheme(b"http://").or_else(|| scheme(b"https://")).ok_or(Cause::BadRequest)?;
    let rest = target.get(start..).unwrap_or_default();
    let end = start + memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    if !is_authority(target.get(start..end).unwrap_or_default()) {
        return Err(Cause::BadRequest.into());
    }
    let (path, query) = path_and_query(target, end);
    Ok(Target { form: TargetForm::Absolute, authority: start..end, path, query })
}

/// Splits the target from `start` on at its first question mark.
fn path_and_query(target: &[u8], start: usize) -> (Range<usize>, Range<usize>) {
    let end = target.len();
    match memchr::memchr(b'?', target.get(start..).unwrap_or_default()) {
        Some(mark) => (start..start + mark, start + mark + 1..end),
        None => (start..end, end..end),
    }
}

/// Whether this is a host, with or without a port, that a request may be for.
///
/// Stricter than the grammar of RFC 3986 §3.2.2 in four points, all for hosts that are never
/// served: the empty host, which http forbids (RFC 9110 §4.2.1); percent-encoding, which some
/// decode and some do not; a comma, which makes a list of a field that lists are made from; zones
/// and future versions of addresses in brackets.
pub(crate) fn is_authority(authority: &[u8]) -> bool {
    parts(authority).is_some()
}

/// Host and port of a valid authority.
fn parts(authority: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let (host, port) = if authority.first() == Some(&b'[') {
        let (host, rest) = authority.split_at_checked(memchr::memchr(b']', authority)? + 1)?;
        let address = host.get(1..host.len() - 1)?;
        str::from_utf8(address).ok()?.parse::<Ipv6Addr>().ok()?;
        match rest {
            [] => (host, None),
            [b':', port @ ..] => (host, Some(port)),
            _ => return None,
        }
    } else {
        let end = authority.iter().position(|byte| !is_host_byte(*byte));
        let (host, rest) = authority.split_at_checked(end.unwrap_or(authority.len()))?;
        let port = match rest {
            [] => None,
            [b':', port @ ..] => Some(port),
            _ => return None,
        };
        if host.is_empty() {
            return None;
        }
        (host, port)
    };
    port.is_none_or(is_port).then_some((host, port))
}

/// Unreserved characters and sub-delims of RFC 3986, without the comma. A table, since each byte of
/// each Host is looked at.
#[allow(clippy::indexing_slicing)] // evaluated when compiled
const HOST_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut rest: &[u8] =
        b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-._~!$&'()*+;=";
    while let [byte, others @ ..] = rest {
        table[*byte as usize] = true;
        rest = others;
    }
    table
};

#[inline]
fn is_host_byte(byte: u8) -> bool {
    HOST_BYTES.get(usize::from(byte)).copied().unwrap_or_default()
}

/// Digits that fit in 16 bits; the grammar also allows none at all.
fn is_port(port: &[u8]) -> bool {
    port.is_empty() || super::grammar::digits(port).is_some_and(|port| port <= 0xffff)
}

/// Writes the host that routes are compared with: in lower case, without port and one trailing dot.
/// `authority` must be valid; otherwise the result means nothing.
pub(crate) fn normalise_host(authority: &[u8], host: &mut Vec<u8>) {
    host.clear();
    let end = match authority.first() {
        Some(b'[') => memchr::memchr(b']', authority).map(|at| at + 1),
        _ => memchr::memchr(b':', authority),
    };
    let name = authority.get(..end.unwrap_or(authority.len())).unwrap_or_default();
    let name = match name {
        [name @ .., b'.'] if !name.is_empty() => name,
        _ => name,
    };
    host.extend(name.iter().map(u8::to_ascii_lowercase));
}

/// The path that routes are compared with, by the rule at the top of this file: the path itself if
/// the rule changes nothing, otherwise written to `copy`.
pub(crate) fn normalise_path<'a>(path: &'a [u8], copy: &'a mut Vec<u8>) -> Result<&'a [u8], Fault> {
    if is_plain(path) {
        return Ok(path);
    }
    copy.clear();
    let mut segment = Segment::Empty;
    let mut rest = path;
    while let Some((byte, encoded, after)) = next_byte(rest) {
        rest = after;
        if encoded && byte == 0 {
            return Err(Cause::BadRequest.into());
        }
        segment = match segment.then(byte) {
            Some(segment) => segment,
            None => return Err(Cause::BadRequest.into()),
        };
        if segment != Segment::Parameters {
            push_normalised(byte, encoded, copy);
        }
    }
    if segment.is_dots() { Err(Cause::BadRequest.into()) } else { Ok(copy) }
}

/// Whether a quick scan shows that a path is its own normalised copy: no byte of it is encoded or
/// special, and no segment is empty or begins with a dot.
fn is_plain(path: &[u8]) -> bool {
    if path.first() == Some(&b'.') {
        return false;
    }
    let (mut refused, mut before, mut rest) = (0, 0, path);
    loop {
        let (word, behind) = match rest.split_first_chunk() {
            Some((word, behind)) => (Word::of(*word), behind),
            None => (Word::of_rest(rest), &[][..]),
        };
        let slash = word.is_one_of([b'/']);
        // The last byte of the word before stands in front of the first.
        let after_slash = slash << 8 | before >> 56;
        refused |=
            word.is_one_of([b'%', b'\\', b';']) | (after_slash & word.is_one_of([b'/', b'.']));
        before = slash;
        rest = behind;
        if rest.is_empty() {
            return refused == 0;
        }
    }
}

/// The current segment so far.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Segment {
    Empty,
    Dot,
    DotDot,
    Name,
    /// After its semicolon.
    Parameters,
}

impl Segment {
    fn is_dots(self) -> bool {
        self == Segment::Dot || self == Segment::DotDot
    }

    /// The segment after one more byte; `None` if a dot segment has ended.
    fn then(self, byte: u8) -> Option<Segment> {
        match (byte, self) {
            (b'/' | b'\\' | b';', Segment::Dot | Segment::DotDot) => None,
            (b'/' | b'\\', _) => Some(Segment::Empty),
            (b';', _) | (_, Segment::Parameters) => Some(Segment::Parameters),
            (b'.', Segment::Empty) => Some(Segment::Dot),
            (b'.', Segment::Dot) => Some(Segment::DotDot),
            _ => Some(Segment::Name),
        }
    }
}

/// The first byte, decoded if it is a well-formed percent-encoding, and the rest. A percent sign
/// that encodes nothing stands for itself, and so for `%25`: left bare, it could end up before two
/// digits that were themselves encoded.
fn next_byte(path: &[u8]) -> Option<(u8, bool, &[u8])> {
    let hex = |byte: &u8| char::from(*byte).to_digit(16);
    if let [b'%', high, low, rest @ ..] = path
        && let (Some(high), Some(low)) = (hex(high), hex(low))
    {
        return Some(((high * 16 + low) as u8, true, rest));
    }
    path.split_first().map(|(byte, rest)| (*byte, *byte == b'%', rest))
}

/// Appends one byte of the copy: decoded if that changes no meaning, otherwise encoded in capitals.
fn push_normalised(byte: u8, encoded: bool, copy: &mut Vec<u8>) {
    let unreserved = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    if matches!(byte, b'/' | b'\\') {
        if copy.last() != Some(&b'/') {
            copy.push(b'/');
        }
    } else if encoded && !unreserved {
        let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0') as u8;
        copy.extend([b'%', digit(byte >> 4), digit(byte & 15)].map(|b| b.to_ascii_uppercase()));
    } else {
        copy.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[track_caller]
    fn reads(method: Method, target: &str, expected: (TargetForm, &str, &str, &str)) {
        let read = read(method, target.as_bytes()).unwrap();
        let parts = (read.form, &target[read.authority], &target[read.path], &target[read.query]);
        assert_eq!(parts, expected, "{target}");
    }

    #[track_caller]
    fn refuses(method: Method, target: &str) {
        assert_eq!(read(method, target.as_bytes()), Err(Cause::BadRequest.into()), "{target}");
    }

    #[test]
    fn a_target_has_one_of_four_shapes() {
        use TargetForm::{Absolute, Asterisk, Authority, Origin};
        reads(Method::Get, "/", (Origin, "", "/", ""));
        reads(Method::Get, "/a/b?c=/d?e", (Origin, "", "/a/b", "c=/d?e"));
        reads(Method::Get, "/?", (Origin, "", "/", ""));
        reads(Method::Get, "//a/b", (Origin, "", "//a/b", ""));
        reads(Method::Get, "/a|b{\"c\"}^`", (Origin, "", "/a|b{\"c\"}^`", ""));
        reads(Method::Options, "*", (Asterisk, "", "*", ""));
        reads(Method::Options, "/x", (Origin, "", "/x", ""));
        reads(Method::Get, "http://a.example/x?y", (Absolute, "a.example", "/x", "y"));
        reads(Method::Get, "HTTPS://a:8443?y", (Absolute, "a:8443", "", "y"));
        reads(Method::Get, "http://[::1]:80", (Absolute, "[::1]:80", "", ""));
        reads(Method::Options, "http://a", (Absolute, "a", "", ""));
        reads(Method::Connect, "a.example:443", (Authority, "a.example:443", "", ""));
    }

    #[test]
    fn a_target_of_no_shape_is_refused() {
        for target in [
            "",
            "*",
            "**",
            "a",
            "?x",
            "a.example:443",
            "/a#b",
            "/#",
            "http:/a",
            "http://",
            "http:///a",
            "http://?a",
            "ftp://a/",
            "http://u@a/",
            "http://u:p@a/",
            "http://a b/",
            "http://a:b/",
            "http://a:99999/",
            "/a b",
            "/a\tb",
            "/a\u{7f}",
            "/a\0",
            "/é",
            "http://a\\b/",
            "javascript:alert(1)",
        ] {
            refuses(Method::Get, target);
        }
        for target in ["/", "*", "a.example", "a.example:", "http://a:80", "a:b", ":443"] {
            refuses(Method::Connect, target);
        }
        refuses(Method::Options, "*?x");
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        for host in [
            "a",
            "A.Example",
            "a.example.",
            "a_b.example",
            "xn--bcher-kva.example",
            "a:80",
            "a:",
            "a:0",
            "a:65535",
            "127.0.0.1",
            "127.0.0.1:8080",
            "[::1]",
            "[::1]:443",
            "[::1]:",
            "[2001:DB8::1]",
            "[::ffff:1.2.3.4]",
            "a~b!c$d&e'f(g)h*i+j;k=l",
        ] {
            assert!(is_authority(host.as_bytes()), "{host}");
        }
        for host in [
            "",
            ":",
            ":80",
            "a:b",
            "a:80:80",
            "a:65536",
            "a:-1",
            "a:+1",
            "a b",
            "a,b",
            "a/b",
            "a?b",
            "a#b",
            "a@b",
            "a\\b",
            "a%41",
            "[::1",
            "::1",
            "[::1]a",
            "[::1]:x",
            "[]",
            "[fe80::1%25eth0]",
            "[v1.x]",
            "[1.2.3.4]",
            "é",
            "a\0",
            "a\t",
            "<a>",
            "\"a\"",
            "a|b",
        ] {
            assert!(!is_authority(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn routes_see_hosts_in_lower_case_without_port_and_last_dot() {
        #[track_caller]
        fn check(host: &str, expected: &str) {
            let mut copy = b"left over".to_vec();
            normalise_host(host.as_bytes(), &mut copy);
            assert_eq!(text(&copy), expected);
        }
        check("a.example", "a.example");
        check("A.Example.:8080", "a.example");
        check("a.example..", "a.example.");
        check("a:", "a");
        check("[::A]:80", "[::a]");
        check("[::1]", "[::1]");
        check("", "");
        check(".", ".");
    }

    #[test]
    fn routes_see_equal_paths_as_equal() {
        #[track_caller]
        fn check(path: &str, expected: &str) {
            let mut copy = b"left over".to_vec();
            let seen = normalise_path(path.as_bytes(), &mut copy).unwrap().to_vec();
            assert_eq!(text(&seen), expected);
            let mut again = Vec::new();
            assert_eq!(normalise_path(&seen, &mut again), Ok(&seen[..]), "not a fixed point");
        }
        check("/", "/");
        check("/a/b/d+e", "/a/b/d+e");
        check("/a/b;c=1/d+e", "/a/b/d+e");
        check("/admin;x", "/admin");
        check("/admin;", "/admin");
        check("/admin/;x=1;y=2", "/admin/");
        check("/;/admin", "/admin");
        check("/;a=b/;;/admin;c", "/admin");
        check("/;", "/");
        check("/admin%3Bx", "/admin");
        check("/%3b/admin%3b/b", "/admin/b");
        check("/a;%2fb", "/a/b");
        check("/a;\\b", "/a/b");
        check("/a;..", "/a");
        check("/a/;..", "/a/");
        check("/a;%2e%2e%2f%2e%2ea", "/a/..a");
        check("/a;%", "/a");
        check("/a%253bb", "/a%253bb");
        check("/%61dmin", "/admin");
        check("/%41%7e%2D", "/A~-");
        check("/a%2fb%2Fc", "/a/b/c");
        check("//a///b//", "/a/b/");
        check("/a%2f/b", "/a/b");
        check("/%c3%a9", "/%C3%A9");
        check("/a%20b%3fc", "/a%20b%3Fc");
        check("/100%", "/100%25");
        check("/%zz%4", "/%25zz%254");
        check("/%%32e%%32e/", "/%252e%252e/");
        check("/a\\b", "/a/b");
        check("/a%5cb", "/a/b");
        check("/\\admin", "/admin");
        check("/%5cadmin", "/admin");
        check("/\\/%5C%2f\\admin\\", "/admin/");
        check("/a%255cb", "/a%255cb");
        check("/.well-known/x", "/.well-known/x");
        check("/...", "/...");
        check("/a/..b", "/a/..b");
        check("/a./b../c", "/a./b../c");
        check("/%2e%2e%2e", "/...");
        check("*", "*");
    }

    #[test]
    fn a_dot_segment_in_any_spelling_never_leads_past_a_route() {
        for path in [
            ".",
            "./a",
            "..",
            "/.",
            "/..",
            "/./",
            "/../",
            "/a/./b",
            "/a/../b",
            "/a/..",
            "/%2e",
            "/%2E%2e/",
            "/.%2e/a",
            "/a%2f..%2fb",
            "/a%2F.",
            "/a\\..\\b",
            "/a%5c..%5Cb",
            "/..\\a",
            "/..;/a",
            "/.;x=1/a",
            "/..%3b/a",
            "/%2e;",
            "/a;x/..",
            "/a;/%2e%2e;y/b",
            "/;/../b",
            "/a/..;",
            "/a;x\\..",
            "/a;%00",
            "/%5c%2e%2e%5c",
            "/%5c..%2f",
            "/a/%00",
            "/%00.txt",
            "/a//..//b",
            "/a/..%2f",
        ] {
            let mut copy = Vec::new();
            let seen = normalise_path(path.as_bytes(), &mut copy);
            assert_eq!(seen, Err(Cause::BadRequest.into()), "{path}");
        }
    }

    /// The rule taken literally and without a state: pieces between separators, each cut at its
    /// semicolon, none of them a dot segment.
    fn by_the_rule(path: &[u8]) -> Option<Vec<u8>> {
        let mut decoded = Vec::new();
        let mut rest = path;
        while let Some((byte, encoded, after)) = next_byte(rest) {
            rest = after;
            let reserved =
                encoded && !(byte.is_ascii_alphanumeric() || b"-._~/\\;".contains(&byte));
            decoded.push(match (reserved, byte) {
                (_, 0) if encoded => return None,
                (true, byte) => format!("%{byte:02X}"),
                (false, b'\\') => "/".to_owned(),
                (false, byte) => char::from(byte).to_string(),
            });
        }
        let path = decoded.concat();
        let mut segments = Vec::new();
        for segment in path.split('/') {
            let name = segment.split(';').next().unwrap();
            if name == "." || name == ".." {
                return None;
            }
            segments.push(name);
        }
        let mut path = segments.join("/");
        while path.contains("//") {
            path = path.replace("//", "/");
        }
        Some(path.into_bytes())
    }

    fn normalised(path: &[u8]) -> Option<Vec<u8>> {
        let mut copy = b"left over".to_vec();
        normalise_path(path, &mut copy).ok().map(<[u8]>::to_vec)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        /// Random paths of the characters that matter to the rule: the copy is what the literal
        /// rule gives, and its own copy.
        #[test]
        fn a_copy_is_what_the_rule_says_and_its_own_copy(
            pieces in proptest::collection::vec(proptest::sample::select(vec![
                "/", "\\", ";", ".", "..", "%", "a", "Z", "~", "=", "%2f", "%2F", "%5c", "%5C",
                "%3b", "%3B", "%2e", "%2E", "%41", "%7e", "%25", "%20", "%c3", "%00", "2", "f",
                "5c",
            ]), 0..12),
        ) {
            let path = format!("/{}", pieces.concat());
            let seen = normalised(path.as_bytes());
            prop_assert_eq!(&seen, &by_the_rule(path.as_bytes()), "{}", path);
            if let Some(seen) = seen {
                prop_assert_eq!(normalised(&seen), Some(seen.clone()), "{}", path);
                prop_assert!(!seen.contains(&b';') && !seen.contains(&b'\\'), "{}", path);
            }
        }

        /// Other spellings of one path, by any of the ways at once, are one to a route.
        #[test]
        fn a_path_is_the_same_to_a_route_in_every_spelling(
            segments in proptest::collection::vec("[a-z~-]{1,4}", 1..4),
            slashes in proptest::collection::vec(proptest::sample::select(vec![
                "/", "//", "\\", "/\\", "%2f", "%5C", ";/", ";a=b/", "%3Bx%2F", "/;/", "\\;..;/",
            ]), 4),
            encoded in proptest::collection::vec(any::<bool>(), 16),
            end in proptest::sample::select(vec!["", ";", ";x", "%3b", ";%2e%2e", ";a;b=\"c\""]),
        ) {
            let mut plain = String::new();
            let mut other = String::new();
            let mut encoded = encoded.into_iter().cycle();
            for (place, (segment, slash)) in segments.iter().zip(&slashes).enumerate() {
                plain.extend(["/", segment]);
                // The first byte of a path is a slash.
                other.push_str(if place == 0 { "/" } else { slash });
                for letter in segment.chars() {
                    match encoded.next() {
                        Some(true) => other.push_str(&format!("%{:02x}", u32::from(letter))),
                        _ => other.push(letter),
                    }
                }
            }
            other.push_str(end);
            prop_assert_eq!(normalised(other.as_bytes()), Some(plain.into_bytes()), "{}", other);
        }
    }
}
