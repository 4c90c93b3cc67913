//! The wire of a stream: the connection on which its bytes travel, and that TLS runs over.
//!
//! A connection of TCP or by a Unix socket; in tests also a scripted peer. A call that does not
//! wait returns `WouldBlock` if there is nothing, or no room.

use std::{
    future::Future,
    io,
    os::fd::{BorrowedFd, RawFd},
    time::Duration,
};

use monoio::buf::IoBuf;

use crate::net::{
    buffer::Buffer,
    fd::{self, Ready, Receiving, Sending, Shared, Socket},
    io::outlast,
};

#[cfg(test)]
use super::script::Script;
#[cfg(test)]
use std::rc::Rc;

/// What carries the bytes of a stream.
pub(crate) enum Wire {
    /// A connection.
    Plain(Shared),
    /// A scripted peer, without a descriptor.
    #[cfg(test)]
    Script(Rc<Script>),
}

impl Wire {
    pub(crate) fn plain(stream: Socket) -> Wire {
        Wire::Plain(Shared::new(stream))
    }

    /// The number of its descriptor.
    pub(crate) fn raw(&self) -> RawFd {
        match self {
            Wire::Plain(shared) => shared.raw(),
            #[cfg(test)]
            Wire::Script(script) => script.number(),
        }
    }

    /// Whether the bytes on its descriptor are the stream's own.
    pub(crate) fn can_splice(&self) -> bool {
        match self {
            Wire::Plain(_) => true,
            #[cfg(test)]
            Wire::Script(_) => false,
        }
    }

    /// Until there is something to read, an end or an error. May be dropped at any time.
    #[inline]
    pub(crate) fn readable(&self) -> Ready<impl Future<Output = io::Result<()>>> {
        match self {
            Wire::Plain(shared) => Ready::Socket(shared.stream().readable(false)),
            #[cfg(test)]
            Wire::Script(script) => {
                let script = Rc::clone(script);
                Ready::Script(Box::pin(async move { script.readable().await }))
            }
        }
    }

    /// Until there is room to write, or an error. May be dropped at any time.
    #[inline]
    pub(crate) fn writable(&self) -> Ready<impl Future<Output = io::Result<()>>> {
        match self {
            Wire::Plain(shared) => Ready::Socket(shared.stream().writable(false)),
            #[cfg(test)]
            Wire::Script(script) => {
                let script = Rc::clone(script);
                Ready::Script(Box::pin(async move { script.writable().await }))
            }
        }
    }

    /// Reads what is there.
    #[inline]
    pub(crate) fn recv(&self, buffer: &mut Buffer) -> io::Result<usize> {
        match self {
            Wire::Plain(shared) => fd::recv(shared.borrowed(), buffer),
            #[cfg(test)]
            Wire::Script(script) => script.recv(buffer),
        }
    }

    /// Whether there is something to read, without reading it: 1, or 0 at the end.
    pub(crate) fn peek(&self) -> io::Result<usize> {
        match self {
            Wire::Plain(shared) => fd::peek(shared.borrowed()),
            #[cfg(test)]
            Wire::Script(script) => script.peek(),
        }
    }

    /// Reads what is there and drops it.
    pub(crate) fn discard(&self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(shared) => fd::discard(shared.borrowed(), room),
            #[cfg(test)]
            Wire::Script(script) => script.read(room),
        }
    }

    /// Writes what fits. `more`: the rest follows at once.
    #[inline]
    pub(crate) fn send(&self, bytes: &[u8], more: bool) -> io::Result<usize> {
        match self {
            Wire::Plain(shared) => fd::send(shared.borrowed(), bytes, more),
            #[cfg(test)]
            Wire::Script(script) => script.write(bytes),
        }
    }

    /// Writes what fits of two pieces, in order, in one call.
    #[inline]
    pub(crate) fn send_both(&self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(shared) => fd::send_both(shared.borrowed(), first, second),
            #[cfg(test)]
            Wire::Script(script) => script.write(&[first, second].concat()),
        }
    }

    /// Hands a piece to the ring: it leaves with everything else of this turn.
    #[inline]
    pub(crate) async fn submit<T: IoBuf>(&self, piece: T) -> (io::Result<usize>, T) {
        match self {
            Wire::Plain(shared) => shared.submit(piece).await,
            #[cfg(test)]
            Wire::Script(script) => (script.write(fd::bytes_of(&piece)), piece),
        }
    }

    /// Receives that take what comes next into a buffer, one at a time.
    pub(crate) fn receiving(&self) -> Receiving {
        match self {
            Wire::Plain(shared) => shared.receiving(),
            #[cfg(test)]
            Wire::Script(script) => Script::receiving(script),
        }
    }

    /// Sends of bytes that the ring takes, one at a time.
    pub(crate) fn sending(&self) -> Sending {
        match self {
            Wire::Plain(shared) => shared.sending(),
            #[cfg(test)]
            Wire::Script(script) => Script::sending(script),
        }
    }

    /// Its descriptor, if the kernel can move its bytes.
    pub(crate) fn borrowed(&self) -> io::Result<BorrowedFd<'_>> {
        match self {
            Wire::Plain(shared) => Ok(shared.borrowed()),
            #[cfg(test)]
            Wire::Script(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Whether there are unread bytes.
    pub(crate) fn has_unread(&self) -> bool {
        match self {
            Wire::Plain(shared) => fd::has_bytes(shared.raw()),
            #[cfg(test)]
            Wire::Script(script) => script.has_unread(),
        }
    }

    /// Whether the kernel has yet to send something.
    pub(crate) fn has_unsent(&self) -> bool {
        match self {
            Wire::Plain(shared) => fd::unsent(shared.raw()) > 0,
            #[cfg(test)]
            Wire::Script(_) => false,
        }
    }

    /// Bytes that the peer has not acknowledged.
    pub(crate) fn unacknowledged(&self) -> usize {
        match self {
            Wire::Plain(shared) => fd::unacknowledged(shared.raw()),
            #[cfg(test)]
            Wire::Script(_) => 0,
        }
    }

    /// Sets how long sent data may go without an acknowledgement.
    pub(crate) fn outlasts(&self, time: Duration) {
        match self {
            Wire::Plain(shared) => outlast(&shared.borrowed(), time),
            #[cfg(test)]
            Wire::Script(_) => {}
        }
    }

    /// Makes its close a reset.
    pub(crate) fn reset_on_close(&self) {
        match self {
            Wire::Plain(shared) => fd::reset_on_close(shared.borrowed()),
            #[cfg(test)]
            Wire::Script(script) => script.reset_on_close(),
        }
    }

    /// Closes it. What an operation in flight still holds is left to that.
    pub(crate) fn close(self, something_in_flight: bool) {
        match self {
            Wire::Plain(shared) => fd::close(shared, something_in_flight),
            #[cfg(test)]
            Wire::Script(script) => script.close(),
        }
    }
}
