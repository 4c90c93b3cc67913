//! The writer thread of all access logs, and the end of it that each core holds.
//!
//! A core writes its lines into a buffer and hands over the full one; the thread writes it with one
//! call and sends the buffer back. Both channels are bounded and no core ever waits: what the
//! thread cannot take is dropped, counted, and noted in the log itself. A disk that is full or a
//! directory that is gone is reported once, until it works again, and ends nothing.

mod file;
mod outlet;
#[cfg(test)]
mod tests;

use std::{
    io::{self, ErrorKind},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};

use self::file::Log;
pub(crate) use self::outlet::Outlet;
use super::{access_log::Format, reports::Reporter};
use crate::plan::AccessLog;
use crate::shared::counters::{Counter, Slab};

/// A buffer's size, and what is handed over at once: some hundred lines.
const BUFFER_BYTES: usize = 64 << 10;
/// Buffers that wait for the thread, 8 MiB: a disk that stalls for a tenth of a second at 100,000
/// lines a second.
const WAITING_MAX: usize = 128;

/// A message to the thread.
enum Message {
    Open(Log),
    Write(Batch),
    Reopen,
    Stop,
    #[cfg(test)]
    Bug,
}

/// Whole lines of one core for one log.
struct Batch {
    /// The index of the log, in the order in which they were opened.
    log: usize,
    bytes: Vec<u8>,
    /// Lines that this core had to drop before these.
    dropped: u64,
    /// Where the buffer goes when it is empty.
    home: Sender<Vec<u8>>,
}

/// The thread that writes all access logs, as the main thread holds it.
pub(crate) struct Writer {
    to: Sender<Message>,
    /// The paths of the logs, in the order in which they were opened; none = standard output.
    open: Vec<Option<PathBuf>>,
    /// Ends when the thread has.
    ended: Receiver<()>,
}

impl Writer {
    /// Starts the thread. With `reporter` it reports when a file cannot be written, and when it can
    /// be again; in `counters`, which are its own, it counts the lines that it could not write.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub(crate) fn start(counters: Arc<Slab>, reporter: Reporter) -> io::Result<Writer> {
        let (to, from) = bounded(WAITING_MAX);
        let (ending, ended) = bounded(0);
        let mut logs = Vec::new();
        let run = move || {
            // A bug loses the message that shows it, and is reported by the panic itself; no
            // serving thread ends with it, and the next line is written.
            while catch_unwind(AssertUnwindSafe(|| run(&from, &mut logs, &counters, &reporter)))
                .is_err()
            {
                counters.add(Counter::Panics, 1);
            }
            drop(ending);
        };
        thread::Builder::new().name("access-log".into()).spawn(run)?;
        Ok(Writer { to, open: Vec::new(), ended })
    }

    /// A core's end of a log. Logs of one path are one file, opened once.
    ///
    /// # Errors
    /// If the file cannot be opened; the error names it.
    pub(crate) fn outlet(&mut self, log: &AccessLog) -> io::Result<Outlet> {
        let known = self.open.iter().position(|path| *path == log.path);
        let place = match known {
            Some(place) => place,
            None => {
                let opened = Message::Open(Log::open(log.path.clone())?);
                self.to.send(opened).map_err(|_| io::Error::from(ErrorKind::BrokenPipe))?;
                self.open.push(log.path.clone());
                self.open.len() - 1
            }
        };
        Ok(Outlet::new(place, Format(log.format), self.to.clone()))
    }

    /// Reopens every file, for log rotation. Not waited for; false if the thread is too far behind
    /// to be told.
    pub(crate) fn reopen(&self) -> bool {
        self.to.try_send(Message::Reopen).is_ok()
    }

    /// Ends the thread after what was handed over before is written, waiting for no longer than
    /// this; false if that was not enough.
    pub(crate) fn stop(self, within: Duration) -> bool {
        let until = Instant::now() + within;
        self.to.send_deadline(Message::Stop, until).is_ok()
            && !matches!(self.ended.recv_deadline(until), Err(error) if error.is_timeout())
    }
}

/// The thread. It ends when it is told to, or when every sender is gone.
fn run(from: &Receiver<Message>, logs: &mut Vec<Log>, counters: &Slab, reporter: &Reporter) {
    for message in from {
        match message {
            Message::Open(log) => logs.push(log),
            Message::Write(batch) => {
                let Batch { log, mut bytes, dropped, home } = batch;
                if let Some(log) = logs.get_mut(log) {
                    let failed = log.write(&bytes, dropped, reporter);
                    counters.add(Counter::AccessLogDropped, failed);
                }
                bytes.clear();
                // A buffer that a huge line has made grow is not worth keeping, nor is an empty
                // one.
                if (BUFFER_BYTES..=2 * BUFFER_BYTES).contains(&bytes.capacity()) {
                    drop(home.try_send(bytes)); // a core with enough of them, or gone
                }
            }
            Message::Reopen => logs.iter_mut().for_each(|log| log.reopen(reporter)),
            Message::Stop => return,
            #[cfg(test)]
            Message::Bug => panic!("a bug on purpose"),
        }
    }
}
