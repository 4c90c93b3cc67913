//! One connection of a TCP listener: a backend is found for it, and bytes pass both ways.
//!
//! It is an exchange without heads. It picks, waits in the queue and tries again like any other,
//! and all that a try does is connect. Nothing of the client's has been read then, so a backend
//! that cannot be reached costs the client nothing but time. Once bytes pass it is a `tunnel`.

use std::{ops::ControlFlow, rc::Rc};

use super::{
    Answer, Exchange, Reuse, UnderWay, attempt, finish,
    proof::Proof,
    retry::another,
    run::{note_key, pick_first},
    tunnel::{self, Far, Passing, Told},
};
use crate::base::ids::PoolId;
use crate::http::{
    fault::{Cause, Fault, Side},
    framing::BodyLength,
    head::Method,
};
use crate::net::client_hello::ClientHello;
use crate::proto::{Backend, Client};
use crate::shared::counters::Counter;
use crate::worker::{Gauge, Pick, Scratch, Worker};

/// Serves a connection, from accept to its line in the log. A client for which there is no backend
/// is reset: a clean end would look like a server that has nothing to say.
pub(crate) async fn run(
    worker: &Rc<Worker>,
    client: &mut Client,
    hello: Option<ClientHello>,
    scratch: Box<Scratch>,
) -> Reuse {
    // What it takes to find a backend is gone when bytes pass.
    let (joined, under_way) = Box::pin(begin(worker, client, hello, scratch)).await;
    let (passing, reuse) = match joined {
        Ok((far, mut passing)) => {
            let _open = Gauge::up(&worker.core, Counter::Tunnels);
            let reuse = tunnel::relay(worker, client, &mut passing, far).await;
            (passing, reuse)
        }
        Err(passing) => (passing, Reuse::Reset),
    };
    finish::passed(worker, client, (passing, under_way));
    reuse
}

/// Begins an exchange and finds a backend; of the exchange the rest stays, also without one.
async fn begin(
    worker: &Rc<Worker>,
    client: &mut Client,
    hello: Option<ClientHello>,
    scratch: Box<Scratch>,
) -> (Result<(Far, Passing), Passing>, UnderWay) {
    let mut exchange = Exchange::begin(worker, client, scratch, BodyLength::None);
    let hello = hello.unwrap_or_else(|| said(client));
    let joined = match route(worker, client, &mut exchange, &hello) {
        Ok(pool) => join(worker, client, &mut exchange, pool).await,
        Err(fault) => Err(fault),
    };
    let proof = proof(worker, &exchange, &joined);
    let Exchange { in_force, mut scratch, began, _under_way: gauge, .. } = exchange;
    let mut record = std::mem::take(&mut scratch.record);
    let told = record
        .logged
        .then(|| Box::new(Told { host: hello.name, tries: std::mem::take(&mut scratch.tries) }));
    worker.recycle(scratch);
    let under_way = UnderWay { began, gauge };
    match joined {
        Ok((backend, pick)) => {
            let source = backend.all(&worker.buffers);
            let far = Far { backend, source, upload: None, pick, proof };
            (Ok((far, Passing { in_force, record, told })), under_way)
        }
        Err(fault) => {
            record.fail(fault);
            let has_left = fault.side == Side::Client;
            record.ended_by = Some(if has_left { Side::Client } else { Side::Proxy });
            (Err(Passing { in_force, record, told }), under_way)
        }
    }
}

/// What the backend that has taken the connection has yet to show.
fn proof(
    worker: &Worker,
    exchange: &Exchange,
    joined: &Result<(Backend, Pick), Fault>,
) -> Option<Proof> {
    let (_, pick) = joined.as_ref().ok()?;
    let (view, life_min) =
        (exchange.in_force.pool(exchange.pool), exchange.pool_plan().passive.life_min);
    Some(Proof::new(view, pick.backend(), worker.clock.tick(), life_min))
}

/// What a client has said in a handshake with us, if there was one.
fn said(client: &Client) -> ClientHello {
    let name = client.peer().secure().and_then(|it| it.name.as_deref());
    ClientHello { name: name.map(|name| name.as_bytes().into()), alpn: Vec::new() }
}

/// Finds the pool: that of the route for the name and the protocols that the client has said, in a
/// handshake with us or with the backend, or else the listener's.
fn route(
    worker: &Worker,
    client: &Client,
    exchange: &mut Exchange,
    ClientHello { name, alpn }: &ClientHello,
) -> Result<PoolId, Fault> {
    let peer = client.peer();
    let Exchange { in_force, scratch, .. } = exchange;
    let routes = worker.routes_of(in_force);
    if routes.has_own(peer.listener) {
        let name = name.as_deref().unwrap_or_default();
        let found = routes.find_by_name(peer.listener, &scratch.request, (name, alpn));
        scratch.record.route = found;
    }
    match scratch.record.route {
        Some(route) => Ok(in_force.plan.route(route).pool),
        None => in_force.plan.listener(peer.listener).pool.ok_or(Cause::NoRoute.into()),
    }
}

/// Connects it to a backend of the pool.
async fn join(
    worker: &Rc<Worker>,
    client: &mut Client,
    exchange: &mut Exchange,
    pool: PoolId,
) -> Result<(Backend, Pick), Fault> {
    exchange.pool = pool;
    exchange.scratch.record.pool = Some(pool);
    // A trial may be tried elsewhere, and a connection that was kept is of no use.
    exchange.scratch.request.method = Method::Get;
    exchange.tries.stale_before = true;
    if exchange.needs().key {
        note_key(client.peer(), exchange);
    }
    let mut pick = pick_first(worker, client, exchange).await?;
    loop {
        exchange.scratch.tried.insert(pick.backend());
        exchange.tries.count += 1;
        // It need not say anything before the client does.
        pick.waits_for_client();
        let joined = attempt::connect(worker, client, exchange, &pick).await;
        let mut own = Some(pick);
        // What a backend is counted for that takes a connection.
        exchange.scratch.response.status = 101;
        let result = joined.as_ref().map(|_| Answer::Switched).map_err(|fault| *fault);
        let outcome = finish::tried(worker, exchange, result, own.as_mut());
        if let (Ok(backend), Some(pick)) = (joined, own.take_if(|_| result.is_ok())) {
            return Ok((backend, pick));
        }
        let next = another(worker, client, exchange, (outcome, own), result);
        match Box::pin(next).await {
            ControlFlow::Continue(next) => pick = next,
            ControlFlow::Break(result) => {
                return Err(result.err().unwrap_or(Cause::Internal.into()));
            }
        }
    }
}
