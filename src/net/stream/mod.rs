//! A connection to a peer: reads, writes and waits, each until a deadline.
//!
//! Its bytes go through a layer (`layer.rs`); nothing above this folder knows which one it is.
//!
//! Readiness: a poll on the ring (or epoll), then a direct non-blocking call; such a wait may be
//! dropped at any time, nothing can be lost. A posted receive: for the first bytes of a backend's
//! answer; it is in flight while the connection is idle, sees a close or unasked bytes at once, and
//! is never dropped before it has ended. A send by the ring: for what fits into one; on a client's
//! socket, which is non-blocking, it ends within the turn, on a backend's at the latest with its
//! deadline.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    io,
    os::fd::{OwnedFd, RawFd},
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

mod layer;
#[cfg(test)]
pub(crate) mod script;
mod wire;

use monoio::buf::IoBuf;

use self::layer::Layer;
pub(crate) use self::wire::Wire;
use super::{
    buffer::{Buffer, Buffers, Draining},
    clock::Clock,
    deadlines::{End, Ended, Unmet, Watched},
    fd::{self, Half, Socket, Waiter, Waiting},
    io::{Manner, connect_freeing, sleep, spawn},
    leaving::ForClient,
    pending::{Begun, Pending, Quiet},
    tls::{Records, Tls},
    turns,
};
use crate::base::{
    endpoint::Endpoint,
    moment::{Deadline, Micros},
};

/// Consecutive waits that ended without what was waited for. Such a wait is never simply repeated:
/// io_uring ends a poll for room as soon as the peer has closed its half, and the core would spin
/// for as long as that peer likes.
#[derive(Default)]
pub(crate) struct InVain(u32);

/// The longest pause after a wait in vain, and how often it doubles until then.
const PAUSE_MAX: Duration = Duration::from_millis(64);
const PAUSES_GROW: u32 = 6;

impl InVain {
    /// Pauses, if the next wait is one for a request, which may take long.
    #[cold]
    pub(crate) async fn pause_once() {
        InVain(PAUSES_GROW / 2).pause().await;
    }

    /// Pauses, longer each time. Once may be chance.
    #[cold]
    pub(crate) async fn pause(&mut self) {
        if self.0 > 0 {
            // A timer is large and aligned.
            Box::pin(sleep(PAUSE_MAX / (1 << PAUSES_GROW.saturating_sub(self.0 - 1)))).await;
        }
        self.0 += 1;
    }
}

/// What leaves at once on a new connection: less than a segment of Ethernet, of which the first
/// window has several (RFC 5681 §3.1).
const SEGMENT: u32 = 1_024;

/// The longest posted send: what the kernel takes in one piece, whatever its peer does, unless it
/// is short of memory.
const POSTED_BYTES_MAX: usize = 4 << 10;

/// A connection, watched by the sweep of deadlines.
pub(crate) struct Stream {
    /// Dropped before the stream, as `Watched` requires.
    watched: Option<Watched>,
    layer: Option<Layer>,
    fd: RawFd,
    pending: Pending,
    /// Bytes written by `send_now` alone; the largest number once there was another write.
    written: Cell<u32>,
    /// Whether to measure how long writes wait, and how long that was so far.
    timed: Cell<bool>,
    stalled: Cell<Micros>,
}

impl Stream {
    /// Takes a descriptor (non-blocking, see `listener.rs`) into the runtime of this thread.
    pub(crate) fn adopt(fd: OwnedFd, watch: impl FnOnce(RawFd) -> Watched) -> io::Result<Stream> {
        Ok(Stream::new(fd::adopt(fd)?, watch))
    }

    /// Connects, as `io::connect_freeing`.
    pub(crate) async fn connect(
        address: &Endpoint,
        (time, manner): (Duration, Manner),
        frees: &impl Fn() -> bool,
        watch: impl FnOnce(RawFd) -> Watched,
    ) -> io::Result<Stream> {
        #[cfg(test)]
        if let Some(answers) = script::dial() {
            return Ok(answers?.stream(watch));
        }
        Ok(Stream::new(connect_freeing(address, (time, manner), frees).await?, watch))
    }

