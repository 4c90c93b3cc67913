//! The sockets of the admin interface, and the streams accepted there.
//!
//! An address of the network, and a Unix socket for the command line, which only its owner can
//! open.

use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            fs::{DirBuilderExt as _, PermissionsExt as _},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use super::{guard::From, request::Stream};

/// Where it listens.
pub(crate) enum Bound {
    Tcp(TcpListener),
    /// Its path stays when it is dropped: another process may listen there, too.
    Socket(UnixListener),
}

/// The path of the Unix socket for a process that reads these files. Its folder is the one the
/// service manager made for the process, else the user's, else the system's; its name is different
/// for each set of files.
pub(crate) fn admin_socket(files: &[PathBuf]) -> Option<PathBuf> {
    let socket = admin_sockets(files).into_iter().next()?;
    // A folder made here is open to this user alone; an existing one keeps its mode.
    let _ = std::fs::DirBuilder::new().mode(0o700).create(socket.parent()?);
    Some(socket)
}

/// Where the socket may be, the best place first: the process may have been started by another user
/// or with another environment.
pub(crate) fn admin_sockets(files: &[PathBuf]) -> Vec<PathBuf> {
    if files.is_empty() {
        return Vec::new();
    }
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let given = set("RUNTIME_DIRECTORY").map(PathBuf::from);
    let of_user = set("XDG_RUNTIME_DIR").map(|folder| Path::new(&folder).join("ringway"));
    let mut folders: Vec<_> = given.into_iter().chain(of_user).collect();
    folders.push(PathBuf::from("/run/ringway"));
    folders.dedup();
    let name = format!("{}.sock", hash_of(files));
    folders.into_iter().map(|folder| folder.join(&name)).collect()
}

/// What stands for a set of files in a file's name: 16 hex digits.
pub(crate) fn hash_of(files: &[PathBuf]) -> String {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    for file in named(files) {
        hash.update(file.as_bytes());
        hash.update(b"\0");
    }
    format!("{:016x}", hash.digest())
}

/// The whole paths of files, the same for every process. Links are not followed: they are how
/// files are replaced, of a deployment or of a mounted volume, and the process stays the same.
pub(crate) fn named(files: &[PathBuf]) -> Vec<String> {
    let whole = |file: &PathBuf| std::path::absolute(file).unwrap_or_else(|_| file.clone());
    files.iter().map(|file| whole(file).to_string_lossy().into_owned()).collect()
}

impl Bound {
    /// An address of this machine.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn tcp(address: SocketAddr) -> io::Result<Bound> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Bound::Tcp(listener))
    }

    /// A Unix socket that only its owner can open. An abandoned one is replaced.
    ///
    /// # Errors
    /// `AddrInUse` if a process listens on it; otherwise the kernel's.
    pub(crate) fn socket(path: &Path) -> io::Result<Bound> {
        if UnixStream::connect(path).is_ok() {
            return Err(ErrorKind::AddrInUse.into());
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Bound::Socket(listener))
    }

    /// An address that another process listens on, too.
    pub(crate) fn given_tcp(listener: OwnedFd) -> Bound {
        Bound::Tcp(listener.into())
    }

    /// A Unix socket that another process listens on, too.
    pub(crate) fn given_socket(listener: OwnedFd) -> Bound {
        Bound::Socket(listener.into())
    }

    /// Another descriptor of the same socket.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn copied(&self) -> io::Result<Bound> {
        Ok(match self {
            Bound::Tcp(listener) => Bound::Tcp(listener.try_clone()?),
            Bound::Socket(listener) => Bound::Socket(listener.try_clone()?),
        })
    }

    /// The address, if it is one of the network.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Bound::Tcp(listener) => listener.local_addr().ok(),
            Bound::Socket(_) => None,
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Bound::Tcp(listener) => listener.as_fd(),
            Bound::Socket(listener) => listener.as_fd(),
        }
    }

    pub(super) fn accept(&self) -> io::Result<Peer> {
        Ok(match self {
            Bound::Tcp(listener) => {
                let (stream, address) = listener.accept()?;
                let is_near = address.ip().to_canonical().is_loopback();
                let from = if is_near { From::Loopback } else { From::Elsewhere };
                Peer { stream: Socket::Tcp(stream), from, name: address.to_string() }
            }
            Bound::Socket(listener) => {
                let (stream, _) = listener.accept()?;
                Peer { stream: Socket::Unix(stream), from: From::Socket, name: "socket".into() }
            }
        })
    }
}

/// A connected client.
pub(super) struct Peer {
    pub(super) stream: Socket,
    pub(super) from: From,
    /// For events.
    pub(super) name: String,
}

/// The stream of one connection.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    pub(super) fn bound_writes(&self, time: Duration) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.set_write_timeout(Some(time)),
            Socket::Unix(stream) => stream.set_write_timeout(Some(time)),
        }
    }

    pub(super) fn end_writes(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.shutdown(std::net::Shutdown::Write),
            Socket::Unix(stream) => stream.shutdown(std::net::Shutdown::Write),
        }
    }
}

impl io::Read for Socket {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.read(room),
            Socket::Unix(stream) => stream.read(room),
        }
    }
}

impl io::Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.write(bytes),
            Socket::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Socket {
    fn bound_reads(&self, time: Duration) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.set_read_timeout(Some(time)),
            Socket::Unix(stream) => stream.set_read_timeout(Some(time)),
        }
    }
}
