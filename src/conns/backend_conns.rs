//! All connections to one backend: a connection pool for each of its addresses.
//!
//! Warm connections are taken from the addresses in turn, new ones begin with the next in turn; an
//! address that failed recently is tried last (`policy::connect`). Changes of a backend's name are
//! handled here: an address that stays keeps its connections, one that vanishes has its idle ones
//! closed at once and the others when they are returned. `opening.rs` takes and makes them.

use std::rc::Rc;

use super::{Conns, Idle, Means, links::Links};
use crate::base::{
    endpoint::Endpoint,
    ids::{BackendId, PoolId},
    moment::Tick,
};
use crate::net::tls::ToBackend;
use crate::plan::{Connections, PoolTls, Protocol};
use crate::policy::connect;
use crate::proto::{Backend, h2::Bell};
use crate::shared::counters::Counter;

/// The addresses of one backend and the connections to each.
pub(crate) struct BackendConns {
    pub(super) all: Vec<At>,
    /// Whose turn it is: an index in `all`.
    turn: usize,
    /// The last number given to an address. A connection refers to its address by it, since indexes
    /// change.
    last_number: u32,
    pub(super) options: Connections,
    pub(super) means: Rc<Means>,
    /// What is spoken on them.
    pub(super) protocol: Protocol,
    /// Rung when a connection of many requests may have room, or an end.
    pub(super) bell: Rc<Bell>,
    /// Which backend it is, and its host as written.
    pub(super) of: (PoolId, BackendId),
    pub(super) host: Box<str>,
    /// How it speaks TLS, if it does.
    pub(super) tls: Option<PoolTls>,
    /// What a handshake with it needs, once one was made.
    pub(super) to: Option<Rc<ToBackend>>,
    /// Whether its connections begin with a PROXY header.
    pub(super) greets: bool,
    /// Why TLS to it failed last.
    pub(super) why: Option<String>,
    /// When an answer on a connection of it was whole last; none = never.
    answered: Option<Tick>,
}

/// One address.
pub(super) struct At {
    number: u32,
    pub(super) address: Endpoint,
    conns: Conns,
    links: Links,
    /// Until then it is tried last; none if it has not failed.
    avoided_until: Option<Tick>,
}

impl BackendConns {
    /// Without addresses yet. The core's index lets cores begin with different ones.
    pub(crate) fn new(
        (of, host): ((PoolId, BackendId), &str),
        options: Connections,
        core_index: usize,
        means: Rc<Means>,
    ) -> BackendConns {
        let (all, host) = (Vec::new(), host.into());
        let (turn, last_number, tls, to, why) = (core_index, 0, None, None, None);
        let (answered, protocol, bell, greets) = (None, Protocol::default(), Rc::default(), false);
        BackendConns {
            all,
            turn,
            last_number,
            options,
            means,
            protocol,
            bell,
            of,
            host,
            tls,
            to,
            greets,
            why,
            answered,
        }
    }

    /// Replaces the addresses.
    pub(crate) fn move_to(&mut self, addresses: &[Endpoint]) {
        let mut before = std::mem::take(&mut self.all);
        for address in addresses {
            let at = match before.iter().position(|at| at.address == *address) {
                Some(place) => before.swap_remove(place),
                None => self.fresh(*address),
            };
            self.all.push(at);
        }
        before.iter_mut().for_each(|gone| gone.clear(&self.means));
        self.turn %= self.all.len().max(1);
    }

    /// Keeps connections by these options from now on.
    pub(crate) fn set_options(&mut self, options: Connections) {
        self.options = options;
        self.all.iter_mut().for_each(|at| at.conns.options = options);
    }

    /// Keeps no connections from now on, and closes idle ones.
    pub(crate) fn keep_none(&mut self) {
        self.set_options(Connections { idle_max: 0, ..self.options });
        self.clear();
    }

    pub(super) fn fresh(&mut self, address: Endpoint) -> At {
        self.last_number = self.last_number.wrapping_add(1);
        let conns = Conns::new(self.options);
        let links = Links::default();
        At { number: self.last_number, address, conns, links, avoided_until: None }
    }

    /// The connections of many requests to an address, if that is still one of the backend's.
    pub(super) fn links(&mut self, number: u32) -> Option<&mut Links> {
        self.all.iter_mut().find(|at| at.number == number).map(|at| &mut at.links)
    }

