//! The connection of a scripted backend that speaks HTTP/2, frame by frame.
//!
//! It shares nothing with the crate. What a request must not have is a complaint, which fails the
//! play. Settings and pings are answered unless a script does it; windows are kept to both ways.

use std::collections::BTreeMap;

use crate::{
    backend::{Script, Visit, plays},
    frames::{
        DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS,
        WINDOW_UPDATE, block, fields,
    },
    wire::Broken,
};

pub(crate) const STREAMS_MAX: u16 = 3;
pub(crate) const FIRST_WINDOW: u16 = 4;
pub(crate) const EXTENDED_CONNECT: u16 = 8;

/// A request, as far as it has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) id: u32,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    pub(crate) is_whole: bool,
    /// The code of its reset, if it was reset.
    pub(crate) reset: Option<u32>,
}

impl Asked {
    /// The value of the only field of that name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut named = self.fields.iter().filter(|(field, _)| field == name);
        let value = named.next().map(|(_, value)| value.as_str());
        assert!(named.next().is_none(), "{name} twice in {:?}", self.fields);
        value
    }

    pub(crate) fn path(&self) -> &str {
        self.field(":path").unwrap_or_default()
    }
}

/// A backend whose connections play this part, once both sides have said how they speak.
pub(crate) fn speaks(
    settings: &'static [(u16, u32)],
    part: impl Fn(&mut Streams<'_>) -> Result<(), Broken> + Send + Sync + 'static,
) -> Script {
    plays(move |visit| {
        let mut streams = Streams::begin(visit)?;
        streams.says(settings)?;
        part(&mut streams)
    })
}

/// Answers each request with its own path, at once.
pub(crate) fn tells_paths(settings: &'static [(u16, u32)]) -> Script {
    speaks(settings, |streams| {
        loop {
            let asked = streams.request()?;
            let path = asked.path().to_owned();
            streams.answers(asked.id, "", path.as_bytes())?;
        }
    })
}

/// Answers each request with its own body and trailers, when all has come.
pub(crate) fn echoes(settings: &'static [(u16, u32)]) -> Script {
    speaks(settings, |streams| {
        loop {
            let asked = streams.request()?;
            if asked.trailers.is_empty() {
                streams.answers(asked.id, "", &asked.body)?;
                continue;
            }
            streams.head(asked.id, "200", "", false)?;
            streams.body(asked.id, &asked.body, false)?;
            streams.trailers(asked.id, &asked.trailers)?;
        }
    })
}

/// A connection.
pub(crate) struct Streams<'a> {
    visit: &'a mut Visit,
    rest: Vec<u8>,
    /// Requests of which something has come, by their streams.
    open: BTreeMap<u32, Asked>,
    /// How much may be sent: in all, at first on each stream, and on those of which that is known.
    window: i64,
    first_window: i64,
    windows: BTreeMap<u32, i64>,
    /// Whether what is read may come again.
    pub(crate) gives_room: bool,
    /// Whether pings are answered.
    pub(crate) pongs: bool,
    /// Pings that have come.
    pub(crate) pings: u32,
    /// The code of the last GOAWAY.
    pub(crate) left: Option<u32>,
}

impl<'a> Streams<'a> {
    /// Reads what a client begins with.
    pub(crate) fn begin(visit: &'a mut Visit) -> Result<Streams<'a>, Broken> {
        let preface = visit.wire().bytes(24)?;
        if preface != b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
            return Err(Broken::Wrong(format!("no preface: {preface:?}")));
        }
        Ok(Streams {
            visit,
            rest: Vec::new(),
            open: BTreeMap::new(),
            window: 65_535,
            first_window: 65_535,
            windows: BTreeMap::new(),
            gives_room: true,
            pongs: true,
            pings: 0,
            left: None,
        })
    }

    pub(crate) fn visit(&mut self) -> &mut Visit {
        self.visit
    }

