//! The call of scrapers: metrics as text, in the format that they prefer.
//!
//! The text is sent while it is made, in chunks (RFC 9112 §7.1): of ten thousand backends it is
//! 27 MB, and no more of it than a chunk is ever in memory. After each chunk the thread lets others
//! have its processor, which may be that of a core: a scrape keeps nobody waiting for longer than a
//! chunk takes.

use std::{
    fmt,
    io::{self, Write},
    thread,
    time::{Duration, Instant},
};

use super::{
    Doors,
    answer::{self, Answer},
    request::Request,
};
use crate::http::head::Version;
use crate::observe::statistics::metrics::{Format, Text};

/// The bytes of a chunk: a fifth of a millisecond's work.
const CHUNK: usize = 64 << 10;

/// What stands before a chunk: its size in five digits, and the end of that line.
const SIZE: usize = 7;

/// How long a client may take to receive all.
const WHOLE: Duration = Duration::from_secs(30);

/// A scrape that is about to be answered.
pub(super) struct Scrape {
    head: Answer,
    text: Text,
    /// Whether the client knows chunks.
    pub(super) is_chunked: bool,
}

/// All metrics.
///
/// # Errors
/// What is answered instead.
pub(super) fn begin(request: &Request, doors: &impl Doors) -> Result<Scrape, Answer> {
    let format = preferred(request.head.headers.named(b"accept"));
    let text = doors.metrics(format);
    let text = text.ok_or_else(|| Answer::error(503, "hung", "the process does not answer"))?;
    let head = Answer::empty(200).of_type(format.content_type());
    Ok(Scrape { head, text, is_chunked: request.head.version != Version::Http10 })
}

impl Scrape {
    /// Sends it. Without chunks the end of the connection is that of the text.
    ///
    /// # Errors
    /// The connection's, or that the client is too slow.
    pub(super) fn send(
        self,
        stream: &mut impl Write,
        closes: bool,
        bodiless: bool,
    ) -> io::Result<()> {
        let framing = self.is_chunked.then_some(("transfer-encoding", "chunked"));
        let until = Instant::now() + WHOLE;
        answer::give(stream, self.head.head(framing, closes).as_bytes(), until)?;
        if bodiless {
            return Ok(());
        }
        let room = Vec::with_capacity(SIZE + CHUNK + 2);
        let is_chunked = self.is_chunked;
        let mut chunks = Chunks { stream, room, is_chunked, until, failed: None };
        chunks.begin();
        let made = (self.text)(&mut chunks);
        match chunks.failed.take() {
            Some(error) => Err(error),
            // What was sent so far is cut: it is not whole.
            None if made.is_err() => Err(io::Error::other(fmt::Error)),
            None => chunks.end(),
        }
    }
}

/// A text on its way, in chunks.
struct Chunks<'a, S> {
    stream: &'a mut S,
    /// The next chunk, behind the room for its size.
    room: Vec<u8>,
    is_chunked: bool,
    until: Instant,
    /// Why no more can be sent.
    failed: Option<io::Error>,
}

impl<S: Write> Chunks<'_, S> {
    fn begin(&mut self) {
        self.room.clear();
        self.room.resize(if self.is_chunked { SIZE } else { 0 }, b'0');
    }

    fn send(&mut self) -> io::Result<()> {
        if self.is_chunked {
            let size = self.room.len().saturating_sub(SIZE);
            if size == 0 {
                return Ok(());
            }
            let line = format!("{size:05x}\r\n");
            self.room.iter_mut().zip(line.bytes()).for_each(|(to, byte)| *to = byte);
            self.room.extend_from_slice(b"\r\n");
        }
        answer::give(self.stream, &self.room, self.until)?;
        self.begin();
        thread::yield_now();
        Ok(())
    }

    fn end(mut self) -> io::Result<()> {
        self.send()?;
        let last: &[u8] = if self.is_chunked { b"0\r\n\r\n" } else { b"" };
        answer::give(self.stream, last, self.until)
    }
}

impl<S: Write> fmt::Write for Chunks<'_, S> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.as_bytes().chunks(CHUNK) {
            if self.room.len() + piece.len() > SIZE + CHUNK
                && let Err(error) = self.send()
            {
                self.failed = Some(error);
                return Err(fmt::Error);
            }
            self.room.extend_from_slice(piece);
        }
        Ok(())
    }
}

/// OpenMetrics where it is asked for at least as much as the older format (RFC 9110 §12.5.1).
fn preferred<'a>(accept: impl Iterator<Item = &'a [u8]>) -> Format {
    let (mut open, mut plain) = (0, 0);
    for range in accept.flat_map(|line| line.split(|byte| *byte == b',')) {
        let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let media = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix(b"q=")).map_or(1_000, thousandths);
        match media {
            media if media.eq_ignore_ascii_case(b"application/openmetrics-text") => {
                open = weight.max(open);
            }
            media if media.eq_ignore_ascii_case(b"text/plain") => plain = weight.max(plain),
            _ => {}
        }
    }
    if open > 0 && open >= plain { Format::OpenMetrics } else { Format::Prometheus }
}

/// A weight (RFC 9110 §12.4.2); what is none counts as nought.
fn thousandths(weight: &[u8]) -> u32 {
    let weight = str::from_utf8(weight).ok().and_then(|text| text.parse::<f64>().ok());
    weight.filter(|weight| (0.0..=1.0).contains(weight)).map_or(0, |it| (it * 1_000.0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_one_that_is_asked_for_most() {
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                            application/openmetrics-text;version=0.0.1;q=0.5,\
                            text/plain;version=1.0.0;q=0.4,\
                            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, expected) in [
            (&[][..], Format::Prometheus),
            (&["*/*"], Format::Prometheus),
            (&["text/plain"], Format::Prometheus),
            (&["application/openmetrics-text"], Format::OpenMetrics),
            (&[prometheus_3], Format::OpenMetrics),
            (&["text/plain", "application/openmetrics-text; q=0.5"], Format::Prometheus),
            (&["application/openmetrics-text; q=0"], Format::Prometheus),
            (&["application/openmetrics-text; q=x"], Format::Prometheus),
            (&["Application/OpenMetrics-Text; version=1.0.0"], Format::OpenMetrics),
        ] {
            let lines = accept.iter().map(|line| line.as_bytes());
            assert_eq!(preferred(lines), expected, "{accept:?}");
        }
    }
}
