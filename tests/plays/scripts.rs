//! The scripts of backends that plays share, each with a name that a play reads like a sentence.
//!
//! Well-behaved ones first, then those that end too soon, then those that break the protocol. A
//! script that only one play needs is in that play, through `plays`.

use std::time::Duration;

use crate::{
    backend::{Cue, Request, Script, Visit, plays},
    wire::{Broken, Framing},
};

/// A response with a length.
pub(crate) fn ok(body: impl AsRef<str>) -> String {
    let body = body.as_ref();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// One chunk.
pub(crate) fn chunk(piece: impl AsRef<str>) -> String {
    let piece = piece.as_ref();
    format!("{:x}\r\n{piece}\r\n", piece.len())
}

/// Answers request after request with what `answer` makes of each.
pub(crate) fn answers_each(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Script {
    plays(move |visit| {
        loop {
            let request = visit.request()?;
            visit.send(answer(&request))?;
            if request.head.lists("connection", "close") {
                return Ok(());
            }
        }
    })
}

/// Answers every request with this text.
pub(crate) fn answers(text: &'static str) -> Script {
    answers_each(move |_| ok(text).into_bytes())
}

/// Answers every request with its own target.
pub(crate) fn answers_target() -> Script {
    answers_each(|request| ok(request.target()).into_bytes())
}

/// Answers every request with exactly these bytes, and stays open.
pub(crate) fn sends(raw: impl Into<Vec<u8>>) -> Script {
    let raw = raw.into();
    answers_each(move |_| raw.clone())
}

/// Answers every request with these bytes and closes.
pub(crate) fn sends_and_closes(raw: impl Into<Vec<u8>>) -> Script {
    let raw = raw.into();
    plays(move |visit| {
        visit.request()?;
        visit.send(&raw)
    })
}

/// Sends these bytes after each request, then resets the connection.
pub(crate) fn sends_and_resets(raw: impl Into<Vec<u8>>) -> Script {
    let raw = raw.into();
    plays(move |visit| {
        visit.request()?;
        visit.send(&raw)?;
        // The reset would overtake what the proxy has not read yet.
        visit.pause(Duration::from_millis(50))?;
        visit.reset();
        Ok(())
    })
}

/// Answers every request with its own body, streamed as it comes and framed as it came.
pub(crate) fn echoes() -> Script {
    plays(|visit| {
        loop {
            let (head, framing) = visit.head()?;
            match framing {
                Framing::Nothing | Framing::UntilClose => {
                    visit.rest_of(head, framing)?;
                    visit.send(ok(""))?;
                }
                Framing::Length(length) => echo_length(visit, length)?,
                Framing::Chunked => echo_chunks(visit)?,
            }
        }
    })
}

fn echo_length(visit: &mut Visit, length: u64) -> Result<(), Broken> {
    visit.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"))?;
    let mut left = length;
    while left > 0 {
        let piece = visit.wire().some()?;
        if piece.is_empty() {
            return Err(Broken::Cut);
        }
        left = left.checked_sub(piece.len() as u64).ok_or(Broken::Wrong("too long".to_owned()))?;
        visit.send(piece)?;
    }
    Ok(())
}

fn echo_chunks(visit: &mut Visit) -> Result<(), Broken> {
    visit.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    loop {
        let piece = visit.wire().chunk()?;
        visit.send(format!("{:x}\r\n", piece.len()))?;
        if piece.is_empty() {
            // The trailers end in an empty line of their own.
            visit.send("\r\n")?;
            let end = visit.wire().bytes(2)?;
            let plain = end == b"\r\n";
            return if plain { Ok(()) } else { Err(Broken::Wrong("unasked trailers".to_owned())) };
        }
        visit.send(piece)?;
        visit.send("\r\n")?;
    }
}

/// Answers every request with this text after that long.
pub(crate) fn delays(wait: Duration, text: &'static str) -> Script {
    plays(move |visit| {
        loop {
            visit.request()?;
            visit.pause(wait)?;
            visit.send(ok(text))?;
        }
    })
}

/// Answers every request with this text once the cue was given.
pub(crate) fn answers_on(cue: &Cue, text: &'static str) -> Script {
    let cue = cue.clone();
    plays(move |visit| {
        loop {
            visit.request()?;
            visit.wait_for(&cue)?;
            visit.send(ok(text))?;
        }
    })
}

/// Reads every request and never answers.
pub(crate) fn never_answers() -> Script {
    plays(Visit::drain_requests)
}

/// Accepts and never reads a byte.
pub(crate) fn never_reads() -> Script {
    plays(|visit| visit.wait_for(&Cue::default()))
}

/// Answers with this text, framed by the end of the connection.
pub(crate) fn close_delimited(text: &'static str) -> Script {
    sends_and_closes(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{text}"))
}

/// Closes every connection after that many requests, without saying so.
pub(crate) fn closes_after(count: usize, text: &'static str) -> Script {
    plays(move |visit| {
        while visit.served() < count {
            visit.request()?;
            visit.send(ok(text))?;
        }
        Ok(())
    })
}

/// Closes every connection after that many requests or that long without one.
pub(crate) fn closes_after_or_idle(count: usize, idle: Duration, text: &'static str) -> Script {
    plays(move |visit| {
        while visit.served() < count {
            match visit.request() {
                Ok(_) => visit.send(ok(text))?,
                Err(Broken::Silent) => return Ok(()),
                Err(broken) => return Err(broken),
            }
            // Only a connection that has served is idle: a new one is waited for.
            visit.wire().wait_at_most(idle);
        }
        Ok(())
    })
}

/// Answers before it has read any of the body, then reads on until the proxy closes.
pub(crate) fn answers_early(raw: &'static str) -> Script {
    plays(move |visit| {
        visit.head()?;
        visit.send(raw)?;
        visit.drain()
    })
}

/// Agrees to every upgrade and then sends back what comes, until the end of it.
pub(crate) fn upgrades_and_echoes() -> Script {
    plays(|visit| {
        visit.request()?;
        visit.send(SWITCHING)?;
        loop {
            let some = visit.wire().some()?;
            if some.is_empty() {
                return Ok(());
            }
            visit.send(some)?;
        }
    })
}

/// The head of an agreement to speak WebSocket.
pub(crate) const SWITCHING: &str =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";

impl Visit {
    /// Reads and records request after request.
    pub(crate) fn drain_requests(&mut self) -> Result<(), Broken> {
        loop {
            self.request()?;
        }
    }
}
