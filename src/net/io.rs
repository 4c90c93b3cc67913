//! Connecting, sleeping and spawning; the only place that cancels an operation.
//!
//! Reads and writes with their deadlines are methods of `Stream`. A connect has no descriptor that
//! the sweep could shut down, because monoio makes the socket inside: so it alone is under a timer
//! that drops it (tested: no descriptor leaks).

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    os::fd::{AsFd, RawFd},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use monoio::net::TcpStream;
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt},
};

use super::{fd::Half, signal::Signal, turns};
use crate::base::endpoint::{Endpoint, UnixPath};

/// How long sent data may go without an acknowledgement before the peer counts as dead, in
/// milliseconds.
pub(crate) const USER_TIMEOUT_MS: u32 = 30_000;

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

/// Connects within a time; zero = for as long as the kernel tries.
///
/// # Errors
/// `TimedOut` when the time is over, otherwise the kernel's.
pub(crate) async fn connect(to: &Endpoint, time: Duration) -> io::Result<TcpStream> {
    let address = match to {
        Endpoint::Tcp(address) => *address,
        Endpoint::Unix(path) => return Box::pin(connect_unix(*path, time)).await,
    };
    // Boxed, as connects are rare: a timer is aligned to two cache lines and would make every
    // exchange as large and as aligned.
    let connecting = Box::pin(TcpStream::connect_addr(address));
    let stream =
        if time.is_zero() { connecting.await? } else { Box::pin(until(time, connecting)).await? };
    let fd = std::os::fd::AsRawFd::as_raw_fd(&stream);
    super::fd::with_borrowed(fd, |fd| set_peer_options(&fd))?;
    Ok(stream)
}

/// Connects to a Unix socket, which is over at once, unless the queue of who listens there is full:
/// then it is tried again, as nothing says when there is room.
async fn connect_unix(path: UnixPath, time: Duration) -> io::Result<TcpStream> {
    let address = unix_address(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
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
    // On io_uring operations wait in the kernel, as on the sockets that monoio makes.
    rustix::io::ioctl_fionbio(&socket, turns::are_eager())?;
    TcpStream::from_std(socket.into())
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
    time: Duration,
    frees: &impl Fn() -> bool,
) -> io::Result<TcpStream> {
    for _ in 0..FREED_TIMES {
        match connect(to, time).await {
            Err(error) if is_out_of_descriptors(&error) && frees() => sleep(FREED).await,
            other => return other,
        }
    }
    connect(to, time).await
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
            super::fd::shut_down(fd, Half::Both);
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
    sockopt::set_tcp_nodelay(fd, true)?;
    sockopt::set_socket_keepalive(fd, true)?;
    sockopt::set_socket_oobinline(fd, true)?;
    sockopt::set_tcp_user_timeout(fd, USER_TIMEOUT_MS)?;
    Ok(())
}

/// Lets sent data go without an acknowledgement for as long as a task is willing to wait, if that
/// is longer than usual; zero = for as long as the kernel tries. A peer that takes nothing would
/// otherwise be cut by the kernel before its time.
pub(crate) fn outlast(fd: &impl AsFd, time: Duration) {
    let time = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    if time == 0 || time > USER_TIMEOUT_MS {
        // A socket that refuses it has ended.
        let _ = sockopt::set_tcp_user_timeout(fd, time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
