//! Upgraded connections: bytes both ways until both sides have ended, or nobody says anything.
//!
//! Two plain loops, each owning its half. Nothing of what passes is understood: whether a 101 was
//! allowed is decided before (`http::upgrade`), and no connection is of use to anybody after it.
//! A request that asks for an upgrade may have a body (`docker exec`): what comes from the client
//! belongs to that body up to its end, and to the tunnel behind it (RFC 9110 §7.8). What comes from
//! the backend belongs to the tunnel as soon as it has said 101.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use super::{Exchange, Fetched, Reuse, reply::skip_body, sticky, upload::Upload};
use crate::base::moment::Deadline;
use crate::http::{
    fault::{Cause, Fault},
    forward::{self, ToClient},
    framing::BodyLength,
    write,
};
use crate::net::{
    buffer::Buffer,
    clock::Clock,
    deadlines::Unmet,
    fd::Half,
    stream::{InVain, Stream},
};
use crate::observe::record::Term;
use crate::proto::h1::{Client, Reader};
use crate::shared::counters::Counter;
use crate::worker::Worker;

/// Tells the client that the protocol is switched and relays until the end.
pub(super) async fn run(
    worker: &Rc<Worker>,
    client: &mut Client,
    exchange: &mut Exchange,
    fetched: Box<Fetched>,
) -> Reuse {
    worker.counters.add(Counter::Tunnels, 1);
    let since = exchange.scratch.record.logged.then(Clock::moment);
    let result = switch(worker, client, exchange, *fetched).await;
    worker.counters.sub(Counter::Tunnels, 1);
    let record = &mut exchange.scratch.record;
    if let Some(since) = since {
        // Whatever a tunnel does, it does at the pace of its ends.
        record.times.waited += Clock::moment().since(since);
        client.stream.take_stalled();
    }
    record.term = match result {
        Ok(term) => term,
        Err(fault) => Term::Fault(fault.cause),
    };
    Reuse::Close
}

async fn switch(
    worker: &Rc<Worker>,
    client: &mut Client,
    exchange: &mut Exchange,
    fetched: Fetched,
) -> Result<Term, Fault> {
    let timeouts = exchange.in_force.plan.listener(client.peer.listener).timeouts;
    // A body that was held has been sent with its head.
    skip_body(client, exchange);
    announce(worker, client, exchange, &fetched, timeouts.client_write).await?;
    let Fetched { backend, buffer, upload, pick, .. } = fetched;
    let Some(buffer) = buffer else { return Ok(Term::TunnelClosed) };
    let (near, far) = (Side::of(&client.stream), Side::of(&backend.stream));
    near.stream.outlasts(timeouts.tunnel);
    far.stream.outlasts(timeouts.tunnel);
    let silence = Silence {
        clock: &worker.clock,
        tunnel: timeouts.tunnel,
        half_closed: timeouts.half_closed,
        one_has_ended: false.into(),
    };
    let reader = client.reader.take();
    let up = async {
        let (early, bytes) = match behind(upload, reader).await {
            Ok(early) => early,
            Err(why) => {
                near.stream.shut_down(Half::Both);
                far.stream.shut_down(Half::Both);
                return (0, Some(why));
            }
        };
        (bytes + pump(worker, &near, &far, early, &silence).await, None)
    };
    let (mut up, mut down) = (pin!(up), pin!(pump(worker, &far, &near, buffer, &silence)));
    let (mut sent, mut received) = (None, None);
    poll_fn(|cx| {
        if sent.is_none()
            && let Poll::Ready(ended) = up.as_mut().poll(cx)
        {
            sent = Some(ended);
        }
        if received.is_none()
            && let Poll::Ready(bytes) = down.as_mut().poll(cx)
        {
            received = Some(bytes);
        }
        if sent.is_some() && received.is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let (sent, why) = sent.unwrap_or_default();
    let record = &mut exchange.scratch.record;
    record.request_bytes += sent;
    record.response_bytes += received.unwrap_or(0);
    drop(pick);
    if let Some(why) = why.flatten() {
        return Err(why);
    }
    let idle = [&near, &far].iter().any(|side| side.stream.is_overdue());
    Ok(if idle { Term::TunnelIdle } else { Term::TunnelClosed })
}

/// Tells the client that the protocol is switched.
async fn announce(
    worker: &Worker,
    client: &Client,
    exchange: &mut Exchange,
    fetched: &Fetched,
    wait: Duration,
) -> Result<(), Fault> {
    let scratch = &mut *exchange.scratch;
    let to = ToClient {
        method: scratch.request.method,
        version: scratch.request.version,
        keep_alive: true,
        date: b"",
    };
    forward::response(&mut scratch.response, BodyLength::None, &to)?;
    sticky::answer(worker, exchange, fetched.id);
    let scratch = &mut *exchange.scratch;
    scratch.out.clear();
    write::response(&scratch.response, BodyLength::None, &mut scratch.out);
    client.head_sent.set(true);
    client.send(&scratch.out, false, || worker.clock.after(wait)).await?;
    scratch.record.response_bytes += scratch.out.len() as u64;
    Ok(())
}

/// What the client has sent behind its request, once that is whole; and how many bytes an upload
/// took of it. Why there is none, where that is the client's doing.
async fn behind(
    upload: Option<Upload>,
    reader: Option<Reader>,
) -> Result<(Buffer, u64), Option<Fault>> {
    let (reader, bytes) = match upload {
        None => (reader, 0),
        Some(mut upload) => {
            upload.end().await;
            if !upload.is_whole() {
                return Err(upload.fault_of_client());
            }
            upload.into_reader()
        }
    };
    reader.map(|reader| (reader.buffer, bytes)).ok_or(None)
}

/// One end of a tunnel.
struct Side<'a> {
    stream: &'a Stream,
    /// Whether a write to it waits for room.
    is_full: Cell<bool>,
}

impl Side<'_> {
    fn of(stream: &Stream) -> Side<'_> {
        Side { stream, is_full: false.into() }
    }
}

