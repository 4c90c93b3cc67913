//! System calls by descriptor that monoio does not offer: non-blocking reads and writes, shutdown,
//! readiness of a client, splice, filters. Through rustix, and libc where rustix has no call. One
//! of the two files with `unsafe`: a raw descriptor is trusted to be open, which its callers owe to
//! the streams they hold.

#![allow(unsafe_code)]

use std::{
    cell::{Cell, UnsafeCell},
    future::Future,
    io::{self, IoSlice},
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, RawWaker, RawWakerVTable, Waker, ready},
    time::Duration,
};

use monoio::{
    buf::IoBuf,
    io::{AsyncReadRent, AsyncWriteRent, Split},
    net::UnixStream,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
    net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketFlags},
    pipe::SpliceFlags,
};

#[cfg(test)]
use super::stream::script;
use super::{
    buffer::{Buffer, Filling},
    repeated::Repeated,
    turns,
};

/// The part of a connection that is shut down. Never the reading half alone: Linux resets a
/// connection that receives bytes when both that and the writing half are shut down, and the last
/// answer is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    Reading,
    Writing,
    Both,
}

/// The receives of a stream. It owns a share of the stream and the buffer, and is never dropped
/// while one is in flight (`stream/mod.rs` sees to that).
pub(crate) type Receiving = Repeated<Buffer>;

/// The sends of a stream that no task waits for; like `Receiving`.
pub(crate) type Sending = Repeated<Vec<u8>>;

/// A socket in the runtime of this thread, of whatever family. monoio's stream of TCP does the same
/// operations, and has room for two addresses besides, which nobody asks it for.
pub(crate) type Socket = UnixStream;

/// A socket that one receive and any number of readiness polls may use at once.
pub(crate) struct Shared(Rc<UnsafeCell<Socket>>);

impl Shared {
    pub(crate) fn new(stream: Socket) -> Shared {
        fn can_be_used_from_both_sides<T: Split>(_: &T) {}
        can_be_used_from_both_sides(&stream);
        Shared(Rc::new(UnsafeCell::new(stream)))
    }

    #[inline]
    pub(crate) fn stream(&self) -> &Socket {
        // SAFETY: `Socket` is `Split`: its reading and writing operations are independent, and
        // none of them keeps a `&mut` across a suspension (monoio clones the descriptor instead).
        unsafe { &*self.0.get() }
    }

    #[inline]
    pub(crate) fn raw(&self) -> RawFd {
        self.stream().as_raw_fd()
    }

    #[inline]
    pub(crate) fn borrowed(&self) -> BorrowedFd<'_> {
        borrow(self.raw())
    }

    /// Receives that take what comes next into a buffer, one at a time.
    pub(crate) fn receiving(&self) -> Receiving {
        let share = Rc::clone(&self.0);
        Repeated::new(async move |buffer| {
            // SAFETY: like `stream`; this is the only receive, and monoio's future does not touch
            // the stream after it has been made.
            let stream = unsafe { &mut *share.get() };
            let (result, Filling(buffer)) = stream.read(Filling(buffer)).await;
            (result, buffer)
        })
    }

    /// Sends of bytes that the ring takes, one at a time.
    pub(crate) fn sending(&self) -> Sending {
        let share = Rc::clone(&self.0);
        Repeated::new(async move |bytes| {
            // SAFETY: like `receiving`, for the writing side.
            let stream = unsafe { &mut *share.get() };
            stream.write(bytes).await
        })
    }

    /// Hands a piece to the ring: it leaves with everything else of this turn, in one system call.
    #[inline]
    pub(crate) async fn submit<T: IoBuf>(&self, piece: T) -> (io::Result<usize>, T) {
        // SAFETY: like `receive`, for the writing side: callers wait for one write at a time.
        let stream = unsafe { &mut *self.0.get() };
        stream.write(piece).await
    }

    /// The stream itself, if nothing else has a share of it.
    pub(crate) fn into_stream(self) -> Option<Socket> {
        Rc::try_unwrap(self.0).ok().map(UnsafeCell::into_inner)
    }
}

/// A wait for the readiness of a socket; in tests also of a scripted peer.
pub(crate) enum Ready<W> {
    Socket(W),
    /// It is ready as it is.
    Now,
    #[cfg(test)]
    Script(Pin<Box<dyn Future<Output = io::Result<()>>>>),
}

