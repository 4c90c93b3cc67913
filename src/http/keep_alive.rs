//! The `Keep-Alive` field of a backend (RFC 9112 appendix C.2.2): how long it keeps a connection.
//!
//! Only RFC 2068 §19.7.1.1 has a grammar for it, and servers write it in several ways: `timeout=5,
//! max=100`, `Timeout = 5`, `timeout=5;max=100`. All of them are read. The field is a hint: an
//! unreadable value is ignored, and of two numbers the smaller counts.

use super::{grammar, headers::Headers, names::Name};

/// How long a backend keeps a connection, according to its `Keep-Alive`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeepAlive {
    /// Seconds for which it keeps an idle connection.
    pub(crate) timeout: Option<u32>,
    /// Requests that it accepts on this connection after the present one.
    pub(crate) max: Option<u32>,
}

/// Reads all lines of the field.
pub(crate) fn read(headers: &Headers) -> KeepAlive {
    let mut said = KeepAlive::default();
    let members = headers.all(Name::KeepAlive).flat_map(grammar::list);
    for parameter in members.flat_map(|member| member.split(|byte| *byte == b';')) {
        let Some((name, value)) = grammar::pair(parameter) else { continue };
        let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        let Some(number) = grammar::digits(quoted.unwrap_or(value)) else { continue };
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        if name.eq_ignore_ascii_case(b"timeout") {
            said.timeout = Some(said.timeout.map_or(number, |before| before.min(number)));
        } else if name.eq_ignore_ascii_case(b"max") {
            said.max = Some(said.max.map_or(number, |before| before.min(number)));
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_how_long_a_backend_keeps_a_connection() {
        #[track_caller]
        fn check(lines: &[&str], timeout: Option<u32>, max: Option<u32>) {
            let mut headers = Headers::default();
            for line in lines {
                headers.push(Name::KeepAlive, b"Keep-Alive", line.as_bytes());
            }
            assert_eq!(read(&headers), KeepAlive { timeout, max }, "{lines:?}");
        }
        check(&[], None, None);
        check(&["timeout=5"], Some(5), None);
        check(&["Timeout=2"], Some(2), None);
        check(&["timeout = 2"], Some(2), None);
        check(&["TIMEOUT\t=\t2 ,MAX= 7"], Some(2), Some(7));
        check(&["timeout=2;max=3"], Some(2), Some(3));
        check(&["timeout=2 ; max=3 ;"], Some(2), Some(3));
        check(&["max=100, timeout=5"], Some(5), Some(100));
        check(&["max=0"], None, Some(0));
        check(&["timeout=\"5\""], Some(5), None);
        check(&["timeout=5", "max=3"], Some(5), Some(3));
        check(&["timeout=5, timeout=4", "timeout=6"], Some(4), None);
        check(&["timeout=99999999999"], Some(u32::MAX), None);
        check(&["other, timeout=5, x=y"], Some(5), None);
        for nothing in [
            "",
            "5",
            "timeout",
            "timeout=",
            "timeout=x",
            "timeout=-1",
            "timeout=5s",
            "timeout=5.5",
            "timeout 5",
            "time out=5",
            "xtimeout=5",
            "timeout=99999999999999999999",
            "=5",
            ",;,",
        ] {
            check(&[nothing], None, None);
        }
    }
}
