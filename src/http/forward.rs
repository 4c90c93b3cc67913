//! What an intermediary changes between its two connections (RFC 9110 §7.6).
//!
//! Hop-by-hop fields out, Via and the fields about the client in, the lines of framing out: those
//! are `write`'s. Everything else passes in its order. Edits mark and append; they are done once
//! for a message, however often it is then written. Framing must have been read before, since the
//! fields it was read from are gone afterwards.

use super::{
    fault::{Cause, Fault},
    framing::BodyLength,
    grammar,
    head::{Method, RequestHead, ResponseHead, Version},
    headers::{Field, Headers, Span},
    names::{self, Name, NameSet},
};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// What a backend is told about where a request came from. All of it text made once: for the
/// process, the listener, or the connection.
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
    /// How we call ourselves in Via, `ringway-XXXXXXXX`.
    pub(crate) pseudonym: &'a [u8],
}

/// What is to be done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forward {
    Send,
    /// OPTIONS that has gone far enough (RFC 9110 §7.6.2): we are its last recipient.
    AnswerOptions,
}

/// What a backend is not to see of any request, since it was said to us alone (RFC 9110 §7.6.1),
/// or is ours to say (the lines of framing).
const HOP_BY_HOP: NameSet = NameSet::of(&[
    Name::Connection,
    Name::ContentLength,
    Name::KeepAlive,
    Name::ProxyAuthenticate,
    Name::ProxyAuthorization,
    Name::ProxyConnection,
    Name::Te,
    Name::TransferEncoding,
]);

/// What no `Connection` can have us drop: fields that someone behind us trusts, and those that the
/// rules below decide about (`Connection: X-Forwarded-For` is a known attack).
const PROTECTED: NameSet = names::ABOUT_CLIENT.union(NameSet::of(&[
    Name::Authorization,
    Name::Connection,
    Name::ContentLength,
    Name::ContentType,
    Name::Cookie,
    Name::Expect,
    Name::Host,
    Name::SetCookie,
    Name::Te,
    Name::Traceparent,
    Name::Upgrade,
    Name::Via,
    Name::XRequestId,
]));

/// Own entries in Via at which a request is going round in circles. More than one, since two
/// listeners of one process may well be passed in a row.
const VISITS_MAX: usize = 5;

/// More options than any honest `Connection` has: each costs a look at every field.
const OPTIONS_MAX: usize = 64;

/// Turns a client's request into the one a backend gets.
pub(crate) fn request(head: &mut RequestHead, from: &ForwardedFor<'_>) -> Result<Forward, Fault> {
    let present = present(&head.headers);
    if present.contains(Name::Via) && visits(&head.headers, from.pseudonym) >= VISITS_MAX {
        return Err(Cause::Loop.into());
    }
    if present.contains(Name::MaxForwards) && head.method == Method::Options {
        match forwards_left(&mut head.headers)? {
            Forward::Send => {}
            Forward::AnswerOptions => return Ok(Forward::AnswerOptions),
        }
    }
    if present.contains(Name::Connection) {
        drop_listed(&mut head.headers, Cause::BadRequest)?;
    }
    let takes_trailers = present.contains(Name::Te) && takes_trailers(head);
    let mut dropped = HOP_BY_HOP;
    if !head.upgrade {
        dropped = dropped.with(Name::Upgrade);
    }
    if !head.expects_continue {
        dropped = dropped.with(Name::Expect);
    }
    if !from.trusted {
        dropped = dropped.union(names::ABOUT_CLIENT);
    }
    drop_set(&mut head.headers, dropped, |name| {
        (!from.trusted && names::claims_client(name)) || name.eq_ignore_ascii_case(b"proxy")
    });
    if takes_trailers {
        head.headers.push(Name::Te, b"te", b"trailers");
    }
    match (head.upgrade, takes_trailers) {
        (true, true) => head.headers.push(Name::Connection, b"connection", b"upgrade, te"),
        (true, false) => head.headers.push(Name::Connection, b"connection", b"upgrade"),
        (false, true) => head.headers.push(Name::Connection, b"connection", b"te"),
        (false, false) => {}
    }
    tell_about_client(head, from, present);
    Ok(Forward::Send)
}

/// The names that stand in a head.
fn present(headers: &Headers) -> NameSet {
    headers.iter().fold(NameSet::default(), |set, field| set.with(field.known))
}

