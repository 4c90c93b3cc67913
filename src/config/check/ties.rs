//! Two routes that nothing decides between, shown together.

use std::collections::HashMap;

use super::Check;
use crate::config::{problem::Problem, source::Place};
use crate::plan::{HostPattern, PathPattern, Route, Specificity};

/// Routes that may tie: only those that have their path and a host, as text, in common, and are as
/// special as each other.
#[derive(Default)]
pub(super) struct Ties {
    seen: HashMap<Key, Vec<usize>>,
}

/// What two routes have in common that tie: kind and text of the path, a host, how special they
/// are.
type Key = (u8, Vec<u8>, Option<HostPattern>, Specificity);

impl Ties {
    /// The routes before that share path and host with this one, each once.
    fn add(&mut self, route: &Route, index: usize) -> Vec<usize> {
        let (kind, text) = match &route.path {
            PathPattern::Any => (0, Vec::new()),
            PathPattern::Exact(_) => (1, route.path.text().unwrap_or_default()),
            PathPattern::Prefix(_) => (2, route.path.text().unwrap_or_default()),
            PathPattern::Regex(expression) => (3, expression.clone().into_bytes()),
        };
        let hosts: Vec<Option<HostPattern>> = match route.hosts.as_slice() {
            [] => vec![None],
            hosts => hosts.iter().cloned().map(Some).collect(),
        };
        let mut before = Vec::new();
        for host in hosts {
            let special = route.specificity();
            let routes = self.seen.entry((kind, text.clone(), host, special)).or_default();
            before.extend_from_slice(routes);
            routes.push(index);
        }
        before.sort_unstable();
        before.dedup();
        before.retain(|other| *other != index);
        before
    }
}

impl Check<'_> {
    /// Notes each route before this one that it ties with.
    pub(super) fn ties(
        &mut self,
        ties: &mut Ties,
        route: &Route,
        place: Place,
        before: &[Route],
        places: &[Place],
    ) {
        for index in ties.add(route, before.len()) {
            let (Some(other), Some(other_place)) = (before.get(index), places.get(index)) else {
                continue;
            };
            if !route.ties_with(other) {
                continue;
            }
            self.note(
                Problem::error(format!(
                    "routes \"{}\" and \"{}\" tie: both take the same requests",
                    other.name, route.name
                ))
                .at(place, "nothing says whether this one is first")
                .at(*other_place, "or this one")
                .help("tell them apart by host, path, method or header, or give one a `priority`"),
            );
        }
    }
}
