//! One connection of a TCP listener: a backend is found for it, and bytes pass both ways.
//!
//! It is an exchange without heads. It picks, waits in the queue and tries again like any other,
//! and all that a try does is connect. Nothing of the client's has been read then, so a backend
//! that cannot be reached costs the client nothing but time. Once bytes pass it is a `tunnel`.

use std::{future::Future, ops::ControlFlow, rc::Rc, time::Duration};

use super::{
    Answer, Exchange, Reuse, UnderWay, attempt, finish,
    proof::Proof,
    retry::another,
    run::{note_key, pick_first},
    tunnel::{Beginning, Told, Tunnel, Way},
};
use crate::base::{
    ids::{BackendId, PoolId, RouteId},
    moment::Moment,
};
use crate::http::{
    fault::{Cause, Fault, Side},
    framing::BodyLength,
    head::Method,
};
use crate::net::{client_hello::ClientHello, clock::Clock, stream::Stream};
use crate::observe::record::Record;
use crate::proto::{Backend, Client, Sink, Source, h1, peer::Peer};
use crate::shared::counters::Counter;
use crate::worker::{Admitted, Gauge, InForce, Pick, Worker};

/// A connection of a TCP listener.
pub(crate) struct Arrived {
    pub(crate) stream: Rc<Stream>,
    pub(crate) peer: Rc<Peer>,
    pub(crate) admitted: Admitted,
}

/// What is kept of a connection while bytes pass.
struct Passing {
    tunnel: Tunnel,
    arrived: Arrived,
    /// What an end needs besides its socket.
    backend: Option<Box<Backend>>,
    pick: Pick,
    open: Gauge,
    under_way: UnderWay,
    /// When bytes began to pass, if that is timed.
    since: Option<Moment>,
    in_force: Rc<InForce>,
    noted: Noted,
}

/// What is noted of it until then.
enum Noted {
    /// All that its line in the log will say.
    Logged(Box<(Record, Told)>),
    /// What a report of a failure would say.
    Rest { route: Option<RouteId>, pool: Option<PoolId>, backend: Option<BackendId>, attempts: u8 },
}

impl Noted {
    fn of(record: Record, told: Option<Told>) -> Noted {
        if let Some(told) = told {
            return Noted::Logged(Box::new((record, told)));
        }
        let Record { route, pool, backend, attempts, .. } = record;
        Noted::Rest { route, pool, backend, attempts }
    }

    fn all(self) -> (Record, Option<Told>) {
        match self {
            Noted::Logged(noted) => (noted.0, Some(noted.1)),
            Noted::Rest { route, pool, backend, attempts } => {
                (Record { route, pool, backend, attempts, ..Record::default() }, None)
            }
        }
    }
}

/// What bytes come from and go to, up and down.
type Lanes = Box<[(Option<Source>, Sink); 2]>;

/// Serves a connection, from accept to its line in the log. A client for which there is no backend
/// is reset: a clean end would look like a server that has nothing to say.
pub(crate) fn run(
    worker: &Rc<Worker>,
    client: Client,
    hello: Option<ClientHello>,
    arrived: Arrived,
) -> impl Future<Output = ()> + use<> {
    // What it takes to find a backend is gone when bytes pass.
    let begun = Box::pin(begin(Rc::clone(worker), client, hello, arrived));
    async move {
        if let Some((passing, lanes)) = begun.await {
            let (up, down) = passing.begins(lanes);
            passing.tunnel.relay(up, down).await;
            (*passing).end();
        }
    }
}

