//! The binary as a person or a script uses it: its output, where it goes, and its exit codes.
//!
//! `plays` tests serving itself.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

const SMALLEST: &str = "[listener.web]\nbind = \"127.0.0.1:0\"\npool = \"app\"\n\n\
    [pool.app]\nbackends = [\"127.0.0.1:3000\"]\n";

/// A folder for this test with these files.
fn folder(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    for (file, text) in files {
        fs::write(path.join(file), text).unwrap();
    }
    path
}

/// The program in a folder, with nothing of ours in its environment.
fn ringway(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.args(arguments).current_dir(folder);
    command.env("RUNTIME_DIRECTORY", folder).env("STATE_DIRECTORY", folder);
    for (name, _) in std::env::vars() {
        if name.starts_with("RINGWAY_") || name == "NO_COLOR" {
            command.env_remove(name);
        }
    }
    command
}

struct Said {
    code: i32,
    out: String,
    err: String,
}

fn said(command: &mut Command) -> Said {
    let Output { status, stdout, stderr } = command.output().unwrap();
    Said {
        code: status.code().unwrap(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

fn run(arguments: &[&str]) -> Said {
    said(&mut ringway(
        &folder(&format!("run{}", arguments.join("-").replace('/', "_")), &[]),
        arguments,
    ))
}

#[test]
fn data_goes_to_stdout_and_ends_in_0() {
    for arguments in
        [&["version"][..], &["--version"], &["--help"], &["proxy", "--help"], &["schema"], &["man"]]
    {
        let said = run(arguments);
        assert_eq!(said.code, 0, "{arguments:?}");
        assert!(!said.out.is_empty() && said.err.is_empty(), "{arguments:?} {}", said.err);
    }
}

#[test]
fn says_its_version_as_json() {
    let about: serde_json::Value = serde_json::from_str(&run(&["version", "--json"]).out).unwrap();
    assert_eq!(about["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn completes_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let said = run(&["completions", shell]);
        assert_eq!(said.code, 0);
        assert!(said.out.contains("completions"), "{shell}");
    }
}

#[test]
fn a_senseless_command_line_ends_in_2() {
    for arguments in [
        &["frobnicate"][..],
        &["--frob"],
        &["proxy"],
        &["--driver", "kqueue", "check"],
        &["proxy", "app:1", "app:2"],
        &["proxy", "localhost:3000", "--key", "a.key"],
        &["proxy", ":8080", "https://app.example", "http://app.example"],
        &["proxy", "localhost:3000", "--cert", "a.pem", "--tls-self-signed"],
        &["demo", "nowhere"],
        &["proxy", "-c", "ringway.toml", "localhost:3000"],
        &["-c", "ringway.toml", "demo"],
    ] {
        let said = run(arguments);
        assert_eq!(said.code, 2, "{arguments:?} {}", said.err);
        assert!(said.out.is_empty() && !said.err.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_certificate_of_proxy_that_cannot_be_read_is_drawn() {
    let said = run(&["proxy", "localhost:3000", "--cert", "no-such.pem"]);
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("`cert` cannot be read: there is no such file"), "{}", said.err);
}

#[test]
fn a_trial_of_https_is_one_command() {
    let folder = folder("self-signed", &[]);
    let mut command = ringway(&folder, &["proxy", ":8443", "localhost:3000", "--print-config"]);
    let said = said(command.arg("--tls-self-signed"));
    assert_eq!(said.code, 0, "{}", said.err);
    let file = said.out.split("cert = \"").nth(1).and_then(|rest| rest.split('"').next());
    let pem = fs::read_to_string(file.expect(&said.out)).unwrap();
    assert!(pem.contains("BEGIN CERTIFICATE") && pem.contains("BEGIN PRIVATE KEY"), "{pem}");
}

#[test]
fn proxy_speaks_tls_to_backends_written_with_https() {
    let addresses = ["proxy", ":8080", "https://a.example", "https://b.example:8443/"];
    let said = run(&[&addresses[..], &["--print-config"]].concat());
    assert_eq!(said.code, 0, "{}", said.err);
    let pool = said.out.split("[pool.app]\n").nth(1).expect(&said.out);
    assert_eq!(
        pool,
        "backends = [\n    \"a.example:443\",\n    \"b.example:8443\",\n]\ntls = {}\n"
    );
}

#[test]
fn no_file_ends_in_1_and_says_what_to_do() {
    for command in ["run", "check"] {
        let said = run(&[command]);
        assert_eq!(said.code, 1);
        assert!(said.err.contains("ringway demo") && said.err.contains("ringway proxy"));
    }
}

#[test]
fn the_file_of_the_folder_is_found() {
    let folder = folder("found", &[("ringway.toml", SMALLEST)]);
    let said = said(&mut ringway(&folder, &["check"]));
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("1 listener, 0 routes, 1 pool (1 backend)"), "{}", said.err);
    assert!(said.out.is_empty());
}

#[test]
fn a_bad_file_ends_in_1_with_pictures_and_their_count() {
    let broken = SMALLEST.replace("pool = \"app\"", "pol = \"app\"\nbacklog = 0");
    let folder = folder("broken", &[("ringway.toml", &broken)]);
    for command in ["run", "check"] {
        let said = said(&mut ringway(&folder, &[command]));
        assert_eq!(said.code, 1);
        assert!(said.err.contains(" --> ringway.toml:3:1\n"), "{}", said.err);
        assert!(said.err.ends_with("ringway: 2 errors\n"), "{}", said.err);
        assert!(said.out.is_empty());
    }
}

#[test]
fn colour_is_for_terminals() {
    let folder = folder("plain", &[("ringway.toml", "x = 1\n")]);
    let said = said(&mut ringway(&folder, &["check"]));
    assert!(!said.err.contains('\u{1b}'), "{}", said.err);
}

#[test]
fn warnings_are_shown_and_end_in_0() {
    let unused = format!("{SMALLEST}\n[pool.old]\nbackends = \"127.0.0.1:1\"\n");
    let folder = folder("warned", &[("ringway.toml", &unused)]);
    let said = said(&mut ringway(&folder, &["check"]));
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("warning: pool \"old\""), "{}", said.err);
    assert!(said.err.contains("ringway: 1 warning\n"), "{}", said.err);
}

#[test]
fn what_this_machine_lacks_is_found_and_what_a_file_means_is_shown_anywhere() {
    let file = SMALLEST.replace("bind = ", "access-log = { path = \"none/a.log\" }\nbind = ");
    let file = format!("[global]\ncores = 5000\n{file}");
    let folder = folder("machine", &[("ringway.toml", &file)]);
    let checked = said(&mut ringway(&folder, &["check"]));
    assert_eq!(checked.code, 1, "{}", checked.err);
    for part in ["5000 cores requested", "cannot open the access log none/a.log"] {
        assert!(checked.err.contains(part), "{}", checked.err);
    }
    let shown = said(&mut ringway(&folder, &["check", "--print"]));
    assert!(shown.code == 0 && shown.out.contains("cores = 5000"), "{}", shown.err);
    assert!(shown.err.contains("warning: 5000 cores requested"), "{}", shown.err);
}

#[test]
fn flags_beat_the_environment_which_beats_files() {
    let file = format!("[global]\ncores = 3\nlog.level = \"warn\"\n{SMALLEST}");
    let folder = folder("precedence", &[("ringway.toml", &file)]);
    let shown = |command: &mut Command| {
        let said = said(command);
        assert_eq!(said.code, 0, "{}", said.err);
        let cores = said.out.lines().find(|line| line.starts_with("cores")).unwrap().to_owned();
        cores.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let check = ["check", "--print"];
    assert_eq!(shown(&mut ringway(&folder, &check)), "cores = 3 # ringway.toml:2");
    let mut command = ringway(&folder, &check);
    assert_eq!(shown(command.env("RINGWAY_CORES", "2")), "cores = 2 # RINGWAY_CORES");
    let mut command = ringway(&folder, &["check", "--print", "--threads", "1"]);
    assert_eq!(shown(command.env("RINGWAY_CORES", "2")), "cores = 1 # --cores");
    let mut command = ringway(&folder, &["--cores", "auto", "check", "--print"]);
    assert_eq!(shown(&mut command), "cores = \"auto\" # --cores");
}

#[test]
fn words_are_taken_in_any_case() {
    let words = [
        ("CORES", "--cores", "AUTO"),
        ("DRIVER", "--driver", "EPOLL"),
        ("DRIVER", "--driver", "Io_Uring"),
        ("LOG_LEVEL", "--log-level", "INFO"),
        ("LOG_FORMAT", "--log-format", "JSON"),
        ("NO_PIN", "", "TRUE"),
    ];
    let folder = folder("case", &[("ringway.toml", SMALLEST)]);
    for (variable, flag, word) in words {
        let mut command = ringway(&folder, &["check", "--print"]);
        let by_variable = said(command.env(format!("RINGWAY_{variable}"), word));
        assert_eq!(by_variable.code, 0, "{variable} {}", by_variable.err);
        if !flag.is_empty() {
            let by_flag = said(&mut ringway(&folder, &["check", "--print", flag, word]));
            assert_eq!(by_flag.code, 0, "{flag} {}", by_flag.err);
            let shown = format!("= \"{}\"", word.to_lowercase());
            assert!(by_flag.out.contains(&shown), "{flag} {}", by_flag.out);
        }
    }
    let file =
        format!("[global]\ncores = \"Auto\"\ndriver = \"EPOLL\"\nlog.level = \"Warn\"\n{SMALLEST}");
    fs::write(folder.join("ringway.toml"), file).unwrap();
    let checked = said(&mut ringway(&folder, &["check"]));
    assert_eq!(checked.code, 0, "{}", checked.err);
}

#[test]
fn a_file_can_be_named_in_the_environment() {
    let folder = folder("named", &[("other.toml", SMALLEST)]);
    let mut command = ringway(&folder, &["check"]);
    assert_eq!(said(command.env("RINGWAY_CONFIG", "other.toml")).code, 0);
}

#[test]
fn the_environment_may_name_several_files_with_colons_between() {
    let (listener, pool) = SMALLEST.split_once("\n\n").unwrap();
    let files = [("a.toml", listener), ("b.toml", pool), ("c:d.toml", SMALLEST)];
    let folder = folder("colons", &files);
    for (variable, arguments) in [
        ("a.toml:b.toml", &["check"][..]),
        (":a.toml::b.toml:", &["check"]),
        ("nothing.toml", &["check", "-c", "a.toml", "-c", "b.toml"]),
        ("nothing.toml", &["check", "-c", "c:d.toml"]),
    ] {
        let mut command = ringway(&folder, arguments);
        let said = said(command.env("RINGWAY_CONFIG", variable));
        assert_eq!(said.code, 0, "{variable} {}", said.err);
    }
}

#[test]
fn a_variable_that_is_set_to_nothing_is_not_set() {
    let folder = folder("nothing", &[("ringway.toml", SMALLEST)]);
    for name in ["CONFIG", "CORES", "NO_PIN", "DRIVER", "LOG_LEVEL", "LOG_FORMAT"] {
        let mut command = ringway(&folder, &["check"]);
        let said = said(command.env(format!("RINGWAY_{name}"), ""));
        assert_eq!(said.code, 0, "{name} {}", said.err);
    }
}

#[test]
fn the_manual_names_variables_and_files() {
    let page = run(&["man"]).out;
    for name in ["RINGWAY_CONFIG", "RINGWAY_LOG_FORMAT", "\n\\&./ringway.toml, /etc/"] {
        assert!(page.contains(name), "{name}");
    }
    // A line that begins with a point is a command, and there are few of these.
    let commands = page.lines().filter_map(|line| line.strip_prefix('.'));
    let known = ["ie", "el", "TH", "SH", "TP", "RS", "RE", "IP", "PP", "nf", "fi", "br"];
    for line in commands {
        assert!(known.contains(&line.split(' ').next().unwrap()), ".{line}");
    }
}

#[test]
fn a_mistake_in_a_flag_is_drawn_like_one_in_a_file() {
    let folder = folder("flag", &[("ringway.toml", SMALLEST)]);
    let said = said(&mut ringway(&folder, &["check", "--cores", "some"]));
    assert_eq!(said.code, 1);
    assert!(said.err.contains(" --> --cores:1:1\n"), "{}", said.err);
}

#[test]
fn what_proxy_prints_is_what_it_stands_for() {
    let arguments = [
        "proxy",
        ":8080",
        "10.0.0.1:3000",
        "http://app.internal",
        "3001",
        "--balance",
        "least-connections",
        "--health",
        "/up",
        "--access-log",
        "-",
        "--cores",
        "2",
        "--no-pin",
        "--print-config",
    ];
    let said = run(&arguments);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(
        said.out,
        "\
[global]
cores = \"2\"
pin = false

[listener.web]
bind = \"0.0.0.0:8080\"
pool = \"app\"
access-log = { path = \"-\", format = \"json\" }

[pool.app]
backends = [
    \"10.0.0.1:3000\",
    \"app.internal:80\",
    \"localhost:3001\",
]
balance = \"least-connections\"
health = { path = \"/up\" }
"
    );
    let plan = ringway::config::parse("printed", &said.out).unwrap().plan;
    assert_eq!(plan.global.cores, ringway::plan::Cores::Count(2));
    assert!(!plan.global.pin);
    assert_eq!(plan.listener(ringway::plan::ListenerId(0)).bind, ["0.0.0.0:8080".parse().unwrap()]);
    assert_eq!(plan.pool(ringway::plan::PoolId(0)).backends.len(), 3);
    assert_eq!(
        plan.pool(ringway::plan::PoolId(0)).algorithm,
        ringway::plan::Algorithm::LeastConnections
    );
    assert!(plan.pool(ringway::plan::PoolId(0)).health.is_some());
}

#[test]
fn a_mistake_of_proxy_is_drawn_in_the_line_it_became() {
    for (flag, value, said_of_it) in [
        ("--balance", "leastconn", "did you mean \"least-connections\"?"),
        ("--health", "up", "write \"/up\""),
    ] {
        let said = run(&["proxy", "localhost:3000", flag, value, "--print-config"]);
        assert_eq!(said.code, 1, "{flag}");
        assert!(said.err.contains(said_of_it) && said.out.is_empty(), "{flag}: {}", said.err);
    }
}

#[test]
fn one_address_is_the_backend() {
    let said = run(&["proxy", "localhost:3000", "--print-config"]);
    assert!(said.out.contains("bind = \"127.0.0.1:8080\""), "{}", said.out);
    assert!(said.out.contains("    \"localhost:3000\",\n"), "{}", said.out);
}

#[test]
fn an_address_in_use_ends_in_1_with_one_sentence() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = run(&["proxy", &address, "127.0.0.1:1", "--cores", "1"]);
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("in use"), "{}", said.err);
    assert_eq!(said.err.trim_end().lines().count(), 1, "{}", said.err);
}

/// A program that serves; it does not outlive the test, whatever fails.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        // It has ended already if all went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_second_ringway_on_one_address_is_refused_and_term_ends_the_first() {
    let folder = folder("second", &[("ringway.toml", SMALLEST)]);
    let mut command = ringway(&folder, &["run", "--cores", "1", "--no-pin"]);
    let mut first = Serving(command.stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(first.0.stderr.take().unwrap()).lines();
    let greeting = lines.next().unwrap().unwrap();
    assert!(greeting.starts_with("ringway 0."), "{greeting}");
    assert!(greeting.contains("1 core (") && greeting.contains("1 listener, 0 routes, 1 pool"));
    let bound = lines.find(|line| line.as_ref().unwrap().contains("listener \"web\" on "));
    let bound = bound.unwrap().unwrap();
    let address = bound.rsplit(' ').next().unwrap();

    let second = run(&["proxy", address, "127.0.0.1:1", "--cores", "1"]);
    let pid = rustix::process::Pid::from_child(&first.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(first.0.wait().unwrap().code(), Some(0), "{rest:?}");

    assert_eq!(second.code, 1);
    let expected = format!(
        "ringway: cannot listen on {address}: another ringway (pid {}) already serves it; stop \
         that one first\n",
        pid.as_raw_nonzero()
    );
    assert_eq!(second.err, expected);
}

#[test]
fn what_was_written_and_does_not_fit_is_refused() {
    let file = format!("[global.limits]\nconnections = 10_000_000\n{SMALLEST}");
    let folder = folder("descriptors", &[("ringway.toml", &file)]);
    // The shell's limit, hard and soft, so that it does not depend on this machine's.
    let mut command = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_ringway");
    command.args(["-c", &format!("ulimit -n 1000; exec {program} run --cores 1")]);
    let said = said(command.current_dir(&folder));
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("do not fit into 1000 descriptors"), "{}", said.err);
    assert!(said.err.contains("connections = 436 or less"), "{}", said.err);
}
