//! Bytes from one stream to another without copying them: splice(2) through a pipe, after
//! readiness.
//!
//! For long bodies of known length this takes 0.6 of the machine time of 64 KiB reads. Only after
//! `readable()`: the ring's own splice always goes to a worker thread. Pipes of 1 MiB are kept per
//! worker, few, because each can hold that much of the kernel's memory.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::{OwnedFd, RawFd},
};

use rustix::pipe::PipeFlags;

use super::{io::give_way, stream::Stream};

/// How much a pipe holds, where the kernel lets us have that much.
const PIPE_BYTES: usize = 1 << 20;

/// Pipes kept per worker while nobody uses them.
const PIPES_MAX: usize = 32;

struct Pipe {
    reading: OwnedFd,
    writing: OwnedFd,
    holds: usize,
}

/// The pipes of one worker.
#[derive(Default)]
pub(crate) struct Pipes(RefCell<Vec<Pipe>>);

/// What became of a relay.
#[derive(Debug)]
pub(crate) enum Relayed {
    /// Everything went over.
    All,
    /// The source ended early or failed.
    SourceEnded,
    /// The sink failed.
    SinkFailed,
    /// There is no pipe to be had; nothing was moved.
    NoPipe,
}

impl Pipes {
    fn take(&self) -> io::Result<Pipe> {
        if let Some(pipe) = self.0.borrow_mut().pop() {
            return Ok(pipe);
        }
        let (reading, writing) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Without the right to more, what the kernel gives by itself (64 KiB) serves.
        let _ = rustix::pipe::fcntl_setpipe_size(&writing, PIPE_BYTES);
        let holds = rustix::pipe::fcntl_getpipe_size(&reading)?;
        Ok(Pipe { reading, writing, holds })
    }

    fn give(&self, pipe: Pipe) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < PIPES_MAX {
            kept.push(pipe);
        }
    }

    /// Moves exactly `count` bytes from `source` to `sink`; `client` is whom it is for. `moved`
    /// grows by what the sink has taken.
    pub(crate) async fn relay(
        &self,
        source: &Stream,
        sink: &Stream,
        count: u64,
        client: RawFd,
        moved: &Cell<u64>,
        (read_by, write_by): (impl Fn() -> u64, impl Fn() -> u64),
    ) -> Relayed {
        let Ok(pipe) = self.take() else { return Relayed::NoPipe };
        let mut left = count;
        while left > 0 {
            give_way().await;
            let ready = {
                source.watched().read_for(read_by(), client);
                let ready = source.readable().await;
                source.watched().read_for(0, -1);
                ready
            };
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(pipe.holds);
            let taken = match ready.and_then(|()| source.splice_into(&pipe.writing, wanted)) {
                Ok(0) => return self.ended(pipe),
                Ok(taken) => taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(_) => return self.ended(pipe),
            };
            let more = left > taken as u64;
            if drain(&pipe, sink, (taken, more), moved, &write_by).await.is_err() {
                // What is left in the pipe goes with it.
                return Relayed::SinkFailed;
            }
            left -= taken as u64;
        }
        self.give(pipe);
        Relayed::All
    }

    fn ended(&self, pipe: Pipe) -> Relayed {
        self.give(pipe);
        Relayed::SourceEnded
    }
}

