//! Edits to a client's request before a backend gets it: hop-by-hop fields are removed, Via, the
//! fields about the client and the ids are added. Only trusted proxies are believed about the
//! client, and no client can make us drop a field that something behind us trusts.

use super::{
    HOP_BY_HOP, drop_listed, forwarded,
    ids::{self, MadeIds, Stay},
};
use crate::http::{
    fault::{Cause, Fault},
    grammar,
    head::{Method, RequestHead, Version},
    headers::{Field, Headers, Span},
    names::{self, Name, NameSet},
};

/// What a backend is told about the origin of a request. All text, made once: for the process, the
/// listener or the connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForwardedFor<'a> {
    /// The address of the immediate peer, without a port.
    pub(crate) peer: &'a [u8],
    /// Whether that peer is one of the listener's trusted proxies.
    pub(crate) trusted: bool,
    /// `http` or `https`.
    pub(crate) scheme: &'a [u8],
    /// The port that the client connected to.
    pub(crate) port: &'a [u8],
    /// Our name in Via, `ringway-XXXXXXXX`.
    pub(crate) pseudonym: &'a [u8],
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forward {
    Send,
    /// An OPTIONS whose Max-Forwards has run out (RFC 9110 §7.6.2): we answer it.
    AnswerOptions,
}

/// This many entries of our own in Via mean a loop. More than one, since a request may well pass
/// two listeners of one process.
const VISITS_MAX: usize = 5;

/// Turns a client's request into the one that a backend gets, with ids that were made for it.
pub(crate) fn request(
    head: &mut RequestHead,
    from: &ForwardedFor<'_>,
    made: &MadeIds,
) -> Result<Forward, Fault> {
    if visits(&head.headers, from.pseudonym) >= VISITS_MAX {
        return Err(Cause::Loop.into());
    }
    if head.method == Method::Options && head.headers.contains(Name::MaxForwards) {
        match forwards_left(&mut head.headers)? {
            Forward::Send => {}
            Forward::AnswerOptions => return Ok(Forward::AnswerOptions),
        }
    }
    drop_listed(&mut head.headers, Cause::BadRequest)?;
    let takes_trailers = takes_trailers(head);
    let stay = Stay::of(&head.headers, from.trusted);
    let mut dropped = HOP_BY_HOP.union(stay.dropped());
    if !head.upgrade {
        dropped = dropped.with(Name::Upgrade);
    }
    if !head.expects_continue {
        dropped = dropped.with(Name::Expect);
    }
    if !from.trusted {
        dropped = dropped.union(names::ABOUT_CLIENT);
    }
    drop_set(&mut head.headers, dropped, |name| match name.first() {
        Some(b'x' | b'X') => !from.trusted && names::claims_client(name),
        Some(b'p' | b'P') => name.eq_ignore_ascii_case(b"proxy"),
        Some(b'c' | b'C') => is_about_certificate(name),
        _ => false,
    });
    if takes_trailers {
        head.headers.push(Name::Te, b"TE", b"trailers");
    }
    match (head.upgrade, takes_trailers) {
        (true, true) => head.headers.push(Name::Connection, b"Connection", b"Upgrade, TE"),
        (true, false) => head.headers.push(Name::Connection, b"Connection", b"Upgrade"),
        (false, true) => head.headers.push(Name::Connection, b"Connection", b"TE"),
        (false, false) => {}
    }
    let mut start = head.headers.bytes.len();
    if from.trusted {
        continue_about_client(head, from);
        start = head.headers.bytes.len();
    } else {
        tell_about_client(head, from);
    }
    ids::tell(&mut head.headers.bytes, made, stay);
    head.headers.own_lines = Span::new(start, head.headers.bytes.len());
    Ok(Forward::Send)
}

