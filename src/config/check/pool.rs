//! `[pool.NAME]` and its backends.
//!
//! Large sections of a pool (`health`, `balance`, `retry`, `sticky` …) have files of their own;
//! `useless` reports keys that have no effect beside others.

use std::collections::HashMap;

use super::{Check, address, backend_address, both, section};
use crate::base::backend_set::BACKENDS_MAX;
use crate::config::{
    file,
    problem::Problem,
    source::Position,
    written::{List, Tables, Written},
};
use crate::plan::{
    Address, Backend, Connections, HostHeader, Pool, PoolTimeouts, Probe, Protocol, ProxyVersion,
    Queue, Share,
};

/// What may be spoken to backends.
pub(crate) const PROTOCOLS: &[(&str, Protocol)] =
    &[("h1", Protocol::H1), ("h2", Protocol::H2), ("h2c", Protocol::H2c)];

/// Most requests that may wait in front of one pool: each holds its connection and its buffers.
const QUEUE_MAX: i64 = 1_000_000;

impl Check<'_> {
    pub(super) fn pools(&mut self, written: &Tables<file::Pool>) -> Vec<Pool> {
        let mut pools = Vec::new();
        for (key, pool) in &written.0 {
            let name = key.value.clone().unwrap_or_default();
            self.name("pool", key.place, &name);
            if let Some(table) = pool.value.as_ref().filter(|_| !pool.holes) {
                self.backends_present(&name, key.place, &table.backends);
            }
            pools.push(self.pool(name, section(Some(pool)).unwrap_or(&file::Pool::default())));
        }
        pools
    }

    fn backends_present(&mut self, name: &str, place: Position, backends: &List<file::Backend>) {
        if backends.0.is_empty() {
            self.note(
                Problem::error(format!("pool \"{name}\" has no backends"))
                    .at(place, "no request would be answered")
                    .help("add for example: backends = [\"10.0.0.1:3000\"]"),
            );
        }
        if let Some(surplus) = backends.0.get(BACKENDS_MAX) {
            self.note(
                Problem::error(format!("pool \"{name}\" has too many backends"))
                    .at(surplus.place, format!("a pool holds at most {BACKENDS_MAX}")),
            );
        }
    }

    fn pool(&mut self, name: String, written: &file::Pool) -> Pool {
        let backends = self.backends(&name, &written.backends).into_iter().collect();
        let mut pool = Pool { backends, name, ..Pool::default() };
        self.duration(written.resolve.as_ref(), &mut pool.resolve);
        if let Some((place, _)) = both(written.resolve.as_ref())
            && pool.resolve < std::time::Duration::from_millis(100)
        {
            self.note(
                Problem::error("names looked up too often").at(place, "expected \"100ms\" or more"),
            );
        }
        self.balance(written.balance.as_ref(), &mut pool.algorithm);
        if let Some((_, seed)) = both(written.hash_seed.as_ref()) {
            pool.hash_seed.clone_from(seed);
        }
        self.word("protocol", written.protocol.as_ref(), PROTOCOLS, &mut pool.protocol);
        if let Some((place, host)) = both(written.host.as_ref()) {
            pool.host = self.host_header(place, host);
        }
        if let Some((_, client_cert)) = both(written.client_cert.as_ref()) {
            pool.client_cert = *client_cert;
        }
        pool.tls = self.pool_tls(&pool.name, written.tls.as_ref());
        pool.health = self.health(written.health.as_ref());
        self.passive(section(written.passive.as_ref()), &mut pool.passive);
        pool.breaker = self.breaker(written.breaker.as_ref());
        self.retry(written.retry.as_ref(), &mut pool.retry);
        pool.sticky = self.sticky(written.sticky.as_ref());
        self.duration(written.slow_start.as_ref(), &mut pool.slow_start);
        let share = Share::ZERO..=Share::percent(100);
        self.share(written.panic.as_ref(), share, "expected 0 to 1", &mut pool.panic);
        self.queue(section(written.queue.as_ref()), &mut pool.queue);
        self.connections(section(written.connections.as_ref()), &mut pool.connections);
        self.pool_timeouts(section(written.timeouts.as_ref()), &mut pool.timeouts);
        self.spoken(written, &pool);
        self.probe_spoken(written, &pool);
        self.send_proxy(written, &mut pool);
        self.useless(written, &pool);
        self.weightless(written, &pool);
        pool
    }

    /// Refuses a protocol that does not go with the other keys.
    fn spoken(&mut self, written: &file::Pool, pool: &Pool) {
        let Some((place, _)) = both(written.protocol.as_ref()) else { return };
        let (title, label, help) = match (pool.protocol, written.tls.is_some()) {
            (Protocol::H2, false) => (
                "protocol \"h2\" without TLS",
                "the pool has no `tls`",
                "add tls = {}, or write \"h2c\": HTTP/2 without TLS",
            ),
            (Protocol::H2c, true) => {
                ("protocol \"h2c\" over TLS", "the pool has `tls`", "write \"h2\": HTTP/2 over TLS")
            }
            (Protocol::H1, _) | (Protocol::H2, true) | (Protocol::H2c, false) => return,
        };
        self.note(Problem::error(title).at(place, label).help(help));
    }

    /// A probe of type "grpc" speaks HTTP/2.
    fn probe_spoken(&mut self, written: &file::Pool, pool: &Pool) {
        let is_grpc = pool.health.as_ref().is_some_and(|it| matches!(it.probe, Probe::Grpc(_)));
        if !is_grpc || pool.protocol != Protocol::H1 {
            return;
        }
        let Some(key) = written.health.as_ref() else { return };
        let kind = section(Some(key)).and_then(|health| health.r#type.as_ref());
        let place = kind.map_or(key.place, |kind| kind.place);
        let title = format!("the probes of pool \"{}\" speak gRPC, and it does not", pool.name);
        self.note(
            Problem::error(title)
                .at(place, "gRPC needs HTTP/2")
                .help("write for the pool: protocol = \"h2c\", or \"h2\" with `tls`"),
        );
    }

    /// A connection that has said who the client is serves no other, so none is kept.
    fn send_proxy(&mut self, written: &file::Pool, pool: &mut Pool) {
        let mut version = 0_u8;
        self.whole_number(written.send_proxy_protocol.as_ref(), 1..=2, &mut version);
        pool.send_proxy = match version {
            1 => Some(ProxyVersion::One),
            2 => Some(ProxyVersion::Two),
            _ => return,
        };
        if let Some((place, _)) = both(written.protocol.as_ref())
            && pool.protocol != Protocol::H1
        {
            self.note(
                Problem::error("a connection of HTTP/2 is for many clients")
                    .at(place, "`send-proxy-protocol` says who the one client is")
                    .help("write protocol = \"h1\", or leave `send-proxy-protocol` out"),
            );
        }
        pool.connections.idle_max = 0;
        let kept = section(written.connections.as_ref()).and_then(|it| both(it.max_idle.as_ref()));
        if let Some((place, _)) = kept.filter(|(_, most)| **most != 0) {
            self.note(
                Problem::warning("`max-idle` has no effect")
                    .at(place, "no connection is kept beside `send-proxy-protocol`")
                    .help("leave it out"),
            );
        }
    }

    /// Warns if no backend takes new traffic: for one backend that is intended, for all only
    /// briefly.
    fn weightless(&mut self, written: &file::Pool, pool: &Pool) {
        let weights = written.backends.0.iter().filter_map(|item| item.value.as_ref());
        let Some((place, _)) = weights.filter_map(|table| both(table.weight.as_ref())).next()
        else {
            return;
        };
        // A refused backend may have taken some.
        let all_are_known = pool.backends.len() == written.backends.0.len();
        if all_are_known && pool.backends.values().all(|backend| backend.weight == 0) {
            let title = format!("pool \"{}\" takes no new traffic", pool.name);
            let help = "0 is for a backend that is being drained; leave `weight` out for 1";
            self.note(
                Problem::warning(title).at(place, "all of its backends have weight 0").help(help),
            );
        }
    }

    fn queue(&mut self, written: Option<&file::Queue>, into: &mut Queue) {
        let Some(written) = written else { return };
        self.whole_number(written.size.as_ref(), 0..=QUEUE_MAX, &mut into.size);
        self.duration_above_zero(written.timeout.as_ref(), &mut into.timeout);
    }

    fn connections(&mut self, written: Option<&file::Connections>, into: &mut Connections) {
        let Some(written) = written else { return };
        self.whole_number(written.max_idle.as_ref(), 0..=65_535, &mut into.idle_max);
        self.duration(written.idle_timeout.as_ref(), &mut into.idle_timeout);
        let most = i64::from(u32::MAX);
        self.whole_number(written.max_requests.as_ref(), 0..=most, &mut into.requests_max);
    }

    fn pool_timeouts(&mut self, written: Option<&file::PoolTimeouts>, into: &mut PoolTimeouts) {
        let Some(written) = written else { return };
        self.duration(written.connect.as_ref(), &mut into.connect);
        self.duration(written.write.as_ref(), &mut into.write);
        self.duration(written.response.as_ref(), &mut into.response);
        self.duration(written.body.as_ref(), &mut into.body);
        self.duration(written.request.as_ref(), &mut into.request);
    }

    fn host_header(&mut self, place: Position, host: &str) -> HostHeader {
        match host {
            "client" => HostHeader::Client,
            "backend" => HostHeader::Backend,
            literal => {
                self.host_literal(place, literal, "expected \"client\", \"backend\" or a host");
                HostHeader::Literal(literal.to_owned())
            }
        }
    }

    /// A host in the form of a Host field, perhaps with a port.
    pub(super) fn host_literal(&mut self, place: Position, literal: &str, expected: &str) {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:[]".contains(c);
        if literal.is_empty() || !literal.chars().all(fits) {
            let problem = Problem::error(format!("`{literal}` is not a host")).at(place, expected);
            let is_of_nginx = literal == "$host" || literal == "$http_host";
            let help = "\"client\" is the Host that the client sent".to_owned();
            self.note(problem.help_if(is_of_nginx.then_some(help)));
        }
    }

    fn backends(&mut self, pool: &str, written: &List<file::Backend>) -> Vec<Backend> {
        let mut backends: Vec<Backend> = Vec::new();
        let mut places: Vec<(Position, Position)> = Vec::new();
        let mut hosts = HashMap::new();
        for item in &written.0 {
            let Some(table) = &item.value else { continue };
            let Some(key) = &table.address else {
                if item.holes {
                    continue;
                }
                self.note(
                    Problem::error(format!("a backend of pool \"{pool}\" has no address"))
                        .at(item.place, "has no `address`")
                        .help("add for example: address = \"10.0.0.1:3000\""),
                );
                continue;
            };
            let Some(backend) = self.backend(key, table) else { continue };
            self.doubtful_backend(key.place, &backend, &mut hosts);
            let name = table.name.as_ref().map_or(key.place, |name| name.place);
            for (before, (address_before, name_before)) in backends.iter().zip(&places) {
                if before.address == backend.address {
                    let title = format!("pool \"{pool}\" has {} twice", backend.name);
                    self.note(
                        Problem::error(title)
                            .at(key.place, "the same address again")
                            .at(*address_before, "first here")
                            .help("for a larger share write { address = …, weight = 2 }"),
                    );
                } else if before.name == backend.name {
                    let title =
                        format!("two backends of pool \"{pool}\" are called \"{}\"", backend.name);
                    self.note(
                        Problem::error(title)
                            .at(name, "the same name again")
                            .at(*name_before, "first here"),
                    );
                }
            }
            backends.push(backend);
            places.push((key.place, name));
        }
        backends
    }

    /// Warns of an address that cannot be a backend's, and of two spellings of one name. `hosts`
    /// are the names so far, in the form used to compare.
    fn doubtful_backend(
        &mut self,
        place: Position,
        backend: &Backend,
        hosts: &mut HashMap<(String, u16), (Position, String)>,
    ) {
        match &backend.address {
            Address::Socket(address) => {
                let Some((label, help)) = address::doubtful(address) else { return };
                let title = format!("`{address}` is unlikely to be the address of a backend");
                self.note(Problem::warning(title).at(place, label).help(help));
            }
            Address::Srv { .. } | Address::Unix(_) => {}
            Address::Name { host, port } => {
                let key = (address::comparable(host), *port);
                let (first, written) = hosts.entry(key).or_insert((place, host.clone()));
                if written != host {
                    let title = format!("`{host}` and `{written}` are the same name");
                    self.note(
                        Problem::warning(title)
                            .at(place, "case and a dot at the end make no difference")
                            .at(*first, "first here")
                            .help("for a larger share write { address = …, weight = 2 }"),
                    );
                }
            }
        }
    }

    fn backend(&mut self, key: &Written<String>, table: &file::Backend) -> Option<Backend> {
        let text = key.value.as_deref()?;
        let address = match backend_address(text) {
            Ok(address) => address,
            Err(refusal) => {
                self.refuse(key.place, refusal);
                return None;
            }
        };
        let mut backend = Backend::new(text.to_owned(), address);
        if let Some((place, name)) = both(table.name.as_ref()) {
            self.name("backend", place, name);
            backend.name.clone_from(name);
        }
        self.whole_number(table.weight.as_ref(), 0..=256, &mut backend.weight);
        if let Some((_, backup)) = both(table.backup.as_ref()) {
            backend.backup = *backup;
        }
        let most = i64::from(u32::MAX);
        self.whole_number(table.max_in_flight.as_ref(), 0..=most, &mut backend.in_flight_max);
        Some(backend)
    }
}