impl<W: Future<Output = io::Result<()>>> Future for Ready<W> {
    type Output = io::Result<()>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // SAFETY: nothing is moved out of it, and the wait is pinned as long as all of it is.
        match unsafe { self.get_unchecked_mut() } {
            // SAFETY: as above.
            Ready::Socket(wait) => unsafe { Pin::new_unchecked(wait) }.poll(cx),
            Ready::Now => Poll::Ready(Ok(())),
            #[cfg(test)]
            Ready::Script(wait) => wait.as_mut().poll(cx),
        }
    }
}

/// Who waits for a socket.
pub(crate) trait Waiter {
    /// Why a wait has ended without what was waited for.
    type Unmet;

    /// Asked before each poll: why the wait is over, whatever becomes of the socket. Otherwise the
    /// task is woken when it is.
    fn is_over(&self, task: &Waker) -> Option<Self::Unmet>;

    /// The wait has ended. `waited`: it took time.
    fn ended(&self, result: io::Result<()>, waited: bool) -> Result<(), Self::Unmet>;

    /// Whether that still counts, once all other tasks have had a turn.
    fn goes_on(&self) -> Result<(), Self::Unmet>;
}

/// A wait for a socket. It takes a turn of the core, if it has to: one that ends at once lets all
/// other tasks go first. By hand, because an `async` block for each of its layers would keep what
/// it waits for twice, in every idle connection.
pub(crate) struct Waiting<T, W> {
    waiter: T,
    step: Step<W>,
    waited: bool,
}

enum Step<W> {
    Waits(Ready<W>),
    /// Boxed, as this is rare.
    Turn(Pin<Box<dyn Future<Output = ()>>>),
}

impl<T, W> Waiting<T, W> {
    #[inline]
    pub(crate) fn new(waiter: T, wait: Ready<W>) -> Waiting<T, W> {
        Waiting { waiter, step: Step::Waits(wait), waited: false }
    }
}

impl<T: Waiter, W: Future<Output = io::Result<()>>> Future for Waiting<T, W> {
    type Output = Result<(), T::Unmet>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: nothing is moved out of it, and the wait is pinned as long as all of it is.
        let Waiting { waiter, step, waited } = unsafe { self.get_unchecked_mut() };
        if let Step::Waits(wait) = step {
            if let Some(unmet) = waiter.is_over(cx.waker()) {
                return Poll::Ready(Err(unmet));
            }
            // SAFETY: as above.
            let Poll::Ready(result) = unsafe { Pin::new_unchecked(wait) }.poll(cx) else {
                *waited = true;
                return Poll::Pending;
            };
            waiter.ended(result, *waited)?;
            if *waited {
                return Poll::Ready(Ok(()));
            }
            *step = Step::Turn(Box::pin(turns::next_turn()));
        }
        if let Step::Turn(turn) = step {
            ready!(turn.as_mut().poll(cx));
        }
        Poll::Ready(waiter.goes_on())
    }
}

/// Two futures, until both have ended. By hand, because an `async` block would keep them twice.
pub(crate) struct Both<F, S> {
    first: F,
    second: S,
    has_ended: [bool; 2],
}

impl<F, S> Both<F, S> {
    pub(crate) fn new(first: F, second: S) -> Both<F, S> {
        Both { first, second, has_ended: [false; 2] }
    }
}

