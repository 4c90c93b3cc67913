//! Operations in flight on one connection: the receive that was posted, and the mark that an
//! operation was dropped before it ended.
//!
//! A receive is in flight while the connection is idle: it sees a close, or unasked bytes, at once.
//! It is never dropped before it has ended; `Stream` sees to that. A readiness poll may be dropped,
//! but then monoio still holds the descriptor, and it alone may close it.
//!
//! That nothing came is known only as of the last check. A receive is handed to the kernel at the
//! end of the turn in which it was posted, and its result is seen in a later turn. So operations
//! are numbered: when one that began after the receive was posted had to be waited for and has
//! ended, the kernel has tried the receive, and its result has been collected (`Mark`).

use std::{
    cell::{Cell, OnceCell},
    future::poll_fn,
    task::{Context, Poll, Waker, ready},
};

use super::{
    buffer::{Buffer, Buffers},
    fd::{Flag, Receiving, Sending},
    repeated::Done,
};

thread_local! {
    /// How many operations of this thread have begun.
    static BEGUN: Cell<u64> = const { Cell::new(0) };
    /// The latest of them that had to be waited for and has ended.
    static ENDED: Cell<u64> = const { Cell::new(0) };
}

/// A position in the order of this thread's operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark(u64);

impl Mark {
    #[inline]
    pub(crate) fn now() -> Mark {
        Mark(BEGUN.get())
    }

    /// Whether an operation that began later, and had to be waited for, has ended. The ring takes
    /// operations and gives results in order, and epoll reports all that is ready: whatever was in
    /// a socket at this moment has reached the receive that was posted before it.
    #[inline]
    pub(crate) fn is_past(self) -> bool {
        self.0 < ENDED.get()
    }
}

/// An operation's number in that order.
#[derive(Clone, Copy)]
#[must_use]
pub(super) struct Begun(u64);

/// The operations of one connection that have not ended.
#[derive(Default)]
pub(super) struct Pending {
    /// Made with the first receive.
    receiver: OnceCell<Box<Receiver>>,
    /// Made with the first send that no task waits for.
    sender: OnceCell<Box<Sender>>,
    /// Operations that have not ended. One that was dropped before it ended (a poll, or by a panic
    /// a send) never does: monoio then still holds the descriptor.
    under_way: Cell<u32>,
}

/// The receives of one connection.
pub(super) struct Receiver {
    receiving: Receiving,
    /// Raised when the receive may have ended.
    stirs: Flag,
}

/// The sends of one connection that no task waits for.
pub(super) struct Sender {
    sending: Sending,
    /// The number of the latest.
    number: Cell<u64>,
}

/// The state of a posted receive on an idle connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quiet {
    /// Nothing came.
    Yes,
    /// The peer closed, or the connection broke.
    Closed,
    /// Unasked bytes came.
    Unasked,
}

impl Pending {
    /// An operation begins now.
    #[inline]
    pub(super) fn begin(&self) -> Begun {
        self.under_way.set(self.under_way.get().wrapping_add(1));
        BEGUN.set(BEGUN.get() + 1);
        Begun(BEGUN.get())
    }

    /// It has ended; `waited`: not at once, as it may on epoll.
    #[inline]
    pub(super) fn end(&self, Begun(number): Begun, waited: bool) {
        self.under_way.set(self.under_way.get().wrapping_sub(1));
        if waited {
            ENDED.set(ENDED.get().max(number));
        }
    }

    /// Whether an operation was dropped before it ended; called when none goes on.
    pub(super) fn was_dropped(&self) -> bool {
        self.under_way.get() > 0
    }

    /// Hands a receive into this buffer to the kernel. `make` makes the receives of the connection.
    pub(super) fn post(&self, buffer: Buffer, make: impl FnOnce() -> Receiving) {
        let receiver = self
            .receiver
            .get_or_init(|| Box::new(Receiver { receiving: make(), stirs: Flag::new() }));
        if receiver.receiving.begin(buffer, &mut receiver.stirs.lower()) {
            receiver.stirs.raise();
        }
    }

    /// Polls the receive, if one is posted.
    #[inline]
    pub(super) fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<Done<Buffer>> {
        self.receiver.get().map_or(Poll::Pending, |receiver| receiver.poll(cx))
    }

    /// Whether a receive is posted.
    pub(super) fn is_receiving(&self) -> bool {
        self.receiver.get().is_some_and(|receiver| receiver.receiving.is_under_way())
    }

    /// Checks the posted receive of an idle connection. Bytes that came are lost: the caller uses
    /// the connection only if it was quiet.
    #[inline]
    pub(super) fn quiet(&self, buffers: &Buffers) -> Quiet {
        let Some(receiver) = self.receiver.get() else { return Quiet::Yes };
        if receiver.stirs.is_raised() { receiver.end_of_quiet(buffers) } else { Quiet::Yes }
    }

