//! Checks of the whole configuration: there is a listener, no address is used twice, every pool is
//! used, every listener leads somewhere, counts fit.

use std::collections::{HashMap, HashSet};

use super::{Check, both};
use crate::base::endpoint::Endpoint;
use crate::config::{file::File, problem::Problem, source::Position};
use crate::plan::{Plan, Route};

impl Check<'_> {
    pub(super) fn whole(&mut self, file: &File, plan: &Plan) {
        // A misspelt section has been noted: it may have been the listener.
        if file.listener.0.is_empty() && self.problems.is_empty() {
            self.note(Problem::error("there is nothing to listen on").help(SMALLEST));
        }
        self.addresses(file);
        if !self.loose_ends {
            self.unused_pools(file, plan);
            self.idle_listeners(file, plan);
            self.cookies(file, plan);
        }
    }

    /// More than there are ids.
    pub(super) fn counts(&mut self, counts: [(&str, usize); 3]) {
        let most = usize::from(u16::MAX);
        for (what, count) in counts.into_iter().filter(|(_, count)| *count > most) {
            self.note(Problem::error(format!("{count} {what}: at most {most} are possible")));
        }
    }

    /// Two listeners on one address would each get a part of its connections.
    fn addresses(&mut self, file: &File) {
        let mut seen: HashMap<Endpoint, (Position, &str)> = HashMap::new();
        for (key, listener) in &file.listener.0 {
            let (Some(name), Some(listener)) = (key.value.as_deref(), &listener.value) else {
                continue;
            };
            let written = listener.bind.0.iter().filter_map(|item| item.value.as_ref());
            for (place, text) in written.filter_map(|bind| both(bind.address.as_ref())) {
                let Ok(address) = text.parse::<Endpoint>() else { continue };
                if !address.is_one() {
                    continue;
                }
                if let Some((first, owner)) = seen.get(&address) {
                    let title = if *owner == name {
                        format!("listener \"{name}\" listens on {address} twice")
                    } else {
                        format!("listeners \"{owner}\" and \"{name}\" both listen on {address}")
                    };
                    self.note(
                        Problem::error(title)
                            .at(place, "the same address again")
                            .at(*first, "first here"),
                    );
                }
                seen.entry(address).or_insert((place, name));
            }
        }
    }

    fn unused_pools(&mut self, file: &File, plan: &Plan) {
        let mut named: HashSet<&str> = file
            .listener
            .0
            .iter()
            .filter_map(|(_, listener)| listener.value.as_ref()?.pool.as_ref()?.value.as_deref())
            .collect();
        named.extend(
            file.route
                .0
                .iter()
                .filter_map(|route| route.value.as_ref()?.pool.as_ref()?.value.as_deref()),
        );
        for ((key, _), pool) in file.pool.0.iter().zip(plan.pools.values()) {
            if !named.contains(pool.name.as_str()) {
                self.note(
                    Problem::warning(format!("pool \"{}\" is not used", pool.name))
                        .at(key.place, "no listener and no route names it"),
                );
            }
        }
    }

    /// A listener from which no route and no pool is reached.
    fn idle_listeners(&mut self, file: &File, plan: &Plan) {
        for ((key, _), (id, listener)) in file.listener.0.iter().zip(&plan.listeners) {
            let is_led_on = |route: &Route| route.listener.is_none_or(|listener| listener == id);
            let is_idle = listener.pool.is_none() && !plan.routes.values().any(|it| is_led_on(it));
            if is_idle && !listener.bind.is_empty() {
                let title = format!("listener \"{}\" answers everything with 404", listener.name);
                self.note(
                    Problem::warning(title)
                        .at(key.place, "has no `pool`, and no route is for it")
                        .help("add for example: pool = \"app\""),
                );
            }
        }
    }
}

/// Shown when there is no configuration at all.
pub(crate) const SMALLEST: &str = "the smallest file is:

[listener.web]
bind = \"0.0.0.0:8080\"
pool = \"app\"

[pool.app]
backends = [\"10.0.0.11:3000\", \"10.0.0.12:3000\"]";
