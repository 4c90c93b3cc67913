//! HTTP probe: a GET, and a check of the answer (RFC 9110 §9.3.1).
//!
//! The answer is read by the code that reads answers for clients: the same parser with the same
//! limits, the same framing rules, the same decoder of bodies. So a backend is up only if a client
//! would get such an answer. monoio-http writes the request.

use std::{io, rc::Rc};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::{CONNECTION, HOST, USER_AGENT},
};
use memchr::memmem;
use monoio::{
    BufResult,
    buf::{IoBuf, IoVecBuf},
    io::{AsyncWriteRent, sink::SinkExt},
};
use monoio_http::h1::{codec::encoder::GenericEncoder, payload::Payload};

use super::{Limits, Secure};
use crate::base::moment::Deadline;
use crate::http::{
    fault::Cause,
    framing::{self, BodyLength},
    head::{self, ResponseHead},
    parse::{self, HeadLimits, Parse},
};
use crate::net::{
    buffer::{Buffer, Buffers},
    clock::Clock,
    deadlines::{Deadlines, Watch},
    fd::{self, Socket},
    io::{ended_by, sleep},
    stream::Stream,
    tls::{self, NoTls, ToBackend},
};
use crate::plan::{Backend, HttpProbe, Statuses};
use crate::policy::health::ProbeFault;
use crate::proto::h1::Incoming;

/// Bytes of the answer's body that are searched.
const BODY_MAX: usize = 64 * 1024;

/// Interim responses that may come before the answer, as in any exchange.
const INTERIM_MAX: usize = 32;

/// The request, and the expected answer.
pub(in crate::health) struct Ask {
    target: Uri,
    fields: HeaderMap,
    limits: HeadLimits,
    statuses: Statuses,
    body: Option<String>,
}

impl Ask {
    /// For one backend, with these limits on heads.
    ///
    /// # Errors
    /// A sentence, if the configured request cannot be sent.
    pub(super) fn new(
        probe: &HttpProbe,
        backend: &Backend,
        limits: HeadLimits,
    ) -> Result<Ask, String> {
        let target = Uri::try_from(&probe.path)
            .map_err(|error| format!("a probe cannot ask for {:?}: {error}", probe.path))?;
        let host = probe.host.clone().unwrap_or_else(|| backend.authority());
        let mut fields = HeaderMap::new();
        fields.insert(USER_AGENT, HeaderValue::from_static("ringway"));
        for (name, value) in &probe.headers {
            let name = HeaderName::try_from(name)
                .map_err(|error| format!("a probe cannot send the field {name:?}: {error}"))?;
            fields.insert(name, field_value(value)?);
        }
        fields.insert(HOST, field_value(&host)?);
        fields.insert(CONNECTION, HeaderValue::from_static("close"));
        let (statuses, body) = (probe.statuses.clone(), probe.body.clone());
        Ok(Ask { target, fields, limits, statuses, body })
    }

    fn request(&self) -> Request<Payload> {
        let mut request = Request::new(Payload::None);
        *request.method_mut() = Method::GET;
        *request.uri_mut() = self.target.clone();
        *request.version_mut() = Version::HTTP_11;
        request.headers_mut().clone_from(&self.fields);
        request
    }
}

fn field_value(value: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_bytes(value.as_bytes())
        .map_err(|error| format!("a probe cannot send the value {value:?}: {error}"))
}

/// Asks on a new connection, through TLS if the backend speaks it; none if the thread ended
/// meanwhile, or memory ran out.
pub(super) async fn judge(
    ask: &Ask,
    stream: Socket,
    limits: Limits<'_>,
    secure: Option<&Secure>,
) -> Option<Result<(), ProbeFault>> {
    let buffers = Buffers::new(1);
    let buffer = buffers.take().ok()?;
    let end = async {
        limits.ending.or(limits.hurried.or(sleep(limits.time))).await;
    };
    // Nobody sweeps these: the end above does.
    let deadlines = Deadlines::new(Rc::new(Clock::new()));
    let stream = Stream::new(stream, |fd| deadlines.watch(fd, Watch::Backend));
    let fd = stream.raw();
    match ended_by(end, fd, exchange(ask, stream, (buffers, buffer), secure)).await {
        Some(verdict) => Some(verdict),
        None if limits.ending.is_raised() => None,
        None => Some(Err(ProbeFault::Timeout)),
    }
}