    /// Hands these bytes to the kernel. `make` makes the sends of the connection.
    pub(super) fn post_send(&self, bytes: Vec<u8>, make: impl FnOnce() -> Sending) {
        let sender =
            self.sender.get_or_init(|| Box::new(Sender { sending: make(), number: Cell::new(0) }));
        BEGUN.set(BEGUN.get() + 1);
        sender.number.set(BEGUN.get());
        sender.sending.begin(bytes, &mut Context::from_waker(Waker::noop()));
    }

    /// Whether a send was posted whose end nobody has asked for.
    #[inline]
    pub(super) fn is_sending(&self) -> bool {
        self.sender.get().is_some_and(|sender| sender.sending.is_under_way())
    }

    /// Polls the posted send.
    #[inline]
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<Done<Vec<u8>>> {
        let Some(sender) = self.sender.get() else { return Poll::Pending };
        let done = ready!(sender.sending.poll(cx));
        ENDED.set(ENDED.get().max(sender.number.get()));
        Poll::Ready(done)
    }

    /// What is posted and has not ended, which the caller must wait for.
    pub(super) fn take_posted(&mut self) -> Option<Posted> {
        let receiver = self.receiver.take().filter(|it| it.receiving.is_under_way());
        let sender = self.sender.take().filter(|it| it.sending.is_under_way());
        (receiver.is_some() || sender.is_some()).then_some(Posted { receiver, sender })
    }
}

/// A receive and a send that are posted on a connection that is no longer used.
pub(super) struct Posted {
    receiver: Option<Box<Receiver>>,
    sender: Option<Box<Sender>>,
}

impl Posted {
    /// Waits for both to end.
    pub(super) async fn ends(self) {
        if let Some(receiver) = &self.receiver {
            drop(poll_fn(|cx| receiver.poll(cx)).await);
        }
        if let Some(sender) = &self.sender {
            drop(poll_fn(|cx| sender.sending.poll(cx)).await);
        }
    }
}

