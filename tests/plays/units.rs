//! Plays of the files for systemd and for containers.
//!
//! The unit is understood, it is locked up well, and what it allows is enough; what builds and
//! starts an image names only what there is.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    backend::Backend,
    client::{Client, get},
    instance::{Stage, children},
    process::has_strace,
    scripts::answers,
    stage::{Driver, eventually},
};

on_both_drivers!(every_system_call_is_one_that_the_unit_allows);

const UNIT: &str = "config/systemd/ringway.service";

/// The output of `systemd-analyze`; none where it is not installed.
fn analyze(arguments: &[&str]) -> Option<String> {
    let analyze = Command::new("systemd-analyze").args(arguments).output();
    assert!(analyze.is_ok() || std::env::var("CI").is_err(), "systemd-analyze is missing");
    let Ok(output) = analyze else {
        eprintln!("skipped: systemd-analyze is missing");
        return None;
    };
    let text = [output.stdout, output.stderr].concat();
    Some(String::from_utf8(text).unwrap())
}

#[test]
fn the_unit_is_understood() {
    let folder = Stage::new(Driver::Epoll).folder;
    let unit = folder.join("ringway.service");
    let text = fs::read_to_string(UNIT).unwrap();
    // It names only what is installed.
    fs::write(&unit, text.replace("/usr/bin/ringway", env!("CARGO_BIN_EXE_ringway"))).unwrap();
    let said = analyze(&["verify", "--man=no", unit.to_str().unwrap()]);
    fs::remove_dir_all(folder).unwrap();
    assert_eq!(said.unwrap_or_default(), "");
}

#[test]
fn the_unit_leaves_little_exposed() {
    let Some(said) = analyze(&["security", "--offline=yes", UNIT]) else { return };
    let (_, level) = said.split_once("Overall exposure level for ringway.service: ").unwrap();
    let level: f32 = level.split_whitespace().next().unwrap().parse().unwrap();
    assert!(level <= 2.0, "{said}");
}

/// The system calls of a filter of systemd.
fn calls(name: &str, into: &mut BTreeSet<String>) {
    if !name.starts_with('@') {
        into.insert(name.to_owned());
        return;
    }
    let set = analyze(&["syscall-filter", name]).unwrap_or_default();
    let lines = set.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    lines.filter(|line| *line != name).for_each(|line| calls(line, into));
}

/// Those that the unit allows.
fn allowed() -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    let unit = fs::read_to_string(UNIT).unwrap();
    for line in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let mut here = BTreeSet::new();
        let words = line.trim_start_matches('~');
        words.split_whitespace().for_each(|name| calls(name, &mut here));
        match line.starts_with('~') {
            true => allowed.retain(|name| !here.contains(name)),
            false => allowed.extend(here),
        }
    }
    allowed
}

