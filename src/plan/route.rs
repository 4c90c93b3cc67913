//! Which requests, and which pool answers them.

use super::{ListenerId, PoolId};

/// Which requests, and which pool answers them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its name in the configuration.
    pub name: String,
    /// On which listener; none = on every one.
    pub listener: Option<ListenerId>,
    /// For which hosts, in lower case without port or trailing dot; none = for any.
    pub hosts: Vec<HostPattern>,
    /// For which path.
    pub path: PathPattern,
    /// For which methods; none = for any.
    pub methods: Vec<String>,
    /// Fields that must be there with exactly this value; names in lower case.
    pub headers: Vec<(String, String)>,
    /// Which of two otherwise equal routes is first: the higher.
    pub priority: i32,
    /// Who answers.
    pub pool: PoolId,
}

/// A host that a route takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// This name.
    Exact(String),
    /// Any name that ends in this suffix, which begins with a dot: `*.example.com` is
    /// `.example.com`.
    Suffix(String),
}

/// A path that a route takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PathPattern {
    /// Any.
    #[default]
    Any,
    /// This path.
    Exact(String),
    /// This path and all below it, on segment borders.
    Prefix(String),
    /// What this expression matches.
    Regex(String),
}