/// Begins an exchange and finds a backend; of the exchange the rest stays.
async fn begin(
    worker: Rc<Worker>,
    mut client: Client,
    hello: Option<ClientHello>,
    arrived: Arrived,
) -> Option<(Box<Passing>, Lanes)> {
    let scratch = worker.scratch();
    let mut exchange = Exchange::begin(&worker, &mut client, scratch, BodyLength::None);
    let hello = hello.unwrap_or_else(|| said(&client));
    let joined = match route(&worker, &client, &mut exchange, &hello) {
        Ok(pool) => join(&worker, &mut client, &mut exchange, pool).await,
        Err(fault) => Err(fault),
    };
    let pool = exchange.pool;
    let life_min = match joined {
        Ok(_) => exchange.pool_plan().passive.life_min,
        Err(_) => Duration::ZERO,
    };
    let Exchange { in_force, mut scratch, began, _under_way: gauge, .. } = exchange;
    let mut record = std::mem::take(&mut scratch.record);
    let tries = std::mem::take(&mut scratch.tries);
    let told = record.logged.then_some(Told { host: hello.name, tries });
    worker.recycle(scratch);
    let under_way = UnderWay { began, gauge };
    let (backend, pick) = match joined {
        Ok(joined) => joined,
        Err(fault) => {
            record.fail(fault);
            let has_left = fault.side == Side::Client;
            record.ended_by = Some(if has_left { Side::Client } else { Side::Proxy });
            finish::passed(&worker, &mut client, (in_force, under_way), (record, told));
            arrived.stream.reset_on_close();
            return None;
        }
    };
    let up = (client.body(), backend.tunnel());
    let down = (Some(backend.all(&worker.buffers)), client.tunnel());
    let listener = arrived.peer.listener;
    let timeouts = in_force.plan.listener(listener).timeouts;
    let peer = if told.is_some() { arrived.peer } else { worker.nobody(listener) };
    let view = in_force.pool(pool);
    let proof = Proof::new(view, pick.backend(), worker.clock.tick(), life_min);
    let ends = (client.waits(), backend.waits());
    let passing = Passing {
        tunnel: Tunnel::new(&worker, ends, (timeouts, Some(proof))),
        arrived: Arrived { peer, ..arrived },
        backend: matches!(backend, Backend::H2(_)).then(|| Box::new(backend)),
        pick,
        open: Gauge::up(&worker.core, Counter::Tunnels),
        under_way,
        since: record.logged.then(Clock::moment),
        // It may last for hours, and longer than many plans.
        in_force: in_force.remnant(),
        noted: Noted::of(record, told),
    };
    Some((Box::new(passing), Box::new([up, down])))
}

impl Passing {
    /// What both ways begin with.
    fn begins(&self, lanes: Lanes) -> (Beginning<'_>, Beginning<'_>) {
        let [(up, to_backend), (down, to_client)] = *lanes;
        let up = self.tunnel.begin_up((None, up), to_backend);
        (up, down.and_then(|down| self.tunnel.begin(Way::Down, down, to_client)))
    }

    /// Records how it ended.
    fn end(self) {
        let Passing { tunnel, arrived, backend, pick, open, under_way, .. } = self;
        let Passing { since, in_force, noted, .. } = self;
        let (mut record, told) = noted.all();
        record.reset = backend.and_then(|backend| backend.stream_reset());
        tunnel.counts_for(&pick, &record);
        drop((pick, open));
        let reuse = tunnel.ended(&mut record, since);
        let Arrived { stream, peer, admitted } = arrived;
        if reuse == Reuse::Reset {
            stream.reset_on_close();
        }
        let mut client = Client::H1(h1::Client::unread(stream, peer));
        client.take_stalled();
        finish::passed(tunnel.worker(), &mut client, (in_force, under_way), (record, told));
        drop(admitted);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what a function returns; it is not called.
    fn size_of_output<A, R>(_: impl FnOnce(A) -> R) -> usize {
        size_of::<R>()
    }

    /// What a silent tunnel keeps besides its two sockets, each of thousands: one large future that
    /// is awaited without a box undoes it.
    #[test]
    fn a_silent_tunnel_keeps_little() {
        let runs = size_of_output(|(client, arrived): (Client, Arrived)| {
            run(unreachable(), client, None, arrived)
        });
        let keeps = size_of::<Passing>();
        println!("runs {runs} bytes, keeps {keeps} bytes");
        assert!(runs + keeps <= 760, "{runs} + {keeps} bytes");
    }

    fn unreachable<'a>() -> &'a Rc<Worker> {
        unreachable!("it is not called")
    }
}
