//! Head → bytes, in the one form that we send.
//!
//! `forward` has decided which lines there are; here they are only written. Lines that nobody
//! touched and that stood in canonical form are copied in runs. The line of the body's length is
//! always ours.
//!
//! Both heads say HTTP/1.1 to whomever they go: a version is that of the sender on this connection,
//! not of the peer, and a peer of HTTP/1.0 reads it as such (RFC 9110 §2.5, RFC 9112 §2.3). What a
//! 1.0 peer must not get (chunks, interim responses) is kept from it elsewhere.

use super::{
    framing::BodyLength,
    grammar,
    head::{RequestHead, ResponseHead, TargetForm},
    headers::{Field, Headers},
    names::{Name, NameSet},
};

/// Appends a request as it goes to a backend. `host` replaces Host; without it Host stays as it
/// came, but is rebuilt from the target where that was absolute (RFC 9112 §3.2.2) and is empty
/// where an HTTP/1.0 client gave none.
pub(crate) fn request(
    head: &RequestHead,
    host: Option<&[u8]>,
    body: BodyLength,
    out: &mut Vec<u8>,
) {
    // Room for the line and the length beside what stands in the head.
    out.reserve(head.headers.bytes.len() + 64 + host.map_or(0, <[u8]>::len));
    out.extend_from_slice(head.bytes(head.method_span));
    out.push(b' ');
    out.extend_from_slice(head.bytes(head.target));
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let rebuilt = head.form == TargetForm::Absolute || head.authority.len == 0;
    let host = host.or(rebuilt.then(|| head.bytes(head.authority)));
    let mut skip = NameSet::default();
    if let Some(host) = host {
        line(b"host: ", host, out);
        skip = skip.with(Name::Host);
    }
    fields(&head.headers, skip, out);
    length(body, out);
    out.extend_from_slice(b"\r\n");
}

/// Appends a response as it goes to a client.
pub(crate) fn response(head: &ResponseHead, body: BodyLength, out: &mut Vec<u8>) {
    out.reserve(head.headers.bytes.len() + 64);
    out.extend_from_slice(b"HTTP/1.1 ");
    let digit = |place: u16| b'0' + (head.status / place % 10) as u8;
    out.extend_from_slice(&[digit(100), digit(10), digit(1), b' ']);
    out.extend_from_slice(head.reason.of(&head.headers.bytes));
    out.extend_from_slice(b"\r\n");
    fields(&head.headers, NameSet::default(), out);
    length(body, out);
    out.extend_from_slice(b"\r\n");
}

/// The line that says how long the body is (RFC 9112 §6).
fn length(body: BodyLength, out: &mut Vec<u8>) {
    match body {
        BodyLength::None | BodyLength::UntilClose => {}
        BodyLength::Fixed(length) => {
            out.extend_from_slice(b"content-length: ");
            grammar::push_decimal(length, out);
            out.extend_from_slice(b"\r\n");
        }
        BodyLength::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
}

/// Appends all lines in order but those of the names to skip: neighbours in canonical form in one
/// copy.
pub(crate) fn fields(headers: &Headers, skip: NameSet, out: &mut Vec<u8>) {
    let mut run = 0..0;
    for field in headers.iter().filter(|field| !skip.contains(field.known)) {
        let start = field.name.start as usize;
        if !field.canonical || start != run.end {
            out.extend_from_slice(headers.bytes.get(run).unwrap_or_default());
            run = start..start;
        }
        if field.canonical {
            run.end = field.value.end() + 2;
        } else {
            rebuilt(headers, field, out);
        }
    }
    out.extend_from_slice(headers.bytes.get(run).unwrap_or_default());
}

/// A line that came with other spaces than ours.
fn rebuilt(headers: &Headers, field: &Field, out: &mut Vec<u8>) {
    out.extend_from_slice(headers.name(field));
    line(b": ", headers.value(field), out);
}

fn line(start: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(start);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
