//! What would become of a request, in words and by names: a core decides (`exchange/explain.rs`),
//! this thread asks it and adds what is known elsewhere.
//!
//! Why a route does not match is found by the router: it is compiled anew with one condition of the
//! route at a time, off the cores. So conditions have one meaning, that of the router.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use serde_json::{Value, json};

use super::{
    control::{Client, View},
    views,
};
use crate::admin::Explain;
use crate::base::ids::RouteId;
use crate::config;
use crate::http::{
    fault::{Cause, Fault},
    head::RequestHead,
    parse,
};
use crate::plan::{HostPattern, Listener, ListenerId, Mode, PathPattern, Plan, Route, Table};
use crate::policy::route::Router;
use crate::worker::{Answered, Explained, LeftOut, NoPick, Question, Standing, Way};

/// The answer to it.
///
/// # Errors
/// Why there is none, in a sentence.
pub(super) fn explain(client: &Client, asked: &Explain) -> Result<Value, String> {
    let view = client.view().ok_or("the control thread does not answer")?;
    let url = Url::of(&asked.url)?;
    let (listener, by) = listener(&view.plan, asked.listener.as_deref(), &url)?;
    let head = head(asked, &url)?;
    let from = asked.from.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let question = Question {
        listener,
        from: SocketAddr::new(from, 0),
        port: url.port,
        secure: by.tls.is_some(),
        head: head.clone(),
    };
    let answered = client.explain(question).ok_or("the core does not answer")?;
    let Answered { plan, route, pool, client: for_client, .. } = &*answered;
    let pool = pool.and_then(|id| plan.pools.get(id));
    let shown = pool.and_then(|pool| shown(&view, &pool.name));
    let (backends, picked) = backends(&answered, shown.as_ref());
    let mut answer = json!({
        "method": asked.method,
        "url": asked.url,
        "listener": by.name,
        "client": for_client.unwrap_or(from).to_string(),
        "route": route.and_then(|id| Some(&plan.routes.get(id)?.name)),
        "routes": routes(plan, *route, (listener, &head)),
        "pool": pool.map(|pool| &pool.name),
        "algorithm": pool.map(|pool| config::algorithm_word(&pool.algorithm)),
        "backends": backends,
        "picked": picked,
    });
    let (outcome, why) = outcome(&answered);
    (answer["outcome"], answer["why"]) = (outcome.into(), why.into());
    if let Err(Some(fault)) = &answered.decided {
        answer["refused"] = refused(*fault);
    } else if matches!(&answered.decided, Ok(Explained { picked: Err(NoPick::NoneUsable), .. })) {
        answer["refused"] = refused(Cause::NoBackend.into());
    }
    Ok(answer)
}

fn refused(fault: Fault) -> Value {
    let row = fault.cause.row();
    json!({ "status": fault.status(), "code": row.code, "error": row.sentence })
}

/// What it comes to, as a word and a sentence.
fn outcome(answered: &Answered) -> (&'static str, String) {
    match &answered.decided {
        Err(None) => ("answered", "OPTIONS with `Max-Forwards: 0` is answered by Ringway".into()),
        Err(Some(fault)) => ("refused", fault.cause.row().sentence.to_owned()),
        Ok(Explained { picked: Err(NoPick::NoneUsable), .. }) => {
            ("refused", "no backend may be asked".to_owned())
        }
        Ok(Explained { picked: Err(NoPick::AllFull(_)), .. }) => {
            let pool = answered.pool.and_then(|id| answered.plan.pools.get(id));
            match pool.map_or(0, |pool| pool.queue.size) {
                0 => ("refused", "all that may be asked are at `max-in-flight`".to_owned()),
                _ => ("waits", "all that may be asked are at `max-in-flight`: it waits".to_owned()),
            }
        }
        Ok(Explained { way, .. }) => {
            let pool = answered.pool.and_then(|id| answered.plan.pools.get(id));
            let algorithm = pool.map_or("", |pool| config::algorithm_word(&pool.algorithm));
            let why = match way {
                Way::Balanced => format!("by {algorithm}"),
                Way::Pinned => "the client's cookie names it".to_owned(),
                Way::LastResort => "there is no other".to_owned(),
            };
            ("picked", why)
        }
    }
}

/// A pool as the views show it.
fn shown(view: &View, name: &str) -> Option<Value> {
    views::pools(view).pools.into_iter().find(|pool| pool["name"] == name)
}

