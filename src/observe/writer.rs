//! The thread that writes all access logs, and the end of it that each core holds.
//!
//! A core writes its lines into a buffer and hands over the full one; the thread writes it with one
//! call and sends the buffer back. Both channels are bounded and no core ever waits: what the
//! thread cannot take is dropped, counted, and said in the log itself. A disk that is full or a
//! directory that is gone is reported once, until it is well again, and ends nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::{fd::AsFd, unix::fs::OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::access_log::{Format, Line};
use super::dates::Dates;
use crate::plan::AccessLog;
use crate::shared::counters::{Counter, Slab};

/// A buffer's size, and what is handed over at once: some hundred lines.
const BUFFER_BYTES: usize = 64 << 10;
/// What is left free for one more line; a longer one makes the buffer grow.
const LINE_BYTES: usize = 2 << 10;
/// Buffers that wait for the thread, 8 MiB: a disk that stalls for a tenth of a second at 100,000
/// lines a second.
const WAITING_MAX: usize = 128;
/// Empty buffers that a core keeps for each log.
const SPARE_MAX: usize = 8;
/// Lines are handed over at the latest when the first of them is this old, in milliseconds.
const AGE_MAX_MS: u64 = 1_000;

/// What the thread is told.
enum Message {
    Open(Log),
    Write(Batch),
    Reopen,
    Stop,
}

/// Whole lines of one core for one log.
struct Batch {
    /// The place of the log, in the order in which they were opened.
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
    /// Starts the thread; `report` is what it says to people: rarely, and whole sentences. In
    /// `counters`, which are its own, it counts the lines that it could not write.
    ///
    /// # Errors
    /// Where there can be no more threads.
    pub(crate) fn start(
        counters: Arc<Slab>,
        report: impl FnMut(&str) + Send + 'static,
    ) -> io::Result<Writer> {
        let (to, from) = bounded(WAITING_MAX);
        let (ending, ended) = bounded(0);
        let run = move || {
            run(&from, &counters, report);
            drop(ending);
        };
        thread::Builder::new().name("access-log".into()).spawn(run)?;
        Ok(Writer { to, open: Vec::new(), ended })
    }

    /// The end of a log that one core holds. Logs of one path are one file, opened once.
    ///
    /// # Errors
    /// Where the file cannot be opened; the error names it.
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

    /// Opens every file anew, as whoever has moved them away wants it. Not waited for; false where
    /// the thread is too far behind to be told.
    pub(crate) fn reopen(&self) -> bool {
        self.to.try_send(Message::Reopen).is_ok()
    }

    /// Ends the thread after what was handed over before is written, waiting for no longer than
    /// this; false where that was not enough.
    pub(crate) fn stop(self, within: Duration) -> bool {
        let until = Instant::now() + within;
        self.to.send_deadline(Message::Stop, until).is_ok()
            && !matches!(self.ended.recv_deadline(until), Err(error) if error.is_timeout())
    }
}

/// The end of a log that one core holds. What is left in it when it is dropped is handed over.
pub(crate) struct Outlet {
    log: usize,
    format: Format,
    dates: Dates,
    buffer: Vec<u8>,
    lines: u64,
    /// When the first of them was written, or when handing them over was tried last; in coarse
    /// milliseconds.
    since: u64,
    /// Lines dropped that the log does not tell yet.
    untold: u64,
    /// Lines dropped that the core has not counted yet.
    uncounted: u64,
    to: Sender<Message>,
    home: Sender<Vec<u8>>,
    spare: Receiver<Vec<u8>>,
}

impl Outlet {
    fn new(log: usize, format: Format, to: Sender<Message>) -> Outlet {
        let (home, spare) = bounded(SPARE_MAX);
        Outlet {
            log,
            format,
            dates: Dates::default(),
            buffer: Vec::new(),
            lines: 0,
            since: 0,
            untold: 0,
            uncounted: 0,
            to,
            home,
            spare,
        }
    }

