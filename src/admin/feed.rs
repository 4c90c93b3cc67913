//! Streams of server-sent events (HTML, "Server-sent events"), and the timeline.
//!
//! A stream is one answer without an end: its connection closes after it. It ends when the process
//! does, when the client is too slow, or when another process takes over; the client then comes
//! back by itself, with the id of the last event that it had.

use std::{
    io::{self, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::{
    Doors, Feed, HistoryQuery,
    answer::{Answer, give},
    api::{decoded, unfit},
    request::Request,
};
use crate::config;

/// A stream without news is still alive: a comment says so, and finds clients that are not.
const ALIVE: Duration = Duration::from_secs(15);

/// How often it is looked whether the stream is to end.
const LOOK: Duration = Duration::from_millis(250);

/// How long a client may take to receive what has come together, and how many bytes of it are
/// enough.
const WRITE: Duration = Duration::from_secs(10);
const TOGETHER: usize = 16 << 10;

/// How far back the timeline is shown if nobody says.
const SINCE: Duration = Duration::from_secs(24 * 3_600);

/// The head of a stream, and after how many milliseconds a client comes back.
const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                    cache-control: no-store\r\nx-content-type-options: nosniff\r\n\
                    connection: close\r\n\r\n";
const RETRY: &str = "retry: 1000\n\n";

/// What is sent on over a connection.
pub(super) type Messages = Receiver<Arc<str>>;

/// The stream that is asked for.
pub(super) fn follow(request: &Request, doors: &impl Doors, feed: Feed) -> Messages {
    let after = request.head.headers.named(b"last-event-id").next();
    let after = after.map(|id| String::from_utf8_lossy(id).into_owned());
    doors.follow(feed, after)
}

/// Sends a stream until one side ends it.
///
/// # Errors
/// The connection's.
pub(super) fn send(
    stream: &mut impl Write,
    messages: &Messages,
    bodiless: bool,
    is_over: impl Fn() -> bool,
) -> io::Result<()> {
    stream.write_all(HEAD.as_bytes())?;
    if bodiless {
        return Ok(());
    }
    stream.write_all(RETRY.as_bytes())?;
    let mut quiet_since = Instant::now();
    while !is_over() {
        match messages.recv_timeout(LOOK) {
            Ok(message) => {
                // What has come together leaves together, as long as it is short: a frame of a
                // thousand backends is half a megabyte, which readers share until it is copied.
                let until = Instant::now() + WRITE;
                if message.len() >= TOGETHER {
                    give(stream, message.as_bytes(), until)?;
                } else {
                    let mut bytes = message.as_bytes().to_vec();
                    while bytes.len() < TOGETHER
                        && let Ok(more) = messages.try_recv()
                    {
                        bytes.extend_from_slice(more.as_bytes());
                    }
                    give(stream, &bytes, until)?;
                }
                quiet_since = Instant::now();
            }
            Err(RecvTimeoutError::Timeout) if quiet_since.elapsed() >= ALIVE => {
                stream.write_all(b":\n\n")?;
                quiet_since = Instant::now();
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
    Ok(())
}

/// The last frame.
pub(super) fn frame(doors: &impl Doors) -> Answer {
    match doors.frame() {
        Some(frame) => Answer::text(200, &*frame).of_type("application/json"),
        None => Answer::error(503, "too_early", "no second has passed yet"),
    }
}

/// The timeline, as far as it is asked for: `?pool=P&backend=B&since=24h`.
pub(super) fn history(request: &Request, doors: &impl Doors) -> Answer {
    match query(request.head.bytes(request.head.query)) {
        Ok(query) => Answer::json(200, &doors.history(&query)),
        Err(refused) => refused,
    }
}

fn query(text: &[u8]) -> Result<HistoryQuery, Answer> {
    let mut query = HistoryQuery { pool: None, backend: None, since: SINCE };
    for pair in text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        let mut parts = pair.splitn(2, |byte| *byte == b'=');
        let name = String::from_utf8_lossy(parts.next().unwrap_or_default());
        let value = decoded(parts.next().unwrap_or_default())
            .ok_or_else(|| unfit(&format!("`{name}` has no value")))?;
        match &*name {
            "pool" => query.pool = Some(value),
            "backend" => query.backend = Some(value),
            "since" => {
                query.since =
                    config::duration(&value).map_err(|why| unfit(&format!("since: {why}")))?;
            }
            name => {
                let known = "`pool`, `backend` and `since`";
                return Err(unfit(&format!("there is no `{name}`; there are {known}")));
            }
        }
    }
    Ok(query)
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::unbounded;

    use super::*;

    #[test]
    fn a_query_says_whose_history_and_how_far_back() {
        let hour = Duration::from_secs(3_600);
        let of = |pool: Option<&str>, backend: Option<&str>, since| {
            let named = |name: Option<&str>| name.map(str::to_owned);
            HistoryQuery { pool: named(pool), backend: named(backend), since }
        };
        for (text, expected) in [
            ("", Some(of(None, None, SINCE))),
            ("since=1h", Some(of(None, None, hour))),
            ("pool=app&backend=10.0.0.1%3A80", Some(of(Some("app"), Some("10.0.0.1:80"), SINCE))),
            ("since=1", None),
            ("since", None),
            ("pool=", None),
            ("host=a", None),
        ] {
            assert_eq!(query(text.as_bytes()).ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_stream_ends_with_its_source_and_sends_what_has_come() {
        let (to, from) = unbounded::<Arc<str>>();
        to.send("event: a\n\n".into()).unwrap();
        to.send("event: b\n\n".into()).unwrap();
        drop(to);
        let mut sent = Vec::new();
        send(&mut sent, &from, false, || false).unwrap();
        let text = String::from_utf8(sent).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"));
        assert!(text.ends_with("\r\n\r\nretry: 1000\n\nevent: a\n\nevent: b\n\n"), "{text}");
        let mut sent = Vec::new();
        send(&mut sent, &from, true, || false).unwrap();
        assert!(sent.ends_with(b"\r\n\r\n"));
    }
}
