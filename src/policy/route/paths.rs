//! The paths of one host's routes: a tree of segments, and a list of expressions.
//!
//! A request walks down the tree once as far as its segments lead; then the exact routes of the
//! node where the whole path ends are tried, and the prefixes of every node on the way back up.
//! Every list has the most specific first.

use regex::bytes::Regex;

use super::{Asked, conditions::Conditions};
use crate::base::quick_hash::QuickMap;
use crate::plan::{PathPattern, Route, RouteId, path_regex};

/// The paths of one host's routes.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    /// The first is the root; each comes after its parent.
    places: Vec<PathNode>,
    expressions: Vec<(Regex, Entry)>,
    any: Vec<Entry>,
}

/// A node where a path of the configuration ends or passes.
#[derive(Clone, Debug, Default)]
struct PathNode {
    parent: Option<usize>,
    /// One segment further.
    children: QuickMap<Box<[u8]>, usize>,
    exact: Vec<Entry>,
    prefix: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    conditions: Conditions,
    route: RouteId,
}

impl Default for Paths {
    fn default() -> Paths {
        Paths { places: vec![PathNode::default()], expressions: Vec::new(), any: Vec::new() }
    }
}

impl Paths {
    /// Adds a route that is no more specific than any before it.
    pub(super) fn add(&mut self, id: RouteId, route: &Route) -> Result<(), regex::Error> {
        let entry = Entry { conditions: Conditions::of(route), route: id };
        match &route.path {
            PathPattern::Any => self.any.push(entry),
            PathPattern::Regex(expression) => {
                self.expressions.push((path_regex(expression)?, entry));
            }
            PathPattern::Exact(_) => {
                if let Some(place) = self.place_of(&route.path) {
                    place.exact.push(entry);
                }
            }
            PathPattern::Prefix(_) => {
                if let Some(place) = self.place_of(&route.path) {
                    place.prefix.push(entry);
                }
            }
        }
        Ok(())
    }

    /// The node of a path of the configuration; none if no request can have it.
    fn place_of(&mut self, path: &PathPattern) -> Option<&mut PathNode> {
        let text = path.text()?;
        let mut at = 0;
        // A prefix of all paths is the empty text: the root.
        if let Some(segments) = segments(&text) {
            for segment in segments {
                at = self.child_or_new(at, segment);
            }
        }
        self.places.get_mut(at)
    }

    fn child_or_new(&mut self, parent: usize, segment: &[u8]) -> usize {
        let new = self.places.len();
        let child = *self.places[parent].children.entry(segment.into()).or_insert(new);
        if child == new {
            self.places.push(PathNode { parent: Some(parent), ..PathNode::default() });
        }
        child
    }

    /// The first route, by specificity, that matches the request.
    #[inline]
    pub(super) fn find(&self, asked: &Asked<'_>) -> Option<RouteId> {
        if self.is_empty() { None } else { self.find_any(asked) }
    }

    /// Whether no route is in it.
    fn is_empty(&self) -> bool {
        let has_path = |node: &PathNode| {
            !node.children.is_empty() || !node.exact.is_empty() || !node.prefix.is_empty()
        };
        self.any.is_empty()
            && self.expressions.is_empty()
            && !self.places.first().is_some_and(has_path)
    }

    fn find_any(&self, asked: &Asked<'_>) -> Option<RouteId> {
        self.find_in_tree(asked)
            .or_else(|| {
                let expressions = self.expressions.iter();
                let mut taking = expressions.filter(|(_, entry)| entry.conditions.hold(asked));
                taking.find(|(regex, _)| regex.is_match(asked.path)).map(|(_, entry)| entry.route)
            })
            .or_else(|| first(&self.any, asked))
    }

    fn find_in_tree(&self, asked: &Asked<'_>) -> Option<RouteId> {
        let mut at = 0;
        let mut whole = true;
        for segment in segments(asked.path)? {
            match self.places.get(at)?.children.get(segment) {
                Some(child) => at = *child,
                None => {
                    whole = false;
                    break;
                }
            }
        }
        let mut place = self.places.get(at)?;
        if whole && let Some(route) = first(&place.exact, asked) {
            return Some(route);
        }
        loop {
            if let Some(route) = first(&place.prefix, asked) {
                return Some(route);
            }
            place = self.places.get(place.parent?)?;
        }
    }
}

/// The segments between the slashes of a path; none if it does not begin with one.
fn segments(path: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    Some(path.strip_prefix(b"/")?.split(|byte| *byte == b'/'))
}

fn first(entries: &[Entry], asked: &Asked<'_>) -> Option<RouteId> {
    entries.iter().find(|entry| entry.conditions.hold(asked)).map(|entry| entry.route)
}