/// Each backend with its state and why it may be asked or not, and the name of the one picked.
fn backends(answered: &Answered, shown: Option<&Value>) -> (Vec<Value>, Option<String>) {
    let pool = answered.pool.and_then(|id| answered.plan.pools.get(id));
    let (Some(pool), Ok(explained)) = (pool, &answered.decided) else { return (Vec::new(), None) };
    let named = |id| pool.backends.get(id);
    let picked = explained.picked.ok().and_then(named).map(|backend| backend.name.clone());
    let of_view = |name: &str| {
        let mut all = shown?["backends"].as_array()?.iter();
        all.find(|backend| backend["name"] == name)
    };
    let backend = |(id, standing): &(_, Standing)| {
        let backend = named(*id)?;
        let seen = of_view(&backend.name);
        let text = |key: &str| seen.and_then(|it| it[key].as_str()).unwrap_or_default();
        let (state, reason) = (text("state"), text("reason"));
        let is_set = matches!(state, "draining" | "maintenance");
        let is_named = answered.pinned == Some(*id);
        let why = match standing {
            Standing::MayBeAsked if is_named => "may be asked; the client's cookie names it".into(),
            Standing::MayBeAsked => "may be asked".to_owned(),
            Standing::LeftOut(LeftOut::NoWeight) if is_set => format!("{state}: {reason}"),
            Standing::LeftOut(why) => left_out(*why).to_owned(),
            Standing::NoAddress => "its name has no address".to_owned(),
            Standing::Spare => format!("asked only if there is no other: {reason}"),
            Standing::Out => format!("{state}: {reason}"),
        };
        Some(json!({
            "name": backend.name,
            "address": backend.address.to_string(),
            "state": state,
            "mayBeAsked": *standing == Standing::MayBeAsked,
            "why": why,
            "picked": Some(&backend.name) == picked.as_ref(),
        }))
    };
    (explained.backends.iter().filter_map(backend).collect(), picked.clone())
}

fn left_out(why: LeftOut) -> &'static str {
    match why {
        LeftOut::Refuses => "it refused this core a connection less than a second ago",
        LeftOut::OnTrial => "on trial, and this request is better no trial: it cannot be repeated",
        LeftOut::IsWaitedFor => "requests wait for it",
        LeftOut::Full => "it has as many requests in flight as `max-in-flight` allows",
        LeftOut::IsTried => "on trial, and as many requests try it as may",
        LeftOut::NoWeight => "weight 0: only clients that stay with it",
        LeftOut::Backup => "a backup, and others can be asked",
    }
}

/// Each route, and why it takes the request or does not.
fn routes(plan: &Plan, taken: Option<RouteId>, asked: (ListenerId, &[u8])) -> Vec<Value> {
    let mut head = RequestHead::default();
    if parse::request(asked.1, &plan.limits.heads(), &mut head).is_err() {
        return Vec::new();
    }
    let of = |(id, route): (RouteId, &Arc<Route>)| {
        let why = match taken {
            Some(taken) if taken == id => "the most specific of those that match".to_owned(),
            _ => match misses(plan, route, (asked.0, &head)) {
                Some(why) => why,
                None => match taken.and_then(|id| plan.routes.get(id)) {
                    Some(taken) => format!("it matches, but `{}` is more specific", taken.name),
                    None => "it matches, but the request was refused before".to_owned(),
                },
            },
        };
        json!({ "name": route.name, "taken": taken == Some(id), "why": why })
    };
    plan.routes.iter().map(of).collect()
}

/// The first condition of a route that a request does not meet.
fn misses(
    plan: &Plan,
    route: &Route,
    (listener, head): (ListenerId, &RequestHead),
) -> Option<String> {
    let any = || Route::new(route.name.clone(), route.pool);
    let fails = |alone: Route| {
        let mut table = Table::new();
        table.insert(RouteId(0), Arc::new(alone));
        let found = Router::compile(&table).ok()?.find(listener, head);
        found.ok().flatten().is_none().then_some(())
    };
    let name = |id: ListenerId| plan.listeners.get(id).map_or("?", |listener| &listener.name);
    let of_listener = || route.listener.map_or("?", name);
    let quoted = |texts: &[String]| texts.join(", ");
    if fails(Route { listener: route.listener, ..any() }).is_some() {
        return Some(format!("its listener is {}", of_listener()));
    }
    if fails(Route { hosts: route.hosts.clone(), ..any() }).is_some() {
        let hosts: Vec<_> = route.hosts.iter().map(host).collect();
        return Some(format!("its host is {}", quoted(&hosts)));
    }
    if fails(Route { path: route.path.clone(), ..any() }).is_some() {
        return Some(format!("its path is {}", path(&route.path)));
    }
    if fails(Route { methods: route.methods.clone(), ..any() }).is_some() {
        return Some(format!("its method is {}", quoted(&route.methods)));
    }
    for header in &route.headers {
        if fails(Route { headers: vec![header.clone()], ..any() }).is_some() {
            return Some(format!("it wants the field `{}: {}`", header.0, header.1));
        }
    }
    None
}