async fn drain(
    pipe: &Pipe,
    sink: &Stream,
    (count, more): (usize, bool),
    moved: &Cell<u64>,
    write_by: impl Fn() -> u64,
) -> io::Result<()> {
    let mut left = count;
    while left > 0 {
        match sink.splice_from(&pipe.reading, left, more) {
            Ok(sent) => {
                left -= sent.min(left);
                moved.set(moved.get() + sent as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                sink.watched().write_by(write_by());
                let ready = sink.writable().await;
                sink.watched().write_by(0);
                ready?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
        rc::Rc,
        thread::{self, JoinHandle},
    };

    use super::*;
    use crate::net::{
        buffer::Buffers,
        clock::Clock,
        deadlines::{Deadlines, Ended, Ends, NO_TAG},
        io::task,
    };
    use crate::testkit::{bytes, on_both_drivers, pair};

    /// More than a pipe and two sockets hold.
    const MANY: usize = 9 << 20;

    fn never() -> u64 {
        0
    }

    fn deadlines() -> (Rc<Deadlines>, Rc<Clock>) {
        let clock = Rc::new(Clock::new());
        let deadlines = Deadlines::new(Rc::clone(&clock));
        let sweeping = Rc::clone(&deadlines);
        task(async move { sweeping.sweep(|| {}).await });
        (deadlines, clock)
    }

    fn connected(deadlines: &Rc<Deadlines>) -> (Stream, TcpStream) {
        pair(|fd| deadlines.watch(fd, Ends::Both, NO_TAG))
    }

    /// Says all of it beside everything else, and then nothing.
    fn say(mut peer: TcpStream, what: Vec<u8>) -> JoinHandle<TcpStream> {
        thread::spawn(move || {
            peer.write_all(&what).unwrap();
            peer
        })
    }

    /// Hears `count` bytes beside everything else.
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
            let relayed =
                pipes.relay(&source, &sink, MANY as u64, sink.raw(), &moved, (never, never)).await;
            assert!(matches!(relayed, Relayed::All), "{relayed:?}");
            assert!(heard.join().unwrap() == what);
            assert_eq!(moved.get(), MANY as u64);
            let mut rest = Buffers::new(1).take().unwrap();
            while rest.len() < 4 {
                assert_ne!(source.recv(&mut rest, 0).await.unwrap(), 0);
            }
            assert_eq!(rest.bytes(), b"rest");
            assert_eq!(pipes.0.borrow().len(), 1, "the pipe is kept");
            drop(said.join().unwrap());
        });
    }

    #[test]
    fn a_source_that_ends_early_is_told_from_one_that_is_late() {
        on_both_drivers(|| async {
            let (deadlines, clock) = deadlines();
            let pipes = Pipes::default();
            for (closes, by, ended) in
                [(true, 0, Ended::No), (false, clock.now() + 1, Ended::Overdue)]
            {
                let ((source, mut from), (sink, to)) =
                    (connected(&deadlines), connected(&deadlines));
                from.write_all(b"half").unwrap();
                let from = (!closes).then_some(from);
                let moved = Cell::new(0);
                let relayed =
                    pipes.relay(&source, &sink, 8, sink.raw(), &moved, (|| by, never)).await;
                assert!(matches!(relayed, Relayed::SourceEnded), "{relayed:?}");
                assert_eq!(source.ended(), ended);
                // What came before the end has gone over, and no pipe holds anything.
                assert_eq!((moved.get(), hear(to, 4).join().unwrap()), (4, b"half".to_vec()));
                assert_eq!(pipes.0.borrow().len(), 1);
                drop(from);
            }
        });
    }

    #[test]
    fn a_pipe_whose_sink_failed_is_never_used_again() {
        on_both_drivers(|| async {
            let (deadlines, clock) = deadlines();
            let pipes = Pipes::default();
            let ((source, from), (sink, to)) = (connected(&deadlines), connected(&deadlines));
            let said = thread::spawn(move || (&from).write_all(&bytes(MANY)));
            let by = || clock.now() + 1;
            let moved = Cell::new(0);
            let relayed =
                pipes.relay(&source, &sink, MANY as u64, sink.raw(), &moved, (never, by)).await;
            assert!(matches!(relayed, Relayed::SinkFailed), "{relayed:?}");
            assert_eq!(sink.ended(), Ended::Overdue, "its peer takes nothing");
            assert!(pipes.0.borrow().is_empty());
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
            let relayed = pipes.relay(&source, &sink, 8, sink.raw(), &moved, (never, never)).await;
            assert!(matches!(relayed, Relayed::SourceEnded), "{relayed:?}");
            assert_eq!(source.ended(), Ended::ClientLeft);
            drop(from);
        });
    }
}
