//! One connection to a demo origin: exchange after exchange, on the crate's own `http` module.
//!
//! A request that breaks the rules gets its status and the connection is closed. A body is read to
//! its end before the answer, except for `/echo`, which sends it back as it comes.

use std::{io, rc::Rc};

use monoio::{
    buf::IoBuf,
    io::{CancelableAsyncReadRent, CancelableAsyncWriteRent},
    net::TcpStream,
};

use super::{
    answer::{self, Answer, Body},
    origins::Ending,
};
use crate::http::{
    chunks::{self, Chunks},
    fault::Fault,
    framing::{self, BodyLength},
    head::{Method, RequestHead},
    headers::Headers,
    names::Name,
    parse::{self, HeadLimits, Parse},
    write,
};

const LIMITS: HeadLimits =
    HeadLimits { head_bytes_max: 64 << 10, line_bytes_max: 32 << 10, fields_max: 200 };

/// One read, and one write of `/bytes/N`.
const PIECE: usize = 64 << 10;

/// One connection to an origin.
pub(super) struct Connection {
    name: Rc<str>,
    stream: TcpStream,
    ending: Ending,
    /// Bytes received and not yet consumed.
    input: Vec<u8>,
    head: RequestHead,
    head_sent: bool,
}

/// Why a connection ends early.
enum Broken {
    /// The client left, or the origins are stopping.
    Gone,
    /// The client broke a rule.
    Fault(Fault),
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Broken {
        Broken::Gone
    }
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Broken {
        Broken::Fault(fault)
    }
}

/// What is left of a request's body.
enum Left {
    Nothing,
    Fixed(u64),
    Chunked(Chunks),
}

impl Connection {
    pub(super) fn new(name: Rc<str>, stream: TcpStream, ending: Ending) -> Connection {
        let (input, head) = (Vec::new(), RequestHead::default());
        Connection { name, stream, ending, input, head, head_sent: false }
    }

    /// Serves until either side ends the connection.
    pub(super) async fn serve(mut self) {
        loop {
            self.head_sent = false;
            match self.exchange().await {
                Ok(()) if self.head.keep_alive => {}
                Ok(()) | Err(Broken::Gone) => return,
                Err(Broken::Fault(fault)) => return self.refuse(fault).await,
            }
        }
    }

