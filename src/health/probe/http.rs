//! A probe that asks: a GET, and what is expected of the answer (RFC 9110 §9.3.1).
//!
//! Head and request are monoio-http's. Its decoder is not for strangers: it reads whatever comes
//! until a head is whole, and mistakes some. Here it is given at most `HEAD_MAX` bytes of a
//! connection that serves one answer, so a mistake makes a verdict and nothing else. Bodies are
//! ours: its decoder would hold whole chunks and refuse legal ones.

use std::{
    os::fd::AsRawFd,
    panic::{AssertUnwindSafe, catch_unwind},
};

use bytes::BytesMut;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, USER_AGENT},
};
use memchr::memmem;
use monoio::{
    io::{AsyncReadRent, Splitable, sink::SinkExt},
    net::{TcpStream, tcp::TcpOwnedReadHalf},
};
use monoio_codec::{Decoded, Decoder};
use monoio_http::{
    common::response::ResponseHead,
    h1::{
        codec::{decoder::ResponseHeadDecoder, encoder::GenericEncoder},
        payload::Payload,
    },
};

use super::Limits;
use crate::http::{
    chunks::{Chunks, Step},
    grammar::digits,
    headers::Headers,
    parse::HeadLimits,
};
use crate::net::io::{ended_by, sleep};
use crate::plan::{Backend, HttpProbe, Statuses};
use crate::policy::health::ProbeFault;

/// Bytes of the answer's head. It also keeps the decoder from longer names, on which it panics.
const HEAD_MAX: usize = 64 * 1024;

/// Bytes of the answer's body that are looked at.
const BODY_MAX: usize = 64 * 1024;

/// What may stand behind a body's last chunk; of no interest.
const TRAILERS: HeadLimits =
    HeadLimits { head_bytes_max: PIECE, line_bytes_max: PIECE, fields_max: 100 };

/// Bytes of one read.
const PIECE: usize = 16 * 1024;

/// What is asked, and what is expected.
pub(in crate::health) struct Ask {
    target: Uri,
    fields: HeaderMap,
    statuses: Statuses,
    body: Option<String>,
}

