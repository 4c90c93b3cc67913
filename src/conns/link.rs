//! One connection to a backend that carries many requests (HTTP/2): its input and output.
//!
//! Reading and writing are one task, in which neither waits for the other; the streams belong to
//! the exchanges. It ends when it is idle and not wanted any more, or when it breaks: then all of
//! its streams do (`proto/h2/answers.rs`). A part of a frame stays in its buffer until the rest has
//! come, so that nothing is copied twice.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use super::Means;
use crate::base::{
    ids::{BackendId, PoolId},
    moment::Tick,
};
use crate::http::fault::Cause;
use crate::net::{
    buffer::Buffer,
    clock::Clock,
    deadlines::Unmet,
    stream::{InVain, Stream},
};
use crate::proto::h2::{self, Conn, Reason};
use crate::shared::counters::Counter;

/// A connection with requests under way on which nothing has come for so long is asked whether it
/// is there: a long answer may be late, and the network may have forgotten us.
const SILENT: Duration = Duration::from_secs(5);

/// The answer to that may take as long: a backend that collects its garbage is not gone.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// The same for one that is idle and wanted: another is made meanwhile at the same cost.
const IDLE_ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// How long it may take none of what it is sent. Streams have deadlines of their own; this one ends
/// what none of them waits for.
const WRITES_WITHIN: Duration = Duration::from_secs(30);

/// A connection that carries many requests.
pub(super) struct Link {
    pub(super) conn: Rc<Conn>,
    scheme: &'static [u8],
    /// How many requests it carries at most.
    requests_max: u32,
    /// Since when it has no request; none while it has one.
    idle_since: Cell<Option<Tick>>,
    /// Whether it takes no more requests, and ends with the last.
    is_retired: Cell<bool>,
    means: Rc<Means>,
    clock: Rc<Clock>,
}

