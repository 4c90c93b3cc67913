//! `[[route]]`: the conditions of each route, and the pool that answers.
//!
//! `route_text` reads each text. `policy` decides which of several routes applies; only a tie
//! between two is reported here (`ties`).

use std::collections::HashMap;

use super::{
    Check, Names, both,
    route_text::{self, Complaint},
    ties::Ties,
};
use crate::config::{
    file, foreign,
    problem::Problem,
    source::Position,
    written::{List, Written},
};
use crate::plan::{ListenerId, PathPattern, PoolId, Route};

impl Check<'_> {
    pub(super) fn routes(&mut self, written: &List<file::Route>, names: &Names) -> Vec<Route> {
        let mut routes = Vec::new();
        let mut places = Vec::new();
        let mut ties = Ties::default();
        let mut first_of = HashMap::new();
        for item in &written.0 {
            let Some(route) = &item.value else {
                self.loose_ends = true;
                continue;
            };
            let errors = self.problems.len();
            self.loose_ends |= item.holes;
            let (place, name) = self.route_name(item, route, &mut first_of);
            let read = self.route(name, route, names);
            if route.pool.is_none() && !item.holes {
                self.note(
                    Problem::error(format!("{} sends to no pool", called(&read.name)))
                        .at(place, "has no `pool`")
                        .help("add for example: pool = \"app\""),
                );
            }
            if self.problems.len() == errors {
                self.ties(&mut ties, &read, place, &routes, &places);
            }
            routes.push(read);
            places.push(place);
        }
        routes
    }

    fn route_name(
        &mut self,
        item: &Written<file::Route>,
        route: &file::Route,
        first_of: &mut HashMap<String, Position>,
    ) -> (Position, String) {
        let header = item.place;
        let Some(key) = &route.name else {
            if item.holes {
                return (header, String::new());
            }
            self.note(
                Problem::error("route without a name")
                    .at(header, "has no `name`")
                    .help("add for example: name = \"api\" (used in logs and metrics)"),
            );
            return (header, String::new());
        };
        let name = key.value.clone().unwrap_or_default();
        if key.value.is_some() {
            self.name("route", key.place, &name);
        }
        match first_of.get(&name) {
            Some(first) if !name.is_empty() => self.note(
                Problem::error(format!("two routes are called \"{name}\""))
                    .at(key.place, "the same name again")
                    .at(*first, "first here"),
            ),
            _ => _ = first_of.insert(name.clone(), key.place),
        }
        (key.place, name)
    }

    fn route(&mut self, name: String, written: &file::Route, names: &Names) -> Route {
        let who = called(&name);
        let mut route = Route {
            listener: self.listener_named(&who, written.listener.as_ref(), names),
            hosts: Vec::new(),
            path: self.path(&who, written),
            methods: Vec::new(),
            alpn: Vec::new(),
            headers: Vec::new(),
            priority: 0,
            pool: PoolId(0),
            name,
        };
        for (place, text) in written.host.0.iter().filter_map(|item| both(Some(item))) {
            match route_text::host(text) {
                Ok(host) => route.hosts.push(host),
                Err(refusal) => self.refuse(place, refusal),
            }
        }
        for (place, text) in written.method.0.iter().filter_map(|item| both(Some(item))) {
            match route_text::method(text) {
                Ok(()) => route.methods.push(text.clone()),
                Err(refusal) => self.refuse(place, refusal),
            }
        }
        for (place, text) in written.alpn.0.iter().filter_map(|item| both(Some(item))) {
            if (1..=255).contains(&text.len()) {
                route.alpn.push(text.clone());
            } else {
                let problem = Problem::error(format!("`{text}` is not a protocol"));
                let problem = problem.at(place, "expected 1 to 255 bytes");
                self.note(problem.help("write for example \"h2\", \"http/1.1\" or \"postgresql\""));
            }
        }
        self.headers(written, &mut route);
        let (least, most) = (i64::from(i32::MIN), i64::from(i32::MAX));
        self.whole_number(written.priority.as_ref(), least..=most, &mut route.priority);
        if let Some(pool) = &written.pool {
            route.pool = self.pool_named(&who, pool, names).unwrap_or(PoolId(0));
        }
        route
    }

    fn listener_named(
        &mut self,
        who: &str,
        key: Option<&Written<String>>,
        names: &Names,
    ) -> Option<ListenerId> {
        let (place, name) = both(key)?;
        if let Some(id) = names.listeners.id(name, ListenerId) {
            return Some(id);
        }
        if names.may_have(name) {
            return None;
        }
        let near = foreign::nearest(name, names.listeners.sorted())
            .map(|near| format!("did you mean `{near}`?"));
        self.note(
            Problem::error(format!("{who} is for listener \"{name}\", which is not defined"))
                .at(place, "no listener has this name")
                .help_if(near),
        );
        None
    }

    fn path(&mut self, who: &str, written: &file::Route) -> PathPattern {
        let mut given = [&written.path, &written.path_exact, &written.path_regex]
            .into_iter()
            .filter_map(Option::as_ref);
        if let (Some(first), Some(second)) = (given.next(), given.next()) {
            self.note(
                Problem::error(format!("{who} has two paths"))
                    .at(second.place, "a second one")
                    .at(first.place, "and this one")
                    .help("keep one of `path`, `path-exact` and `path-regex`, or write two routes"),
            );
        }
        if let Some((place, text)) = both(written.path_exact.as_ref()) {
            return self.judged(place, text, route_text::exact(text));
        }
        if let Some((place, text)) = both(written.path.as_ref()) {
            return self.judged(place, text, route_text::prefix(text));
        }
        if let Some((place, text)) = both(written.path_regex.as_ref()) {
            return self.judged(place, text, route_text::regex(text));
        }
        PathPattern::Any
    }

    fn judged(
        &mut self,
        place: Position,
        text: &str,
        judged: Result<PathPattern, Complaint>,
    ) -> PathPattern {
        match judged {
            Ok(path) => path,
            Err(Complaint { part, refusal }) => {
                let place = part.map_or(place, |part| self.sources.within(place, text, part));
                self.refuse(place, refusal);
                PathPattern::Any
            }
        }
    }

    fn headers(&mut self, written: &file::Route, route: &mut Route) {
        for (key, value) in &written.header.0 {
            let Some(name) = key.value.as_deref() else { continue };
            if let Err(refusal) = route_text::field_name(name) {
                self.refuse(key.place, refusal);
            }
            let Some((place, value)) = both(Some(value)) else { continue };
            if let Err(refusal) = route_text::field_value(value) {
                self.refuse(place, refusal);
            }
            let name = name.to_ascii_lowercase();
            if route.headers.iter().any(|(other, _)| *other == name) {
                self.note(
                    Problem::error(format!("`{name}` is listed twice"))
                        .at(key.place, "field names ignore case"),
                );
            }
            route.headers.push((name, value.clone()));
        }
    }
}

fn called(name: &str) -> String {
    match name {
        "" => "a route without a name".to_owned(),
        name => format!("route \"{name}\""),
    }
}
