//! The configuration in force as TOML, with the origin of each value.
//!
//! Written from the plan and not from the files, so that it shows what was understood; the tree of
//! what was written only gives the origins. The output loads to the same plan.

use std::path::Path;

use super::{
    check::{
        ACCESS_LOG_FORMATS, ALGORITHMS, CLIENT_AUTH_MODES, DRIVERS, LOG_FORMATS, LOG_LEVELS, MODES,
        RETRY_ON, SAME_SITE, TLS_VERSIONS, UNKNOWN_NAMES, status_words, write_hash_of,
    },
    expand::FromFiles,
    foreign,
    source::Sources,
    tree::{Entry, Node, Value},
    units::{write_duration, write_share, write_size},
};
use crate::base::endpoint::Endpoint;
use crate::http::grpc;
use crate::plan::{
    Admin, Algorithm, Amendment, Backend, Breaker, CertificateFiles, Cores, Health, HedgeAfter,
    HostHeader, HostPattern, Listener, ListenerTls, Mode, Overlay, Passive, PathPattern, Plan,
    Pool, PoolTls, Probe, Protocol, ProxyVersion, Retry, RetryOn, Route, Settings, Statuses,
    Sticky, Subject, Webhook,
};

/// One table of the configuration.
pub(super) struct Section {
    /// `[pool.app]`.
    pub(super) header: String,
    pub(super) lines: Vec<Line>,
}

/// One key, its value, and where that came from.
pub(super) struct Line {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) origin: String,
    /// Whether it is only shown: a limit that was not written gives way if it does not fit.
    pub(super) is_told: bool,
}

/// The sections of a plan that was read from a tree.
pub(super) fn sections(
    plan: &Plan,
    root: &Node,
    (sources, from_files): (&Sources, &FromFiles),
) -> Vec<Section> {
    let nowhere = Node::empty();
    let named = |table: &str, name: &str| root.key(table).and_then(|table| table.key(name));
    let mut sections = Vec::new();
    let mut add = |header: String, node: Option<&Node>, fill: &dyn Fn(&mut Lines)| {
        let mut lines =
            Lines { list: Vec::new(), node: node.unwrap_or(&nowhere), sources, from_files };
        fill(&mut lines);
        sections.push(Section { header, lines: lines.list });
    };
    let global = root.key("global");
    add("[global]".to_owned(), global, &|lines| lines.global(plan));
    let limits = global.and_then(|global| global.key("limits"));
    add("[global.limits]".to_owned(), limits, &|lines| lines.limits(plan));
    for listener in plan.listeners.values() {
        let header = format!("[listener.{}]", bare_or_quoted(&listener.name));
        let node = named("listener", &listener.name);
        add(header, node, &|lines| lines.listener(listener, plan));
    }
    for (index, route) in plan.routes.values().enumerate() {
        let node = match root.key("route").map(|node| &node.value) {
            Some(Value::List(routes)) => routes.get(index),
            _ => root.key("route"),
        };
        add("[[route]]".to_owned(), node, &|lines| lines.route(route, plan));
    }
    for pool in plan.pools.values() {
        let header = format!("[pool.{}]", bare_or_quoted(&pool.name));
        add(header, named("pool", &pool.name), &|lines| lines.pool(pool));
    }
    for (index, webhook) in plan.global.webhooks.iter().enumerate() {
        let node = match root.key("webhook").map(|node| &node.value) {
            Some(Value::List(webhooks)) => webhooks.get(index),
            _ => root.key("webhook"),
        };
        add("[[webhook]]".to_owned(), node, &|lines| lines.webhook(webhook));
    }
    sections
}

