//! Random numbers, and what random plays are made of: sizes, bodies in any framing, pieces.
//!
//! Each play prints its seed, which is shown when it fails; `RINGWAY_PLAYS_SEED` takes one back.
//! `RINGWAY_PLAYS_LONG` runs as many more rounds as a night has room for.

use std::hash::{BuildHasher, Hasher, RandomState};

use crate::stage::long;

/// This many rounds, or thirty times as many if there is time.
pub(crate) fn rounds(usual: usize) -> usize {
    if long() { 30 * usual } else { usual }
}

/// Random numbers (xorshift64*), the same for the same seed.
#[derive(Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    /// With a new seed, or the one that was given.
    pub(crate) fn new() -> Chance {
        let given = std::env::var("RINGWAY_PLAYS_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        println!("seed {seed}");
        Chance(seed | 1)
    }

    /// Another generator for each use, so that uses may run concurrently.
    pub(crate) fn split(&mut self) -> Chance {
        self.below(1);
        Chance(self.0 ^ 0x9e37_79b9_7f4a_7c15 | 1)
    }

    /// One of these.
    pub(crate) fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }

    /// True once in this many times, on average.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// A number below this one.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    /// Often small, now and then larger than a buffer.
    pub(crate) fn size(&mut self) -> usize {
        match self.below(10) {
            0 => 0,
            1..=6 => self.below(50),
            7 | 8 => self.below(5_000),
            _ => self.below(150_000),
        }
    }

    /// A body, framed somehow: its fields, its bytes on the wire, and itself.
    pub(crate) fn body(&mut self) -> (String, Vec<u8>, Vec<u8>) {
        let size = self.size();
        let body: Vec<u8> = (0..size).map(|_| b" \r\n0aGET/"[self.below(9)]).collect();
        let (fields, wire) = self.framed(&body);
        (fields, wire, body)
    }

    /// A body framed somehow: its fields and its bytes on the wire.
    pub(crate) fn framed(&mut self, body: &[u8]) -> (String, Vec<u8>) {
        if self.below(2) == 0 {
            return (format!("Content-Length: {}\r\n", body.len()), body.to_vec());
        }
        let mut wire = Vec::new();
        let mut rest = body;
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
        ("Transfer-Encoding: chunked\r\n".to_owned(), wire)
    }

    /// The same bytes in pieces.
    pub(crate) fn pieces(&mut self, mut bytes: &[u8]) -> Vec<Vec<u8>> {
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
