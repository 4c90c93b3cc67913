//! Routes: which requests, and which pool answers them; and which of two routes is more specific.
//!
//! The order of routes in a file has no meaning. Of all routes that match a request the most
//! specific one applies. The configuration refuses a tie: two routes of which neither is more
//! specific.

use regex::bytes::{Regex, RegexBuilder};

use super::{ListenerId, PoolId};
use crate::http::target;

/// Which requests, and which pool answers them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Route {
    /// Its name in the configuration.
    pub name: String,
    /// The listener; none = all of them.
    pub listener: Option<ListenerId>,
    /// The hosts, in lower case without port or trailing dot; none = any.
    pub hosts: Vec<HostPattern>,
    /// The path.
    pub path: PathPattern,
    /// The methods; none = any.
    pub methods: Vec<String>,
    /// The protocols (ALPN) of which a client of a TCP listener must speak one; none = any.
    pub alpn: Vec<String>,
    /// Fields that must be present with exactly this value; names in lower case.
    pub headers: Vec<(String, String)>,
    /// Decides between two otherwise equal routes: the higher one applies.
    pub priority: i32,
    /// The pool that answers.
    pub pool: PoolId,
}

impl Route {
    /// A route for every request.
    #[must_use]
    pub fn new(name: String, pool: PoolId) -> Route {
        Route {
            name,
            listener: None,
            hosts: Vec::new(),
            path: PathPattern::Any,
            methods: Vec::new(),
            alpn: Vec::new(),
            headers: Vec::new(),
            priority: 0,
            pool,
        }
    }
}

/// How specific a route is among those that match the same host: the greater one applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Specificity {
    path: PathRank,
    conditions: usize,
    priority: i32,
}

/// The kinds of path pattern, the most specific last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum PathRank {
    Any,
    Regex,
    /// By length.
    Prefix(usize),
    Exact,
}

impl Route {
    /// Every pool that it refers to.
    pub(crate) fn pools_mut(&mut self) -> impl Iterator<Item = &mut PoolId> {
        std::iter::once(&mut self.pool)
    }

    /// Every listener that it refers to.
    pub(crate) fn listeners_mut(&mut self) -> impl Iterator<Item = &mut ListenerId> {
        self.listener.iter_mut()
    }

    /// How specific it is among the routes that match the same host: by its path, then by the
    /// number of its conditions (all methods together count one, as do all protocols, each field
    /// one, the listener one),
    /// then by priority.
    #[must_use]
    pub fn specificity(&self) -> Specificity {
        let path = match &self.path {
            PathPattern::Any => PathRank::Any,
            PathPattern::Regex(_) => PathRank::Regex,
            PathPattern::Prefix(_) => {
                PathRank::Prefix(self.path.text().map_or(0, |text| text.len()))
            }
            PathPattern::Exact(_) => PathRank::Exact,
        };
        let conditions = usize::from(!self.methods.is_empty())
            + usize::from(!self.alpn.is_empty())
            + self.headers.len()
            + usize::from(self.listener.is_some());
        Specificity { path, conditions, priority: self.priority }
    }

    /// Whether some request matches both and neither is more specific: both have a host and the
    /// path in common, the same weight, and conditions that can hold together.
    #[must_use]
    pub fn ties_with(&self, other: &Route) -> bool {
        self.shares_host(other)
            && self.path.same(&other.path)
            && self.specificity() == other.specificity()
            && self.can_hold_with(other)
    }

    fn shares_host(&self, other: &Route) -> bool {
        match (&self.hosts[..], &other.hosts[..]) {
            ([], []) => true,
            (ours, theirs) => ours.iter().any(|host| theirs.contains(host)),
        }
    }

    /// Whether one request can meet the conditions of both.
    fn can_hold_with(&self, other: &Route) -> bool {
        let listeners = match (self.listener, other.listener) {
            (Some(ours), Some(theirs)) => ours == theirs,
            (None, _) | (_, None) => true,
        };
        let methods = self.methods.is_empty()
            || other.methods.is_empty()
            || self.methods.iter().any(|method| other.methods.contains(method));
        let protocols = self.alpn.is_empty()
            || other.alpn.is_empty()
            || self.alpn.iter().any(|one| other.alpn.contains(one));
        let contradict = |(name, value): &(String, String)| {
            let mut theirs = other.headers.iter().filter(|(other, _)| other == name);
            theirs.any(|(_, other)| other != value)
        };
        listeners && methods && protocols && !self.headers.iter().any(contradict)
    }
}

