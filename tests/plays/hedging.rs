//! Plays of second copies: the first answer counts, and nothing is asked twice that may not be.

use std::time::Duration;

use crate::{
    backend::{Cue, Script, plays},
    client::Client,
    logs::Folder,
    scripts::ok,
    stage::{Driver, Setting, Stage, eventually},
};

on_both_drivers!(
    a_copy_answers_for_a_backend_that_takes_its_time,
    the_copy_is_cancelled_when_the_first_answers,
    an_error_of_the_copy_is_no_answer,
    what_may_not_be_asked_twice_is_not,
    there_are_no_more_copies_than_the_share_allows,
    late_is_what_is_later_than_most,
);

// Only those that hold however late the translator is.
over_http_2!(
    ; in front:
    an_error_of_the_copy_is_no_answer,
    what_may_not_be_asked_twice_is_not,
);

/// Of every request there may be a copy.
const HEDGED: &str = "retry = { budget = \"off\", hedge = { after = \"50ms\", max = 1 } }";

/// Answers at once, but for one target: that on the cue, with this.
fn takes_its_time(cue: &Cue, status: &'static str, text: &'static str) -> Script {
    let cue = cue.clone();
    plays(move |visit| {
        loop {
            let request = visit.request()?;
            if request.target() != "/slow" {
                visit.send(ok("fast"))?;
                continue;
            }
            visit.wait_for(&cue)?;
            let length = text.len();
            visit.send(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{text}"))?;
        }
    })
}

fn two(driver: Driver, cues: [&Cue; 2], status: &'static str) -> Setting {
    let [first, second] = cues;
    Stage::on(driver)
        .backend(takes_its_time(first, "200 OK", "first"))
        .backend(takes_its_time(second, status, "second"))
        .pool("timeouts = { response = \"60s\" }")
}

/// So many requests that they have earned copies: credit is a rate, of the requests of all the time
/// since it was asked for last.
fn warmed(stage: &Stage) -> Client {
    let mut client = stage.connect();
    (0..500).for_each(|_| client.get("/").expect(200, "fast"));
    client
}

/// How many requests for the slow target each backend was sent.
fn slow(stage: &Stage) -> [usize; 2] {
    [0, 1].map(|index| {
        let heads = stage.backend(index).heads();
        heads.iter().filter(|head| head.start.contains("/slow")).count()
    })
}

/// Lets the backend that was asked first wait, or the one that gets the copy.
fn ask_slowly(stage: &Stage, client: &mut Client) -> usize {
    client.send("GET /slow HTTP/1.1\r\nHost: play.test\r\n\r\n");
    let asked = eventually("one is asked", || slow(stage), |now| *now != [0, 0]);
    let first = usize::from(asked == [0, 1]);
    eventually("a copy is sent", || slow(stage), |now| *now == [1, 1]);
    first
}

fn a_copy_answers_for_a_backend_that_takes_its_time(driver: Driver) {
    let (cues, log) = ([Cue::default(), Cue::default()], Folder::new());
    let setting = two(driver, [&cues[0], &cues[1]], "200 OK").pool(HEDGED);
    let stage = setting.listener(&log.line("json")).start();
    let mut client = warmed(&stage);
    let first = ask_slowly(&stage, &mut client);
    cues[1 - first].give();
    client.response().expect(200, ["second", "first"][first]);
    client.get("/").expect(200, "fast");
    assert_eq!(stage.count("hedges_total{result=\"won\"}"), 1);
    let of_each = [0, 1].map(|index| stage.backend(index).open_visits());
    assert_eq!(of_each[1 - first], 1, "the winner's connection is kept");
    cues[first].give();
    eventually("the first is left", || stage.backend(first).open_visits(), |open| *open <= 1);
    drop(client);
    let lines = log.lines(stage);
    let listed: Vec<_> = lines.iter().filter_map(|line| line.get("tries")?.as_array()).collect();
    let [tries] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!((&tries[0]["why"], &tries[0]["phase"]), (&"hedged".into(), &"first_byte".into()));
    assert_eq!((&tries[1]["why"], tries.len()), (&serde_json::Value::Null, 2));
}

fn the_copy_is_cancelled_when_the_first_answers(driver: Driver) {
    let cues = [Cue::default(), Cue::default()];
    let stage = two(driver, [&cues[0], &cues[1]], "200 OK").pool(HEDGED).start();
    let mut client = warmed(&stage);
    let first = ask_slowly(&stage, &mut client);
    cues[first].give();
    client.response().expect(200, ["first", "second"][first]);
    stage.expect_count("hedges_total{result=\"lost\"}", 1);
    stage.expect_count("backend_in_flight", 0);
    assert_eq!(stage.count("hedges_total{result=\"won\"}"), 0);
}

fn an_error_of_the_copy_is_no_answer(driver: Driver) {
    let cues = [Cue::default(), Cue::default()];
    let stage = two(driver, [&cues[0], &cues[1]], "503 No").pool(HEDGED).start();
    let mut client = warmed(&stage);
    if ask_slowly(&stage, &mut client) == 0 {
        cues[1].give();
        std::thread::sleep(Duration::from_millis(50));
        cues[0].give();
        client.response().expect(200, "first");
    } else {
        // The copy is at the other, and it answers.
        cues[0].give();
        client.response().expect(200, "first");
    }
}

fn what_may_not_be_asked_twice_is_not(driver: Driver) {
    let cues = [Cue::default(), Cue::default()];
    let stage = two(driver, [&cues[0], &cues[1]], "200 OK").pool(HEDGED).start();
    let mut client = warmed(&stage);
    let post = "POST /slow HTTP/1.1\r\nHost: play.test\r\nContent-Length: 2\r\n\r\nhi";
    client.send(post);
    eventually("one is asked", || slow(&stage), |now| *now != [0, 0]);
    // Three times as long as a copy would wait.
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(slow(&stage).iter().sum::<usize>(), 1);
    cues.iter().for_each(Cue::give);
    assert_eq!(client.response().status, 200);
}

fn there_are_no_more_copies_than_the_share_allows(driver: Driver) {
    let cues = [Cue::default(), Cue::default()];
    let share = "retry = { budget = \"off\", hedge = { after = \"20ms\", max = 0.01 } }";
    let stage = two(driver, [&cues[0], &cues[1]], "200 OK").pool(share).start();
    let _client = warmed(&stage);
    let mut clients: Vec<Client> = (0..20).map(|_| stage.connect()).collect();
    for client in &mut clients {
        client.send("GET /slow HTTP/1.1\r\nHost: play.test\r\n\r\n");
    }
    let asked = || slow(&stage).iter().sum::<usize>();
    eventually("all are asked", asked, |all| *all >= 20);
    // Five times as long as the copies would wait.
    std::thread::sleep(Duration::from_millis(100));
    assert!(asked() <= 20 + 5, "{} copies, of a hundredth of five hundred", asked() - 20);
    cues.iter().for_each(Cue::give);
    clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
}

fn late_is_what_is_later_than_most(driver: Driver) {
    let cues = [Cue::default(), Cue::default()];
    let hedged = "retry = { budget = \"off\", hedge = { max = 1 } }";
    let stage = two(driver, [&cues[0], &cues[1]], "200 OK").pool(hedged).start();
    let mut client = stage.connect();
    // It is found out once a second what most take.
    for _ in 0..700 {
        client.get("/").expect(200, "fast");
        std::thread::sleep(Duration::from_millis(2));
    }
    let first = ask_slowly(&stage, &mut client);
    cues[1 - first].give();
    client.response().expect(200, ["second", "first"][first]);
    cues[first].give();
}
