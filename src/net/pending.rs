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
    task::{Context, Poll},
};

use super::{
    buffer::{Buffer, Buffers},
    fd::{Flag, Receiving},
    repeated::Done,
};

thread_local! {
    /// How many operations of this thread have begun.
    static BEGUN: Cell<u64> = const { Cell::new(0) };
    /// The latest of them that had to be waited for and has ended.
    static ENDED: Cell<u64> = const { Cell::new(0) };
}

/// A position in the order of this thread's operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
#[must_use]
pub(super) struct Begun(u64);

/// The operations of one connection that have not ended.
#[derive(Default)]
pub(super) struct Pending {
    /// Made with the first receive.
    receiver: OnceCell<Box<Receiver>>,
    /// Operations that have not ended. One that was dropped before it ended (a poll, or by a panic
    /// a send) never does: monoio then still holds the descriptor.
    under_way: Cell<u32>,
}

/// The receives of one connection.
pub(super) struct Receiver {
    receiving: Receiving,
    /// Raised when the receive may have ended, until a task waits for it.
    stirs: Flag,
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
        self.receiver.get().map_or(Poll::Pending, |receiver| receiver.receiving.poll(cx))
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

    /// The receives, of which the caller must wait for the one that is posted, if one is.
    pub(super) fn take_receiver(&mut self) -> Option<Box<Receiver>> {
        self.receiver.take()
    }
}

impl Receiver {
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

    /// Whether a receive is posted.
    pub(super) fn is_receiving(&self) -> bool {
        self.receiving.is_under_way()
    }

    /// Waits for the posted receive to end.
    pub(super) async fn ends(&self) {
        drop(poll_fn(|cx| self.receiving.poll(cx)).await);
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
    };

    use super::*;
    use crate::base::moment::Deadline;
    use crate::net::{
        clock::Clock,
        deadlines::{Deadlines, Watch},
        stream::Stream,
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
            let (read, buffer) = ours.received().await;
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
