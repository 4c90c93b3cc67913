//! One direction of a tunnel between two sockets: what has come is moved at once, and nothing is
//! held while nothing comes.
//!
//! A move is two system calls, and no wait: what was read is written. Only where the other side has
//! no room is there more to keep, in a future of its own. A tunnel that fills a whole buffer is in
//! bulk: from then on the kernel moves its bytes through a pipe (splice(2)), until little comes.
//! A pipe is taken for one move, and given back with it.

use std::{future::Future, io, pin::Pin};

use super::tunnel::{Begun, Tunneling};
use crate::net::{
    buffer::Buffer,
    deadlines::Unmet,
    relay::{Held, Moved},
    stream::Stream,
};
use crate::worker::Worker;

/// A direction stays in bulk as long as so much comes at a time: below, a copy is cheaper.
const BULK_BYTES_MIN: usize = 32 << 10;

/// One direction.
#[derive(Clone, Copy)]
pub(super) struct Flow<'a> {
    pub(super) worker: &'a Worker,
    pub(super) from: &'a Stream,
    pub(super) to: &'a Stream,
    pub(super) bounds: Tunneling<'a>,
}

/// The side that broke its connection, or was late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broke {
    From,
    To,
}

/// What comes after a move.
pub(super) enum Next<'a> {
    /// The next one: all that was there has been passed on.
    Move,
    /// What has to wait, in a box: a silent tunnel would keep its room.
    Wait(Pin<Box<dyn Future<Output = Begun> + 'a>>),
    End(Result<(), Broke>),
}

impl<'a> Flow<'a> {
    /// Moves what is there, without waiting.
    pub(super) fn moves(self) -> Next<'a> {
        if self.bounds.is_bulk() && self.from.read_ended().is_none() {
            match self.worker.pipes.move_now(self.from, self.to) {
                Moved::All(count) => {
                    self.bounds.came(count, count >= BULK_BYTES_MIN);
                    return Next::Move;
                }
                Moved::Full(held) => {
                    self.bounds.came(held.came(), true);
                    return Next::Wait(Box::pin(self.drains(held)));
                }
                Moved::Nothing => return self.waits_in_vain(),
                Moved::End => return Next::End(Ok(())),
                Moved::SourceFailed => return Next::End(Err(Broke::From)),
                Moved::SinkFailed => return Next::End(Err(Broke::To)),
                Moved::NoPipe => {}
            }
        }
        let Ok(mut buffer) = self.worker.buffers.take() else {
            return Next::End(Err(Broke::From));
        };
        let next = match self.from.recv_now(&mut buffer) {
            Ok(0) => Next::End(Ok(())),
            Ok(_) => {
                let ended = self.ended_at_once(&mut buffer);
                let (count, is_full) = (buffer.len(), buffer.room_len() == 0);
                self.bounds.came(count, is_full && self.from.is_bulky() && self.to.is_bulky());
                match self.to.send_now(buffer.bytes(), ended == Some(Ok(()))) {
                    Ok(sent) if sent == count => ended.map_or(Next::Move, Next::End),
                    Ok(sent) => return self.waits_for_room(buffer, sent, ended),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return self.waits_for_room(buffer, 0, ended);
                    }
                    Err(_) => Next::End(Err(Broke::To)),
                }
            }
            Err(Unmet::NotNow) => self.waits_in_vain(),
            Err(Unmet::Ended(_) | Unmet::Broken(_)) => Next::End(Err(Broke::From)),
        };
        self.worker.buffers.give(buffer);
        next
    }

    /// Whether its first bytes are its last: a server that closes behind its answer. Then the end
    /// leaves with them, in one segment. Looked for once, as it costs a system call.
    fn ended_at_once(self, buffer: &mut Buffer) -> Option<Result<(), Broke>> {
        if !self.bounds.is_first() || buffer.room_len() == 0 {
            return None;
        }
        match self.from.recv_now(buffer) {
            Ok(0) => Some(Ok(())),
            Ok(_) | Err(Unmet::NotNow) => None,
            Err(Unmet::Ended(_) | Unmet::Broken(_)) => Some(Err(Broke::From)),
        }
    }

    /// Writes what is left of a buffer, and ends if it `ended`.
    #[cold]
    fn waits_for_room(
        self,
        buffer: Buffer,
        sent: usize,
        ended: Option<Result<(), Broke>>,
    ) -> Next<'a> {
        Next::Wait(Box::pin(async move {
            let written = self.writes_rest(buffer, sent).await;
            match ended {
                // A clean end is found again.
                None | Some(Ok(())) => Begun::after(written),
                Some(broken) => Begun::Ended(written.and(broken)),
            }
        }))
    }

    /// Pauses before the next wait, when this one was in vain once more.
    #[cold]
    fn waits_in_vain(self) -> Next<'a> {
        Next::Wait(Box::pin(async move {
            let mut in_vain = self.bounds.in_vain().take();
            in_vain.pause().await;
            self.bounds.in_vain().set(in_vain);
            Begun::Goes
        }))
    }

    /// Writes what is left of a buffer.
    pub(super) async fn writes_rest(self, buffer: Buffer, sent: usize) -> Result<(), Broke> {
        let rest = buffer.bytes().get(sent..).unwrap_or(&[]);
        let written = self.to.send_all(rest, false, || self.bounds.writes()).await;
        self.bounds.has_gone();
        self.worker.buffers.give(buffer);
        written.map_err(|_| Broke::To)
    }

    /// Writes what is left in a pipe.
    async fn drains(self, held: Held<'a>) -> Begun {
        let drained = held.drain(self.to, || self.bounds.writes()).await;
        self.bounds.has_gone();
        Begun::after(drained.map_err(|_| Broke::To))
    }
}
