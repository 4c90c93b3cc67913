//! One client connection of HTTP/2: its input and output, and the tasks of its streams.
//!
//! Reading and writing are one task, in which neither waits for the other; each stream is a task of
//! its own, so that what one of them breaks ends with it. The connection is idle, and makes room
//! for others, while it has no stream. It ends when the worker drains, as soon as its streams have;
//! the peer is told before (RFC 9113 §6.8).
//!
//! What a client sends is taken in turns of the core, and what it asks for begins in turns that all
//! connections share, so that nobody waits for one who sends much. What it does for nothing is
//! added up for its address when the connection ends.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
};

use super::{connection::Ending, panic_net::catching};
use crate::base::moment::Deadline;
use crate::exchange::run;
use crate::net::{
    buffer::Buffer,
    clock::Clock,
    deadlines::{Ended, Rest, Unmet},
    stream::{InVain, Stream},
    turns::next_turn,
};
use crate::observe::reports::Handshake;
use crate::plan::ListenerTimeouts;
use crate::policy::penalties::ABUSE;
use crate::proto::{
    Client,
    h2::{Abuse, Asking, Conn, PREFACE, Reason},
    peer::Peer,
};
use crate::shared::counters::Counter;
use crate::worker::Worker;

/// What is said of a client that comes back after too much of that.
const REFUSED: &str = "it comes back, so that its connections are refused for ten seconds";

/// A connection that is being served.
struct Link<'a> {
    worker: &'a Rc<Worker>,
    stream: &'a Stream,
    peer: &'a Rc<Peer>,
    conn: Rc<Conn>,
    /// Whether it is one of those that rest.
    rests: Cell<bool>,
    /// Whether a part of a frame or of a block has come, whose rest has its time.
    in_part: Cell<bool>,
}

/// Serves a connection whose client speaks HTTP/2; `come` has come already.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    stream: &Stream,
    peer: &Rc<Peer>,
    come: Vec<u8>,
) -> Ending {
    if worker.refuses(peer.address()) {
        // It came before that was known.
        worker.count(Counter::RejectedAbuse);
        return Ending::Reset;
    }
    let (buffers, deadlines) = (Rc::clone(&worker.buffers), Rc::clone(&worker.deadlines));
    let places = worker.places_of(peer);
    let conn = Conn::new(buffers, deadlines, (&worker.head_limits(), places));
    stream.watched().is_multiplexed();
    let (rests, in_part) = (Cell::new(true), Cell::new(true));
    let link = Link { worker, stream, peer, conn, rests, in_part };
    let ending = link.serves(come).await;
    link.was_wasted(link.conn.waste());
    // Boxed, as it is rare.
    Box::pin(link.gives_up()).await;
    link.conn.broke();
    ending
}

