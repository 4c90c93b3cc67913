//! One client connection, from accept to close: exchange after exchange.
//!
//! Thousands of these are idle at any moment, so a task keeps little while it waits: the stream,
//! the peer, and nothing else. Everything a request needs is in one boxed future per burst of
//! requests, which outlasts the burst only for a client that asks again at once; the buffer is
//! taken when there is something to read.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    time::Duration,
};

use super::{
    http2, level,
    linger::{Until, linger},
    panic_net::catching,
    peek, proxied, secure,
};
use crate::base::moment::{Deadline, Moment};
use crate::exchange::{
    Reuse, run,
    tcp::{self, Arrived},
};
use crate::http::fault::{Cause, Fault};
use crate::net::{
    buffer::Buffer,
    client_hello::ClientHello,
    clock::Clock,
    deadlines::{Ended, Rest, Unmet},
    fd::{self, Half},
    stream::{InVain, Stream},
    tls::Front,
    turns::next_turn,
};
use crate::plan::{ListenerId, ListenerTimeouts, Mode};
use crate::proto::{
    Client,
    h1::{self, HeadRead},
    h2::PREFACE,
    peer::{Peer, PeerAddress, Proxied, Secure, Speaks},
};
use crate::shared::counters::Counter;
use crate::worker::{Admitted, RestingClient, Worker};

/// What is known of a connection when it is accepted.
pub(super) struct Arrival {
    pub(super) listener: ListenerId,
    /// Where it comes from, according to the kernel.
    pub(super) from: PeerAddress,
    /// The port that it connected to.
    pub(super) port: u16,
    /// What backends are told besides, where a pool tells them.
    pub(super) proxied: Option<Box<Proxied>>,
}

/// The peer, once a handshake has been made where one is due.
pub(super) fn greet(worker: &Worker, arrival: &Arrival, secure: Option<Box<Secure>>) -> Peer {
    let Arrival { listener, from, port, .. } = *arrival;
    let in_force = worker.in_force();
    let trusted = &in_force.plan.listener(listener).trusted_proxies;
    let mut peer = Peer::new(listener, (from, port), trusted, secure);
    peer.proxied.clone_from(&arrival.proxied);
    peer
}

/// Serves a connection in a task of its own.
pub(super) fn spawn(worker: Rc<Worker>, stream: Stream, arrival: Arrival, admitted: Admitted) {
    if proxied::is_due(&worker, &arrival) {
        let own = Rc::clone(&worker);
        catching(worker, introduce_first(own, stream, arrival, admitted));
    } else {
        serve_known(worker, stream, arrival, admitted);
    }
}

/// Serves a connection that begins with a PROXY header.
async fn introduce_first(
    worker: Rc<Worker>,
    stream: Stream,
    mut arrival: Arrival,
    admitted: Admitted,
) {
    if proxied::introduce(&worker, &stream, &mut arrival).await {
        if worker.refuses(arrival.from) {
            worker.count(Counter::RejectedAbuse);
            return stream.reset_on_close();
        }
        serve_known(worker, stream, arrival, admitted);
    }
}

/// Serves a connection of which it is known where it comes from.
fn serve_known(worker: Rc<Worker>, stream: Stream, mut arrival: Arrival, admitted: Admitted) {
    if arrival.proxied.is_none() && worker.in_force().introduces {
        let (to, additions) = (fd::local_address(stream.raw()), Vec::new());
        arrival.proxied = Some(Box::new(Proxied { to, additions }));
    }
    match worker.front(arrival.listener) {
        None => {
            if is_tcp(&worker, arrival.listener) && peek::is_due(&worker, arrival.listener) {
                let own = Rc::clone(&worker);
                return catching(worker, peek_first(own, stream, arrival, admitted));
            }
            let peer = greet(&worker, &arrival, None);
            begin(worker, stream, peer, admitted);
        }
        Some(front) => {
            let own = Rc::clone(&worker);
            catching(worker, shake_hands_first(own, stream, arrival, (front, admitted)));
        }
    }
}