    /// A place in a connection to the address whose turn it is, if one is at hand.
    pub(super) fn place(&mut self, now: Tick, unrepeatable: bool) -> Option<Backend> {
        let at = self.all.get(self.turn)?;
        let place = at.links.at_hand(now, unrepeatable)?.take(self.of);
        self.next();
        Some(Backend::H2(place))
    }

    /// An idle connection of the next address that has one; see `Conns::take`.
    #[inline]
    pub(super) fn take(&mut self, now: Tick, unrepeatable: bool) -> Option<Idle> {
        for _ in 0..self.all.len() {
            let place = self.next();
            let idle = self.all.get_mut(place)?.conns.take(now, unrepeatable, &self.means);
            if idle.is_some() {
                return idle;
            }
        }
        None
    }

    /// The index whose turn it is; advances the turn.
    fn next(&mut self) -> usize {
        let place = self.turn;
        self.turn = if place + 1 < self.all.len() { place + 1 } else { 0 };
        place
    }

    /// Keeps a connection, if it may be kept and its address still belongs to the backend.
    #[inline]
    pub(crate) fn give(&mut self, backend: Backend, now: Tick) {
        self.answered = Some(now);
        // A connection of many requests stays where it is.
        let Backend::H1(backend) = backend else { return };
        if let Some(at) = self.all.iter_mut().find(|at| at.number == backend.address) {
            at.conns.give(backend, now, &self.means);
        }
    }

    /// The backend of this connection has sent more than an answer; see `Conns::suspect`.
    #[cold]
    pub(crate) fn suspect(&mut self, backend: &Backend, now: Tick) {
        let Backend::H1(backend) = backend else { return };
        self.suspect_at(backend.address, now);
    }

    pub(super) fn suspect_at(&mut self, number: u32, now: Tick) {
        if let Some(at) = self.all.iter_mut().find(|at| at.number == number) {
            at.conns.suspect(now, &self.means);
        }
    }

    /// Whether an idle connection is open at the other end, too. Those that are found closed are
    /// closed; if all were, whoever answered before may be gone.
    pub(crate) fn is_open(&mut self, now: Tick) -> bool {
        let BackendConns { all, means, .. } = self;
        let had_any = all.iter().any(|at| !at.conns.idle.is_empty());
        let is_open = all.iter_mut().any(|at| at.links.is_open() || at.conns.is_open(now, means));
        if had_any && !is_open {
            self.answered = None;
        }
        is_open
    }

    /// When an answer on a connection of it was whole last, if any was, and nothing has told since
    /// that it may be gone.
    pub(crate) fn answered(&self) -> Option<Tick> {
        self.answered
    }

    /// Closes idle connections whose time is over.
    pub(crate) fn expire(&mut self, now: Tick) {
        for at in &mut self.all {
            at.conns.expire(now, &self.means);
            at.links.expire(now, self.options);
        }
    }

    /// Appends since when each of them is idle.
    pub(crate) fn idle_since(&self, all: &mut Vec<Tick>) {
        for at in &self.all {
            all.extend(at.conns.idle.iter().map(|idle| idle.since));
            at.links.idle_since(all);
        }
    }

    /// Closes those that have been idle since `until` or longer, while there are any `left` to
    /// close.
    pub(crate) fn close_idle_since(&mut self, until: Tick, left: &mut usize) {
        let BackendConns { all, means, .. } = self;
        for at in all.iter_mut() {
            at.conns.close_idle_since(until, left, means);
            let evicted = at.links.close_idle_since(until, left);
            means.counters.add(Counter::BackendEvicted, evicted as u64);
        }
    }

    /// Closes all idle connections.
    pub(crate) fn clear(&mut self) {
        self.all.iter_mut().for_each(|at| at.clear(&self.means));
    }

    /// The addresses in the order to try them, by number.
    pub(super) fn in_turn(&mut self, now: Tick) -> Vec<(u32, Endpoint)> {
        let is_avoided = |at: &At| at.avoided_until.is_some_and(|until| now < until);
        let all: Vec<_> = self.all.iter().map(|at| (at.address, is_avoided(at))).collect();
        let order = connect::order(&all, self.turn);
        self.next();
        order.iter().map(|place| (self.all[*place].number, self.all[*place].address)).collect()
    }

