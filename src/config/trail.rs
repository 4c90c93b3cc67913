//! The way from the root of a configuration to a value, as messages say it.
//!
//! A trail is a list on the stack: each table that is read adds the step to its values.

use super::tree::{Node, Value};

/// The path from the root to a value, for messages.
#[derive(Clone, Copy)]
pub(crate) struct Trail<'a> {
    above: Option<&'a Trail<'a>>,
    /// Its key; empty for the elements of a list.
    key: &'a str,
    node: &'a Node,
}

impl<'a> Trail<'a> {
    /// The trail of the root.
    pub(crate) fn root(node: &'a Node) -> Trail<'a> {
        Trail { above: None, key: "", node }
    }

    /// One step further, to the value of a key, or, with an empty key, to an element of a list.
    pub(crate) fn step(&'a self, key: &'a str, node: &'a Node) -> Trail<'a> {
        Trail { above: Some(self), key, node }
    }
}

impl Trail<'_> {
    pub(crate) fn is_root(&self) -> bool {
        self.above.is_none()
    }

    /// The keys from the root.
    pub(crate) fn keys(&self) -> Vec<&str> {
        let mut keys = self.above.map_or_else(Vec::new, Trail::keys);
        keys.extend(self.above.map(|_| self.key));
        keys
    }

    /// `pool "api"`, or `timeouts of pool "api"`; empty at the top level.
    pub(crate) fn describe(&self) -> String {
        let mut keys = Vec::new();
        let mut step = self;
        while let Some(above) = step.above {
            keys.push(step);
            step = above;
        }
        keys.reverse();
        let (owner, rest) = match keys.as_slice() {
            [] => return String::new(),
            [section, route, rest @ ..] if section.key == "route" => {
                (describe_route(route.node), rest)
            }
            [section, _, rest @ ..] if section.key == "webhook" => ("a webhook".to_owned(), rest),
            [section, named, rest @ ..] if section.key == "pool" || section.key == "listener" => {
                (format!("{} {:?}", section.key, named.key), rest)
            }
            [global, limits, rest @ ..] if global.key == "global" && limits.key == "limits" => {
                ("[global.limits]".to_owned(), rest)
            }
            [section, rest @ ..] => (format!("[{}]", section.key), rest),
        };
        let path: Vec<&str> =
            rest.iter().map(|step| step.key).filter(|key| !key.is_empty()).collect();
        match path.as_slice() {
            [] => owner,
            path => format!("`{}` of {owner}", path.join(".")),
        }
    }
}

fn describe_route(route: &Node) -> String {
    match route.key("name").map(|name| &name.value) {
        Some(Value::Text(name)) => format!("route {name:?}"),
        _ => "a route without a name".to_owned(),
    }
}
