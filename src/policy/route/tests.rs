//! Tests of the router: tables of the order that users rely on, spellings that must not lead past a
//! route, and random routes and requests compared with a plain search of the whole list, which uses
//! none of the router's tables.

use std::sync::Arc;

use super::*;
use crate::base::rng::Rng;
use crate::http::{
    fault::Cause,
    head::Method,
    headers::{Headers, Span},
    names::Name,
};
use crate::plan::PoolId;

/// A request's head as the parser would leave it.
fn head(method: &str, host: &str, path: &str, fields: &[(&str, &str)]) -> RequestHead {
    let mut headers = Headers::default();
    let mut add = |text: &str| {
        let start = headers.bytes.len();
        headers.bytes.extend_from_slice(text.as_bytes());
        Span::new(start, headers.bytes.len())
    };
    let (method_span, authority, path) = (add(method), add(host), add(path));
    for (name, value) in fields {
        headers.push(Name::Other, name.as_bytes(), value.as_bytes());
    }
    let method = if method == "GET" { Method::Get } else { Method::Other };
    RequestHead {
        headers,
        method,
        method_span,
        target: path,
        path,
        authority,
        ..RequestHead::default()
    }
}

/// A route from one line: `name method,method host,host path x=1 @listener ^priority`; of the path
/// `=/a` is exact, `~/a` an expression, `/a` a prefix; `*` leaves a part open.
fn route(line: &str) -> Route {
    let words: Vec<&str> = line.split_whitespace().collect();
    let list = |word: &str| -> Vec<String> {
        if word == "*" { Vec::new() } else { word.split(',').map(str::to_owned).collect() }
    };
    let host = |host: String| match host.strip_prefix('*') {
        Some(suffix) => HostPattern::Suffix(suffix.to_owned()),
        None => HostPattern::Exact(host),
    };
    let path = match words[3].split_at(1) {
        ("=", path) => PathPattern::Exact(path.to_owned()),
        ("~", expression) => PathPattern::Regex(expression.to_owned()),
        ("*", "") => PathPattern::Any,
        _ => PathPattern::Prefix(words[3].to_owned()),
    };
    let mut route = Route {
        name: words[0].to_owned(),
        listener: None,
        hosts: list(words[2]).into_iter().map(host).collect(),
        path,
        methods: list(words[1]),
        alpn: Vec::new(),
        headers: Vec::new(),
        priority: 0,
        pool: PoolId(0),
    };
    for word in &words[4..] {
        match word.split_at(1) {
            ("@", listener) => route.listener = Some(ListenerId(listener.parse().unwrap())),
            ("^", priority) => route.priority = priority.parse().unwrap(),
            _ => {
                let (name, value) = word.split_once('=').unwrap();
                route.headers.push((name.to_owned(), value.to_owned()));
            }
        }
    }
    route
}

/// Asks `routes`, in both orders, for a GET of listener 0; expects the route of that name, or none
/// if that is empty.
#[track_caller]
fn check(routes: &[&str], url: &str, expected: &str) {
    check_head(routes, &get(url, &[]), expected);
}

#[track_caller]
fn check_head(routes: &[&str], head: &RequestHead, expected: &str) {
    let mut routes: Vec<Route> = routes.iter().map(|line| route(line)).collect();
    for _ in 0..2 {
        let found = compile(&routes).find(ListenerId(0), head).unwrap();
        let name = found.map_or("", |id| &routes[id.index()].name);
        assert_eq!(name, expected, "{head:?}");
        routes.reverse();
    }
}

fn compile(routes: &[Route]) -> Router {
    Router::compile(&routes.iter().cloned().map(Arc::new).collect()).unwrap()
}

fn get(url: &str, fields: &[(&str, &str)]) -> RequestHead {
    let slash = url.find('/').unwrap_or(url.len());
    head("GET", &url[..slash], &url[slash..], fields)
}

#[test]
fn hosts_by_name_then_by_the_longest_suffix_then_any() {
    let routes = [
        "named * a.example.com *",
        "long  * *.example.com *",
        "short * *.com         *",
        "any   * *             *",
    ];
    check(&routes, "a.example.com/", "named");
    check(&routes, "b.example.com/", "long");
    check(&routes, "x.y.example.com/", "long");
    check(&routes, "example.com/", "short");
    check(&routes, "other.com/", "short");
    check(&routes, "com/", "any");
    check(&routes, ".com/", "any");
    check(&routes, "/", "any");
    check(&routes[..3], "a.example.org/", "");
}

