//! The whole path of a request, step by step. Read this first.
//!
//! `run` begins an exchange, decides what the client gets (`answer`), sends it (`reply::send`) and
//! records how it ended (`finish::record`). `fetch` asks backends until one of them answers. No
//! final head goes to the client before `reply`, so `fetch` may ask several. Every exchange ends in
//! `finish`. Bodies move in `pass`: the request's from `attempt` on (`upload`), that of the answer
//! from `reply` on (`download`).
//!
//! Words: the `scratch` of an exchange is its reusable memory (the heads, the record, buffers).
//! `in_force` is the plan it began under. An `errand` is what it wants of a pool. A `pick` is a
//! chosen backend with its permits and one request in flight, all returned on drop. `last` is the
//! try under way. A body is `held` if all that is left of it is buffered (also if there is none),
//! `kept` if a copy of what was sent is stored for another try. A `declined` answer called for
//! another try, but is better than none.

use std::{ops::ControlFlow, rc::Rc, time::Duration};

use super::{
    Answer, Exchange, Reuse, attempt, choose::choose, finish, queue, reply, retry, sticky,
};
use crate::base::ids::PoolId;
use crate::http::{
    answer,
    fault::{Cause, Fault},
    forward::{self, Forward},
    framing::{self, BodyLength},
    head::Method,
    target,
};
use crate::policy::balance::key;
use crate::proto::{Client, peer::Peer};
use crate::worker::{NoPick, Pick, Scratch, Worker};

/// Runs one exchange, from a parsed head to its line in the log.
pub(crate) async fn run(worker: &Rc<Worker>, client: &mut Client, scratch: Box<Scratch>) -> Reuse {
    let length = framing::request(&scratch.request);
    let mut exchange = Exchange::begin(worker, client, scratch, length.unwrap_or(BodyLength::None));
    let answered = match length {
        Ok(length) => answer(worker, client, &mut exchange, length).await,
        Err(fault) => Err(fault),
    };
    let reuse = reply::send(worker, client, &mut exchange, answered).await;
    finish::record(worker, client, &mut exchange);
    worker.recycle(exchange.scratch);
    reuse
}

/// Answers input that gave no valid request head. The scratch holds what could be read of it.
pub(crate) async fn refuse(
    worker: &Rc<Worker>,
    client: &mut Client,
    mut scratch: Box<Scratch>,
    fault: Fault,
) -> Reuse {
    scratch.record.request_bytes = client.buffered();
    let mut exchange = Exchange::begin(worker, client, scratch, BodyLength::None);
    client.will_close();
    let reuse = reply::send(worker, client, &mut exchange, Err(fault)).await;
    finish::record(worker, client, &mut exchange);
    worker.recycle(exchange.scratch);
    reuse
}

/// Decides what the client gets: a reply of our own or a backend's.
async fn answer(
    worker: &Rc<Worker>,
    client: &mut Client,
    exchange: &mut Exchange,
    length: BodyLength,
) -> Result<Answer, Fault> {
    client.expect_body(length, exchange.in_force.head_limits);
    admit(exchange, length)?;
    if worker.has_challenges()
        && let Some(answer) = reply::challenge(worker, client, exchange)
    {
        return Ok(answer);
    }
    match direct(worker, client.peer(), exchange)? {
        Forward::Send => fetch(worker, client, exchange).await,
        Forward::AnswerOptions => Ok(reply::options(worker, client, exchange)),
    }
}

/// Finds the pool that answers, and rewrites the request for its backends.
#[inline]
pub(super) fn direct(
    worker: &Worker,
    peer: &Peer,
    exchange: &mut Exchange,
) -> Result<Forward, Fault> {
    refuse_misdirected(worker, peer, exchange)?;
    exchange.pool = route(worker, peer, exchange)?;
    exchange.scratch.record.pool = Some(exchange.pool);
    exchange.deadline = worker.clock.after(exchange.pool_plan().timeouts.request);
    if answer::is_grpc(&exchange.scratch.request)
        && let Some(time) = answer::grpc_timeout(&exchange.scratch.request)
    {
        // Its client gives up then; so do we, and tell it.
        let time = time.max(Duration::from_millis(1));
        exchange.deadline = exchange.deadline.earlier(worker.clock.after(time));
    }
    if exchange.needs().key {
        note_key(peer, exchange);
    }
    rewrite(worker, peer, exchange)
}

/// Refuses what this proxy does not do for any route.
pub(super) fn admit(exchange: &Exchange, length: BodyLength) -> Result<(), Fault> {
    let most = exchange.in_force.plan.limits.body_bytes_max;
    match exchange.scratch.request.method {
        Method::Connect | Method::Trace => return Err(Cause::MethodRefused.into()),
        Method::Get
        | Method::Head
        | Method::Post
        | Method::Put
        | Method::Delete
        | Method::Options
        | Method::Patch
        | Method::OtherIdempotent
        | Method::Other => {}
    }
    match length {
        BodyLength::Fixed(bytes) if most != 0 && bytes > most => Err(Cause::BodyTooLarge.into()),
        BodyLength::None | BodyLength::Fixed(_) | BodyLength::Chunked | BodyLength::UntilClose => {
            Ok(())
        }
    }
}