/// A host that a route matches.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum HostPattern {
    /// This name.
    Exact(String),
    /// Any name with this suffix, which begins with a dot: `*.example.com` is `.example.com`.
    Suffix(String),
}

/// A path that a route matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathPattern {
    /// Any.
    #[default]
    Any,
    /// This path.
    Exact(String),
    /// This path and all below it, on segment borders: `/v1` and `/v1/` both match `/v1`, `/v1/`
    /// and `/v1/x`, never `/v1x`.
    Prefix(String),
    /// A path in which this expression finds a match; anchors are part of the expression.
    Regex(String),
}

impl PathPattern {
    /// The text that paths are compared with, spelled as paths of requests are for routing
    /// (`http::target` has the rule), and for a prefix without its last slash. None if no request
    /// can have this path; empty if there is nothing to compare.
    #[must_use]
    pub fn text(&self) -> Option<Vec<u8>> {
        match self {
            PathPattern::Any | PathPattern::Regex(_) => Some(Vec::new()),
            PathPattern::Exact(path) => normalised(path),
            PathPattern::Prefix(path) => normalised(path).map(|mut path| {
                path.pop_if(|last| *last == b'/');
                path
            }),
        }
    }

    /// Whether both have the same kind and the same text.
    fn same(&self, other: &PathPattern) -> bool {
        match (self, other) {
            (PathPattern::Any, PathPattern::Any) => true,
            (PathPattern::Exact(_), PathPattern::Exact(_))
            | (PathPattern::Prefix(_), PathPattern::Prefix(_)) => self.text() == other.text(),
            (PathPattern::Regex(ours), PathPattern::Regex(theirs)) => ours == theirs,
            (
                PathPattern::Any
                | PathPattern::Exact(_)
                | PathPattern::Prefix(_)
                | PathPattern::Regex(_),
                _,
            ) => false,
        }
    }
}

/// A path of the configuration in the spelling that paths of requests have for routing. Characters
/// that a request must escape may be written as they are: `/café` is `/caf%C3%A9`.
fn normalised(path: &str) -> Option<Vec<u8>> {
    if !path.starts_with('/') {
        return None;
    }
    let mut encoded = Vec::with_capacity(path.len());
    for byte in path.bytes() {
        if (0x21..=0x7e).contains(&byte) && !matches!(byte, b'?' | b'#') {
            encoded.push(byte);
        } else {
            encoded.extend(format!("%{byte:02X}").bytes());
        }
    }
    let mut copy = Vec::new();
    target::normalise_path(&encoded, &mut copy).ok().map(<[u8]>::to_vec)
}

