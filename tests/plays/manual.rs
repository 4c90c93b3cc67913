//! The session of docs/operations.md, played: its commands are run, and their answers are those
//! that the page shows, but for numbers.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{addresses, backend::Backend, instance::keeps_to, scripts::answers, stage::eventually};

/// A command of the page, and the lines that it answers.
struct Step {
    command: String,
    answer: Vec<String>,
}

/// The commands of the console blocks, in order.
fn steps() -> Vec<Step> {
    let page = fs::read_to_string("docs/operations.md").unwrap();
    let mut steps: Vec<Step> = Vec::new();
    let blocks = page.split("\n```console\n").skip(1).map(|rest| rest.split("\n```").next());
    for line in blocks.flat_map(|block| block.unwrap().lines()) {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { command: command.to_owned(), answer: Vec::new() });
            continue;
        }
        let step = steps.last_mut().expect("a command");
        match line.strip_prefix('>') {
            Some(more) => {
                step.command.push('\n');
                step.command.push_str(more.strip_prefix(' ').unwrap_or(more));
            }
            None => step.answer.push(line.to_owned()),
        }
    }
    steps
}

/// A line without what depends on the time and the machine: `…` stands for the rest of it.
fn masked(line: &str) -> String {
    let line = line.replace("epoll", "io_uring");
    let mut out = String::new();
    for letter in line.chars() {
        match letter {
            '0'..='9' if out.ends_with('#') => {}
            '0'..='9' => out.push('#'),
            letter => out.push(letter),
        }
    }
    // Columns are as wide as what stands in them, and cores as many as there are.
    let words = out.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    words.replace("(#-#)", "(#)").replace("# core ", "# cores ")
}

struct Session {
    folder: PathBuf,
    backends: [Backend; 2],
    address: SocketAddr,
    admin: SocketAddr,
    /// Where no backend is.
    nobody: SocketAddr,
}

impl Session {
    /// A command of the page with the addresses of this session.
    fn own(&self, text: &str) -> String {
        let [a, b] = self.backends.each_ref().map(|it| it.address().to_string());
        text.replace("127.0.0.1:8080", &self.address.to_string())
            .replace("127.0.0.1:3000", &a)
            .replace("127.0.0.1:3001", &b)
            .replace("127.0.0.1:3002", &self.nobody.to_string())
    }

    /// What runs: by the socket it listens on.
    fn pid(&self) -> Option<Pid> {
        let said = self.shell("ringway status --json").output().unwrap();
        let said: serde_json::Value = serde_json::from_slice(&said.stdout).ok()?;
        Pid::from_raw(said["pid"].as_i64()?.try_into().ok()?)
    }

    fn shell(&self, text: &str) -> Command {
        let path = format!("{}:{}", self.folder.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("sh");
        command.args(["-c", text]).current_dir(&self.folder).env("PATH", path);
        keeps_to(&mut command, &self.folder.join("run"));
        command.env("RINGWAY_ADMIN", self.admin.to_string());
        command
    }

    /// The answer to a command, in lines.
    fn answer(&self, command: &str) -> Vec<String> {
        let text = self.own(command);
        let said = self.folder.join("said");
        let text = match (text.strip_suffix(" &"), text.strip_suffix(" $(pidof ringway)")) {
            (Some(runs), _) => format!("{runs} > /dev/null 2> {} &", said.display()),
            (_, Some(kill)) => {
                let pid = self.pid().expect("it runs");
                format!("{kill} {}", pid.as_raw_nonzero())
            }
            // The command line asks by its files.
            _ => format!("unset RINGWAY_ADMIN; {text}"),
        };
        let output = self.shell(&text).output().unwrap();
        if command.ends_with(" &") {
            let first = || fs::read_to_string(&said).unwrap_or_default();
            let line = eventually("it says something", first, |said| said.contains('\n'));
            let ready = || self.shell("ringway ready").status().unwrap().success();
            eventually("it is ready", ready, |ready| *ready);
            return vec![line.lines().next().unwrap().to_owned()];
        }
        let all = [output.stderr, output.stdout].concat();
        String::from_utf8(all).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn the_page_of_operations_is_what_happens() {
    let name = format!("ringway-manual-{}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    fs::create_dir_all(folder.join("run")).unwrap();
    symlink(env!("CARGO_BIN_EXE_ringway"), folder.join("ringway")).unwrap();
    let backends = [Backend::open(answers("a")), Backend::open(answers("b"))];
    let (address, admin) = (addresses::free(), addresses::free());
    let nobody = addresses::free();
    let session = Session { folder, backends, address, admin, nobody };
    let steps = steps();
    assert!(steps.len() > 20, "{} steps", steps.len());
    for Step { command, answer } in steps {
        let expected: Vec<String> = answer.iter().map(|line| masked(line)).collect();
        let is_it = |said: &Vec<String>| {
            let said: Vec<String> = said.iter().map(|line| masked(line)).collect();
            said.len() == expected.len()
                && said.iter().zip(&expected).all(|(said, expected)| {
                    match expected.split_once('…') {
                        Some((begin, _)) => said.starts_with(begin),
                        None => said == expected,
                    }
                })
        };
        let said = session.answer(&command);
        // A signal takes a moment.
        if command.contains("ready; echo") {
            eventually(&command, || session.answer(&command), is_it);
        } else {
            assert!(is_it(&said), "$ {command}\nexpected {expected:#?}\nbut {said:#?}");
        }
    }
}

/// What the page says of files that it does not run is there.
#[test]
fn what_the_page_of_operations_names_is_there() {
    let page = fs::read_to_string("docs/operations.md").unwrap();
    for file in ["config/container/Containerfile", "config/container/seccomp.json"] {
        assert!(page.contains(file) && Path::new(file).exists(), "{file}");
    }
    let unit = fs::read_to_string("config/systemd/ringway.service").unwrap();
    for line in ["Type=notify", "WatchdogSec=30s", "User=ringway", "TimeoutStopSec="] {
        assert!(unit.contains(line), "{line}");
    }
    let events = fs::read_to_string("src/observe/event.rs").unwrap();
    for word in ["upgrade_refused", "driver_fallback", "socket_unused", "backend_down"] {
        assert!(page.contains(word) && events.contains(&format!("\"{word}\"")), "{word}");
    }
    // Each command of the program that a block shows is one.
    let lines =
        page.lines().filter_map(|line| line.trim_start_matches("$ ").strip_prefix("ringway "));
    for command in lines.filter_map(|line| line.split([' ', ';']).next()) {
        if command.starts_with(|letter: char| letter.is_ascii_digit()) {
            continue;
        }
        let mut help = Command::new(env!("CARGO_BIN_EXE_ringway"));
        assert!(help.args([command, "--help"]).output().unwrap().status.success(), "{command}");
    }
}
