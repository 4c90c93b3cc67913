//! Zero-copy relay between two streams: splice(2) through a pipe, after readiness.
//!
//! For long bodies of known length this takes 0.6 of the machine time of 64 KiB reads. Only after
//! `readable()`: the ring's own splice always goes to a worker thread. A worker has few pipes,
//! because each is two descriptors and can hold 1 MiB of the kernel's memory for as long as a slow
//! client likes. So one is held only while bytes are in it, not while its source has none; without
//! one, bytes are copied.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::{AsRawFd, OwnedFd},
    rc::Rc,
};

use rustix::pipe::PipeFlags;

use super::{deadlines::Unmet, fd, io::is_out_of_descriptors, leaving::ForClient, stream::Stream};
use crate::base::moment::Deadline;

/// The size of a pipe, if the kernel allows it.
const PIPE_BYTES: usize = 1 << 20;

/// A pipe that holds less than a read is worse than none. (Beyond a user's share of the kernel's
/// memory pipes hold 8 KiB.)
const HOLDS_MIN: usize = 64 << 10;

/// Pipes of one worker, used or not: their descriptors are among the 64 that a core has besides its
/// connections (`server/descriptors.rs`).
const PIPES_MAX: usize = 20;

/// After the kernel has refused a pipe, or made a small one, this many moves are copied before it
/// is asked again: a pipe that is made in vain is five system calls.
const REFUSED_MOVES: u32 = 256;

struct Pipe {
    reading: OwnedFd,
    writing: OwnedFd,
    holds: usize,
}

/// The pipes of one worker.
#[derive(Default)]
pub(crate) struct Pipes {
    free: RefCell<Vec<Rc<Pipe>>>,
    /// How many are in use.
    taken: Cell<usize>,
    /// Moves that are still copied because the kernel refused a pipe.
    refused: Cell<u32>,
    /// What pipes hold instead of what they do.
    #[cfg(test)]
    kernel_gives: Cell<Option<usize>>,
}

/// A pipe in use; it is closed with its content, unless it is returned empty.
struct Taken<'a> {
    pipes: &'a Pipes,
    pipe: Rc<Pipe>,
}

impl Taken<'_> {
    /// Returns it, empty.
    fn give_back(self) {
        debug_assert!(!fd::has_bytes(self.pipe.reading.as_raw_fd()), "bytes of another stream");
        self.pipes.free.borrow_mut().push(Rc::clone(&self.pipe));
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.pipes.taken.set(self.pipes.taken.get() - 1);
    }
}

/// The result of one move.
pub(crate) enum Moved<'a> {
    /// All that was there: so many bytes.
    All(usize),
    /// The sink has no room for all of it.
    Full(Held<'a>),
    /// Nothing was there.
    Nothing,
    /// The source has ended.
    End,
    SourceFailed,
    SinkFailed,
    /// There is no pipe, or a stream that cannot be spliced.
    NoPipe,
}

/// What a pipe still holds.
pub(crate) struct Held<'a> {
    taken: Taken<'a>,
    /// Bytes that came into it, and those that have not left it.
    came: usize,
    left: usize,
}

impl Held<'_> {
    /// The bytes of which these are the rest.
    pub(crate) fn came(&self) -> usize {
        self.came
    }

    /// Moves them into the sink.
    ///
    /// # Errors
    /// If that takes no more; the pipe is closed with what it holds.
    pub(crate) async fn drain(
        self,
        sink: &Stream,
        write_by: impl Fn() -> Deadline,
    ) -> Result<(), Unmet> {
        drain(&self.taken.pipe, sink, (self.left, false), &Cell::new(0), write_by).await?;
        self.taken.give_back();
        Ok(())
    }
}

/// The result of a relay.
#[derive(Debug)]
pub(crate) enum Relayed {
    /// Everything was moved.
    All,
    /// The source ended early or failed.
    SourceEnded,
    /// The sink failed.
    SinkFailed,
    /// There is no pipe, or a stream that cannot be spliced: the rest must go another way.
    NoPipe,
    /// The same, for lack of descriptors.
    NoDescriptor,
}