/// Serves a connection that begins with a handshake. What that needs is gone afterwards: the
/// connection goes on in a task of its own.
async fn shake_hands_first(
    worker: Rc<Worker>,
    mut stream: Stream,
    arrival: Arrival,
    (front, admitted): (Front, Admitted),
) {
    let secure = secure::shake_hands(&worker, &mut stream, &arrival, &front).await;
    if let Some(secure) = secure {
        let peer = greet(&worker, &arrival, Some(secure));
        begin(worker, stream, peer, admitted);
    }
}

/// Serves a connection of TCP of which the name of its host is read first.
async fn peek_first(worker: Rc<Worker>, stream: Stream, arrival: Arrival, admitted: Admitted) {
    let read = Box::pin(peek::hello(&worker, &stream, &arrival)).await;
    if let Some((buffer, hello)) = read {
        let peer = greet(&worker, &arrival, None);
        pass_on(&worker, stream, peer, (buffer, hello), admitted);
    }
}

fn is_tcp(worker: &Worker, listener: ListenerId) -> bool {
    worker.in_force().plan.listener(listener).mode == Mode::Tcp
}

/// Serves a connection whose peer is known, as its listener says.
fn begin(worker: Rc<Worker>, stream: Stream, peer: Peer, admitted: Admitted) {
    if is_tcp(&worker, peer.listener) {
        let Ok(mut buffer) = worker.buffers.take() else { return stream.reset_on_close() };
        if stream.can_splice() {
            // What the client has said already leaves with the handshake of its backend. That it
            // has left is seen later.
            let _ = stream.recv_now(&mut buffer);
        }
        pass_on(&worker, stream, peer, (buffer, None), admitted);
    } else {
        let connection = Connection::new(Rc::clone(&worker), stream, peer, admitted);
        catching(worker, connection.run());
    }
}

/// Serves a connection of TCP to its end.
fn pass_on(
    worker: &Rc<Worker>,
    stream: Stream,
    peer: Peer,
    (buffer, hello): (Buffer, Option<ClientHello>),
    admitted: Admitted,
) {
    let (stream, peer) = (Rc::new(stream), Rc::new(peer));
    stream.watched().busy();
    stream.watched().is_of_tunnel();
    let began = worker.logs.is_on(peer.listener).then(Clock::moment);
    let client = h1::Client::new(Rc::clone(&stream), Rc::clone(&peer), buffer, began);
    let arrived = Arrived { stream, peer, admitted };
    catching(Rc::clone(worker), tcp::run(worker, Client::H1(client), hello, arrived));
}

/// Goes on with a connection that has had an answer from another process, and awaits its next
/// request.
pub(super) fn go_on(worker: Rc<Worker>, stream: Stream, arrival: Arrival, admitted: Admitted) {
    if worker.front(arrival.listener).is_some() || proxied::is_due(&worker, &arrival) {
        // It made no handshake here, or did not say here whom it is for.
        return;
    }
    let peer = greet(&worker, &arrival, None);
    let mut connection = Connection::new(Rc::clone(&worker), stream, peer, admitted);
    (connection.awaits, connection.began) = (Awaits::Next, None);
    catching(worker, connection.run());
}

/// Serves a scripted client to its end.
#[cfg(test)]
pub(crate) async fn serve(worker: &Rc<Worker>, stream: Stream, listener: ListenerId) {
    let from = PeerAddress::of(Some(([127, 0, 0, 9], 999).into()));
    let admitted = Admitted::enter(worker, listener).expect("room for it");
    let arrival = Arrival { listener, from, port: 80, proxied: None };
    let peer = greet(worker, &arrival, None);
    Connection::new(Rc::clone(worker), stream, peer, admitted).run().await;
}

/// A client connection between requests.
struct Connection {
    worker: Rc<Worker>,
    stream: Rc<Stream>,
    peer: Rc<Peer>,
    awaits: Awaits,
    /// When the awaited request began: at accept, or with its first byte; none if it has not, or is
    /// not logged.
    began: Option<Moment>,
    admitted: Admitted,
}

