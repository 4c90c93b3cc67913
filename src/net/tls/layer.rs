//! TLS between a stream and its wire, once the handshake is done.
//!
//! Nothing above `net` knows of it. No buffer is kept while nothing is under way: a record that has
//! come in part is kept in as much memory as it has bytes, plaintext that did not fit and records
//! that the wire did not take in a buffer of the worker's. A write is taken whole or not at all: if
//! the wire takes only a part of its records the rest is kept, and the same bytes, which the caller
//! sends again, are known to be sealed already.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
};

use monoio::buf::IoBuf;

use super::{
    alert::Alert,
    keys::RECORD_MAX,
    records::{Failure, Opened, Records},
};
use crate::net::{
    buffer::{Buffer, Buffers, Draining},
    fd::{self, Receiving, Sending},
    stream::Wire,
};

/// TLS over a wire.
pub(crate) struct Tls {
    wire: Wire,
    buffers: Rc<Buffers>,
    state: RefCell<State>,
    /// Whether the ring is sending records: nothing else may be written meanwhile.
    is_sending: Cell<bool>,
}

struct State {
    records: Records,
    /// A record that has come in part.
    part: Vec<u8>,
    /// Plaintext that nobody has taken yet.
    ready: Option<Buffer>,
    /// Records that the wire has not taken.
    unsent: Option<Buffer>,
    /// How many bytes of the caller's are sealed in them, and have not been reported as sent.
    owed: usize,
    /// Replies to what the peer sent: they leave with the next records.
    replies: Vec<u8>,
    /// Whether the wire has ended.
    is_cut: bool,
}

impl Tls {
    /// With these records; `come` is what has come behind the handshake.
    pub(crate) fn new(
        wire: Wire,
        buffers: Rc<Buffers>,
        records: Records,
        come: Vec<u8>,
    ) -> Rc<Tls> {
        let state = State {
            records,
            part: come,
            ready: None,
            unsent: None,
            owed: 0,
            replies: Vec::new(),
            is_cut: false,
        };
        let state = RefCell::new(state);
        Rc::new(Tls { wire, buffers, state, is_sending: Cell::new(false) })
    }

    #[inline]
    pub(crate) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// The wire, if nothing else has a share of it. What was not sent is dropped.
    pub(crate) fn into_wire(self: Rc<Tls>) -> Option<Wire> {
        Rc::try_unwrap(self).ok().map(|tls| tls.wire)
    }

    /// Whether a read would find something without a look at the wire: plaintext, the end, or
    /// records that came with the handshake.
    pub(crate) fn has_something(&self) -> bool {
        let state = self.state.borrow();
        state.ready.is_some() || state.is_over() || state.has_record()
    }

    /// Reads what is there.
    #[inline]
    pub(crate) fn recv(&self, buffer: &mut Buffer) -> io::Result<usize> {
        let state = &mut *self.state.borrow_mut();
        if state.ready.is_none() && buffer.room_len() >= RECORD_MAX {
            return self.fetch(state, buffer);
        }
        self.recv_through_own(state, buffer)
    }

    /// Reads into a place too small for a record, or what did not fit into one.
    #[cold]
    fn recv_through_own(&self, state: &mut State, buffer: &mut Buffer) -> io::Result<usize> {
        if state.ready.is_none() {
            let mut own = self.buffers.take()?;
            match self.fetch(state, &mut own) {
                Ok(1..) => state.ready = Some(own),
                other => {
                    self.buffers.give(own);
                    return other;
                }
            }
        }
        let Some(mut ready) = state.ready.take() else { return Ok(0) };
        let count = ready.len().min(buffer.room_len());
        if let (Some(room), Some(bytes)) =
            (buffer.room().get_mut(..count), ready.bytes().get(..count))
        {
            room.copy_from_slice(bytes);
        }
        buffer.filled(count);
        ready.consume(count);
        if ready.is_empty() {
            self.buffers.give(ready);
        } else {
            state.ready = Some(ready);
        }
        Ok(count)
    }