/// Removes a set of names, and those unknown names for which `also` is true. (`Proxy` is among them
/// because CGI and its descendants turn it into `HTTP_PROXY`.)
fn drop_set(headers: &mut Headers, dropped: NameSet, also: impl Fn(&[u8]) -> bool) {
    let Headers { bytes, fields, .. } = headers;
    for field in fields {
        if field.known == Name::Other {
            field.removed |= also(field.name.of(bytes));
        } else {
            field.removed |= dropped.contains(field.known);
        }
    }
}

/// Whether it says which certificate a client has shown, in any disguise: that is for us to say
/// (RFC 9440 §2.4).
#[cold]
fn is_about_certificate(name: &[u8]) -> bool {
    let is = |plain: &[u8]| {
        let same = |(one, other): (&u8, &u8)| {
            one.eq_ignore_ascii_case(other) || (*one == b'_' && *other == b'-')
        };
        name.len() == plain.len() && name.iter().zip(plain).all(same)
    };
    is(b"client-cert") || is(b"client-cert-chain")
}

/// Tells a backend which certificate the client has shown, and the chain behind it.
pub(crate) fn tell_certificate(head: &mut RequestHead, (cert, chain): (&[u8], &[u8])) {
    head.headers.push(Name::Other, b"Client-Cert", cert);
    if !chain.is_empty() {
        head.headers.push(Name::Other, b"Client-Cert-Chain", chain);
    }
}

/// Whether the client accepts trailers (RFC 9110 §10.1.4); other codings of TE are dropped.
fn takes_trailers(head: &RequestHead) -> bool {
    let mut codings = head.headers.all(Name::Te).flat_map(grammar::list);
    head.version != Version::Http10 && codings.any(|c| c.eq_ignore_ascii_case(b"trailers"))
}

/// How often a request has passed us (RFC 9110 §7.6.3: `version received-by comment`).
fn visits(headers: &Headers, pseudonym: &[u8]) -> usize {
    let received_by = |member: &&[u8]| {
        let mut words = member.split(|byte| matches!(byte, b' ' | b'\t')).filter(|w| !w.is_empty());
        words.nth(1) == Some(pseudonym)
    };
    headers.all(Name::Via).flat_map(grammar::list).filter(received_by).count()
}

/// Decrements Max-Forwards (RFC 9110 §7.6.2).
fn forwards_left(headers: &mut Headers) -> Result<Forward, Fault> {
    let mut lines = headers.all(Name::MaxForwards);
    let (Some(value), None) = (lines.next(), lines.next()) else {
        return Err(Cause::BadRequest.into());
    };
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Cause::BadRequest.into());
    }
    // A number that does not fit is forwarded as the largest that does.
    let Some(left) = grammar::digits(value).unwrap_or(u64::MAX).checked_sub(1) else {
        return Ok(Forward::AnswerOptions);
    };
    drop(lines);
    headers.remove(Name::MaxForwards);
    headers.push_with(Name::MaxForwards, b"max-forwards", |out| grammar::push_decimal(left, out));
    Ok(Forward::Send)
}

/// Adds who asked, how, for which host, and through which proxies: all of it in one piece, since
/// nothing of what such a peer says of it is left.
fn tell_about_client(head: &mut RequestHead, from: &ForwardedFor<'_>) {
    let authority = head.authority.start as usize..head.authority.end();
    let bytes = &mut head.headers.bytes;
    bytes.reserve(LINES_BYTES + from.peer.len() + authority.len() + from.pseudonym.len());
    bytes.extend_from_slice(b"x-forwarded-for: ");
    bytes.extend_from_slice(from.peer);
    bytes.extend_from_slice(b"\r\nx-forwarded-proto: ");
    bytes.extend_from_slice(from.scheme);
    if !authority.is_empty() {
        bytes.extend_from_slice(b"\r\nx-forwarded-host: ");
        copy_within(bytes, authority);
    }
    bytes.extend_from_slice(b"\r\nx-forwarded-port: ");
    bytes.extend_from_slice(from.port);
    bytes.extend_from_slice(b"\r\nvia: ");
    bytes.extend_from_slice(received_version(head.version));
    bytes.extend_from_slice(from.pseudonym);
    bytes.extend_from_slice(b"\r\n");
}

