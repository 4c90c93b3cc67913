//! Plays of run-time changes over restarts, and of the command that makes them.
//!
//! The process is killed without warning: what was answered is there after the next start, and what
//! could not be kept was refused.

use std::{fs, io::Write as _, path::PathBuf, process::Output, thread, time::Duration};

use serde_json::{Value, json};

use crate::{
    backend::{Backend, Cue},
    client::{Client, get},
    run_time::{Running, list, path},
    scripts::{answers, answers_on},
    stage::{Driver, eventually},
};

on_both_drivers!(
    changes_outlast_the_process_until_they_are_dropped,
    a_kill_at_any_moment_loses_nothing_that_was_answered,
    what_does_not_fit_any_more_is_named_and_the_rest_is_used,
    a_full_disk_refuses_and_changes_nothing,
    a_disk_that_is_full_keeps_the_file_that_is_there,
    backends_are_changed_by_command,
    a_drain_is_waited_for,
);

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The command with these words, which ends like that and says this.
#[track_caller]
fn commands(running: &Running, words: &str, code: i32, expected: &str) {
    let words: Vec<&str> = words.split(' ').collect();
    let (status, out, err) = said(&running.command(&words).output().unwrap());
    assert_eq!(status, Some(code), "{words:?}: {out}{err}");
    let text = if code == 0 { out } else { err };
    assert!(text.contains(expected), "{words:?}: {expected} is not in {text}");
}

/// How many files of changes there are.
fn kept_changes(running: &Running) -> usize {
    let names =
        fs::read_dir(running.folder.join("state")).unwrap().map(|it| it.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with("changes-")).count()
}

fn changes_outlast_the_process_until_they_are_dropped(driver: Driver) {
    let backends = ["a", "b", "c"].map(|name| Backend::open(answers(name)));
    let [a, b, c] = &backends;
    let mut running = Running::start(driver, &list(&backends[..2]));
    running.add(c);
    running.set(c, &json!({ "weight": 9 }));
    running.set(a, &json!({ "state": "maintenance" }));
    running.calls("DELETE", &path(b), &Value::Null, 204);
    running.restart();
    assert_eq!(running.ask(9), vec!["c"; 9]);
    assert_eq!(running.state_of(a), (200, "maintenance".to_owned()));
    assert_eq!(running.state_of(b).0, 404);
    assert_eq!(running.calls("GET", &path(c), &Value::Null, 200)["weight"], 9);
    let added = format!("run-time change: + backend \"{}\" of pool \"app\": weight 9", c.address());
    commands(&running, "status", 0, &added);
    let print = said(&running.command(&["check", "--print"]).output().unwrap()).1;
    for line in [
        format!("{{ address = \"{}\", weight = 0 }},  # run time, maintenance", a.address()),
        format!("# {{ address = \"{}\", weight = 1 }}", b.address()),
        format!("{{ address = \"{}\", weight = 9 }},  # run time", c.address()),
    ] {
        assert!(print.contains(&line), "{line} is not in {print}");
    }
    commands(&running, "reload", 0, "nothing changes");
    commands(&running, "reload --discard --dry-run", 0, "~ pool \"app\": 1 backend added");
    assert_eq!(running.ask(9), vec!["c"; 9]);
    commands(&running, "reload --discard", 0, "1 backend added, 1 backend removed, 1 state");
    let mut seen = running.ask(2);
    seen.sort();
    assert_eq!(seen, ["a", "b"]);
    assert_eq!(kept_changes(&running), 0);
    running.restart();
    assert_eq!(running.state_of(c).0, 404);
}

