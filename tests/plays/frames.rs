//! Frames of HTTP/2, and a client that writes its own and reads strictly.
//!
//! It shares nothing with the crate: fields are written without a table and without Huffman codes,
//! and what Ringway sends is read in the one form that it uses. Other implementations play in
//! `http2.rs` as well.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
};

use crate::wire::{PATIENCE, socket};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// A frame as it stood on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) id: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(kind: u8, flags: u8, id: u32, payload: impl AsRef<[u8]>) -> Frame {
        Frame { kind, flags, id, payload: payload.as_ref().to_vec() }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = (self.payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// The frame at the front of these bytes, and how many it has; none if they are too few.
    pub(crate) fn read(bytes: &[u8]) -> Option<(Frame, usize)> {
        let [a, b, c, kind, flags, id @ ..] = bytes.first_chunk::<9>()?;
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        assert!(length <= 16_384, "a frame of {length} bytes");
        let payload = bytes.get(9..9 + length)?;
        Some((Frame::new(*kind, *flags, u32::from_be_bytes(*id), payload), 9 + length))
    }

    /// The last number of its payload.
    pub(crate) fn number(&self) -> u32 {
        let at = self.payload.len() - 4;
        u32::from_be_bytes(self.payload[at..].try_into().unwrap())
    }

    pub(crate) fn ends(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }
}

/// The block of fields, given one a line as `name: value`.
pub(crate) fn block(fields: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for line in fields.lines().filter(|line| !line.is_empty()) {
        let at = line[1..].find(": ").expect("a field") + 1;
        block.push(0);
        for part in [&line[..at], &line[at + 2..]] {
            match part.len() {
                short @ ..127 => block.push(short as u8),
                long => {
                    let mut rest = long - 127;
                    block.push(127);
                    while rest >= 128 {
                        block.push((rest % 128) as u8 | 128);
                        rest /= 128;
                    }
                    block.push(rest as u8);
                }
            }
            block.extend_from_slice(part.as_bytes());
        }
    }
    block
}

/// The names of the fixed table of which Ringway makes use.
const NAMES: &[(usize, &str)] = &[
    (1, ":authority"),
    (2, ":method"),
    (4, ":path"),
    (6, ":scheme"),
    (8, ":status"),
    (16, "accept-encoding"),
    (17, "accept-language"),
    (18, "accept-ranges"),
    (19, "accept"),
    (20, "access-control-allow-origin"),
    (21, "age"),
    (22, "allow"),
    (23, "authorization"),
    (24, "cache-control"),
    (25, "content-disposition"),
    (26, "content-encoding"),
    (27, "content-language"),
    (28, "content-length"),
    (30, "content-range"),
    (31, "content-type"),
    (32, "cookie"),
    (33, "date"),
    (34, "etag"),
    (35, "expect"),
    (36, "expires"),
    (39, "if-match"),
    (40, "if-modified-since"),
    (41, "if-none-match"),
    (44, "last-modified"),
    (45, "link"),
    (46, "location"),
    (50, "range"),
    (51, "referer"),
    (53, "retry-after"),
    (54, "server"),
    (55, "set-cookie"),
    (56, "strict-transport-security"),
    (58, "user-agent"),
    (59, "vary"),
    (60, "via"),
    (61, "www-authenticate"),
];

/// The fields of the fixed table of which it makes use, from the second on.
const FIELDS: [(&str, &str); 13] = [
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
];

/// Reads a number behind a prefix of so many bits.
fn number(rest: &mut &[u8], bits: u32) -> usize {
    let full = (1 << bits) - 1;
    let mut number = usize::from(rest[0]) & full;
    *rest = &rest[1..];
    if number == full {
        let mut shift = 0;
        loop {
            let byte = rest[0];
            *rest = &rest[1..];
            number += usize::from(byte & 127) << shift;
            shift += 7;
            if byte < 128 {
                break;
            }
        }
    }
    number
}

fn text(rest: &mut &[u8]) -> String {
    assert!(rest[0] < 128, "a Huffman code");
    let length = number(rest, 7);
    let (text, behind) = rest.split_at(length);
    *rest = behind;
    String::from_utf8(text.to_vec()).expect("text")
}