/// Which version of HTTP a client speaks, according to the listener and the handshake.
fn speaks(worker: &Worker, peer: &Peer) -> Speaks {
    let protocols = worker.in_force().plan.listener(peer.listener).protocols;
    match (peer.secure().map(|secure| secure.is_h2), protocols.h1) {
        (Some(true), _) | (_, false) => Speaks::Two,
        // With TLS it is agreed on (RFC 9113 §3.2).
        (Some(false), true) => Speaks::One,
        (None, true) if protocols.h2 => Speaks::Either,
        (None, true) => Speaks::One,
    }
}

/// What a connection waits for. Each deadline is set when its wait begins, so that none is left
/// over from an earlier request: `client-header` for the first request, and again from the first
/// byte of each head; `idle` for the next request.
enum Awaits {
    /// Its first request, of which nothing has come.
    First,
    /// Its next request, of which nothing has come.
    Next,
    /// The rest of a head, of which these bytes have come.
    Rest(Vec<u8>),
}

/// The result of reading a connection that was ready.
enum Came {
    Bytes,
    Nothing,
    /// The end of the stream, or of its time.
    End,
}

/// The state after a burst of requests.
enum After {
    /// All that came was answered.
    Idle,
    /// The first bytes of a head.
    Partial,
    /// There was nothing to read.
    Nothing,
    /// Another process goes on with the connection.
    GivenAway,
    /// The client speaks HTTP/2.
    Http2,
    End(Ending),
}

/// How a connection ends.
#[derive(Clone, Copy)]
pub(super) enum Ending {
    /// With everything that was sent to it.
    Close,
    /// When the client has seen the answer: not all of its request was read.
    Linger,
    /// By a reset, so that what it was sent cannot look complete.
    Reset,
}

impl Connection {
    fn new(worker: Rc<Worker>, stream: Stream, peer: Peer, admitted: Admitted) -> Connection {
        let began = Some(Clock::moment());
        peer.speaks.set(speaks(&worker, &peer));
        Connection {
            worker,
            stream: Rc::new(stream),
            peer: Rc::new(peer),
            awaits: Awaits::First,
            began,
            admitted,
        }
    }

    /// Serves it to its end. A block, because a function would keep the connection twice.
    #[allow(clippy::manual_async_fn, reason = "as above")]
    fn run(mut self) -> impl Future<Output = ()> {
        async move { self.serve().await }
    }

    async fn serve(&mut self) {
        match self.awaits {
            Awaits::First => self.rests(Rest::Silent, self.timeouts().client_header),
            Awaits::Next | Awaits::Rest(_) => self.rests(Rest::Idle, self.timeouts().idle),
        }
        let ending = loop {
            if self.peer.speaks.get() == Speaks::Two {
                break Box::pin(self.speaks_h2()).await;
            }
            match self.stream.readable().await {
                Ok(()) => {}
                // A connection that we closed is not read any more: its slot already belongs to
                // another.
                Err(Unmet::Ended(Ended::Closed)) => return self.stream.shut_down(Half::Writing),
                Err(Unmet::Broken(_)) => return,
                Err(Unmet::Ended(Ended::GivenAway)) => {
                    if self.gives_away() {
                        return;
                    }
                    continue;
                }
                Err(
                    Unmet::Ended(Ended::Overdue | Ended::ClientLeft | Ended::Moved) | Unmet::NotNow,
                ) => {
                    break Box::pin(self.ended()).await;
                }
            }
            match Box::pin(self.burst()).await {
                After::Nothing => Box::pin(InVain::pause_once()).await,
                After::End(ending) => break ending,
                After::GivenAway => {
                    if self.gives_away() {
                        return;
                    }
                }
                After::Http2 => self.peer.speaks.set(Speaks::Two),
                After::Idle | After::Partial => {}
            }
        };
        match ending {
            Ending::Linger => Box::pin(linger(&self.worker, &self.stream, Until::Ended)).await,
            Ending::Reset => self.stream.reset_on_close(),
            Ending::Close => self.close().await,
        }
    }

    /// Serves a client of HTTP/2 to its end.
    async fn speaks_h2(&mut self) -> Ending {
        let come = match std::mem::replace(&mut self.awaits, Awaits::Next) {
            Awaits::Rest(come) => come,
            Awaits::First | Awaits::Next => Vec::new(),
        };
        http2::serve(&self.worker, &self.stream, &self.peer, come).await
    }

