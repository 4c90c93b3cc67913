//! One file of an access log, as the thread holds it: whole lines, and notes of missing ones.
//!
//! A disk that is full or a directory that is gone is reported once, until it works again.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::Errno,
};

use crate::base::moment::{UnixMillis, millis};
use crate::observe::{
    dates::Dates,
    event::{AccessLog, Event},
    reports::Reporter,
};

/// One file, as the thread holds it.
pub(super) struct Log {
    path: Option<PathBuf>,
    file: File,
    /// Whether the last write failed, which has been reported then.
    failing: bool,
    /// Whether the file ends in a part of a line.
    cut: bool,
    /// Lines that are neither in the log nor noted there: those that cores dropped, and those of
    /// failed writes.
    lost: u64,
}

impl Log {
    /// Opens a file, or standard output.
    pub(super) fn open(path: Option<PathBuf>) -> io::Result<Log> {
        let (file, cut) = open(path.as_deref())?;
        Ok(Log { path, file, failing: false, cut, lost: 0 })
    }

    fn with_cause(&self, cause: &io::Error) -> AccessLog {
        AccessLog { file: self.path.clone(), cause: cause.to_string().into() }
    }

    /// Reopens the path; if that fails, continues with the present file.
    pub(super) fn reopen(&mut self, reporter: &Reporter) {
        match open(self.path.as_deref()) {
            Ok(opened) => (self.file, self.cut) = opened,
            Err(error) => reporter.event(Event::AccessLogNotReopened(self.with_cause(&error))),
        }
    }

    /// Writes whole lines, after a note of those that cores had to drop; returns how many of these
    /// could not be written.
    pub(super) fn write(&mut self, bytes: &[u8], dropped: u64, reporter: &Reporter) -> u64 {
        self.lost += dropped;
        let mut rest = bytes;
        let outcome = self.tell_lost().and_then(|()| self.write_lines(&mut rest));
        let failed = lines(rest);
        self.lost += failed;
        match outcome {
            Ok(()) if self.failing => {
                self.failing = false;
                reporter.event(Event::AccessLogWritten { file: self.path.clone() });
            }
            Err(error) if !self.failing => {
                self.failing = true;
                reporter.event(Event::AccessLogFailing(self.with_cause(&error)));
            }
            Ok(()) | Err(_) => {}
        }
        failed
    }

