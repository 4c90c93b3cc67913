//! Two routes that nothing decides between, shown together.

use super::Check;
use crate::config::{problem::Problem, source::Place};
use crate::plan::Route;

impl Check<'_> {
    /// Notes each route before this one that it ties with.
    pub(super) fn ties(&mut self, route: &Route, place: Place, before: &[Route], places: &[Place]) {
        for (other, other_place) in before.iter().zip(places) {
            // An empty name was refused already: that route is not the one that was meant.
            if other.name.is_empty() || !route.ties_with(other) {
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