    /// A connect to this address failed.
    pub(super) fn failed(&mut self, number: u32, now: Tick) {
        self.means.counters.add(Counter::BackendConnectFailures, 1);
        if let Some(at) = self.all.iter_mut().find(|at| at.number == number) {
            at.avoided_until = Some(now + connect::AVOIDED);
        }
    }
}

impl At {
    /// Closes what is idle, and what is not as soon as it is.
    fn clear(&mut self, means: &Means) {
        self.conns.clear(means);
        self.links.clear();
    }
}

impl Drop for BackendConns {
    fn drop(&mut self) {
        // Idle connections are counted.
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        net::{TcpListener, TcpStream},
        time::Duration,
    };

    use super::{
        super::{open, warm},
        *,
    };
    use crate::http::fault::{Cause, Fault};
    use crate::net::{
        buffer::Buffers,
        clock::Clock,
        deadlines::Deadlines,
        io::Manner,
        listener::{Bound, bind},
    };
    use crate::shared::counters::Slab;
    use crate::testkit::{eventually, on_both_drivers};

    const OF: (PoolId, BackendId) = (PoolId(0), BackendId(0));
    const OPTIONS: Connections =
        Connections { idle_max: 8, idle_timeout: Duration::from_secs(60), requests_max: 0 };

    /// The addresses of one backend, and what they need.
    struct Stage {
        conns: RefCell<BackendConns>,
        clock: Rc<Clock>,
        deadlines: Rc<Deadlines>,
        means: Rc<Means>,
        /// The other ends.
        accepted: RefCell<Vec<TcpStream>>,
    }

    impl Stage {
        fn new(addresses: &[Endpoint]) -> Stage {
            let clock = Rc::new(Clock::new());
            let means = Rc::new(Means {
                buffers: Buffers::new(8),
                counters: Slab::new(),
                tls: RefCell::default(),
                head_limits: Cell::default(),
            });
            let stage = Stage {
                conns: RefCell::new(BackendConns::new(
                    (OF, "a.example"),
                    OPTIONS,
                    0,
                    Rc::clone(&means),
                )),
                deadlines: Deadlines::new(Rc::clone(&clock)),
                clock,
                means,
                accepted: RefCell::default(),
            };
            stage.move_to(addresses);
            stage
        }

        fn move_to(&self, addresses: &[Endpoint]) {
            self.conns.borrow_mut().move_to(addresses);
        }

        async fn open(&self) -> Result<Backend, Fault> {
            let Stage { conns, clock, deadlines, .. } = self;
            open(
                conns,
                (Duration::from_secs(5), Manner::default()),
                clock,
                deadlines,
                (b"", || false),
            )
            .await
        }

        /// Opens a connection; returns which of these it went to.
        async fn opened(&self, of: &[&TcpListener]) -> (Backend, usize) {
            let backend = self.open().await.unwrap();
            of.iter().for_each(|listener| listener.set_nonblocking(true).unwrap());
            let mut accept = |listener: &&TcpListener| {
                let accepted = listener.accept().map(|(peer, _)| peer);
                accepted.map(|peer| self.accepted.borrow_mut().push(peer)).is_ok()
            };
            let place = of.iter().position(&mut accept).unwrap();
            (backend, place)
        }

        fn give(&self, backend: Backend) {
            self.conns.borrow_mut().give(backend, Tick::from_millis(1));
        }

        /// The number of the address that a warm connection belongs to.
        async fn take(&self) -> Option<u32> {
            let taken = warm(&self.conns, Tick::from_millis(1), false).await;
            taken.map(|backend| number_of(&backend))
        }

        fn idle(&self) -> u64 {
            self.means.counters.read(Counter::BackendIdle)
        }
    }

    fn number_of(backend: &Backend) -> u32 {
        let Backend::H1(backend) = backend else { panic!("another protocol") };
        backend.address
    }