/// For how long a tunnel may be silent.
struct Silence<'a> {
    clock: &'a Clock,
    tunnel: Duration,
    /// From when one end has closed its half on.
    half_closed: Duration,
    one_has_ended: Cell<bool>,
}

impl Silence<'_> {
    /// The next byte must move by then.
    fn by(&self) -> Deadline {
        let by = self.clock.after(self.tunnel);
        if self.one_has_ended.get() { by.earlier(self.clock.after(self.half_closed)) } else { by }
    }

    /// One end has closed its half. The other way, which is waited for already, has less time now.
    fn one_ends(&self, from: &Side<'_>, to: &Side<'_>) {
        self.one_has_ended.set(true);
        self.clock.renew();
        to.stream.watched().read_by(self.by());
        if from.is_full.get() {
            from.stream.watched().write_by(self.by());
        }
    }
}

/// Relays one direction until its end, which is handed on as a half-close. A buffer is held only
/// while there is something in it: a silent tunnel costs none.
async fn pump(
    worker: &Worker,
    from: &Side<'_>,
    to: &Side<'_>,
    first: Buffer,
    silence: &Silence<'_>,
) -> u64 {
    let mut bytes = 0;
    let ended = relay(worker, from, to, first, silence, &mut bytes).await;
    // After an error nothing can follow in either direction.
    let half = if ended.is_ok() { Half::Writing } else { Half::Both };
    to.stream.shut_down(half);
    if ended.is_err() {
        from.stream.shut_down(Half::Both);
    } else {
        silence.one_ends(from, to);
    }
    bytes
}

async fn relay(
    worker: &Worker,
    from: &Side<'_>,
    to: &Side<'_>,
    first: Buffer,
    silence: &Silence<'_>,
    bytes: &mut u64,
) -> Result<(), Fault> {
    let gone = |_: Unmet| Fault::new(Cause::ClientAbort);
    let (mut held, mut in_vain) = (Some(first), InVain::default());
    // A wait for room, of which each is for the one before has taken something, is no silence.
    let full = || {
        to.is_full.set(true);
        from.stream.watched().read_by(silence.by());
        silence.by()
    };
    loop {
        if let Some(mut buffer) = held.take() {
            if !buffer.is_empty() {
                *bytes += buffer.len() as u64;
                let sent = to.stream.send_all(buffer.bytes(), false, full).await;
                to.is_full.set(false);
                sent.map_err(gone)?;
                buffer.clear();
            }
            worker.buffers.give(buffer);
        }
        from.stream.watched().read_by(silence.by());
        from.stream.readable().await.map_err(gone)?;
        // Traffic in one direction keeps the other one open too.
        to.stream.watched().read_by(silence.by());
        let mut buffer = worker.buffers.take().map_err(|error| gone(Unmet::Broken(error)))?;
        match from.stream.recv_now(&mut buffer) {
            Ok(0) => {
                worker.buffers.give(buffer);
                return Ok(());
            }
            Ok(_) => {
                in_vain = InVain::default();
                held = Some(buffer);
            }
            Err(Unmet::NotNow) => {
                worker.buffers.give(buffer);
                in_vain.pause().await;
            }
            Err(_) => return Err(Cause::ClientAbort.into()),
        }
    }
}