    /// Tells by its first bytes which version a client speaks: HTTP/1 if the buffer is given back.
    /// `known` bytes had come before.
    #[cold]
    fn tells_apart(&mut self, buffer: Buffer, known: usize) -> Result<Buffer, After> {
        let come = buffer.bytes();
        let is_begun = PREFACE.starts_with(come);
        if come.starts_with(PREFACE) || (is_begun && come.len() > METHOD_BYTES) {
            self.keep(buffer);
            return Err(After::Http2);
        }
        if is_begun {
            self.keep(buffer);
            if known == 0 {
                let clock = &self.worker.clock;
                clock.renew();
                self.stream.watched().busy();
                self.stream.watched().read_by(clock.after(self.timeouts().client_header));
            }
            return Err(After::Partial);
        }
        self.peer.speaks.set(Speaks::One);
        Ok(buffer)
    }

    /// Closes once that costs the client none of its answer. Bytes that it has sent meanwhile and
    /// that were not read make a close a reset, and so do bytes that come while the kernel has yet
    /// to send some of ours: then we shut down, with any bytes held back for it, and read until it
    /// has all. A client that was late is not waited for.
    async fn close(&self) {
        let stream = &self.stream;
        if stream.is_one_segment() && !stream.has_unread() {
            return;
        }
        stream.shut_down(Half::Writing);
        if !stream.is_overdue() && (stream.has_unread() || stream.has_unsent()) {
            Box::pin(linger(&self.worker, stream, Until::Told)).await;
        }
    }

    /// Gives the connection, on which nothing is in flight, to the process that takes over, or to a
    /// core that is less busy. It ends here without a word to the client. False: it stays.
    #[cold]
    fn gives_away(&mut self) -> bool {
        let (worker, copy) = (&self.worker, self.stream.copied());
        let (listener, is_idle) = (self.peer.listener, matches!(self.awaits, Awaits::Next));
        if !worker.has_heir() {
            let of = (copy, self.stream.watched());
            return level::hand_over_idle(worker, listener, of, &mut self.admitted);
        }
        // Who the client of a proxy is was said once, here.
        let in_force = worker.in_force();
        let is_direct =
            |_: &_| in_force.plan.listeners.get(listener).is_none_or(|it| it.proxies.is_none());
        if let Some(fd) = copy.filter(is_direct) {
            worker.give_away(RestingClient { listener, is_idle, fd });
        }
        true
    }

    /// Nothing is in flight: it makes room for others when that is needed.
    fn rests(&self, how: Rest, time: Duration) {
        let clock = &self.worker.clock;
        self.stream.watched().rests(how, clock.tick(), clock.after(time));
    }

    fn timeouts(&self) -> ListenerTimeouts {
        self.worker.in_force().timeouts(self.peer.listener)
    }

    /// Reads what has come and serves the requests in it.
    async fn burst(&mut self) -> After {
        let worker = Rc::clone(&self.worker);
        let Ok(mut buffer) = worker.buffers.take() else { return After::End(Ending::Reset) };
        let mut known = self.awaits.restore(&mut buffer);
        match self.reads(&mut buffer) {
            Came::Bytes => {}
            Came::Nothing => {
                self.keep(buffer);
                return After::Nothing;
            }
            Came::End => {
                self.keep(buffer);
                return After::End(Box::pin(self.ended()).await);
            }
        }
        if self.peer.speaks.get() != Speaks::One {
            match self.tells_apart(buffer, known) {
                Ok(first) => buffer = first,
                Err(after) => return after,
            }
        }
        let asks_at_once = self.stream.watched().is_idle_lately(worker.clock.tick());
        self.stream.watched().busy();
        if self.began.is_none() && worker.logs.is_on(self.peer.listener) {
            self.began = Some(Clock::moment());
        }
        let mut client = self.client(buffer);
        let after = loop {
            let after = requests(&worker, &mut client, known).await;
            if !asks_at_once || !matches!(after, After::Idle) {
                break after;
            }
            known = 0;
            if let Some(after) = self.stay(&mut client).await {
                break after;
            }
        };
        self.settle(client, after)
    }