/// Shows run-time changes where they apply: in the lists of backends.
pub(super) fn lay_over(sections: &mut [Section], plan: &Plan, overlay: &Overlay) {
    for pool in plan.pools.values() {
        let changes = overlay.changes.iter().filter(|(subject, _)| subject.pool == pool.name);
        let changes: Vec<(&Subject, &Amendment)> = changes.collect();
        let header = format!("[pool.{}]", bare_or_quoted(&pool.name));
        let section = sections.iter_mut().find(|section| section.header == header);
        let line = section.and_then(|it| it.lines.iter_mut().find(|it| it.key == "backends"));
        let Some(line) = line.filter(|_| !changes.is_empty()) else { continue };
        let of = |it: &Backend| {
            let is = |(subject, _): &&(&Subject, &Amendment)| {
                subject.backend == it.name && subject.address == it.address
            };
            changes.iter().find(is).map(|(_, amendment)| **amendment)
        };
        let mut lines: Vec<String> = line.value.lines().map(str::to_owned).collect();
        // The first line opens the list.
        for (shown, it) in lines.iter_mut().skip(1).zip(pool.backends.values()) {
            match of(it) {
                Some(Amendment::Removed) => {
                    *shown = format!("    # {}; removed at run time", shown.trim())
                }
                // What files bring is never shown.
                Some(Amendment::Set(_)) if shown.contains("${file:") => {}
                Some(Amendment::Set(settings)) => *shown = settled(it, settings),
                Some(Amendment::Added(_)) | None => {}
            }
        }
        let end = lines.pop().unwrap_or_default();
        for (subject, amendment) in changes {
            if let Amendment::Added(settings) = amendment {
                let it = Backend::new(subject.backend.clone(), subject.address.clone());
                lines.push(settled(&it, *settings));
            }
        }
        lines.push(end);
        line.value = lines.join("\n");
    }
}

/// A backend with values set at run time: what it is for cannot be written, so its share is.
fn settled(it: &Backend, settings: Settings) -> String {
    let mut shown = it.clone();
    shown.weight = settings.weight.unwrap_or(it.weight);
    shown.duty = settings.duty.unwrap_or(it.duty);
    let state = settings.duty.map_or(String::new(), |duty| format!(", {}", duty.word()));
    shown.weight = shown.share();
    format!("    {},  # run time{state}", backend(&shown))
}

/// The sections as a file, with comments that say where each value came from.
pub(super) fn text(sections: &[Section]) -> String {
    let mut text = String::new();
    for section in sections {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("{}\n", section.header));
        let setting = |line: &Line| {
            format!("{}{} = {}", if line.is_told { "# " } else { "" }, line.key, line.value)
        };
        let last =
            |line: &Line| setting(line).lines().last().map_or(0, |line| line.chars().count());
        // A column of comments, unless a few long lines would push it out of sight.
        let column = section.lines.iter().map(last).filter(|width| *width <= 60).max().unwrap_or(0);
        for line in &section.lines {
            if line.value.contains('\n') {
                // Its elements have their origins already, line by line.
                text.push_str(&format!("{}\n", setting(line)));
                continue;
            }
            let gap = " ".repeat(column.saturating_sub(last(line)) + 2);
            text.push_str(&format!("{}{gap}# {}\n", setting(line), line.origin));
        }
    }
    text
}

/// Collects the lines of one section.
struct Lines<'a> {
    list: Vec<Line>,
    node: &'a Node,
    sources: &'a Sources,
    from_files: &'a FromFiles,
}