/// Takes out a set of names, and of the unknown ones those that `also` says. (`Proxy` is among
/// them because it is `HTTP_PROXY` to CGI and its heirs.)
fn drop_set(headers: &mut Headers, dropped: NameSet, also: impl Fn(&[u8]) -> bool) {
    let Headers { bytes, fields } = headers;
    for field in fields {
        if field.known == Name::Other {
            field.removed |= also(field.name.of(bytes));
        } else {
            field.removed |= dropped.contains(field.known);
        }
    }
}

/// Takes out the fields that `Connection` names (RFC 9110 §7.6.1), but for the protected.
fn drop_listed(headers: &mut Headers, broken: Cause) -> Result<(), Fault> {
    let Headers { bytes, fields } = headers;
    let mut options = 0;
    for at in 0..fields.len() {
        let Some(field) = fields.get(at).filter(|field| field.known == Name::Connection) else {
            continue;
        };
        for option in grammar::list(field.value.of(bytes)) {
            options += 1;
            if options > OPTIONS_MAX {
                return Err(broken.into());
            }
            let known = Name::of(option);
            if PROTECTED.contains(known) {
                continue;
            }
            for field in fields.iter_mut().filter(|field| field.known == known) {
                field.removed |=
                    known != Name::Other || field.name.of(bytes).eq_ignore_ascii_case(option);
            }
        }
    }
    Ok(())
}

/// Whether the client takes trailers (RFC 9110 §10.1.4); other codings of TE end here.
fn takes_trailers(head: &RequestHead) -> bool {
    let mut codings = head.headers.all(Name::Te).flat_map(grammar::list);
    head.version == Version::Http11 && codings.any(|c| c.eq_ignore_ascii_case(b"trailers"))
}

/// How often a request has passed us (RFC 9110 §7.6.3: `version received-by comment`).
fn visits(headers: &Headers, pseudonym: &[u8]) -> usize {
    let received_by = |member: &&[u8]| {
        let mut words = member.split(|byte| matches!(byte, b' ' | b'\t')).filter(|w| !w.is_empty());
        words.nth(1) == Some(pseudonym)
    };
    headers.all(Name::Via).flat_map(grammar::list).filter(received_by).count()
}

/// Counts Max-Forwards down (RFC 9110 §7.6.2).
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

/// Says who asked, how, for which host, and through whom. What a trusted peer has said stays; the
/// chain of addresses grows by that peer.
fn tell_about_client(head: &mut RequestHead, from: &ForwardedFor<'_>, present: NameSet) {
    let told = |name| from.trusted && present.contains(name);
    let headers = &mut head.headers;
    if told(Name::XForwardedFor) {
        append_to_list(headers, Name::XForwardedFor, b"x-forwarded-for", from.peer);
    } else {
        headers.push(Name::XForwardedFor, b"x-forwarded-for", from.peer);
    }
    if !told(Name::XForwardedProto) {
        headers.push(Name::XForwardedProto, b"x-forwarded-proto", from.scheme);
    }
    if !told(Name::XForwardedHost) && head.authority.len > 0 {
        let authority = head.authority.start as usize..head.authority.end();
        headers.push_with(Name::XForwardedHost, b"x-forwarded-host", |out| {
            copy_within(out, authority);
        });
    }
    if !told(Name::XForwardedPort) {
        headers.push(Name::XForwardedPort, b"x-forwarded-port", from.port);
    }
    // RFC 9110 §7.6.3: the version is that of the message as received.
    let version: &[u8] = match head.version {
        Version::Http10 => b"1.0 ",
        Version::Http11 => b"1.1 ",
    };
    headers.push_with(Name::Via, b"via", |out| {
        out.extend_from_slice(version);
        out.extend_from_slice(from.pseudonym);
    });
}

/// Makes one line of all lines of a list and adds a member: there are readers of the first line
/// only, and of the last line only.
fn append_to_list(headers: &mut Headers, known: Name, name: &[u8], member: &[u8]) {
    let Headers { bytes, fields } = headers;
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
    bytes.extend_from_slice(member);
    let end = bytes.len();
    bytes.extend_from_slice(b"\r\n");
    let (name, value) = (Span::new(start, value - 2), Span::new(value, end));
    fields.push(Field { known, removed: false, canonical: true, name, value });
}

fn copy_within(bytes: &mut Vec<u8>, range: std::ops::Range<usize>) {
    if range.end <= bytes.len() {
        bytes.extend_from_within(range);
    }
}