impl Ask {
    /// Of one backend.
    ///
    /// # Errors
    /// A sentence, where what is configured cannot be sent.
    pub(super) fn new(probe: &HttpProbe, backend: &Backend) -> Result<Ask, String> {
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
        Ok(Ask { target, fields, statuses: probe.statuses.clone(), body: probe.body.clone() })
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

/// Asks on a new connection; none where the thread ended meanwhile.
pub(super) async fn judge(
    ask: &Ask,
    stream: TcpStream,
    limits: Limits<'_>,
) -> Option<Result<(), ProbeFault>> {
    let end = async {
        limits.ending.or(sleep(limits.time)).await;
    };
    let fd = stream.as_raw_fd();
    match ended_by(end, fd, exchange(ask, stream)).await {
        Some(verdict) => Some(verdict),
        None if limits.ending.is_raised() => None,
        None => Some(Err(ProbeFault::Timeout)),
    }
}

async fn exchange(ask: &Ask, stream: TcpStream) -> Result<(), ProbeFault> {
    let (reading, writing) = stream.into_split();
    let mut encoder = GenericEncoder::new(writing);
    encoder.send_and_flush(ask.request()).await.map_err(|_| ProbeFault::Reset)?;
    let mut answer = Answer { reading, raw: BytesMut::new() };
    let head = answer.head().await?;
    let status = head.status.as_u16();
    if !ask.statuses.contains(status) {
        return Err(ProbeFault::Status(status));
    }
    match &ask.body {
        Some(text) => answer.expect_in_body(&head, text.as_bytes()).await,
        None => Ok(()),
    }
}

/// What comes back, and what has come and was not looked at.
struct Answer {
    reading: TcpOwnedReadHalf,
    raw: BytesMut,
}

impl Answer {
    /// The first head that is not interim (RFC 9110 §15.2).
    async fn head(&mut self) -> Result<ResponseHead, ProbeFault> {
        loop {
            // It has `unwrap`s. None is known to be reached below `HEAD_MAX`, and one that is must
            // not end the thread.
            let decode = || ResponseHeadDecoder.decode(&mut self.raw);
            let decoded = catch_unwind(AssertUnwindSafe(decode));
            match decoded.map_err(|_| ProbeFault::Protocol)? {
                Ok(Decoded::Some(head)) if is_interim(head.status) => continue,
                Ok(Decoded::Some(head)) => return Ok(head),
                Ok(Decoded::Insufficient | Decoded::InsufficientAtLeast(_)) => {}
                Err(_) => return Err(ProbeFault::Protocol),
            }
            let room = HEAD_MAX.saturating_sub(self.raw.len());
            if room == 0 {
                return Err(ProbeFault::Protocol);
            }
            if self.more(room).await? == 0 {
                return Err(ProbeFault::Reset);
            }
        }
    }

    /// Reads until the text is seen, or there can be none any more.
    async fn expect_in_body(&mut self, head: &ResponseHead, text: &[u8]) -> Result<(), ProbeFault> {
        let mut framing = Framing::of(head)?;
        let mut seen = Vec::new();
        loop {
            // A text may begin in one piece and end in the next.
            let from = seen.len().saturating_sub(text.len());
            let is_over = framing.take(&self.raw, &mut seen)?;
            self.raw.clear();
            seen.truncate(BODY_MAX);
            if memmem::find(seen.get(from..).unwrap_or_default(), text).is_some() {
                return Ok(());
            }
            if is_over || seen.len() >= BODY_MAX {
                return Err(ProbeFault::Body);
            }
            if self.more(PIECE).await? == 0 {
                let is_whole = matches!(framing, Framing::UntilClose);
                return Err(if is_whole { ProbeFault::Body } else { ProbeFault::Reset });
            }
        }
    }

    /// Reads what comes next; 0 = nothing will.
    async fn more(&mut self, room: usize) -> Result<usize, ProbeFault> {
        let piece = BytesMut::with_capacity(room.min(PIECE));
        let (result, piece) = self.reading.read(piece).await;
        self.raw.extend_from_slice(&piece);
        result.map_err(|_| ProbeFault::Reset)
    }
}

/// Whether another head follows. Behind a 101 none does.
fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// How long a body is (RFC 9112 §6.3), as far as a verdict needs it.
enum Framing {
    Left(u64),
    Chunked(Box<Chunks>),
    UntilClose,
}

impl Framing {
    fn of(head: &ResponseHead) -> Result<Framing, ProbeFault> {
        if head.headers.contains_key(TRANSFER_ENCODING) {
            return Ok(Framing::Chunked(Box::new(Chunks::of_response(TRAILERS))));
        }
        let Some(length) = head.headers.get(CONTENT_LENGTH) else {
            return Ok(Framing::UntilClose);
        };
        digits(length.as_bytes()).map(Framing::Left).ok_or(ProbeFault::Protocol)
    }

    /// Adds to `body` what of these bytes belongs to it; whether it is over.
    fn take(&mut self, mut raw: &[u8], body: &mut Vec<u8>) -> Result<bool, ProbeFault> {
        match self {
            Framing::UntilClose => body.extend_from_slice(raw),
            Framing::Left(left) => {
                let count = raw.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                body.extend_from_slice(raw.get(..count).unwrap_or_default());
                *left -= count as u64;
                return Ok(*left == 0);
            }
            Framing::Chunked(chunks) => {
                let mut trailers = Headers::default();
                loop {
                    let step = chunks.step(raw, &mut trailers);
                    let count = match step.map_err(|_| ProbeFault::Protocol)? {
                        Step::More => return Ok(false),
                        Step::End(_) => return Ok(true),
                        Step::Skip(count) => count,
                        Step::Body(count) => {
                            body.extend_from_slice(raw.get(..count).unwrap_or_default());
                            count
                        }
                    };
                    raw = raw.get(count..).unwrap_or_default();
                }
            }
        }
        Ok(false)
    }
}