impl Lines<'_> {
    fn add(&mut self, key: &str, value: String) {
        self.add_else(key, value, "default");
    }

    /// Like `add`, for a key whose value comes from `elsewhere` if it is not written.
    fn add_else(&mut self, key: &str, value: String, elsewhere: &str) {
        let written = key.split('.').try_fold(self.node, |node, part| node.key(part));
        let origin = written
            .map_or_else(|| elsewhere.to_owned(), |node| self.sources.name_and_line(node.place));
        let value = match self.nearest(key) {
            Some(node) if self.is_from_file(node) => self.as_written(node),
            _ => value,
        };
        self.list.push(Line { key: key.to_owned(), value, origin, is_told: false });
    }

    /// The node that was written for a key: its own, or the value that stands for its table.
    fn nearest(&self, key: &str) -> Option<&Node> {
        let mut node = self.node;
        for part in key.split('.') {
            match node.key(part) {
                Some(inner) => node = inner,
                None if matches!(node.value, Value::Table(_)) => return None,
                None => return Some(node),
            }
        }
        Some(node)
    }

    /// Whether a file supplied some of it.
    fn is_from_file(&self, node: &Node) -> bool {
        match &node.value {
            Value::List(list) => list.iter().any(|item| self.is_from_file(item)),
            Value::Table(entries) => entries.iter().any(|entry| self.is_from_file(&entry.node)),
            _ => self.from_files.are_at(node.place),
        }
    }

    /// A value as it was written, on one line if its strings are.
    fn as_written(&self, node: &Node) -> String {
        match &node.value {
            Value::List(items) => list(items.iter().map(|item| self.as_written(item))),
            Value::Table(entries) => {
                let pair = |entry: &Entry| {
                    format!("{} = {}", bare_or_quoted(entry.name()), self.as_written(&entry.node))
                };
                format!("{{ {} }}", entries.iter().map(pair).collect::<Vec<_>>().join(", "))
            }
            _ => self.sources.text(node.place).to_owned(),
        }
    }

    fn durations<const N: usize>(&mut self, keys: [(&str, std::time::Duration); N]) {
        for (key, duration) in keys {
            self.add(key, quoted(&write_duration(duration)));
        }
    }

    fn global(&mut self, plan: &Plan) {
        let global = &plan.global;
        self.add("cores", cores(&global.cores));
        self.add("pin", global.pin.to_string());
        self.add("driver", word(DRIVERS, global.driver));
        match &global.admin {
            Admin { bind: Some(address), token_file: None, .. } => {
                self.add("admin", quoted(&address.to_string()));
                let line = self.list.last_mut();
                line.into_iter().for_each(|line| line.is_told = !global.admin.is_written);
            }
            Admin { bind: Some(address), token_file: Some(path), .. } => {
                self.add("admin.bind", quoted(&address.to_string()));
                self.add("admin.token-file", quoted(&path.to_string_lossy()));
            }
            Admin { bind: None, .. } => self.add("admin", quoted("off")),
        }
        self.add_else("instance", quoted(&global.instance), "this machine");
        if let Some(folder) = &global.state_dir {
            self.add("state-dir", quoted(&folder.to_string_lossy()));
        }
        if let Some(user) = &global.user {
            self.add("user", quoted(user));
        }
        self.durations([
            ("shutdown.lameduck", global.shutdown.lameduck),
            ("shutdown.drain", global.shutdown.drain),
        ]);
        self.add("log.level", word(LOG_LEVELS, global.log_level));
        self.add("log.format", word(LOG_FORMATS, global.log_format));
    }

    fn limits(&mut self, plan: &Plan) {
        let limits = &plan.limits;
        self.add("connections", limits.connections.to_string());
        self.list.iter_mut().for_each(|line| line.is_told = !limits.connections_written);
        self.add("header-size", quoted(&write_size(limits.head_bytes_max.into())));
        self.add("headers", limits.fields_max.to_string());
        self.add("body-rate", quoted(&write_size(limits.body_rate_min)));
        self.add("body-size", quoted(&write_size(limits.body_bytes_max)));
    }

    fn listener(&mut self, listener: &Listener, plan: &Plan) {
        self.add("bind", list(listener.bind.iter().map(|at| bind(*at, listener))));
        self.add("mode", word(MODES, listener.mode));
        if let Some(pool) = listener.pool {
            self.add("pool", quoted(&plan.pool(pool).name));
        }
        if let Some(tls) = &listener.tls {
            self.listener_tls(tls);
        }
        let is_http = listener.mode == Mode::Http;
        if is_http {
            let spoken = [("h1", listener.protocols.h1), ("h2", listener.protocols.h2)];
            let spoken = spoken.into_iter().filter(|(_, is_spoken)| *is_spoken);
            self.add("protocols", list(spoken.map(|(name, _)| quoted(name))));
            let networks = listener.trusted_proxies.iter();
            self.add("trusted-proxies", list(networks.map(|network| quoted(&network.to_string()))));
        }
        if let Some(proxies) = &listener.proxies {
            let networks = proxies.iter().map(|network| quoted(&network.to_string()));
            self.add("proxy-protocol.from", list(networks));
        }
        self.add("max-connections", listener.connections_max.to_string());
        if let Some(log) = &listener.access_log {
            let path = log.path.as_ref().map_or("-".into(), |path| path.to_string_lossy());
            self.add("access-log.path", quoted(&path));
            self.add("access-log.format", word(ACCESS_LOG_FORMATS, log.format));
        }
        let timeouts = &listener.timeouts;
        if is_http {
            self.add("half-close", listener.half_close.to_string());
            self.durations([
                ("timeouts.client-header", timeouts.client_header),
                ("timeouts.client-body", timeouts.client_body),
                ("timeouts.client-write", timeouts.client_write),
                ("timeouts.idle", timeouts.idle),
            ]);
        }
        self.durations([
            ("timeouts.tls-handshake", timeouts.tls_handshake),
            ("timeouts.proxy-header", timeouts.proxy_header),
            ("timeouts.tunnel", timeouts.tunnel),
            ("timeouts.half-closed", timeouts.half_closed),
            ("timeouts.tunnel-life", timeouts.tunnel_life),
        ]);
        self.add("backlog", listener.backlog.to_string());
    }

    fn route(&mut self, route: &Route, plan: &Plan) {
        self.add("name", quoted(&route.name));
        if let Some(listener) = route.listener {
            self.add("listener", quoted(&plan.listener(listener).name));
        }
        if !route.hosts.is_empty() {
            self.add("host", list(route.hosts.iter().map(host)));
        }
        match &route.path {
            PathPattern::Any => {}
            PathPattern::Exact(path) => self.add("path-exact", quoted(path)),
            PathPattern::Prefix(path) => self.add("path", quoted(path)),
            PathPattern::Regex(expression) => self.add("path-regex", quoted(expression)),
        }
        if !route.methods.is_empty() {
            self.add("method", list(route.methods.iter().map(|method| quoted(method))));
        }
        if !route.alpn.is_empty() {
            self.add("alpn", list(route.alpn.iter().map(|one| quoted(one))));
        }
        for (name, value) in &route.headers {
            self.add(&format!("header.{}", bare_or_quoted(name)), quoted(value));
        }
        self.add("priority", route.priority.to_string());
        self.add("pool", quoted(&plan.pool(route.pool).name));
    }

    fn webhook(&mut self, webhook: &Webhook) {
        self.add("url", quoted(&webhook.url));
        if !webhook.events.is_empty() {
            self.add("events", list(webhook.events.iter().map(|word| quoted(word))));
        }
        self.add("retries", webhook.retries.to_string());
        self.durations([("timeout", webhook.timeout)]);
    }

    fn pool(&mut self, pool: &Pool) {
        self.backends(pool);
        self.durations([("resolve", pool.resolve)]);
        self.balance(&pool.algorithm);
        self.add("hash-seed", quoted(&pool.hash_seed));
        self.add(
            "protocol",
            quoted(match pool.protocol {
                Protocol::H1 => "h1",
                Protocol::H2 => "h2",
                Protocol::H2c => "h2c",
            }),
        );
        if foreign::is_built("pool", "client-cert") {
            self.add("client-cert", pool.client_cert.to_string());
        }
        self.add(
            "host",
            quoted(match &pool.host {
                HostHeader::Client => "client",
                HostHeader::Backend => "backend",
                HostHeader::Literal(host) => host,
            }),
        );
        match pool.send_proxy {
            Some(ProxyVersion::One) => self.add("send-proxy-protocol", "1".to_owned()),
            Some(ProxyVersion::Two) => self.add("send-proxy-protocol", "2".to_owned()),
            None => {}
        }
        if let Some(tls) = &pool.tls {
            self.pool_tls(tls);
        }
        if let Some(health) = &pool.health {
            self.health(health);
        }
        self.passive(&pool.passive);
        if let Some(breaker) = &pool.breaker {
            self.breaker(breaker);
        }
        self.retry(&pool.retry);
        if let Some(sticky) = &pool.sticky {
            self.sticky(sticky);
        }
        self.durations([("slow-start", pool.slow_start)]);
        self.add("panic", write_share(pool.panic));
        self.add("queue.size", pool.queue.size.to_string());
        self.durations([("queue.timeout", pool.queue.timeout)]);
        let connections = &pool.connections;
        self.add("connections.max-idle", connections.idle_max.to_string());
        self.durations([("connections.idle-timeout", connections.idle_timeout)]);
        self.add("connections.max-requests", connections.requests_max.to_string());
        let timeouts = &pool.timeouts;
        self.durations([
            ("timeouts.connect", timeouts.connect),
            ("timeouts.write", timeouts.write),
            ("timeouts.response", timeouts.response),
            ("timeouts.body", timeouts.body),
            ("timeouts.request", timeouts.request),
        ]);
    }

    fn balance(&mut self, algorithm: &Algorithm) {
        let Algorithm::Hash { of, bound } = algorithm else {
            self.add("balance", word(ALGORITHMS, algorithm.clone()));
            return;
        };
        self.add("balance.hash", quoted(&write_hash_of(of)));
        if let Some(bound) = bound {
            self.add("balance.bound", write_share(*bound));
        }
    }

    fn health(&mut self, health: &Health) {
        match &health.probe {
            Probe::Tcp => self.add("health.type", quoted("tcp")),
            Probe::Grpc(probe) => {
                self.add("health.type", quoted("grpc"));
                self.add("health.service", quoted(&probe.service));
                if let Some(host) = &probe.host {
                    self.add("health.host", quoted(host));
                }
            }
            Probe::Http(probe) => {
                self.add("health.type", quoted("http"));
                self.add("health.path", quoted(&probe.path));
                if let Some(host) = &probe.host {
                    self.add("health.host", quoted(host));
                }
                for (name, value) in &probe.headers {
                    self.add(&format!("health.headers.{}", bare_or_quoted(name)), quoted(value));
                }
                if let Some(body) = &probe.body {
                    self.add("health.body", quoted(body));
                }
                self.add("health.status", statuses(&probe.statuses));
            }
        }
        if let Some(port) = health.port {
            self.add("health.port", port.to_string());
        }
        self.durations([("health.interval", health.interval), ("health.timeout", health.timeout)]);
        self.add("health.rise", health.rise.to_string());
        self.add("health.fall", health.fall.to_string());
    }

    fn passive(&mut self, passive: &Passive) {
        self.add("passive.max-failures", passive.failures_max.to_string());
        self.add("passive.statuses", statuses(&passive.statuses));
        self.durations([("passive.eject", passive.eject)]);
        self.add("passive.max-ejected", write_share(passive.ejected_max));
        self.durations([("passive.min-life", passive.life_min)]);
    }

    fn breaker(&mut self, breaker: &Breaker) {
        self.add("breaker.error-ratio", write_share(breaker.error_ratio));
        self.add("breaker.min-requests", breaker.requests_min.to_string());
        self.durations([
            ("breaker.window", breaker.window),
            ("breaker.open", breaker.open),
            ("breaker.max-open", breaker.open_max),
        ]);
        self.add("breaker.probes", breaker.probes.to_string());
        self.add("breaker.successes", breaker.successes.to_string());
        self.add("breaker.allow-empty", breaker.allow_empty.to_string());
    }

    fn retry(&mut self, retry: &Retry) {
        self.add("retry.attempts", retry.attempts.to_string());
        self.add("retry.on", list(retry_on(retry.on)));
        self.durations([("retry.per-try", retry.per_try)]);
        match &retry.budget {
            None => self.add("retry.budget", quoted("off")),
            Some(budget) => {
                self.add("retry.budget.ratio", write_share(budget.ratio));
                self.add("retry.budget.per-second", budget.per_second.to_string());
            }
        }
        match &retry.hedge {
            None => self.add("retry.hedge", quoted("off")),
            Some(hedge) => {
                let after = match hedge.after {
                    HedgeAfter::Quantile(percent) => format!("p{percent}"),
                    HedgeAfter::Time(time) => write_duration(time),
                };
                self.add("retry.hedge.after", quoted(&after));
                self.add("retry.hedge.max", write_share(hedge.max));
            }
        }
        self.add("retry.body", quoted(&write_size(retry.body_bytes_max.into())));
    }

    fn sticky(&mut self, sticky: &Sticky) {
        self.add("sticky.cookie", quoted(&sticky.cookie));
        if let Some(path) = &sticky.secret_file {
            self.add("sticky.secret-file", quoted(&path.to_string_lossy()));
        }
        self.durations([
            ("sticky.max-idle", sticky.idle_max),
            ("sticky.max-life", sticky.life_max),
        ]);
        self.add("sticky.same-site", word(SAME_SITE, sticky.same_site));
    }

    fn listener_tls(&mut self, tls: &ListenerTls) {
        let pair = |files: &CertificateFiles| {
            let cert = quoted(&files.cert.to_string_lossy());
            let mut text = format!("{{ cert = {cert}");
            if files.key != files.cert {
                text.push_str(&format!(", key = {}", quoted(&files.key.to_string_lossy())));
            }
            if let Some(ocsp) = &files.ocsp {
                text.push_str(&format!(", ocsp = {}", quoted(&ocsp.to_string_lossy())));
            }
            text + " }"
        };
        self.add("tls.certificates", list(tls.certificates.iter().map(pair)));
        self.path("tls.directory", tls.directory.as_deref());
        self.add("tls.min-version", word(TLS_VERSIONS, tls.version_min));
        if let Some(auth) = &tls.client_auth {
            self.path("tls.client-auth.ca", Some(&auth.ca));
            self.add("tls.client-auth.mode", word(CLIENT_AUTH_MODES, auth.mode));
            self.path("tls.client-auth.crl", auth.crl.as_deref());
            self.add("tls.client-auth.depth", auth.depth.to_string());
        }
        self.add("tls.unknown-name", word(UNKNOWN_NAMES, tls.unknown_name));
        self.path("tls.ticket-secret-file", tls.ticket_secret_file.as_deref());
    }

    fn pool_tls(&mut self, tls: &PoolTls) {
        if let Some(name) = &tls.server_name {
            self.add("tls.server-name", quoted(name));
        }
        self.path("tls.ca", tls.ca.as_deref());
        if let Some(files) = &tls.identity {
            self.path("tls.cert", Some(&files.cert));
            self.path("tls.key", Some(files.key.as_path()).filter(|key| *key != files.cert));
        }
        self.add("tls.verify", tls.verify.to_string());
    }

    /// A path, if there is one.
    fn path(&mut self, key: &str, path: Option<&Path>) {
        if let Some(path) = path {
            self.add(key, quoted(&path.to_string_lossy()));
        }
    }

    fn origin(&self, node: Option<&Node>) -> String {
        let named = node.map(|node| self.sources.name_and_line(node.place));
        named.unwrap_or_else(|| "default".to_owned())
    }

    /// One backend per line, each with its own origin.
    fn backends(&mut self, pool: &Pool) {
        let key = self.node.key("backends");
        let mut text = String::from("[\n");
        for (index, shown) in pool.backends.values().enumerate() {
            let node = match key.map(|node| &node.value) {
                Some(Value::List(list)) => list.get(index),
                _ => key,
            };
            let origin = self.origin(node);
            let shown = match node {
                Some(node) if self.is_from_file(node) => self.as_written(node),
                _ => backend(shown),
            };
            text.push_str(&format!("    {shown},  # {origin}\n"));
        }
        text.push(']');
        // Its elements have been hidden one by one.
        let origin = self.origin(key);
        self.list.push(Line { key: "backends".to_owned(), value: text, origin, is_told: false });
    }
}