    /// Reads records from the wire until there is plaintext or nothing more; `buffer` has room for
    /// the longest.
    #[inline]
    fn fetch(&self, state: &mut State, buffer: &mut Buffer) -> io::Result<usize> {
        loop {
            if state.is_over() {
                return state.end();
            }
            let before = buffer.len();
            let has_record = state.has_record();
            if !state.part.is_empty() {
                let room = buffer.room().get_mut(..state.part.len());
                room.ok_or(io::ErrorKind::InvalidData)?.copy_from_slice(&state.part);
                buffer.filled(state.part.len());
            }
            let read = if has_record { Ok(1) } else { self.wire.recv(buffer) };
            match read {
                Ok(1..) => state.part.clear(),
                Ok(0) => state.is_cut = true,
                Err(error) => {
                    buffer.shorten(before);
                    if state.part.is_empty() && state.part.capacity() > 0 {
                        state.part = Vec::new();
                    }
                    return Err(error);
                }
            }
            let count = self.open(state, buffer, before);
            if count > 0 {
                return Ok(count);
            }
        }
    }

    /// Opens what has come behind the first `before` bytes of a buffer; returns how much plaintext
    /// is there now. The part of a record behind it is kept.
    #[inline]
    fn open(&self, state: &mut State, buffer: &mut Buffer, before: usize) -> usize {
        let come = buffer.bytes_mut().get_mut(before..).unwrap_or(&mut []);
        let Opened { plain, used } = state.records.open(come, &mut state.replies);
        let part = come.get(used..).unwrap_or(&[]);
        if !state.is_cut {
            state.part.extend_from_slice(part);
        }
        buffer.shorten(before + plain);
        if !state.replies.is_empty() {
            self.reply(state);
        }
        plain
    }

    /// Sends replies now, if nothing else is being sent. Without room they wait for the next write.
    #[cold]
    fn reply(&self, state: &mut State) {
        if !self.is_sending.get() {
            let _ = self.flush(state, false);
        }
    }

    /// Receives that take what comes next into a buffer, one at a time. What is not data (tickets,
    /// new keys) is taken care of, and the receive goes on.
    pub(crate) fn receiving(self: &Rc<Tls>) -> Receiving {
        let (tls, of_wire) = (Rc::clone(self), self.wire.receiving());
        Receiving::new(async move |mut buffer| {
            let mut looks = tls.has_something();
            loop {
                // No receive of the wire is in flight here, so that nothing is overtaken.
                if looks {
                    let read = tls.recv(&mut buffer);
                    if !is_would_block(&read) {
                        return (read, buffer);
                    }
                }
                // What is behind something that is not data must be seen before anybody concludes
                // that nothing came.
                looks = true;
                if let Err(error) = tls.put_part(&mut buffer) {
                    return (Err(error), buffer);
                }
                let (read, back) = of_wire.done_with(buffer).await;
                buffer = back;
                let state = &mut *tls.state.borrow_mut();
                match read {
                    Ok(0) => state.is_cut = true,
                    Ok(_) => {}
                    Err(error) => return (Err(error), buffer),
                }
                let count = tls.open(state, &mut buffer, 0);
                if count > 0 {
                    return (Ok(count), buffer);
                }
            }
        })
    }

