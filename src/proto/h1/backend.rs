//! A connection to a backend: the head of its answer, and what tells whether it may be used again.
//!
//! Bodies are not read here (`body.rs` frames them), nor is anything sent. Before the first byte of
//! an answer a wait is for the posted receive, later for readiness.

use std::{cell::Cell, rc::Rc};

use crate::base::moment::{Deadline, Moment};
use crate::http::{
    fault::{Cause, Fault},
    head::ResponseHead,
    keep_alive::KeepAlive,
    parse::{self, HeadLimits, Parse},
};
use crate::net::{
    buffer::{Buffer, Buffers},
    clock::Clock,
    deadlines::Ended,
    leaving::ForClient,
    stream::Stream,
};

/// What is known of the beginning of an answer.
#[derive(Default)]
pub(crate) struct Begun {
    /// Whether any byte of an answer has come.
    pub(crate) seen: bool,
    /// Whether somebody wants to know when.
    pub(crate) timed: bool,
    /// When the first byte of this head came, if it has.
    pub(crate) at: Option<Moment>,
}

impl Begun {
    #[inline]
    fn note(&mut self) {
        self.seen = true;
        if self.timed && self.at.is_none() {
            self.at = Some(Clock::moment());
        }
    }
}

/// A connection to a backend.
pub(crate) struct Backend {
    pub(crate) stream: Rc<Stream>,
    /// Which of its backend's addresses it goes to: whoever made it knows it by this number.
    pub(crate) address: u32,
    /// Requests sent on it, the one under way among them.
    pub(crate) requests: u32,
    /// How long the backend says it keeps an idle connection, in seconds (`Keep-Alive: timeout`).
    pub(crate) keeps_idle: Option<u32>,
    /// How many requests it says it takes on it in all (`Keep-Alive: max`).
    requests_max: u32,
}

impl Backend {
    pub(crate) fn new(stream: Stream, address: u32) -> Backend {
        Backend {
            stream: Rc::new(stream),
            address,
            requests: 0,
            keeps_idle: None,
            requests_max: u32::MAX,
        }
    }

    /// Whether it has carried a request before the one under way.
    #[inline]
    pub(crate) fn is_reused(&self) -> bool {
        self.requests > 1
    }

    /// Notes what an answer says of how long this connection is kept: each says it anew, but what
    /// was said of requests holds for the next too, as they only become fewer.
    #[inline]
    pub(crate) fn note(&mut self, said: KeepAlive) {
        self.keeps_idle = said.timeout;
        if let Some(more) = said.max {
            self.requests_max = self.requests_max.min(self.requests.saturating_add(more));
        }
    }

    /// Whether the backend takes no further request on it.
    #[inline]
    pub(crate) fn is_used_up(&self) -> bool {
        self.requests >= self.requests_max
    }

    /// Reads the next head into `head`, from `buffer` and then from the connection; how many of
    /// the buffered bytes it takes. The deadline and the client may
    /// be set while it waits.
    ///
    /// # Errors
    /// Where none comes, or none that is one.
    pub(crate) async fn read_head(
        &self,
        buffer: &mut Option<Buffer>,
        head: &mut ResponseHead,
        limits: &HeadLimits,
        begun: &mut Begun,
        (deadline, client): (&Cell<Deadline>, &Cell<ForClient>),
    ) -> Result<usize, Fault> {
        loop {
            if let Some(bytes) = buffer.as_ref().filter(|buffer| !buffer.is_empty()) {
                begun.note();
                if let Parse::Done { used } = parse::response(bytes.bytes(), limits, head)? {
                    return Ok(used);
                }
            }
            let read = match buffer {
                None => {
                    self.stream.watched().read_for(deadline.get(), Some(client.get()));
                    let (read, received) = self.stream.received().await;
                    self.stream.watched().read_for(Deadline::NEVER, None);
                    *buffer = Some(received);
                    read
                }
                Some(buffer) => {
                    if buffer.room_len() == 0 {
                        buffer.rewind();
                    }
                    self.stream.recv_for(buffer, deadline.get(), client.get()).await
                }
            };
            if !matches!(read, Ok(count) if count > 0) {
                return Err(self.read_fault(begun.seen));
            }
        }
    }

    /// Why the wait for its head ended without one.
    pub(crate) fn read_fault(&self, answer_begun: bool) -> Fault {
        match self.stream.read_ended() {
            Some(Ended::Overdue) => Cause::ResponseTimeout.into(),
            Some(Ended::ClientLeft) => Cause::ClientAbort.into(),
            Some(Ended::Closed) => Cause::ShuttingDown.into(),
            // A head that was cut is no answer, but it is the sign of one.
            None if answer_begun => Cause::BackendProtocol.into(),
            None if self.is_reused() => Cause::BackendStale.into(),
            None => Cause::BackendReset.into(),
        }
    }

    /// Posts the receive that waits while it is idle and takes the next answer.
    ///
    /// # Errors
    /// Where there is no memory for a buffer.
    pub(crate) fn post_receive(&self, buffers: &Buffers) -> std::io::Result<()> {
        self.stream.post_receive(buffers.take()?);
        Ok(())
    }
}
