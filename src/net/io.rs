//! Connecting, sleeping and spawning; the only place that cancels an operation.
//!
//! Reads and writes with their deadlines are methods of `Stream`. A connect has no descriptor that
//! the sweep could shut down, because monoio makes the socket inside: so it alone is under a timer
//! that drops it (tested: no descriptor leaks).

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt},
};

use super::{
    fd::{self, Half, Socket},
    signal::Signal,
};
use crate::base::endpoint::{Endpoint, UnixPath};

/// How long sent data may go without an acknowledgement before the peer counts as dead, in
/// milliseconds.
pub(crate) const USER_TIMEOUT_MS: u32 = 30_000;
const USUAL_PATIENCE: Duration = Duration::from_millis(USER_TIMEOUT_MS as u64);

/// How sockets are made.
const NO_WAITS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// How long a connect to a Unix socket whose queue is full waits, at first and at most, before it
/// is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(1);
const FULL_PAUSE_MAX: Duration = Duration::from_millis(50);

/// How long it takes until the descriptor of a closed connection is free, and how often other tasks
/// may take it.
pub(crate) const FREED: Duration = Duration::from_millis(2);
const FREED_TIMES: u32 = 50;

thread_local! {
    /// Tasks that were spawned to end something and have not ended.
    static ENDING: Cell<usize> = const { Cell::new(0) };
    /// Whether this thread's runtime runs.
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Sets whether this thread's runtime runs; what is dropped outside it cannot be waited for.
pub(crate) fn set_running(running: bool) {
    RUNNING.set(running);
}

/// How many tasks of `spawn` have not ended.
pub(crate) fn ending() -> usize {
    ENDING.get()
}

/// Runs a future to its end as a task of its own; it must not panic.
pub(crate) fn spawn(future: impl Future<Output = ()> + 'static) {
    if !RUNNING.get() {
        // The runtime is gone and with it the ring: nothing is in flight any more.
        std::mem::forget(future);
        return;
    }
    ENDING.set(ENDING.get() + 1);
    monoio::spawn(async move {
        future.await;
        ENDING.set(ENDING.get() - 1);
    });
}

/// Runs a future as a task of this thread; it is dropped unfinished when the runtime ends.
pub(crate) fn task(future: impl Future<Output = ()> + 'static) {
    #[cfg(test)]
    if crate::testkit::play::is_on() {
        return crate::testkit::play::task(future);
    }
    monoio::spawn(future);
}

thread_local! {
    /// Raised when the runtime of this thread ends.
    static OVER: RefCell<Rc<Signal>> = RefCell::default();
}

/// Runs a future as a task until it or the runtime ends. The runtime itself drops no task that
/// waits, so whatever waits for ever and is not begun by this keeps what it has.
pub(crate) fn resident(future: impl Future<Output = ()> + 'static) {
    let over = OVER.with_borrow(Rc::clone);
    task(async move { _ = over.or(future).await });
}

/// Ends the residents of this thread: its runtime ends. What was closed is free then.
pub(crate) async fn end_residents() {
    OVER.take().raise();
    sleep(FREED).await;
}

/// Sleeps; rounded up to whole milliseconds.
pub(crate) async fn sleep(time: Duration) {
    #[cfg(test)]
    if crate::testkit::play::is_on() {
        return Box::pin(crate::testkit::play::sleep(time)).await;
    }
    monoio::time::sleep(time).await;
}

/// How a connection is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Whether we have something to say as soon as it is open. Then the acknowledgement that ends
    /// the handshake travels with that: a segment less, and the peer hears of both at once.
    pub(crate) speaks: bool,
    /// How long sent data may go without an acknowledgement, if that is longer than usual; zero =
    /// for as long as the kernel tries.
    pub(crate) patience: Duration,
}

impl Default for Manner {
    fn default() -> Manner {
        Manner { speaks: false, patience: USUAL_PATIENCE }
    }
}