    /// Reads what has come.
    fn reads(&self, buffer: &mut Buffer) -> Came {
        match self.stream.recv_now(buffer) {
            Ok(1..) => Came::Bytes,
            Err(Unmet::NotNow) => Came::Nothing,
            Ok(_) | Err(_) => Came::End,
        }
    }

    /// Records what is awaited after a burst.
    fn settle(&mut self, client: Client, after: After) -> After {
        let Client::H1(mut client) = client else { return after };
        (self.awaits, self.began) = (Awaits::Next, None);
        match (&after, client.take_buffer()) {
            (After::Partial, Some(buffer)) => {
                self.keep(buffer);
                self.began = client.began.or_else(|| Some(Clock::moment()));
            }
            (_, Some(buffer)) => self.worker.buffers.give(buffer),
            (_, None) => {}
        }
        if matches!(after, After::Idle) {
            self.rests(Rest::Idle, self.timeouts().idle);
        }
        after
    }

    /// Waits, with the resources of a burst at hand, for the next request of a client that asks
    /// again as soon as it is answered; `None` when that has come.
    async fn stay(&self, client: &mut Client) -> Option<After> {
        let Client::H1(client) = client else { return Some(After::End(Ending::Close)) };
        let worker = &self.worker;
        let Some(buffer) = client.take_buffer() else {
            return Some(After::End(Ending::Close));
        };
        worker.buffers.give(buffer);
        self.rests(Rest::Idle, self.timeouts().idle);
        match self.stream.readable_soon().await {
            Ok(true) => {}
            Ok(false) => return Some(After::Idle),
            Err(Unmet::Ended(Ended::GivenAway)) => return Some(After::GivenAway),
            Err(_) => return Some(After::End(Ending::Close)),
        }
        let Ok(mut buffer) = worker.buffers.take() else {
            return Some(After::End(Ending::Reset));
        };
        let came = self.reads(&mut buffer);
        client.put_buffer(buffer);
        match came {
            Came::Bytes => {}
            Came::Nothing => return Some(After::Idle),
            // Nothing of a request has come that could be answered (`ended`).
            Came::End => return Some(After::End(Ending::Close)),
        }
        self.stream.watched().busy();
        client.began = worker.logs.is_on(self.peer.listener).then(Clock::moment);
        None
    }

    fn client(&self, buffer: Buffer) -> Client {
        let (stream, peer) = (Rc::clone(&self.stream), Rc::clone(&self.peer));
        Client::H1(h1::Client::new(stream, peer, buffer, self.began))
    }

    /// Keeps the received part of a head, in no more memory than it needs.
    fn keep(&mut self, buffer: Buffer) {
        if !buffer.is_empty() {
            self.awaits = Awaits::Rest(buffer.bytes().to_vec());
        }
        self.worker.buffers.give(buffer);
    }

    /// The client sends nothing more, or not in time.
    async fn ended(&mut self) -> Ending {
        let worker = Rc::clone(&self.worker);
        if !worker.serves(self.peer.listener) {
            return Ending::Close;
        }
        let Ok(mut buffer) = worker.buffers.take() else { return Ending::Reset };
        self.awaits.restore(&mut buffer);
        // The empty line that is allowed before a request does not begin one.
        let begun = !matches!(buffer.bytes(), b"" | b"\r" | b"\r\n");
        let fault: Fault = match self.stream.read_ended() {
            Some(Ended::Overdue) if begun => Cause::RequestTimeout.into(),
            None if begun => Cause::ClientAbort.into(),
            Some(
                Ended::Overdue
                | Ended::ClientLeft
                | Ended::Moved
                | Ended::Closed
                | Ended::GivenAway,
            )
            | None => {
                worker.buffers.give(buffer);
                return Ending::Close;
            }
        };
        let mut client = self.client(buffer);
        let reuse = run::refuse(&worker, &mut client, worker.scratch(), fault).await;
        if let Client::H1(mut client) = client
            && let Some(buffer) = client.take_buffer()
        {
            worker.buffers.give(buffer);
        }
        match reuse {
            Reuse::Keep | Reuse::Close => Ending::Close,
            Reuse::Linger => Ending::Linger,
            Reuse::Reset => Ending::Reset,
        }
    }
}