/// The fields of a block that Ringway has written.
pub(crate) fn fields(mut rest: &[u8]) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    while let Some(first) = rest.first() {
        match first {
            128.. => {
                let (name, value) = FIELDS[number(&mut rest, 7) - 2];
                fields.push((name.to_owned(), value.to_owned()));
            }
            32 => rest = &rest[1..],
            ..32 => {
                let name = match number(&mut rest, 4) {
                    0 => text(&mut rest),
                    known => {
                        NAMES.iter().find(|(at, _)| *at == known).expect("a name").1.to_owned()
                    }
                };
                assert_eq!(name, name.to_ascii_lowercase(), "RFC 9113 §8.2.1");
                fields.push((name, text(&mut rest)));
            }
            other => panic!("a field in another form: {other:#x}"),
        }
    }
    fields
}

/// An answer, as far as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    /// The statuses of interim answers.
    pub(crate) interim: Vec<u16>,
    /// Whether it came whole.
    pub(crate) is_whole: bool,
    /// The code of the reset of its stream, if that was reset.
    pub(crate) reset: Option<u32>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let named = self.fields.iter().find(|(field, _)| field == name);
        named.map(|(_, value)| value.as_str())
    }

    /// Fails unless it is whole and has that status and that body.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16, body: &str) {
        let is_it = self.is_whole && self.status == status && self.body == body.as_bytes();
        assert!(is_it, "not {status} {body:?} but\n{self:#?}");
    }

    #[track_caller]
    fn take(&mut self, frame: &Frame) {
        match frame.kind {
            HEADERS => {
                assert!(frame.flags & END_HEADERS != 0, "a head in pieces");
                let fields = fields(&frame.payload);
                let status = fields.first().filter(|(name, _)| name == ":status");
                match status.map(|(_, status)| status.parse().unwrap()) {
                    None => self.trailers = fields,
                    Some(status @ 100..=199) => self.interim.push(status),
                    Some(status) => (self.status, self.fields) = (status, fields),
                }
            }
            DATA => self.body.extend_from_slice(&frame.payload),
            RST_STREAM => self.reset = Some(frame.number()),
            _ => {}
        }
        self.is_whole |= frame.ends();
    }
}

trait Both: Read + Write + Send {}

impl<T: Read + Write + Send> Both for T {}

/// A client with one connection.
pub(crate) struct Http2 {
    stream: Box<dyn Both>,
    /// What has come and is no whole frame.
    rest: Vec<u8>,
    answers: BTreeMap<u32, Answer>,
    /// Code and number of the last GOAWAY.
    left: Option<(u32, u32)>,
    /// Whether what is read may come again.
    pub(crate) gives_room: bool,
    next: u32,
}

impl Http2 {
    /// Connects, and begins.
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Http2 {
        let mut client = Http2::silent(address);
        client.send_raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        client.send(&Frame::new(SETTINGS, 0, 0, ""));
        client
    }

    /// Connects and sends nothing.
    #[track_caller]
    pub(crate) fn silent(address: SocketAddr) -> Http2 {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("no connection");
        Http2::over(stream)
    }

    /// Connects from this address, if that is let in, and begins.
    pub(crate) fn connect_from(from: Ipv4Addr, address: SocketAddr) -> Option<Http2> {
        Http2::introduced_from(from, b"", address)
    }