    /// Puts the part of a record where a receive goes on behind it.
    fn put_part(&self, buffer: &mut Buffer) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        let part = std::mem::take(&mut state.part);
        let room = buffer.room().get_mut(..part.len()).ok_or(io::ErrorKind::InvalidData)?;
        room.copy_from_slice(&part);
        buffer.filled(part.len());
        Ok(())
    }

    /// Whether there is something to read, without reading it: 1, or 0 at the end.
    pub(crate) fn peek(&self) -> io::Result<usize> {
        let state = &mut *self.state.borrow_mut();
        if state.ready.is_none() {
            let mut own = self.buffers.take()?;
            match self.fetch(state, &mut own) {
                Ok(1..) => state.ready = Some(own),
                other => {
                    self.buffers.give(own);
                    return other;
                }
            }
        }
        Ok(1)
    }

    /// Drops what comes on the wire; nothing is opened any more.
    pub(crate) fn discard(&self, room: &mut [u8]) -> io::Result<usize> {
        let state = &mut *self.state.borrow_mut();
        state.is_cut = true;
        state.part = Vec::new();
        if let Some(ready) = state.ready.take() {
            self.buffers.give(ready);
        }
        self.wire.discard(room)
    }

    /// Seals and sends these two pieces, as much of them as fits; returns how much was taken. None
    /// (0) if the wire has taken some of the records: then it may take more.
    #[inline]
    pub(crate) fn send(&self, first: &[u8], second: &[u8], more: bool) -> io::Result<usize> {
        let state = &mut *self.state.borrow_mut();
        if state.unsent.is_some() && !self.flush(state, more)? {
            return Ok(0);
        }
        if state.owed > 0 {
            return Ok(std::mem::take(&mut state.owed));
        }
        let count = self.seal(state, first, second)?;
        state.owed = count;
        if self.flush(state, more)? {
            state.owed = 0;
            return Ok(count);
        }
        Ok(0)
    }

    /// Hands a piece to the ring, sealed.
    #[inline]
    pub(crate) async fn submit<T: IoBuf>(&self, piece: T) -> (io::Result<usize>, T) {
        let sealed = {
            let state = &mut *self.state.borrow_mut();
            if state.unsent.is_some() || state.owed > 0 {
                // Something is left of an earlier write. The rest goes the same way.
                return (Err(io::ErrorKind::WouldBlock.into()), piece);
            }
            match self.seal(state, fd::bytes_of(&piece), &[]) {
                Ok(count) => Ok((count, state.unsent.take())),
                Err(error) => Err(error),
            }
        };
        let (count, buffer) = match sealed {
            Ok((count, Some(buffer))) => (count, buffer),
            Ok((count, None)) => return (Ok(count), piece),
            Err(error) => return (Err(error), piece),
        };
        let total = buffer.len();
        self.is_sending.set(true);
        let (sent, Draining { mut buffer, .. }) =
            self.wire.submit(Draining { buffer, count: total }).await;
        self.is_sending.set(false);
        let sent = match sent {
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => {
                self.buffers.give(buffer);
                return (Err(error), piece);
            }
        };
        if sent >= total {
            self.buffers.give(buffer);
            return (Ok(count), piece);
        }
        buffer.consume(sent);
        let state = &mut *self.state.borrow_mut();
        (state.unsent, state.owed) = (Some(buffer), count);
        (Ok(0), piece)
    }

    /// Sends of bytes that the ring takes, sealed, one at a time. If the wire does not take all of
    /// the records, none is said to have been sent, and the rest is sent as by `send`.
    pub(crate) fn sending(self: &Rc<Tls>) -> Sending {
        let tls = Rc::clone(self);
        Sending::new(async move |bytes| match tls.submit(bytes).await {
            (Err(error), bytes) if error.kind() == io::ErrorKind::WouldBlock => (Ok(0), bytes),
            done => done,
        })
    }

    /// Seals what fits of two pieces behind the replies that wait; returns how much.
    #[inline]
    fn seal(&self, state: &mut State, first: &[u8], second: &[u8]) -> io::Result<usize> {
        let mut buffer = match state.unsent.take() {
            Some(buffer) => buffer,
            None => self.buffers.take()?,
        };
        let State { records, replies, .. } = state;
        let mut taken = 0;
        let sealed = buffer.fill_whole(|room| {
            let mut written = take_replies(replies, room);
            // The end of the first and the beginning of the second share a record.
            let mut shared = Vec::new();
            while taken < first.len() + second.len() {
                let rest = first.get(taken..).unwrap_or(&[]);
                let of_second = taken.saturating_sub(first.len());
                let plain = match (rest.is_empty(), second.get(of_second..).unwrap_or(&[])) {
                    (true, second) => second,
                    (false, []) => rest,
                    (false, second) => joined(rest, second, &mut shared),
                };
                let room = room.get_mut(written..).unwrap_or(&mut []);
                let (count, len) = records.seal(plain, room)?;
                written += len;
                taken += count;
                if count == 0 {
                    break;
                }
            }
            Ok(written)
        });
        match sealed {
            Ok(()) if buffer.is_empty() => self.buffers.give(buffer),
            Ok(()) => state.unsent = Some(buffer),
            Err(alert) => {
                self.buffers.give(buffer);
                return Err(broken(Failure::Broke(alert)));
            }
        }
        Ok(taken)
    }

    /// Sends what waits, without waiting; returns whether nothing is left.
    ///
    /// # Errors
    /// `WouldBlock` if the wire takes nothing, otherwise its own.
    #[inline]
    fn flush(&self, state: &mut State, more: bool) -> io::Result<bool> {
        if state.unsent.is_none() && !state.replies.is_empty() {
            self.seal(state, &[], &[])?;
        }
        let Some(mut buffer) = state.unsent.take() else { return Ok(true) };
        match self.wire.send(buffer.bytes(), more) {
            Ok(sent) if sent >= buffer.len() => {
                self.buffers.give(buffer);
                Ok(true)
            }
            Ok(sent) => {
                buffer.consume(sent);
                state.unsent = Some(buffer);
                Ok(false)
            }
            Err(error) => {
                state.unsent = Some(buffer);
                Err(error)
            }
        }
    }

    /// Whether we began the handshake.
    pub(crate) fn is_to_backend(&self) -> bool {
        self.state.try_borrow().is_ok_and(|state| state.records.is_to_backend())
    }

    /// Says that nothing more follows, as far as there is room for it. It leaves with the end of
    /// the connection, and not at all if that is a reset.
    pub(crate) fn say_end(&self) {
        let Ok(mut state) = self.state.try_borrow_mut() else { return };
        // A message that was taken in part would be cut by it.
        if self.is_sending.get() || state.owed > 0 || state.records.has_said_end() {
            return;
        }
        let State { records, replies, .. } = &mut *state;
        records.say_end(replies);
        let _ = self.flush(&mut state, true);
    }
}