impl Pipes {
    /// A pipe, or why there is none.
    fn take(&self) -> Result<Taken<'_>, Relayed> {
        if self.taken.get() == PIPES_MAX {
            return Err(Relayed::NoPipe);
        }
        let kept = self.free.borrow_mut().pop();
        let pipe = match kept {
            Some(pipe) => pipe,
            None => match self.open() {
                Ok(pipe) if pipe.holds >= HOLDS_MIN => Rc::new(pipe),
                Err(error) if is_out_of_descriptors(&error) => return Err(Relayed::NoDescriptor),
                Ok(_) | Err(_) => return Err(Relayed::NoPipe),
            },
        };
        self.taken.set(self.taken.get() + 1);
        Ok(Taken { pipes: self, pipe })
    }

    fn open(&self) -> io::Result<Pipe> {
        #[cfg(test)]
        if let Some(holds) = self.kernel_gives.get() {
            return Pipe::open().map(|pipe| Pipe { holds, ..pipe });
        }
        Pipe::open()
    }

    /// A pipe for one move, if there is one without much ado.
    fn take_now(&self) -> Result<Taken<'_>, Relayed> {
        if self.has_none() {
            return Err(Relayed::NoPipe);
        }
        let taken = self.take();
        if taken.is_err() {
            self.refused.set(REFUSED_MOVES);
        }
        taken
    }

    /// Whether a pipe need not be asked for; asking counts as a move.
    fn has_none(&self) -> bool {
        if self.taken.get() == PIPES_MAX {
            return true;
        }
        let refused = self.refused.get();
        let has_none = refused > 0 && self.free.borrow().is_empty();
        if has_none {
            self.refused.set(refused - 1);
        }
        has_none
    }

    /// Moves what is there from `source` to `sink`, at most what a pipe holds, without waiting:
    /// neither's calls may block (`Stream::is_bulky`).
    pub(crate) fn move_now(&self, source: &Stream, sink: &Stream) -> Moved<'_> {
        let Ok(taken) = self.take_now() else { return Moved::NoPipe };
        let is_block = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        let came = match source.splice_into(&taken.pipe.writing, taken.pipe.holds) {
            Ok(came) if came > 0 => came,
            nothing => {
                taken.give_back();
                return match nothing {
                    Ok(_) => Moved::End,
                    Err(error) if is_block(&error) => Moved::Nothing,
                    Err(_) => Moved::SourceFailed,
                };
            }
        };
        let left = match sink.splice_from(&taken.pipe.reading, came, false) {
            Ok(sent) => came - sent.min(came),
            Err(error) if is_block(&error) => came,
            Err(_) => return Moved::SinkFailed,
        };
        if left == 0 {
            taken.give_back();
            return Moved::All(came);
        }
        Moved::Full(Held { taken, came, left })
    }

    /// Moves exactly `count` bytes from `source` to `sink`, or as many as there are pipes for: one
    /// is held only while bytes are in it. `until` gives the deadline of waits for the source, and
    /// the client on whose behalf. `moved` grows by what the sink has taken.
    pub(crate) async fn relay(
        &self,
        source: &Stream,
        sink: &Stream,
        count: u64,
        moved: &Cell<u64>,
        (until, write_by): (impl Fn() -> (Deadline, Option<ForClient>), impl Fn() -> Deadline),
    ) -> Relayed {
        if !source.can_splice() || !sink.can_splice() {
            return Relayed::NoPipe;
        }
        let (mut left, mut in_vain) = (count, false);
        while left > 0 {
            if self.has_none() {
                return Relayed::NoPipe;
            }
            let (read_by, client) = until();
            source.watched().read_for(read_by, client);
            let ready = source.readable().await;
            source.watched().read_for(Deadline::NEVER, None);
            if ready.is_err() {
                return Relayed::SourceEnded;
            }
            let taken = match self.take_now() {
                Ok(taken) => taken,
                Err(none) => return none,
            };
            let pipe = &taken.pipe;
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(pipe.holds);
            let count = match source.splice_into(&pipe.writing, wanted) {
                Ok(count) if count > 0 => count,
                nothing => {
                    taken.give_back();
                    // Readable, and nothing to splice: once may be chance. A peer that sends urgent
                    // data, which cannot be spliced, would make us spin for ever.
                    let is_late = nothing.is_err_and(|it| it.kind() == io::ErrorKind::WouldBlock);
                    if is_late && !std::mem::replace(&mut in_vain, true) {
                        continue;
                    }
                    return Relayed::SourceEnded;
                }
            };
            in_vain = false;
            // More follows at once only if it is here: the kernel holds back a segment that is not
            // full for as long as 200 ms when told so.
            let more = left > count as u64 && fd::has_bytes(source.raw());
            if drain(pipe, sink, (count, more), moved, &write_by).await.is_err() {
                return Relayed::SinkFailed;
            }
            taken.give_back();
            left -= count as u64;
        }
        Relayed::All
    }
}