impl Manner {
    /// It is to wait this long for an acknowledgement, too.
    pub(crate) fn outlasts(&mut self, time: Duration) {
        let is_endless = time.is_zero() || self.patience.is_zero();
        self.patience = if is_endless { Duration::ZERO } else { self.patience.max(time) };
    }
}

/// Connects within a time; zero = for as long as the kernel tries. A peer on this machine has
/// answered before the call ends: then nothing is waited for.
///
/// # Errors
/// `TimedOut` when the time is over, otherwise the kernel's.
pub(crate) async fn connect(
    to: &Endpoint,
    (time, manner): (Duration, Manner),
) -> io::Result<Socket> {
    let address = match to {
        Endpoint::Tcp(address) => *address,
        Endpoint::Unix(path) => return Box::pin(connect_unix(*path, time)).await,
    };
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, NO_WAITS, None)?;
    set_common_options(&socket)?;
    if manner.speaks {
        sockopt::set_tcp_quickack(&socket, false)?;
    }
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let is_open = fd::is_connected(socket.as_fd())?;
    let socket = fd::adopt(socket)?;
    if !is_open {
        // Boxed: a timer is large, and aligned to two cache lines.
        Box::pin(opened(&socket, time)).await?;
    }
    fd::with_borrowed(socket.as_raw_fd(), |fd| {
        // Not before: it would bound the connect, too.
        sockopt::set_tcp_user_timeout(fd, patience_ms(manner.patience))?;
        fd::waits_in_ring(&fd)
    })?;
    Ok(socket)
}

/// Waits for a connect to end.
async fn opened(socket: &Socket, time: Duration) -> io::Result<()> {
    let opening = async {
        let mut in_vain = Duration::ZERO;
        loop {
            socket.writable(false).await?;
            if fd::with_borrowed(socket.as_raw_fd(), fd::is_connected)? {
                return Ok(());
            }
            // Not seen, and not to spin on.
            in_vain = (in_vain * 2).clamp(FULL_PAUSE, FULL_PAUSE_MAX);
            sleep(in_vain).await;
        }
    };
    if time.is_zero() { opening.await } else { until(time, opening).await }
}

/// Connects to a Unix socket, which is over at once, unless the queue of who listens there is full:
/// then it is tried again, as nothing says when there is room.
async fn connect_unix(path: UnixPath, time: Duration) -> io::Result<Socket> {
    let address = unix_address(path)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, NO_WAITS, None)?;
    let trying = async {
        let mut pause = FULL_PAUSE;
        loop {
            match rustix::net::connect(&socket, &address) {
                Err(Errno::AGAIN) => sleep(pause).await,
                other => return other.map_err(io::Error::from),
            }
            pause = (pause * 2).min(FULL_PAUSE_MAX);
        }
    };
    let connected = if time.is_zero() { trying.await } else { until(time, trying).await };
    connected?;
    fd::waits_in_ring(&socket)?;
    fd::adopt(socket)
}

/// The address of a Unix socket as the kernel takes it.
pub(crate) fn unix_address(path: UnixPath) -> io::Result<SocketAddrUnix> {
    Ok(match path.name() {
        Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes())?,
        None => SocketAddrUnix::new(path.as_str())?,
    })
}

/// Like `connect`; tried again if no descriptor is left and `frees` returns that some are about to
/// become free.
///
/// # Errors
/// Like `connect`.
pub(crate) async fn connect_freeing(
    to: &Endpoint,
    (time, manner): (Duration, Manner),
    frees: &impl Fn() -> bool,
) -> io::Result<Socket> {
    for _ in 0..FREED_TIMES {
        match connect(to, (time, manner)).await {
            Err(error) if is_out_of_descriptors(&error) && frees() => sleep(FREED).await,
            other => return other,
        }
    }
    connect(to, (time, manner)).await
}

/// Whether an operation failed because we ran out of something: a descriptor, memory. Then it says
/// nothing about the peer.
pub(crate) fn is_want(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::AGAIN))
}