/// More than the names of the lines about the client, a scheme and a port, and the ids.
const LINES_BYTES: usize = 256;

/// The version of a message as received (RFC 9110 §7.6.3).
fn received_version(version: Version) -> &'static [u8; 4] {
    match version {
        Version::Http10 => b"1.0 ",
        Version::Http11 => b"1.1 ",
        Version::Http2 => b"2.0 ",
    }
}

/// The same for a trusted peer: what it has said stays; the chains of addresses grow by that peer.
#[cold]
fn continue_about_client(head: &mut RequestHead, from: &ForwardedFor<'_>) {
    let headers = &mut head.headers;
    let told = |headers: &Headers, name| headers.contains(name);
    if told(headers, Name::XForwardedFor) {
        append_to_list(headers, Name::XForwardedFor, b"x-forwarded-for", |out| {
            out.extend_from_slice(from.peer);
        });
    } else {
        headers.push(Name::XForwardedFor, b"x-forwarded-for", from.peer);
    }
    if told(headers, Name::Forwarded) {
        continue_forwarded(headers, head.authority, from);
    }
    // A port belongs to the scheme and host that the client sees. If a proxy before us names those,
    // our port does not go with them: `https` and 8080 would make a wrong link.
    let port_is_ours =
        !told(headers, Name::XForwardedProto) && !told(headers, Name::XForwardedHost);
    if !told(headers, Name::XForwardedProto) {
        headers.push(Name::XForwardedProto, b"x-forwarded-proto", from.scheme);
    }
    if !told(headers, Name::XForwardedHost) && head.authority.len > 0 {
        let authority = head.authority.start as usize..head.authority.end();
        headers.push_with(Name::XForwardedHost, b"x-forwarded-host", |out| {
            copy_within(out, authority);
        });
    }
    if port_is_ours && !told(headers, Name::XForwardedPort) {
        headers.push(Name::XForwardedPort, b"x-forwarded-port", from.port);
    }
    headers.push_with(Name::Via, b"via", |out| {
        out.extend_from_slice(received_version(head.version));
        out.extend_from_slice(from.pseudonym);
    });
}

/// Adds our element to a trusted peer's Forwarded, and drops those of its lines that could not be
/// parsed further.
#[cold]
fn continue_forwarded(headers: &mut Headers, authority: Span, from: &ForwardedFor<'_>) {
    let Headers { bytes, fields, .. } = &mut *headers;
    for field in fields.iter_mut().filter(|field| field.known == Name::Forwarded) {
        field.removed |= !forwarded::is_closed(field.value.of(bytes));
    }
    append_to_list(headers, Name::Forwarded, b"forwarded", |out| {
        forwarded::push_element(from.peer, authority, from.scheme, out);
    });
}

/// Joins all lines of a list into one and adds a member: some readers look at the first line only,
/// others at the last.
fn append_to_list(
    headers: &mut Headers,
    known: Name,
    name: &[u8],
    push_member: impl FnOnce(&mut Vec<u8>),
) {
    let Headers { bytes, fields, .. } = headers;
    let start = bytes.len();
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(b": ");
    let value = bytes.len();
    for field in fields.iter_mut().filter(|field| field.known == known && !field.removed) {
        field.removed = true;
        if field.value.len > 0 {
            copy_within(bytes, field.value.start as usize..field.value.end());
            bytes.extend_from_slice(b", ");
        }
    }
    push_member(bytes);
    let end = bytes.len();
    bytes.extend_from_slice(b"\r\n");
    let (name, value) = (Span::new(start, value - 2), Span::new(value, end));
    headers.push_field(Field { known, removed: false, canonical: true, name, value });
}

