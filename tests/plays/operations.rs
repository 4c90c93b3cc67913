//! Plays of operations: a stderr without a reader, a log that is a FIFO, two starts at the same
//! moment, a start after a kill, a process that may have no more threads.
//!
//! The binary runs as a process of its own. Its backend does not exist, unless the play says
//! otherwise: the play only checks that Ringway answers at all.

use std::{
    fs::File,
    io::{PipeReader, PipeWriter, Read as _},
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    process::{Pid, Signal, kill_process},
};

use crate::{
    addresses::free,
    backend::Backend,
    client::{Client, get},
    instance::{folder_of, keeps_to},
    pace::Watch,
    scripts::{answers, never_answers},
    stage::{Driver, eventually, expect_closed},
};

on_both_drivers!(
    nobody_who_reads_stderr_keeps_it_from_serving_or_ending,
    what_is_said_of_the_configuration_keeps_it_from_nothing,
    a_log_that_nobody_reads_keeps_it_from_nothing,
    of_two_that_start_at_once_one_serves,
    after_a_kill_it_starts_again_at_once,
    no_new_thread_is_needed_to_stop,
);

const SOON: Duration = Duration::from_secs(2);

/// A running binary.
struct Running {
    child: Child,
    address: SocketAddr,
    config: PathBuf,
}

impl Running {
    /// Starts it on this address, with these lines of the listener and this backend.
    fn start(
        driver: Driver,
        address: SocketAddr,
        listener: &str,
        backend: SocketAddr,
        stderr: Stdio,
    ) -> Running {
        let config = own_file("toml");
        let text = format!(
            "[global]\nshutdown = {{ drain = \"20s\" }}\n\
             [listener.web]\nbind = \"{address}\"\npool = \"app\"\n{listener}\n\
             [pool.app]\nbackends = [\"{backend}\"]\n"
        );
        std::fs::write(&config, text).unwrap();
        let driver = if driver == Driver::Epoll { "epoll" } else { "io_uring" };
        let child = keeps_to(&mut Command::new(env!("CARGO_BIN_EXE_ringway")), &folder_of(&config))
            .env("RINGWAY_ADMIN", "off")
            .args(["run", "--driver", driver, "--cores", "2", "--no-pin", "-c"])
            .arg(&config)
            .stderr(stderr)
            .spawn()
            .unwrap();
        Running { child, address, config }
    }

    /// A client, once it listens.
    #[track_caller]
    fn client(&self) -> Client {
        let connect = || TcpStream::connect(self.address).ok();
        Client::over(eventually("the process listens", connect, Option::is_some).unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    #[track_caller]
    fn ended(&mut self) -> ExitStatus {
        let exited = || self.child.try_wait().unwrap();
        eventually("the process ends", exited, Option::is_some).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.config);
        let _ = std::fs::remove_dir_all(folder_of(&self.config));
    }
}

/// A file that no other play writes.
fn own_file(extension: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::SeqCst);
    std::env::temp_dir().join(format!("ringway-ops-{}-{number}.{extension}", std::process::id()))
}

fn fifo() -> PathBuf {
    let path = own_file("fifo");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    path
}

/// A full pipe, and its end for reading.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    fill(&mut writer);
    (reader, writer)
}

/// Writes until the pipe is full, and makes writes block again.
fn fill(pipe: &mut (impl AsFd + std::io::Write)) {
    let flags = fcntl_getfl(pipe.as_fd()).unwrap();
    fcntl_setfl(pipe.as_fd(), flags | OFlags::NONBLOCK).unwrap();
    for piece in [4_096, 1] {
        while pipe.write(&vec![b'.'; piece]).is_ok() {}
    }
    fcntl_setfl(pipe.as_fd(), flags).unwrap();
}

fn nobody_who_reads_stderr_keeps_it_from_serving_or_ending(driver: Driver) {
    let (_unread, full) = full_pipe();
    let (gone, closed) = std::io::pipe().unwrap();
    drop(gone);
    let named = fifo();
    let mut fifo = File::options().read(true).write(true).open(&named).unwrap();
    fill(&mut fifo);
    let device = File::options().write(true).open("/dev/full").unwrap();
    let all: [Stdio; 4] = [full.into(), closed.into(), fifo.into(), device.into()];
    for (place, stderr) in all.into_iter().enumerate() {
        let backend = Backend::open(never_answers());
        let mut process = Running::start(driver, free(), "", backend.address(), stderr);
        let mut waiting = process.client();
        waiting.send(get("/"));
        eventually("it is asked", || backend.requests().len(), |requests| *requests == 1);
        for _ in 0..100 {
            process.signal(Signal::HUP);
        }
        process.signal(Signal::TERM);
        expect_closed(process.address);
        // Two signals within 20 ms are one.
        std::thread::sleep(Duration::from_millis(50));
        let watch = Watch::start();
        process.signal(Signal::TERM);
        assert_eq!(process.ended().code(), Some(0), "{place}");
        watch.took().expect_at_most(SOON);
    }
    let _ = std::fs::remove_file(named);
}

