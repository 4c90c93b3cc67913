//! Output to stderr: a bounded queue of texts, and a thread that writes them.
//!
//! A thread that has something to say puts it into the queue and goes on. So a reader that does not
//! read, a stalled terminal or a disk that hangs blocks neither serving nor a stop. Texts that find
//! no room, or cannot be written, are counted, and reported when there is room again. A command
//! that serves opens it before it reads its configuration; other commands wait for their reader. If
//! Ringway is a library there is no such thread, and its messages go through `tracing` alone.

use std::{
    io::{self, ErrorKind, Write},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing_subscriber::fmt::MakeWriter;

use super::StartError;
use crate::shared::dropped::Dropped;

/// Texts that may wait: more than a start with a thousand listeners writes at once.
const WAITING_MAX: usize = 4096;

/// How long a process that ends waits for the last texts to be written.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// The same, as long as stderr can be written to.
const LATE_WORDS: Duration = Duration::from_secs(3);

/// Where texts go; none before `open`.
static QUEUE: OnceLock<Queue> = OnceLock::new();

struct Queue {
    to: Sender<ToStderr>,
    dropped: Dropped,
}

enum ToStderr {
    Text(Vec<u8>),
    /// All earlier texts have been written when its sender is dropped.
    Mark {
        _written: Sender<()>,
    },
}

/// Starts the thread, unless it runs already.
///
/// # Errors
/// If there can be no more threads.
pub(crate) fn open() -> Result<(), StartError> {
    if QUEUE.get().is_some() {
        return Ok(());
    }
    let (to, from) = bounded(WAITING_MAX);
    let dropped = Dropped::default();
    let counted = dropped.clone();
    let work = move || {
        // A bug here is reported by the panic itself, and must not end the serving threads.
        while catch(|| write_all_told(&from, &counted, &mut io::stderr())).is_err() {}
    };
    let began = thread::Builder::new().name("ringway-stderr".into()).spawn(work);
    began.map_err(StartError::system("start the log's thread"))?;
    let _ = QUEUE.set(Queue { to, dropped });
    Ok(())
}

fn catch(work: impl FnOnce()) -> thread::Result<()> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
}

/// Writes a line without waiting for it; before `open` it is written at once.
pub(crate) fn say(line: &str) {
    let text = format!("{}\n", line.trim_end());
    match QUEUE.get() {
        Some(queue) => queue.put(text.as_bytes()),
        // If this fails there is nowhere left to report it.
        None => drop(io::stderr().lock().write_all(text.as_bytes())),
    }
}

/// Waits briefly until all earlier texts are written: before the process ends. Longer where stderr
/// takes them, and only the machine is late.
pub(crate) fn flush() {
    let Some(queue) = QUEUE.get() else { return };
    let began = Instant::now();
    let until = began + LAST_WORDS;
    let (mark, written) = bounded::<()>(0);
    if queue.to.send_deadline(ToStderr::Mark { _written: mark }, until).is_err() {
        return;
    }
    while written.recv_timeout(LAST_WORDS) == Err(RecvTimeoutError::Timeout) {
        if began.elapsed() > LATE_WORDS || !takes_more(Duration::ZERO) {
            return;
        }
    }
}

/// Whether stderr can be written to, now or within this time.
fn takes_more(within: Duration) -> bool {
    let within = Timespec::try_from(within).ok();
    let stderr = io::stderr();
    let mut waiting = [PollFd::new(&stderr, PollFlags::OUT)];
    poll(&mut waiting, within.as_ref()).is_ok_and(|ready| ready > 0)
}

/// Writes a line before the process ends through a bug, whether or not it is read.
pub(super) fn last_words(line: &str) {
    if QUEUE.get().is_some() || takes_more(Duration::from_millis(100)) {
        say(line);
    }
    flush();
}

impl Queue {
    fn put(&self, text: &[u8]) {
        if self.to.try_send(ToStderr::Text(text.to_vec())).is_err() {
            self.dropped.add(1);
        }
    }
}

/// The thread: writes texts until every sender is gone.
fn write_all_told(from: &Receiver<ToStderr>, dropped: &Dropped, to: &mut impl Write) {
    for told in from {
        let ToStderr::Text(text) = told else { continue };
        if write_all(to, &text).is_err() {
            dropped.add(1);
            continue;
        }
        // Reported only if it finds room by itself: it goes the way of all others.
        if from.len() < WAITING_MAX / 2 {
            let lines = dropped.take();
            if lines > 0 {
                tracing::warn!(lines, "stderr was not read fast enough: lines were dropped");
            }
        }
    }
}

/// Writes all of a text, even if another process has made stderr non-blocking.
fn write_all(to: &mut impl Write, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match to.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let stderr = io::stderr();
                poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The writer that `tracing` uses.
pub(super) struct Lines;

/// One line of `tracing`.
pub(super) struct StderrLine;

impl MakeWriter<'_> for Lines {
    type Writer = StderrLine;

    fn make_writer(&self) -> StderrLine {
        StderrLine
    }
}

impl Write for StderrLine {
    /// `tracing` writes each line with one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match QUEUE.get() {
            Some(queue) => queue.put(line),
            None => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads what is written only while it is allowed to.
    struct Reader {
        let_in: Receiver<()>,
        taken: Sender<String>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.let_in.recv();
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            let fails = text == "fails";
            self.taken.send(text).unwrap();
            if fails { Err(ErrorKind::StorageFull.into()) } else { Ok(bytes.len()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_who_tells_waits_and_what_finds_no_room_is_counted() {
        let (to, from) = bounded(2);
        let dropped = Dropped::default();
        let (go_on, let_in) = bounded::<()>(0);
        let (taken, took) = crossbeam_channel::unbounded();
        let counted = dropped.clone();
        let writes = thread::spawn(move || {
            write_all_told(&from, &counted, &mut Reader { let_in, taken });
        });
        let queue = Queue { to, dropped };
        for number in 0..1_000 {
            queue.put(number.to_string().as_bytes());
        }
        let lost = queue.dropped.take();
        assert!((997..=998).contains(&lost), "{lost}");
        drop(go_on);
        let (mark, written) = bounded::<()>(0);
        queue.to.send(ToStderr::Mark { _written: mark }).unwrap();
        assert!(written.recv_timeout(Duration::from_secs(10)).is_err());
        assert_eq!(took.try_iter().count() as u64, 1_000 - lost);
        queue.put(b"fails");
        drop(queue.to);
        writes.join().unwrap();
        assert_eq!((took.try_iter().count(), queue.dropped.take()), (1, 1));
    }
}