fn backend(backend: &Backend) -> String {
    let address = backend.address.to_string();
    let mut text = format!("{{ address = {}, weight = {}", quoted(&address), backend.weight);
    if backend.name != address {
        text.push_str(&format!(", name = {}", quoted(&backend.name)));
    }
    if backend.backup {
        text.push_str(", backup = true");
    }
    if backend.in_flight_max > 0 {
        text.push_str(&format!(", max-in-flight = {}", backend.in_flight_max));
    }
    text + " }"
}

fn bind(at: Endpoint, listener: &Listener) -> String {
    let address = quoted(&at.to_string());
    let Some(file) = listener.socket_files.iter().find(|it| Endpoint::Unix(it.path) == at) else {
        return address;
    };
    let mut text = format!("{{ address = {address}");
    if let Some(mode) = file.mode {
        text.push_str(&format!(", mode = \"{mode:04o}\""));
    }
    if let Some(owner) = &file.owner {
        text.push_str(&format!(", owner = {}", quoted(owner)));
    }
    text + " }"
}

fn cores(cores: &Cores) -> String {
    match cores {
        Cores::Auto => quoted("auto"),
        Cores::Count(count) => count.to_string(),
        // A range of one: a bare number would be a count.
        Cores::List(list) => quoted(&match list.as_slice() {
            [only] => format!("{only}-{only}"),
            list => list.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        }),
    }
}

