//! The layer of a stream: what is between it and its wire. Plain, or TLS.
//!
//! Nothing above `net` knows which layer a stream has. A layer's contract: a call that does not
//! wait returns `WouldBlock` if there is nothing, or no room; `readable` may end without a byte to
//! read (a layer may have read something for itself); a write may take nothing (0) and yet have
//! made progress, and what it does not take is sent again; and a layer whose bytes are not those of
//! its descriptor says that it cannot be spliced.

use std::{
    future::Future,
    io,
    os::fd::{BorrowedFd, OwnedFd},
    rc::Rc,
    time::Duration,
};

use std::os::fd::AsFd;

use monoio::buf::IoBuf;

use super::wire::Wire;
use crate::net::{
    buffer::Buffer,
    fd::{self, Ready, Receiving, Sending},
    tls::Tls,
};

/// The layer of a stream.
pub(super) enum Layer {
    /// None: the bytes of the stream are those of its wire.
    Plain(Wire),
    Tls(Rc<Tls>),
}

impl Layer {
    #[inline]
    fn wire(&self) -> &Wire {
        match self {
            Layer::Plain(wire) => wire,
            Layer::Tls(tls) => tls.wire(),
        }
    }

    /// Whether the bytes on its descriptor are the stream's own.
    pub(super) fn can_splice(&self) -> bool {
        match self {
            Layer::Plain(wire) => wire.can_splice(),
            Layer::Tls(_) => false,
        }
    }

    /// Makes every call end at once, and returns whether it can be spliced.
    pub(super) fn is_bulky(&self) -> bool {
        match self {
            Layer::Plain(wire) => wire.borrowed().is_ok_and(|fd| fd::never_blocks(fd).is_ok()),
            Layer::Tls(_) => false,
        }
    }

    /// Until there is something to read, an end or an error. May be dropped at any time.
    #[inline]
    pub(super) fn readable(&self) -> Ready<impl Future<Output = io::Result<()>>> {
        // One wait for both kinds: every idle connection keeps its room.
        match self {
            Layer::Tls(tls) if tls.has_something() => Ready::Now,
            Layer::Plain(_) | Layer::Tls(_) => self.wire().readable(),
        }
    }

    /// Until there is room to write, or an error. May be dropped at any time.
    #[inline]
    pub(super) fn writable(&self) -> Ready<impl Future<Output = io::Result<()>>> {
        self.wire().writable()
    }

    /// Reads what is there.
    #[inline]
    pub(super) fn recv(&self, buffer: &mut Buffer) -> io::Result<usize> {
        match self {
            Layer::Plain(wire) => wire.recv(buffer),
            Layer::Tls(tls) => tls.recv(buffer),
        }
    }

    /// Whether there is something to read, without reading it: 1, or 0 at the end.
    pub(super) fn peek(&self) -> io::Result<usize> {
        match self {
            Layer::Plain(wire) => wire.peek(),
            Layer::Tls(tls) => tls.peek(),
        }
    }

    /// A copy of the descriptor, if all of the state of the connection is in the kernel.
    pub(super) fn copied(&self) -> Option<OwnedFd> {
        match self {
            Layer::Plain(wire) => wire.borrowed().ok()?.try_clone_to_owned().ok(),
            Layer::Tls(_) => None,
        }
    }

    /// Reads what is there and drops it. Nothing else is read afterwards.
    pub(super) fn discard(&self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Layer::Plain(wire) => wire.discard(room),
            Layer::Tls(tls) => tls.discard(room),
        }
    }

    /// Writes what fits. `more`: the rest follows at once.
    #[inline]
    pub(super) fn send(&self, bytes: &[u8], more: bool) -> io::Result<usize> {
        match self {
            Layer::Plain(wire) => wire.send(bytes, more),
            Layer::Tls(tls) => tls.send(bytes, &[], more),
        }
    }

    /// Writes what fits of two pieces, in order, in one call.
    #[inline]
    pub(super) fn send_both(&self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        match self {
            Layer::Plain(wire) => wire.send_both(first, second),
            Layer::Tls(tls) => tls.send(first, second, false),
        }
    }

    /// Hands a piece to the ring: it leaves with everything else of this turn.
    #[inline]
    pub(super) async fn submit<T: IoBuf>(&self, piece: T) -> (io::Result<usize>, T) {
        match self {
            Layer::Plain(wire) => wire.submit(piece).await,
            Layer::Tls(tls) => tls.submit(piece).await,
        }
    }

    /// Receives that take what comes next into a buffer, one at a time.
    pub(super) fn receiving(&self) -> Receiving {
        match self {
            Layer::Plain(wire) => wire.receiving(),
            Layer::Tls(tls) => tls.receiving(),
        }
    }

    /// Sends of bytes that the ring takes, one at a time.
    pub(super) fn sending(&self) -> Sending {
        match self {
            Layer::Plain(wire) => wire.sending(),
            Layer::Tls(tls) => tls.sending(),
        }
    }

    /// Moves bytes from it into a pipe.
    #[inline]
    pub(super) fn splice_into(&self, pipe: &OwnedFd, count: usize) -> io::Result<usize> {
        fd::splice(self.spliced()?, pipe.as_fd(), count, false)
    }

    /// Moves bytes from a pipe into it.
    #[inline]
    pub(super) fn splice_from(
        &self,
        pipe: &OwnedFd,
        count: usize,
        more: bool,
    ) -> io::Result<usize> {
        fd::splice(pipe.as_fd(), self.spliced()?, count, more)
    }

    fn spliced(&self) -> io::Result<BorrowedFd<'_>> {
        match self {
            Layer::Plain(wire) => wire.borrowed(),
            Layer::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Says that nothing more follows, if there is a way to say that besides the end itself.
    pub(super) fn say_end(&self) {
        match self {
            Layer::Plain(_) => {}
            Layer::Tls(tls) => tls.say_end(),
        }
    }

    /// Says the same where the connection is given up, if it is to a backend: to a client half an
    /// answer could look whole.
    pub(super) fn leave(&self) {
        match self {
            Layer::Plain(_) => {}
            Layer::Tls(tls) if tls.is_to_backend() => tls.say_end(),
            Layer::Tls(_) => {}
        }
    }

    /// Whether there are unread bytes.
    pub(super) fn has_unread(&self) -> bool {
        self.wire().has_unread()
    }

    /// Whether the kernel has yet to send something.
    pub(super) fn has_unsent(&self) -> bool {
        self.wire().has_unsent()
    }

    /// Bytes that the peer has not acknowledged.
    pub(super) fn unacknowledged(&self) -> usize {
        self.wire().unacknowledged()
    }

    /// Sets how long sent data may go without an acknowledgement.
    pub(super) fn outlasts(&self, time: Duration) {
        self.wire().outlasts(time);
    }

    /// Makes its close a reset.
    pub(super) fn reset_on_close(&self) {
        self.wire().reset_on_close();
    }

    /// Closes it. What an operation in flight still holds is left to that.
    pub(super) fn close(self, something_in_flight: bool) {
        match self {
            Layer::Plain(wire) => wire.close(something_in_flight),
            Layer::Tls(tls) => {
                if let Some(wire) = tls.into_wire() {
                    wire.close(something_in_flight);
                }
            }
        }
    }
}