/// Serves the requests that are buffered, one after the other. `known` bytes of the first head had
/// come before.
async fn requests(worker: &Rc<Worker>, client: &mut Client, mut known: usize) -> After {
    loop {
        if !worker.serves(client.peer().listener) {
            // The plan has no such listener any more, and so nothing that would answer.
            return After::End(Ending::Close);
        }
        let mut scratch = worker.scratch();
        let mut waited = false;
        let Client::H1(h1) = &mut *client else { return After::End(Ending::Close) };
        let reuse = match h1.take_head(&mut scratch.request, &worker.head_limits(), known) {
            HeadRead::Head(bytes) => {
                scratch.record.request_bytes = bytes as u64;
                h1.stream().watched().read_by(Deadline::NEVER);
                let mut exchange = pin!(run::run(worker, client, scratch));
                poll_fn(|cx| {
                    let polled = exchange.as_mut().poll(cx);
                    waited |= polled.is_pending();
                    polled
                })
                .await
            }
            HeadRead::Refused(fault) => Box::pin(run::refuse(worker, client, scratch, fault)).await,
            HeadRead::Partial => {
                worker.recycle(scratch);
                if known == 0 {
                    head_begins(worker, h1);
                }
                return After::Partial;
            }
        };
        known = 0;
        let Client::H1(h1) = &*client else { return After::End(Ending::Close) };
        match (reuse, h1.behind()) {
            (Reuse::Keep, Some(0)) => return After::Idle,
            // An answer of our own, or of a backend that was quicker than we are, takes no turn.
            (Reuse::Keep, Some(_)) if !waited => next_turn().await,
            (Reuse::Keep, Some(_)) => {}
            // A close over unread bytes is a reset, which may destroy the answer.
            (Reuse::Close, Some(1..)) | (Reuse::Linger, _) => return After::End(Ending::Linger),
            (Reuse::Reset, _) => return After::End(Ending::Reset),
            (Reuse::Close, _) | (Reuse::Keep, None) => return After::End(Ending::Close),
        }
    }
}

/// `PRI `: a method of HTTP/1 may begin like the preface of HTTP/2, but no target does.
const METHOD_BYTES: usize = 4;

/// The first bytes of a head have come: the time for the rest begins here.
#[cold]
fn head_begins(worker: &Worker, client: &h1::Client) {
    worker.clock.renew();
    let timeouts = worker.in_force().timeouts(client.peer.listener);
    client.stream().watched().read_by(worker.clock.after(timeouts.client_header));
}

impl Awaits {
    /// Puts the bytes of an incomplete head where a read goes on after them; returns how many.
    fn restore(&mut self, buffer: &mut Buffer) -> usize {
        let Awaits::Rest(bytes) = self else { return 0 };
        let count = bytes.len().min(buffer.room_len());
        if let (Some(room), Some(bytes)) = (buffer.room().get_mut(..count), bytes.get(..count)) {
            room.copy_from_slice(bytes);
        }
        buffer.filled(count);
        *self = Awaits::Next;
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::panic_net::Catching;

    /// The size of what a function returns; it is not called.
    fn size_of_output<A, R>(_: impl FnOnce(A) -> R) -> usize {
        size_of::<R>()
    }

    /// What each of thousands of idle connections keeps, and what each running burst takes: one
    /// large future that is awaited without a box undoes both.
    #[test]
    fn what_an_idle_connection_keeps_is_small_and_so_is_a_burst() {
        let idle = size_of::<Catching>() + size_of_output(Connection::run);
        let burst = size_of_output(|connection: &'static mut Connection| connection.burst());
        println!("idle {idle} bytes, burst {burst} bytes");
        assert!(idle <= 368, "an idle connection's task: {idle} bytes");
        assert!(burst <= 2176, "a burst: {burst} bytes");
    }
}
