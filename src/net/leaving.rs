//! Detection of clients that have left while a backend is waited for.
//!
//! A reset counts, and by default the end of the stream too: a client that closed one half and
//! waits cannot be told from one that is gone (nginx, Envoy, HAProxy's `abortonclose`). The socket
//! is polled, and nothing is read: unread bytes before the end, the next requests of a pipeline or
//! the rest of a body, do not hide it.

use std::os::fd::RawFd;

use super::fd;

/// A client on whose behalf a backend is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ForClient {
    pub(super) fd: RawFd,
    /// Its entry among the deadlines of its worker.
    pub(super) entry: u32,
    pub(super) leaves: Leaves,
}

/// In place of the descriptor of a client that is a stream: there is nothing to look at, and its
/// entry is told.
pub(super) const OF_STREAM: RawFd = -2;

/// The signs by which a client has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaves {
    /// Only a reset: it may close its half and wait.
    Reset,
    /// The end of its stream.
    End,
    /// The end of its stream, if nothing is sent to it from one check to the next: it has been
    /// answered, and may read a long answer to its end.
    LastingEnd,
    /// It has left.
    Gone,
}

/// The result of checking a client's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    There,
    /// It has left if this is still so at the next check.
    Doubtful,
    Left,
}

impl ForClient {
    pub(super) fn new((fd, entry): (RawFd, u32), leaves: Leaves) -> ForClient {
        ForClient { fd, entry, leaves }
    }

    /// Checks whether it is there.
    pub(crate) fn look(self) -> Look {
        match self.leaves {
            Leaves::Gone => Look::Left,
            _ if self.fd == OF_STREAM => Look::There,
            Leaves::Reset if fd::has_left(self.fd) => Look::Left,
            Leaves::End if fd::has_closed(self.fd) => Look::Left,
            Leaves::LastingEnd if fd::has_left(self.fd) => Look::Left,
            Leaves::LastingEnd if fd::has_closed(self.fd) => Look::Doubtful,
            Leaves::Reset | Leaves::End | Leaves::LastingEnd => Look::There,
        }
    }

    /// Whether it has left for certain.
    pub(crate) fn has_left(self) -> bool {
        self.look() == Look::Left
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        net::{Shutdown, TcpStream},
        os::fd::AsRawFd,
    };

    use super::*;

    #[test]
    fn a_client_is_gone_by_what_its_socket_says_whatever_lies_unread() {
        type Does = fn(TcpStream) -> Option<TcpStream>;
        let waits: Does = Some;
        let half_closes: Does = |client| client.shutdown(Shutdown::Write).ok().map(|()| client);
        let closes: Does = |_| None;
        let resets: Does = |client| {
            let linger = Some(std::time::Duration::ZERO);
            rustix::net::sockopt::set_socket_linger(&client, linger).unwrap();
            None
        };
        for (does, expected) in [
            (waits, [Look::There, Look::There, Look::There]),
            (half_closes, [Look::There, Look::Left, Look::Doubtful]),
            (closes, [Look::There, Look::Left, Look::Doubtful]),
            (resets, [Look::Left, Look::Left, Look::Left]),
        ] {
            for unread in [&b""[..], b"GET /next HTTP/1.1\r\n"] {
                let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let (ours, _) = listener.accept().unwrap();
                client.write_all(unread).unwrap();
                let kept = does(client);
                let looks = [Leaves::Reset, Leaves::End, Leaves::LastingEnd]
                    .map(|leaves| ForClient::new((ours.as_raw_fd(), 0), leaves).look());
                assert_eq!(looks, expected, "{unread:?}");
                drop(kept);
            }
        }
    }
}
