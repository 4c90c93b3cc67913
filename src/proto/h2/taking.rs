//! Frames as they are taken: which may come when, and what each changes (RFC 9113 §5, §6).
//!
//! An error concerns the whole connection; what concerns one stream resets it here.

use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::Rc,
};

use super::{
    answers::was_reset,
    conn::{BLOCK_FRAMES_MAX, Block, Conn, Leaving, REQUESTS_MAX, STREAMS_MAX, State, WINDOW},
    frame::{FrameHead, HEAD_BYTES, Reason, WINDOW_MAX, flag, kind, number, setting},
    guard::Abuse,
    request::{self, NoHead},
    sending::give_turn,
    spare,
    stream::{Came, Priority, Stream, Turn},
};
use crate::base::moment::{Micros, Moment};
use crate::http::{
    fault::{Cause, Side},
    framing::{self, BodyLength},
    parse::HeadLimits,
};
use crate::net::deadlines::Watch;

/// Requests for nothing that a head counts as which is too large: it is refused, but read to its
/// end.
const LARGE_HEAD: u32 = 8;

/// What a frame asks for beside changing the state.
pub(super) type Taken = Result<(), Reason>;

impl Conn {
    pub(super) fn take(
        self: &Rc<Conn>,
        head: FrameHead,
        payload: &[u8],
        limits: &HeadLimits,
        began: Option<Moment>,
    ) -> Taken {
        let state = &mut *self.state.borrow_mut();
        if state.leaving == Leaving::Over {
            return Ok(());
        }
        if !state.has_settings && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(Reason::PROTOCOL);
        }
        if state.block.is_some() && head.kind != kind::CONTINUATION {
            return Err(Reason::PROTOCOL);
        }
        self.counts(state, head)?;
        match head.kind {
            kind::DATA => self.data(state, head, payload),
            kind::HEADERS => {
                let block = headers(head, payload)?;
                self.headers(state, head, block, limits, began)
            }
            kind::CONTINUATION => self.continuation(state, head, payload, limits, began),
            kind::PRIORITY if head.id == 0 => Err(Reason::PROTOCOL),
            kind::PRIORITY if payload.len() != 5 => {
                self.provoked(state, head.id, Reason::FRAME_SIZE)
            }
            kind::RST_STREAM => self.rst_stream(state, head, payload),
            kind::SETTINGS => self.settings(state, head, payload),
            kind::PUSH_PROMISE => Err(Reason::PROTOCOL),
            kind::PING => self.ping(state, head, payload),
            kind::GOAWAY if head.id != 0 => Err(Reason::PROTOCOL),
            kind::GOAWAY if payload.len() < 8 => Err(Reason::FRAME_SIZE),
            kind::GOAWAY => self.goaway(state, payload),
            kind::WINDOW_UPDATE => self.window_update(state, head, payload),
            kind::PRIORITY_UPDATE => priority_update(state, head, payload),
            // RFC 9113 §5.5: what is unknown means nothing.
            _ => Ok(()),
        }
    }

    /// Counts a frame of a kind that costs us more than the peer, if there are many.
    #[inline]
    fn counts(&self, state: &mut State, head: FrameHead) -> Taken {
        let what = match head.kind {
            kind::DATA if head.len == 0 && !head.has(flag::END_STREAM) => Abuse::EmptyData,
            kind::DATA | kind::HEADERS | kind::CONTINUATION | kind::RST_STREAM => return Ok(()),
            kind::SETTINGS if head.has(flag::ACK) => Abuse::Useless,
            kind::SETTINGS => Abuse::Settings,
            kind::PING => Abuse::Pings,
            kind::PRIORITY | kind::PRIORITY_UPDATE => Abuse::Priorities,
            kind::WINDOW_UPDATE => Abuse::WindowUpdates,
            _ => Abuse::Useless,
        };
        self.notes(state, what)
    }

    /// Something of no use to anybody comes once more.
    pub(super) fn notes(&self, state: &mut State, what: Abuse) -> Taken {
        // A backend is trusted that far; what it makes us hold is bounded all the same.
        if self.asked.is_none() && state.guard.notes(what) {
            self.abuse.set(Some(what));
            return Err(Reason::ENHANCE_YOUR_CALM);
        }
        Ok(())
    }

    fn data(&self, state: &mut State, head: FrameHead, payload: &[u8]) -> Taken {
        if head.id == 0 || state.is_unused(head.id) {
            return Err(Reason::PROTOCOL);
        }
        let body = unpadded(head, payload)?;
        let whole = payload.len() as i64;
        state.window -= whole;
        if state.window < 0 {
            return Err(Reason::FLOW_CONTROL);
        }
        let Some(stream) = state.find(head.id) else {
            // It came for a stream that has ended here.
            self.said(state, payload.len());
            return self.notes(state, Abuse::Useless);
        };
        if stream.has_ended.get() {
            self.said(state, payload.len());
            return self.provoked(state, head.id, Reason::STREAM_CLOSED);
        }
        if stream.answers.get().is_some_and(|answers| !answers.has_final.get()) {
            // RFC 9113 §8.1: a body is behind its head.
            self.said(state, payload.len());
            return self.provoked(state, head.id, Reason::PROTOCOL);
        }
        stream.window.set(stream.window.get() - whole);
        if stream.window.get() < 0 {
            self.said(state, payload.len());
            return self.provoked(state, head.id, Reason::FLOW_CONTROL);
        }
        let left = stream.announced.get().map(|left| left.checked_sub(body.len() as u64));
        if left == Some(None) {
            self.said(state, payload.len());
            return self.provoked(state, head.id, Reason::PROTOCOL);
        }
        stream.announced.set(left.flatten());
        if !body.is_empty() {
            let came = &mut *stream.came.borrow_mut();
            if came.bytes.capacity() == 0 {
                came.bytes = spare::body();
            }
            came.bytes.extend_from_slice(body);
        }
        // Padding is taken at once.
        let padding = payload.len() - body.len();
        self.said(state, padding);
        stream.unsaid.set(stream.unsaid.get() + padding as u32);
        if head.has(flag::END_STREAM) {
            self.ended(state, &stream)?;
        }
        stream.wake();
        Ok(())
    }

    /// The peer has ended its half of a stream.
    pub(super) fn ended(&self, state: &mut State, stream: &Rc<Stream>) -> Taken {
        if stream.announced.get().is_some_and(|left| left > 0) {
            return self.provoked(state, stream.id.get(), Reason::PROTOCOL);
        }
        stream.has_ended.set(true);
        if stream.is_sent.get() {
            state.answered += 1;
            state.forget(stream.id.get());
        }
        Ok(())
    }

    /// Ends a stream for a fault of the peer's.
    pub(super) fn provoked(&self, state: &mut State, id: u32, reason: Reason) -> Taken {
        if let Some(stream) = state.find(id) {
            state.wasted += u32::from(!stream.is_sent.get());
            stream.is_reset(Side::Proxy, reason);
            stream.fails(reason, Cause::ResponseRefused);
        }
        self.reset(state, id, reason);
        self.notes(state, Abuse::Provoked)
    }

    fn headers(
        self: &Rc<Conn>,
        state: &mut State,
        head: FrameHead,
        block: &[u8],
        limits: &HeadLimits,
        began: Option<Moment>,
    ) -> Taken {
        if head.id.is_multiple_of(2) {
            return Err(Reason::PROTOCOL);
        }
        let ends = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.whole_block(state, (head.id, ends), block, limits, began);
        }
        let bytes = block.to_vec();
        state.block = Some(Block { id: head.id, ends, bytes, frames: 1 });
        Ok(())
    }

    fn continuation(
        self: &Rc<Conn>,
        state: &mut State,
        head: FrameHead,
        payload: &[u8],
        limits: &HeadLimits,
        began: Option<Moment>,
    ) -> Taken {
        let Some(block) = state.block.as_mut().filter(|block| block.id == head.id) else {
            return Err(Reason::PROTOCOL);
        };
        block.frames += 1;
        let length = block.bytes.len() + payload.len();
        if block.frames > BLOCK_FRAMES_MAX || length > 2 * limits.head_bytes_max {
            self.abuse.set(Some(Abuse::Heads));
            return Err(Reason::ENHANCE_YOUR_CALM);
        }
        block.bytes.extend_from_slice(payload);
        if !head.has(flag::END_HEADERS) {
            return Ok(());
        }
        let Some(Block { id, ends, bytes, .. }) = state.block.take() else { return Ok(()) };
        self.whole_block(state, (id, ends), &bytes, limits, began)
    }

    /// All of a block has come: a request, or trailers.
    fn whole_block(
        self: &Rc<Conn>,
        state: &mut State,
        (id, ends): (u32, bool),
        block: &[u8],
        limits: &HeadLimits,
        began: Option<Moment>,
    ) -> Taken {
        if self.asked.is_some() {
            return self.answer(state, (id, ends), block, limits);
        }
        if id <= state.last {
            return self.trailers(state, (id, ends), block, limits);
        }
        state.last = id;
        if id / 2 >= REQUESTS_MAX {
            self.warn_in(state);
        }
        let mut head = spare::head();
        let read = spare::with_room(|room| {
            request::request(&mut state.decoder, block, limits, (&mut head, room))
        });
        let length = match read {
            Err(NoHead::Unreadable) => return Err(Reason::COMPRESSION),
            Ok(_) => framing::request(&head).map_err(|_| NoHead::Malformed),
            Err(no_head) => Err(no_head),
        };
        if matches!(state.leaving, Leaving::Closed | Leaving::Over) {
            // RFC 9113 §6.8: the peer learns from the number in GOAWAY that it was not served.
            return Ok(());
        }
        let announced = match length {
            Ok(BodyLength::Fixed(bytes)) => Some(bytes),
            Ok(BodyLength::None | BodyLength::Chunked | BodyLength::UntilClose) | Err(_) => None,
        };
        let malformed =
            length == Err(NoHead::Malformed) || (ends && announced.is_some_and(|bytes| bytes > 0));
        if malformed {
            self.malformed.set(self.malformed.get() + 1);
            self.send_reset(state, id, Reason::PROTOCOL);
            return self.notes(state, Abuse::Provoked);
        }
        if length.is_err() {
            state.wasted += LARGE_HEAD;
            self.notes(state, Abuse::Heads)?;
        }
        if state.streams.len() >= STREAMS_MAX || !self.runs() {
            self.send_reset(state, id, Reason::REFUSED);
            return self.notes(state, Abuse::Provoked);
        }
        let priority = read.ok().and_then(|says| says).unwrap_or_default();
        let head_bytes = (HEAD_BYTES + block.len()) as u64;
        let stream = Rc::new(Stream {
            head: RefCell::new(Some(length.map(|_| head))),
            head_bytes,
            began,
            announced: Cell::new(announced),
            has_ended: Cell::new(ends),
            priority: Cell::new(priority),
            ..self.stream(id, Watch::Stream, state.first_window)
        });
        state.streams.push(Rc::clone(&stream));
        state.new.push_back(stream);
        Ok(())
    }

    /// A stream of which nothing is known but its number, and how much the peer takes.
    pub(super) fn stream(self: &Rc<Conn>, id: u32, watch: Watch, send_window: i64) -> Stream {
        Stream {
            id: Cell::new(id),
            conn: Rc::clone(self),
            watched: self.deadlines.watch(-1, watch),
            head: RefCell::new(None),
            head_bytes: 0,
            began: None,
            came: RefCell::new(Came::default()),
            announced: Cell::new(None),
            has_ended: Cell::new(false),
            window: Cell::new(WINDOW),
            unsaid: Cell::new(0),
            send_window: Cell::new(send_window),
            is_begun: Cell::new(false),
            is_sent: Cell::new(false),
            over: Cell::new(None),
            reset: Cell::new(None),
            out: Cell::new(0),
            turn: Cell::new(Turn::None),
            served: Cell::new(0),
            priority: Cell::new(Priority::default()),
            timed: Cell::new(false),
            stalled: Cell::new(Micros(0)),
            answers: OnceCell::new(),
        }
    }

    pub(super) fn trailers(
        &self,
        state: &mut State,
        (id, ends): (u32, bool),
        block: &[u8],
        limits: &HeadLimits,
    ) -> Taken {
        let trailers = match request::trailers(&mut state.decoder, block, limits) {
            Err(NoHead::Unreadable) => return Err(Reason::COMPRESSION),
            trailers => trailers,
        };
        // They may come for a stream that has ended here.
        let Some(stream) = state.find(id) else { return self.notes(state, Abuse::Useless) };
        match trailers {
            // RFC 9113 §8.1: trailers end the stream.
            _ if stream.has_ended.get() => self.provoked(state, id, Reason::STREAM_CLOSED),
            Ok(trailers) if ends => {
                if !trailers.fields.is_empty() {
                    stream.came.borrow_mut().trailers = Some(Box::new(trailers));
                }
                let ended = self.ended(state, &stream);
                stream.wake();
                ended
            }
            Ok(_) | Err(_) => self.provoked(state, id, Reason::PROTOCOL),
        }
    }

    fn rst_stream(&self, state: &mut State, head: FrameHead, payload: &[u8]) -> Taken {
        if head.id == 0 || state.is_unused(head.id) {
            return Err(Reason::PROTOCOL);
        }
        let code = number(payload).filter(|_| payload.len() == 4).ok_or(Reason::FRAME_SIZE)?;
        if let Some(stream) = state.forget(head.id) {
            state.wasted += u32::from(stream.is_waste());
            let by = if self.asked.is_some() { Side::Backend } else { Side::Client };
            stream.is_reset(by, Reason(code));
            stream.fails(Reason(code), was_reset(Reason(code)));
            self.leaves_turn(state, &stream);
            return self.notes(state, Abuse::Resets);
        }
        self.notes(state, Abuse::Useless)
    }

    fn settings(&self, state: &mut State, head: FrameHead, payload: &[u8]) -> Taken {
        if head.id != 0 {
            return Err(Reason::PROTOCOL);
        }
        if head.has(flag::ACK) {
            return if payload.is_empty() { Ok(()) } else { Err(Reason::FRAME_SIZE) };
        }
        if !payload.len().is_multiple_of(6) {
            return Err(Reason::FRAME_SIZE);
        }
        state.has_settings = true;
        if let Some(asked) = &self.asked {
            asked.changed();
        }
        for setting in payload.chunks_exact(6) {
            let [a, b, rest @ ..] = setting else { continue };
            let value = number(rest).unwrap_or_default();
            match u16::from_be_bytes([*a, *b]) {
                setting::ENABLE_PUSH if value > 1 => return Err(Reason::PROTOCOL),
                setting::INITIAL_WINDOW => set_first_window(state, i64::from(value))?,
                setting::FRAME_MAX if !(16_384..=0xff_ffff).contains(&value) => {
                    return Err(Reason::PROTOCOL);
                }
                name => self.is_told(name, value),
            }
        }
        let ack = FrameHead { len: 0, kind: kind::SETTINGS, flags: flag::ACK, id: 0 };
        self.send(state, [&ack.bytes(), &[]]);
        Ok(())
    }

    fn ping(&self, state: &mut State, head: FrameHead, payload: &[u8]) -> Taken {
        if head.id != 0 {
            return Err(Reason::PROTOCOL);
        }
        if payload.len() != 8 {
            return Err(Reason::FRAME_SIZE);
        }
        if head.has(flag::ACK) {
            if let Some(asked) = &self.asked {
                asked.changed();
                return Ok(());
            }
            // What the peer sent before it heard of our end has come.
            if state.leaving == Leaving::Told {
                self.close(state, Reason::NO_ERROR);
            }
            return Ok(());
        }
        self.send(state, [&FrameHead { flags: flag::ACK, ..head }.bytes(), payload]);
        Ok(())
    }

    fn window_update(&self, state: &mut State, head: FrameHead, payload: &[u8]) -> Taken {
        if payload.len() != 4 {
            return Err(Reason::FRAME_SIZE);
        }
        let more = i64::from(number(payload).unwrap_or_default() & 0x7fff_ffff);
        if head.id == 0 {
            state.send_window += more;
            if more == 0 {
                return Err(Reason::PROTOCOL);
            }
            if state.send_window > WINDOW_MAX {
                return Err(Reason::FLOW_CONTROL);
            }
            give_turn(state);
            return Ok(());
        }
        if state.is_unused(head.id) {
            return Err(Reason::PROTOCOL);
        }
        let Some(stream) = state.find(head.id) else { return Ok(()) };
        let window = stream.send_window.get() + more;
        if more == 0 {
            return self.provoked(state, head.id, Reason::PROTOCOL);
        }
        if window > WINDOW_MAX {
            return self.provoked(state, head.id, Reason::FLOW_CONTROL);
        }
        stream.send_window.set(window);
        stream.wake();
        Ok(())
    }
}

