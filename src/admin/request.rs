//! Requests of the admin interface, read whole from a blocking stream.
//!
//! The same parser and the same framing as on the data path, with bounds of its own: 16 KiB of
//! head, 64 KiB of body, ten seconds for both. A refusal closes the connection.

use std::{
    io::{self, ErrorKind, Read, Write},
    time::{Duration, Instant},
};

use super::answer::Answer;
use crate::http::{
    chunks::Chunks,
    fault::{Cause, Fault},
    framing::{self, BodyLength},
    head::RequestHead,
    headers::Headers,
    parse::{self, HeadLimits, Parse},
};

const LIMITS: HeadLimits =
    HeadLimits { head_bytes_max: 16 << 10, line_bytes_max: 8 << 10, fields_max: 64 };

/// More than any call takes.
const BODY_MAX: usize = 64 << 10;

/// How long a connection may be silent between two requests, and how long a request may take once
/// its first byte has come.
const IDLE: Duration = Duration::from_secs(30);
const WHOLE: Duration = Duration::from_secs(10);

/// How often a wait checks whether the listener ends.
const LOOK: Duration = Duration::from_millis(250);

/// A stream whose reads can be bounded in time.
pub(super) trait Stream: Read + Write {
    /// At most this long, from now on.
    fn bound_reads(&self, time: Duration) -> io::Result<()>;
}

/// One request.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) head: RequestHead,
    pub(super) body: Vec<u8>,
}

/// The result of reading.
#[derive(Debug)]
pub(super) enum Came {
    Request(Request),
    /// A request that is refused; this is the answer, and the connection's last.
    Refused(Answer),
    /// The client has ended, or was silent for too long.
    Nothing,
}

/// A connection's stream with its unread bytes.
pub(super) struct Reader<S> {
    pub(super) stream: S,
    bytes: Vec<u8>,
}

/// Why reading stopped.
enum Stop {
    Ended,
    Late,
    Refused(Fault),
    TooLarge,
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Stop {
        Stop::Refused(fault)
    }
}

impl<S: Stream> Reader<S> {
    pub(super) fn new(stream: S) -> Reader<S> {
        Reader { stream, bytes: Vec::new() }
    }

    /// The next request, or what to do instead. `is_over` ends a wait for one.
    pub(super) fn next(&mut self, is_over: &dyn Fn() -> bool) -> Came {
        if self.bytes.is_empty() && self.more(Instant::now() + IDLE, is_over).is_err() {
            return Came::Nothing;
        }
        let until = Instant::now() + WHOLE;
        let mut request = Request::default();
        match self.whole(&mut request, until, is_over) {
            Ok(()) => Came::Request(request),
            Err(Stop::Ended) => Came::Nothing,
            Err(Stop::Late) => Came::Refused(Fault::new(Cause::RequestTimeout).into()),
            Err(Stop::Refused(fault)) => Came::Refused(fault.into()),
            Err(Stop::TooLarge) => Came::Refused(Fault::new(Cause::BodyTooLarge).into()),
        }
    }

    fn whole(
        &mut self,
        request: &mut Request,
        until: Instant,
        is_over: &dyn Fn() -> bool,
    ) -> Result<(), Stop> {
        let used = loop {
            match parse::request(&self.bytes, &LIMITS, &mut request.head)? {
                Parse::Done { used } => break used,
                Parse::More => self.more(until, is_over)?,
            }
        };
        self.bytes.drain(..used);
        match framing::request(&request.head)? {
            BodyLength::None | BodyLength::UntilClose => Ok(()),
            BodyLength::Fixed(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                if length > BODY_MAX {
                    return Err(Stop::TooLarge);
                }
                self.go_on(request)?;
                while self.bytes.len() < length {
                    self.more(until, is_over)?;
                }
                request.body = self.bytes.drain(..length).collect();
                Ok(())
            }
            BodyLength::Chunked => {
                self.go_on(request)?;
                self.chunks(request, until, is_over)
            }
        }
    }

    /// Tells a client that waits for a 100 to send its body (RFC 9110 §10.1.1).
    fn go_on(&mut self, request: &Request) -> Result<(), Stop> {
        if !request.head.expects_continue {
            return Ok(());
        }
        self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").map_err(|_| Stop::Ended)
    }

    fn chunks(
        &mut self,
        request: &mut Request,
        until: Instant,
        is_over: &dyn Fn() -> bool,
    ) -> Result<(), Stop> {
        let (mut chunks, mut trailers) = (Chunks::of_request(LIMITS), Headers::default());
        loop {
            let done = chunks.compact(&mut self.bytes, &mut trailers)?;
            request.body.extend_from_slice(self.bytes.get(done.body).unwrap_or_default());
            self.bytes.drain(..done.consumed);
            if request.body.len() > BODY_MAX {
                return Err(Stop::TooLarge);
            }
            if done.ended {
                return Ok(());
            }
            self.more(until, is_over)?;
        }
    }

    /// Waits for more bytes.
    fn more(&mut self, until: Instant, is_over: &dyn Fn() -> bool) -> Result<(), Stop> {
        let mut room = [0; 4096];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Stop::Late);
            }
            if is_over() || self.stream.bound_reads(left.min(LOOK)).is_err() {
                return Err(Stop::Ended);
            }
            match self.stream.read(&mut room) {
                Ok(0) => return Err(Stop::Ended),
                Ok(count) => {
                    self.bytes.extend_from_slice(room.get(..count).unwrap_or_default());
                    return Ok(());
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    _ => return Err(Stop::Ended),
                },
            }
        }
    }
}