#[test]
fn hosts_are_compared_without_case_port_and_last_dot() {
    let routes = ["named * a.example.com *", "six * [::1] *", "any * * *"];
    check(&routes, "A.Example.COM:8443/", "named");
    check(&routes, "a.example.com./", "named");
    check(&routes, "a.example.com.:80/", "named");
    check(&routes, "[::1]:80/", "six");
    check(&routes, "xa.example.com/", "any");
}

#[test]
fn paths_exact_then_the_longest_prefix_then_expressions_then_any() {
    let routes = [
        "exact  * * =/a/b",
        "long   * * /a/b",
        "short  * * /a/",
        "regex  * * ~^/(a|x)",
        "any    * * *",
    ];
    check(&routes, "h/a/b", "exact");
    check(&routes, "h/a/b/", "long");
    check(&routes, "h/a/b/c", "long");
    check(&routes, "h/a/bc", "short");
    check(&routes, "h/a", "short");
    check(&routes, "h/a/", "short");
    check(&routes, "h/ab", "regex");
    check(&routes, "h/x", "regex");
    check(&routes, "h/", "any");
    check(&routes, "h*", "any");
    check(&["root * * /", "regex * * ~x"], "h/x", "root");
}

#[test]
fn a_host_that_does_not_take_the_path_hands_it_on() {
    let routes = ["named * a.com /x", "suffix * *.com /y", "any * * /"];
    check(&routes, "a.com/x", "named");
    check(&routes, "a.com/y", "suffix");
    check(&routes, "a.com/z", "any");
}

#[test]
fn more_conditions_come_first_and_then_priority() {
    let routes = [
        "two   GET * /a x=1",
        "one   *   * /a x=1",
        "other *   * /a y=1 ^-1",
        "none  *   * /a ^9",
        "low   *   * /",
        "high  *   * / ^1",
        "here  *   * /b @0",
        "there GET * /b x=1 @1",
    ];
    let fields = |fields| get("h/a", fields);
    check_head(&routes, &fields(&[("X", "1"), ("y", "1")]), "two");
    check_head(&routes, &head("POST", "h", "/a", &[("x", "1"), ("y", "1")]), "one");
    check_head(&routes, &fields(&[("y", "2"), ("Y", "1")]), "other");
    check_head(&routes, &fields(&[("x", "11")]), "none");
    check(&routes, "h/c", "high");
    check_head(&routes, &get("h/b", &[("x", "1")]), "here");
    check_head(&["get GET * *"], &head("get", "h", "/", &[]), "");
}

#[test]
fn the_deeper_path_whose_conditions_fail_leaves_the_request_to_the_shallower() {
    let routes = ["exact POST * =/a/b", "deep POST * /a/b", "shallow * * /a", "regex * * ~b"];
    check(&routes, "h/a/b", "shallow");
}

#[test]
fn two_expressions_that_both_match_are_ordered_by_their_texts_alone() {
    check(&["z * * ~^/a", "a * * ~^/ab"], "h/abc", "a");
    check(&["z * * ~^/[a]", "a * * ~^/[b]|a"], "h/a", "a");
    check(&["b * * ~/aa", "a * * ~/aa"], "h/aa", "a");
}

/// The rule is in `http::target`.
#[test]
fn no_spelling_of_a_path_leads_past_a_route() {
    let routes = ["admin * * /admin", "any * * *"];
    for path in [
        "/%61dmin",
        "//admin",
        "/admin%2fx",
        "/%41dmin/../admin",
        "/x/%2e%2e/admin",
        "/admin;x",
        "/admin%3bx/y",
        "/;/admin",
        "/;a=b/;/admin;c",
        "/\\admin",
        "/%5cadmin",
        "/admin\\x",
        "/\\;%2f/adm%69n%5C",
        "/.;/admin",
        "/x;/..;/admin",
        "/x%5c%2e%2E%5cadmin",
    ] {
        let routes: Vec<Route> = routes.iter().map(|line| route(line)).collect();
        let found = compile(&routes).find(ListenerId(0), &get(&format!("h{path}"), &[]));
        assert!(matches!(found, Ok(Some(RouteId(0))) | Err(_)), "{path}: {found:?}");
    }
    let routes = [route("public * * /public"), route("any * * *")];
    let router = compile(&routes);
    let found = router.find(ListenerId(0), &get("h/public/../admin", &[]));
    assert_eq!(found, Err(Cause::BadRequest.into()));
}

#[test]
fn a_pattern_that_no_request_can_have_takes_none() {
    check(&["never * * /a/../b", "any * * *"], "h/b", "any");
}

