//! A tree of what was written, in which every key and value knows its place.
//!
//! TOML becomes a tree here, several files become one, and flags and variables of the environment
//! are laid over it. What the keys mean is not known here.

use toml::de::{DeTable, DeValue};

use super::{
    problem::Problem,
    source::{Position, Sources},
    syntax,
};

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Position,
    pub(crate) value: Value,
}

/// A TOML value.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(String),
    Whole(i64),
    Number(f64),
    Flag(bool),
    /// A date or a time; no key takes one.
    Moment,
    /// A string whose expansion was refused; no further message is given about it.
    Refused,
    List(Vec<Node>),
    /// In the order of the file.
    Table(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The key; its value is always `Value::Text`.
    pub(crate) key: Node,
    pub(crate) node: Node,
}

impl Entry {
    /// The key's text.
    pub(crate) fn name(&self) -> &str {
        match &self.key.value {
            Value::Text(name) => name,
            _ => "",
        }
    }
}

impl Node {
    /// An empty table.
    pub(crate) fn empty() -> Node {
        Node { place: Position::default(), value: Value::Table(Vec::new()) }
    }

    /// The entry of a key, if this is a table that has it.
    pub(crate) fn entry(&self, name: &str) -> Option<&Entry> {
        match &self.value {
            Value::Table(entries) => entries.iter().find(|entry| entry.name() == name),
            _ => None,
        }
    }

    /// The value of a key, if this is a table that has it.
    pub(crate) fn key(&self, name: &str) -> Option<&Node> {
        self.entry(name).map(|entry| &entry.node)
    }

    /// The nearest place before another at which a key of this name is set.
    fn last_key_before(&self, name: &str, before: Position, found: &mut Option<Position>) {
        match &self.value {
            Value::Table(entries) => {
                for entry in entries {
                    let place = entry.key.place;
                    if entry.name() == name && place < before && found.is_none_or(|at| at < place) {
                        *found = Some(place);
                    }
                    entry.node.last_key_before(name, before, found);
                }
            }
            Value::List(list) => {
                list.iter().for_each(|item| item.last_key_before(name, before, found));
            }
            Value::Text(_)
            | Value::Whole(_)
            | Value::Number(_)
            | Value::Flag(_)
            | Value::Moment
            | Value::Refused => {}
        }
    }

    /// The name of this kind of value in messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self.value {
            Value::Text(_) | Value::Refused => "a string",
            Value::Whole(_) | Value::Number(_) => "a number",
            Value::Flag(_) => "true or false",
            Value::Moment => "a date",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
}

/// Reads one source. `false` = it is not TOML, and the tree is a guess.
pub(crate) fn parse(source: u16, sources: &Sources, problems: &mut Vec<Problem>) -> (Node, bool) {
    let place = Position { source, start: 0, end: u32::MAX };
    let text = sources.of(place).map_or("", |source| source.text.as_str());
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut broken = Vec::new();
    let mut twice = Vec::new();
    for error in &errors {
        let at = sources.place(source, error.span().unwrap_or(text.len()..text.len()));
        if error.message().contains("duplicate key") {
            twice.push(at);
        } else {
            broken.push((error.message(), at));
        }
    }
    syntax::note(&broken, sources, problems);
    let root = table_node(sources, source, table.span(), table.get_ref());
    duplicates(&twice, &root, sources, problems);
    (root, broken.is_empty())
}

/// Notes each key that is set twice in one file, with its first place.
fn duplicates(twice: &[Position], root: &Node, sources: &Sources, problems: &mut Vec<Problem>) {
    let mut header: Option<u32> = None;
    for at in twice {
        let before = sources.line_start(*at);
        let in_header =
            sources.text(Position { end: at.start, ..before }).trim_start().starts_with('[');
        // The keys below a repeated table collide too; one message for the table is enough.
        if !in_header && header == sources.header_before(*at) && header.is_some() {
            continue;
        }
        header = in_header.then_some(before.start);
        let name = sources.text(*at).trim_matches(['"', '\'']).to_owned();
        let problem = Problem::error(format!("`{name}` is set twice")).at(*at, "set again here");
        let mut first = None;
        if in_header {
            first = sources.same_line_before(*at);
        }
        if first.is_none() {
            root.last_key_before(&name, *at, &mut first);
        }
        // If a header follows `name = { … }` the parser keeps only the later one.
        let first = first.or_else(|| sources.setting_before(*at));
        problems.push(match first {
            Some(first) => problem.at(first, "first set here"),
            None => problem,
        });
    }
}

fn node(sources: &Sources, source: u16, span: std::ops::Range<usize>, value: &DeValue) -> Node {
    let place = sources.place(source, span.clone());
    let value = match value {
        DeValue::String(text) => Value::Text(text.clone().into_owned()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Value::Number(f64::INFINITY), Value::Whole),
        DeValue::Float(number) => Value::Number(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Datetime(_) => Value::Moment,
        DeValue::Array(list) => Value::List(
            list.iter().map(|item| node(sources, source, item.span(), item.get_ref())).collect(),
        ),
        DeValue::Table(table) => return table_node(sources, source, span, table),
    };
    Node { place, value }
}

fn table_node(
    sources: &Sources,
    source: u16,
    span: std::ops::Range<usize>,
    table: &DeTable,
) -> Node {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: Node {
                place: sources.place(source, key.span()),
                value: Value::Text(key.get_ref().clone().into_owned()),
            },
            node: node(sources, source, value.span(), value.get_ref()),
        })
        .collect();
    // The parser sorts by name; the order of the file is restored.
    entries.sort_by_key(|entry| entry.key.place);
    Node { place: sources.place(source, span), value: Value::Table(entries) }
}

/// Lays a file over those read before it: tables join, routes add up, anything else that is set in
/// both is a problem that shows both.
pub(crate) fn merge(into: &mut Node, from: Node, path: &str, problems: &mut Vec<Problem>) {
    let (Value::Table(have), Value::Table(more)) = (&mut into.value, from.value) else {
        return;
    };
    for entry in more {
        let name = entry.name().to_owned();
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let Some(first) = have.iter_mut().find(|first| first.name() == name) else {
            have.push(entry);
            continue;
        };
        match (&mut first.node.value, entry.node.value) {
            (Value::Table(_), value @ Value::Table(_)) => {
                let from = Node { place: entry.node.place, value };
                merge(&mut first.node, from, &path, problems);
            }
            (Value::List(tables), Value::List(more)) if path == "route" || path == "webhook" => {
                tables.extend(more);
            }
            _ => problems.push(
                Problem::error(format!("`{path}` is set twice"))
                    .at(entry.key.place, "set again here")
                    .at(first.key.place, "first set here")
                    .help("keep one of them: the order of files decides nothing"),
            ),
        }
    }
}

/// Puts a value over an existing one, creating tables on the way.
pub(crate) fn put(into: &mut Node, path: &str, node: Node) {
    let (name, rest) = path.split_once('.').unwrap_or((path, ""));
    let Value::Table(entries) = &mut into.value else {
        return;
    };
    let at = entries.iter().position(|entry| entry.name() == name).unwrap_or_else(|| {
        let key = Node { place: node.place, value: Value::Text(name.to_owned()) };
        entries.push(Entry { key, node: Node { place: node.place, ..Node::empty() } });
        entries.len() - 1
    });
    if let Some(entry) = entries.get_mut(at) {
        if rest.is_empty() {
            entry.node = node;
        } else {
            put(&mut entry.node, rest, node);
        }
    }
}