    /// Writes a line; hands over what there is where it leaves no room for another, or where the
    /// first line is old. `now` is the core's coarse clock, in milliseconds.
    pub(crate) fn write(&mut self, line: &Line<'_>, now: u64) {
        if self.buffer.capacity() == 0 {
            self.buffer =
                self.spare.try_recv().unwrap_or_else(|_| Vec::with_capacity(BUFFER_BYTES));
        }
        if self.lines == 0 {
            self.since = now;
        }
        self.format.write(line, &mut self.dates, &mut self.buffer);
        self.lines += 1;
        if self.buffer.len() <= BUFFER_BYTES - LINE_BYTES {
            self.hand_over_old(now);
        } else if !self.hand_over() {
            self.drop_lines();
        }
    }

    /// Hands over what there is if the first line of it is old.
    pub(crate) fn hand_over_old(&mut self, now: u64) {
        if now >= self.since + AGE_MAX_MS {
            self.since = now;
            self.hand_over();
        }
    }

    /// Hands over what there is, without ever waiting; false where the thread has no room for it,
    /// which is then kept.
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

    /// Lines that had to be dropped since this was asked last.
    pub(crate) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.uncounted)
    }

    /// Gives the memory of empty buffers back, as after a peak.
    pub(crate) fn forget_spares(&mut self) {
        while self.spare.try_recv().is_ok() {}
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.hand_over();
    }
}

/// The thread. It ends when it is told to, or when nobody is left to tell it anything.
fn run(from: &Receiver<Message>, counters: &Slab, mut report: impl FnMut(&str)) {
    let mut logs: Vec<Log> = Vec::new();
    for message in from {
        match message {
            Message::Open(log) => logs.push(log),
            Message::Write(batch) => {
                let Batch { log, mut bytes, dropped, home } = batch;
                if let Some(log) = logs.get_mut(log) {
                    let failed = log.write(&bytes, dropped, &mut report);
                    counters.add(Counter::AccessLogDropped, failed);
                }
                bytes.clear();
                // One that a huge line has made grow is not worth keeping, nor is none at all.
                if (BUFFER_BYTES..=2 * BUFFER_BYTES).contains(&bytes.capacity()) {
                    drop(home.try_send(bytes)); // a core with enough of them, or gone
                }
            }
            Message::Reopen => logs.iter_mut().for_each(|log| log.reopen(&mut report)),
            Message::Stop => return,
        }
    }
}

/// One file, as the thread holds it.
struct Log {
    path: Option<PathBuf>,
    file: File,
    /// Whether the last write failed, which has been reported then.
    failing: bool,
    /// Whether the file ends in a part of a line.
    cut: bool,
    /// Lines that are neither in the log nor told there: of cores, and of failed writes.
    lost: u64,
}

impl Log {
    fn open(path: Option<PathBuf>) -> io::Result<Log> {
        let (file, cut) = open(path.as_deref())?;
        Ok(Log { path, file, failing: false, cut, lost: 0 })
    }

    fn name(&self) -> String {
        self.path.as_deref().map_or("standard output".into(), |path| path.display().to_string())
    }

    /// Opens the path anew; where that fails, goes on with the file at hand.
    fn reopen(&mut self, report: &mut impl FnMut(&str)) {
        match open(self.path.as_deref()) {
            Ok(opened) => (self.file, self.cut) = opened,
            Err(error) => {
                report(&format!("access log {error}; the file open until now is kept"));
            }
        }
    }

    /// Writes whole lines, after a note of those that cores had to drop; how many of these could
    /// not be written.
    fn write(&mut self, bytes: &[u8], dropped: u64, report: &mut impl FnMut(&str)) -> u64 {
        self.lost += dropped;
        let mut rest = bytes;
        let outcome = self.tell_lost().and_then(|()| self.write_lines(&mut rest));
        let failed = lines(rest);
        self.lost += failed;
        match outcome {
            Ok(()) if self.failing => {
                self.failing = false;
                report(&format!("access log {} can be written again", self.name()));
            }
            Err(error) if !self.failing => {
                self.failing = true;
                let name = self.name();
                report(&format!("access log {name}: {error}; lines are counted and dropped"));
            }
            Ok(()) | Err(_) => {}
        }
        failed
    }