fn every_system_call_is_one_that_the_unit_allows(driver: Driver) {
    if !has_strace() {
        return;
    }
    let allowed = allowed();
    if allowed.len() < 100 {
        return;
    }
    let (stage, backend) = (Stage::new(driver), Backend::open(answers("ok")));
    let counts = stage.folder.join("counts");
    let log = stage.folder.join("access.log");
    let text = format!("access-log = {{ path = \"{}\" }}", log.display());
    let (address, origin) = (stage.address, backend.address());
    let pool = "health = { path = \"/\", interval = \"100ms\" }";
    stage.write_whole(&format!(
        "[global]\nadmin = \"off\"\n[listener.web]\nbind = \"{address}\"\npool = \"app\"\n{text}\n\
         [pool.app]\nbackends = [\"{origin}\", \"localhost:9\"]\n{pool}\n"
    ));
    let mut command = Command::new("strace");
    command.args(["-f", "-c", "-qq", "-o"]).arg(&counts).arg(env!("CARGO_BIN_EXE_ringway"));
    let with = stage.command(&stage.arguments());
    // Each thread is pinned, as by default.
    command.args(with.get_args().filter(|argument| *argument != "--no-pin"));
    command.envs(with.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut process = stage.start_as({
        command.stdout(Stdio::null());
        command
    });
    let mut client = Client::connect(address);
    for _ in 0..3 {
        client.send(get("/")).response().expect(200, "ok");
    }
    let said = process.ask(&["reload"]);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    let ringway = children(process.child.id())[0];
    let ringway = Pid::from_raw(ringway.cast_signed()).unwrap();
    for signal in [Signal::USR1, Signal::HUP, Signal::TERM] {
        kill_process(ringway, signal).unwrap();
    }
    eventually("it ends", || process.child.try_wait().unwrap(), Option::is_some);
    let table = fs::read_to_string(&counts).unwrap();
    // Of each line: share, seconds, microseconds a call, calls, errors if any, name.
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let rows = rows.filter(|row| row.first().is_some_and(|share| share.parse::<f32>().is_ok()));
    let made: Vec<String> = rows.filter_map(|row| Some((*row.last()?).to_owned())).collect();
    let made: Vec<_> = made.into_iter().filter(|name| name != "total").collect();
    assert!(made.len() > 20, "{table}");
    let refused: Vec<_> = made.iter().filter(|name| !allowed.contains(*name)).collect();
    assert!(refused.is_empty(), "{refused:?} of {made:?}");
    let profile = fs::read_to_string("config/container/seccomp.json").unwrap();
    let profile: serde_json::Value = serde_json::from_str(&profile).unwrap();
    let rules = profile["syscalls"].as_array().unwrap().iter();
    let allows = rules.filter(|rule| rule["action"] == "SCMP_ACT_ALLOW");
    let named: Vec<&str> = allows
        .flat_map(|rule| rule["names"].as_array().unwrap())
        .map(|name| name.as_str().unwrap())
        .collect();
    // Without clone3 libc uses clone, whose flags a profile can look at.
    let may = |name: &String| name == "clone3" || named.contains(&name.as_str());
    let refused: Vec<_> = made.iter().filter(|name| !may(name)).collect();
    assert!(refused.is_empty(), "the profile of containers refuses {refused:?}");
}

/// The words of a list in the form of JSON.
fn words(list: &str) -> Vec<String> {
    serde_json::from_str(list).unwrap_or_else(|error| panic!("{list}: {error}"))
}

/// Whether the program takes these words.
#[track_caller]
fn is_command(words: &[String]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    let output = command.args(words).arg("--help").output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
}

#[test]
fn the_image_is_made_of_what_there_is_and_started_with_commands_that_there_are() {
    let image = fs::read_to_string("config/container/Containerfile").unwrap();
    let image = image.replace("\\\n", " ");
    let ignored = fs::read_to_string(".dockerignore").unwrap();
    let (mut stages, mut copied, mut commands) = (Vec::new(), 0, 0);
    for line in image.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (instruction, rest) = line.split_once(' ').unwrap();
        let parts: Vec<&str> = rest.split_whitespace().collect();
        match (instruction, &parts[..]) {
            ("FROM", [_, "AS", name]) => stages.push(*name),
            ("FROM", ["scratch"]) | ("RUN" | "WORKDIR" | "USER" | "ENV" | "EXPOSE", _) => {}
            ("STOPSIGNAL", ["SIGTERM"]) => {}
            ("VOLUME", _) => assert_eq!(words(rest), ["/state", "/run/ringway"]),
            ("COPY", [from, source, _]) => {
                let from = from.strip_prefix("--from=").unwrap();
                assert!(stages.contains(&from), "{line}");
                assert_eq!(*source, "/src/target/release/ringway");
                copied += 1;
            }
            ("COPY", [source, _]) => {
                assert!(Path::new(source).exists(), "{line}");
                let is_left_out = |it: &str| source.starts_with(it.trim_start_matches('/'));
                assert!(!ignored.lines().any(is_left_out), "{line}");
                copied += 1;
            }
            ("ENTRYPOINT", _) => assert_eq!(words(rest), ["/usr/bin/ringway"]),
            ("CMD", _) => {
                is_command(&words(rest));
                commands += 1;
            }
            ("HEALTHCHECK", _) => {
                let (_, list) = rest.split_once("CMD ").unwrap();
                is_command(&words(list)[1..]);
                commands += 1;
            }
            _ => panic!("{line}"),
        }
    }
    assert_eq!((copied, commands), (3, 2), "{image}");
    // What must not be sent to whoever builds it: gigabytes.
    assert!(ignored.lines().any(|line| line == "/target"));
}

#[test]
fn the_example_of_compose_builds_that_image_and_starts_a_proxy() {
    let folder = Path::new("config/container");
    let compose = fs::read_to_string(folder.join("compose.yaml")).unwrap();
    let value = |key: &str| {
        let mut lines = compose.lines().map(str::trim);
        let found = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        found.unwrap_or_else(|| panic!("{key} is not in {compose}")).to_owned()
    };
    let context = folder.join(value("context"));
    assert!(context.join(value("dockerfile")).exists());
    assert!(context.join("Cargo.toml").exists(), "{}", context.display());
    let profile = compose.lines().find_map(|line| line.trim().strip_prefix("- seccomp="));
    assert!(folder.join(profile.unwrap()).exists());
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    let output = command.args(words(&value("command"))).arg("--print-config").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