#[cfg(test)]
impl Tls {
    /// How many bytes it keeps for what is under way.
    pub(crate) fn kept(&self) -> usize {
        let state = self.state.borrow();
        let buffers = [&state.ready, &state.unsent].into_iter().flatten().count();
        buffers + state.part.capacity() + state.replies.capacity() + state.records.kept_bytes()
    }
}

impl State {
    /// Whether nothing more can be read.
    #[inline]
    fn is_over(&self) -> bool {
        self.is_cut || self.records.has_closed() || self.records.failure().is_some()
    }

    /// Whether bytes that came with the handshake may hold a whole record.
    #[inline]
    fn has_record(&self) -> bool {
        super::records::may_be_whole(&self.part)
    }

    /// The result of a read behind the last of the plaintext.
    #[cold]
    fn end(&self) -> io::Result<usize> {
        match (self.records.failure(), self.records.has_closed()) {
            (Some(failure), _) => Err(broken(failure)),
            (None, true) => Ok(0),
            // Whoever cuts the wire could cut anything (RFC 9112 §9.8).
            (None, false) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn is_would_block(read: &io::Result<usize>) -> bool {
    read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

fn broken(failure: Failure) -> io::Error {
    let (Failure::Broke(Alert(number)) | Failure::Told(Alert(number))) = failure;
    io::Error::new(io::ErrorKind::InvalidData, format!("{}", Alert(number)))
}

/// Moves replies to the front of the room; returns how many bytes.
#[inline]
fn take_replies(replies: &mut Vec<u8>, room: &mut [u8]) -> usize {
    if replies.is_empty() {
        return 0;
    }
    let replies = std::mem::take(replies);
    let count = replies.len().min(room.len());
    if let (Some(room), Some(bytes)) = (room.get_mut(..count), replies.get(..count)) {
        room.copy_from_slice(bytes);
    }
    count
}

/// A record's worth of two pieces in one.
fn joined<'a>(first: &'a [u8], second: &[u8], into: &'a mut Vec<u8>) -> &'a [u8] {
    let missing = super::keys::PLAIN_MAX.saturating_sub(first.len()).min(second.len());
    if missing == 0 {
        return first;
    }
    into.clear();
    into.extend_from_slice(first);
    into.extend_from_slice(second.get(..missing).unwrap_or(&[]));
    into
}