    /// The same, with this before the preface.
    pub(crate) fn introduced_from(
        from: Ipv4Addr,
        header: &[u8],
        address: SocketAddr,
    ) -> Option<Http2> {
        let socket = socket();
        rustix::net::bind(&socket, &SocketAddr::from((from, 0))).ok()?;
        rustix::net::connect(&socket, &address).ok()?;
        let mut client = Http2::over(TcpStream::from(socket));
        client.stream.write_all(&[header, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"].concat()).ok()?;
        client.try_send(&Frame::new(SETTINGS, 0, 0, "")).then_some(client)
    }

    /// Over a connection that was made.
    pub(crate) fn over(stream: TcpStream) -> Http2 {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let stream = Box::new(stream);
        let answers = BTreeMap::new();
        Http2 { stream, rest: vec![], answers, left: None, gives_room: true, next: 1 }
    }

    #[track_caller]
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("could not send");
    }

    #[track_caller]
    pub(crate) fn send(&mut self, frame: &Frame) {
        self.send_raw(&frame.bytes());
    }

    /// Sends the head of a request, with these fields behind the pseudo-fields; returns its stream.
    #[track_caller]
    pub(crate) fn ask(&mut self, line: &str, fields: &str, ends: bool) -> u32 {
        let frame = self.request(line, fields, ends);
        self.send(&frame);
        frame.id
    }

    #[track_caller]
    fn request(&mut self, line: &str, fields: &str, ends: bool) -> Frame {
        let (method, path) = line.split_once(' ').expect("a method and a path");
        let id = self.next;
        self.next += 2;
        let pseudo = format!(":method: {method}\n:scheme: http\n:authority: a\n:path: {path}\n");
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        Frame::new(HEADERS, flags, id, block(&format!("{pseudo}{fields}")))
    }

    /// Sends a part of a body, in frames of at most 16 KiB, without looking at windows.
    #[track_caller]
    pub(crate) fn body(&mut self, id: u32, bytes: &[u8], ends: bool) {
        let mut pieces = bytes.chunks(16_384).peekable();
        while let Some(piece) = pieces.next() {
            let flags = if ends && pieces.peek().is_none() { END_STREAM } else { 0 };
            self.send(&Frame::new(DATA, flags, id, piece));
        }
    }

    /// Asks for a path and reads the answer.
    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> Answer {
        let id = self.ask(&format!("GET {path}"), "", true);
        self.answer(id)
    }

    /// The next frame; none at the end of the connection.
    #[track_caller]
    pub(crate) fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, count)) = Frame::read(&self.rest) {
                self.rest.drain(..count);
                return Some(frame);
            }
            let mut room = vec![0; 64 << 10];
            match self.stream.read(&mut room) {
                Ok(0) => {
                    assert!(self.rest.is_empty(), "a frame was cut: {:x?}", self.rest);
                    return None;
                }
                Ok(count) => self.rest.extend_from_slice(&room[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }

    /// Takes the next frame, and does what a client does with it.
    #[track_caller]
    fn take(&mut self) -> Option<Frame> {
        let frame = self.frame()?;
        match frame.kind {
            SETTINGS if frame.flags == 0 => self.send_or_not(&Frame::new(SETTINGS, 1, 0, "")),
            PING if frame.flags == 0 => self.send_or_not(&Frame::new(PING, 1, 0, &frame.payload)),
            DATA if self.gives_room && !frame.payload.is_empty() => {
                let count = (frame.payload.len() as u32).to_be_bytes();
                for id in [0, frame.id] {
                    self.send_or_not(&Frame::new(WINDOW_UPDATE, 0, id, count));
                }
            }
            GOAWAY => {
                let id = u32::from_be_bytes(frame.payload[..4].try_into().unwrap());
                self.left = Some((frame.number(), id));
            }
            _ => {}
        }
        if frame.id > 0 {
            self.answers.entry(frame.id).or_default().take(&frame);
        }
        Some(frame)
    }

    /// Whether it could be sent.
    pub(crate) fn try_send(&mut self, frame: &Frame) -> bool {
        self.stream.write_all(&frame.bytes()).is_ok()
    }

    /// The same for any bytes.
    pub(crate) fn try_send_raw(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// The same for the head of a request.
    pub(crate) fn try_ask(&mut self, line: &str, ends: bool) -> bool {
        let frame = self.request(line, "", ends);
        self.try_send(&frame)
    }

    fn send_or_not(&mut self, frame: &Frame) {
        let _ = self.stream.write_all(&frame.bytes());
    }

    /// Reads until the answer on a stream is whole, or that is reset, or the connection ends.
    #[track_caller]
    pub(crate) fn answer(&mut self, id: u32) -> Answer {
        loop {
            if let Some(answer) = self.answers.get(&id)
                && (answer.is_whole || answer.reset.is_some())
            {
                return self.answers.remove(&id).unwrap_or_default();
            }
            if self.take().is_none() {
                return self.answers.remove(&id).unwrap_or_default();
            }
        }
    }

    /// Whether something of this kind comes before the end of the connection.
    #[track_caller]
    pub(crate) fn comes(&mut self, kind: u8) -> bool {
        std::iter::from_fn(|| self.take()).any(|frame| frame.kind == kind)
    }

    /// Reads until something of this kind comes.
    #[track_caller]
    pub(crate) fn until(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.take().unwrap_or_else(|| panic!("the end instead of kind {kind}"));
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Reads to the end of the connection; the code of the last GOAWAY, and its number.
    #[track_caller]
    pub(crate) fn goaway(&mut self) -> Option<(u32, u32)> {
        while self.take().is_some() {}
        self.left
    }
}