/// Refuses a request for a host whose certificate is not the one of its connection (421, RFC 9110
/// §15.5.20). A plain connection, a handshake without a server name and a request without a host
/// are not checked.
#[inline]
fn refuse_misdirected(worker: &Worker, peer: &Peer, exchange: &Exchange) -> Result<(), Fault> {
    let Some(name) = peer.secure().and_then(|secure| secure.name.as_deref()) else {
        return Ok(());
    };
    let request = &exchange.scratch.request;
    let authority = request.bytes(request.authority);
    let is_same = authority.split_at_checked(name.len()).is_some_and(|(host, port)| {
        host.eq_ignore_ascii_case(name.as_bytes()) && matches!(port, [] | [b':', ..])
    });
    if is_same || authority.is_empty() { Ok(()) } else { agree(worker, peer, name, authority) }
}

#[cold]
fn agree(worker: &Worker, peer: &Peer, name: &str, authority: &[u8]) -> Result<(), Fault> {
    let mut host = Vec::new();
    target::normalise_host(authority, &mut host);
    match std::str::from_utf8(&host) {
        Ok(host) if worker.agrees(peer.listener, name, host) => Ok(()),
        Ok(_) | Err(_) => Err(Cause::Misdirected.into()),
    }
}

/// Finds the pool that answers: the route's, or else the listener's.
fn route(worker: &Worker, peer: &Peer, exchange: &mut Exchange) -> Result<PoolId, Fault> {
    let Exchange { in_force, scratch, .. } = exchange;
    let listener = peer.listener;
    scratch.record.route = worker.routes_of(in_force).find(listener, &scratch.request)?;
    match scratch.record.route {
        Some(route) => Ok(in_force.plan.route(route).pool),
        None => in_force.plan.listener(listener).pool.ok_or(Cause::NoRoute.into()),
    }
}

/// Records the hash key, from the request as it came.
pub(super) fn note_key(peer: &Peer, exchange: &mut Exchange) {
    let Exchange { in_force, scratch, .. } = &mut *exchange;
    let trusted = &in_force.plan.listener(peer.listener).trusted_proxies;
    // Already known if the listener has a log.
    let known = scratch.record.client;
    let address = known.or_else(|| peer.client(&scratch.request, trusted));
    exchange.scratch.key = key::of(exchange.pool_plan(), &exchange.scratch.request, address);
}

/// Rewrites the client's request into the one that backends get.
fn rewrite(worker: &Worker, peer: &Peer, exchange: &mut Exchange) -> Result<Forward, Fault> {
    let scratch = &mut exchange.scratch;
    let from = peer.forwarded_for(worker.core.process.pseudonym.as_bytes());
    // Asked before the rewrite, which adds fields of our own to those of a trusted proxy.
    scratch.secure = forward::is_secure(&scratch.request, &from);
    let made = worker.make_ids(exchange.began, &mut scratch.record.request_id);
    let forward = forward::request(&mut scratch.request, &from, &made)?;
    if let Some(certificate) = peer.secure().and_then(|it| it.certificate.as_deref())
        && exchange.pool_plan().client_cert
    {
        let (cert, chain) = certificate;
        forward::tell_certificate(&mut exchange.scratch.request, (cert, chain));
    }
    Ok(forward)
}

/// The first backend to ask, if need be after a wait in the queue.
#[inline]
pub(super) async fn pick_first(
    worker: &Rc<Worker>,
    client: &Client,
    exchange: &mut Exchange,
) -> Result<Pick, Fault> {
    let picked = choose(&exchange.errand(worker));
    match picked {
        Ok(pick) => Ok(pick),
        Err(NoPick::AllFull(what)) => Box::pin(queue::wait(worker, client, exchange, what)).await,
        Err(NoPick::NoneUsable) => Err(Cause::NoBackend.into()),
    }
}

/// Asks backends until one answers or a retry is no longer allowed.
async fn fetch(
    worker: &Rc<Worker>,
    client: &mut Client,
    exchange: &mut Exchange,
) -> Result<Answer, Fault> {
    sticky::read(worker, exchange);
    let mut pick = pick_first(worker, client, exchange).await?;
    loop {
        // An answer takes the pick out of `own`; without one it is still there after the try.
        exchange.scratch.tried.insert(pick.backend());
        exchange.tries.count += 1;
        let mut own = Some(pick);
        let result = attempt::once(worker, client, exchange, &mut own).await;
        let outcome = finish::tried(worker, exchange, result, own.as_mut());
        if !outcome.calls_for_another() {
            return exchange.or_declined(result);
        }
        let next = retry::another(worker, client, exchange, (outcome, own), result);
        match Box::pin(next).await {
            ControlFlow::Continue(next) => pick = next,
            ControlFlow::Break(result) => return result,
        }
    }
}
