//! One connection to a demo origin: exchange after exchange, on the wire of the product (`proto`).
//!
//! A request that breaks the rules gets its status and the connection is closed. A body is read to
//! its end before the answer, except for `/echo`, which sends it back as it comes.

use std::rc::Rc;

use super::{
    answer::{self, Answer, Body},
    running::Running,
};
use crate::base::moment::Deadline;
use crate::http::{
    fault::{Cause, Fault},
    framing::{self, BodyLength},
    head::{Method, RequestHead},
    names::Name,
    parse::HeadLimits,
};
use crate::net::turns::give_way;
use crate::proto::{
    Sink, Source,
    h1::{Client, HeadRead},
};

/// Larger than those of the balancer in front: that adds fields to what it lets pass.
const LIMITS: HeadLimits =
    HeadLimits { head_bytes_max: 48 << 10, line_bytes_max: 32 << 10, fields_max: 200 };

/// The body of `/bytes/N`, and at most one write of any.
const FILL: &[u8] = &[b'x'; 32 << 10];

/// One connection to an origin.
pub(super) struct Connection {
    running: Rc<Running>,
    /// The origin's name.
    name: Rc<str>,
    client: Client,
    head: RequestHead,
    /// Room for the heads of answers.
    room: Vec<u8>,
}

impl Connection {
    pub(super) fn new(running: Rc<Running>, name: Rc<str>, client: Client) -> Connection {
        Connection { running, name, client, head: RequestHead::default(), room: Vec::new() }
    }

    /// Serves until either side ends the connection.
    pub(super) async fn serve(mut self) {
        while let Some(head) = self.next_head().await {
            self.client.begin(head.is_ok() && self.head.keep_alive);
            let result = match head {
                Ok(()) => self.exchange().await,
                Err(fault) => Err(fault),
            };
            if let Err(fault) = result {
                self.client.will_close();
                self.refuse(fault).await;
            }
            if !self.client.keeps() {
                break;
            }
        }
        self.client.take_buffer().into_iter().for_each(|it| self.running.buffers.give(it));
    }

    /// The next head, or what is wrong with it; none if the client has ended.
    async fn next_head(&mut self) -> Option<Result<(), Fault>> {
        loop {
            match self.client.take_head(&mut self.head, &LIMITS, 0) {
                HeadRead::Head(_) => return Some(Ok(())),
                HeadRead::Refused(fault) => return Some(Err(fault)),
                HeadRead::Partial if self.client.read_more(Deadline::NEVER).await => {}
                HeadRead::Partial => return None,
            }
        }
    }

    async fn exchange(&mut self) -> Result<(), Fault> {
        let length = framing::request(&self.head)?;
        self.client.expect_body(length, LIMITS);
        if self.head.expects_continue && !self.client.has_whole_body() {
            let head = answer::interim();
            self.client.interim(&head, &mut self.room, || Deadline::NEVER).await?;
        }
        let Answer { status, wait, body } = answer::to(&self.name, &self.head);
        if body == Body::Echo {
            return self.echo(length).await;
        }
        self.pass_body(&mut Sink::Nowhere).await?;
        self.running.wait(wait).await;
        match body {
            Body::Json(text) => self.send_text(status, &text).await,
            Body::Bytes(count) => self.send_bytes(count).await,
            Body::Echo => Ok(()),
        }
    }

    /// Sends the body back as it comes, framed as it came.
    async fn echo(&mut self, length: BodyLength) -> Result<(), Fault> {
        let is_head = self.head.method == Method::Head;
        let length = match length {
            BodyLength::None => BodyLength::Fixed(0),
            BodyLength::Chunked if is_head => BodyLength::None,
            BodyLength::Fixed(_) | BodyLength::Chunked | BodyLength::UntilClose => length,
        };
        let kind =
            self.head.headers.first(Name::ContentType).unwrap_or(b"application/octet-stream");
        let head = answer::head(&self.name, 200, kind);
        if is_head {
            self.pass_body(&mut Sink::Nowhere).await?;
        }
        let room = std::mem::take(&mut self.room);
        let mut sink = self.client.answer(&head, length, self.head.version, room);
        if is_head {
            self.send(&mut sink, b"").await?;
        } else {
            self.pass_body(&mut sink).await?;
        }
        self.room = sink.into_room();
        Ok(())
    }

    /// Passes the request's body on as it comes.
    async fn pass_body(&mut self, to: &mut Sink) -> Result<(), Fault> {
        let Some(mut source) = self.client.body() else { return Err(Cause::Internal.into()) };
        let mut piece = source.first()?;
        loop {
            let ended = piece.ends();
            if ended || !piece.bytes().is_empty() {
                to.write(&mut piece, |_| Deadline::NEVER).await?;
            }
            source.done(piece);
            if ended {
                break;
            }
            piece = source.next(|| (Deadline::NEVER, None)).await?;
        }
        self.client.put_back(Some(source));
        Ok(())
    }

    async fn send_text(&mut self, status: u16, text: &str) -> Result<(), Fault> {
        let head = answer::head(&self.name, status, b"application/json");
        // RFC 9110 §8.6: no Content-Length in a 204; a 304 may carry that of the 200.
        let length = match status {
            204 => BodyLength::None,
            _ => BodyLength::Fixed(text.len() as u64),
        };
        let has_body = !framing::has_no_body(self.head.method, status);
        let room = std::mem::take(&mut self.room);
        let mut sink = self.client.answer(&head, length, self.head.version, room);
        let mut rest = if has_body { text.as_bytes() } else { b"" };
        loop {
            let (piece, behind) = rest.split_at(rest.len().min(FILL.len()));
            self.send(&mut sink, piece).await?;
            rest = behind;
            if rest.is_empty() {
                self.room = sink.into_room();
                return Ok(());
            }
        }
    }

    async fn send_bytes(&mut self, count: u64) -> Result<(), Fault> {
        let head = answer::head(&self.name, 200, b"application/octet-stream");
        let length = BodyLength::Fixed(count);
        let room = std::mem::take(&mut self.room);
        let mut sink = self.client.answer(&head, length, self.head.version, room);
        let mut left = if self.head.method == Method::Head { 0 } else { count };
        loop {
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(FILL.len());
            self.send(&mut sink, FILL.get(..take).unwrap_or_default()).await?;
            left -= take as u64;
            if left == 0 {
                self.room = sink.into_room();
                return Ok(());
            }
            give_way().await;
        }
    }

    /// Sends bytes of our own.
    async fn send(&self, sink: &mut Sink, bytes: &[u8]) -> Result<(), Fault> {
        let mut source = Source::own(bytes, &self.running.buffers)?;
        let mut piece = source.first()?;
        let sent = sink.write(&mut piece, |_| Deadline::NEVER).await;
        source.done(piece);
        source.end(&self.running.buffers);
        sent
    }

    /// Answers a request that broke a rule, if that is still possible.
    async fn refuse(&mut self, fault: Fault) {
        let (status, code) = (fault.status(), fault.code());
        // Without a status, the client has left.
        if status == 0 || self.client.has_answered() {
            return;
        }
        let text = format!("{{\"origin\":\"{}\",\"error\":\"{code}\"}}\n", self.name);
        self.head.clear();
        let _ = self.send_text(status, &text).await;
    }
}