    /// Which connection of this backend it is, from 0.
    pub(crate) fn number(&self) -> usize {
        self.visit.number()
    }

    pub(crate) fn send(&mut self, frame: &Frame) -> Result<(), Broken> {
        self.visit.send(frame.bytes())
    }

    /// Says how we speak.
    pub(crate) fn says(&mut self, settings: &[(u16, u32)]) -> Result<(), Broken> {
        let mut payload = Vec::new();
        for (name, value) in settings {
            payload.extend(name.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        self.send(&Frame::new(SETTINGS, 0, 0, payload))
    }

    /// The next frame.
    pub(crate) fn frame(&mut self) -> Result<Frame, Broken> {
        loop {
            if let Some((frame, count)) = Frame::read(&self.rest) {
                self.rest.drain(..count);
                return Ok(frame);
            }
            let more = self.visit.wire().some()?;
            if more.is_empty() {
                return Err(Broken::Ended);
            }
            self.rest.extend(more);
        }
    }

    /// Takes the next frame, and does what a server does with it.
    pub(crate) fn take(&mut self) -> Result<Frame, Broken> {
        let frame = self.frame()?;
        match frame.kind {
            SETTINGS if frame.flags == 0 => {
                for setting in frame.payload.chunks(6) {
                    let value = u32::from_be_bytes(setting[2..].try_into().unwrap());
                    if setting[..2] == FIRST_WINDOW.to_be_bytes() {
                        self.first_window = i64::from(value);
                    }
                }
                self.send(&Frame::new(SETTINGS, 1, 0, ""))?;
            }
            PING if frame.flags == 0 => {
                self.pings += 1;
                if self.pongs {
                    self.send(&Frame::new(PING, 1, 0, &frame.payload))?;
                }
            }
            WINDOW_UPDATE => {
                let more = i64::from(frame.number());
                match frame.id {
                    0 => self.window += more,
                    id => *self.windows.entry(id).or_insert(self.first_window) += more,
                }
            }
            GOAWAY => self.left = Some(frame.number()),
            HEADERS | DATA | RST_STREAM => self.takes_part(&frame)?,
            _ => {}
        }
        Ok(frame)
    }

    /// Takes a part of a request.
    fn takes_part(&mut self, frame: &Frame) -> Result<(), Broken> {
        let asked = self.open.entry(frame.id).or_default();
        asked.id = frame.id;
        match frame.kind {
            HEADERS if asked.fields.is_empty() => {
                asked.fields = fields(&frame.payload);
                if let Some(wrong) = wrong_in(&asked.fields) {
                    return Err(Broken::Wrong(format!("{wrong} in {:?}", asked.fields)));
                }
            }
            HEADERS => asked.trailers = fields(&frame.payload),
            DATA => asked.body.extend_from_slice(&frame.payload),
            _ => asked.reset = Some(frame.number()),
        }
        asked.is_whole |= frame.ends();
        if frame.kind == DATA && self.gives_room && !frame.payload.is_empty() {
            let count = (frame.payload.len() as u32).to_be_bytes();
            for id in [0, frame.id] {
                self.send(&Frame::new(WINDOW_UPDATE, 0, id, count))?;
            }
        }
        Ok(())
    }

    /// Reads until a request is whole.
    pub(crate) fn request(&mut self) -> Result<Asked, Broken> {
        loop {
            let whole = self.open.values().find(|asked| asked.is_whole).map(|asked| asked.id);
            if let Some(asked) = whole.and_then(|id| self.open.remove(&id)) {
                return Ok(asked);
            }
            self.take()?;
        }
    }

    /// Reads until the head of a request has come that none had before; leaves the rest.
    pub(crate) fn next_head(&mut self) -> Result<Asked, Broken> {
        loop {
            let frame = self.take()?;
            if frame.kind == HEADERS
                && let Some(asked) = self.open.get(&frame.id)
            {
                return Ok(asked.clone());
            }
        }
    }

    /// Reads until a stream is reset; the code.
    pub(crate) fn until_reset(&mut self, id: u32) -> Result<u32, Broken> {
        loop {
            if let Some(code) = self.open.get(&id).and_then(|asked| asked.reset) {
                return Ok(code);
            }
            self.take()?;
        }
    }

    /// Reads until the connection ends.
    pub(crate) fn until_end(&mut self) -> Result<(), Broken> {
        loop {
            self.take()?;
        }
    }

    /// Sends a head of an answer.
    pub(crate) fn head(
        &mut self,
        id: u32,
        status: &str,
        more: &str,
        ends: bool,
    ) -> Result<(), Broken> {
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        let block = block(&format!(":status: {status}\n{more}"));
        self.send(&Frame::new(HEADERS, flags, id, block))
    }

    /// How much may be sent on a stream now.
    pub(crate) fn room(&self, id: u32) -> usize {
        let of_stream = self.windows.get(&id).copied().unwrap_or(self.first_window);
        of_stream.min(self.window).max(0) as usize
    }

    /// Sends a part of a body, while the windows allow it.
    pub(crate) fn body(&mut self, id: u32, mut rest: &[u8], ends: bool) -> Result<(), Broken> {
        if rest.is_empty() && ends {
            return self.send(&Frame::new(DATA, END_STREAM, id, ""));
        }
        while !rest.is_empty() {
            let room = self.room(id).min(16_384);
            if room == 0 {
                self.take()?;
                continue;
            }
            let (piece, behind) = rest.split_at(room.min(rest.len()));
            let flags = if ends && behind.is_empty() { END_STREAM } else { 0 };
            self.send(&Frame::new(DATA, flags, id, piece))?;
            self.window -= piece.len() as i64;
            *self.windows.entry(id).or_insert(self.first_window) -= piece.len() as i64;
            rest = behind;
        }
        Ok(())
    }

    pub(crate) fn trailers(&mut self, id: u32, of: &[(String, String)]) -> Result<(), Broken> {
        let lines: String = of.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        self.send(&Frame::new(HEADERS, END_HEADERS | END_STREAM, id, block(&lines)))
    }

    /// Sends a whole answer.
    pub(crate) fn answers(&mut self, id: u32, more: &str, body: &[u8]) -> Result<(), Broken> {
        self.head(id, "200", more, false)?;
        self.body(id, body, true)
    }

    pub(crate) fn resets(&mut self, id: u32, code: u32) -> Result<(), Broken> {
        self.send(&Frame::new(RST_STREAM, 0, id, code.to_be_bytes()))
    }

    /// Says that no request behind this one has been processed.
    pub(crate) fn leaves(&mut self, last: u32, code: u32) -> Result<(), Broken> {
        let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
        self.send(&Frame::new(GOAWAY, 0, 0, payload))
    }
}

/// What the head of a request must not have (RFC 9113 §8.2.2, §8.3.1).
fn wrong_in(fields: &[(String, String)]) -> Option<&'static str> {
    const OF_CONNECTION: [&str; 5] =
        ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
    let named = |name: &str| fields.iter().filter(|(field, _)| field == name).count();
    let behind = fields.iter().skip_while(|(name, _)| name.starts_with(':'));
    let is_pseudo = |(name, _): &(String, String)| name.starts_with(':');
    if [":method", ":scheme", ":path", ":authority"].iter().any(|name| named(name) != 1) {
        Some("not each pseudo-field once")
    } else if behind.clone().any(is_pseudo) {
        Some("a pseudo-field behind others")
    } else if OF_CONNECTION.iter().any(|name| named(name) > 0) || named("host") > 0 {
        Some("a field of HTTP/1")
    } else if fields.iter().any(|(name, value)| name == "te" && value != "trailers") {
        Some("a coding in te")
    } else {
        None
    }
}
