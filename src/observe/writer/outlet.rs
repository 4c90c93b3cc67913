//! A core's end of an access log: lines into a buffer, full buffers to the thread.

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::{BUFFER_BYTES, Batch, Message};
use crate::base::moment::Tick;
use crate::observe::{
    access_log::{AccessLine, Format},
    dates::Dates,
};

/// Room that is left free for one more line; a longer one makes the buffer grow.
const LINE_BYTES: usize = 2 << 10;
/// Empty buffers that a core keeps for each log.
const SPARE_MAX: usize = 8;
/// Lines are handed over at the latest when the first of them is this old.
pub(super) const AGE_MAX: Duration = Duration::from_secs(1);

/// A core's end of a log. What is left in it when it is dropped is handed over.
pub(crate) struct Outlet {
    log: usize,
    format: Format,
    dates: Dates,
    pub(super) buffer: Vec<u8>,
    lines: u64,
    /// When the first of them was written, or when handing them over was tried last.
    since: Option<Tick>,
    /// Dropped lines that the log does not note yet.
    untold: u64,
    /// Dropped lines that the core has not counted yet.
    uncounted: u64,
    to: Sender<Message>,
    pub(super) home: Sender<Vec<u8>>,
    pub(super) spare: Receiver<Vec<u8>>,
}

impl Outlet {
    pub(super) fn new(log: usize, format: Format, to: Sender<Message>) -> Outlet {
        let (home, spare) = bounded(SPARE_MAX);
        Outlet {
            log,
            format,
            dates: Dates::default(),
            buffer: Vec::new(),
            lines: 0,
            since: None,
            untold: 0,
            uncounted: 0,
            to,
            home,
            spare,
        }
    }

    /// Writes a line; hands over the buffer if there is no room for another, or if the first line
    /// is old.
    pub(crate) fn write(&mut self, line: &AccessLine<'_>, now: Tick) {
        if self.buffer.capacity() == 0 {
            self.buffer =
                self.spare.try_recv().unwrap_or_else(|_| Vec::with_capacity(BUFFER_BYTES));
        }
        if self.lines == 0 {
            self.since = Some(now);
        }
        self.format.write(line, &mut self.dates, &mut self.buffer);
        self.lines += 1;
        if self.buffer.len() <= BUFFER_BYTES - LINE_BYTES {
            self.hand_over_old(now);
        } else if !self.hand_over() {
            self.drop_lines();
        }
    }

    /// Hands over the buffer if its first line is old.
    pub(crate) fn hand_over_old(&mut self, now: Tick) {
        if self.since.is_some_and(|since| now >= since + AGE_MAX) {
            self.since = Some(now);
            self.hand_over();
        }
    }

    /// Hands over the buffer, without ever waiting; false if the thread has no room for it, which
    /// is then kept.
    pub(crate) fn hand_over(&mut self) -> bool {
        if self.lines == 0 && self.untold == 0 {
            return true;
        }
        let batch = Batch {
            log: self.log,
            bytes: std::mem::take(&mut self.buffer),
            dropped: self.untold,
            home: self.home.clone(),
        };
        match self.to.try_send(Message::Write(batch)) {
            Ok(()) => {
                (self.untold, self.lines) = (0, 0);
                true
            }
            Err(TrySendError::Full(refused) | TrySendError::Disconnected(refused)) => {
                if let Message::Write(batch) = refused {
                    self.buffer = batch.bytes;
                }
                false
            }
        }
    }

    fn drop_lines(&mut self) {
        self.untold += self.lines;
        self.uncounted += self.lines;
        self.lines = 0;
        self.buffer.clear();
    }

    /// Lines that had to be dropped since the last call.
    pub(crate) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.uncounted)
    }

    /// Frees empty buffers, as after a peak.
    pub(crate) fn forget_spares(&mut self) {
        while self.spare.try_recv().is_ok() {}
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.hand_over();
    }
}
