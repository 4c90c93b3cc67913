//! `health` of a pool: the probe, and the answer that it expects.
//!
//! A probe that could never be sent, or never succeed, is refused here. `policy` decides which
//! backends are up.

use std::time::Duration;

use super::{Check, both, route_text};
use crate::config::{
    file,
    problem::Problem,
    source::Position,
    units::{BadValue, write_duration},
    written::{Tables, Written},
};
use crate::plan::{GrpcProbe, Health, HttpProbe, Probe};

/// The kinds of probes; the contents of an HTTP probe are in other keys.
pub(crate) const PROBES: &[(&str, Kind)] =
    &[("http", Kind::Http), ("tcp", Kind::Tcp), ("grpc", Kind::Grpc)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Http,
    Tcp,
    Grpc,
}

/// Shortest interval: a probe is there to notice, and one ten times as often would be load.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Fields that a probe writes itself, since they frame or route it.
const FIELDS_OF_OURS: &[&str] = &["connection", "content-length", "transfer-encoding"];

impl Check<'_> {
    /// How backends are probed, if the key is present.
    pub(super) fn health(&mut self, key: Option<&Written<file::Health>>) -> Option<Health> {
        let written = key?.value.as_ref()?;
        let mut health = Health::default();
        let mut kind = Kind::Http;
        self.word("kind of probe", written.r#type.as_ref(), PROBES, &mut kind);
        let http = self.http_probe(written);
        health.probe = match kind {
            Kind::Http => Probe::Http(http),
            Kind::Tcp => {
                self.only_for_http(written, "tcp");
                Probe::Tcp
            }
            Kind::Grpc => {
                self.only_for_http(written, "grpc");
                let mut probe = GrpcProbe::default();
                probe.host.clone_from(&http.host);
                if let Some((_, service)) = both(written.service.as_ref()) {
                    probe.service.clone_from(service);
                }
                Probe::Grpc(probe)
            }
        };
        if let Some(key) = written.service.as_ref().filter(|_| kind != Kind::Grpc) {
            self.note(
                Problem::warning("`service` has no effect on this kind of probe")
                    .at(key.place, "only gRPC has services")
                    .help("leave it out, or write type = \"grpc\""),
            );
        }
        let mut port = 0;
        self.whole_number(written.port.as_ref(), 1..=65_535, &mut port);
        health.port = (port != 0).then_some(port);
        self.whole_number(written.rise.as_ref(), 1..=1_000, &mut health.rise);
        self.whole_number(written.fall.as_ref(), 1..=1_000, &mut health.fall);
        self.interval_and_timeout(written, &mut health);
        Some(health)
    }

    fn interval_and_timeout(&mut self, written: &file::Health, health: &mut Health) {
        self.duration_above_zero(written.interval.as_ref(), &mut health.interval);
        if health.interval < INTERVAL_MIN
            && let Some((place, _)) = both(written.interval.as_ref())
        {
            let label = format!("expected \"{}\" or more", write_duration(INTERVAL_MIN));
            self.note(Problem::error("probes too often").at(place, label));
        }
        let Some(timeout) = &written.timeout else {
            // The default is lowered without a complaint, as no person wrote it.
            health.timeout = health.timeout.min(health.interval);
            return;
        };
        let right = self.duration_above_zero(Some(timeout), &mut health.timeout);
        if right && health.timeout > health.interval {
            let interval = write_duration(health.interval);
            let mut problem = Problem::error("timeout of a probe longer than its interval").at(
                timeout.place,
                format!("a probe must end before the next begins, after \"{interval}\""),
            );
            match &written.interval {
                Some(key) => problem = problem.at(key.place, "the interval"),
                None => {
                    problem = problem.help(format!("the interval is \"{interval}\" by default"))
                }
            }
            self.note(problem);
        }
    }

    fn http_probe(&mut self, written: &file::Health) -> HttpProbe {
        let mut probe = HttpProbe::default();
        if let Some((place, path)) = both(written.path.as_ref()) {
            match origin_form(path) {
                Ok(()) => probe.path.clone_from(path),
                Err(refusal) => self.refuse(place, refusal),
            }
        }
        if let Some((place, host)) = both(written.host.as_ref()) {
            self.host_literal(place, host, "expected a host");
            probe.host = Some(host.clone());
        }
        probe.headers = self.probe_headers(&written.headers);
        self.statuses(written.status.as_ref(), &mut probe.statuses);
        if let Some(list) = &written.status
            && list.0.is_empty()
        {
            self.note(
                Problem::error("probe that no status can satisfy")
                    .help("`status` of `health` is an empty list: write for example \"200-399\""),
            );
        }
        if let Some((place, body)) = both(written.body.as_ref()) {
            if body.is_empty() {
                self.note(
                    Problem::error("probe that looks for an empty text")
                        .at(place, "every body contains it")
                        .help("leave `body` out: any body is then accepted"),
                );
            }
            probe.body = Some(body.clone());
        }
        probe
    }

    fn probe_headers(&mut self, written: &Tables<String>) -> Vec<(String, String)> {
        let mut headers: Vec<(String, String)> = Vec::new();
        for (key, value) in &written.0 {
            let Some(name) = key.value.as_deref() else { continue };
            let name = name.to_ascii_lowercase();
            if let Err(refusal) = probe_field(&name) {
                self.refuse(key.place, refusal);
            }
            let Some((place, value)) = both(Some(value)) else { continue };
            if let Err(refusal) = route_text::field_value(value) {
                self.refuse(place, refusal);
            }
            if headers.iter().any(|(other, _)| *other == name) {
                self.note(
                    Problem::error(format!("`{name}` is sent twice"))
                        .at(key.place, "field names ignore case"),
                );
            }
            headers.push((name, value.clone()));
        }
        headers
    }

    /// Warns about keys that a probe of this type does not use.
    fn only_for_http(&mut self, written: &file::Health, kind: &str) {
        let place = |key: &Option<Written<String>>| key.as_ref().map(|key| key.place);
        let status = written.status.as_ref().and_then(|list| list.0.first());
        let header = written.headers.0.first();
        let useless: [(&str, Option<Position>); 5] = [
            ("path", place(&written.path)),
            ("host", place(&written.host).filter(|_| kind == "tcp")),
            ("headers", header.map(|(key, _)| key.place)),
            ("body", place(&written.body)),
            ("status", status.map(|item| item.place)),
        ];
        for (name, place) in useless {
            let Some(place) = place else { continue };
            self.note(
                Problem::warning(format!("`{name}` has no effect on a probe of type \"{kind}\""))
                    .at(place, "only a GET has one")
                    .help("leave it out, or write type = \"http\""),
            );
        }
    }
}