impl Pipe {
    fn open() -> io::Result<Pipe> {
        let (reading, writing) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Without the right to more, the kernel's default (64 KiB) serves.
        let _ = rustix::pipe::fcntl_setpipe_size(&writing, PIPE_BYTES);
        let holds = rustix::pipe::fcntl_getpipe_size(&reading)?;
        Ok(Pipe { reading, writing, holds })
    }
}

async fn drain(
    pipe: &Pipe,
    sink: &Stream,
    (count, more): (usize, bool),
    moved: &Cell<u64>,
    write_by: impl Fn() -> Deadline,
) -> Result<(), Unmet> {
    let mut left = count;
    while left > 0 {
        let write = || sink.splice_from(&pipe.reading, left, more);
        let sent = sink.write_some(write, &write_by).await?;
        left -= sent.min(left);
        moved.set(moved.get() + sent as u64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        future::{Future, poll_fn},
        io::{Read, Write},
        net::TcpStream,
        pin::pin,
        rc::Rc,
        thread::{self, JoinHandle},
        time::Duration,
    };

    use super::*;
    use crate::net::{
        buffer::Buffers,
        clock::Clock,
        deadlines::{Deadlines, Ended, Watch},
        io::task,
        leaving::Leaves,
    };
    use crate::testkit::{bytes, eventually, on_both_drivers, pair};

    /// More than a pipe and two sockets hold.
    const MANY: usize = 9 << 20;

    fn never() -> Deadline {
        Deadline::NEVER
    }

    /// Until then, for this client.
    fn until(by: Deadline, client: &Stream) -> (Deadline, Option<ForClient>) {
        (by, Some(client.watched().waits(client.raw(), Leaves::Reset)))
    }

    fn deadlines() -> (Rc<Deadlines>, Rc<Clock>) {
        let clock = Rc::new(Clock::new());
        let deadlines = Deadlines::new(Rc::clone(&clock));
        let sweeping = Rc::clone(&deadlines);
        task(async move { sweeping.sweep(|| {}).await });
        (deadlines, clock)
    }

    fn connected(deadlines: &Rc<Deadlines>) -> (Stream, TcpStream) {
        pair(|fd| deadlines.watch(fd, Watch::Backend))
    }

    /// Writes all of it concurrently, and then nothing.
    fn say(mut peer: TcpStream, what: Vec<u8>) -> JoinHandle<TcpStream> {
        thread::spawn(move || {
            peer.write_all(&what).unwrap();
            peer
        })
    }

    /// Reads `count` bytes concurrently.
    fn hear(mut peer: TcpStream, count: usize) -> JoinHandle<Vec<u8>> {
        thread::spawn(move || {
            let mut heard = vec![0; count];
            peer.read_exact(&mut heard).unwrap();
            heard
        })
    }

    #[test]
    fn moves_exactly_so_many_bytes_and_leaves_what_is_behind_them() {
        on_both_drivers(|| async {
            let (deadlines, _) = deadlines();
            let pipes = Pipes::default();
            let ((source, from), (sink, to)) = (connected(&deadlines), connected(&deadlines));
            let what = bytes(MANY);
            let said = say(from, [&what[..], b"rest"].concat());
            let heard = hear(to, MANY);
            let moved = Cell::new(0);
            let until = || until(never(), &sink);
            let relayed = pipes.relay(&source, &sink, MANY as u64, &moved, (until, never)).await;
            assert!(matches!(relayed, Relayed::All), "{relayed:?}");
            assert!(heard.join().unwrap() == what);
            assert_eq!(moved.get(), MANY as u64);
            let mut rest = Buffers::new(1).take().unwrap();
            while rest.len() < 4 {
                assert_ne!(source.recv(&mut rest, Deadline::NEVER).await.unwrap(), 0);
            }
            assert_eq!(rest.bytes(), b"rest");
            assert_eq!(pipes.free.borrow().len(), 1, "the pipe is kept");
            drop(said.join().unwrap());
        });
    }

    #[test]
    fn a_source_that_ends_early_is_told_from_one_that_is_late() {
        on_both_drivers(|| async {
            let (deadlines, clock) = deadlines();
            let pipes = Pipes::default();
            let soon = clock.after(Duration::from_millis(400));
            for (closes, by, ended) in
                [(true, Deadline::NEVER, None), (false, soon, Some(Ended::Overdue))]
            {
                let ((source, mut from), (sink, to)) =
                    (connected(&deadlines), connected(&deadlines));
                from.write_all(b"half").unwrap();
                let from = (!closes).then_some(from);
                let moved = Cell::new(0);
                let until = || until(by, &sink);
                let relayed = pipes.relay(&source, &sink, 8, &moved, (until, never)).await;
                assert!(matches!(relayed, Relayed::SourceEnded), "{relayed:?}");
                assert_eq!(source.read_ended(), ended);
                // What came before the end has been moved, and no pipe holds anything.
                assert_eq!((moved.get(), hear(to, 4).join().unwrap()), (4, b"half".to_vec()));
                assert_eq!(pipes.free.borrow().len(), 1);
                drop(from);
            }
        });
    }

    #[test]
    fn a_source_that_has_nothing_holds_no_pipe_and_what_is_left_without_one_is_told() {
        on_both_drivers(|| async {
            let (deadlines, _) = deadlines();
            let pipes = Pipes::default();
            let ((source, mut from), (sink, mut to)) =
                (connected(&deadlines), connected(&deadlines));
            let moved = Cell::new(0);
            let until = || until(never(), &sink);
            let mut relay = pin!(pipes.relay(&source, &sink, 8, &moved, (until, never)));
            from.write_all(b"half").unwrap();
            let mut is_half = pin!(eventually(|| moved.get() == 4));
            poll_fn(|cx| {
                assert!(relay.as_mut().poll(cx).is_pending(), "it waits for the other half");
                is_half.as_mut().poll(cx)
            })
            .await;
            assert_eq!((pipes.taken.get(), pipes.free.borrow().len()), (0, 1));
            // Others take all pipes meanwhile.
            let others: Vec<_> = (0..PIPES_MAX).map(|_| pipes.take().unwrap()).collect();
            from.write_all(b"more").unwrap();
            let relayed = relay.await;
            assert!(matches!(relayed, Relayed::NoPipe), "{relayed:?}");
            assert_eq!(moved.get(), 4);
            drop(others);
            let mut rest = Buffers::new(1).take().unwrap();
            source.recv(&mut rest, Deadline::NEVER).await.unwrap();
            assert_eq!(rest.bytes(), b"more");
            let mut heard = [0; 4];
            to.read_exact(&mut heard).unwrap();
            assert_eq!(&heard, b"half");
        });
    }

    #[test]
    fn a_pipe_whose_sink_failed_is_never_used_again() {
        on_both_drivers(|| async {
            let (deadlines, clock) = deadlines();
            let pipes = Pipes::default();
            let ((source, from), (sink, to)) = (connected(&deadlines), connected(&deadlines));
            let said = thread::spawn(move || (&from).write_all(&bytes(MANY)));
            let by = || clock.after(Duration::from_millis(1));
            let moved = Cell::new(0);
            let until = || until(never(), &sink);
            let relayed = pipes.relay(&source, &sink, MANY as u64, &moved, (until, by)).await;
            assert!(matches!(relayed, Relayed::SinkFailed), "{relayed:?}");
            assert_eq!(sink.write_ended(), Some(Ended::Overdue), "its peer takes nothing");
            assert!(pipes.free.borrow().is_empty());
            drop(source);
            drop((said.join().unwrap(), to));
        });
    }

    #[test]
    fn a_source_whose_client_has_left_is_waited_for_no_more() {
        on_both_drivers(|| async {
            let (deadlines, _) = deadlines();
            let pipes = Pipes::default();
            let ((source, from), (sink, to)) = (connected(&deadlines), connected(&deadlines));
            drop(to);
            sink.shut_down(crate::net::fd::Half::Writing);
            let moved = Cell::new(0);
            let until = || until(never(), &sink);
            let relayed = pipes.relay(&source, &sink, 8, &moved, (until, never)).await;
            assert!(matches!(relayed, Relayed::SourceEnded), "{relayed:?}");
            assert_eq!(source.read_ended(), Some(Ended::ClientLeft));
            drop(from);
        });
    }

    /// Two whose calls end at once.
    fn bulky(deadlines: &Rc<Deadlines>) -> [(Stream, TcpStream); 2] {
        let both = [connected(deadlines), connected(deadlines)];
        assert!(both.iter().all(|(stream, _)| stream.is_bulky()));
        both
    }

    #[test]
    fn a_move_takes_what_is_there_and_no_pipe_beyond_it() {
        on_both_drivers(|| async {
            let (deadlines, _) = deadlines();
            let pipes = Pipes::default();
            let [(source, mut from), (sink, mut to)] = bulky(&deadlines);
            assert!(matches!(pipes.move_now(&source, &sink), Moved::Nothing));
            let what = bytes(40_000);
            from.write_all(&what).unwrap();
            let (mut moved, mut heard) = (0, vec![0; what.len()]);
            while moved < what.len() {
                source.readable().await.unwrap();
                match pipes.move_now(&source, &sink) {
                    Moved::All(count) => moved += count,
                    _ => panic!("{moved} moved"),
                }
                assert_eq!((pipes.taken.get(), pipes.free.borrow().len()), (0, 1));
            }
            to.read_exact(&mut heard).unwrap();
            assert!(heard == what);
            drop(from);
            source.readable().await.unwrap();
            assert!(matches!(pipes.move_now(&source, &sink), Moved::End));
            assert_eq!((pipes.taken.get(), pipes.free.borrow().len()), (0, 1));
        });
    }

    #[test]
    fn what_a_sink_has_no_room_for_stays_in_its_pipe_and_nothing_waits() {
        on_both_drivers(|| async {
            let (deadlines, _) = deadlines();
            let pipes = Pipes::default();
            let [(source, from), (sink, to)] = bulky(&deadlines);
            let what = bytes(MANY);
            let said = say(from, what.clone());
            let (mut came, mut heard) = (0, None);
            let mut to = Some(to);
            while came < MANY {
                source.readable().await.unwrap();
                match pipes.move_now(&source, &sink) {
                    Moved::All(count) => came += count,
                    Moved::Full(held) => {
                        came += held.came();
                        assert_eq!((pipes.taken.get(), pipes.free.borrow().len()), (1, 0));
                        // Its peer reads only from now on.
                        heard = heard.or(to.take().map(|to| hear(to, MANY)));
                        held.drain(&sink, never).await.unwrap();
                    }
                    Moved::Nothing => {}
                    _ => panic!("{came} came"),
                }
                assert_eq!((pipes.taken.get(), pipes.free.borrow().len()), (0, 1));
            }
            assert!(heard.expect("it was never full").join().unwrap() == what);
            drop(said.join().unwrap());
        });
    }

    #[test]
    fn a_pipe_that_keeps_bytes_is_closed_with_them() {
        on_both_drivers(|| async {
            let (deadlines, _) = deadlines();
            let pipes = Pipes::default();
            let [(source, from), (sink, to)] = bulky(&deadlines);
            let said = thread::spawn(move || (&from).write_all(&bytes(MANY)));
            loop {
                source.readable().await.unwrap();
                if let Moved::Full(held) = pipes.move_now(&source, &sink) {
                    drop(held);
                    break;
                }
            }
            assert_eq!((pipes.taken.get(), pipes.free.borrow().len()), (0, 0));
            drop(source);
            drop((said.join().unwrap(), to));
        });
    }

    #[test]
    fn the_kernel_is_not_asked_for_a_pipe_with_each_move() {
        on_both_drivers(|| async {
            let (deadlines, _) = deadlines();
            let pipes = Pipes::default();
            let [(source, mut from), (sink, _to)] = bulky(&deadlines);
            from.write_all(b"much").unwrap();
            source.readable().await.unwrap();
            // Beyond a user's share of the kernel's memory.
            pipes.kernel_gives.set(Some(8 << 10));
            assert!(matches!(pipes.move_now(&source, &sink), Moved::NoPipe));
            pipes.kernel_gives.set(None);
            for _ in 0..REFUSED_MOVES {
                assert!(matches!(pipes.move_now(&source, &sink), Moved::NoPipe));
            }
            assert!(matches!(pipes.move_now(&source, &sink), Moved::All(4)));
            assert_eq!(pipes.taken.get(), 0);
        });
    }

    #[test]
    fn there_are_so_many_pipes_and_no_more() {
        let pipes = Pipes::default();
        let mut taken: Vec<_> = (0..PIPES_MAX).map(|_| pipes.take().unwrap()).collect();
        assert!(matches!(pipes.take(), Err(Relayed::NoPipe)));
        taken.pop().unwrap().give_back();
        // One that is returned is used again; one that is dropped makes room for another.
        taken.push(pipes.take().unwrap());
        assert!(pipes.take().is_err() && pipes.free.borrow().is_empty());
        taken.pop();
        assert!(pipes.take().is_ok() && pipes.free.borrow().is_empty());
    }
}
