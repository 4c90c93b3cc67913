//! Random plays: pipelines of random requests and answers, split at random.
//!
//! What arrives is compared with what was sent.

use crate::{
    backend::{Script, Visit, plays},
    chance::{Chance, rounds},
    client::Client,
    scripts::{answers_each, ok},
    stage::{Driver, Stage},
    wire::Broken,
};

on_both_drivers!(
    random_pipelines_arrive_whole,
    random_answers_arrive_whole,
    random_bodies_come_back_whole,
);

const REQUESTS: usize = 150;

fn random_pipelines_arrive_whole(driver: Driver) {
    let mut chance = Chance::new();
    let measuring = answers_each(|request| {
        ok(format!("{} {}", request.target(), request.body.len())).into_bytes()
    });
    let stage = Stage::on(driver).backend(measuring).start();
    let (mut bytes, mut bodies) = (Vec::new(), Vec::new());
    for number in 0..REQUESTS {
        let (fields, wire, body) = match chance.below(3) {
            0 => (String::new(), Vec::new(), Vec::new()),
            _ => chance.body(),
        };
        bytes.extend(format!("POST /{number} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").bytes());
        bytes.extend(wire);
        bodies.push(body);
    }
    let mut client: Client = stage.connect();
    let pieces = chance.pieces(&bytes);
    let mut sending = client.wire().stream().try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for piece in pieces {
                std::io::Write::write_all(&mut sending, &piece).unwrap();
            }
        });
        for (number, body) in bodies.iter().enumerate() {
            client.response().expect(200, &format!("/{number} {}", body.len()));
        }
    });
    for (request, body) in stage.backend(0).requests().iter().zip(&bodies) {
        assert!(request.body == *body, "{}: another body", request.target());
    }
    client.half_close().expect_end();
}

fn random_answers_arrive_whole(driver: Driver) {
    let mut chance = Chance::new();
    let answers: Vec<_> = (0..REQUESTS).map(|_| chance.body()).collect();
    let speaking = {
        let (answers, chance) = (answers.clone(), chance.clone());
        plays(move |visit| {
            let mut chance = chance.clone();
            loop {
                let number: usize = visit.request()?.target()[1..].parse().unwrap();
                let (fields, wire, _) = &answers[number];
                let mut bytes = format!("HTTP/1.1 200 OK\r\n{fields}\r\n").into_bytes();
                bytes.extend(wire);
                for piece in chance.pieces(&bytes) {
                    visit.send(piece)?;
                }
            }
        })
    };
    let stage = Stage::on(driver).backend(speaking).start();
    let mut client = stage.connect();
    for (number, (_, _, body)) in answers.iter().enumerate() {
        let response = client.get(&format!("/{number}"));
        assert!(response.status == 200 && response.body == *body, "/{number}: another body");
    }
    assert_eq!(stage.backend(0).visits(), 1, "each answer ended where it ended");
}

/// Answers with the body it received, in any framing, in any pieces.
fn echoes_by_chance(chance: Chance) -> Script {
    plays(move |visit| {
        let mut chance = chance.clone();
        (0..visit.number()).for_each(|_| _ = chance.split());
        while echoes(visit, &mut chance)? {}
        Ok(())
    })
}

/// Answers one request; returns whether the connection stays open.
fn echoes(visit: &mut Visit, chance: &mut Chance) -> Result<bool, Broken> {
    let (head, framing) = visit.head()?;
    if head.lists("expect", "100-continue") {
        visit.send("HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let request = visit.rest_of(head, framing)?;
    let interim = chance.of(&["", "", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"]);
    let version = chance.of(&["HTTP/1.1", "HTTP/1.1", "HTTP/1.0"]);
    let ends_by_closing = chance.once_in(8);
    let (fields, wire) = match version {
        _ if ends_by_closing => ("Connection: close\r\n".to_owned(), request.body),
        "HTTP/1.0" => {
            let length = request.body.len();
            (format!("Connection: keep-alive\r\nContent-Length: {length}\r\n"), request.body)
        }
        _ => chance.framed(&request.body),
    };
    let mut bytes = format!("{interim}{version} 200 OK\r\n{fields}\r\n").into_bytes();
    bytes.extend(wire);
    for piece in chance.pieces(&bytes) {
        visit.send(piece)?;
    }
    Ok(!ends_by_closing)
}

/// What a client sends comes back, whatever framing both sides use.
fn random_bodies_come_back_whole(driver: Driver) {
    let mut chance = Chance::new();
    let stage = Stage::on(driver).backend(echoes_by_chance(chance.split())).start();
    let mut client = stage.connect();
    for round in 0..rounds(150) {
        let (fields, wire, body) = chance.body();
        let is_old = fields.starts_with("Content-Length") && chance.once_in(4);
        let expects = !is_old && chance.once_in(4);
        let version = if is_old { "HTTP/1.0\r\nConnection: keep-alive" } else { "HTTP/1.1" };
        let expect = if expects { "Expect: 100-continue\r\n" } else { "" };
        let head = format!("POST /{round} {version}\r\nHost: a\r\n{expect}{fields}\r\n");
        let (head, wire) = if expects && !body.is_empty() && chance.once_in(2) {
            client.send(head);
            assert_eq!(client.response().status, 100, "round {round}");
            (String::new(), wire)
        } else {
            (head, wire)
        };
        for piece in chance.pieces(&[head.as_bytes(), &wire].concat()) {
            client.send(piece);
        }
        let mut response = client.response();
        while response.status < 200 {
            assert!(!is_old, "round {round}: 1.0 knows no interim answers");
            response = client.response();
        }
        let whole = response.status == 200 && response.body == body;
        assert!(whole, "round {round}: another body than {fields:?}: {:?}", response.head);
        if response.closes() {
            client.expect_end();
            client = stage.connect();
        }
    }
}