    /// Says in the log how many lines are missing here.
    fn tell_lost(&mut self) -> io::Result<()> {
        if self.lost == 0 {
            return Ok(());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut line = b"{\"time\":\"".to_vec();
        line.extend(Dates::default().rfc3339(u64::try_from(now.as_millis()).unwrap_or_default()));
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
        // What cannot be taken back is ended before the next line; standard output is not ours.
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

/// Takes the last bytes of a file back, which we have just written: a part of a line is none. False
/// where it is not a file, or where somebody else has written to it since.
fn take_back(file: &mut File, part: u64) -> io::Result<bool> {
    let about = file.metadata()?;
    let end = about.is_file().then(|| file.stream_position()).transpose()?;
    if end != Some(about.len()) {
        return Ok(false);
    }
    file.set_len(about.len().saturating_sub(part)).map(|()| true)
}

/// Writes all of `rest`, which is what is left to write where that fails.
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

/// Opens a file to append to it, or standard output; also whether it ends in a part of a line, as
/// when a process was killed. The error names the file.
fn open(path: Option<&Path>) -> io::Result<(File, bool)> {
    let Some(path) = path else {
        return Ok((File::from(io::stdout().as_fd().try_clone_to_owned()?), false));
    };
    let opened = OpenOptions::new().append(true).create(true).mode(0o640).open(path);
    let file = opened
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    // Whoever may write but not read has to live with such a line.
    let cut = file.metadata()?.is_file() && ends_in_a_part(path).unwrap_or(false);
    Ok((file, cut))
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
    use std::net::SocketAddr;

    use crossbeam_channel::unbounded;
    use serde_json::Value;

    use super::*;
    use crate::base::rng::Rng;
    use crate::observe::{
        record::{Asked, Asker, Record},
        request_id::RequestId,
    };
    use crate::plan::{AccessLogFormat, ListenerId, Plan};

    /// Longer than anything here takes on a machine that is busy with other things.
    const LONG: Duration = Duration::from_secs(20);

    /// The core's clock, which stands still.
    const NOW: u64 = 5_000;

    /// A directory of its own for each test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("ringway-{}-{test}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn log(&self) -> AccessLog {
            AccessLog { path: Some(self.0.join("access.log")), format: AccessLogFormat::Json }
        }

        /// The lines of a file, each of which must be an object.
        fn lines(&self, name: &str) -> Vec<Value> {
            let text = fs::read_to_string(self.0.join(name)).unwrap();
            assert!(text.is_empty() || text.ends_with('\n'));
            text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn writer() -> (Writer, Receiver<String>) {
        let (tell, told) = unbounded();
        let report = move |text: &str| tell.send(text.to_owned()).unwrap();
        (Writer::start(Slab::new(), report).unwrap(), told)
    }

    /// Writes lines whose `request_bytes` are these numbers.
    fn write(outlet: &mut Outlet, numbers: std::ops::Range<u64>) {
        let peer: SocketAddr = ([127, 0, 0, 1], 1).into();
        let client = peer.ip();
        for request_bytes in numbers {
            let line = Line {
                unix_ms: 0,
                request_id: RequestId::new(0, &mut Rng::seeded(1)),
                asker: Asker { listener: ListenerId(0), client, peer, secure: false },
                record: &Record { request_bytes, ..Record::default() },
                asked: Asked::default(),
                bytes: &[],
                plan: &Plan::default(),
            };
            outlet.write(&line, NOW);
        }
    }

    /// Hands over what there is and waits until the thread is done with it.
    #[track_caller]
    fn written(outlet: &mut Outlet) {
        assert!(outlet.hand_over());
        outlet.spare.recv_timeout(LONG).unwrap();
    }

    fn numbers(lines: &[Value]) -> Vec<u64> {
        lines.iter().filter_map(|line| line["request_bytes"].as_u64()).collect()
    }

    fn dropped(lines: &[Value]) -> u64 {
        lines.iter().filter_map(|line| line["dropped"].as_u64()).sum()
    }

    #[test]
    fn lines_of_all_cores_arrive_whole_and_in_the_order_of_each() {
        let folder = Folder::new("cores");
        let (mut writer, _told) = writer();
        let cores: Vec<_> = (0..4)
            .map(|core| {
                let mut outlet = writer.outlet(&folder.log()).unwrap();
                thread::spawn(move || {
                    write(&mut outlet, core * 10_000..core * 10_000 + 1_000);
                    outlet.take_dropped()
                })
            })
            .collect();
        let dropped: u64 = cores.into_iter().map(|core| core.join().unwrap()).sum();
        assert!(writer.stop(LONG));
        let numbers = numbers(&folder.lines("access.log"));
        assert_eq!(numbers.len() as u64, 4_000 - dropped);
        for core in 0..4 {
            let own = numbers.iter().filter(|number| **number / 10_000 == core);
            assert!(own.is_sorted());
        }
    }

    #[test]
    fn buffers_come_back_and_are_used_again() {
        let folder = Folder::new("buffers");
        let (mut writer, _told) = writer();
        let mut outlet = writer.outlet(&folder.log()).unwrap();
        write(&mut outlet, 0..1);
        let place = outlet.buffer.as_ptr();
        assert!(outlet.hand_over());
        let back = outlet.spare.recv_timeout(LONG).unwrap();
        assert_eq!(back.as_ptr(), place);
        outlet.home.send(back).unwrap();
        write(&mut outlet, 1..2);
        assert_eq!(outlet.buffer.as_ptr(), place);
        drop(outlet);
        assert!(writer.stop(LONG));
        assert_eq!(numbers(&folder.lines("access.log")), [0, 1]);
    }

    #[test]
    fn a_core_never_waits_and_what_is_dropped_is_told_in_the_log() {
        let folder = Folder::new("dropped");
        let (to, from) = bounded(1);
        let mut outlet = Outlet::new(0, Format(AccessLogFormat::Json), to);
        write(&mut outlet, 0..1);
        assert!(outlet.hand_over());
        write(&mut outlet, 1..4);
        assert!(!outlet.hand_over(), "nobody has taken the first: there is no room");
        assert_eq!(outlet.take_dropped(), 0, "what is not too much is kept");
        write(&mut outlet, 4..1_000);
        let dropped = outlet.take_dropped();
        assert!(dropped > 0 && outlet.buffer.len() <= BUFFER_BYTES);
        let first = from.recv().unwrap();
        assert!(outlet.hand_over());
        let second = from.recv().unwrap();
        assert!(outlet.hand_over() && from.is_empty(), "nothing to tell twice");

        let (to, from) = unbounded();
        let log = Log::open(folder.log().path).unwrap();
        for message in [Message::Open(log), first, second, Message::Stop] {
            to.send(message).unwrap();
        }
        run(&from, &Slab::new(), |text| panic!("{text}"));
        let lines = folder.lines("access.log");
        assert_eq!(numbers(&lines), [0].into_iter().chain(1 + dropped..1_000).collect::<Vec<_>>());
        assert_eq!(lines[1]["dropped"], dropped);
        assert!(lines[1]["time"].as_str().unwrap().starts_with("20"));
    }

    #[test]
    fn lines_are_handed_over_when_the_first_is_old() {
        let (to, from) = bounded(9);
        let mut outlet = Outlet::new(0, Format(AccessLogFormat::Json), to);
        write(&mut outlet, 0..2);
        outlet.hand_over_old(NOW + AGE_MAX_MS - 1);
        assert!(from.is_empty());
        outlet.hand_over_old(NOW + AGE_MAX_MS);
        assert_eq!(from.len(), 1);
        outlet.hand_over_old(NOW + 9 * AGE_MAX_MS);
        assert_eq!(from.len(), 1, "there is nothing");
    }

    #[test]
    fn a_moved_file_is_left_alone_once_it_is_opened_anew() {
        let folder = Folder::new("moved");
        let (mut writer, told) = writer();
        let mut outlet = writer.outlet(&folder.log()).unwrap();
        write(&mut outlet, 0..1);
        written(&mut outlet);
        fs::rename(folder.0.join("access.log"), folder.0.join("access.log.1")).unwrap();
        write(&mut outlet, 1..2);
        written(&mut outlet);
        assert!(writer.reopen());
        write(&mut outlet, 2..3);
        written(&mut outlet);
        assert_eq!(numbers(&folder.lines("access.log.1")), [0, 1]);
        assert_eq!(numbers(&folder.lines("access.log")), [2]);
        assert!(told.is_empty());
    }

    #[test]
    fn a_directory_that_is_gone_is_reported_and_ends_nothing() {
        let folder = Folder::new("gone");
        let (mut writer, told) = writer();
        let mut outlet = writer.outlet(&folder.log()).unwrap();
        fs::remove_dir_all(&folder.0).unwrap();
        assert!(writer.reopen());
        write(&mut outlet, 0..1);
        written(&mut outlet);
        let text = told.try_recv().unwrap();
        assert!(text.contains("access.log") && text.contains("No such file"), "{text}");
        fs::create_dir_all(&folder.0).unwrap();
        assert!(writer.reopen());
        write(&mut outlet, 1..2);
        written(&mut outlet);
        assert_eq!(numbers(&folder.lines("access.log")), [1]);
        assert!(told.is_empty());
    }

    #[test]
    fn a_full_disk_is_reported_once_and_its_lines_are_counted() {
        let folder = Folder::new("full");
        let path = folder.0.join("access.log");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let (tell, told) = unbounded();
        let counters = Slab::new();
        let report = move |text: &str| tell.send(text.to_owned()).unwrap();
        let mut writer = Writer::start(Arc::clone(&counters), report).unwrap();
        let mut outlet = writer.outlet(&folder.log()).unwrap();
        for number in 0..3 {
            write(&mut outlet, number..number + 1);
            written(&mut outlet);
        }
        let text = told.try_recv().unwrap();
        assert!(text.contains("No space left") && told.is_empty(), "{text}, {told:?}");
        fs::remove_file(&path).unwrap();
        assert!(writer.reopen());
        write(&mut outlet, 3..4);
        written(&mut outlet);
        let text = told.try_recv().unwrap();
        assert!(text.contains("can be written again") && told.is_empty(), "{text}");
        let lines = folder.lines("access.log");
        assert_eq!((numbers(&lines), dropped(&lines)), (vec![3], 3));
        assert_eq!(counters.read(Counter::AccessLogDropped), 3);
    }

    #[test]
    fn a_line_that_was_cut_is_ended_before_the_next() {
        let folder = Folder::new("cut");
        let mut log = Log::open(folder.log().path).unwrap();
        log.file.write_all(b"{\"cut").unwrap();
        log.cut = true;
        assert_eq!(log.write(b"{}\n", 0, &mut |text: &str| panic!("{text}")), 0);
        let text = fs::read_to_string(folder.0.join("access.log")).unwrap();
        assert_eq!(text, "{\"cut\n{}\n");
    }

    #[test]
    fn a_file_that_ends_in_a_part_of_a_line_is_ended_before_the_first() {
        let folder = Folder::new("killed");
        for (found, expected) in
            [("", "{}\n"), ("{}\n", "{}\n{}\n"), ("{}\n{\"cut", "{}\n{\"cut\n{}\n")]
        {
            let path = folder.0.join("access.log");
            fs::write(&path, found).unwrap();
            let mut log = Log::open(Some(path.clone())).unwrap();
            assert_eq!(log.write(b"{}\n", 0, &mut |text: &str| panic!("{text}")), 0);
            assert_eq!(fs::read_to_string(path).unwrap(), expected);
        }
    }

    #[test]
    fn a_part_of_a_line_is_taken_back_unless_somebody_wrote_behind_it() {
        let folder = Folder::new("part");
        let path = folder.0.join("access.log");
        let mut log = Log::open(Some(path.clone())).unwrap();
        log.file.write_all(b"{}\n{\"cut").unwrap();
        assert!(take_back(&mut log.file, 5).unwrap());
        assert_eq!(log.write(b"{}\n", 0, &mut |text: &str| panic!("{text}")), 0);
        assert_eq!(fs::read_to_string(&path).unwrap(), "{}\n{}\n");

        log.file.write_all(b"{\"cut").unwrap();
        let mut other = Log::open(Some(path.clone())).unwrap();
        other.write(b"{}\n", 0, &mut |text: &str| panic!("{text}"));
        assert!(!take_back(&mut log.file, 5).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "{}\n{}\n{\"cut\n{}\n");

        let mut pipe = OpenOptions::new().append(true).open("/dev/null").unwrap();
        assert!(!take_back(&mut pipe, 5).unwrap());
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let folder = Folder::new("refused");
        let path = folder.0.join("missing").join("access.log");
        let log = AccessLog { path: Some(path.clone()), ..folder.log() };
        let (mut writer, _told) = writer();
        let error = writer.outlet(&log).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert!(writer.outlet(&AccessLog { path: None, ..log }).is_ok(), "standard output");
        assert!(writer.stop(LONG));
    }
}
