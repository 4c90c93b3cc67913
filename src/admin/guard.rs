//! Access control of the admin interface.
//!
//! A client that can connect may read. A write needs the token if there is one, otherwise it must
//! come over loopback or the Unix socket. Browsers are kept from both: a page of another origin may
//! send a simple POST to a loopback address, and a name of its own may be made to point there (DNS
//! rebinding). So a foreign `Origin`, `Sec-Fetch-Site` or `Host` is refused. RFC 6750 (bearer
//! tokens), Fetch Metadata.

use std::net::IpAddr;

use crate::http::head::{Method, RequestHead};

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// The Unix socket, which only its owner can open.
    Socket,
    /// This machine.
    Loopback,
    Elsewhere,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// 401: it lacks the token, or has another.
    Token,
    /// 403: there is no token, and it comes from another machine.
    Elsewhere,
    /// 403: a browser sent it for a page of another origin.
    Origin,
    /// 403: it names a host that is not this one.
    Host,
}

/// The conditions of access.
#[derive(Clone, Debug, Default)]
pub(super) struct Guard {
    /// The token that a write must present.
    pub(super) token: Option<String>,
}

impl Guard {
    /// Whether this request is allowed. `exempt`: it only reads the state of the process.
    pub(super) fn check(
        &self,
        head: &RequestHead,
        from: From,
        exempt: bool,
    ) -> Result<(), Refusal> {
        if from == From::Socket || exempt {
            return Ok(());
        }
        let writes = !matches!(head.method, Method::Get | Method::Head | Method::Options);
        // A rebound name reaches what its victim can reach: loopback always, a network sometimes.
        if (writes || from == From::Loopback) && !is_own_host(head.bytes(head.authority)) {
            return Err(Refusal::Host);
        }
        if !writes {
            return Ok(());
        }
        if is_foreign(head) {
            return Err(Refusal::Origin);
        }
        match (&self.token, from) {
            (Some(token), _) if shows(head, token) => Ok(()),
            (Some(_), _) => Err(Refusal::Token),
            (None, From::Socket | From::Loopback) => Ok(()),
            (None, From::Elsewhere) => Err(Refusal::Elsewhere),
        }
    }
}

/// Whether a host is one that no foreign page can have: an address, or `localhost`.
fn is_own_host(authority: &[u8]) -> bool {
    let Ok(authority) = str::from_utf8(authority) else { return false };
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost")
}

/// Whether a browser says that a page of another origin has sent it.
fn is_foreign(head: &RequestHead) -> bool {
    let site = head.headers.named(b"sec-fetch-site").next();
    if site.is_some_and(|site| !matches!(site, b"same-origin" | b"none")) {
        return true;
    }
    let own = [b"http://", head.bytes(head.authority)].concat();
    head.headers.named(b"origin").any(|origin| !origin.eq_ignore_ascii_case(&own))
}

/// Whether it presents this token. Every byte is compared, so that the time reveals nothing.
fn shows(head: &RequestHead, token: &str) -> bool {
    let mut shown = head.headers.named(b"authorization");
    let (Some(shown), None) = (shown.next(), shown.next()) else { return false };
    let Some((scheme, shown)) = shown.split_at_checked(b"Bearer ".len()) else { return false };
    let differ = shown.iter().zip(token.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    scheme.eq_ignore_ascii_case(b"Bearer ") && shown.len() == token.len() && differ == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::parse::{self, HeadLimits};

    const LIMITS: HeadLimits =
        HeadLimits { head_bytes_max: 4096, line_bytes_max: 1024, fields_max: 32 };

    #[track_caller]
    fn check(token: Option<&str>, from: From, text: &str, expected: Result<(), Refusal>) {
        let text = format!("{}\r\n\r\n", text.replace('\n', "\r\n"));
        let mut head = RequestHead::default();
        parse::request(text.as_bytes(), &LIMITS, &mut head).expect("a request");
        let guard = Guard { token: token.map(str::to_owned) };
        assert_eq!(guard.check(&head, from, false), expected, "{text}");
    }

    const POST: &str = "POST /api/v1/reload HTTP/1.1\nHost: 127.0.0.1:9900";

    #[test]
    fn anybody_who_can_connect_may_read() {
        let get = "GET /api/v1/status HTTP/1.1\nHost: lb.internal:9900";
        check(None, From::Elsewhere, get, Ok(()));
        check(Some("secret"), From::Elsewhere, get, Ok(()));
        check(None, From::Socket, get, Ok(()));
    }

    #[test]
    fn without_a_token_writes_come_from_this_machine() {
        check(None, From::Loopback, POST, Ok(()));
        check(None, From::Socket, POST, Ok(()));
        check(None, From::Elsewhere, POST, Err(Refusal::Elsewhere));
    }

    #[test]
    fn a_token_is_asked_for_where_there_is_one() {
        for (shown, expected) in [
            ("Authorization: Bearer secret", Ok(())),
            ("authorization: bearer secret", Ok(())),
            ("Authorization: Bearer secre", Err(Refusal::Token)),
            ("Authorization: Bearer secrets", Err(Refusal::Token)),
            ("Authorization: Bearer Secret", Err(Refusal::Token)),
            ("Authorization: Basic secret", Err(Refusal::Token)),
            ("Authorization: secret", Err(Refusal::Token)),
            ("Authorization: Bearer", Err(Refusal::Token)),
            ("Authorization: Bearer secret\nAuthorization: Bearer secret", Err(Refusal::Token)),
            ("X-None: 1", Err(Refusal::Token)),
        ] {
            for from in [From::Loopback, From::Elsewhere] {
                check(Some("secret"), from, &format!("{POST}\n{shown}"), expected);
            }
        }
        check(Some("secret"), From::Socket, POST, Ok(()));
    }

    #[test]
    fn a_rebound_name_reaches_nothing() {
        for host in ["evil.example", "evil.example:9900", "127.0.0.1.evil.example", "localhost.x"] {
            for method in ["GET", "POST", "DELETE"] {
                let text = format!("{method} /api/v1/status HTTP/1.1\nHost: {host}");
                check(None, From::Loopback, &text, Err(Refusal::Host));
            }
            check(None, From::Socket, &format!("POST /x HTTP/1.1\nHost: {host}"), Ok(()));
        }
        for host in ["127.0.0.1", "127.0.0.1:9900", "[::1]:9900", "localhost", "LOCALHOST:1"] {
            check(None, From::Loopback, &format!("POST /x HTTP/1.1\nHost: {host}"), Ok(()));
        }
    }

    #[test]
    fn a_page_of_another_origin_writes_nothing() {
        for (line, expected) in [
            ("Origin: http://127.0.0.1:9900", Ok(())),
            ("Origin: http://evil.example", Err(Refusal::Origin)),
            ("Origin: http://127.0.0.1:9901", Err(Refusal::Origin)),
            ("Origin: https://127.0.0.1:9900", Err(Refusal::Origin)),
            ("Origin: null", Err(Refusal::Origin)),
            ("Sec-Fetch-Site: same-origin", Ok(())),
            ("Sec-Fetch-Site: none", Ok(())),
            ("Sec-Fetch-Site: cross-site", Err(Refusal::Origin)),
            ("Sec-Fetch-Site: same-site", Err(Refusal::Origin)),
        ] {
            check(None, From::Loopback, &format!("{POST}\n{line}"), expected);
            check(
                Some("t"),
                From::Loopback,
                &format!("{POST}\n{line}\nAuthorization: Bearer t"),
                expected,
            );
        }
    }
}