/// Compiles the text of a `PathPattern::Regex`. Paths are compared as ASCII, so classes are those
/// of ASCII, not Unicode; 1 MiB is enough for a few thousand characters of text.
///
/// # Errors
/// If the expression is invalid or too large.
pub fn path_regex(expression: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(expression).unicode(false).size_limit(1 << 20).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A route for any request to `path`, with these methods and fields.
    fn route(path: PathPattern, methods: &[&str], headers: &[(&str, &str)]) -> Route {
        Route {
            name: "r".into(),
            listener: None,
            hosts: Vec::new(),
            path,
            methods: methods.iter().map(|method| (*method).to_owned()).collect(),
            alpn: Vec::new(),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            priority: 0,
            pool: PoolId(0),
        }
    }

    fn prefix(path: &str) -> Route {
        route(PathPattern::Prefix(path.into()), &[], &[])
    }

    fn on(listener: u16, route: Route) -> Route {
        Route { listener: Some(ListenerId(listener)), ..route }
    }

    fn hosts(hosts: &[&str], route: Route) -> Route {
        let pattern = |host: &&str| match host.strip_prefix('*') {
            Some(suffix) => HostPattern::Suffix(suffix.into()),
            None => HostPattern::Exact((*host).into()),
        };
        Route { hosts: hosts.iter().map(pattern).collect(), ..route }
    }

    #[test]
    fn exact_comes_before_longer_before_regex_before_any_then_conditions_then_priority() {
        let least_first = [
            route(PathPattern::Any, &[], &[]),
            Route { priority: 9, ..route(PathPattern::Any, &[], &[]) },
            route(PathPattern::Any, &["GET"], &[]),
            on(0, route(PathPattern::Any, &["GET", "POST"], &[])),
            on(0, route(PathPattern::Any, &["GET"], &[("x", "1"), ("y", "1")])),
            route(PathPattern::Regex("^/a".into()), &[], &[]),
            prefix("/"),
            prefix("/a"),
            route(PathPattern::Prefix("/a/".into()), &["GET"], &[]),
            prefix("/a/b"),
            route(PathPattern::Exact("/".into()), &[], &[]),
        ];
        for pair in least_first.windows(2) {
            assert!(pair[0].specificity() < pair[1].specificity(), "{pair:?}");
        }
    }

    #[test]
    fn two_routes_tie_where_no_rule_says_who_answers() {
        let canary = |value| route(PathPattern::Any, &[], &[("x-canary", value)]);
        let get = || route(PathPattern::Any, &["GET", "POST"], &[]);
        #[rustfmt::skip]
        let rows = [
            ("the same", prefix("/a"), prefix("/a"), true),
            ("the same, spelled otherwise", prefix("/a"), prefix("//%61/"), true),
            ("another path", prefix("/a"), prefix("/b"), false),
            ("another kind", prefix("/a"), route(PathPattern::Exact("/a".into()), &[], &[]), false),
            ("priority", prefix("/a"), Route { priority: 1, ..prefix("/a") }, false),
            ("methods overlap", get(), route(PathPattern::Any, &["POST"], &[]), true),
            ("methods do not", get(), route(PathPattern::Any, &["PUT"], &[]), false),
            ("fields contradict", canary("1"), canary("2"), false),
            ("fields do not", canary("1"), route(PathPattern::Any, &[], &[("y", "2")]), true),
            ("one condition each", canary("1"), get(), true),
            ("one has more", canary("1"), route(PathPattern::Any, &[], &[]), false),
            ("listeners differ", on(0, prefix("/")), on(1, prefix("/")), false),
            ("one listener", on(0, prefix("/")), on(0, prefix("/")), true),
            ("listener or method", on(0, prefix("/")), route(PathPattern::Prefix("/".into()), &["GET"], &[]), true),
            ("no host and a host", prefix("/"), hosts(&["a"], prefix("/")), false),
            ("one host in common", hosts(&["a", "b"], prefix("/")), hosts(&["b", "c"], prefix("/")), true),
            ("none in common", hosts(&["a"], prefix("/")), hosts(&["*.a"], prefix("/")), false),
        ];
        for (case, one, other, expected) in rows {
            assert_eq!(one.ties_with(&other), expected, "{case}");
            assert_eq!(other.ties_with(&one), expected, "{case}, turned round");
        }
    }

    #[test]
    fn paths_of_the_configuration_are_spelled_as_those_of_requests() {
        for (path, expected) in [
            ("/v1/", Some("/v1")),
            ("/v1", Some("/v1")),
            ("/", Some("")),
            ("/a//b/", Some("/a/b")),
            ("/%7euser", Some("/~user")),
            ("/café and more", Some("/caf%C3%A9%20and%20more")),
            ("/a/../b", None),
            ("a", None),
            ("", None),
        ] {
            let text = PathPattern::Prefix(path.into()).text();
            assert_eq!(text.as_deref(), expected.map(str::as_bytes), "{path}");
        }
        assert_eq!(PathPattern::Exact("/v1/".into()).text().as_deref(), Some(&b"/v1/"[..]));
    }

    #[test]
    fn expressions_have_an_end() {
        assert!(path_regex("^/v[0-9]+/").is_ok());
        assert!(path_regex("(").is_err());
        assert!(path_regex(".{1000}{1000}").is_err());
    }
}