impl Receiver {
    /// Polls the receive; the task is woken when there is a reason to poll again.
    #[inline]
    fn poll(&self, cx: &mut Context<'_>) -> Poll<Done<Buffer>> {
        if self.stirs.is_raised()
            && let Poll::Ready(done) = self.receiving.poll(&mut self.stirs.lower())
        {
            return Poll::Ready(done);
        }
        self.stirs.wakes(cx.waker());
        if self.stirs.is_raised() {
            // By the poll itself.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Like `Pending::quiet`, when something has happened.
    #[cold]
    fn end_of_quiet(&self, buffers: &Buffers) -> Quiet {
        let Poll::Ready((result, buffer)) = self.receiving.poll(&mut self.stirs.lower()) else {
            return Quiet::Yes;
        };
        buffers.give(buffer);
        match result {
            Ok(count) if count > 0 => Quiet::Unasked,
            _ => Quiet::Closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{Future, poll_fn},
        io::{Read, Write},
        net::TcpStream,
        pin::pin,
        rc::Rc,
        thread,
    };

    use super::*;
    use crate::base::moment::Deadline;
    use crate::net::{
        clock::Clock,
        deadlines::{Deadlines, Watch},
        stream::Stream,
        turns,
    };
    use crate::testkit::{eventually, on_both_drivers, pair};

    /// One connection: our end, and the peer's, which blocks.
    struct Connected {
        ours: Stream,
        peer: TcpStream,
        buffers: Rc<Buffers>,
    }

    fn connected() -> Connected {
        let deadlines = Deadlines::new(Rc::new(Clock::new()));
        let (ours, peer) = pair(|fd| deadlines.watch(fd, Watch::Backend));
        Connected { ours, peer, buffers: Buffers::new(4) }
    }

    #[test]
    fn a_posted_receive_takes_what_comes_next() {
        on_both_drivers(|| async {
            let Connected { ours, mut peer, buffers, .. } = connected();
            ours.post_receive(buffers.take().unwrap());
            assert!(ours.is_receiving());
            assert_eq!(ours.quiet(&buffers), Quiet::Yes);
            peer.write_all(b"answer").unwrap();
            let (read, buffer) = ours.received(Deadline::NEVER, None).await.unwrap();
            assert_eq!((read.unwrap(), buffer.bytes()), (6, &b"answer"[..]));
            assert!(!ours.is_receiving());
        });
    }

    #[test]
    fn an_idle_connection_says_when_it_is_no_good_any_more() {
        on_both_drivers(|| async {
            for (does, expected) in [
                ("writes", Quiet::Unasked),
                ("half-closes", Quiet::Closed),
                ("closes", Quiet::Closed),
            ] {
                let Connected { ours, peer, buffers, .. } = connected();
                ours.post_receive(buffers.take().unwrap());
                let peer = match does {
                    "writes" => (&peer).write_all(b"x").map(|()| Some(peer)),
                    "half-closes" => peer.shutdown(std::net::Shutdown::Write).map(|()| Some(peer)),
                    _ => {
                        drop(peer);
                        Ok(None)
                    }
                };
                let mut quiet = Quiet::Yes;
                eventually(|| {
                    quiet = ours.quiet(&buffers);
                    quiet != Quiet::Yes
                })
                .await;
                assert_eq!(quiet, expected, "it {does}");
                drop(peer.unwrap());
            }
        });
    }

    /// The runtime of the test ends only when nothing is in flight: `on_both_drivers` asserts it.
    #[test]
    fn a_receive_in_flight_is_ended_with_its_connection() {
        on_both_drivers(|| async {
            let Connected { ours, mut peer, buffers, .. } = connected();
            ours.post_receive(buffers.take().unwrap());
            drop(ours);
            assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
        });
    }

    #[test]
    fn a_posted_send_is_heard_of_when_the_answer_has_come() {
        on_both_drivers(|| async {
            let Connected { ours, mut peer, buffers, .. } = connected();
            for (asked, answer) in [("ask", "answer"), ("again", "and again")] {
                ours.post_receive(buffers.take().unwrap());
                let posted = ours.post_send(asked.into());
                assert_eq!(posted.is_ok(), !turns::are_eager());
                if let Err(bytes) = posted {
                    // Epoll has nothing to post it to.
                    assert_eq!(bytes, asked.as_bytes());
                    return;
                }
                assert!(ours.is_sending());
                let play = thread::spawn(move || {
                    let mut heard = vec![0; asked.len()];
                    peer.read_exact(&mut heard).unwrap();
                    peer.write_all(answer.as_bytes()).unwrap();
                    (peer, heard)
                });
                let (read, buffer) = ours.received(Deadline::NEVER, None).await.unwrap();
                assert_eq!((read.unwrap(), buffer.bytes()), (answer.len(), answer.as_bytes()));
                assert_eq!(ours.has_sent(), Some(asked.into()), "the bytes come back");
                assert!(!ours.is_sending());
                let heard;
                (peer, heard) = play.join().unwrap();
                assert_eq!(heard, asked.as_bytes());
            }
            let long = ours.post_send(vec![0; 64 << 10]);
            assert!(long.is_err(), "the kernel may not take it in one piece");
        });
    }

    /// As after a round of the sweep without an answer.
    #[test]
    fn a_posted_send_is_looked_after_while_no_answer_comes() {
        on_both_drivers(|| async {
            let Connected { ours, mut peer, buffers, .. } = connected();
            ours.post_receive(buffers.take().unwrap());
            if ours.post_send(b"ask".to_vec()).is_err() {
                return;
            }
            let mut received = pin!(ours.received(Deadline::NEVER, None));
            let polled = poll_fn(|cx| Poll::Ready(received.as_mut().poll(cx))).await;
            assert!(polled.is_pending());
            assert!(received.await.is_none(), "polled without an answer, it calls for a look");
            let (sent, bytes) = ours.sent(Deadline::NEVER).await;
            sent.unwrap();
            assert_eq!((bytes, ours.is_sending()), (b"ask".to_vec(), false));
            peer.write_all(b"answer").unwrap();
            let (read, _) = ours.received(Deadline::NEVER, None).await.unwrap();
            assert_eq!(read.unwrap(), 6);
        });
    }

    /// The runtime of the test ends only when nothing is in flight.
    #[test]
    fn a_posted_send_is_waited_for_by_its_connection() {
        on_both_drivers(|| async {
            let Connected { ours, mut peer, buffers, .. } = connected();
            ours.post_receive(buffers.take().unwrap());
            let posted = ours.post_send(b"ask".to_vec());
            drop(ours);
            let mut heard = Vec::new();
            // The connection is cut, and perhaps before the bytes have left.
            let _ = peer.read_to_end(&mut heard);
            assert!(heard.is_empty() || (posted.is_ok() && heard == b"ask"));
        });
    }

    /// Only a panic drops a send of the ring; it must not cause another one.
    #[test]
    fn a_send_that_was_dropped_lets_its_connection_be_closed() {
        on_both_drivers(|| async {
            let Connected { ours, mut peer, .. } = connected();
            {
                let mut sending = pin!(ours.send_vec(b"abc".to_vec(), || Deadline::NEVER));
                _ = poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx))).await;
            }
            drop(ours);
            peer.set_nonblocking(true).unwrap();
            eventually(|| matches!(peer.read(&mut [0; 8]), Ok(0))).await;
        });
    }

    #[test]
    fn a_poll_that_was_dropped_keeps_no_connection_open() {
        on_both_drivers(|| async {
            let Connected { ours, mut peer, .. } = connected();
            {
                let mut waiting = pin!(ours.readable());
                let polled = poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx))).await;
                assert!(polled.is_pending());
            }
            drop(ours);
            peer.set_nonblocking(true).unwrap();
            eventually(|| matches!(peer.read(&mut [0; 8]), Ok(0))).await;
        });
    }
}