/// The first window of the peer's streams changes, and those of the present ones by as much (RFC
/// 9113 §6.9.2).
fn set_first_window(state: &mut State, window: i64) -> Taken {
    if window > WINDOW_MAX {
        return Err(Reason::FLOW_CONTROL);
    }
    let change = window - state.first_window;
    state.first_window = window;
    for stream in &state.streams {
        let window = stream.send_window.get() + change;
        if window > WINDOW_MAX {
            return Err(Reason::FLOW_CONTROL);
        }
        stream.send_window.set(window);
        stream.wake();
    }
    Ok(())
}

/// RFC 9218 §7.1.
fn priority_update(state: &mut State, head: FrameHead, payload: &[u8]) -> Taken {
    let Some((id, value)) = payload.split_first_chunk::<4>() else {
        return Err(Reason::FRAME_SIZE);
    };
    let id = u32::from_be_bytes(*id) & 0x7fff_ffff;
    if head.id != 0 || id == 0 {
        return Err(Reason::PROTOCOL);
    }
    if let Some(stream) = state.find(id) {
        stream.priority.set(Priority::of(value));
    }
    Ok(())
}

/// A payload without its padding (RFC 9113 §6.1).
fn unpadded(head: FrameHead, payload: &[u8]) -> Result<&[u8], Reason> {
    if !head.has(flag::PADDED) {
        return Ok(payload);
    }
    let (count, rest) = payload.split_first().ok_or(Reason::FRAME_SIZE)?;
    let left = rest.len().checked_sub(usize::from(*count)).ok_or(Reason::PROTOCOL)?;
    Ok(rest.get(..left).unwrap_or_default())
}

/// The block of HEADERS, without padding and the priority of RFC 7540, which means nothing.
fn headers(head: FrameHead, payload: &[u8]) -> Result<&[u8], Reason> {
    let rest = unpadded(head, payload)?;
    if !head.has(flag::PRIORITY) {
        return Ok(rest);
    }
    rest.get(5..).ok_or(Reason::FRAME_SIZE)
}