    /// Wraps a connected stream.
    pub(crate) fn new(stream: Socket, watch: impl FnOnce(RawFd) -> Watched) -> Stream {
        Stream::over(Wire::plain(stream), watch)
    }

    fn over(wire: Wire, watch: impl FnOnce(RawFd) -> Watched) -> Stream {
        let fd = wire.raw();
        Stream {
            watched: Some(watch(fd)),
            layer: Some(Layer::Plain(wire)),
            fd,
            pending: Pending::default(),
            written: Cell::new(0),
            timed: Cell::new(false),
            stalled: Cell::default(),
        }
    }

    #[inline]
    #[allow(clippy::expect_used)] // both are there until drop
    pub(crate) fn watched(&self) -> &Watched {
        self.watched.as_ref().expect("watched until dropped")
    }

    #[inline]
    #[allow(clippy::expect_used)]
    fn layer(&self) -> &Layer {
        self.layer.as_ref().expect("open until dropped")
    }

    /// The number of its descriptor; valid while the stream lives.
    #[inline]
    pub(crate) fn raw(&self) -> RawFd {
        self.fd
    }

    /// Whether, and why, we ended reading.
    #[inline]
    pub(crate) fn read_ended(&self) -> Option<Ended> {
        self.watched().ended(End::Reading)
    }

    /// Whether, and why, we ended writing.
    #[inline]
    pub(crate) fn write_ended(&self) -> Option<Ended> {
        self.watched().ended(End::Writing)
    }

    /// Whether either was ended because it was overdue.
    pub(crate) fn is_overdue(&self) -> bool {
        [self.read_ended(), self.write_ended()].contains(&Some(Ended::Overdue))
    }

    /// The result of an operation. If one failed after we ended its half, our end is the reason,
    /// and its own error is ignored.
    #[inline]
    fn judged<T>(&self, end: End, result: io::Result<T>) -> Result<T, Unmet> {
        result.map_err(|error| self.unmet(end, error))
    }

    #[cold]
    fn unmet(&self, end: End, error: io::Error) -> Unmet {
        match self.watched().ended(end) {
            Some(why) => Unmet::Ended(why),
            None if error.kind() == io::ErrorKind::WouldBlock => Unmet::NotNow,
            None => Unmet::Broken(error),
        }
    }

    /// Whether this half is still open.
    #[inline]
    fn goes_on(&self, end: End) -> Result<(), Unmet> {
        self.watched().ended(end).map_or(Ok(()), |why| Err(Unmet::Ended(why)))
    }

    /// Reads what is there into the buffer's room, without waiting. Nothing is read from a peer
    /// whose reading we ended, whatever it has sent since.
    #[inline]
    pub(crate) fn recv_now(&self, buffer: &mut Buffer) -> Result<usize, Unmet> {
        self.goes_on(End::Reading)?;
        self.judged(End::Reading, self.layer().recv(buffer))
    }

    /// Writes what fits, without waiting. `more`: it leaves with what follows, or with the end.
    #[inline]
    pub(crate) fn send_now(&self, bytes: &[u8], more: bool) -> io::Result<usize> {
        let sent = self.layer().send(bytes, more)?;
        let sent_now = u32::try_from(sent).unwrap_or(u32::MAX);
        self.written.set(self.written.get().saturating_add(sent_now));
        Ok(sent)
    }

