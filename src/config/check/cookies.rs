//! Clashes between sticky pools whose cookies a browser would treat as one.
//!
//! To a browser a cookie is a name and a host, whatever the port. If two pools share both, each
//! reads the other's cookie, takes it for forged and overwrites it with its own: no client stays
//! anywhere.

use super::Check;
use crate::config::{file::File, problem::Problem, source::Position};
use crate::plan::{HostPattern, Plan, PoolId};

impl Check<'_> {
    pub(super) fn cookies(&mut self, file: &File, plan: &Plan) {
        let mut seen: Vec<(PoolId, Position)> = Vec::new();
        let pools = plan.pools.iter().zip(&file.pool.0);
        for ((id, pool), (_, written)) in pools {
            let written = written.value.as_ref().and_then(|written| written.sticky.as_ref());
            let (Some(sticky), Some(written)) = (&pool.sticky, written) else { continue };
            let clash = seen.iter().find(|(other, _)| {
                let other_sticky = plan.pool(*other).sticky.as_ref();
                other_sticky.is_some_and(|other| other.cookie == sticky.cookie)
                    && share_a_host(plan, *other, id)
            });
            if let Some((other, first)) = clash {
                let (name, other) = (&pool.name, &plan.pool(*other).name);
                let cookie = &sticky.cookie;
                self.note(
                    Problem::warning(format!(
                        "pools \"{other}\" and \"{name}\" set the same cookie for one host"
                    ))
                    .at(written.place, format!("`{cookie}` again: each overwrites the other's"))
                    .at(*first, "first here")
                    .help(format!("give it a name of its own: cookie = \"{cookie}-{name}\"")),
                );
            }
            seen.push((id, written.place));
        }
    }
}

/// Whether requests for one host may reach both pools.
fn share_a_host(plan: &Plan, one: PoolId, other: PoolId) -> bool {
    let of = |pool| hosts(plan, pool);
    of(one).any(|one| of(other).any(|other| overlap(one, other)))
}

/// The hosts from which a pool is reached; none = any.
fn hosts(plan: &Plan, pool: PoolId) -> impl Iterator<Item = Option<&HostPattern>> {
    let listeners = plan.listeners.values().filter(move |listener| listener.pool == Some(pool));
    let routes = plan.routes.values().filter(move |route| route.pool == pool);
    let of_routes = routes.flat_map(|route| {
        let any = route.hosts.is_empty().then_some(None);
        any.into_iter().chain(route.hosts.iter().map(Some))
    });
    listeners.map(|_| None).chain(of_routes)
}

fn overlap(one: Option<&HostPattern>, other: Option<&HostPattern>) -> bool {
    use HostPattern::{Exact, Suffix};
    match (one, other) {
        (None, _) | (_, None) => true,
        (Some(Exact(one)), Some(Exact(other))) => one == other,
        (Some(Suffix(suffix)), Some(Exact(host))) | (Some(Exact(host)), Some(Suffix(suffix))) => {
            host.ends_with(suffix.as_str())
        }
        (Some(Suffix(one)), Some(Suffix(other))) => one.ends_with(other) || other.ends_with(one),
    }
}
