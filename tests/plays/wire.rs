//! One end of a connection, read strictly: heads, lengths, chunks, trailers, ends.
//!
//! Used by the scripted clients and backends alike. It accepts only what a careful sender writes
//! (canonical framing, CRLF, no chunk extension), so a proxy that passes on anything ambiguous
//! fails here. It knows nothing of requests and responses beyond their framing fields.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rustix::{
    fd::OwnedFd,
    net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt},
};

/// How long any single read or write may take before the play fails: longer than any check of what
/// follows from it (`stage::LOOKING`).
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The largest head a play reads: above every limit that a play sets.
const HEAD_BYTES_MAX: usize = 256 << 10;

/// Why a message could not be read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The peer closed before the first byte of a message.
    Ended,
    /// The peer closed in the middle of a message.
    Cut,
    /// The peer reset the connection.
    Reset,
    /// Nothing came for `PATIENCE`.
    Silent,
    /// What came is not well-formed.
    Wrong(String),
}

/// Where the body of a message ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    Nothing,
    /// After that many bytes.
    Length(u64),
    /// After the final chunk and its trailers.
    Chunked,
    /// Where the connection ends.
    UntilClose,
}

/// A socket that no child process inherits: a copy in a process that another play starts would keep
/// a port open after ours is closed.
pub(crate) fn socket() -> OwnedFd {
    let flags = SocketFlags::CLOEXEC;
    socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap()
}

/// Names and values in order.
pub(crate) type Fields = Vec<(String, String)>;

/// A start line and fields, as they stood on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// The first line without its CRLF.
    pub(crate) start: String,
    /// The fields in order, values without surrounding blanks.
    pub(crate) fields: Fields,
    /// The bytes up to and including the empty line.
    pub(crate) raw: String,
}

