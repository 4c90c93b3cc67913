//! Listeners of TCP: what is written for them must not need HTTP.

use super::{Check, section};
use crate::config::{
    file,
    problem::Problem,
    source::Position,
    written::{Tables, Written},
};
use crate::plan::{Algorithm, HashOf, Listener, Mode, Pool};

/// The help for a key of HTTP.
const LEAVE_OUT: &str = "leave it out, or write mode = \"http\"";

impl Check<'_> {
    /// Refuses what a listener of TCP cannot do.
    pub(super) fn tcp_listeners(
        &mut self,
        written: &Tables<file::Listener>,
        listeners: &[Listener],
        pools: &[Pool],
    ) {
        for ((key, written), listener) in written.0.iter().zip(listeners) {
            if let Some(written) = section(Some(written)).filter(|_| listener.mode == Mode::Tcp) {
                self.tcp_listener(key.place, written, (listener, pools));
            }
        }
    }

    fn tcp_listener(
        &mut self,
        place: Position,
        written: &file::Listener,
        (listener, pools): (&Listener, &[Pool]),
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
            self.note(
                Problem::error(format!("listener \"{name}\" of TCP leads nowhere"))
                    .at(place, "has no `pool`")
                    .help("add for example: pool = \"app\""),
            );
            return;
        };
        let pool = listener.pool.and_then(|id| pools.get(usize::from(id.0)));
        if let Some((pool, what)) = pool.and_then(|pool| Some((pool, http_in(pool)?))) {
            let pool = &pool.name;
            self.note(
                Problem::error(format!("pool \"{pool}\" {what}, which needs HTTP"))
                    .at(key.place, format!("listener \"{name}\" has the mode \"tcp\""))
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
    pool.sticky.is_some().then_some("is sticky by cookie")
}