    fn listening() -> (TcpListener, Endpoint) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().into();
        (listener, address)
    }

    /// An address that refuses: bound, so that no other socket gets it, and not listening.
    fn refusing() -> Bound {
        bind("127.0.0.1:0".parse().unwrap(), true, Duration::ZERO).unwrap().join(1).unwrap()
    }

    #[test]
    fn a_connection_is_opened_to_the_next_address_that_takes_it() {
        on_both_drivers(|| async {
            let (refusing, (one, first), (two, second)) = (refusing(), listening(), listening());
            let stage = Stage::new(&[refusing.address, first, second]);
            let mut opened = Vec::new();
            for _ in 0..4 {
                opened.push(stage.opened(&[&one, &two]).await.1);
            }
            assert!(opened.contains(&0) && opened.contains(&1), "{opened:?}");
            assert_eq!(opened[0], 0, "the one behind the first, which refuses");
            let failures = stage.means.counters.read(Counter::BackendConnectFailures);
            assert_eq!(failures, 1, "one that failed lately is tried last");
        });
    }

    #[test]
    fn without_an_address_that_takes_it_none_is_opened() {
        on_both_drivers(|| async {
            let (one, two) = (refusing(), refusing());
            let fault = Stage::new(&[one.address, two.address]).open().await.err().unwrap();
            assert_eq!(fault.cause, Cause::ConnectFailed);
            let fault = Stage::new(&[]).open().await.err().unwrap();
            assert_eq!(fault.cause, Cause::NameNotResolved);
        });
    }

    #[test]
    fn warm_connections_are_taken_from_the_addresses_in_turn() {
        on_both_drivers(|| async {
            let ((one, first), (two, second)) = (listening(), listening());
            let stage = Stage::new(&[first, second]);
            let mut kept = Vec::new();
            for _ in 0..4 {
                kept.push(stage.opened(&[&one, &two]).await.0);
            }
            kept.into_iter().for_each(|backend| stage.give(backend));
            let mut taken = Vec::new();
            for _ in 0..4 {
                taken.push(stage.take().await.unwrap());
            }
            assert!(taken[0] != taken[1] && taken[..2] == taken[2..], "{taken:?}");
            assert_eq!((stage.take().await, stage.idle()), (None, 0));
        });
    }

    #[test]
    fn an_address_that_stays_keeps_its_connections_and_one_that_goes_loses_them() {
        on_both_drivers(|| async {
            let ((one, first), (two, second)) = (listening(), listening());
            let stage = Stage::new(&[first, second]);
            let mut opened = Vec::new();
            for _ in 0..4 {
                opened.push(stage.opened(&[&one, &two]).await);
            }
            let busy = opened.split_off(2);
            let numbers: Vec<u32> = busy.iter().map(|(backend, _)| number_of(backend)).collect();
            opened.into_iter().for_each(|(backend, _)| stage.give(backend));
            assert_eq!(stage.idle(), 2);
            stage.move_to(&[second]);
            assert_eq!(stage.idle(), 1);
            // Those that were busy meanwhile: one has no address any more.
            let places: Vec<usize> = busy.iter().map(|(_, place)| *place).collect();
            busy.into_iter().for_each(|(backend, _)| stage.give(backend));
            assert_eq!(stage.idle(), 2);
            let stays = places.iter().position(|place| *place == 1).unwrap();
            for _ in 0..2 {
                assert_eq!(stage.take().await, Some(numbers[stays]));
            }
            // What is returned belongs to another address, though it has the old one's digits.
            stage.move_to(&[first, second]);
            assert!(!numbers.contains(&stage.conns.borrow().all[0].number));
        });
    }

    #[test]
    fn who_has_closed_what_was_idle_is_not_known_to_be_there_whenever_it_answered() {
        on_both_drivers(|| async {
            let (one, first) = listening();
            let stage = Stage::new(&[first]);
            let seen = || {
                let is_open = stage.conns.borrow_mut().is_open(Tick::from_millis(1));
                (is_open, stage.conns.borrow().answered().is_some())
            };
            let two = [stage.opened(&[&one]).await.0, stage.opened(&[&one]).await.0];
            two.into_iter().for_each(|backend| stage.give(backend));
            assert_eq!(seen(), (true, true));
            assert!(stage.take().await.is_some() && stage.take().await.is_some());
            assert_eq!(seen(), (false, true), "all are in use");
            stage.give(stage.opened(&[&one]).await.0);
            stage.accepted.borrow_mut().clear();
            eventually(|| seen() == (false, false)).await;
        });
    }
}