impl Head {
    /// The value of the only field of that name; fails if there are two.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} stands {} times in\n{}", all.len(), self.raw);
        all.first().copied()
    }

    /// The values of all fields of that name, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// Whether a list field such as `Connection` has this member.
    pub(crate) fn lists(&self, name: &str, member: &str) -> bool {
        let mut members = self.all(name).into_iter().flat_map(|value| value.split(','));
        members.any(|one| one.trim().eq_ignore_ascii_case(member))
    }

    /// What Transfer-Encoding and Content-Length say together; `None` if neither is there.
    pub(crate) fn framing(&self) -> Result<Option<Framing>, Broken> {
        let lengths = self.all("content-length");
        let codings = self.all("transfer-encoding");
        match (lengths.as_slice(), codings.as_slice()) {
            ([], []) => Ok(None),
            ([], ["chunked"]) => Ok(Some(Framing::Chunked)),
            ([length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => length
                .parse()
                .map(|length| Some(Framing::Length(length)))
                .map_err(|_| Broken::Wrong(format!("length {length:?} in\n{}", self.raw))),
            _ => Err(Broken::Wrong(format!("ambiguous framing in\n{}", self.raw))),
        }
    }

    fn parse(raw: &[u8]) -> Result<Head, Broken> {
        let wrong = |what: &str| {
            Broken::Wrong(format!("{what} in head {:?}", String::from_utf8_lossy(raw)))
        };
        let text = String::from_utf8(raw.to_vec()).map_err(|_| wrong("bytes that are no text"))?;
        let lines = text.strip_suffix("\r\n\r\n").ok_or_else(|| wrong("no empty line"))?;
        let mut lines = lines.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        if start.contains(['\r', '\n']) {
            return Err(wrong("a bare CR or LF"));
        }
        let mut fields = Vec::new();
        for line in lines {
            fields.push(field(line).ok_or_else(|| wrong(&format!("a bad line {line:?}")))?);
        }
        Ok(Head { start, fields, raw: text })
    }
}

fn field(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let control = |letter: char| letter.is_ascii_control() && letter != '\t';
    if name.is_empty() || !name.bytes().all(token) || value.contains(control) {
        return None;
    }
    Some((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
    /// How long a read may wait.
    wait: Duration,
    /// Where every byte that is read is noted, if it is wanted.
    heard: Option<Heard>,
}

/// What one end has read, the first `HEARD_BYTES_MAX` of it.
pub(crate) type Heard = Arc<Mutex<Vec<u8>>>;

/// More than any play compares, less than a streamed body.
const HEARD_BYTES_MAX: usize = 1 << 20;

impl Wire {
    /// Takes over one end of a connection.
    pub(crate) fn new(stream: TcpStream) -> Wire {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Wire { stream, unread: Vec::new(), wait: PATIENCE, heard: None }
    }

    /// Notes every byte that is read from now on.
    pub(crate) fn noting(mut self, heard: Heard) -> Wire {
        self.heard = Some(heard);
        self
    }

    /// The socket itself.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Writes it all, or says why not.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Shuts down writing; does nothing if the connection is gone already.
    pub(crate) fn half_close(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) {
        sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).unwrap();
    }

    /// Lets a read wait that long from now on.
    pub(crate) fn wait_at_most(&mut self, wait: Duration) {
        self.stream.set_read_timeout(Some(wait)).unwrap();
        self.wait = wait;
    }

    /// Reads a head, the empty line included.
    pub(crate) fn head(&mut self) -> Result<Head, Broken> {
        let mut searched = 0;
        loop {
            if let Some(end) = find(&self.unread[searched..], b"\r\n\r\n") {
                let raw: Vec<u8> = self.unread.drain(..searched + end + 4).collect();
                return Head::parse(&raw);
            }
            searched = self.unread.len().saturating_sub(3);
            if self.unread.len() > HEAD_BYTES_MAX {
                return Err(Broken::Wrong("a head without end".to_owned()));
            }
            self.more()?;
        }
    }

    /// Reads a body of that framing; the trailers are those of a chunked one.
    pub(crate) fn body(&mut self, framing: Framing) -> Result<(Vec<u8>, Fields), Broken> {
        let mut body = Vec::new();
        let trailers = self.body_into(framing, &mut |piece| body.extend_from_slice(piece))?;
        Ok((body, trailers))
    }

    /// Reads a body of that framing and hands it on piece by piece.
    pub(crate) fn body_into(
        &mut self,
        framing: Framing,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<Fields, Broken> {
        match framing {
            Framing::Nothing => Ok(Vec::new()),
            Framing::Length(length) => self.exactly(length, take).map(|()| Vec::new()),
            Framing::Chunked => self.chunks(take),
            Framing::UntilClose => self.rest(take).map(|()| Vec::new()),
        }
    }

    /// Reads some bytes, whatever they are; nothing at the end of the connection.
    pub(crate) fn some(&mut self) -> Result<Vec<u8>, Broken> {
        if self.unread.is_empty() {
            match self.more() {
                Ok(()) | Err(Broken::Ended) => {}
                Err(broken) => return Err(broken),
            }
        }
        Ok(std::mem::take(&mut self.unread))
    }

    /// Reads exactly that many raw bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Result<Vec<u8>, Broken> {
        let mut bytes = Vec::with_capacity(count);
        self.exactly(count as u64, &mut |piece| bytes.extend_from_slice(piece))?;
        Ok(bytes)
    }

    /// Reads to the end of the connection.
    pub(crate) fn until_end(&mut self) -> Result<Vec<u8>, Broken> {
        let mut bytes = Vec::new();
        self.rest(&mut |piece| bytes.extend_from_slice(piece))?;
        Ok(bytes)
    }

    /// The next chunk of a chunked body: empty for the last, whose trailers are left unread.
    pub(crate) fn chunk(&mut self) -> Result<Vec<u8>, Broken> {
        let line = self.line()?;
        let hexadecimal = |byte: u8| byte.is_ascii_hexdigit();
        if line.is_empty() || !line.bytes().all(hexadecimal) {
            return Err(Broken::Wrong(format!("chunk size {line:?}")));
        }
        let size = u64::from_str_radix(&line, 16)
            .map_err(|_| Broken::Wrong(format!("chunk size {line:?}")))?;
        if size == 0 {
            return Ok(Vec::new());
        }
        let chunk = self.bytes(usize::try_from(size).unwrap())?;
        let end = self.bytes(2)?;
        if end == b"\r\n" {
            Ok(chunk)
        } else {
            Err(Broken::Wrong(format!("a chunk of {size} bytes ends in {end:?}")))
        }
    }

    fn chunks(&mut self, take: &mut dyn FnMut(&[u8])) -> Result<Fields, Broken> {
        loop {
            let chunk = self.chunk()?;
            if chunk.is_empty() {
                break;
            }
            take(&chunk);
        }
        let mut trailers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(trailers);
            }
            let trailer = field(&line).ok_or(Broken::Wrong(format!("trailer {line:?}")))?;
            trailers.push(trailer);
        }
    }

    fn line(&mut self) -> Result<String, Broken> {
        loop {
            if let Some(end) = find(&self.unread, b"\n") {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line).into_owned();
                return match line.strip_suffix("\r\n") {
                    Some(line) => Ok(line.to_owned()),
                    None => Err(Broken::Wrong(format!("line {line:?} ends without CRLF"))),
                };
            }
            if self.unread.len() > HEAD_BYTES_MAX {
                return Err(Broken::Wrong("a line without end".to_owned()));
            }
            self.more().map_err(in_the_middle)?;
        }
    }

    fn exactly(&mut self, mut count: u64, take: &mut dyn FnMut(&[u8])) -> Result<(), Broken> {
        while count > 0 {
            if self.unread.is_empty() {
                self.more().map_err(in_the_middle)?;
            }
            let here = usize::try_from(count.min(self.unread.len() as u64)).unwrap();
            take(&self.unread[..here]);
            self.unread.drain(..here);
            count -= here as u64;
        }
        Ok(())
    }

    fn rest(&mut self, take: &mut dyn FnMut(&[u8])) -> Result<(), Broken> {
        loop {
            take(&self.unread);
            self.unread.clear();
            match self.more() {
                Ok(()) => {}
                Err(Broken::Ended) => return Ok(()),
                Err(broken) => return Err(broken),
            }
        }
    }

    fn note(&self, piece: &[u8]) {
        if let Some(heard) = &self.heard {
            let mut heard = heard.lock().unwrap();
            let room = HEARD_BYTES_MAX.saturating_sub(heard.len());
            heard.extend_from_slice(&piece[..piece.len().min(room)]);
        }
    }

    fn more(&mut self) -> Result<(), Broken> {
        let since = Instant::now();
        let mut piece = [0; 16 << 10];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) if self.unread.is_empty() => return Err(Broken::Ended),
                Ok(0) => return Err(Broken::Cut),
                Ok(count) => {
                    self.unread.extend_from_slice(&piece[..count]);
                    self.note(&piece[..count]);
                    return Ok(());
                }
                Err(error) => match error.kind() {
                    // A process that was stopped and continued would wait as long once more.
                    ErrorKind::Interrupted => {
                        if since.elapsed() >= self.wait {
                            return Err(Broken::Silent);
                        }
                    }
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Err(Broken::Silent),
                    _ => return Err(Broken::Reset),
                },
            }
        }
    }
}

/// An end inside a message is a cut, even if no byte of the piece had come.
fn in_the_middle(broken: Broken) -> Broken {
    if broken == Broken::Ended { Broken::Cut } else { broken }
}

fn find(within: &[u8], wanted: &[u8]) -> Option<usize> {
    within.windows(wanted.len()).position(|window| window == wanted)
}
