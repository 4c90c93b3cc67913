//! `[listener.NAME]`.

use std::path::PathBuf;

use ipnet::IpNet;

use super::{Check, Names, both, section};
use crate::config::{
    file,
    problem::Problem,
    source::Position,
    written::{Tables, Written},
};
use crate::plan::{AccessLog, AccessLogFormat, Listener, ListenerTimeouts, Mode, Protocols};

pub(crate) const ACCESS_LOG_FORMATS: &[(&str, AccessLogFormat)] = &[
    ("json", AccessLogFormat::Json),
    ("combined", AccessLogFormat::Combined),
    ("common", AccessLogFormat::Common),
];

pub(crate) const MODES: &[(&str, Mode)] = &[("http", Mode::Http), ("tcp", Mode::Tcp)];

/// A version of HTTP that clients may speak.
#[derive(Clone, Copy)]
enum Spoken {
    H1,
    H2,
}

const PROTOCOLS: &[(&str, Spoken)] = &[("h1", Spoken::H1), ("h2", Spoken::H2)];

impl Check<'_> {
    pub(super) fn listeners(
        &mut self,
        written: &Tables<file::Listener>,
        names: &Names,
    ) -> Vec<Listener> {
        let mut listeners = Vec::new();
        for (key, listener) in &written.0 {
            let name = key.value.clone().unwrap_or_default();
            self.name("listener", key.place, &name);
            let absent = file::Listener::default();
            self.loose_ends |= listener.holes || listener.value.is_none();
            let is_whole = listener.value.is_some() && !listener.holes;
            let listener = section(Some(listener)).unwrap_or(&absent);
            if is_whole && listener.bind.0.is_empty() {
                self.note(
                    Problem::error(format!("listener \"{name}\" listens nowhere"))
                        .at(key.place, "has no `bind`")
                        .help("add for example: bind = \"0.0.0.0:8080\""),
                );
            }
            listeners.push(self.listener(name, listener, names));
        }
        listeners
    }

    fn listener(&mut self, name: String, written: &file::Listener, names: &Names) -> Listener {
        let who = format!("listener \"{name}\"");
        let mut listener = Listener { name, ..Listener::default() };
        self.binds(written, &mut listener);
        self.word("mode", written.mode.as_ref(), MODES, &mut listener.mode);
        let mut spoken = Protocols::default();
        (spoken.h1, spoken.h2) = (false, false);
        for (place, text) in written.protocols.0.iter().filter_map(|item| both(Some(item))) {
            match self.choose("protocol", place, text, PROTOCOLS) {
                Some(Spoken::H1) => spoken.h1 = true,
                Some(Spoken::H2) => spoken.h2 = true,
                None => {}
            }
        }
        if spoken.h1 || spoken.h2 {
            listener.protocols = spoken;
        }
        if listener.mode == Mode::Tcp {
            // Whoever has said all may still be told something.
            listener.half_close = true;
            (listener.protocols.h1, listener.protocols.h2) = (false, false);
        }
        if let Some(pool) = &written.pool {
            listener.pool = self.pool_named(&who, pool, names);
        }
        listener.tls = self.listener_tls(&listener.name, written.tls.as_ref());
        for (place, text) in written.trusted_proxies.0.iter().filter_map(|item| both(Some(item))) {
            listener.trusted_proxies.extend(self.network(place, text));
        }
        listener.proxies = self.proxies(written.proxy_protocol.as_ref());
        let most = i64::from(u32::MAX);
        self.whole_number(
            written.max_connections.as_ref(),
            0..=most,
            &mut listener.connections_max,
        );
        listener.access_log = self.access_log(written.access_log.as_ref());
        self.whole_number(written.backlog.as_ref(), 1..=1 << 20, &mut listener.backlog);
        if let Some((_, half_close)) = both(written.half_close.as_ref()) {
            listener.half_close = *half_close;
        }
        if let Some(timeouts) = section(written.timeouts.as_ref()) {
            self.listener_timeouts(timeouts, &mut listener.timeouts);
        }
        listener
    }

    fn listener_timeouts(&mut self, written: &file::ListenerTimeouts, into: &mut ListenerTimeouts) {
        self.duration(written.client_header.as_ref(), &mut into.client_header);
        self.duration(written.client_body.as_ref(), &mut into.client_body);
        self.duration(written.client_write.as_ref(), &mut into.client_write);
        self.duration(written.idle.as_ref(), &mut into.idle);
        self.duration(written.tls_handshake.as_ref(), &mut into.tls_handshake);
        self.duration(written.proxy_header.as_ref(), &mut into.proxy_header);
        self.duration(written.tunnel.as_ref(), &mut into.tunnel);
        self.duration(written.half_closed.as_ref(), &mut into.half_closed);
        self.duration(written.tunnel_life.as_ref(), &mut into.tunnel_life);
    }

    fn proxies(&mut self, written: Option<&Written<file::ProxyProtocol>>) -> Option<Vec<IpNet>> {
        let key = written?;
        let from = &key.value.as_ref()?.from.0;
        if from.is_empty() {
            self.note(
                Problem::error("`proxy-protocol` without a proxy")
                    .at(key.place, "has no `from`")
                    .help("add for example: from = [\"10.0.0.0/8\"]; nobody else may connect"),
            );
        }
        let texts = from.iter().filter_map(|item| both(Some(item)));
        Some(texts.filter_map(|(place, text)| self.network(place, text)).collect())
    }

    /// `10.0.0.0/8`, or one address.
    fn network(&mut self, place: Position, text: &str) -> Option<IpNet> {
        if let Ok(address) = text.parse::<std::net::IpAddr>() {
            return Some(IpNet::from(address));
        }
        let problem = Problem::error(format!("`{text}` is not a network"));
        match text.parse::<IpNet>() {
            Ok(network) if network == network.trunc() => return Some(network),
            Ok(network) => {
                let help = format!("write \"{}\"", network.trunc());
                self.note(problem.at(place, "bits are set beyond its length").help(help));
            }
            Err(_) => {
                let help = "write for example \"10.0.0.0/8\", \"fd00::/8\" or \"10.0.0.1\"";
                self.note(problem.at(place, "expected an address and a prefix length").help(help));
            }
        }
        None
    }

    fn access_log(&mut self, written: Option<&Written<file::AccessLog>>) -> Option<AccessLog> {
        let key = written?;
        let written = key.value.as_ref()?;
        let mut format = AccessLogFormat::default();
        self.word("format", written.format.as_ref(), ACCESS_LOG_FORMATS, &mut format);
        let Some(path) = &written.path else {
            self.note(
                Problem::error("access log without a path")
                    .at(key.place, "has no `path`")
                    .help("add a file, or path = \"-\" for standard output"),
            );
            return None;
        };
        let (place, path) = both(Some(path))?;
        if path.is_empty() {
            self.note(
                Problem::error("access log without a path")
                    .at(place, "not a file name")
                    .help("leave `access-log` out for none; path = \"-\" is standard output"),
            );
            return None;
        }
        Some(AccessLog { path: (path != "-").then(|| PathBuf::from(path)), format })
    }
}
