//! HTTP probe: a GET, and a check of the answer (RFC 9110 §9.3.1).
//!
//! The answer is read by the code that reads answers for clients: the same parser with the same
//! limits, the same framing rules, the same decoder of bodies. So a backend is up only if a client
//! would get such an answer. monoio-http writes the request.

use std::os::fd::AsRawFd;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::{CONNECTION, HOST, USER_AGENT},
};
use memchr::memmem;
use monoio::{
    io::{AsyncReadRent, Splitable, sink::SinkExt},
    net::{TcpStream, tcp::TcpOwnedReadHalf},
};
use monoio_http::h1::{codec::encoder::GenericEncoder, payload::Payload};

use super::Limits;
use crate::http::{
    fault::Cause,
    framing::{self, BodyLength},
    head::{self, ResponseHead},
    parse::{self, HeadLimits, Parse},
};
use crate::net::{
    buffer::{Buffer, Buffers},
    io::{ended_by, sleep},
};
use crate::plan::{Backend, HttpProbe, Statuses};
use crate::policy::health::ProbeFault;
use crate::proto::h1::Incoming;

/// Bytes of the answer's body that are searched.
const BODY_MAX: usize = 64 * 1024;

/// Interim responses that may come before the answer, as in any exchange.
const INTERIM_MAX: usize = 32;

/// Bytes of one read.
const PIECE: usize = 16 * 1024;

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

/// Asks on a new connection; none if the thread ended meanwhile, or memory ran out.
pub(super) async fn judge(
    ask: &Ask,
    stream: TcpStream,
    limits: Limits<'_>,
) -> Option<Result<(), ProbeFault>> {
    let buffer = Buffers::new(0).take().ok()?;
    let end = async {
        limits.ending.or(limits.hurried.or(sleep(limits.time))).await;
    };
    let fd = stream.as_raw_fd();
    match ended_by(end, fd, exchange(ask, stream, buffer)).await {
        Some(verdict) => Some(verdict),
        None if limits.ending.is_raised() => None,
        None => Some(Err(ProbeFault::Timeout)),
    }
}

async fn exchange(ask: &Ask, stream: TcpStream, buffer: Buffer) -> Result<(), ProbeFault> {
    let (reading, writing) = stream.into_split();
    let mut encoder = GenericEncoder::new(writing);
    encoder.send_and_flush(ask.request()).await.map_err(|_| ProbeFault::Reset)?;
    let mut answer = Answer { reading, buffer, limits: ask.limits };
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
    reading: TcpOwnedReadHalf,
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
        let room = self.buffer.room_len().min(PIECE);
        if room == 0 {
            return Err(ProbeFault::Protocol);
        }
        let (result, piece) = self.reading.read(Vec::with_capacity(room)).await;
        let count = result.map_err(|_| ProbeFault::Reset)?;
        for (to, from) in self.buffer.room().iter_mut().zip(&piece) {
            *to = *from;
        }
        self.buffer.filled(piece.len().min(count));
        Ok(count)
    }
}
