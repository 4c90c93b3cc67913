//! Tests of the access logs from all three sides: cores that write, the thread, and the files.
//!
//! A log is read back as the lines of its file; events come over a channel.

use std::fs;
use std::net::SocketAddr;

use serde_json::Value;

use super::{outlet::AGE_MAX, *};
use crate::base::{
    moment::{Tick, UnixMillis},
    rng::Rng,
};
use crate::observe::{
    access_log::AccessLine,
    event::Event,
    record::{Asked, Asker, Record},
    reports::{self, Report, ToHub},
    request_id::RequestId,
};
use crate::plan::{AccessLogFormat, ListenerId, Plan};

/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(20);

/// The core's clock, which stands still.
const NOW: Tick = Tick::from_millis(5_000);

/// A directory of its own for each test.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new(test: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("ringway-{}-{test}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(super) fn log(&self) -> AccessLog {
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

fn writer() -> (Writer, Receiver<ToHub>) {
    let (reporter, told) = reports::channel();
    (Writer::start(Slab::new(), reporter).unwrap(), told)
}

/// The only event that was reported.
#[track_caller]
fn only(told: &Receiver<ToHub>) -> Event {
    let Some(Report::Event(event)) = told.try_recv().unwrap().told() else { panic!("no event") };
    assert!(told.is_empty(), "{event:?} and more");
    *event
}

/// Writes lines whose `request_bytes` are these numbers.
fn write(outlet: &mut Outlet, numbers: std::ops::Range<u64>) {
    let peer: SocketAddr = ([127, 0, 0, 1], 1).into();
    let client = peer.ip();
    for request_bytes in numbers {
        let line = AccessLine {
            told: [None; 6],
            tls: None,
            ended: UnixMillis(0),
            request_id: RequestId::new(UnixMillis(0), &mut Rng::seeded(1)).into(),
            asker: Asker {
                listener: ListenerId(0),
                client: Some(client),
                peer: Some(peer),
                secure: false,
            },
            record: &Record { request_bytes, ..Record::default() },
            tries: &[],
            asked: Asked::default(),
            bytes: &[],
            plan: &Plan::default(),
        };
        outlet.write(&line, NOW);
    }
}

/// Hands over the buffer and waits until the thread has written it.
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

    let (to, from) = crossbeam_channel::unbounded();
    let log = Log::open(folder.log().path).unwrap();
    for message in [Message::Open(log), first, second, Message::Stop] {
        to.send(message).unwrap();
    }
    run(&from, &mut Vec::new(), &Slab::new(), &reports::channel().0);
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
    outlet.hand_over_old(NOW + (AGE_MAX - Duration::from_millis(1)));
    assert!(from.is_empty());
    outlet.hand_over_old(NOW + AGE_MAX);
    assert_eq!(from.len(), 1);
    outlet.hand_over_old(NOW + 9 * AGE_MAX);
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
    let Event::AccessLogNotReopened(it) = only(&told) else { panic!("another event") };
    assert!(it.file == folder.log().path && it.cause.contains("No such file"), "{it:?}");
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
    let (reporter, told) = reports::channel();
    let counters = Slab::new();
    let mut writer = Writer::start(Arc::clone(&counters), reporter).unwrap();
    let mut outlet = writer.outlet(&folder.log()).unwrap();
    for number in 0..3 {
        write(&mut outlet, number..number + 1);
        written(&mut outlet);
    }
    let Event::AccessLogFailing(it) = only(&told) else { panic!("another event") };
    assert!(it.cause.contains("No space left"), "{it:?}");
    fs::remove_file(&path).unwrap();
    assert!(writer.reopen());
    write(&mut outlet, 3..4);
    written(&mut outlet);
    assert_eq!(only(&told), Event::AccessLogWritten { file: Some(path) });
    let lines = folder.lines("access.log");
    assert_eq!((numbers(&lines), dropped(&lines)), (vec![3], 3));
    assert_eq!(counters.read(Counter::AccessLogDropped), 3);
}

#[test]
fn a_file_that_cannot_be_opened_is_no_outlet() {
    let folder = Folder::new("refused");
    let path = folder.0.join("missing").join("access.log");
    let log = AccessLog { path: Some(path), ..folder.log() };
    let (mut writer, _told) = writer();
    let error = writer.outlet(&log).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(writer.outlet(&AccessLog { path: None, ..log }).is_ok(), "standard output");
    assert!(writer.stop(LONG));
}

#[test]
fn a_bug_in_the_thread_loses_one_message_and_not_the_log() {
    let folder = Folder::new("bug");
    let counters = Slab::new();
    let mut writer = Writer::start(Arc::clone(&counters), reports::channel().0).unwrap();
    let mut outlet = writer.outlet(&folder.log()).unwrap();
    writer.to.send(Message::Bug).unwrap();
    write(&mut outlet, 0..3);
    written(&mut outlet);
    assert!(writer.stop(LONG));
    assert_eq!(counters.read(Counter::Panics), 1);
    assert_eq!(numbers(&folder.lines("access.log")), [0, 1, 2]);
}