    /// Notes in the log how many lines are missing here.
    fn tell_lost(&mut self) -> io::Result<()> {
        if self.lost == 0 {
            return Ok(());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut line = b"{\"time\":\"".to_vec();
        line.extend(Dates::default().rfc3339(UnixMillis(millis(now))));
        line.extend(format!("\",\"dropped\":{}}}\n", self.lost).bytes());
        self.write_lines(&mut &line[..])?;
        self.lost = 0;
        Ok(())
    }

    /// Writes whole lines; `rest` is what could not be written.
    fn write_lines(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        let bytes = *rest;
        let outcome = self.end_cut_line().and_then(|()| write_all(&mut self.file, rest));
        let written = bytes.get(..bytes.len() - rest.len()).unwrap_or_default();
        let whole = memchr::memrchr(b'\n', written).map_or(0, |last| last + 1);
        let part = (written.len() - whole) as u64;
        // A part that cannot be removed is ended before the next line; standard output is not ours.
        let mut gone = || self.path.is_some() && take_back(&mut self.file, part).unwrap_or(false);
        self.cut |= part > 0 && !gone();
        outcome
    }

    fn end_cut_line(&mut self) -> io::Result<()> {
        if self.cut {
            self.file.write_all(b"\n")?;
            self.cut = false;
        }
        Ok(())
    }
}

/// Removes the last bytes of a file, which we have just written: a part of a line is useless. False
/// if it is not a file, or if another process has written to it since.
fn take_back(file: &mut File, part: u64) -> io::Result<bool> {
    let about = file.metadata()?;
    let end = about.is_file().then(|| file.stream_position()).transpose()?;
    if end != Some(about.len()) {
        return Ok(false);
    }
    file.set_len(about.len().saturating_sub(part)).map(|()| true)
}

/// Writes all of `rest`, which is what is left to write if that fails.
fn write_all(file: &mut File, rest: &mut &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match file.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => *rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// Opens a file to append to it, or standard output; also returns whether it ends in a part of a
/// line, as when a process was killed.
fn open(path: Option<&Path>) -> io::Result<(File, bool)> {
    let Some(path) = path else {
        return Ok((File::from(io::stdout().as_fd().try_clone_to_owned()?), false));
    };
    let file = open_now(path)?;
    // If the file may be written but not read, such a line stays.
    let cut = file.metadata()?.is_file() && ends_in_a_part(path).unwrap_or(false);
    Ok((file, cut))
}

/// Opens a file to append to it without ever waiting. A FIFO without a reader is held open at both
/// ends (fifo(7)): its lines wait for a reader. Writing waits as always: this thread may.
fn open_now(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    options.append(true).create(true).mode(0o640).custom_flags(flags);
    let opened = match options.open(path) {
        Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
            options.read(true).open(path)
        }
        opened => opened,
    };
    let file = opened?;
    let flags = fcntl_getfl(&file)?;
    fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(file)
}

fn ends_in_a_part(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::Folder;
    use super::*;
    use crate::observe::reports;

    #[test]
    fn a_line_that_was_cut_is_ended_before_the_next() {
        let (reporter, told) = reports::channel();
        let folder = Folder::new("cut");
        let mut log = Log::open(folder.log().path).unwrap();
        log.file.write_all(b"{\"cut").unwrap();
        log.cut = true;
        assert_eq!(log.write(b"{}\n", 0, &reporter), 0);
        let text = fs::read_to_string(folder.0.join("access.log")).unwrap();
        assert_eq!(text, "{\"cut\n{}\n");
        assert!(told.is_empty());
    }

    #[test]
    fn a_file_that_ends_in_a_part_of_a_line_is_ended_before_the_first() {
        let (reporter, told) = reports::channel();
        let folder = Folder::new("killed");
        for (found, expected) in
            [("", "{}\n"), ("{}\n", "{}\n{}\n"), ("{}\n{\"cut", "{}\n{\"cut\n{}\n")]
        {
            let path = folder.0.join("access.log");
            fs::write(&path, found).unwrap();
            let mut log = Log::open(Some(path.clone())).unwrap();
            assert_eq!(log.write(b"{}\n", 0, &reporter), 0);
            assert_eq!(fs::read_to_string(path).unwrap(), expected);
        }
        assert!(told.is_empty());
    }

    #[test]
    fn a_fifo_that_nobody_reads_is_opened_at_once_and_keeps_its_lines_for_a_reader() {
        let (reporter, told) = reports::channel();
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let folder = Folder::new("fifo");
        let path = folder.0.join("access.log");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let mut log = Log::open(Some(path.clone())).unwrap();
        assert_eq!(log.write(b"{}\n", 0, &reporter), 0);
        let mut reader = File::open(&path).unwrap();
        let mut read = [0; 3];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"{}\n");
        assert!(!fcntl_getfl(&log.file).unwrap().contains(OFlags::NONBLOCK));
        assert!(told.is_empty());
    }

    #[test]
    fn a_part_of_a_line_is_taken_back_unless_somebody_wrote_behind_it() {
        let (reporter, told) = reports::channel();
        let folder = Folder::new("part");
        let path = folder.0.join("access.log");
        let mut log = Log::open(Some(path.clone())).unwrap();
        log.file.write_all(b"{}\n{\"cut").unwrap();
        assert!(take_back(&mut log.file, 5).unwrap());
        assert_eq!(log.write(b"{}\n", 0, &reporter), 0);
        assert_eq!(fs::read_to_string(&path).unwrap(), "{}\n{}\n");

        log.file.write_all(b"{\"cut").unwrap();
        let mut other = Log::open(Some(path.clone())).unwrap();
        other.write(b"{}\n", 0, &reporter);
        assert!(!take_back(&mut log.file, 5).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "{}\n{}\n{\"cut\n{}\n");

        let mut pipe = OpenOptions::new().append(true).open("/dev/null").unwrap();
        assert!(!take_back(&mut pipe, 5).unwrap());
        assert!(told.is_empty());
    }
}