impl<F: Future<Output = ()>, S: Future<Output = ()>> Future for Both<F, S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // SAFETY: nothing is moved out of it, and both are pinned as long as all of it is.
        let Both { first, second, has_ended } = unsafe { self.get_unchecked_mut() };
        if !has_ended[0] {
            // SAFETY: as above.
            has_ended[0] = unsafe { Pin::new_unchecked(first) }.poll(cx).is_ready();
        }
        if !has_ended[1] {
            // SAFETY: as above.
            has_ended[1] = unsafe { Pin::new_unchecked(second) }.poll(cx).is_ready();
        }
        if *has_ended == [true; 2] { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// A flag that a waker raises, for an operation that began before a task waits for it: the flag
/// says at the cost of a load that nothing has happened, and wakes the task when something has.
pub(crate) struct Flag {
    state: Rc<FlagState>,
    waker: Waker,
}

#[derive(Default)]
struct FlagState {
    is_raised: Cell<bool>,
    task: Cell<Option<Waker>>,
}

impl FlagState {
    fn raise(&self) {
        self.is_raised.set(true);
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }
}

impl Flag {
    // SAFETY: the pointer of each waker is that of an `Rc` of which it has a count.
    const WAKER: RawWakerVTable = RawWakerVTable::new(
        |flag| unsafe {
            Rc::increment_strong_count(flag.cast::<FlagState>());
            RawWaker::new(flag, &Flag::WAKER)
        },
        |flag| unsafe { Rc::from_raw(flag.cast::<FlagState>()).raise() },
        |flag| unsafe { (*flag.cast::<FlagState>()).raise() },
        |flag| unsafe { drop(Rc::from_raw(flag.cast::<FlagState>())) },
    );

    pub(crate) fn new() -> Flag {
        let state = Rc::<FlagState>::default();
        let own = Rc::into_raw(Rc::clone(&state)).cast();
        // SAFETY: as above. A waker may be sent to another thread, but this one is lent to
        // operations of this thread's driver alone, which do not.
        let waker = unsafe { Waker::new(own, &Flag::WAKER) };
        Flag { state, waker }
    }

    /// Lowers it, and lends its waker.
    #[inline]
    pub(crate) fn lower(&self) -> Context<'_> {
        self.state.is_raised.set(false);
        Context::from_waker(&self.waker)
    }

    #[inline]
    pub(crate) fn raise(&self) {
        self.state.raise();
    }

    #[inline]
    pub(crate) fn is_raised(&self) -> bool {
        self.state.is_raised.get()
    }

    /// This task is woken when it is raised, once.
    #[inline]
    pub(crate) fn wakes(&self, task: &Waker) {
        let known = self.state.task.take().filter(|known| known.will_wake(task));
        self.state.task.set(Some(known.unwrap_or_else(|| task.clone())));
    }
}

#[inline]
fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: callers hold the stream (or the guard of its watch) while they name its descriptor.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Reads what is there. `WouldBlock` if there is nothing.
#[inline]
pub(crate) fn recv(fd: BorrowedFd<'_>, buffer: &mut Buffer) -> io::Result<usize> {
    let (_, count) = rustix::net::recv(fd, buffer.room(), RecvFlags::DONTWAIT)?;
    buffer.filled(count);
    Ok(count)
}

/// Whether there is something to read, without reading it: 1, or 0 at the end. `WouldBlock` if
/// there is nothing.
pub(crate) fn peek(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    Ok(rustix::net::recv(fd, &mut [0_u8; 1][..], flags)?.1)
}

/// Reads what is there and drops it.
pub(crate) fn discard(fd: BorrowedFd<'_>, room: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::net::recv(fd, room, RecvFlags::DONTWAIT)?.1)
}

/// Reads what is there and leaves it there; 0 is the end.
pub(crate) fn peek_at(fd: RawFd, room: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::net::recv(borrow(fd), room, RecvFlags::DONTWAIT | RecvFlags::PEEK)?.1)
}

/// Drops this many bytes that are there.
pub(crate) fn skip(fd: RawFd, count: usize) {
    let mut left = vec![0; count];
    // They were seen; a connection that broke meanwhile is found out by the next read.
    let _ = discard(borrow(fd), &mut left);
}

/// Whether a socket has unread bytes; an end does not count.
pub(crate) fn has_bytes(fd: RawFd) -> bool {
    rustix::io::ioctl_fionread(borrow(fd)).is_ok_and(|count| count > 0)
}

/// Bytes of a TCP socket that the kernel has not sent yet.
pub(crate) fn unsent(fd: RawFd) -> usize {
    const SIOCOUTQNSD: libc::Ioctl = 0x894B;
    queued(fd, SIOCOUTQNSD)
}

/// Bytes of a TCP socket that its peer has not acknowledged.
pub(crate) fn unacknowledged(fd: RawFd) -> usize {
    queued(fd, libc::TIOCOUTQ)
}

fn queued(fd: RawFd, which: libc::Ioctl) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: both requests write one int, which lives until the call returns.
    let result = unsafe { libc::ioctl(fd, which, &raw mut count) };
    if result == 0 { usize::try_from(count).unwrap_or(0) } else { 0 }
}

