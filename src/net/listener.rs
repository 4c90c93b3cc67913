//! Listening sockets: one for each worker and address, joined by SO_REUSEPORT.
//!
//! SO_REUSEPORT alone would let a second Ringway join unnoticed, and a bind alone two that start at
//! the same moment: sockets that do not listen yet may share an address. So the first socket
//! listens at once and without it, which the kernel allows one process only; then it gets the
//! option, and the others join. They listen when all is ready. A Unix socket cannot be joined: the
//! workers share one.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use monoio::net::TcpStream;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, ipproto, sockopt};

use super::{
    fd,
    io::{self as net_io, set_peer_options},
    socket_file::{self, Rights, SocketFile},
};
use crate::base::endpoint::{Endpoint, UnixPath};

/// The sockets of one address, one for each worker.
#[derive(Debug)]
pub(crate) struct Bound {
    /// The address that was bound: port 0 has become a number.
    pub(crate) address: Endpoint,
    pub(crate) sockets: Vec<OwnedFd>,
    /// How many of them, from the first on, another process has, too.
    pub(crate) shared: usize,
    /// The file of a Unix socket that this process is to remove.
    pub(crate) file: Option<SocketFile>,
}

/// The first socket of an address, which no other process may have.
pub(crate) struct First {
    /// The address that was bound.
    pub(crate) address: Endpoint,
    socket: OwnedFd,
    v6_only: bool,
    patience: Duration,
    file: Option<SocketFile>,
}

/// A Unix socket for all workers, which listens from now on.
///
/// # Errors
/// Like `socket_file::listen`.
pub(crate) fn bind_unix(path: UnixPath, rights: Rights, backlog: u32) -> io::Result<First> {
    let (socket, file) = socket_file::listen(path, rights, backlog)?;
    let (v6_only, patience) = (false, Duration::ZERO);
    Ok(First { address: Endpoint::Unix(path), socket, v6_only, patience, file })
}

/// Binds the first socket of an address, whose connections wait for an acknowledgement as long as
/// their writes may wait: `patience`.
///
/// # Errors
/// The kernel's; `AddrInUse` if another process listens there.
pub(crate) fn bind(address: SocketAddr, v6_only: bool, patience: Duration) -> io::Result<First> {
    let socket = socket(address, v6_only)?;
    net_io::outlast(&socket, patience);
    rustix::net::bind(&socket, &address)?;
    let address = SocketAddr::try_from(rustix::net::getsockname(&socket)?)
        .map_err(|_| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
    Ok(First { address: Endpoint::Tcp(address), socket, v6_only, patience, file: None })
}

impl First {
    /// Listens, and takes the address for this process. An address within one that this process has
    /// taken already is ours too.
    ///
    /// # Errors
    /// The kernel's; `AddrInUse` if another process was first.
    pub(crate) fn claim(&self, backlog: u32, is_ours: bool) -> io::Result<()> {
        if self.address.unix().is_some() {
            return Ok(());
        }
        sockopt::set_socket_reuseport(&self.socket, is_ours)?;
        listen_on(&self.socket, backlog)?;
        Ok(sockopt::set_socket_reuseport(&self.socket, true)?)
    }

    /// Binds the sockets of the other workers, of `count` in all; they do not listen before
    /// `listen`.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn join(self, count: usize) -> io::Result<Bound> {
        let First { address, socket: first, v6_only, patience, file } = self;
        let mut sockets = vec![first];
        for _ in 1..count {
            let next = match address {
                Endpoint::Tcp(address) => joined(address, v6_only, patience)?,
                Endpoint::Unix(_) => sockets[0].try_clone()?,
            };
            sockets.push(next);
        }
        Ok(Bound { address, sockets, shared: 0, file })
    }
}

/// One more socket of an address that this process has.
fn joined(address: SocketAddr, v6_only: bool, patience: Duration) -> io::Result<OwnedFd> {
    let next = socket(address, v6_only)?;
    net_io::outlast(&next, patience);
    sockopt::set_socket_reuseport(&next, true)?;
    rustix::net::bind(&next, &address)?;
    Ok(next)
}

/// Sockets of an address that another process has opened, and as many of our own as are missing for
/// `count` workers. Sockets of another user cannot be joined: then workers share what there is.
///
/// # Errors
/// The kernel's.
pub(crate) fn adopt(
    (address, mut sockets): (Endpoint, Vec<OwnedFd>),
    (v6_only, patience): (bool, Duration),
    (count, is_shared): (usize, bool),
) -> io::Result<Bound> {
    for socket in &sockets {
        rustix::io::ioctl_fionbio(socket, true)?;
        if address.unix().is_some() {
            continue;
        }
        sockopt::set_socket_reuseport(socket, true)?;
        set_peer_options(socket)?;
        net_io::outlast(socket, patience);
    }
    let given = sockets.len();
    let mut shared = if is_shared { given } else { 0 };
    while sockets.len() < count {
        match address.tcp().map(|address| joined(address, v6_only, patience)) {
            Some(Ok(own)) => sockets.push(own),
            Some(Err(_)) | None => {
                let copy = sockets[sockets.len() % given].try_clone()?;
                sockets.push(copy);
                if is_shared {
                    shared = sockets.len();
                }
            }
        }
    }
    Ok(Bound { address, sockets, shared, file: None })
}