    /// What has come to a stream without a layer, which stays there; 0 is the end.
    ///
    /// # Errors
    /// `NotNow` if nothing has come.
    pub(crate) fn peek_now(&self, room: &mut [u8]) -> Result<usize, Unmet> {
        fd::peek_at(self.fd, room).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Unmet::NotNow,
            _ => Unmet::Broken(error),
        })
    }

    /// Drops this many of the bytes that have been peeked at.
    pub(crate) fn skip_now(&self, count: usize) {
        fd::skip(self.fd, count);
    }

    /// Waits until there is something to read; the caller has set a deadline.
    #[inline]
    pub(crate) fn readable(&self) -> impl Future<Output = Result<(), Unmet>> {
        Waiting::new(self.waits_for(End::Reading), self.layer().readable())
    }

    /// Waits until there is room to write; the caller has set a deadline. It may end without room
    /// (see `InVain`).
    #[inline]
    pub(crate) fn writable(&self) -> impl Future<Output = Result<(), Unmet>> {
        Waiting::new(self.waits_for(End::Writing), self.layer().writable())
    }

    #[inline]
    fn waits_for(&self, end: End) -> WaitsFor<'_> {
        WaitsFor { stream: self, end, begun: self.pending.begin() }
    }

    /// Like `readable`, for an idle client, for as long as `Watched` lets it stay; returns whether
    /// something can be read.
    #[inline]
    pub(crate) async fn readable_soon(&self) -> Result<bool, Unmet> {
        let mut readable = pin!(self.readable());
        let mut stays = false;
        poll_fn(|cx| {
            if stays && !self.watched().stays() {
                return Poll::Ready(Ok(false));
            }
            if !stays {
                self.watched().stay(cx.waker());
                stays = true;
            }
            readable.as_mut().poll(cx).map_ok(|()| true)
        })
        .await
    }

    /// Reads at least one byte, or finds the peer's end (0), until `deadline`. It always waits.
    #[inline]
    pub(crate) fn recv(
        &self,
        buffer: &mut Buffer,
        deadline: Deadline,
    ) -> impl Future<Output = Result<usize, Unmet>> {
        self.recv_until(buffer, deadline, None, false)
    }

    /// Like `recv`, on behalf of a client: when that has left, the wait ends. What is there already
    /// is read without a wait.
    #[inline]
    pub(crate) fn recv_for(
        &self,
        buffer: &mut Buffer,
        deadline: Deadline,
        client: Option<ForClient>,
    ) -> impl Future<Output = Result<usize, Unmet>> {
        self.recv_until(buffer, deadline, client, true)
    }

    async fn recv_until(
        &self,
        buffer: &mut Buffer,
        deadline: Deadline,
        client: Option<ForClient>,
        looks_first: bool,
    ) -> Result<usize, Unmet> {
        if looks_first {
            match self.recv_now(buffer) {
                Err(Unmet::NotNow) => {}
                other => return other,
            }
        }
        self.watched().read_for(deadline, client);
        let mut in_vain = InVain::default();
        let read = loop {
            if let Err(unmet) = self.readable().await {
                break Err(unmet);
            }
            match self.recv_now(buffer) {
                Err(Unmet::NotNow) => Box::pin(in_vain.pause()).await,
                other => break other,
            }
        };
        self.watched().read_for(Deadline::NEVER, None);
        read
    }

    /// Sends the first `count` bytes of a buffer, with the batch of this turn: that is a twentieth
    /// cheaper than a system call of its own. What the socket does not take at once goes through
    /// `send_all`.
    #[inline]
    pub(crate) async fn send_buffer(
        &self,
        buffer: Buffer,
        count: usize,
        deadline: impl Fn() -> Deadline,
    ) -> Result<Buffer, Unmet> {
        if count == 0 {
            return Ok(buffer);
        }
        let piece = Draining { buffer, count };
        let (sent, Draining { buffer, .. }) = self.submit(piece, deadline()).await;
        let rest = buffer.bytes().get(sent?..count).unwrap_or(&[]);
        if !rest.is_empty() {
            self.send_all(rest, false, deadline).await?;
        }
        Ok(buffer)
    }

    /// Like `send_buffer`, for bytes in a vector.
    #[inline]
    pub(crate) async fn send_vec(
        &self,
        bytes: Vec<u8>,
        deadline: impl Fn() -> Deadline,
    ) -> (Result<(), Unmet>, Vec<u8>) {
        let (sent, bytes) = self.submit(bytes, deadline()).await;
        let result = match sent.map(|sent| bytes.get(sent..).unwrap_or(&[])) {
            Ok([]) => Ok(()),
            Ok(rest) => self.send_all(rest, false, deadline).await,
            Err(error) => Err(error),
        };
        (result, bytes)
    }

    /// Hands bytes to the ring, and does not wait for their end: no task is woken for it. It is
    /// asked for when the answer has come (`has_sent`), or when that is late (`sent`).
    ///
    /// # Errors
    /// With the bytes, if they may not be taken in one piece.
    #[inline]
    pub(crate) fn post_send(&self, bytes: Vec<u8>) -> Result<(), Vec<u8>> {
        if bytes.len() > POSTED_BYTES_MAX || turns::are_eager() {
            return Err(bytes);
        }
        self.written.set(u32::MAX);
        self.pending.post_send(bytes, || self.layer().sending());
        Ok(())
    }

    /// Whether a send was posted whose end nobody has asked for.
    #[inline]
    pub(crate) fn is_sending(&self) -> bool {
        self.pending.is_sending()
    }

    /// The bytes of the posted send, if it has ended and all were taken.
    #[inline]
    pub(crate) fn has_sent(&self) -> Option<Vec<u8>> {
        match self.pending.poll_send(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready((Ok(count), bytes)) if count == bytes.len() => Some(bytes),
            Poll::Ready(_) | Poll::Pending => None,
        }
    }

    /// Waits for the posted send, and sends what it left.
    pub(crate) async fn sent(&self, deadline: Deadline) -> (Result<(), Unmet>, Vec<u8>) {
        self.watched().write_by(deadline);
        let (sent, bytes) = poll_fn(|cx| self.pending.poll_send(cx)).await;
        self.watched().write_by(Deadline::NEVER);
        let result = match self.judged(End::Writing, sent).map(|sent| bytes.get(sent..)) {
            Ok(rest) => self.send_all(rest.unwrap_or(&[]), false, || deadline).await,
            Err(error) => Err(error),
        };
        (result, bytes)
    }

    /// How many bytes of a piece the ring sent; none if a non-blocking socket was full.
    #[inline]
    async fn submit<T: IoBuf>(&self, piece: T, deadline: Deadline) -> (Result<usize, Unmet>, T) {
        self.written.set(u32::MAX);
        self.watched().write_by(deadline);
        let begun = self.pending.begin();
        let (sent, piece) = self.layer().submit(piece).await;
        self.pending.end(begun, !turns::are_eager());
        self.watched().write_by(Deadline::NEVER);
        match self.judged(End::Writing, sent) {
            Err(Unmet::NotNow) => (Ok(0), piece),
            other => (other, piece),
        }
    }

    /// Writes everything; each time the peer takes none of it, it has until `deadline()`.
    #[inline]
    pub(crate) async fn send_all(
        &self,
        bytes: &[u8],
        more: bool,
        deadline: impl Fn() -> Deadline,
    ) -> Result<(), Unmet> {
        self.send_parts(bytes, &[], more, deadline).await
    }

    /// Like `send_all`, for two pieces that leave in one write.
    pub(crate) async fn send_parts(
        &self,
        mut first: &[u8],
        mut second: &[u8],
        more: bool,
        deadline: impl Fn() -> Deadline,
    ) -> Result<(), Unmet> {
        self.written.set(u32::MAX);
        while !first.is_empty() || !second.is_empty() {
            let layer = self.layer();
            let write = || match (first.is_empty(), second.is_empty()) {
                (_, true) => layer.send(first, more),
                (true, false) => layer.send(second, more),
                (false, false) => layer.send_both(first, second),
            };
            let count = match self.judged(End::Writing, write()) {
                Err(Unmet::NotNow) => {
                    Box::pin(self.write_when_there_is_room(write, deadline())).await?
                }
                other => other?,
            };
            let of_first = count.min(first.len());
            first = first.get(of_first..).unwrap_or(&[]);
            second = second.get(count - of_first..).unwrap_or(&[]);
        }
        Ok(())
    }

    /// Writes by `write`, which does not wait; each time the peer takes none of it, it has until
    /// `deadline()`.
    #[inline]
    pub(crate) async fn write_some(
        &self,
        write: impl Fn() -> io::Result<usize>,
        deadline: &impl Fn() -> Deadline,
    ) -> Result<usize, Unmet> {
        self.written.set(u32::MAX);
        match self.judged(End::Writing, write()) {
            Err(Unmet::NotNow) => Box::pin(self.write_when_there_is_room(write, deadline())).await,
            other => other,
        }
    }

    #[cold]
    async fn write_when_there_is_room(
        &self,
        write: impl Fn() -> io::Result<usize>,
        deadline: Deadline,
    ) -> Result<usize, Unmet> {
        let since = self.timed.get().then(Clock::moment);
        self.watched().write_by(deadline);
        let mut in_vain = InVain::default();
        let written = loop {
            if let Err(ended) = self.writable().await {
                break Err(ended);
            }
            match self.judged(End::Writing, write()) {
                Err(Unmet::NotNow) => Box::pin(in_vain.pause()).await,
                other => break other,
            }
        };
        self.watched().write_by(Deadline::NEVER);
        if let Some(since) = since {
            self.stalled.set(self.stalled.get() + Clock::moment().since(since));
        }
        written
    }

    /// From now on the time is measured for which writes wait for the peer.
    #[inline]
    pub(crate) fn time_stalls(&self) {
        self.timed.set(true);
    }

    /// How long writes waited for the peer since the last call; none if it is not measured.
    #[inline]
    pub(crate) fn take_stalled(&self) -> Micros {
        self.stalled.take()
    }

    /// Posts a receive: the kernel takes what comes next into `buffer`.
    pub(crate) fn post_receive(&self, buffer: Buffer) {
        self.pending.post(buffer, || self.layer().receiving());
    }

    /// Whether a receive is posted.
    pub(crate) fn is_receiving(&self) -> bool {
        self.pending.is_receiving()
    }

    /// Waits for the posted receive until `deadline`, on behalf of a client. None if a posted send
    /// has not been heard of for a while: the sweep calls for a look at it, once.
    #[inline]
    pub(crate) async fn received(
        &self,
        deadline: Deadline,
        client: Option<ForClient>,
    ) -> Option<(Result<usize, Unmet>, Buffer)> {
        let mut waits = false;
        let received = poll_fn(|cx| {
            if let Poll::Ready(received) = self.pending.poll_receive(cx) {
                return Poll::Ready(Some(received));
            }
            let is_sending = self.pending.is_sending();
            if waits && is_sending {
                return Poll::Ready(None);
            }
            if !waits {
                waits = true;
                self.watched().awaits(deadline, client, is_sending);
            }
            Poll::Pending
        })
        .await;
        self.watched().awaits_no_more();
        let (read, buffer) = received?;
        // An end is the peer's only if it is not ours.
        let read = match read {
            Ok(0) => self.goes_on(End::Reading).map(|()| 0),
            other => self.judged(End::Reading, other),
        };
        Some((read, buffer))
    }

    /// Checks the posted receive of an idle connection. Bytes that came are lost: the caller uses
    /// the connection only if it was quiet.
    pub(crate) fn quiet(&self, buffers: &Buffers) -> Quiet {
        self.pending.quiet(buffers)
    }

    /// Like `quiet`, for a receive that was posted in this turn: waits until the kernel has tried
    /// it.
    pub(crate) async fn quiet_after_all(&self, buffers: &Buffers) -> Quiet {
        if turns::are_eager() {
            // Only we take bytes out of the socket: the kernel is asked.
            match self.layer().peek() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return Quiet::Closed,
                Ok(_) => return Quiet::Unasked,
            }
        } else {
            // The ring tries the receive first, and then this, which never has to wait.
            let (_, nothing) = self.submit(Vec::new(), Deadline::NEVER).await;
            drop(nothing);
        }
        self.quiet(buffers)
    }

    /// A copy of its descriptor, with which the connection outlives this stream; none if a part of
    /// its state is in this process.
    pub(crate) fn copied(&self) -> Option<OwnedFd> {
        self.layer().copied()
    }

    /// Ends one half, or both; waits on it end too.
    pub(crate) fn shut_down(&self, half: Half) {
        if half == Half::Writing {
            self.layer().say_end();
        }
        fd::shut_down(self.fd, half);
    }

    /// From now on its bytes go through TLS. `come` has come already.
    pub(crate) fn secure(&mut self, records: Records, come: Vec<u8>, buffers: &Rc<Buffers>) {
        // The handshake was longer than a segment.
        self.written.set(u32::MAX);
        if let Some(Layer::Plain(wire)) = self.layer.take() {
            let tls = Tls::new(wire, Rc::clone(buffers), records, come);
            self.layer = Some(Layer::Tls(tls));
        }
    }

    /// Makes its close a reset.
    pub(crate) fn reset_on_close(&self) {
        self.layer().reset_on_close();
    }

    /// Ends it with a reset, at once, and everything that waits for it.
    pub(crate) fn abort(&self) {
        fd::abort(self.fd);
    }

    /// Whether there are unread bytes, which make a close a reset.
    pub(crate) fn has_unread(&self) -> bool {
        self.layer().has_unread()
    }

    /// Whether the kernel has yet to send something, and would drop it at a byte that comes after a
    /// close. What is on its way already is ordered before a reset.
    pub(crate) fn has_unsent(&self) -> bool {
        self.layer().has_unsent()
    }

    /// Whether all that was ever written here leaves at once, whatever the peer's windows: it fits
    /// into one segment.
    pub(crate) fn is_one_segment(&self) -> bool {
        self.written.get() <= SEGMENT
    }

    /// Bytes, including our end, that the peer has not acknowledged.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.layer().unacknowledged()
    }

    /// Sent data may go this long without an acknowledgement, if that is longer than usual; zero =
    /// for as long as the kernel tries.
    pub(crate) fn outlasts(&self, time: Duration) {
        self.layer().outlasts(time);
    }

    /// Reads and drops what is there; returns the count, 0 at the end.
    pub(crate) fn discard_now(&self, room: &mut [u8]) -> io::Result<usize> {
        self.layer().discard(room)
    }

    /// Whether the kernel can move its bytes for us (`relay.rs`).
    #[inline]
    pub(crate) fn can_splice(&self) -> bool {
        self.layer().can_splice()
    }

    /// Makes every call on its socket end at once, and returns whether the kernel can move its
    /// bytes. On the ring a backend's socket is a blocking one, and splice(2) has no flag against
    /// that: the core would stand for as long as the backend takes nothing. No receive is posted to
    /// the ring after this.
    pub(crate) fn is_bulky(&self) -> bool {
        self.layer().is_bulky()
    }

    /// Moves bytes from this stream into a pipe.
    #[inline]
    pub(crate) fn splice_into(&self, pipe: &OwnedFd, count: usize) -> io::Result<usize> {
        self.layer().splice_into(pipe, count)
    }

    /// Moves bytes from a pipe into this stream.
    #[inline]
    pub(crate) fn splice_from(
        &self,
        pipe: &OwnedFd,
        count: usize,
        more: bool,
    ) -> io::Result<usize> {
        self.layer().splice_from(pipe, count, more)
    }
}

