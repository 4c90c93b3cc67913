//! One stream of a connection: what has come on it, what may be sent on it, and how it ended.
//!
//! Its connection writes what comes, its task takes it and waits for more: for a change of this
//! state, never for a socket. Its deadlines are an entry of its own among those of the worker, by
//! which it is woken too; so a late stream ends alone, and its connection goes on.

use std::{
    cell::{Cell, OnceCell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::Poll,
};

use super::{answers::Answers, conn::Conn, frame::Reason, request::NoHead};
use crate::base::moment::{Deadline, Micros, Moment};
use crate::http::{
    fault::{Cause, Side, StreamReset},
    grammar,
    head::{RequestHead, ResponseHead},
    headers::Headers,
};
use crate::net::{
    clock::Clock,
    deadlines::{End, Ended, Watched},
    leaving::{ForClient, Leaves},
};

/// A stream.
pub(crate) struct Stream {
    /// Of one to a backend 0, until its request is sent: numbers only grow on the wire.
    pub(super) id: Cell<u32>,
    pub(super) conn: Rc<Conn>,
    pub(super) watched: Watched,
    /// The head of its request, or why it has none, until its task takes it.
    pub(super) head: RefCell<Option<Result<RequestHead, NoHead>>>,
    /// Bytes of the frames of the head.
    pub(super) head_bytes: u64,
    /// When its first frame came, if it is logged.
    pub(super) began: Option<Moment>,
    pub(super) came: RefCell<Came>,
    /// Bytes of the body that are still to come, if its head says how many.
    pub(super) announced: Cell<Option<u64>>,
    /// Whether the peer has ended its half.
    pub(super) has_ended: Cell<bool>,
    /// How much the peer may send, and what has been taken and not been said yet.
    pub(super) window: Cell<i64>,
    pub(super) unsaid: Cell<u32>,
    /// How much the peer takes.
    pub(super) send_window: Cell<i64>,
    /// Whether we have begun to send on it.
    pub(super) is_begun: Cell<bool>,
    /// Whether we have ended our half.
    pub(super) is_sent: Cell<bool>,
    /// Why it is over before both halves have ended.
    pub(super) over: Cell<Option<Reason>>,
    /// The reset by which it ended, if that is what did: its peer's, or ours for a fault of it.
    pub(super) reset: Cell<Option<StreamReset>>,
    /// Bytes of the body that were given out and may not come again yet.
    pub(super) out: Cell<u32>,
    pub(super) turn: Cell<Turn>,
    /// When it had a turn last, and how urgent it is (RFC 9218).
    pub(super) served: Cell<u64>,
    pub(super) priority: Cell<Priority>,
    /// Whether to measure how long writes wait, and how long that was.
    pub(super) timed: Cell<bool>,
    pub(super) stalled: Cell<Micros>,
    /// The answers to it, if it is one to a backend.
    pub(super) answers: OnceCell<Answers>,
}

/// What has come of a body and was not taken.
#[derive(Default)]
pub(super) struct Came {
    pub(super) bytes: Vec<u8>,
    /// How many of them have been taken.
    pub(super) taken: usize,
    pub(super) trailers: Option<Box<Headers>>,
}

impl Came {
    pub(super) fn rest(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }
}

/// Whether a stream may write what others want to write too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It does not wait for one.
    None,
    Waits,
    /// It has one: for a frame.
    Its,
}

/// How urgent a stream is, and whether it shares with others of the same urgency (RFC 9218 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Priority {
    pub(super) urgency: u8,
    pub(super) shares: bool,
}

impl Default for Priority {
    /// RFC 9218 has such streams served one after the other. That suits a page; an endless answer
    /// would keep all others waiting. So a stream of which nothing is said shares.
    fn default() -> Priority {
        Priority { urgency: 3, shares: true }
    }
}

impl Priority {
    /// Of a field's value (RFC 9218 §4, §5). What is not understood changes nothing.
    pub(super) fn of(value: &[u8]) -> Priority {
        let mut priority = Priority { urgency: 3, shares: false };
        for member in grammar::list(value) {
            match member {
                [b'u', b'=', digit @ b'0'..=b'7'] => priority.urgency = digit - b'0',
                b"i" | b"i=?1" => priority.shares = true,
                b"i=?0" => priority.shares = false,
                _ => {}
            }
        }
        priority
    }
}