async fn exchange(
    ask: &Ask,
    mut stream: Stream,
    (buffers, buffer): (Rc<Buffers>, Buffer),
    secure: Option<&Secure>,
) -> Result<(), ProbeFault> {
    if let Some(Secure { back, host }) = secure {
        let to = ToBackend::new(back, host).ok_or(ProbeFault::Tls)?;
        let shaken = tls::connect(&mut stream, &to, &buffers, Deadline::NEVER).await;
        shaken.map_err(|no_tls| match no_tls {
            NoTls::Ended(_) | NoTls::Left => ProbeFault::Reset,
            NoTls::PlainHttp | NoTls::Failed(_) => ProbeFault::Tls,
        })?;
    }
    let mut written = Written::default();
    let mut encoder = GenericEncoder::new(&mut written);
    encoder.send_and_flush(ask.request()).await.map_err(|_| ProbeFault::Reset)?;
    let sent = stream.send_all(&written.0, false, || Deadline::NEVER).await;
    sent.map_err(|_| ProbeFault::Reset)?;
    let mut answer = Answer { stream, buffer, limits: ask.limits };
    let mut head = answer.head().await?;
    if !ask.statuses.contains(head.status) {
        return Err(ProbeFault::Status(head.status));
    }
    let length =
        framing::response(head::Method::Get, &mut head).map_err(|_| ProbeFault::Protocol)?;
    match &ask.body {
        Some(text) => answer.expect_in_body(length, text.as_bytes()).await,
        None => Ok(()),
    }
}

/// The answer so far, and the bytes that have come and were not parsed.
struct Answer {
    stream: Stream,
    buffer: Buffer,
    limits: HeadLimits,
}

impl Answer {
    /// The first head that is not interim (RFC 9110 §15.2). None follows a 101.
    async fn head(&mut self) -> Result<ResponseHead, ProbeFault> {
        let mut head = ResponseHead::default();
        for _ in 0..=INTERIM_MAX {
            self.next_head(&mut head).await?;
            if !matches!(head.status, 100 | 102..=199) {
                return Ok(head);
            }
        }
        Err(ProbeFault::Protocol)
    }

    async fn next_head(&mut self, head: &mut ResponseHead) -> Result<(), ProbeFault> {
        loop {
            if !self.buffer.is_empty() {
                let parsed = parse::response(self.buffer.bytes(), &self.limits, head);
                if let Parse::Done { used } = parsed.map_err(|_| ProbeFault::Protocol)? {
                    self.buffer.consume(used);
                    return Ok(());
                }
            }
            if self.more().await? == 0 {
                return Err(ProbeFault::Reset);
            }
        }
    }

    /// Reads until the text is found, or cannot be found any more.
    async fn expect_in_body(&mut self, length: BodyLength, text: &[u8]) -> Result<(), ProbeFault> {
        let mut body = Incoming::of_response(length, self.limits);
        let mut seen = Vec::new();
        loop {
            // The text may begin in one piece and end in the next.
            let from = seen.len().saturating_sub(text.len());
            let part = body.next(&mut self.buffer).map_err(|_| ProbeFault::Protocol)?;
            seen.extend_from_slice(self.buffer.bytes().get(..part.body).unwrap_or_default());
            self.buffer.consume(part.consumed);
            seen.truncate(BODY_MAX);
            if memmem::find(seen.get(from..).unwrap_or_default(), text).is_some() {
                return Ok(());
            }
            if part.ended || seen.len() >= BODY_MAX {
                return Err(ProbeFault::Body);
            }
            if self.more().await? == 0 {
                let whole = body.end_of_stream(Cause::ResponseIncomplete).is_ok();
                return Err(if whole { ProbeFault::Body } else { ProbeFault::Reset });
            }
        }
    }

    /// Reads what comes next; 0 = the end.
    async fn more(&mut self) -> Result<usize, ProbeFault> {
        self.buffer.rewind();
        if self.buffer.room_len() == 0 {
            return Err(ProbeFault::Protocol);
        }
        let read = self.stream.recv(&mut self.buffer, Deadline::NEVER).await;
        read.map_err(|_| ProbeFault::Reset)
    }
}

/// What monoio-http has written.
#[derive(Default)]
struct Written(Vec<u8>);

impl AsyncWriteRent for Written {
    async fn write<T: IoBuf>(&mut self, piece: T) -> BufResult<usize, T> {
        let bytes = fd::bytes_of(&piece);
        self.0.extend_from_slice(bytes);
        (Ok(bytes.len()), piece)
    }

    async fn writev<T: IoVecBuf>(&mut self, pieces: T) -> BufResult<usize, T> {
        (Err(io::ErrorKind::Unsupported.into()), pieces)
    }

    async fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        Ok(())
    }
}