/// A target in origin form (RFC 9112 §3.2.1).
fn origin_form(text: &str) -> Result<(), BadValue> {
    let refusal =
        |label: &str| BadValue::new(format!("`{text}` is not the path of a probe"), label);
    if text.contains("://") {
        return Err(refusal("a URL, not a path")
            .help("write the path; the rest goes into `host` and `port` of `health`"));
    }
    if !text.starts_with('/') {
        return Err(refusal("a path begins with `/`").help(format!("write \"/{text}\"")));
    }
    if text.contains('#') {
        return Err(refusal("what follows `#` is never sent"));
    }
    // RFC 3986 appendix A: pchar, `/` and `?`.
    let may_stand = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{|}".contains(c);
    if !text.chars().all(may_stand) {
        return Err(refusal("expected characters that a request line can have")
            .help("percent-encode others: \"%20\" for a space"));
    }
    Ok(())
}

/// The name of a field that a probe may carry, in lower case.
fn probe_field(name: &str) -> Result<(), BadValue> {
    route_text::field_name(name)?;
    if name == "host" {
        return Err(BadValue::new("`host` among the headers of a probe", "has a key of its own")
            .help("write health = { host = … }"));
    }
    if FIELDS_OF_OURS.contains(&name) {
        let title = format!("`{name}` among the headers of a probe");
        return Err(BadValue::new(title, "a probe writes it itself"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_targets_that_can_be_sent() {
        for text in ["/", "/health", "/health?full=1", "/a%20b"] {
            assert_eq!(origin_form(text), Ok(()), "{text}");
        }
        for text in [
            "",
            "health",
            "http://a/health",
            "/a b",
            "/a\r\nb",
            "/a#b",
            "/ü",
            "/<a>",
            "/a|b",
            "/{a}",
        ] {
            assert!(origin_form(text).is_err(), "{text}");
        }
    }

    #[test]
    fn takes_fields_that_a_probe_does_not_write() {
        for name in ["x-probe", "authorization", "accept"] {
            assert_eq!(probe_field(name), Ok(()), "{name}");
        }
        for name in ["host", "content-length", "connection", "x probe", ""] {
            assert!(probe_field(name).is_err(), "{name}");
        }
    }
}