fn host(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Exact(host) => quoted(host),
        HostPattern::Suffix(suffix) => quoted(&format!("*{suffix}")),
    }
}

fn retry_on(on: RetryOn) -> Vec<String> {
    let is_on = |(_, switch): &&(&str, fn(&mut RetryOn) -> &mut bool)| *switch(&mut on.clone());
    let words = RETRY_ON.iter().filter(is_on).map(|(word, _)| quoted(word));
    let of_grpc = grpc::STATUSES.iter().filter(|(_, status)| on.grpc >> status & 1 == 1);
    words.chain(of_grpc.map(|(word, _)| quoted(word))).collect()
}

/// One range as a string, more as a list of them.
fn statuses(statuses: &Statuses) -> String {
    let words: Vec<String> = status_words(statuses).map(|word| quoted(&word)).collect();
    match words.as_slice() {
        [only] => only.clone(),
        _ => list(words),
    }
}

/// The first word of a meaning.
fn word<T: PartialEq>(words: &[(&str, T)], meaning: T) -> String {
    let found = words.iter().find(|(_, other)| *other == meaning);
    quoted(found.map_or("", |(word, _)| word))
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(", "))
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn bare_or_quoted(key: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !key.is_empty() && key.chars().all(is_bare) { key.to_owned() } else { quoted(key) }
}