    async fn exchange(&mut self) -> Result<(), Broken> {
        self.read_head().await?;
        let length = framing::request(&self.head)?;
        let mut left = match length {
            BodyLength::None | BodyLength::UntilClose | BodyLength::Fixed(0) => Left::Nothing,
            BodyLength::Fixed(count) => Left::Fixed(count),
            BodyLength::Chunked => Left::Chunked(Chunks::of_request(LIMITS)),
        };
        if self.head.expects_continue && !matches!(left, Left::Nothing) {
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()).await?;
        }
        let Answer { status, wait, body } = answer::to(&self.name, &self.head);
        if body == Body::Echo {
            return self.echo(length, left).await;
        }
        while !self.piece(&mut left).await?.is_empty() {}
        self.ending.wait(wait).await;
        match body {
            Body::Json(text) => self.send_text(status, text).await,
            Body::Bytes(count) => self.send_bytes(count).await,
            Body::Echo => Ok(()),
        }
    }

    async fn read_head(&mut self) -> Result<(), Broken> {
        loop {
            match parse::request(&self.input, &LIMITS, &mut self.head)? {
                Parse::Done { used } => {
                    self.input.drain(..used);
                    return Ok(());
                }
                Parse::More => self.read().await?,
            }
        }
    }

    /// The next piece of the body; empty at its end.
    async fn piece(&mut self, left: &mut Left) -> Result<Vec<u8>, Broken> {
        loop {
            match left {
                Left::Nothing => return Ok(Vec::new()),
                Left::Fixed(count) if !self.input.is_empty() => {
                    let take = self.input.len().min(usize::try_from(*count).unwrap_or(usize::MAX));
                    *count -= take as u64;
                    if *count == 0 {
                        *left = Left::Nothing;
                    }
                    return Ok(self.input.drain(..take).collect());
                }
                Left::Chunked(chunks) if !self.input.is_empty() => {
                    // Trailers are read and ignored.
                    let found = chunks.compact(&mut self.input, &mut Headers::default())?;
                    let body = self.input.get(found.body).unwrap_or_default().to_vec();
                    self.input.drain(..found.consumed);
                    if found.ended {
                        *left = Left::Nothing;
                    }
                    if found.ended || !body.is_empty() {
                        return Ok(body);
                    }
                }
                Left::Fixed(_) | Left::Chunked(_) => self.read().await?,
            }
        }
    }

    /// Sends the body back as it comes, framed as it came.
    async fn echo(&mut self, length: BodyLength, mut left: Left) -> Result<(), Broken> {
        let kind =
            self.head.headers.first(Name::ContentType).unwrap_or(b"application/octet-stream");
        let head = answer::head(&self.name, 200, kind, &self.head);
        let is_chunked = length == BodyLength::Chunked;
        let length = if length == BodyLength::None { BodyLength::Fixed(0) } else { length };
        let mut out = Vec::new();
        write::response(&head, length, write::Connection::Unsaid, &mut out);
        if self.head.method == Method::Head {
            while !self.piece(&mut left).await?.is_empty() {}
            return self.send(out).await.map(drop);
        }
        self.head_sent = true;
        loop {
            let piece = self.piece(&mut left).await?;
            let is_end = piece.is_empty();
            if is_chunked && is_end {
                out.extend_from_slice(chunks::LAST_CHUNK);
            } else if is_chunked {
                out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                out.extend_from_slice(&piece);
                out.extend_from_slice(chunks::CHUNK_END);
            } else {
                out.extend_from_slice(&piece);
            }
            self.send(std::mem::take(&mut out)).await?;
            if is_end {
                return Ok(());
            }
        }
    }

    async fn send_text(&mut self, status: u16, text: String) -> Result<(), Broken> {
        let head = answer::head(&self.name, status, b"application/json", &self.head);
        // RFC 9110 §8.6: no Content-Length in a 204; a 304 may carry that of the 200.
        let length = match status {
            204 => BodyLength::None,
            _ => BodyLength::Fixed(text.len() as u64),
        };
        let mut out = Vec::new();
        write::response(&head, length, write::Connection::Unsaid, &mut out);
        if !framing::has_no_body(self.head.method, status) {
            out.extend_from_slice(text.as_bytes());
        }
        self.send(out).await.map(drop)
    }

    async fn send_bytes(&mut self, mut count: u64) -> Result<(), Broken> {
        let head = answer::head(&self.name, 200, b"application/octet-stream", &self.head);
        let mut out = Vec::with_capacity(PIECE);
        write::response(&head, BodyLength::Fixed(count), write::Connection::Unsaid, &mut out);
        if self.head.method == Method::Head {
            count = 0;
        }
        loop {
            let room = PIECE.saturating_sub(out.len());
            let take = room.min(usize::try_from(count).unwrap_or(room));
            out.resize(out.len() + take, b'x');
            count -= take as u64;
            out = self.send(out).await?;
            if count == 0 {
                return Ok(());
            }
            out.clear();
        }
    }

    /// Answers a request that broke a rule, if that is still possible.
    async fn refuse(&mut self, fault: Fault) {
        if self.head_sent {
            return;
        }
        let (status, code) = (fault.status(), fault.code());
        let text = format!("{{\"origin\":\"{}\",\"error\":\"{code}\"}}\n", self.name);
        self.head = RequestHead::default();
        let _ = self.send_text(status, text).await;
    }

    /// Reads at least one byte.
    async fn read(&mut self) -> Result<(), Broken> {
        let room = Vec::with_capacity(PIECE);
        let (result, room) = self.stream.cancelable_read(room, self.ending.handle()).await;
        if result? == 0 {
            return Err(Broken::Gone);
        }
        self.input.extend_from_slice(&room);
        Ok(())
    }

    /// Writes all of it, and returns the buffer.
    async fn send(&mut self, mut bytes: Vec<u8>) -> Result<Vec<u8>, Broken> {
        let mut sent = 0;
        while sent < bytes.len() {
            let rest = bytes.slice(sent..);
            let (result, rest) = self.stream.cancelable_write(rest, self.ending.handle()).await;
            match result? {
                0 => return Err(Broken::Gone),
                count => sent += count,
            }
            bytes = rest.into_inner();
        }
        Ok(bytes)
    }
}
