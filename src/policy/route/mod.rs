//! The router: finds the route of a request.
//!
//! The routes of the configuration, listed in any order, are compiled into one table for each host
//! that they name: by name, by suffix, and one for all others. The order is by specificity: host
//! (by name, by the longest suffix, any), path (exact, the longest prefix, expression, any), the
//! number of conditions, priority. If no route of a host matches a request the next less specific
//! host is tried.
//!
//! Hosts and paths are compared in the spelling of `http::target`, which also says which paths are
//! refused because servers would disagree about them. A request costs a few lookups whatever the
//! number of routes, except for expressions, which are tried one after the other.

mod conditions;
mod paths;
#[cfg(test)]
mod tests;

use std::{cell::RefCell, cmp::Reverse, sync::Arc};

use self::paths::Paths;
use crate::base::quick_hash::QuickMap;
use crate::http::{fault::Fault, head::RequestHead, target};
use crate::plan::{HostPattern, ListenerId, PathPattern, Route, RouteId, Table};

/// All routes of a plan, compiled. Each core has a clone of its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Router {
    named: QuickMap<Box<[u8]>, Paths>,
    /// By suffix, which begins with a dot.
    suffixes: QuickMap<Box<[u8]>, Paths>,
    any: Paths,
    /// Listeners that have routes of their own.
    own: Vec<ListenerId>,
    /// Buffers for the copies that are compared; kept so that no request allocates.
    room: RefCell<Copies>,
}

#[derive(Clone, Debug, Default)]
struct Copies {
    host: Vec<u8>,
    path: Vec<u8>,
}

/// The parts of a request that are compared.
struct Asked<'a> {
    listener: ListenerId,
    head: &'a RequestHead,
    path: &'a [u8],
    /// Of a connection of TCP: the protocols that its client speaks. None: it is a request.
    tcp: Option<&'a [Box<[u8]>]>,
}

impl Router {
    /// Compiles the routes of a plan.
    ///
    /// # Errors
    /// If an expression does not compile. The configuration has tried it before.
    pub(crate) fn compile(routes: &Table<RouteId, Arc<Route>>) -> Result<Router, regex::Error> {
        let mut router = Router {
            named: QuickMap::default(),
            suffixes: QuickMap::default(),
            any: Paths::default(),
            own: Vec::new(),
            room: RefCell::default(),
        };
        router.own.extend(routes.values().filter_map(|route| route.listener));
        router.own.sort_unstable();
        router.own.dedup();
        // The most specific first, so that in every list of every table the first match applies.
        let mut sorted: Vec<(RouteId, &Arc<Route>)> = routes.iter().collect();
        sorted.sort_by_cached_key(|(_, route)| rank(route));
        for (id, route) in sorted {
            if route.hosts.is_empty() {
                router.any.add(id, route)?;
            }
            for host in &route.hosts {
                let (table, text) = match host {
                    HostPattern::Exact(name) => (&mut router.named, name),
                    HostPattern::Suffix(suffix) => (&mut router.suffixes, suffix),
                };
                table.entry(text.as_bytes().into()).or_default().add(id, route)?;
            }
        }
        Ok(router)
    }

    /// The route of a request, if one matches.
    ///
    /// # Errors
    /// 400 for a path about which servers would disagree.
    pub(crate) fn find(
        &self,
        listener: ListenerId,
        head: &RequestHead,
    ) -> Result<Option<RouteId>, Fault> {
        let mut room = self.room.borrow_mut();
        let Copies { host, path } = &mut *room;
        let path = target::normalise_path(head.bytes(head.path), path)?;
        let asked = Asked { listener, head, path, tcp: None };
        if self.named.is_empty() && self.suffixes.is_empty() {
            return Ok(self.any.find(&asked));
        }
        target::normalise_host(head.bytes(head.authority), host);
        Ok(self.find_for(host, &asked))
    }

    /// Whether any route is for this listener alone.
    pub(crate) fn has_own(&self, listener: ListenerId) -> bool {
        self.own.binary_search(&listener).is_ok()
    }

    /// The route of a connection of TCP, if one matches: by the name of the host, which may be
    /// empty, and by the protocols that its client speaks. `head` is an empty one.
    pub(crate) fn find_by_name(
        &self,
        listener: ListenerId,
        head: &RequestHead,
        (name, alpn): (&[u8], &[Box<[u8]>]),
    ) -> Option<RouteId> {
        let mut room = self.room.borrow_mut();
        let Copies { host, .. } = &mut *room;
        target::normalise_host(name, host);
        self.find_for(host, &Asked { listener, head, path: b"", tcp: Some(alpn) })
    }

    fn find_for(&self, host: &[u8], asked: &Asked<'_>) -> Option<RouteId> {
        let by_name = self.named.get(host).and_then(|paths| paths.find(asked));
        by_name.or_else(|| self.find_by_suffix(host, asked)).or_else(|| self.any.find(asked))
    }

    /// The longest suffix first; the text before it is never empty.
    fn find_by_suffix(&self, host: &[u8], asked: &Asked<'_>) -> Option<RouteId> {
        if self.suffixes.is_empty() {
            return None;
        }
        let dots = memchr::memchr_iter(b'.', host).filter(|dot| *dot > 0).take(LABELS_MAX);
        dots.filter_map(|dot| host.get(dot..))
            .find_map(|suffix| self.suffixes.get(suffix)?.find(asked))
    }
}

/// Labels of a host that are compared: a name of 253 bytes (RFC 1035 §2.3.4) has no more.
const LABELS_MAX: usize = 127;

/// The more specific route has the lower rank. If two routes are equally specific and yet no tie,
/// as with two expressions or two hosts in one of their lists, their texts and names decide:
/// anything but their order.
fn rank(route: &Route) -> impl Ord + use<> {
    let expression = match &route.path {
        PathPattern::Regex(expression) => expression.clone(),
        PathPattern::Any | PathPattern::Exact(_) | PathPattern::Prefix(_) => String::new(),
    };
    let specificity = Reverse(route.specificity());
    (specificity, Reverse(expression.len()), expression, route.name.clone())
}