/// Warnings come before the start, mistakes in its place.
fn what_is_said_of_the_configuration_keeps_it_from_nothing(driver: Driver) {
    let warned = "[pool.other]\nbackends = [\"127.0.0.1:1\"]\nhash-seed = \"x\"\n";
    let (_unread, full) = full_pipe();
    let mut process = Running::start(driver, free(), warned, free(), full.into());
    process.client().get("/").expect_fault(502, "connect_failed");
    process.signal(Signal::TERM);
    assert_eq!(process.ended().code(), Some(0));

    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut process = Running::start(driver, free(), warned, free(), writer.into());
    process.client().get("/").expect_fault(502, "connect_failed");
    process.signal(Signal::TERM);
    assert_eq!(process.ended().code(), Some(0));
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert!(said.contains("hash-seed"), "{said}");

    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap();
    for (address, listener, word) in [
        (free(), "nonsense = 1\n", "nonsense"),
        (free(), "= 1\n", "="),
        (free(), "access-log = { path = \"/nonexistent/x\" }\n", "/nonexistent/x"),
        (taken, "", "127.0.0.1"),
    ] {
        let (_unread, full) = full_pipe();
        let watch = Watch::start();
        let mut process = Running::start(driver, address, listener, free(), full.into());
        assert_eq!(process.ended().code(), Some(1), "{listener:?}");
        watch.took().expect_at_most(2 * SOON);

        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut process = Running::start(driver, address, listener, free(), writer.into());
        assert_eq!(process.ended().code(), Some(1), "{listener:?}");
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        assert!(said.contains(word), "{said}");
    }
}

fn a_log_that_nobody_reads_keeps_it_from_nothing(driver: Driver) {
    let path = fifo();
    let log = format!("access-log = {{ path = \"{}\" }}", path.display());
    let mut process = Running::start(driver, free(), &log, free(), Stdio::null());
    process.client().get("/").expect_fault(502, "connect_failed");
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let mut options = File::options();
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, nonblocking);
    let mut reader = options.read(true).open(&path).unwrap();
    process.signal(Signal::TERM);
    assert_eq!(process.ended().code(), Some(0));
    let mut read = String::new();
    reader.read_to_string(&mut read).unwrap();
    assert!(read.contains("connect_failed"), "{read}");
    let _ = std::fs::remove_file(path);
}

fn of_two_that_start_at_once_one_serves(driver: Driver) {
    for _ in 0..10 {
        let address = free();
        let start = || Running::start(driver, address, "", free(), Stdio::piped());
        let mut both = [start(), start()];
        let one_ended = || both.iter_mut().position(|it| it.child.try_wait().unwrap().is_some());
        let refused = eventually("one is refused", one_ended, Option::is_some).unwrap();
        let [one, two] = &mut both;
        let (refused, serves) = if refused == 0 { (one, two) } else { (two, one) };
        assert_eq!(refused.ended().code(), Some(1));
        let said = std::io::read_to_string(refused.child.stderr.take().unwrap()).unwrap();
        assert!(said.contains(&address.to_string()), "{said}");
        serves.client().get("/").expect_fault(502, "connect_failed");
        serves.signal(Signal::TERM);
        assert_eq!(serves.ended().code(), Some(0));
    }
}

fn after_a_kill_it_starts_again_at_once(driver: Driver) {
    let backend = Backend::open(answers("ok"));
    let address = free();
    let start = || Running::start(driver, address, "", backend.address(), Stdio::null());
    let mut process = start();
    for round in 0..10 {
        // A client may still find the sockets of the killed process.
        let status = || process.client().send(get("/")).try_response().map_or(0, |it| it.status);
        eventually("it serves", status, |status| *status == 200);
        let refused = process.child.try_wait().unwrap();
        assert!(refused.is_none(), "{round}: {refused:?}");
        process.child.kill().unwrap();
        process.child.wait().unwrap();
        process = start();
    }
}

/// As with a limit on tasks (`TasksMax=`, `ulimit -u`).
fn no_new_thread_is_needed_to_stop(driver: Driver) {
    if !crate::process::has_strace() {
        return;
    }
    let mut process = Running::start(driver, free(), "", free(), Stdio::piped());
    process.client().get("/").expect_fault(502, "connect_failed");
    let pid = process.child.id();
    // The last thread of the start: one that comes while strace attaches would not be traced.
    let names = || {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let name = |task: PathBuf| std::fs::read_to_string(task.join("comm")).unwrap();
        tasks.map(|task| name(task.unwrap().path())).collect::<String>()
    };
    eventually("all threads are there", names, |names| names.contains("ringway-admin"));
    let mut strace = Command::new("strace")
        .args(["-qq", "-f", "-o", "/dev/null", "-e", "trace=clone,clone3,fork,vfork", "-e"])
        .args(["inject=clone,clone3,fork,vfork:error=EAGAIN", "-p", &pid.to_string()])
        .spawn()
        .unwrap();
    let all_traced = || {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let status = |task: PathBuf| std::fs::read_to_string(task.join("status")).unwrap();
        tasks.map(|task| status(task.unwrap().path())).all(|it| !it.contains("TracerPid:\t0\n"))
    };
    eventually("all threads are traced", all_traced, |traced| *traced);
    process.signal(Signal::TERM);
    let status = process.ended();
    let said = std::io::read_to_string(process.child.stderr.take().unwrap()).unwrap();
    strace.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("stopped: all finished") && !said.contains("bug"), "{said}");
}