/// The address of a stream socket that listens; none if it is something else.
pub(crate) fn listens_on(socket: &OwnedFd) -> Option<Endpoint> {
    let is_stream = sockopt::socket_type(socket) == Ok(SocketType::STREAM);
    let listens = is_stream && sockopt::socket_acceptconn(socket) == Ok(true);
    let address = rustix::net::getsockname(socket).ok()?;
    let endpoint = match SocketAddr::try_from(address.clone()) {
        Ok(address) => Endpoint::Tcp(address),
        Err(_) => Endpoint::Unix(unix_path(&SocketAddrUnix::try_from(address).ok()?)?),
    };
    listens.then_some(endpoint)
}

/// What a Unix socket is bound to; none if it is bound to nothing, or to what is no text.
fn unix_path(address: &SocketAddrUnix) -> Option<UnixPath> {
    let text = match address.abstract_name() {
        Some(name) => format!("@{}", str::from_utf8(name).ok()?),
        None => address.path()?.to_str().ok()?.to_owned(),
    };
    UnixPath::new(&text).ok()
}

/// Begins to listen, on all sockets of an address.
pub(crate) fn listen(bound: &Bound, backlog: u32) -> io::Result<()> {
    bound.sockets.iter().try_for_each(|socket| listen_on(socket, backlog))
}

fn listen_on(socket: &OwnedFd, backlog: u32) -> io::Result<()> {
    Ok(rustix::net::listen(socket, i32::try_from(backlog).unwrap_or(i32::MAX))?)
}

fn socket(address: SocketAddr, v6_only: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, v6_only)?;
    }
    // Accepted connections inherit these: one call for all of them.
    set_peer_options(&socket)?;
    Ok(socket)
}

/// A worker's own socket of an address, in its runtime.
pub(crate) struct Listener {
    /// monoio's listener has no readiness poll; its stream has, and the kernel does not mind.
    polled: TcpStream,
    socket: OwnedFd,
}

impl Listener {
    /// Takes a socket into the runtime of this thread.
    pub(crate) fn adopt(socket: OwnedFd) -> io::Result<Listener> {
        let copy = socket.try_clone()?;
        let polled = TcpStream::from_std(std::net::TcpStream::from(copy))?;
        Ok(Listener { polled, socket })
    }

    /// Until there may be a connection to accept.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.polled.readable(false).await
    }

    /// Accepts a waiting connection; `WouldBlock` if there is none.
    pub(crate) fn accept(&self) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
        fd::accept(self.socket.as_fd())
    }

    /// Takes another backlog, and the time that its connections wait for an acknowledgement from
    /// now on. What the kernel refuses stays as it is.
    pub(crate) fn tune(&self, backlog: u32, patience: Duration) {
        net_io::outlast(&self.socket, patience);
        let _ = listen_on(&self.socket, backlog);
    }

    /// Lets no new connection into the queue; those in it can still be accepted. Nobody finds a
    /// Unix socket whose file has been removed, which its owner does before.
    pub(crate) fn refuse_new(&self) -> io::Result<()> {
        match sockopt::socket_domain(&self.socket)? {
            AddressFamily::UNIX => Ok(()),
            _ => fd::refuse_new(self.socket.as_fd()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn a_second_bind_of_the_same_address_is_refused_while_our_own_workers_join() {
        let first = bind("127.0.0.1:0".parse().unwrap(), true, PATIENCE).unwrap();
        let address = first.address.tcp().unwrap();
        // Both may bind; one of them may listen.
        let other = bind(address, true, PATIENCE).unwrap();
        first.claim(16, false).unwrap();
        assert_eq!(other.claim(16, false).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let bound = first.join(4).unwrap();
        assert_eq!(bound.sockets.len(), 4);
        listen(&bound, 16).unwrap();
        let again = bind(address, true, PATIENCE).err().unwrap();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_listener_that_refuses_new_connections_still_gives_those_in_its_queue() {
        let first = bind("127.0.0.1:0".parse().unwrap(), true, PATIENCE).unwrap();
        first.claim(16, false).unwrap();
        let bound = first.join(1).unwrap();
        let queued = std::net::TcpStream::connect(bound.address.tcp().unwrap()).unwrap();
        let socket = bound.sockets[0].as_fd();
        fd::refuse_new(socket).unwrap();
        assert_eq!(fd::accept(socket).unwrap().1, Some(queued.local_addr().unwrap()));
        let wait = std::time::Duration::from_millis(100);
        assert!(std::net::TcpStream::connect_timeout(&bound.address.tcp().unwrap(), wait).is_err());
    }

    /// The kernel's patience with a peer is never shorter than ours.
    #[test]
    fn accepted_connections_outlast_the_longest_wait() {
        for (wait, expected) in
            [(5, 30_000), (30, 30_000), (31, 31_000), (7_200, 7_200_000), (0, 0)]
        {
            let wait = Duration::from_secs(wait);
            let first = bind("127.0.0.1:0".parse().unwrap(), true, wait).unwrap();
            first.claim(16, false).unwrap();
            let bound = first.join(1).unwrap();
            let _client = std::net::TcpStream::connect(bound.address.tcp().unwrap()).unwrap();
            let accepted = fd::accept(bound.sockets[0].as_fd()).unwrap().0;
            let timeout = sockopt::tcp_user_timeout(&accepted).unwrap();
            assert_eq!(timeout, expected, "{wait:?}");
            assert!(sockopt::socket_oobinline(&accepted).unwrap());
        }
    }
}