impl Link<'_> {
    /// Reads and writes until either has ended.
    async fn serves(&self, come: Vec<u8>) -> Ending {
        let (mut reading, mut writing) = (pin!(self.reads(come)), pin!(self.writes()));
        let (mut ending, mut giving_up, mut has_given_up) = (None, None, false);
        poll_fn(|cx| {
            if ending.is_none()
                && let Poll::Ready(why) = reading.as_mut().poll(cx)
            {
                ending = Some(why);
            }
            if ending.is_none() && self.look() {
                ending = Some(Ending::Close);
            }
            if ending.is_some() {
                // What there is to send is sent, and no more.
                self.conn.end(Reason::NO_ERROR);
                if !has_given_up {
                    let giving_up = giving_up.get_or_insert_with(|| Box::pin(self.gives_up()));
                    has_given_up = giving_up.as_mut().poll(cx).is_ready();
                }
            }
            writing.as_mut().poll(cx).map(|written| {
                if written.is_err() {
                    // It takes no answers.
                    self.conn.has_left();
                    self.conn.end(Reason::NO_ERROR);
                    return Ending::Close;
                }
                ending.unwrap_or(Ending::Close)
            })
        })
        .await
    }

    /// Gives up what is under way, in line with what other connections do: each stream may end a
    /// connection to a backend.
    async fn gives_up(&self) {
        let mut comer = self.worker.endings.comer();
        while self.conn.has_streams() {
            comer.comes_on().await;
            self.conn.gives_up();
        }
    }

    /// Looks at what has become of the connection; whether it ends now.
    fn look(&self) -> bool {
        let leaves = self.worker.is_draining() || !self.worker.serves(self.peer.listener);
        if leaves {
            self.conn.warn();
        }
        if !self.conn.is_idle() {
            self.is_busy();
            return false;
        }
        if leaves || self.conn.is_closed() {
            return true;
        }
        if !self.in_part.get() && !self.rests.replace(true) {
            self.conn.rest();
            let clock = &self.worker.clock;
            let until = clock.after(self.timeouts().idle);
            self.stream.watched().rests(Rest::Idle, clock.tick(), until);
        }
        false
    }

    fn is_busy(&self) {
        if self.rests.replace(false) {
            self.stream.watched().busy();
            self.stream.watched().read_by(Deadline::NEVER);
        }
    }

    fn timeouts(&self) -> ListenerTimeouts {
        self.worker.in_force().timeouts(self.peer.listener)
    }

    /// Reads until the connection ends, and hands what comes to its state. Returns how it ends: a
    /// client that broke a rule is read until it has been told, and no longer.
    async fn reads(&self, mut rest: Vec<u8>) -> Ending {
        let (mut has_preface, mut in_vain) = (false, InVain::default());
        let mut looks_first = !rest.is_empty();
        loop {
            if !looks_first {
                // While the client does not take what it makes us send, its task is woken for that.
                poll_fn(|_| if self.conn.may_read() { Poll::Ready(()) } else { Poll::Pending })
                    .await;
                if let Err(unmet) = self.stream.readable().await {
                    if matches!(unmet, Unmet::Broken(_) | Unmet::Ended(Ended::ClientLeft)) {
                        self.conn.has_left();
                    }
                    return Ending::Close;
                }
            }
            let Ok(mut buffer) = self.worker.buffers.take() else { return Ending::Reset };
            restore(&mut rest, &mut buffer);
            if !std::mem::take(&mut looks_first) {
                match self.stream.recv_now(&mut buffer) {
                    Ok(1..) => in_vain = InVain::default(),
                    Err(Unmet::NotNow) => {
                        self.keep(buffer, &mut rest);
                        in_vain.pause().await;
                        continue;
                    }
                    Ok(_) | Err(_) => {
                        self.conn.has_left();
                        self.worker.buffers.give(buffer);
                        return Ending::Close;
                    }
                }
            }
            if !has_preface {
                match buffer.bytes().get(..PREFACE.len()) {
                    Some(preface) if preface == PREFACE => {
                        buffer.consume(PREFACE.len());
                        has_preface = true;
                        self.in_part.set(false);
                        self.is_busy();
                    }
                    None if PREFACE.starts_with(buffer.bytes()) => {}
                    Some(_) | None => {
                        self.worker.buffers.give(buffer);
                        self.conn.end(Reason::PROTOCOL);
                        return Ending::Close;
                    }
                }
            }
            let fed = if has_preface { self.feed(&mut buffer).await } else { Ok(()) };
            self.keep(buffer, &mut rest);
            if let Err(reason) = fed {
                self.conn.end(reason);
                return Ending::Close;
            }
        }
    }

    /// Hands the whole frames of a buffer to the connection's state, and begins what they ask for.
    async fn feed(&self, buffer: &mut Buffer) -> Result<(), Reason> {
        let had = buffer.len();
        loop {
            self.take(buffer)?;
            self.begin().await;
            if !self.conn.has_frame(buffer.bytes()) {
                break;
            }
            next_turn().await;
        }
        self.has_come(buffer.bytes(), buffer.len() < had);
        Ok(())
    }

    /// Hands frames to the connection's state, as many as one turn may have.
    fn take(&self, buffer: &mut Buffer) -> Result<(), Reason> {
        let worker = self.worker;
        let began = worker.logs.is_on(self.peer.listener).then(Clock::moment);
        let at = (worker.clock.tick(), began);
        let (used, result) = self.conn.receive(buffer.bytes(), &worker.head_limits(), at);
        buffer.consume(used);
        let malformed = u64::from(self.conn.take_malformed());
        worker.counters.add(Counter::Http2Malformed, malformed);
        if let Some(abuse) = self.conn.abuse() {
            self.was_abused(abuse);
        }
        result
    }

    /// Begins the requests that have come, in line with those of other connections.
    async fn begin(&self) {
        let worker = self.worker;
        let mut comer = worker.beginnings.comer();
        while self.conn.has_new() {
            comer.comes_on().await;
            if let Some(asking) = self.conn.next(self.peer)
                && let Err(asking) = worker.desks.hand(asking)
            {
                catching(Rc::clone(worker), exchanges(Rc::clone(worker), asking));
            }
        }
    }

    /// Its client has had so much begun for nothing.
    fn was_wasted(&self, amount: u32) {
        if amount > 0 && self.worker.penalise(self.peer, amount) {
            self.is_refused();
        }
    }

    /// Connections of its client are refused from now on.
    #[cold]
    fn is_refused(&self) {
        let (listener, client) = (self.peer.listener, self.peer.ip());
        let what = || Handshake { listener, client, why: REFUSED, detail: None };
        self.worker.events.abuse(self.worker.clock.tick(), what);
    }

    /// The connection ends, as its client does something too often.
    #[cold]
    fn was_abused(&self, abuse: Abuse) {
        self.worker.count(match abuse {
            Abuse::Resets => Counter::Http2Resets,
            Abuse::Provoked => Counter::Http2Provoked,
            Abuse::Heads => Counter::Http2Heads,
            Abuse::Settings => Counter::Http2Settings,
            Abuse::Pings => Counter::Http2Pings,
            Abuse::Priorities => Counter::Http2Priorities,
            Abuse::WindowUpdates => Counter::Http2WindowUpdates,
            Abuse::EmptyData => Counter::Http2EmptyData,
            Abuse::Useless => Counter::Http2Useless,
        });
        let (listener, client) = (self.peer.listener, self.peer.ip());
        let what = || Handshake { listener, client, why: abuse.sentence(), detail: None };
        self.worker.events.abuse(self.worker.clock.tick(), what);
        self.was_wasted(ABUSE);
    }

    /// Sets the time for the rest of what has come in part: for a head from its first byte on, for
    /// a body from its last piece on.
    fn has_come(&self, rest: &[u8], moved: bool) {
        let (in_block, was) = (self.conn.is_in_block(), self.in_part.get());
        self.in_part.set(in_block || !rest.is_empty());
        if !self.in_part.get() {
            if was {
                self.stream.watched().read_by(Deadline::NEVER);
                self.rests.set(false);
            }
        } else if !was || (moved && !in_block) {
            let timeouts = self.timeouts();
            let of_body = !in_block && rest.get(3) == Some(&0);
            let time = if of_body { timeouts.client_body } else { timeouts.client_header };
            self.is_busy();
            self.worker.clock.renew();
            self.stream.watched().read_by(self.worker.clock.after(time));
        }
    }

    /// Keeps what was not taken, in no more memory than it needs.
    fn keep(&self, buffer: Buffer, rest: &mut Vec<u8>) {
        if !buffer.is_empty() {
            rest.extend_from_slice(buffer.bytes());
        }
        self.worker.buffers.give(buffer);
    }

    /// Sends what the connection's state has to send, until that was the last.
    async fn writes(&self) -> Result<(), Unmet> {
        let Worker { clock, buffers, .. } = &**self.worker;
        while let Some(buffer) = self.conn.output().await {
            let (count, time) = (buffer.len(), self.timeouts().client_write);
            let sent = self.stream.send_buffer(buffer, count, || clock.after(time)).await?;
            buffers.give(sent);
        }
        Ok(())
    }
}

/// Puts what was kept where a read goes on behind it.
fn restore(rest: &mut Vec<u8>, buffer: &mut Buffer) {
    let count = rest.len().min(buffer.room_len());
    if let (Some(room), Some(bytes)) = (buffer.room().get_mut(..count), rest.get(..count)) {
        room.copy_from_slice(bytes);
    }
    buffer.filled(count);
    *rest = Vec::new();
}

/// Streams, one after the other.
async fn exchanges(worker: Rc<Worker>, first: Asking) {
    let (desk, mut next) = (Rc::default(), Some(first));
    while let Some(asking) = next {
        exchange(&worker, asking).await;
        next = worker.desks.next(&desk).await;
    }
}

/// One stream: a request and its answer.
async fn exchange(worker: &Rc<Worker>, mut asking: Asking) {
    let mut scratch = worker.scratch();
    let head = asking.take_head(&mut scratch.request);
    let mut client = Client::H2(asking);
    match head {
        Ok(bytes) => {
            scratch.record.request_bytes = bytes;
            run::run(worker, &mut client, scratch).await;
        }
        Err(fault) => {
            run::refuse(worker, &mut client, scratch, fault).await;
        }
    }
}
