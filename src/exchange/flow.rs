//! One direction of a tunnel between two sockets: what has come is moved at once, and nothing is
//! held while nothing comes.
//!
//! A move is two system calls, and no wait: what was read is written. Only where the other side has
//! no room is there more to keep, in a future of its own. A tunnel that fills a whole buffer is in
//! bulk: from then on the kernel moves its bytes through a pipe (splice(2)), until little comes.
//! A pipe is taken for one move, and given back with it.

use std::{cell::Cell, io};

use super::tunnel::Tunneling;
use crate::net::{
    buffer::Buffer,
    deadlines::Unmet,
    relay::{Held, Moved},
    stream::{InVain, Stream},
};
use crate::worker::Worker;

/// A direction stays in bulk as long as so much comes at a time: below, a copy is cheaper.
const BULK_BYTES_MIN: usize = 32 << 10;

/// One direction.
pub(super) struct Flow<'a> {
    pub(super) worker: &'a Worker,
    pub(super) from: &'a Stream,
    pub(super) to: &'a Stream,
    pub(super) bounds: Tunneling<'a>,
    /// Bytes that have come.
    pub(super) received: Cell<u64>,
    pub(super) is_bulk: Cell<bool>,
}

/// The side that broke its connection, or was late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broke {
    From,
    To,
}

/// What came of a move.
enum Step<'a> {
    /// All that was there has been passed on.
    Moved,
    /// The other side has no room for the rest: behind so many bytes of a buffer, or in a pipe.
    Copied(Buffer, usize),
    Spliced(Held<'a>),
    /// Nothing was there after all.
    Vain,
    End,
    Broken(Broke),
}

impl Flow<'_> {
    /// Moves what comes, to its end. `first` has come already.
    ///
    /// # Errors
    /// The side that broke.
    pub(super) async fn run(&self, first: Option<Buffer>) -> Result<(), Broke> {
        if let Some(first) = first {
            self.received.set(first.len() as u64);
            Box::pin(self.writes_rest(first, 0)).await?;
        }
        let mut in_vain = InVain::default();
        loop {
            self.from.watched().read_by(self.bounds.reads());
            self.from.readable().await.map_err(|_| Broke::From)?;
            // What has to wait is boxed: a silent tunnel would keep its room.
            match self.moves() {
                Step::Moved => in_vain = InVain::default(),
                Step::Copied(buffer, sent) => Box::pin(self.writes_rest(buffer, sent)).await?,
                Step::Spliced(held) => Box::pin(self.drains(held)).await?,
                Step::Vain => Box::pin(in_vain.pause()).await,
                Step::End => return Ok(()),
                Step::Broken(which) => return Err(which),
            }
        }
    }

    /// Moves what is there, without waiting.
    fn moves(&self) -> Step<'_> {
        if self.is_bulk.get() && self.from.read_ended().is_none() {
            match self.worker.pipes.move_now(self.from, self.to) {
                Moved::All(count) => {
                    self.came(count);
                    self.is_bulk.set(count >= BULK_BYTES_MIN);
                    return Step::Moved;
                }
                Moved::Full(held) => {
                    self.came(held.came());
                    return Step::Spliced(held);
                }
                Moved::Nothing => return Step::Vain,
                Moved::End => return Step::End,
                Moved::SourceFailed => return Step::Broken(Broke::From),
                Moved::SinkFailed => return Step::Broken(Broke::To),
                Moved::NoPipe => self.is_bulk.set(false),
            }
        }
        let Ok(mut buffer) = self.worker.buffers.take() else { return Step::Broken(Broke::From) };
        let step = match self.from.recv_now(&mut buffer) {
            Ok(0) => Step::End,
            Ok(count) => {
                self.came(count);
                let is_full = buffer.room_len() == 0;
                self.is_bulk.set(is_full && self.from.is_bulky() && self.to.is_bulky());
                match self.to.send_now(buffer.bytes(), false) {
                    Ok(sent) if sent == buffer.len() => Step::Moved,
                    Ok(sent) => return Step::Copied(buffer, sent),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return Step::Copied(buffer, 0);
                    }
                    Err(_) => Step::Broken(Broke::To),
                }
            }
            Err(Unmet::NotNow) => Step::Vain,
            Err(Unmet::Ended(_) | Unmet::Broken(_)) => Step::Broken(Broke::From),
        };
        self.worker.buffers.give(buffer);
        step
    }

    fn came(&self, count: usize) {
        self.received.set(self.received.get() + count as u64);
        self.bounds.has_come();
    }

    /// Writes what is left of a buffer.
    async fn writes_rest(&self, buffer: Buffer, sent: usize) -> Result<(), Broke> {
        let rest = buffer.bytes().get(sent..).unwrap_or(&[]);
        let written = self.to.send_all(rest, false, || self.bounds.writes()).await;
        self.bounds.has_gone();
        self.worker.buffers.give(buffer);
        written.map_err(|_| Broke::To)
    }

    /// Writes what is left in a pipe.
    async fn drains(&self, held: Held<'_>) -> Result<(), Broke> {
        let drained = held.drain(self.to, || self.bounds.writes()).await;
        self.bounds.has_gone();
        drained.map_err(|_| Broke::To)
    }
}