fn host(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Exact(name) => name.clone(),
        HostPattern::Suffix(suffix) => format!("*{suffix}"),
    }
}

fn path(pattern: &PathPattern) -> String {
    match pattern {
        PathPattern::Any => "any".to_owned(),
        PathPattern::Exact(text) => format!("exactly {text}"),
        PathPattern::Prefix(text) => text.clone(),
        PathPattern::Regex(text) => format!("the expression {text}"),
    }
}

/// The parts of a URL that decide.
struct Url<'a> {
    is_https: bool,
    /// Host and port as written; none = only a path was given.
    authority: Option<&'a str>,
    port: u16,
    /// Path and query.
    target: String,
}

impl<'a> Url<'a> {
    fn of(text: &'a str) -> Result<Url<'a>, String> {
        let text = text.split('#').next().unwrap_or_default();
        if text.starts_with('/') {
            let target = text.to_owned();
            return Ok(Url { is_https: false, authority: None, port: 80, target });
        }
        let (is_https, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            Some((scheme, _)) => return Err(format!("`{scheme}` is neither http nor https")),
            None => (false, text),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let target = if target.starts_with('/') { target.into() } else { format!("/{target}") };
        // A colon behind the brackets of an IPv6 address.
        let host_end = authority.rfind(']').unwrap_or(0);
        let port = authority.get(host_end..).and_then(|rest| rest.split_once(':'));
        let otherwise = if is_https { 443 } else { 80 };
        let port = match port {
            Some((_, port)) => port.parse().map_err(|_| format!("`{port}` is no port"))?,
            None => otherwise,
        };
        if authority.is_empty() {
            return Err(format!("`{text}` names no host"));
        }
        Ok(Url { is_https, authority: Some(authority), port, target })
    }
}

/// The listener that such a request would come to: the named one; or that of its port and scheme,
/// of its port, of its scheme, or the first.
fn listener<'p>(
    plan: &'p Plan,
    name: Option<&str>,
    url: &Url<'_>,
) -> Result<(ListenerId, &'p Listener), String> {
    let all = || plan.listeners.iter().filter(|(_, listener)| listener.mode == Mode::Http);
    if let Some(name) = name {
        let found = all().find(|(_, listener)| listener.name == name);
        return found.ok_or_else(|| format!("there is no http listener `{name}`"));
    }
    let has_port = |it: &Listener| it.bind.iter().any(|at| at.port() == url.port);
    let has_scheme = |it: &Listener| it.tls.is_some() == url.is_https;
    let rank = |it: &Listener| {
        let has_port = url.authority.is_some() && has_port(it);
        u8::from(!has_port) * 2 + u8::from(!has_scheme(it))
    };
    all().min_by_key(|(_, it)| rank(it)).ok_or_else(|| "there is no http listener".to_owned())
}

/// The head that a client would send.
fn head(asked: &Explain, url: &Url<'_>) -> Result<Vec<u8>, String> {
    let breaks = |text: &str| text.bytes().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
    let of_head = asked.headers.iter().flat_map(|(name, value)| [name, value]);
    if of_head.chain([&asked.method, &asked.url]).any(|text| breaks(text)) {
        return Err("a line cannot have a line break in it".to_owned());
    }
    let is_host = |(name, _): &(String, String)| name.eq_ignore_ascii_case("host");
    let mut head = format!("{} {} HTTP/1.1\r\n", asked.method, url.target);
    if !asked.headers.iter().any(is_host) {
        head.push_str(&format!("Host: {}\r\n", url.authority.unwrap_or("localhost")));
    }
    for (name, value) in &asked.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    Ok(head.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let text = r#"
            [listener.web]
            bind = ["127.0.0.1:80", "127.0.0.1:8080"]
            [listener.other]
            bind = "127.0.0.1:9000"
            pool = "app"
            [[route]]
            name = "api"
            host = ["api.example", "*.api.example"]
            path = "/v1"
            method = ["GET", "HEAD"]
            header = { x-canary = "1" }
            listener = "web"
            pool = "app"
            [[route]]
            name = "all"
            path = "/"
            pool = "app"
            [pool.app]
            backends = ["127.0.0.1:9"]
        "#;
        config::parse("explain.toml", text).unwrap().plan.into_plan()
    }

    #[test]
    fn a_url_has_a_host_a_port_and_a_target() {
        let of = |text: &str| {
            let url = Url::of(text)?;
            let authority = url.authority.unwrap_or("-").to_owned();
            Ok((url.is_https, authority, url.port, url.target))
        };
        let url = |https, authority: &str, port, target: &str| {
            Ok::<_, String>((https, authority.to_owned(), port, target.to_owned()))
        };
        assert_eq!(of("http://a/b?c#d"), url(false, "a", 80, "/b?c"));
        assert_eq!(of("HTTPS://a:8443"), url(true, "a:8443", 8443, "/"));
        assert_eq!(of("https://[::1]/"), url(true, "[::1]", 443, "/"));
        assert_eq!(of("[::1]:81?x"), url(false, "[::1]:81", 81, "/?x"));
        assert_eq!(of("/x"), url(false, "-", 80, "/x"));
        assert_eq!(of("ftp://a/"), Err("`ftp` is neither http nor https".to_owned()));
        assert_eq!(of("http://a:x/"), Err("`x` is no port".to_owned()));
        assert_eq!(of("http:///x"), Err("`http:///x` names no host".to_owned()));
    }

    #[test]
    fn a_request_comes_to_the_listener_of_its_port() {
        let plan = plan();
        let named = |name, url: &str| {
            listener(&plan, name, &Url::of(url).unwrap()).map(|(_, it)| it.name.clone())
        };
        assert_eq!(named(None, "http://a/"), Ok("web".into()));
        assert_eq!(named(None, "http://a:9000/"), Ok("other".into()));
        assert_eq!(named(Some("other"), "http://a/"), Ok("other".into()));
        assert!(named(Some("none"), "http://a/").unwrap_err().contains("`none`"));
    }

    #[test]
    fn each_condition_that_is_not_met_is_named() {
        let plan = plan();
        let web = plan.listeners.iter().find(|(_, it)| it.name == "web").unwrap().0;
        let other = plan.listeners.iter().find(|(_, it)| it.name == "other").unwrap().0;
        let route = plan.routes.values().find(|route| route.name == "api").unwrap();
        let missed = |listener, head: &str| {
            let mut parsed = RequestHead::default();
            let text = format!("{head}\r\n\r\n");
            parse::request(text.as_bytes(), &plan.limits.heads(), &mut parsed).unwrap();
            misses(&plan, route, (listener, &parsed))
        };
        let good = "GET /v1/x HTTP/1.1\r\nHost: a.api.example\r\nX-Canary: 1";
        assert_eq!(missed(web, good), None);
        for (listener, head, why) in [
            (other, good.to_owned(), "its listener is web"),
            (web, good.replace("a.api", "b"), "its host is api.example, *.api.example"),
            (web, good.replace("/v1/x", "/v10"), "its path is /v1"),
            (web, good.replace("GET", "PUT"), "its method is GET, HEAD"),
            (web, good.replace(": 1", ": 2"), "it wants the field `x-canary: 1`"),
        ] {
            assert_eq!(missed(listener, &head).as_deref(), Some(why), "{head}");
        }
    }

    #[test]
    fn nothing_that_is_asked_about_breaks_its_line() {
        let explain = |method: &str, url: &str, field: (&str, &str)| {
            let asked = Explain {
                method: method.into(),
                url: url.into(),
                headers: vec![(field.0.into(), field.1.into())],
                ..Explain::default()
            };
            head(&asked, &Url::of(url).unwrap()).map(|head| String::from_utf8(head).unwrap())
        };
        let plain = explain("GET", "http://a/b", ("X", "1")).unwrap();
        assert_eq!(plain, "GET /b HTTP/1.1\r\nHost: a\r\nX: 1\r\n\r\n");
        let host = explain("GET", "http://a/b", ("host", "c")).unwrap();
        assert_eq!(host, "GET /b HTTP/1.1\r\nhost: c\r\n\r\n");
        for (method, url, field) in [
            ("GET\n", "http://a/", ("X", "1")),
            ("GET", "http://a/\r\nX", ("X", "1")),
            ("GET", "http://a/", ("X", "1\r\nY: 2")),
            ("GET", "http://a/", ("X\n", "1")),
        ] {
            assert!(explain(method, url, field).is_err(), "{method:?} {url:?} {field:?}");
        }
    }
}