/// More proxies in a row than anyone has.
const CHAIN_MAX: usize = 64;

/// The client's address: from the immediate peer on, the first that is not a trusted proxy. Each
/// trusted one vouches for the entry before it in X-Forwarded-For, and for no more; where an entry
/// cannot be read the last good one stands.
pub(crate) fn client_address(head: &RequestHead, peer: IpAddr, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    let mut client = peer.to_canonical();
    if !is_trusted(&client) {
        return client;
    }
    let lines = head.headers.fields.iter().rev();
    let lines = lines.filter(|field| field.known == Name::XForwardedFor && !field.removed);
    let entries = lines.flat_map(|field| grammar::list(head.headers.value(field)).rev());
    for entry in entries.take(CHAIN_MAX) {
        let Some(address) = address(entry) else { break };
        client = address;
        if !is_trusted(&client) {
            break;
        }
    }
    client
}

/// An address with or without a port, IPv6 with or without brackets.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(entry).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = match bare {
        Some(bare) => IpAddr::V6(bare.parse().ok()?),
        None => match text.parse::<IpAddr>() {
            Ok(address) => address,
            Err(_) => text.parse::<SocketAddr>().ok()?.ip(),
        },
    };
    Some(address.to_canonical())
}

/// What an answer must know of whom it goes to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ToClient<'a> {
    /// Of the request.
    pub(crate) method: Method,
    pub(crate) version: Version,
    /// Whether we are ready to keep the client's connection.
    pub(crate) keep_alive: bool,
    /// The value of Date where the backend sent none.
    pub(crate) date: &'a [u8],
}

/// How an answer leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// For `write`: how the body is framed on the way to the client.
    pub(crate) body: BodyLength,
    /// Whether the client has been told that its connection stays.
    pub(crate) keep_alive: bool,
}

/// Turns a backend's response, whose body has this length, into the one a client gets. That a 101
/// is allowed has been asked before (`upgrade`).
pub(crate) fn response(
    head: &mut ResponseHead,
    body: BodyLength,
    to: &ToClient<'_>,
) -> Result<Reply, Fault> {
    let present = present(&head.headers);
    if present.contains(Name::Connection) {
        drop_listed(&mut head.headers, Cause::BackendProtocol)?;
    }
    // Where there is no body its length is only spoken of: to HEAD and in 304 it may be, in 1xx and
    // 204 it must not (RFC 9110 §8.6), and `framing` has seen that it is one number.
    let spoken_of = body == BodyLength::None && (head.status == 304 || to.method == Method::Head);
    let headless = matches!(head.status, 100..=199 | 204);
    let switching = head.status == 101;
    let Headers { fields, .. } = &mut head.headers;
    for field in fields {
        let kept = match field.known {
            Name::ContentLength => spoken_of && !headless,
            Name::Upgrade => switching,
            known => !HOP_BY_HOP.contains(known),
        };
        field.removed |= !kept;
    }
    if switching {
        head.headers.push(Name::Connection, b"connection", b"upgrade");
        return Ok(Reply { body: BodyLength::None, keep_alive: to.keep_alive });
    }
    if head.status < 200 {
        return Ok(Reply { body: BodyLength::None, keep_alive: to.keep_alive });
    }
    if !present.contains(Name::Date) {
        head.headers.push(Name::Date, b"date", to.date); // RFC 9110 §6.6.1
    }
    let reply = reply(body, to);
    match (reply.keep_alive, to.version) {
        (false, _) => head.headers.push(Name::Connection, b"connection", b"close"),
        (true, Version::Http10) => {
            head.headers.push(Name::Connection, b"connection", b"keep-alive");
        }
        (true, Version::Http11) => {}
    }
    Ok(reply)
}

/// How a final answer's body goes on: of unknown length in chunks, but to HTTP/1.0, which knows no
/// chunks, until we close (RFC 9112 §6.1).
fn reply(body: BodyLength, to: &ToClient<'_>) -> Reply {
    match (body, to.version) {
        (BodyLength::Chunked | BodyLength::UntilClose, Version::Http10) => {
            Reply { body: BodyLength::UntilClose, keep_alive: false }
        }
        (BodyLength::Chunked | BodyLength::UntilClose, Version::Http11) => {
            Reply { body: BodyLength::Chunked, keep_alive: to.keep_alive }
        }
        (BodyLength::None | BodyLength::Fixed(_), _) => Reply { body, keep_alive: to.keep_alive },
    }
}
