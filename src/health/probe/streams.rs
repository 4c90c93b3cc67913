//! Probes over HTTP/2: a GET, or the question of `grpc.health.v1`, each on a connection of its own.
//!
//! The answer is read by the code that reads answers for clients. A backend of gRPC is up if it
//! says SERVING; that it does not know the service, or the question, is no yes.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use memchr::memmem;

use super::{Limits, Secure};
use crate::base::moment::Deadline;
use crate::conns::{Means, alone};
use crate::http::{
    fault::{Cause, Fault},
    framing::{self, BodyLength},
    head::{RequestHead, ResponseHead},
    headers::Headers,
    parse::{self, HeadLimits, Parse},
};
use crate::net::{
    buffer::Buffers,
    clock::Clock,
    deadlines::{Deadlines, Watch},
    fd::Socket,
    io::{ended_by, sleep},
    leaving::Leaves,
    stream::Stream,
    tls::{self, NoTls, ToBackend},
};
use crate::plan::{Backend, GrpcProbe, HttpProbe, Statuses};
use crate::policy::health::ProbeFault;
use crate::proto::{self, Arriving, Asking};
use crate::shared::counters::Slab;

/// Bytes of the answer's body that are looked at.
const BODY_MAX: usize = 64 << 10;

/// Interim responses that may come before the answer, as in any exchange.
const INTERIM_MAX: usize = 32;

/// The request, and the expected answer.
pub(in crate::health) struct Ask {
    head: RequestHead,
    length: BodyLength,
    body: Vec<u8>,
    limits: HeadLimits,
    expects: Expects,
}

enum Expects {
    /// One of these statuses, and this text in the body.
    Status(Statuses, Option<String>),
    /// SERVING.
    Serving,
}

/// What came.
struct Came {
    head: ResponseHead,
    body: Vec<u8>,
    trailers: Option<Box<Headers>>,
}

impl Ask {
    /// A GET.
    ///
    /// # Errors
    /// A sentence, if it cannot be sent.
    pub(super) fn http(
        probe: &HttpProbe,
        backend: &Backend,
        limits: HeadLimits,
    ) -> Result<Ask, String> {
        let host = probe.host.clone().unwrap_or_else(|| backend.authority());
        let mut text = format!("GET {} HTTP/1.1\r\nhost: {host}\r\n", probe.path);
        text.push_str("user-agent: ringway\r\n");
        for (name, value) in &probe.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        let expects = Expects::Status(probe.statuses.clone(), probe.body.clone());
        Ask::new(text, Vec::new(), (limits, expects))
    }

    /// The question of `grpc.health.v1`.
    ///
    /// # Errors
    /// A sentence, if it cannot be sent.
    pub(super) fn grpc(
        probe: &GrpcProbe,
        backend: &Backend,
        limits: HeadLimits,
    ) -> Result<Ask, String> {
        let host = probe.host.clone().unwrap_or_else(|| backend.authority());
        let body = question(&probe.service);
        let text = format!(
            "POST /grpc.health.v1.Health/Check HTTP/1.1\r\nhost: {host}\r\nte: trailers\r\n\
             content-type: application/grpc\r\nuser-agent: ringway\r\ncontent-length: {}\r\n",
            body.len()
        );
        Ask::new(text, body, (limits, Expects::Serving))
    }

    fn new(
        mut text: String,
        body: Vec<u8>,
        (limits, expects): (HeadLimits, Expects),
    ) -> Result<Ask, String> {
        text.push_str("\r\n");
        let mut head = RequestHead::default();
        let parsed = parse::request(text.as_bytes(), &limits, &mut head);
        let length = framing::request(&head);
        let (Ok(Parse::Done { .. }), Ok(length)) = (parsed, length) else {
            return Err(format!("a probe cannot send {text:?}"));
        };
        Ok(Ask { head, length, body, limits, expects })
    }