impl Link {
    /// With our side of this connection.
    pub(super) fn new(
        conn: Rc<Conn>,
        (scheme, requests_max): (&'static [u8], u32),
        (means, clock): (&Rc<Means>, &Rc<Clock>),
    ) -> Rc<Link> {
        let (means, clock) = (Rc::clone(means), Rc::clone(clock));
        let (idle_since, is_retired) = (Cell::new(None), Cell::new(false));
        let requests_max = if requests_max == 0 { u32::MAX } else { requests_max };
        Rc::new(Link { conn, scheme, requests_max, idle_since, is_retired, means, clock })
    }

    /// A place for a request.
    pub(super) fn take(&self, of: (PoolId, BackendId)) -> h2::Backend {
        self.is_busy();
        h2::Backend::new(self.conn.reserve(of), self.scheme)
    }

    /// Whether it takes another request now.
    pub(super) fn has_room(&self) -> bool {
        !self.is_retired.get() && self.conn.has_room() && !self.is_worn()
    }

    fn is_worn(&self) -> bool {
        self.conn.requests() >= self.requests_max
    }

    /// Whether something has come on it so recently that it is there for all we know.
    pub(super) fn is_trusted(&self, now: Tick, time: Duration) -> bool {
        self.conn.pinged_at().is_none() && self.conn.heard_at().is_some_and(|at| now <= at + time)
    }

    /// Whether it takes requests, or may again.
    pub(super) fn is_open(&self) -> bool {
        !self.is_retired.get() && !self.conn.is_spent() && !self.is_worn()
    }

    /// It takes no more requests, and ends with the last.
    pub(super) fn retire(&self) {
        if !self.is_retired.replace(true) && self.conn.is_idle() {
            self.conn.end(Reason::NO_ERROR);
        }
    }

    /// Since when it is idle, if it is.
    pub(super) fn idle_since(&self) -> Option<Tick> {
        self.idle_since.get()
    }

    /// Looks whether it is there, and ends what was idle for too long.
    pub(super) fn expire(&self, now: Tick, idle_timeout: Duration) {
        let heard_at = self.conn.heard_at();
        match (self.idle_since.get(), self.conn.pinged_at()) {
            (idle, Some(pinged)) => {
                let within = if idle.is_some() { IDLE_ANSWERS_WITHIN } else { ANSWERS_WITHIN };
                if now > pinged + within {
                    self.conn.broke();
                }
            }
            (Some(since), None) if now >= since + idle_timeout => {
                self.means.counters.add(Counter::BackendExpired, 1);
                self.retire();
            }
            (None, None) if heard_at.is_some_and(|at| now >= at + SILENT) => self.conn.probe(now),
            (_, None) => {}
        }
    }

    fn is_busy(&self) {
        if self.idle_since.take().is_some() {
            self.means.counters.sub(Counter::BackendIdle, 1);
        }
    }

    /// Looks at what has become of it; whether it ends now.
    fn look(&self) -> bool {
        if !self.conn.is_idle() {
            return false;
        }
        if self.idle_since.get().is_none() && !self.conn.is_over() {
            self.idle_since.set(Some(self.clock.tick()));
            self.means.counters.add(Counter::BackendIdle, 1);
        }
        !self.is_open()
    }

    /// Reads and writes until it ends.
    pub(super) async fn runs(self: Rc<Link>, stream: Stream) {
        let (mut reading, mut writing) = (pin!(self.reads(&stream)), pin!(self.writes(&stream)));
        let mut has_ended = false;
        let _ = poll_fn(|cx| {
            if !has_ended && reading.as_mut().poll(cx).is_ready() {
                has_ended = true;
            }
            if !has_ended && self.look() {
                has_ended = true;
                self.conn.end(Reason::NO_ERROR);
            }
            writing.as_mut().poll(cx)
        })
        .await;
        self.conn.broke();
        self.is_busy();
    }

    /// Reads until the connection ends, and hands what comes to its state.
    async fn reads(&self, stream: &Stream) {
        let (mut kept, mut in_vain): (Option<Buffer>, _) = (None, InVain::default());
        let buffers = &self.means.buffers;
        loop {
            // While it does not take what it makes us send, the task is woken for that.
            poll_fn(|_| if self.conn.may_read() { Poll::Ready(()) } else { Poll::Pending }).await;
            if stream.readable().await.is_err() {
                break;
            }
            let Some(mut buffer) = kept.take().or_else(|| buffers.take().ok()) else { break };
            if buffer.room_len() == 0 {
                buffer.rewind();
            }
            match stream.recv_now(&mut buffer) {
                Ok(1..) => in_vain = InVain::default(),
                Err(Unmet::NotNow) => {
                    kept = self.keep(buffer);
                    in_vain.pause().await;
                    continue;
                }
                Ok(_) | Err(_) => {
                    buffers.give(buffer);
                    if self.idle_since.get().is_some() {
                        self.means.counters.add(Counter::BackendClosedIdle, 1);
                    }
                    break;
                }
            }
            let ends = self.feed(&mut buffer);
            kept = self.keep(buffer);
            if ends {
                break;
            }
        }
        kept.into_iter().for_each(|buffer| buffers.give(buffer));
        if !self.conn.is_over() {
            self.conn.broke();
        }
    }

    /// Hands the whole frames of a buffer to the connection's state; whether it ends by that.
    fn feed(&self, buffer: &mut Buffer) -> bool {
        if !self.conn.has_settings()
            && let Some(cause) = other_protocol(buffer.bytes())
        {
            self.conn.blames(cause);
            return true;
        }
        let limits = self.means.head_limits.get();
        let (used, result) = self.conn.receive(buffer.bytes(), &limits, (self.clock.tick(), None));
        buffer.consume(used);
        if let Err(reason) = result {
            self.conn.blames(Cause::BackendProtocol);
            self.conn.end(reason);
        }
        result.is_err()
    }

    fn keep(&self, buffer: Buffer) -> Option<Buffer> {
        if buffer.is_empty() {
            self.means.buffers.give(buffer);
            return None;
        }
        Some(buffer)
    }

    /// Sends what the connection's state has to send, until that was the last.
    async fn writes(&self, stream: &Stream) -> Result<(), Unmet> {
        let Means { buffers, .. } = &*self.means;
        while let Some(buffer) = self.conn.output().await {
            let (count, by) = (buffer.len(), || self.clock.after(WRITES_WITHIN));
            let sent = stream.send_buffer(buffer, count, by).await?;
            buffers.give(sent);
        }
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // What is idle is counted.
        self.is_busy();
    }
}

/// What the peer speaks, if its first bytes are none of HTTP/2.
fn other_protocol(bytes: &[u8]) -> Option<Cause> {
    match bytes {
        [b'H', b'T', b'T', ..] => Some(Cause::BackendOldHttp),
        // An alert of TLS (RFC 8446 §5.1): a frame of settings is not that long.
        [21, 3, ..] => Some(Cause::BackendSecure),
        _ => None,
    }
}
