//! A running binary with a folder of its own: its configuration, its admin socket, what it says.
//!
//! For plays of operations, in which a process is started, asked by the command line, signalled and
//! replaced.

use std::{
    fs::{self, File},
    net::SocketAddr,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    addresses,
    stage::{Driver, eventually},
};

/// A running binary.
pub(crate) struct Instance {
    pub(crate) child: Child,
    pub(crate) folder: PathBuf,
    /// The address of its listener `web`.
    pub(crate) address: SocketAddr,
}

/// What an instance is started from.
pub(crate) struct Stage {
    pub(crate) driver: Driver,
    pub(crate) folder: PathBuf,
    pub(crate) address: SocketAddr,
}

impl Stage {
    /// A folder, and an address for its listener.
    pub(crate) fn new(driver: Driver) -> Stage {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let name = format!("ringway-instance-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        Stage { driver, folder, address: addresses::free() }
    }

    /// Writes a configuration with one pool of this backend, further keys of `[global]` and further
    /// text.
    pub(crate) fn write(&self, backend: SocketAddr, global: &str, more: &str) {
        let address = self.address;
        self.write_whole(&format!(
            "[global]\nadmin = \"off\"\n{global}\n[listener.web]\nbind = \"{address}\"\n\
             pool = \"app\"\n[pool.app]\nbackends = [\"{backend}\"]\n{more}\n"
        ));
    }

    /// Writes this configuration; a reader sees the whole file at any moment.
    pub(crate) fn write_whole(&self, text: &str) {
        let new = self.folder.join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.folder.join("r.toml")).unwrap();
    }

    /// The arguments of `run`.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let driver = if self.driver == Driver::Epoll { "epoll" } else { "io_uring" };
        let fixed = ["run", "--driver", driver, "--cores", "2", "--no-pin", "-c"];
        let file = self.folder.join("r.toml").to_str().unwrap().to_owned();
        fixed.into_iter().map(str::to_owned).chain([file]).collect()
    }

    /// The program with these arguments, in the environment of this folder.
    pub(crate) fn command(&self, arguments: &[impl AsRef<std::ffi::OsStr>]) -> Command {
        command(&self.folder, env!("CARGO_BIN_EXE_ringway").as_ref(), arguments)
    }

    /// Starts it with `run`; what it says goes to the file `stderr`. Returns when it serves.
    pub(crate) fn start(self, with: impl FnOnce(&mut Command)) -> Instance {
        let mut command = self.command(&self.arguments());
        with(&mut command);
        self.start_as(command)
    }

    /// Starts it with this command.
    pub(crate) fn start_as(self, mut command: Command) -> Instance {
        let stderr = File::options().create(true).append(true).open(self.folder.join("stderr"));
        let child = command.stderr(stderr.unwrap()).spawn().unwrap();
        let Stage { folder, address, .. } = self;
        let instance = Instance { child, folder, address };
        let ready = || instance.ask(&["ready"]).status.code();
        eventually("it serves", ready, |code| *code == Some(0));
        instance
    }
}

/// A program with these arguments, in the environment of a folder.
pub(crate) fn command(
    folder: &Path,
    program: &Path,
    arguments: &[impl AsRef<std::ffi::OsStr>],
) -> Command {
    let mut command = Command::new(program);
    keeps_to(&mut command, folder).args(arguments).env("RINGWAY_CONFIG", folder.join("r.toml"));
    command
}

/// The folder of a process that has but a file.
pub(crate) fn folder_of(config: &Path) -> PathBuf {
    config.with_extension("d")
}

/// Has the program keep what it leaves on disk in this folder, which goes with the play.
pub(crate) fn keeps_to<'a>(command: &'a mut Command, folder: &Path) -> &'a mut Command {
    command.env("RUNTIME_DIRECTORY", folder).env("STATE_DIRECTORY", folder)
}

impl Instance {
    /// The output of a command that is meant for it.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Output {
        command(&self.folder, env!("CARGO_BIN_EXE_ringway").as_ref(), arguments).output().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What it has said on stderr.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.folder.join("stderr")).unwrap()
    }

    #[track_caller]
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let exited = || self.child.try_wait().unwrap();
        eventually("the process ends", exited, Option::is_some).unwrap()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            // For people who look into why the play failed.
            eprintln!("it said: {}", self.said());
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The ids of the processes that a process has started.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_task = |task: std::io::Result<fs::DirEntry>| {
        fs::read_to_string(task.ok()?.path().join("children")).ok()
    };
    let lists: Vec<String> = tasks.filter_map(of_task).collect();
    lists.iter().flat_map(|list| list.split_whitespace()).map(|id| id.parse().unwrap()).collect()
}

/// The id of a thread of a process.
pub(crate) fn thread(pid: u32, name: &str) -> u32 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let path = tasks.map(|task| task.unwrap().path()).find(|path| {
        fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    });
    path.unwrap().file_name().unwrap().to_str().unwrap().parse().unwrap()
}

/// A service manager that notes what it is told.
pub(crate) struct Manager {
    socket: UnixDatagram,
    /// Where it is told.
    pub(crate) path: PathBuf,
}

impl Manager {
    pub(crate) fn new(folder: &Path) -> Manager {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Manager { socket, path }
    }

    /// The next message.
    #[track_caller]
    pub(crate) fn next(&self) -> String {
        let mut room = [0; 4096];
        let count = self.socket.recv(&mut room).expect("a message");
        String::from_utf8(room[..count].to_vec()).unwrap()
    }

    /// The next message, if it comes by then.
    pub(crate) fn next_by(&self, until: Instant) -> Option<String> {
        let left = until.saturating_duration_since(Instant::now());
        self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1)))).unwrap();
        let mut room = [0; 4096];
        let count = self.socket.recv(&mut room).ok()?;
        Some(String::from_utf8(room[..count].to_vec()).unwrap())
    }

    /// The next message that has these words, and those before it.
    #[track_caller]
    pub(crate) fn hears(&self, words: &str) -> (String, Vec<String>) {
        let until = Instant::now() + Duration::from_secs(60);
        let mut before = Vec::new();
        while Instant::now() < until {
            let message = self.next();
            if message.contains(words) {
                return (message, before);
            }
            before.push(message);
        }
        panic!("it was not told {words:?}, but: {before:#?}");
    }
}