fn copy_within(bytes: &mut Vec<u8>, range: std::ops::Range<usize>) {
    if range.end <= bytes.len() {
        bytes.extend_from_within(range);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{OPTIONS_MAX, tests::parsed};
    use super::*;
    use crate::http::{framing, write};

    const FROM: ForwardedFor<'_> = ForwardedFor {
        peer: b"192.0.2.1",
        trusted: false,
        scheme: b"http",
        port: b"8080",
        pseudonym: b"ringway-0badcafe",
    };

    /// The fields that we add with the ids.
    const IDS: &str = "x-request-id: 5BR00000000000000000000000\r\n\
        traceparent: 00-abc00000000000000000000000000000-0000000000000001-01\r\n";

    /// The fields that we add about the client of a request for host `a`.
    const TOLD: &str = "x-forwarded-for: 192.0.2.1\r\nx-forwarded-proto: http\r\n\
        x-forwarded-host: a\r\nx-forwarded-port: 8080\r\nvia: 1.1 ringway-0badcafe\r\n";

    /// What a backend gets for a request with these lines.
    #[track_caller]
    fn forwarded(line: &str, fields: &str, from: &ForwardedFor<'_>) -> Result<String, Fault> {
        let mut head = parsed(&format!("{line}\r\n{fields}\r\n"));
        let body = framing::request(&head).unwrap();
        assert_eq!(request(&mut head, from, &MadeIds::of(0xabc << 116))?, Forward::Send);
        let mut out = Vec::new();
        write::request(&head, None, body, &mut out);
        // The ids have tests of their own.
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains(IDS), "{out}");
        Ok(out.replace(IDS, ""))
    }

    /// `expected` comes before the fields that we add about the client.
    #[track_caller]
    fn check(fields: &str, expected: &str) {
        let out = forwarded("GET / HTTP/1.1", &format!("Host: a\r\n{fields}"), &FROM);
        let expected = format!("GET / HTTP/1.1\r\nHost: a\r\n{expected}{TOLD}\r\n");
        assert_eq!(out.unwrap(), expected, "{fields}");
    }

    #[test]
    fn what_is_end_to_end_passes_in_its_order() {
        check("", "");
        check("B: 1\r\na: 2\r\nB: 3\r\nb:4\r\n", "B: 1\r\na: 2\r\nB: 3\r\nb: 4\r\n");
        let kept = "Accept: */*\r\nAuthorization: x\r\nCookie: a\r\nCookie: b\r\nVia: 1.0 x\r\n\
            Trailer: x\r\nProxy-Status: z\r\nX-Request-Ids: 1\r\n";
        check(kept, kept);
    }

    /// RFC 9110 §7.6.1.
    #[test]
    fn what_was_said_to_us_alone_goes_no_further() {
        check("Connection: close\r\n", "");
        check("Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n", "");
        check("Proxy-Connection: keep-alive\r\nB: 1\r\nProxy-Authorization: x\r\n", "B: 1\r\n");
        check("Upgrade: websocket\r\n", "");
        check("TE: gzip\r\n", "");
        check("Connection: x-a, X-B\r\nX-A: 1\r\nX-C: 2\r\nx-b: 3\r\nX-A: 4\r\n", "X-C: 2\r\n");
        check("X-A: 1\r\nConnection:\r\nConnection: close ,\tx-a\r\nconnection: y\r\n", "");
        check("Connection: cache-control\r\nCache-Control: no-cache\r\n", "");
        check("Proxy: http://evil/\r\n", "");
    }

    #[test]
    fn connection_cannot_drop_what_someone_behind_us_trusts() {
        for field in ["Authorization: x", "Cookie: x", "Content-Type: x", "Via: 1.1 x"] {
            let name = field.split(':').next().unwrap();
            check(&format!("Connection: {name}\r\n{field}\r\n"), &format!("{field}\r\n"));
        }
        check("Connection: host, x-forwarded-for, forwarded, via\r\n", "");
        let trusted = ForwardedFor { trusted: true, ..FROM };
        let fields = "Host: a\r\nConnection: X-Forwarded-For\r\nX-Forwarded-For: 10.0.0.1\r\n";
        let out = forwarded("GET / HTTP/1.1", fields, &trusted).unwrap();
        assert!(out.contains("\r\nx-forwarded-for: 10.0.0.1, 192.0.2.1\r\n"), "{out}");
        let fields = "Host: a\r\nConnection: content-length\r\nContent-Length: 5\r\n";
        let out = forwarded("POST / HTTP/1.1", fields, &FROM).unwrap();
        assert!(out.ends_with("\r\nContent-Length: 5\r\n\r\n"), "{out}");
    }

    #[test]
    fn a_connection_of_endless_options_is_refused() {
        let fields =
            |options: usize| format!("Host: a\r\nConnection: {}\r\n", "x,".repeat(options));
        assert!(forwarded("GET / HTTP/1.1", &fields(OPTIONS_MAX), &FROM).is_ok());
        let refused = forwarded("GET / HTTP/1.1", &fields(OPTIONS_MAX + 1), &FROM);
        assert_eq!(refused, Err(Cause::BadRequest.into()));
    }

    /// RFC 9110 §10.1.4.
    #[test]
    fn te_goes_on_for_trailers_only() {
        let te = "TE: trailers\r\nConnection: TE\r\n";
        check("TE: trailers\r\n", te);
        check("Connection: TE\r\nTE: gzip, Trailers\r\n", te);
        check("TE: gzip\r\nTE: trailers;q=0.5\r\n", "");
        let out = forwarded("GET / HTTP/1.0", "TE: trailers\r\n", &FROM).unwrap();
        assert!(!out.contains("TE: trailers"), "{out}");
    }

    /// RFC 9110 §7.8.
    #[test]
    fn an_upgrade_goes_on_with_its_own_connection_line() {
        let upgrade = "Upgrade: websocket\r\n";
        let asked = "Connection: keep-alive, Upgrade\r\n";
        check(&format!("{asked}{upgrade}"), &format!("{upgrade}Connection: Upgrade\r\n"));
        let both = "TE: trailers\r\nConnection: Upgrade, TE\r\n";
        check(&format!("{asked}{upgrade}TE: trailers\r\n"), &format!("{upgrade}{both}"));
        check(&format!("{asked}Upgrade: h2c\r\nHTTP2-Settings: x\r\n"), "HTTP2-Settings: x\r\n");
    }

    #[test]
    fn framing_is_ours_to_write() {
        #[track_caller]
        fn check(fields: &str, expected: &str) {
            let fields = format!("Host: a\r\n{fields}B: 1\r\n");
            let out = forwarded("POST / HTTP/1.1", &fields, &FROM).unwrap();
            let start = "POST / HTTP/1.1\r\nHost: a\r\nB: 1\r\n";
            assert_eq!(out, format!("{start}{TOLD}{expected}\r\n"));
        }
        check("", "");
        check("Content-Length:0\r\n", "Content-Length: 0\r\n");
        check("Content-Length: 007\r\n", "Content-Length: 7\r\n");
        check("Transfer-Encoding:  CHUNKED\r\n", "Transfer-Encoding: chunked\r\n");
    }

    /// RFC 9110 §10.1.1.
    #[test]
    fn an_expectation_goes_on_where_it_counts() {
        let fields = "Host: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n";
        let out = forwarded("PUT / HTTP/1.1", fields, &FROM).unwrap();
        assert!(out.contains("\r\nExpect: 100-continue\r\n"), "{out}");
        let out = forwarded("PUT / HTTP/1.0", fields, &FROM).unwrap();
        assert!(!out.contains("Expect"), "{out}");
        check("Expect: 100-continue\r\n", "");
    }

    #[test]
    fn what_an_untrusted_peer_says_about_the_client_is_not_believed() {
        check(
            "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\n\
             X-Forwarded-Port: 1\r\nForwarded: for=b\r\nX-Real-IP: b\r\nX-Forwarded-Server: b\r\n\
             X_Forwarded_For: b\r\nX-REAL_IP: b\r\nX-Forward: kept\r\n",
            "X-Forward: kept\r\n",
        );
    }

    /// CGI and its descendants see these as the same variables.
    #[test]
    fn a_spelling_with_underscores_of_what_we_guard_passes_from_nobody() {
        let trusted = ForwardedFor { trusted: true, ..FROM };
        for name in [
            "Content_Length",
            "TRANSFER_ENCODING",
            "transfer_encoding",
            "Keep_Alive",
            "Proxy_Connection",
            "Proxy_Authorization",
            "Max_Forwards",
            "X_Forwarded_For",
            "X-Forwarded_For",
            "X_Forwarded-Proto",
            "x_forwarded_prefix",
            "X_Real-IP",
            "Client_Cert",
            "Client-Cert_Chain",
        ] {
            let fields = format!("Host: a\r\n{name}: 5\r\nMy_Own: 1\r\nConnection: {name}\r\n");
            for from in [&FROM, &trusted] {
                let out = forwarded("POST / HTTP/1.1", &fields, from).unwrap();
                let expected = format!("POST / HTTP/1.1\r\nHost: a\r\nMy_Own: 1\r\n{TOLD}\r\n");
                assert_eq!(out, expected, "{name}");
            }
        }
    }

    /// RFC 9440 §2.4.
    #[test]
    fn a_certificate_is_believed_of_trusted_peers_alone() {
        let fields = "Client-Cert: :AA==:\r\nClient-Cert-Chain: :AA==:\r\n";
        check(fields, "");
        let trusted = ForwardedFor { trusted: true, ..FROM };
        let out = forwarded("GET / HTTP/1.1", &format!("Host: a\r\n{fields}"), &trusted);
        assert!(out.unwrap().contains(fields));
    }

    #[test]
    fn what_a_trusted_peer_says_about_the_client_stays() {
        let trusted = ForwardedFor { trusted: true, ..FROM };
        let check = |fields: &str, expected: &str| {
            let out = forwarded("GET / HTTP/1.1", &format!("Host: a\r\n{fields}"), &trusted);
            let via = "via: 1.1 ringway-0badcafe\r\n";
            let expected = format!("GET / HTTP/1.1\r\nHost: a\r\n{expected}{via}\r\n");
            assert_eq!(out.unwrap(), expected);
        };
        let rest = "x-forwarded-proto: http\r\nx-forwarded-host: a\r\nx-forwarded-port: 8080\r\n";
        check("", &format!("x-forwarded-for: 192.0.2.1\r\n{rest}"));
        check("X-Forwarded-For: b, c\r\n", &format!("x-forwarded-for: b, c, 192.0.2.1\r\n{rest}"));
        check(
            "X-Forwarded-For: b\r\nx-forwarded-for:\r\nX-FORWARDED-FOR: c,d\r\n",
            &format!("x-forwarded-for: b, c,d, 192.0.2.1\r\n{rest}"),
        );
        let kept = "X-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\nX-Forwarded-Port: 443\r\n\
            X-Real-IP: c\r\nX-Forwarded-Prefix: /d\r\n";
        let listed = "Connection: X-Forwarded-Prefix, X-Real-IP\r\n";
        check(&format!("{listed}{kept}"), &format!("{kept}x-forwarded-for: 192.0.2.1\r\n"));
        check(kept, &format!("{kept}x-forwarded-for: 192.0.2.1\r\n"));
        // Our own port belongs neither to that scheme nor to that host.
        let ours = "x-forwarded-for: 192.0.2.1\r\n";
        let https = "X-Forwarded-Proto: https\r\n";
        check(https, &format!("{https}{ours}x-forwarded-host: a\r\n"));
        let host = "X-Forwarded-Host: b\r\n";
        check(host, &format!("{host}{ours}x-forwarded-proto: http\r\n"));
        // Forwarded is continued if it is present.
        let element = "for=192.0.2.1;host=\"a\";proto=http";
        check(
            "Forwarded: for=b\r\nforwarded: for=\"c,d\"\r\n",
            &format!("{ours}forwarded: for=b, for=\"c,d\", {element}\r\n{rest}"),
        );
        check("Forwarded: for=\"b\r\n", &format!("{ours}forwarded: {element}\r\n{rest}"));
    }

    #[test]
    fn a_client_of_http_1_0_is_named_in_via_and_may_have_no_host() {
        let out = forwarded("GET / HTTP/1.0", "", &FROM).unwrap();
        let expected = "GET / HTTP/1.1\r\nHost: \r\nx-forwarded-for: 192.0.2.1\r\n\
            x-forwarded-proto: http\r\nx-forwarded-port: 8080\r\nvia: 1.0 ringway-0badcafe\r\n\r\n";
        assert_eq!(out, expected);
    }

    /// RFC 9112 §3.2.2.
    #[test]
    fn an_absolute_target_becomes_a_path_and_its_authority_the_host() {
        let out = forwarded("GET http://a/b?c HTTP/1.1", "A: 1\r\nHost: d\r\n", &FROM).unwrap();
        assert_eq!(out, format!("GET /b?c HTTP/1.1\r\nHost: a\r\nA: 1\r\n{TOLD}\r\n"));
    }

    /// RFC 9110 §7.6.3 and interface.md: five times is a loop.
    #[test]
    fn a_request_that_goes_in_circles_is_refused() {
        let via = |times: usize| "Via: 1.1 ringway-0badcafe\r\n".repeat(times);
        check(&via(4), &via(4));
        let refused = |fields: &str| {
            let outcome = forwarded("GET / HTTP/1.1", &format!("Host: a\r\n{fields}"), &FROM);
            assert_eq!(outcome, Err(Cause::Loop.into()), "{fields}");
        };
        refused(&via(5));
        refused(&format!(
            "Via: 1.1 x, {}1.0\tringway-0badcafe (c)\r\n",
            "HTTP/1.1  ringway-0badcafe , ".repeat(4)
        ));
        check(
            &"Via: 1.1 ringway-0badcafes\r\n".repeat(9),
            &"Via: 1.1 ringway-0badcafes\r\n".repeat(9),
        );
    }

    /// RFC 9110 §7.6.2.
    #[test]
    fn max_forwards_counts_down_for_options() {
        let forwards = |line: &str, fields: &str| {
            let mut head = parsed(&format!("{line}\r\nHost: a\r\n{fields}\r\n"));
            let outcome = request(&mut head, &FROM, &MadeIds::default());
            let value = head.headers.first(Name::MaxForwards);
            (outcome, value.map(|value| String::from_utf8(value.to_vec()).unwrap()))
        };
        let sent = |left: &str| (Ok(Forward::Send), Some(left.to_owned()));
        let line = "OPTIONS * HTTP/1.1";
        assert_eq!(forwards(line, "Max-Forwards: 10\r\n"), sent("9"));
        assert_eq!(forwards(line, "Max-Forwards: 1\r\n"), sent("0"));
        assert_eq!(
            forwards(line, "Max-Forwards: 99999999999999999999\r\n"),
            sent("18446744073709551614")
        );
        assert_eq!(forwards(line, ""), (Ok(Forward::Send), None));
        assert_eq!(forwards("GET / HTTP/1.1", "Max-Forwards: 0\r\n"), sent("0"));
        assert_eq!(forwards(line, "Max-Forwards: 0\r\n").0, Ok(Forward::AnswerOptions));
        assert_eq!(forwards(line, "Max-Forwards: 00\r\n").0, Ok(Forward::AnswerOptions));
        for bad in [
            "Max-Forwards:",
            "Max-Forwards: -1",
            "Max-Forwards: x",
            "Max-Forwards: 1, 2",
            "Max-Forwards: 1\r\nMax-Forwards: 1",
        ] {
            let outcome = forwards(line, &format!("{bad}\r\n")).0;
            assert_eq!(outcome, Err(Cause::BadRequest.into()), "{bad}");
        }
    }
}
