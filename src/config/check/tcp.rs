//! Listeners of TCP and their routes: what is written for them must not need HTTP.

use super::{Check, section};
use crate::config::{
    file,
    problem::Problem,
    source::Position,
    written::{List, Tables, Written},
};
use crate::plan::{Algorithm, HashOf, Listener, Mode, Pool, Protocol, Route};

/// The help for a key of HTTP.
const LEAVE_OUT: &str = "leave it out, or write mode = \"http\"";

impl Check<'_> {
    /// Refuses what a listener of TCP cannot do.
    pub(super) fn tcp_listeners(
        &mut self,
        written: &Tables<file::Listener>,
        (listeners, routes): (&[Listener], &[Route]),
        pools: &[Pool],
    ) {
        for (place, ((key, written), listener)) in written.0.iter().zip(listeners).enumerate() {
            if let Some(written) = section(Some(written)).filter(|_| listener.mode == Mode::Tcp) {
                let is_led_on =
                    routes.iter().any(|it| it.listener.is_some_and(|it| it.index() == place));
                self.tcp_listener(key.place, written, (listener, pools), is_led_on);
            }
        }
    }

    /// Refuses what a route of a listener of TCP cannot know, and what one of HTTP cannot.
    pub(super) fn tcp_routes(
        &mut self,
        written: &List<file::Route>,
        (listeners, routes): (&[Listener], &[Route]),
        pools: &[Pool],
    ) {
        let read = written.0.iter().filter_map(|item| item.value.as_ref());
        for (written, route) in read.zip(routes) {
            let name = &route.name;
            let listener = route.listener.and_then(|id| listeners.get(id.index()));
            let alpn = written.alpn.0.first().map(|item| item.place);
            let Some(listener) = listener.filter(|it| it.mode == Mode::Tcp) else {
                if let Some(at) = alpn {
                    self.note(
                        Problem::error(format!("`alpn` of route \"{name}\" needs TCP"))
                            .at(at, "its listener has not the mode \"tcp\"")
                            .help("name a `listener` whose `mode` is \"tcp\""),
                    );
                }
                continue;
            };
            for (key, at) in keys_of_requests(written) {
                self.note(
                    Problem::error(format!("`{key}` of route \"{name}\" needs HTTP"))
                        .at(at, format!("listener \"{}\" has the mode \"tcp\"", listener.name))
                        .help("routes of TCP have `host`, `alpn` and `priority`"),
                );
            }
            if let Some(at) = alpn.filter(|_| listener.tls.is_some()) {
                self.note(
                    Problem::error(format!("`alpn` of route \"{name}\" is never known"))
                        .at(at, format!("listener \"{}\" ends TLS itself", listener.name))
                        .help("leave it out, or leave `tls` of the listener out"),
                );
            }
            if let Some(key) = &written.pool {
                self.pool_of_tcp(key.place, &listener.name, pools.get(usize::from(route.pool.0)));
            }
        }
    }

    fn tcp_listener(
        &mut self,
        place: Position,
        written: &file::Listener,
        (listener, pools): (&Listener, &[Pool]),
        is_led_on: bool,
    ) {
        let name = &listener.name;
        for (key, at) in keys_of_http(written) {
            self.note(
                Problem::error(format!("`{key}` of listener \"{name}\" needs HTTP"))
                    .at(at, "its `mode` is \"tcp\"")
                    .help(LEAVE_OUT),
            );
        }
        let Some(key) = &written.pool else {
            if is_led_on {
                return;
            }
            self.note(
                Problem::error(format!("listener \"{name}\" of TCP leads nowhere"))
                    .at(place, "has no `pool`")
                    .help("add for example: pool = \"app\""),
            );
            return;
        };
        let pool = listener.pool.and_then(|id| pools.get(usize::from(id.0)));
        self.pool_of_tcp(key.place, name, pool);
    }

    /// Refuses a pool that needs requests.
    fn pool_of_tcp(&mut self, place: Position, listener: &str, pool: Option<&Pool>) {
        if let Some((pool, what)) = pool.and_then(|pool| Some((pool, http_in(pool)?))) {
            let pool = &pool.name;
            self.note(
                Problem::error(format!("pool \"{pool}\" {what}, which needs HTTP"))
                    .at(place, format!("listener \"{listener}\" has the mode \"tcp\""))
                    .help("give the listener a pool of its own"),
            );
        }
    }
}

/// The keys of a listener that only HTTP has, and where they are written.
fn keys_of_http(written: &file::Listener) -> Vec<(&'static str, Position)> {
    fn at<T>(key: Option<&Written<T>>) -> Option<Position> {
        key.map(|key| key.place)
    }
    let timeouts = section(written.timeouts.as_ref());
    [
        ("protocols", written.protocols.0.first().map(|item| item.place)),
        ("trusted-proxies", written.trusted_proxies.0.first().map(|item| item.place)),
        ("half-close", at(written.half_close.as_ref())),
        ("timeouts.client-header", timeouts.and_then(|it| at(it.client_header.as_ref()))),
        ("timeouts.client-body", timeouts.and_then(|it| at(it.client_body.as_ref()))),
        ("timeouts.client-write", timeouts.and_then(|it| at(it.client_write.as_ref()))),
        ("timeouts.idle", timeouts.and_then(|it| at(it.idle.as_ref()))),
    ]
    .into_iter()
    .filter_map(|(key, at)| Some((key, at?)))
    .collect()
}

/// The keys of a route that only requests have.
fn keys_of_requests(written: &file::Route) -> Vec<(&'static str, Position)> {
    let path = |key: &Option<Written<String>>| key.as_ref().map(|key| key.place);
    [
        ("path", path(&written.path)),
        ("path-exact", path(&written.path_exact)),
        ("path-regex", path(&written.path_regex)),
        ("method", written.method.0.first().map(|item| item.place)),
        ("header", written.header.0.first().map(|(key, _)| key.place)),
    ]
    .into_iter()
    .filter_map(|(key, at)| Some((key, at?)))
    .collect()
}

/// What of a pool needs requests.
fn http_in(pool: &Pool) -> Option<&'static str> {
    match &pool.algorithm {
        Algorithm::Hash { of: HashOf::ClientIp, .. } => {}
        Algorithm::Hash { .. } => return Some("hashes a part of the request"),
        Algorithm::RoundRobin
        | Algorithm::Random
        | Algorithm::LeastConnections
        | Algorithm::IpHash
        | Algorithm::LeastResponseTime => {}
    }
    if pool.protocol != Protocol::H1 {
        return Some("speaks HTTP/2");
    }
    pool.sticky.is_some().then_some("is sticky by cookie")
}