impl Stream {
    /// Whether it is over before both halves have ended.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.over.get().is_some()
    }

    /// The reset by which it ended, if that is what did.
    pub(in crate::proto) fn reset(&self) -> Option<StreamReset> {
        self.reset.get()
    }

    /// Whether it was begun for nothing, if its client leaves it: it has no answer, was given no
    /// room for one, or had one although its request is not whole.
    pub(super) fn is_waste(&self) -> bool {
        if self.is_sent.get() {
            return !self.has_ended.get();
        }
        !self.is_begun.get() || self.send_window.get() <= 0
    }

    /// Notes that it ends by a reset.
    pub(super) fn is_reset(&self, by: Side, reason: Reason) {
        if !self.is_over() {
            self.reset.set(Some(StreamReset { by, code: reason.0 }));
        }
    }

    pub(in crate::proto) fn watched(&self) -> &Watched {
        &self.watched
    }

    /// Whether either half was ended because it was overdue.
    pub(in crate::proto) fn is_overdue(&self) -> bool {
        let ended = [End::Reading, End::Writing].map(|end| self.watched.ended(end));
        ended.contains(&Some(Ended::Overdue))
    }

    /// Ends both halves; waits end as if the peer had.
    pub(in crate::proto) fn cut(&self) {
        self.conn.cut(self);
    }

    /// Wakes its task.
    #[inline]
    pub(super) fn wake(&self) {
        self.watched.wake();
    }

    /// It ends at once, for this reason: so do all waits on its behalf.
    pub(super) fn ends(&self, reason: Reason) {
        if self.is_over() {
            return;
        }
        self.over.set(Some(reason));
        match self.answers.get() {
            // It is waited for, and nobody waits on its behalf.
            Some(_) => self.wake(),
            None => self.watched.leave(),
        }
    }

    /// One to a backend ends at once, and this is why.
    pub(super) fn fails(&self, reason: Reason, cause: Cause) {
        if let Some(answers) = self.answers.get().filter(|_| !self.is_over()) {
            answers.fault.set(Some(cause));
        }
        self.ends(reason);
    }

    /// The stream as a client on whose behalf a backend is waited for.
    pub(super) fn waiting(&self) -> ForClient {
        self.watched.waits_as_stream(if self.is_over() { Leaves::Gone } else { Leaves::Reset })
    }

    /// Until it is over.
    pub(super) async fn stirs(&self) {
        poll_fn(|cx| {
            let ended = self.watched.ended_or_wakes(End::Reading, cx.waker());
            if ended.is_some() || self.is_over() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Waits until something has come that was not taken, or all has; on behalf of this client, if
    /// any.
    ///
    /// # Errors
    /// Why nothing comes: none if the peer ended the stream.
    pub(super) async fn readable(
        &self,
        by: Deadline,
        client: Option<ForClient>,
    ) -> Result<(), Option<Ended>> {
        self.waits_to_read(by, client);
        let came = poll_fn(|cx| {
            if !self.came.borrow().rest().is_empty() || (self.has_ended.get() && !self.is_over()) {
                return Poll::Ready(Ok(()));
            }
            match self.watched.ended_or_wakes(End::Reading, cx.waker()) {
                Some(why) => Poll::Ready(Err(Some(why))),
                None if self.is_over() => Poll::Ready(Err(None)),
                None => Poll::Pending,
            }
        })
        .await;
        self.waits_to_read(Deadline::NEVER, None);
        came
    }

    fn waits_to_read(&self, by: Deadline, client: Option<ForClient>) {
        match self.answers.get() {
            Some(_) => self.watched.read_for(by, client),
            // Its entry says who waits on its behalf.
            None => self.watched.read_by(by),
        }
    }

    /// Waits until a head of an answer has come.
    ///
    /// # Errors
    /// Why none comes: none if the stream is over.
    pub(super) async fn answered(
        &self,
        answers: &Answers,
        by: Deadline,
        client: ForClient,
    ) -> Result<ResponseHead, Option<Ended>> {
        self.watched.read_for(by, Some(client));
        let came = poll_fn(|cx| {
            if let Some(head) = answers.take() {
                return Poll::Ready(Ok(head));
            }
            match self.watched.ended_or_wakes(End::Reading, cx.waker()) {
                Some(why) => Poll::Ready(Err(Some(why))),
                None if self.is_over() => Poll::Ready(Err(None)),
                None => Poll::Pending,
            }
        })
        .await;
        self.watched.read_for(Deadline::NEVER, None);
        came
    }

    /// Waits until something may be sent.
    ///
    /// # Errors
    /// Why nothing may be: none if the peer ended the stream.
    pub(super) async fn writable(&self, by: Deadline) -> Result<(), Option<Ended>> {
        let since = self.timed.get().then(Clock::moment);
        self.watched.write_by(by);
        let may = poll_fn(|cx| {
            match self.watched.ended_or_wakes(End::Writing, cx.waker()) {
                Some(why) => return Poll::Ready(Err(Some(why))),
                None if self.is_over() => return Poll::Ready(Err(None)),
                None => {}
            }
            match self.turn.get() {
                Turn::Its => Poll::Ready(Ok(())),
                Turn::None if self.send_window.get() > 0 => Poll::Ready(Ok(())),
                Turn::None | Turn::Waits => Poll::Pending,
            }
        })
        .await;
        self.watched.write_by(Deadline::NEVER);
        if let Some(since) = since {
            self.stalled.set(self.stalled.get() + Clock::moment().since(since));
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9218 §4.1, §4.2.
    #[test]
    fn a_priority_is_read_as_far_as_it_is_understood() {
        for (value, urgency, shares) in [
            ("", 3, false),
            ("u=0", 0, false),
            ("u=7, i", 7, true),
            ("i=?1,u=1", 1, true),
            ("i, i=?0", 3, false),
            ("u=8", 3, false),
            ("u=-1, x=y, i", 3, true),
        ] {
            assert_eq!(Priority::of(value.as_bytes()), Priority { urgency, shares }, "{value}");
        }
    }
}
