//! Upgraded connections: bytes both ways until both sides have ended, or nobody says anything.
//!
//! Two plain loops, each owning its half. Nothing of what passes is understood: whether a 101 was
//! allowed is decided before (`http::upgrade`), and no connection is of use to anybody after it.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
};

use super::{Exchange, Fetched, Reuse, sticky};
use crate::http::{
    fault::{Cause, Fault},
    forward::{self, ToClient},
    framing::BodyLength,
    write,
};
use crate::net::{
    buffer::Buffer,
    clock,
    deadlines::Unmet,
    fd::Half,
    stream::{InVain, Stream},
};
use crate::observe::record::Term;
use crate::proto::h1::{Client, Reader};
use crate::shared::counters::Counter;
use crate::worker::{Gauge, Worker};

/// Tells the client that the protocol is switched and relays until the end.
pub(super) async fn run(
    worker: &Rc<Worker>,
    client: &mut Client,
    exchange: &mut Exchange,
    fetched: Box<Fetched>,
) -> Reuse {
    let under_way = Gauge::up(&exchange.in_force, Counter::Tunnels);
    let since = if exchange.scratch.record.logged { clock::precise() } else { 0 };
    let result = switch(worker, client, exchange, *fetched).await;
    drop(under_way);
    let record = &mut exchange.scratch.record;
    if record.logged {
        // Whatever a tunnel does, it does at the pace of its ends.
        record.times.waited += clock::precise() - since;
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
    client.send(&scratch.out, false, || worker.clock.after(timeouts.client_write)).await?;
    scratch.record.response_bytes += scratch.out.len() as u64;
    let Fetched { backend, buffer, in_flight, .. } = fetched;
    let (Some(Reader { buffer: early, .. }), Some(buffer)) = (client.reader.take(), buffer) else {
        return Ok(Term::TunnelClosed);
    };
    let (near, far) = (&*client.stream, &*backend.stream);
    let idle = || worker.clock.after(timeouts.tunnel);
    near.outlasts(timeouts.tunnel);
    far.outlasts(timeouts.tunnel);
    let mut up = pin!(pump(worker, near, far, early, &idle));
    let mut down = pin!(pump(worker, far, near, buffer, &idle));
    let (mut up_bytes, mut down_bytes) = (None, None);
    poll_fn(|cx| {
        if up_bytes.is_none()
            && let Poll::Ready(bytes) = up.as_mut().poll(cx)
        {
            up_bytes = Some(bytes);
        }
        if down_bytes.is_none()
            && let Poll::Ready(bytes) = down.as_mut().poll(cx)
        {
            down_bytes = Some(bytes);
        }
        if up_bytes.is_some() && down_bytes.is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    scratch.record.request_bytes += up_bytes.unwrap_or(0);
    scratch.record.response_bytes += down_bytes.unwrap_or(0);
    drop(in_flight);
    let idle = [near, far].iter().any(|stream| stream.is_overdue());
    Ok(if idle { Term::TunnelIdle } else { Term::TunnelClosed })
}

/// Relays one direction until its end, which is handed on as a half-close. A buffer is held only
/// while there is something in it: a silent tunnel costs none.
async fn pump(
    worker: &Worker,
    from: &Stream,
    to: &Stream,
    first: Buffer,
    idle: &impl Fn() -> u64,
) -> u64 {
    let mut bytes = 0;
    let ended = relay(worker, from, to, first, idle, &mut bytes).await;
    // After an error nothing can follow in either direction.
    let half = if ended.is_ok() { Half::Writing } else { Half::Both };
    to.shut_down(half);
    if ended.is_err() {
        from.shut_down(Half::Both);
    }
    bytes
}

async fn relay(
    worker: &Worker,
    from: &Stream,
    to: &Stream,
    first: Buffer,
    idle: &impl Fn() -> u64,
    bytes: &mut u64,
) -> Result<(), Fault> {
    let gone = |_: Unmet| Fault::new(Cause::ClientAbort);
    let (mut held, mut in_vain) = (Some(first), InVain::default());
    loop {
        if let Some(mut buffer) = held.take() {
            if !buffer.is_empty() {
                *bytes += buffer.len() as u64;
                to.send_all(buffer.bytes(), false, idle).await.map_err(gone)?;
                buffer.clear();
            }
            worker.buffers.give(buffer);
        }
        from.watched().read_by(idle());
        from.readable().await.map_err(gone)?;
        // Traffic in one direction keeps the other one open too.
        to.watched().read_by(idle());
        let mut buffer = worker.buffers.take().map_err(|error| gone(Unmet::Broken(error)))?;
        match from.recv_now(&mut buffer) {
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