#[cfg(test)]
impl Stream {
    /// How many bytes TLS keeps for it besides its keys.
    pub(crate) fn kept_by_tls(&self) -> usize {
        match self.layer() {
            Layer::Plain(_) => 0,
            Layer::Tls(tls) => tls.kept(),
        }
    }
}

/// A wait for one half of a stream to be ready.
struct WaitsFor<'a> {
    stream: &'a Stream,
    end: End,
    begun: Begun,
}

impl Waiter for WaitsFor<'_> {
    type Unmet = Unmet;

    #[inline]
    fn is_over(&self, task: &Waker) -> Option<Unmet> {
        self.stream.watched().ended_or_wakes(self.end, task).map(Unmet::Ended)
    }

    #[inline]
    fn ended(&self, result: io::Result<()>, waited: bool) -> Result<(), Unmet> {
        self.stream.pending.end(self.begun, waited);
        result.map_err(Unmet::Broken)
    }

    /// A wait takes a turn of the core: a loop of waits, with a peer as fast as we are, lets all
    /// other tasks go first.
    fn goes_on(&self) -> Result<(), Unmet> {
        self.stream.goes_on(self.end)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.watched = None;
        let Some(layer) = self.layer.take() else { return };
        layer.leave();
        let something_in_flight = self.pending.was_dropped();
        let Some(posted) = self.pending.take_posted() else {
            layer.close(something_in_flight);
            return;
        };
        // What is in flight is ended and waited for, never dropped.
        fd::shut_down(self.fd, Half::Both);
        spawn(async move {
            posted.ends().await;
            layer.close(something_in_flight);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        rc::Rc,
        thread,
    };

    use super::*;
    use crate::base::ids::ListenerId;
    use crate::net::{
        clock::Clock,
        deadlines::{Deadlines, Rest, Watch},
        io::task,
    };
    use crate::testkit::{bytes, eventually, on_both_drivers, pair};

    /// One connection: our end, and the peer's, which blocks.
    struct Connected {
        ours: Stream,
        peer: std::net::TcpStream,
        deadlines: Rc<Deadlines>,
        clock: Rc<Clock>,
        buffers: Rc<Buffers>,
    }

    fn connected(watch: Watch) -> Connected {
        let clock = Rc::new(Clock::new());
        let deadlines = Deadlines::new(Rc::clone(&clock));
        let (ours, peer) = pair(|fd| deadlines.watch(fd, watch));
        Connected { ours, peer, deadlines, clock, buffers: Buffers::new(4) }
    }

    fn never() -> Deadline {
        Deadline::NEVER
    }

    /// Reads what the peer gets, to its end, concurrently.
    fn hear(mut peer: std::net::TcpStream) -> thread::JoinHandle<Vec<u8>> {
        thread::spawn(move || {
            let mut heard = Vec::new();
            peer.read_to_end(&mut heard).unwrap();
            heard
        })
    }

    #[test]
    fn reads_what_is_there_waits_for_more_and_finds_the_end() {
        on_both_drivers(|| async {
            let Connected { ours, mut peer, buffers, .. } = connected(Watch::Backend);
            let mut buffer = buffers.take().unwrap();
            assert!(matches!(ours.recv_now(&mut buffer), Err(Unmet::NotNow)));
            peer.write_all(b"one").unwrap();
            assert_eq!(ours.recv(&mut buffer, Deadline::NEVER).await.unwrap(), 3);
            let later = thread::spawn(move || peer.write_all(b" two").map(|()| peer));
            assert_eq!(ours.recv(&mut buffer, Deadline::NEVER).await.unwrap(), 4);
            assert_eq!(buffer.bytes(), b"one two");
            drop(later.join().unwrap());
            assert_eq!(ours.recv(&mut buffer, Deadline::NEVER).await.unwrap(), 0);
            assert_eq!(ours.read_ended(), None);
        });
    }

    #[test]
    fn who_stays_waits_for_a_while_and_can_be_waited_for_again() {
        on_both_drivers(|| async {
            let Connected { ours, mut peer, deadlines, clock, buffers } =
                connected(Watch::Client(ListenerId(0)));
            let sweeping = Rc::clone(&deadlines);
            task(async move { sweeping.sweep(|| {}).await });
            ours.watched().rests(Rest::Idle, clock.tick(), Deadline::NEVER);
            peer.write_all(b"soon").unwrap();
            assert!(ours.readable_soon().await.unwrap());
            let mut buffer = buffers.take().unwrap();
            assert_eq!(ours.recv_now(&mut buffer).unwrap(), 4);
            assert!(!ours.readable_soon().await.unwrap(), "nothing comes");
            peer.write_all(b" later").unwrap();
            ours.readable().await.unwrap();
            assert_eq!(ours.recv_now(&mut buffer).unwrap(), 6);
            drop(ours);
            peer.set_nonblocking(true).unwrap();
            eventually(|| matches!(peer.read(&mut [0; 8]), Ok(0))).await;
        });
    }

    #[test]
    fn a_read_and_a_write_end_when_they_are_overdue() {
        on_both_drivers(|| async {
            let Connected { ours, peer, deadlines, clock, buffers } = connected(Watch::Backend);
            let sweeping = Rc::clone(&deadlines);
            task(async move { sweeping.sweep(|| {}).await });
            let mut buffer = buffers.take().unwrap();
            let (other, silent) = pair(|fd| deadlines.watch(fd, Watch::Backend));
            // Both at once, so that one round ends them.
            let by = clock.after(Duration::from_millis(1));
            let many = bytes(8 << 20);
            let mut write = pin!(ours.send_all(&many, false, || by));
            let wrote = poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx))).await;
            assert!(wrote.is_pending(), "the peer takes nothing");
            assert!(!matches!(other.recv(&mut buffer, by).await, Ok(1..)));
            assert_eq!(other.read_ended(), Some(Ended::Overdue));
            assert!(write.await.is_err());
            assert_eq!(ours.write_ended(), Some(Ended::Overdue));
            drop((peer, silent));
        });
    }

    /// A peer that has closed its half and takes nothing makes the ring's poll for room end at
    /// once, again and again.
    #[test]
    fn a_wait_for_room_that_ends_without_room_does_not_go_round() {
        on_both_drivers(|| async {
            let Connected { ours, peer, deadlines, clock, .. } =
                connected(Watch::Client(ListenerId(0)));
            let sweeping = Rc::clone(&deadlines);
            task(async move { sweeping.sweep(|| {}).await });
            peer.shutdown(std::net::Shutdown::Write).unwrap();
            let asked = Cell::new(0_u32);
            let by = || {
                asked.set(asked.get() + 1);
                clock.after(Duration::from_millis(500))
            };
            let cpu = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            let before = cpu();
            let many = bytes(8 << 20);
            assert!(matches!(
                ours.send_all(&many, false, by).await,
                Err(Unmet::Ended(Ended::Overdue))
            ));
            let took = cpu() - before;
            assert!(took.tv_sec == 0 && took.tv_nsec < 200_000_000, "{took:?}");
            assert!(asked.get() < 20, "the deadline begins anew: {}", asked.get());
        });
    }

    #[test]
    fn sends_more_than_a_socket_holds_each_byte_once_and_in_order() {
        on_both_drivers(|| async {
            let Connected { ours, peer, buffers, .. } = connected(Watch::Backend);
            let heard = hear(peer);
            let many = bytes(3 << 20);
            let (first, second) = many.split_at(1 << 20);
            ours.send_all(first, true, never).await.unwrap();
            ours.send_parts(&second[..9], &second[9..], false, never).await.unwrap();
            let (sent, given_back) = ours.send_vec(many.clone(), never).await;
            sent.unwrap();
            assert!(given_back == many, "the room is given back as it was");
            let mut buffer = buffers.take().unwrap();
            for piece in many.chunks(60_000) {
                buffer.clear();
                buffer.room()[..piece.len()].copy_from_slice(piece);
                buffer.filled(piece.len());
                buffer.filled(3); // more than is to be sent
                buffer = ours.send_buffer(buffer, piece.len(), never).await.unwrap();
            }
            drop(ours);
            assert!(heard.join().unwrap() == [&many[..], &many, &many].concat());
        });
    }

    #[test]
    fn a_reset_is_seen_as_one_and_what_came_is_forgotten_at_will() {
        on_both_drivers(|| async {
            let Connected { ours, mut peer, .. } = connected(Watch::Backend);
            peer.write_all(b"unread").unwrap();
            ours.readable().await.unwrap();
            assert_eq!(ours.discard_now(&mut [0; 64]).unwrap(), 6);
            ours.reset_on_close();
            drop(ours);
            let reset = peer.read(&mut [0; 8]).unwrap_err();
            assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
        });
    }

    /// A task waits for a byte that is there; does a busy reader let it run?
    #[test]
    fn a_busy_reader_lets_others_have_their_turn() {
        on_both_drivers(|| async {
            let Connected { ours: busy, mut peer, deadlines, buffers, .. } =
                connected(Watch::Backend);
            peer.write_all(&[7; 100_000]).unwrap();
            let read = async || {
                let mut buffer = buffers.take().unwrap();
                buffer.filled(buffer.room_len() - 1_000); // a small read
                assert!(busy.recv(&mut buffer, Deadline::NEVER).await.unwrap() > 0);
            };
            read().await;
            let (other, mut its_peer) = pair(|fd| deadlines.watch(fd, Watch::Backend));
            its_peer.write_all(b"x").unwrap();
            let heard = Rc::new(Cell::new(false));
            let note = Rc::clone(&heard);
            task(async move {
                other.readable().await.unwrap();
                note.set(true);
            });
            for _ in 0..8 {
                read().await;
            }
            assert!(heard.get(), "a busy reader keeps its core");
        });
    }
}
