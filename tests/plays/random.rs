//! Plays by chance: pipelines of random requests and answers, split at random.
//!
//! What arrives is compared with what was sent. Each play prints its seed when it fails;
//! `RINGWAY_PLAYS_SEED` takes one back.

use std::hash::{BuildHasher, Hasher, RandomState};

use crate::{
    backend::plays,
    client::Client,
    scripts::{answers_each, ok},
    stage::{Driver, Stage},
};

on_both_drivers!(random_pipelines_arrive_whole, random_answers_arrive_whole);

const REQUESTS: usize = 150;

/// Numbers by chance (xorshift64*), the same for the same seed.
#[derive(Clone)]
struct Chance(u64);

impl Chance {
    fn new() -> Chance {
        let given = std::env::var("RINGWAY_PLAYS_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        println!("seed {seed}");
        Chance(seed | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    /// Often small, now and then larger than a buffer.
    fn size(&mut self) -> usize {
        match self.below(10) {
            0 => 0,
            1..=6 => self.below(50),
            7 | 8 => self.below(5_000),
            _ => self.below(150_000),
        }
    }

    /// A body, framed somehow: its fields, its bytes on the wire, and itself.
    fn body(&mut self) -> (String, Vec<u8>, Vec<u8>) {
        let size = self.size();
        let body: Vec<u8> = (0..size).map(|_| b" \r\n0aGET/"[self.below(9)]).collect();
        if self.below(2) == 0 {
            return (format!("Content-Length: {size}\r\n"), body.clone(), body);
        }
        let mut wire = Vec::new();
        let mut rest = body.as_slice();
        while !rest.is_empty() {
            let limit = [1, 10, 1_000, 100_000][self.below(4)];
            let (chunk, behind) = rest.split_at(1 + self.below(rest.len().min(limit)));
            let extension = ["", ";a", ";a=b", ";a=\"b\""][self.below(4)];
            let noughts = &"000"[..self.below(4)];
            wire.extend(format!("{noughts}{:x}{extension}\r\n", chunk.len()).bytes());
            wire.extend(chunk);
            wire.extend(b"\r\n");
            rest = behind;
        }
        wire.extend(["0\r\n\r\n", "000;x=y\r\n\r\n", "0\r\nX: y\r\n\r\n"][self.below(3)].bytes());
        ("Transfer-Encoding: chunked\r\n".to_owned(), wire, body)
    }

    /// The same bytes in pieces.
    fn pieces(&mut self, mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let limit = [1, 20, 3_000, 300_000][self.below(4)];
            let (piece, rest) = bytes.split_at(1 + self.below(bytes.len().min(limit)));
            pieces.push(piece.to_vec());
            bytes = rest;
        }
        pieces
    }
}

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
