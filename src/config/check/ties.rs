//! Ties: two routes of which neither is more specific, shown together.

use std::collections::{BTreeMap, HashMap};

use super::Check;
use crate::config::{problem::Problem, source::Position};
use crate::plan::{HostPattern, PathPattern, Route, Specificity};

/// Routes that may tie: they have the same path and a host, as text, are equally specific, and
/// require no two values of one field. There may be tens of thousands.
#[derive(Default)]
pub(super) struct Ties {
    seen: HashMap<Key, Vec<Kin>>,
}

/// What two tying routes have in common: kind and text of the path, a host, how specific they are.
type Key = (u8, Vec<u8>, Option<HostPattern>, Specificity);

/// Values of fields, in the order of their names.
type Values = Vec<String>;

/// Routes that require values of the same fields.
#[derive(Default)]
struct Kin {
    names: Vec<String>,
    routes: Vec<(usize, BTreeMap<String, String>)>,
    /// For some of the fields: which routes require which values of them.
    by: HashMap<Vec<String>, HashMap<Values, Vec<usize>>>,
}

impl Kin {
    /// The routes that require no other value of any field than this route does.
    fn agreeing(&mut self, fields: &BTreeMap<String, String>) -> Vec<usize> {
        let shared = self.names.iter().filter(|name| fields.contains_key(*name));
        let shared: Vec<String> = shared.cloned().collect();
        if shared.is_empty() {
            return self.routes.iter().map(|(index, _)| *index).collect();
        }
        let wanted = values(&shared, fields);
        let by = self.by.entry(shared).or_insert_with_key(|shared| {
            let mut by: HashMap<Values, Vec<usize>> = HashMap::new();
            for (index, fields) in &self.routes {
                by.entry(values(shared, fields)).or_default().push(*index);
            }
            by
        });
        by.get(&wanted).cloned().unwrap_or_default()
    }

    fn add(&mut self, index: usize, fields: BTreeMap<String, String>) {
        for (shared, by) in &mut self.by {
            by.entry(values(shared, &fields)).or_default().push(index);
        }
        self.routes.push((index, fields));
    }
}

/// The values of some fields.
fn values(names: &[String], fields: &BTreeMap<String, String>) -> Values {
    names.iter().map(|name| fields.get(name).cloned().unwrap_or_default()).collect()
}

impl Ties {
    /// The earlier routes that share path and host with this one, each once.
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
        let fields: BTreeMap<String, String> = route.headers.iter().cloned().collect();
        let mut before = Vec::new();
        for host in hosts {
            let special = route.specificity();
            let kins = self.seen.entry((kind, text.clone(), host, special)).or_default();
            kins.iter_mut().for_each(|kin| before.extend(kin.agreeing(&fields)));
            let is_own = |kin: &Kin| kin.names.iter().eq(fields.keys());
            let place = kins.iter().position(is_own).unwrap_or_else(|| {
                kins.push(Kin { names: fields.keys().cloned().collect(), ..Kin::default() });
                kins.len() - 1
            });
            if let Some(kin) = kins.get_mut(place) {
                kin.add(index, fields.clone());
            }
        }
        before.sort_unstable();
        before.dedup();
        before.retain(|other| *other != index);
        before
    }
}

impl Check<'_> {
    /// Notes each earlier route that this one ties with.
    pub(super) fn ties(
        &mut self,
        ties: &mut Ties,
        route: &Route,
        place: Position,
        before: &[Route],
        places: &[Position],
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
                    "routes \"{}\" and \"{}\" tie: both match the same requests",
                    other.name, route.name
                ))
                .at(place, "neither is more specific")
                .at(*other_place, "or this one")
                .help("distinguish them by host, path, method or header, or give one a `priority`"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::plan::PoolId;

    /// A random route out of a few that have much in common.
    fn route(rng: &mut Rng) -> Route {
        let mut below = |count: u64| rng.next() % count;
        let field = |name: &str, value: u64| (name.to_owned(), value.to_string());
        let mut headers = Vec::new();
        for name in ["a", "b", "c"] {
            if below(2) == 0 {
                headers.push(field(name, below(2)));
            }
        }
        let hosts = [&["x.test"][..], &["y.test"], &["x.test", "y.test"], &[]];
        let hosts = hosts.into_iter().nth(below(4) as usize).unwrap();
        Route {
            name: String::new(),
            listener: None,
            hosts: hosts.iter().map(|host| HostPattern::Exact((*host).to_owned())).collect(),
            path: PathPattern::Any,
            methods: if below(2) == 0 { vec!["GET".to_owned()] } else { Vec::new() },
            alpn: Vec::new(),
            headers,
            priority: 0,
            pool: PoolId(0),
        }
    }

    #[test]
    fn no_two_that_tie_are_overlooked_and_none_that_contradict_are_compared() {
        let mut rng = Rng::seeded(7);
        for _ in 0..50 {
            let routes: Vec<Route> = (0..40).map(|_| route(&mut rng)).collect();
            let mut ties = Ties::default();
            for (index, new) in routes.iter().enumerate() {
                let compared = ties.add(new, index);
                for (other, old) in routes.iter().enumerate().take(index) {
                    let found = compared.contains(&other);
                    assert!(found || !new.ties_with(old), "{old:?} {new:?}");
                    let differs = |(name, value): &(String, String)| {
                        old.headers.iter().any(|(n, v)| n == name && v != value)
                    };
                    assert!(!found || !new.headers.iter().any(differs), "{old:?} {new:?}");
                }
            }
        }
    }
}
