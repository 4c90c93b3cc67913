//! The layer that carries the bytes of a stream: today a plain TCP connection.
//!
//! Nothing above `net` knows which layer a stream has. A layer's contract: a call that does not
//! wait returns `WouldBlock` if there is nothing; `readable` may end without a byte to read (a
//! layer may have read something for itself); and a layer whose bytes are not those of its
//! descriptor says that it cannot be spliced.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd},
    time::Duration,
};

use monoio::{buf::IoBuf, net::TcpStream};

use crate::net::{
    buffer::Buffer,
    fd::{self, Receiving, Shared},
    io::outlast,
};

#[cfg(test)]
use super::script::Script;
#[cfg(test)]
use std::rc::Rc;

/// The layer of a stream.
pub(super) enum Layer {
    /// A TCP connection.
    Plain(Shared),
    /// A scripted peer, without a descriptor.
    #[cfg(test)]
    Script(Rc<Script>),
}

impl Layer {
    pub(super) fn plain(stream: TcpStream) -> Layer {
        Layer::Plain(Shared::new(stream))
    }

    /// The number of its descriptor.
    pub(super) fn raw(&self) -> RawFd {
        match self {
            Layer::Plain(shared) => shared.raw(),
            #[cfg(test)]
            Layer::Script(script) => script.number(),
        }
    }

    /// Whether the bytes on its descriptor are the stream's own.
    pub(super) fn can_splice(&self) -> bool {
        match self {
            Layer::Plain(_) => true,
            #[cfg(test)]
            Layer::Script(_) => false,
        }
    }

    /// Until there is something to read, an end or an error. May be dropped at any time.
    #[inline]
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Layer::Plain(shared) => shared.stream().readable(false).await,
            #[cfg(test)]
            Layer::Script(script) => script.readable().await,
        }
    }

    /// Until there is room to write, or an error. May be dropped at any time.
    #[inline]
    pub(super) async fn writable(&self) -> io::Result<()> {
        match self {
            Layer::Plain(shared) => shared.stream().writable(false).await,
            #[cfg(test)]
            Layer::Script(script) => script.writable().await,
        }
    }

    /// Reads what is there.
    #[inline]
    pub(super) fn recv(&self, buffer: &mut Buffer) -> io::Result<usize> {
        match self {
            Layer::Plain(shared) => fd::recv(shared.borrowed(), buffer),
            #[cfg(test)]
            Layer::Script(script) => script.recv(buffer),
        }
    }

    /// Whether there is something to read, without reading it: 1, or 0 at the end.
    pub(super) fn peek(&self) -> io::Result<usize> {
        match self {
            Layer::Plain(shared) => fd::peek(shared.borrowed()),
            #[cfg(test)]
            Layer::Script(script) => script.peek(),
        }
    }

    /// Reads what is there and drops it.
    pub(super) fn discard(&self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Layer::Plain(shared) => fd::discard(shared.borrowed(), room),
            #[cfg(test)]
            Layer::Script(script) => script.read(room),
        }
    }

    /// Writes what fits. `more`: the rest follows at once.
    #[inline]
    pub(super) fn send(&self, bytes: &[u8], more: bool) -> io::Result<usize> {
        match self {
            Layer::Plain(shared) => fd::send(shared.borrowed(), bytes, more),
            #[cfg(test)]
            Layer::Script(script) => script.write(bytes),
        }
    }

    /// Writes what fits of two pieces, in order, in one call.
    #[inline]
    pub(super) fn send_both(&self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        match self {
            Layer::Plain(shared) => fd::send_both(shared.borrowed(), first, second),
            #[cfg(test)]
            Layer::Script(script) => script.write(&[first, second].concat()),
        }
    }

    /// Hands a piece to the ring: it leaves with everything else of this turn.
    #[inline]
    pub(super) async fn submit<T: IoBuf>(&self, piece: T) -> (io::Result<usize>, T) {
        match self {
            Layer::Plain(shared) => shared.submit(piece).await,
            #[cfg(test)]
            Layer::Script(script) => (script.write(fd::bytes_of(&piece)), piece),
        }
    }

    /// Receives that take what comes next into a buffer, one at a time.
    pub(super) fn receiving(&self) -> Receiving {
        match self {
            Layer::Plain(shared) => shared.receiving(),
            #[cfg(test)]
            Layer::Script(script) => Script::receiving(script),
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
            Layer::Plain(shared) => Ok(shared.borrowed()),
            #[cfg(test)]
            Layer::Script(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Whether there are unread bytes.
    pub(super) fn has_unread(&self) -> bool {
        match self {
            Layer::Plain(shared) => fd::has_bytes(shared.raw()),
            #[cfg(test)]
            Layer::Script(script) => script.has_unread(),
        }
    }

    /// Whether the kernel has yet to send something.
    pub(super) fn has_unsent(&self) -> bool {
        match self {
            Layer::Plain(shared) => fd::unsent(shared.raw()) > 0,
            #[cfg(test)]
            Layer::Script(_) => false,
        }
    }

    /// Bytes that the peer has not acknowledged.
    pub(super) fn unacknowledged(&self) -> usize {
        match self {
            Layer::Plain(shared) => fd::unacknowledged(shared.raw()),
            #[cfg(test)]
            Layer::Script(_) => 0,
        }
    }

    /// Sets how long sent data may go without an acknowledgement.
    pub(super) fn outlasts(&self, time: Duration) {
        match self {
            Layer::Plain(shared) => outlast(&shared.borrowed(), time),
            #[cfg(test)]
            Layer::Script(_) => {}
        }
    }

    /// Makes its close a reset.
    pub(super) fn reset_on_close(&self) {
        match self {
            Layer::Plain(shared) => fd::reset_on_close(shared.borrowed()),
            #[cfg(test)]
            Layer::Script(script) => script.reset_on_close(),
        }
    }

    /// Closes it. What an operation in flight still holds is left to that.
    pub(super) fn close(self, something_in_flight: bool) {
        match self {
            Layer::Plain(shared) => fd::close(shared, something_in_flight),
            #[cfg(test)]
            Layer::Script(script) => script.close(),
        }
    }
}