/// Writes what fits. `more` tells the kernel that the rest follows at once.
#[inline]
pub(crate) fn send(fd: BorrowedFd<'_>, bytes: &[u8], more: bool) -> io::Result<usize> {
    let mut flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    if more {
        flags |= SendFlags::MORE;
    }
    Ok(rustix::net::send(fd, bytes, flags)?)
}

/// Writes what fits of two pieces, in order, in one call.
#[inline]
pub(crate) fn send_both(fd: BorrowedFd<'_>, first: &[u8], second: &[u8]) -> io::Result<usize> {
    let parts = [IoSlice::new(first), IoSlice::new(second)];
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    Ok(rustix::net::sendmsg(fd, &parts, &mut SendAncillaryBuffer::default(), flags)?)
}

/// Ends one half of a connection, or both; waits on it wake up.
pub(crate) fn shut_down(fd: RawFd, half: Half) {
    #[cfg(test)]
    if let Some(script) = script::of(fd) {
        return script.shut_down(half);
    }
    let how = match half {
        Half::Reading => Shutdown::Read,
        Half::Writing => Shutdown::Write,
        Half::Both => Shutdown::Both,
    };
    // An error says that the peer was faster.
    let _ = rustix::net::shutdown(borrow(fd), how);
}

/// Ends a connection with a reset, at once, and everything that waits for it. Nothing of it is left
/// with the kernel, not even its local port, which a close would keep for a minute.
pub(crate) fn abort(fd: RawFd) {
    #[cfg(test)]
    if let Some(script) = script::of(fd) {
        return script.abort();
    }
    // A Unix socket knows no reset, and some kernels no such end while a thread waits.
    if rustix::net::connect_unspec(borrow(fd)).is_err() {
        reset_on_close(borrow(fd));
        shut_down(fd, Half::Both);
    }
}

/// Whether a client has left for good: a reset, or both halves closed. A half-close after a whole
/// request is not leaving.
pub(crate) fn has_left(fd: RawFd) -> bool {
    is_seen(fd, PollFlags::empty())
}

/// Whether a client has closed its half, or has left.
pub(crate) fn has_closed(fd: RawFd) -> bool {
    is_seen(fd, PollFlags::RDHUP)
}

fn is_seen(fd: RawFd, asked: PollFlags) -> bool {
    #[cfg(test)]
    if let Some(script) = script::of(fd) {
        return script.has_left() || (!asked.is_empty() && script.has_closed());
    }
    let owner = borrow(fd);
    let mut poll = [PollFd::new(&owner, asked)];
    let gone = PollFlags::HUP | PollFlags::ERR | asked;
    match rustix::event::poll(&mut poll, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(count) => count > 0 && poll[0].revents().intersects(gone),
        Err(_) => false,
    }
}

/// Makes the close of a connection a reset, so that a cut answer cannot look complete.
pub(crate) fn reset_on_close(fd: BorrowedFd<'_>) {
    let _ = rustix::net::sockopt::set_socket_linger(fd, Some(std::time::Duration::ZERO));
}

/// Closes a stream by close(2), which is cheaper than by the ring. A stream that an operation in
/// flight still holds is left to monoio.
pub(crate) fn close(stream: Shared, something_in_flight: bool) {
    use std::os::fd::{FromRawFd, IntoRawFd};
    if something_in_flight {
        return;
    }
    if let Some(stream) = stream.into_stream() {
        // SAFETY: `into_raw_fd` hands the descriptor over to us.
        drop(unsafe { OwnedFd::from_raw_fd(stream.into_raw_fd()) });
    }
}

/// Takes a connection from a listening socket; close-on-exec and non-blocking.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (fd, address) = rustix::net::acceptfrom_with(listener, flags)?;
    Ok((fd, address.and_then(|address| SocketAddr::try_from(address).ok())))
}

/// The address of this end of a connection, if it is one of the network.
pub(crate) fn local_address(fd: RawFd) -> Option<SocketAddr> {
    SocketAddr::try_from(rustix::net::getsockname(borrow(fd)).ok()?).ok()
}