    fn judge(&self, came: &Came) -> Result<(), ProbeFault> {
        match &self.expects {
            Expects::Status(statuses, text) => {
                if !statuses.contains(came.head.status) {
                    return Err(ProbeFault::Status(came.head.status));
                }
                let has = |text: &String| memmem::find(&came.body, text.as_bytes()).is_some();
                if text.as_ref().is_none_or(has) { Ok(()) } else { Err(ProbeFault::Body) }
            }
            Expects::Serving => is_serving(came),
        }
    }
}

/// The message of the question: its length in front, the service as field 1.
fn question(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        push_varint(service.len(), &mut message);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(&message);
    framed
}

fn push_varint(mut number: usize, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Whether the answer says SERVING (1).
fn is_serving(came: &Came) -> Result<(), ProbeFault> {
    if came.head.status != 200 {
        return Err(ProbeFault::Status(came.head.status));
    }
    let of = |headers: &Headers| {
        let status = headers.named(b"grpc-status").next()?;
        std::str::from_utf8(status).ok()?.parse::<u16>().ok()
    };
    let status = came.trailers.as_deref().and_then(of).or_else(|| of(&came.head.headers));
    match status {
        Some(0) => {}
        Some(status) => return Err(ProbeFault::Grpc(status)),
        None => return Err(ProbeFault::Protocol),
    }
    // Not compressed, its length, and field 1, which is left out if it is 0.
    match came.body.get(..1).zip(came.body.get(5..)) {
        Some(([0], [0x08, 1, ..])) => Ok(()),
        Some(([0], [] | [0x08, ..])) => Err(ProbeFault::NotServing),
        _ => Err(ProbeFault::Protocol),
    }
}

/// Asks on a new connection, through TLS if the backend speaks it; none if the thread ended
/// meanwhile.
pub(super) async fn judge(
    ask: &Ask,
    stream: Socket,
    limits: Limits<'_>,
    secure: Option<&Secure>,
) -> Option<Result<(), ProbeFault>> {
    let end = async {
        limits.ending.or(limits.hurried.or(sleep(limits.time))).await;
    };
    // Nobody sweeps these: the end above does.
    let clock = Rc::new(Clock::new());
    let deadlines = Deadlines::new(Rc::clone(&clock));
    let stream = Stream::new(stream, |fd| deadlines.watch(fd, Watch::Backend));
    let fd = stream.raw();
    match ended_by(end, fd, exchange(ask, stream, (&clock, &deadlines), secure)).await {
        Some(verdict) => Some(verdict),
        None if limits.ending.is_raised() => None,
        None => Some(Err(ProbeFault::Timeout)),
    }
}

async fn exchange(
    ask: &Ask,
    mut stream: Stream,
    (clock, deadlines): (&Rc<Clock>, &Rc<Deadlines>),
    secure: Option<&Secure>,
) -> Result<(), ProbeFault> {
    let buffers = Buffers::new(2);
    if let Some(Secure { back, host }) = secure {
        let to = ToBackend::new(back, host).ok_or(ProbeFault::Tls)?;
        let shaken = tls::connect(&mut stream, &to, &buffers, Deadline::NEVER).await;
        let agreed = shaken.map_err(|no_tls| match no_tls {
            NoTls::Ended(_) | NoTls::Left => ProbeFault::Reset,
            NoTls::PlainHttp | NoTls::Failed(_) => ProbeFault::Tls,
        })?;
        if agreed.alpn.as_deref() != Some(b"h2") {
            return Err(ProbeFault::Protocol);
        }
    }
    let means = Rc::new(Means {
        buffers,
        counters: Slab::new(),
        tls: RefCell::default(),
        head_limits: Cell::new(ask.limits),
    });
    let scheme: &[u8] = if secure.is_some() { b"https" } else { b"http" };
    let watched = deadlines.watch(-1, Watch::Stream);
    let client = watched.waits_as_stream(Leaves::Reset);
    let asks = async |backend: &mut proto::Backend| {
        let asking = Asking {
            head: &ask.head,
            host: None,
            length: ask.length,
            before: None,
            held: Some(&ask.body),
            body_follows: false,
        };
        backend.begin(false);
        backend.ask(&asking, &mut Vec::new(), || Deadline::NEVER).await?;
        let (mut arriving, mut head) = (Arriving::new(false), ResponseHead::default());
        let bounds = (&Cell::new(Deadline::NEVER), &Cell::new(client));
        for _ in 0..=INTERIM_MAX {
            let into = (&mut head, &mut Vec::new());
            backend.head(&mut arriving, into, (&ask.limits, &means.buffers), bounds).await?;
            if head.status >= 200 {
                return body(backend, arriving, (head, ask.length), ask.limits).await;
            }
        }
        Err(Cause::ResponseRefused.into())
    };
    let came = alone((stream, scheme), (&means, clock, deadlines), asks).await;
    came.map_err(|fault| fault_of(fault.cause)).and_then(|came| ask.judge(&came))
}

/// Reads the body, as much of it as is looked at, and what follows it.
async fn body(
    backend: &mut proto::Backend,
    arriving: Arriving,
    (head, length): (ResponseHead, BodyLength),
    limits: HeadLimits,
) -> Result<Came, Fault> {
    let mut came = Came { head, body: Vec::new(), trailers: None };
    let source = backend.source(arriving, (&came.head, length), limits);
    let Some(mut source) = source else { return Err(Cause::Internal.into()) };
    while came.body.len() < BODY_MAX {
        let piece = source.next(|| (Deadline::NEVER, None)).await?;
        came.body.extend_from_slice(piece.bytes());
        let ends = piece.ends();
        came.trailers = piece.trailers().map(|trailers| Box::new(trailers.clone()));
        source.done(piece);
        if ends {
            break;
        }
    }
    came.body.truncate(BODY_MAX);
    Ok(came)
}

/// What a fault says about the backend.
fn fault_of(cause: Cause) -> ProbeFault {
    match cause {
        Cause::BackendSecure => ProbeFault::Tls,
        Cause::BackendOldHttp
        | Cause::BackendProtocol
        | Cause::ResponseRefused
        | Cause::ResponseHeadTooLarge => ProbeFault::Protocol,
        _ => ProbeFault::Reset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn came(status: &str, body: &[u8]) -> Came {
        let mut head = ResponseHead { status: 200, ..ResponseHead::default() };
        if !status.is_empty() {
            head.headers.push(crate::http::names::Name::Other, b"grpc-status", status.as_bytes());
        }
        Came { head, body: body.to_vec(), trailers: None }
    }

    /// The messages of `grpc.health.v1`, by their encoding.
    #[test]
    fn a_backend_of_grpc_is_up_if_it_says_serving_and_only_then() {
        assert_eq!(question(""), [0, 0, 0, 0, 0]);
        assert_eq!(question("a.B"), *b"\0\0\0\0\x05\x0a\x03a.B");
        let long = question(&"x".repeat(200));
        assert_eq!((long.len(), &long[..8]), (5 + 203, &b"\0\0\0\0\xcb\x0a\xc8\x01"[..]));
        for (status, body, expected) in [
            ("0", &b"\0\0\0\0\x02\x08\x01"[..], Ok(())),
            ("0", b"\0\0\0\0\x02\x08\x02", Err(ProbeFault::NotServing)),
            ("0", b"\0\0\0\0\x02\x08\x03", Err(ProbeFault::NotServing)),
            ("0", b"\0\0\0\0\0", Err(ProbeFault::NotServing)),
            ("0", b"", Err(ProbeFault::Protocol)),
            ("0", b"\x01\0\0\0\x02\x08\x01", Err(ProbeFault::Protocol)),
            ("12", b"", Err(ProbeFault::Grpc(12))),
            ("x", b"\0\0\0\0\x02\x08\x01", Err(ProbeFault::Protocol)),
            ("", b"\0\0\0\0\x02\x08\x01", Err(ProbeFault::Protocol)),
        ] {
            assert_eq!(is_serving(&came(status, body)), expected, "{status} {body:?}");
        }
    }
}