fn a_kill_at_any_moment_loses_nothing_that_was_answered(driver: Driver) {
    let backends = ["a", "b"].map(|name| Backend::open(answers(name)));
    let mut running = Running::start(driver, &list(&backends));
    for round in 0..5_u64 {
        let (admin, at) = (running.admin, path(&backends[0]));
        let writes = thread::spawn(move || {
            let mut last = 0;
            for weight in 1..=256 {
                let body = json!({ "weight": weight }).to_string();
                let head = format!(
                    "PATCH /api/v1/pools/app{at} HTTP/1.1\r\nHost: {admin}\r\n\
                     Content-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                let Ok(stream) = std::net::TcpStream::connect(admin) else { return last };
                let mut client = Client::over(stream);
                client.send_what_is_taken(head);
                match client.try_response() {
                    Ok(response) if response.status == 200 => last = weight,
                    _ => return last,
                }
            }
            last
        });
        thread::sleep(Duration::from_millis(20 + 37 * round));
        running.child.kill().unwrap();
        let answered = writes.join().unwrap();
        running.restart();
        let view = running.calls("GET", &path(&backends[0]), &Value::Null, 200);
        let weight = view["weight"].as_u64().unwrap();
        // What was not answered may be in force or not.
        let before = answered.max(1);
        assert!((before..=before + 1).contains(&weight), "{weight} after {answered}");
        running.set(&backends[0], &json!({ "weight": 1 }));
    }
}

fn what_does_not_fit_any_more_is_named_and_the_rest_is_used(driver: Driver) {
    let backends = ["a", "b", "c"].map(|name| Backend::open(answers(name)));
    let [_, b, c] = &backends;
    let mut running = Running::start(driver, &list(&backends[..2]));
    running.add(c);
    running.set(b, &json!({ "state": "draining" }));
    running.write(&list(&backends[..1]));
    let check = said(&running.command(&["check"]).output().unwrap()).2;
    let line =
        format!("backend \"{}\" of pool \"app\": the configuration has no such", b.address());
    assert!(check.contains(&line) && check.contains("toml:"), "{check}");
    running.restart();
    let words = "run-time change that was kept does not fit";
    eventually("it is told", || running.log().contains(words), |told| *told);
    assert_eq!(running.state_of(c).0, 200);
    running.write(&list(&backends));
    let reload = said(&running.command(&["reload"]).output().unwrap());
    let dropped = format!("run-time change dropped: backend \"{}\"", c.address());
    assert!(reload.0 == Some(0) && reload.2.contains(&dropped), "{reload:?}");
    assert_eq!(kept_changes(&running), 0);
}

fn a_full_disk_refuses_and_changes_nothing(driver: Driver) {
    let backends = ["a", "b"].map(|name| Backend::open(answers(name)));
    // No file may grow.
    let running = Running::start_within(driver, &list(&backends[..1]), "ulimit -f 0");
    let body = json!({ "address": backends[1].address().to_string() });
    let refused = running.calls("POST", "/backends", &body, 507);
    let why = refused["error"].as_str().unwrap();
    assert!(why.contains("nothing was changed") && why.contains("state-dir"), "{why}");
    assert_eq!(running.state_of(&backends[1]).0, 404);
    assert_eq!(running.ask(3), vec!["a"; 3]);
    let words = format!("backend weight app/{} 3", backends[0].address());
    commands(&running, &words, 1, "nothing was changed");
    assert_eq!(kept_changes(&running), 0);
    commands(&running, "reload", 0, "nothing changes");
}

/// A small file system is put over the folder, in a mount namespace of the process.
fn a_disk_that_is_full_keeps_the_file_that_is_there(driver: Driver) {
    if !may_mount() {
        eprintln!("skipped: it may not mount");
        return;
    }
    let backends = ["a", "b"].map(|name| Backend::open(answers(name)));
    let [a, b] = &backends;
    let running = Running::start_within(driver, &list(&backends), "around='unshare --mount'");
    let pid = running.child.id();
    let state = running.folder.join("state");
    fs::create_dir_all(&state).unwrap();
    let mut mount = std::process::Command::new("nsenter");
    mount.args(["-t", &pid.to_string(), "-m", "mount", "-t", "tmpfs", "-o", "size=32k", "none"]);
    assert!(mount.arg(&state).status().unwrap().success());
    // As the process sees it.
    let state = PathBuf::from(format!("/proc/{pid}/root{}", state.display()));
    running.set(a, &json!({ "weight": 7 }));
    let files = || {
        let all = fs::read_dir(&state).unwrap().map(|it| it.unwrap().path());
        let changes = |path: &PathBuf| path.to_string_lossy().contains("changes-");
        all.filter(changes).map(|path| fs::read_to_string(path).unwrap()).collect::<Vec<_>>()
    };
    let [before] = &files()[..] else { panic!("{:?}", files()) };
    assert!(before.contains("weight = 7"), "{before}");
    let filler = state.join("filler");
    let mut fills = fs::File::create(&filler).unwrap();
    while fills.write(&[b'.'; 1024]).is_ok() {}
    drop(fills);
    for (method, path, body) in [
        ("PATCH", path(a), json!({ "weight": 9 })),
        ("DELETE", path(b), Value::Null),
        ("POST", "/backends".to_owned(), json!({ "address": "127.0.0.1:1" })),
    ] {
        let refused = running.calls(method, &path, &body, 507);
        let why = refused["error"].as_str().unwrap();
        assert!(why.contains("nothing was changed") && why.contains("No space"), "{why}");
    }
    assert_eq!(&files(), std::slice::from_ref(before), "it is whole, and nothing lies beside it");
    let seen = running.ask(16);
    assert_eq!(seen.iter().filter(|name| *name == "b").count(), 2, "{seen:?}");
    // With room again it goes on.
    fs::remove_file(&filler).unwrap();
    running.set(a, &json!({ "weight": 9 }));
    assert!(files()[0].contains("weight = 9"), "{:?}", files());
}

fn may_mount() -> bool {
    let mut tries = std::process::Command::new("unshare");
    tries.args(["--mount", "mount", "-t", "tmpfs", "none", "/mnt"]);
    tries.output().is_ok_and(|output| output.status.success())
}

fn backends_are_changed_by_command(driver: Driver) {
    let backends = ["a", "b"].map(|name| Backend::open(answers(name)));
    let [a, b] = backends.each_ref().map(|backend| backend.address().to_string());
    let running = Running::start(driver, &list(&backends[..1]));
    commands(
        &running,
        &format!("backend add app {b} --name two --weight 3"),
        0,
        "added app/two: up",
    );
    commands(&running, "backend list", 0, &format!("app   {a}"));
    commands(&running, "backend list app/two", 0, "two      up     3");
    commands(&running, "backend maintenance app/two", 0, "app/two: maintenance, weight 3");
    commands(&running, "backend up app/two", 0, "app/two: up, weight 3");
    commands(&running, "backend weight app/two 0", 0, "app/two: up, weight 0");
    assert_eq!(running.ask(5), vec!["a"; 5]);
    let list = said(&running.command(&["backend", "list", "app", "--json"]).output().unwrap()).1;
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!((&list["backends"][1]["name"], &list["totalBackends"]), (&json!("two"), &json!(2)));
    commands(&running, "backend remove app/two --drain 30s", 0, "app/two: removed");
    for (words, code, expected) in [
        ("backend remove app/two", 1, "pool \"app\" has no backend \"two\""),
        ("backend list none", 1, "there is no pool \"none\""),
        ("backend add app", 2, "name the address"),
        ("backend weight app/two", 2, "name the weight"),
        ("backend weight app/two many", 2, "a number from 0 to 256"),
        ("backend drain app", 2, "name the backend"),
        ("backend drain", 2, "name the pool"),
        ("backend drain app/two 3", 2, "takes no value"),
        ("backend up app/two --name x", 2, "--name"),
        ("backend list --wait", 2, "--wait"),
        ("backend pause app/two", 2, "invalid value"),
        ("backend add app 10.0.0.1", 1, "no port"),
    ] {
        commands(&running, words, code, expected);
    }
    commands(&running, &format!("backend add app {a}"), 1, "already");
    commands(&running, &format!("backend remove app/{a}"), 1, "the last backend");
    commands(&running, "backend list --admin 127.0.0.1:1", 3, "no running instance");
}

fn a_drain_is_waited_for(driver: Driver) {
    let cue = Cue::default();
    let backends = [Backend::open(answers("a")), Backend::open(answers_on(&cue, "slow"))];
    let running = Running::start(driver, &list(&backends));
    let slow = format!("app/{}", backends[1].address());
    let mut clients: Vec<Client> = (0..2).map(|_| Client::connect(running.address)).collect();
    clients.iter_mut().for_each(|client| _ = client.send(get("/")));
    eventually("it is asked", || backends[1].heads().len(), |count| *count == 1);
    let mut drains = running.command(&["backend", "drain", &slow, "--wait"]);
    let drains = drains.stdout(std::process::Stdio::piped()).spawn().unwrap();
    eventually("it drains", || running.state_of(&backends[1]).1, |state| state == "draining");
    assert_eq!(running.ask(6), vec!["a"; 6]);
    cue.give();
    clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
    let (code, out, _) = said(&drains.wait_with_output().unwrap());
    assert_eq!(code, Some(0));
    assert!(out.contains("1 request under way") && out.contains("nothing under way"), "{out}");
    let gone = running.command(&["backend", "remove", &slow, "--wait", "--json"]).output().unwrap();
    let (code, out, _) = said(&gone);
    assert!(code == Some(0) && out.contains("\"state\":\"removed\""), "{out}");
}