/// Whether a connection was not made because we ran out of something, including ports. Without IPv6
/// it is not a port that is missing but an address, for good.
pub(crate) fn is_for_want(error: &io::Error, to: &Endpoint) -> bool {
    let no_port = error.raw_os_error() == Some(Errno::ADDRNOTAVAIL.raw_os_error());
    is_want(error) || (no_port && to.is_ipv4())
}

/// Whether a socket could not be made because there is no descriptor left.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}

/// A connect within a time; nothing has been sent or received that could be lost.
#[expect(clippy::disallowed_methods, reason = "a connect moves no bytes, and no descriptor leaks")]
async fn until<T>(
    time: Duration,
    connecting: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    monoio::time::timeout(time, connecting).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

/// Runs operations on one socket to their end. When `end` comes first the socket is shut down, so
/// that they end at once; their results are then ignored.
pub(crate) async fn ended_by<T>(
    end: impl Future<Output = ()>,
    fd: RawFd,
    operations: impl Future<Output = T>,
) -> Option<T> {
    let (mut end, mut operations) = (pin!(end), pin!(operations));
    let mut is_over = false;
    poll_fn(|cx| {
        if let Poll::Ready(output) = operations.as_mut().poll(cx) {
            return Poll::Ready((!is_over).then_some(output));
        }
        if !is_over && end.as_mut().poll(cx).is_ready() {
            is_over = true;
            fd::shut_down(fd, Half::Both);
        }
        Poll::Pending
    })
    .await
}

/// Until the time is over or a wait that may be dropped at any time ends; returns whether it was
/// the wait.
///
/// # Errors
/// Those of the wait.
#[expect(clippy::disallowed_methods, reason = "nothing is lost with a poll")]
pub(crate) async fn at_most(
    time: Duration,
    wait: impl Future<Output = io::Result<()>>,
) -> io::Result<bool> {
    match monoio::time::timeout(time, wait).await {
        Ok(ended) => ended.map(|()| true),
        Err(_) => Ok(false),
    }
}

/// Options of every connection: no Nagle (a rival without this stalls 44 ms on every 16 KiB
/// answer), keep-alive probes, a limit on silence, and no urgent data: such a byte is one like any
/// other (RFC 6093 §6). Out of line it would make a socket readable that has nothing to read.
pub(crate) fn set_peer_options(fd: &impl AsFd) -> io::Result<()> {
    set_common_options(fd)?;
    Ok(sockopt::set_tcp_user_timeout(fd, USER_TIMEOUT_MS)?)
}

/// The same without the limit.
fn set_common_options(fd: &impl AsFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(fd, true)?;
    sockopt::set_socket_keepalive(fd, true)?;
    Ok(sockopt::set_socket_oobinline(fd, true)?)
}

/// Lets sent data go without an acknowledgement for as long as a task is willing to wait, if that
/// is longer than usual; zero = for as long as the kernel tries. A peer that takes nothing would
/// otherwise be cut by the kernel before its time.
pub(crate) fn outlast(fd: &impl AsFd, time: Duration) {
    let time = patience_ms(time);
    if time != USER_TIMEOUT_MS {
        // A socket that refuses it has ended.
        let _ = sockopt::set_tcp_user_timeout(fd, time);
    }
}

fn patience_ms(time: Duration) -> u32 {
    match u32::try_from(time.as_millis()).unwrap_or(u32::MAX) {
        0 => 0,
        time => time.max(USER_TIMEOUT_MS),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    use super::*;
    use crate::testkit::on_both_drivers;

    const SOON: Duration = Duration::from_secs(5);

    fn listening() -> (TcpListener, Endpoint) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = Endpoint::Tcp(listener.local_addr().unwrap());
        (listener, address)
    }

    #[test]
    fn a_connection_is_open_when_its_connect_has_ended_and_has_its_options() {
        on_both_drivers(|| async {
            for (patience, expected) in [(0, 0), (5, 30_000), (3_600, 3_600_000)] {
                let (listener, address) = listening();
                let manner = Manner { speaks: false, patience: Duration::from_secs(patience) };
                let socket = connect(&address, (SOON, manner)).await.unwrap();
                let (mut peer, _) = listener.accept().unwrap();
                fd::with_borrowed(socket.as_raw_fd(), |fd| {
                    assert_eq!(sockopt::tcp_user_timeout(fd).unwrap(), expected);
                    assert!(
                        sockopt::tcp_nodelay(fd).unwrap() && sockopt::socket_keepalive(fd).unwrap()
                    );
                    assert!(sockopt::socket_oobinline(fd).unwrap());
                    let flags = rustix::fs::fcntl_getfl(fd).unwrap();
                    let never_waits = flags.contains(rustix::fs::OFlags::NONBLOCK);
                    assert_eq!(never_waits, crate::net::turns::are_eager());
                    fd::send(fd, b"word", false).unwrap();
                });
                let mut heard = [0; 4];
                peer.set_nonblocking(false).unwrap();
                peer.read_exact(&mut heard).unwrap();
                assert_eq!(&heard, b"word");
            }
        });
    }

    #[test]
    fn a_connect_that_is_refused_or_late_says_so() {
        on_both_drivers(|| async {
            let (listener, address) = listening();
            // A queue of one, which two fill: the kernel drops what comes then.
            rustix::net::listen(&listener, 0).unwrap();
            let manner = Manner::default();
            let (mut open, mut late) = (Vec::new(), None);
            for _ in 0..4 {
                match connect(&address, (Duration::from_millis(300), manner)).await {
                    Ok(socket) => open.push(socket),
                    Err(error) => late = late.or(Some(error.kind())),
                }
            }
            assert_eq!(late, Some(io::ErrorKind::TimedOut), "{} are open", open.len());
            drop(listener);
            let refused = connect(&address, (SOON, manner)).await.err().unwrap();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        });
    }

    /// Nobody who listens hears of a connection before its first bytes, where those follow at once.
    #[test]
    fn who_speaks_first_ends_the_handshake_with_that() {
        on_both_drivers(|| async {
            for speaks in [false, true] {
                // The kernel waits for 200 ms, and so may we.
                let mut was_silent = false;
                for _ in 0..20 {
                    let (listener, address) = listening();
                    let manner = Manner { speaks, ..Manner::default() };
                    let socket = connect(&address, (SOON, manner)).await.unwrap();
                    let is_silent = listener.accept().is_err();
                    let fd = socket.as_raw_fd();
                    fd::with_borrowed(fd, |fd| fd::send(fd, b"word", false)).unwrap();
                    was_silent |= is_silent;
                    if is_silent {
                        let (mut peer, _) = listener.accept().unwrap();
                        assert_eq!(peer.read(&mut [0; 8]).unwrap(), 4);
                        peer.write_all(b"answer").unwrap();
                        break;
                    }
                }
                assert_eq!(was_silent, speaks);
            }
        });
    }

    #[test]
    fn the_longest_wait_is_outlasted() {
        let of = |secs| Manner { speaks: true, patience: Duration::from_secs(secs) };
        for (first, second, both) in [(30, 3_600, 3_600), (60, 5, 60), (0, 5, 0), (5, 0, 0)] {
            let mut manner = of(first);
            manner.outlasts(Duration::from_secs(second));
            assert_eq!(manner.patience, of(both).patience, "{first} {second}");
        }
    }

    #[test]
    fn want_of_something_of_ours_is_told_from_what_peers_do() {
        let [v4, v6]: [Endpoint; 2] =
            ["192.0.2.1:80", "[2001:db8::1]:80"].map(|address| address.parse().unwrap());
        for (errno, to_v4, to_v6) in [
            (Errno::MFILE, true, true),
            (Errno::ADDRNOTAVAIL, true, false),
            (Errno::CONNREFUSED, false, false),
            (Errno::NETUNREACH, false, false),
        ] {
            let is_for_want = |to| is_for_want(&errno.into(), to);
            assert_eq!((is_for_want(&v4), is_for_want(&v6)), (to_v4, to_v6), "{errno}");
        }
        assert!(!is_for_want(&io::ErrorKind::TimedOut.into(), &v4));
    }
}