/// The route that a plain search of the whole list finds: of all that match the request, the first
/// by host, then by `rank`.
fn search(routes: &[Route], listener: ListenerId, head: &RequestHead) -> Option<RouteId> {
    let text = |span| String::from_utf8(head.bytes(span).to_vec()).unwrap();
    let (method, host, path) = (text(head.method_span), text(head.authority), text(head.path));
    let host_rank = |route: &Route| {
        let ranks = route.hosts.iter().filter_map(|pattern| match pattern {
            HostPattern::Exact(name) => (*name == host).then_some(1_000),
            HostPattern::Suffix(suffix) => host.ends_with(suffix.as_str()).then_some(suffix.len()),
        });
        if route.hosts.is_empty() { Some(0) } else { ranks.max() }
    };
    let takes_path = |route: &Route| match &route.path {
        PathPattern::Any => true,
        PathPattern::Exact(exact) => *exact == path,
        PathPattern::Prefix(prefix) => {
            let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
            path == prefix || path.starts_with(&format!("{prefix}/"))
        }
        PathPattern::Regex(expression) => match expression.split_at(1) {
            ("^", start) => path.starts_with(start),
            _ => path.ends_with(expression.strip_suffix('$').unwrap()),
        },
    };
    let takes = |route: &Route| {
        route.listener.is_none_or(|one| one == listener)
            && (route.methods.is_empty() || route.methods.contains(&method))
            && route.headers.iter().all(|(name, value)| {
                let line = format!("{name}: {value}\r\n");
                head.headers.bytes.windows(line.len()).any(|window| window == line.as_bytes())
            })
    };
    (0..)
        .map(RouteId)
        .zip(routes)
        .filter(|(_, route)| takes(route) && takes_path(route))
        .filter_map(|(id, route)| Some((Reverse(host_rank(route)?), rank(route), id)))
        .min_by(|one, other| (&one.0, &one.1).cmp(&(&other.0, &other.1)))
        .map(|(_, _, id)| id)
}

#[test]
fn finds_what_a_plain_search_of_the_list_finds() {
    const HOSTS: [&str; 6] = ["a.b.c", "b.c", "c", "*.c", "*.b.c", "x.a.b.c"];
    const PATHS: [&str; 12] =
        ["*", "/", "/a", "/a/", "/a/b", "/b", "=/", "=/a", "=/a/", "=/a/b", "~^/a", "~b$"];
    const ASKED: [&str; 9] = ["/", "/a", "/a/", "/ab", "/a/b", "/a/b/", "/a/c", "/b", "/c/b"];
    let pick = |rng: &mut Rng, of: &[&'static str]| of[rng.below(of.len() as u32) as usize];
    let mut found = 0;
    for seed in 0..256 {
        let rng = &mut Rng::seeded(seed);
        let routes: Vec<Route> = (0..rng.below(40))
            .map(|number| {
                let hosts = pick(rng, &["*", "*", "1", "2"]);
                let hosts = match hosts {
                    "1" => pick(rng, &HOSTS).to_owned(),
                    "2" => format!("{},{}", pick(rng, &HOSTS), pick(rng, &HOSTS)),
                    open => open.to_owned(),
                };
                let method = pick(rng, &["*", "*", "GET", "PUT", "GET,PUT"]);
                let path = pick(rng, &PATHS);
                let mut line = format!("r{number:02} {method} {hosts} {path}");
                line += pick(rng, &["", "", " x=1", " x=2", " x=1 y=1"]);
                line += pick(rng, &["", "", " @0", " @1"]);
                line += pick(rng, &["", "", " ^1", " ^-1"]);
                route(&line)
            })
            .collect();
        let router = compile(&routes);
        for _ in 0..100 {
            let host = pick(rng, &HOSTS).trim_start_matches("*.");
            let fields = [("x", pick(rng, &["1", "2"])), ("y", pick(rng, &["1", "2"]))];
            let fields = &fields[..rng.below(3) as usize];
            let head = head(pick(rng, &["GET", "PUT", "HEAD"]), host, pick(rng, &ASKED), fields);
            let listener = ListenerId(rng.below(2) as u16);
            let expected = search(&routes, listener, &head);
            found += usize::from(expected.is_some());
            let actual = router.find(listener, &head).unwrap();
            assert_eq!(actual, expected, "seed {seed}: {head:?} of {routes:#?}");
        }
    }
    assert!(found > 10_000, "only {found} requests were taken by any route");
}