/// Takes over a descriptor that this process was started with; children do not get it any more.
///
/// # Errors
/// If it is not open, or belongs to standard input or output.
pub(crate) fn inherit(number: RawFd) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    if number <= libc::STDERR_FILENO {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    rustix::io::fcntl_setfd(borrow(number), rustix::io::FdFlags::CLOEXEC)?;
    // SAFETY: it is open, and the caller, who knows that nothing else in the process has it, takes
    // it over at most once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Whether a connect has succeeded; it has not ended if not.
///
/// # Errors
/// Why it failed.
pub(crate) fn is_connected(connecting: BorrowedFd<'_>) -> io::Result<bool> {
    let mut poll = [PollFd::new(&connecting, PollFlags::OUT)];
    rustix::event::poll(&mut poll, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    if poll[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) {
        rustix::net::sockopt::socket_error(connecting)??;
    }
    Ok(poll[0].revents().contains(PollFlags::OUT))
}

/// A socket in the runtime of this thread.
pub(crate) fn adopt(socket: OwnedFd) -> io::Result<Socket> {
    Socket::from_std(socket.into())
}

/// Makes every call on it end at once; so do operations of the ring.
pub(crate) fn never_blocks(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(fd, true)?)
}

/// On io_uring operations on it wait in the kernel: it is a socket that blocks, like those that
/// monoio makes.
pub(crate) fn waits_in_ring(fd: &impl AsFd) -> io::Result<()> {
    if !turns::are_eager() {
        rustix::io::ioctl_fionbio(fd, false)?;
    }
    Ok(())
}

/// Moves up to `count` bytes from one descriptor to another, one of them a pipe, without copying.
/// A socket that blocks may block this, whatever the flags (`never_blocks`).
#[inline]
pub(crate) fn splice(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    count: usize,
    more: bool,
) -> io::Result<usize> {
    let mut flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    if more {
        flags |= SpliceFlags::MORE;
    }
    loop {
        match rustix::pipe::splice(from, None, to, None, count, flags) {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Makes a listening socket drop new connections: those in its queue are still accepted, those in a
/// handshake get there, and the clients whose SYN is dropped try again (and reach whatever listens
/// then).
pub(crate) fn refuse_new(listener: BorrowedFd<'_>) -> io::Result<()> {
    // A classic filter of TCP segments: `ldb [13]; jset #SYN; ret #0; ret #all`.
    let op = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
    let mut program = [op(0x30, 0, 13), op(0x45, 1, 0x02), op(0x06, 0, 0), op(0x06, 0, u32::MAX)];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the program before the call returns.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            std::ptr::from_ref(&filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How long ago the handshake of a connection of TCP ended, on which nothing has been sent yet: of
/// one that was just accepted, how long it has waited for that. The kernel counts in milliseconds.
pub(crate) fn age_unsent(connection: BorrowedFd<'_>) -> Option<Duration> {
    // `struct tcp_info` as far as `tcpi_last_data_sent`, which begins when the connection does.
    let mut info = [0_u32; 12];
    let mut bytes = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes no more than so many bytes.
    let result = unsafe {
        libc::getsockopt(
            connection.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    let [.., last_sent] = info;
    let is_known = result == 0 && bytes as usize == size_of_val(&info);
    is_known.then(|| Duration::from_millis(last_sent.into()))
}

/// How long this thread has been running so far, or has been waiting for a processor; none if the
/// kernel does not count that.
pub(crate) fn time_wanted() -> Option<Duration> {
    let counted = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let mut nanos = counted.split(' ').map(str::parse::<u64>);
    let (ran, waited) = (nanos.next()?.ok()?, nanos.next()?.ok()?);
    Some(Duration::from_nanos(ran.saturating_add(waited)))
}

/// Returns memory that the allocator keeps after a peak to the kernel.
pub(crate) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` may be called at any time.
    unsafe {
        libc::malloc_trim(128 << 10);
    }
}

/// The bytes that a piece would send.
#[inline]
pub(crate) fn bytes_of(piece: &impl IoBuf) -> &[u8] {
    // SAFETY: an operation reads it in the same way.
    unsafe { std::slice::from_raw_parts(piece.read_ptr(), piece.bytes_init()) }
}

/// Lends a descriptor that the caller knows to be open.
pub(crate) fn with_borrowed<T>(fd: RawFd, act: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
    act(borrow(fd))
}
