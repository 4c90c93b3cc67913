//! Expansion of `${VAR}` and `${file:/path}` inside strings.
//!
//! Expanded after parsing, so that no value can break out of its string, and once: the inserted
//! text is not expanded again. `$${` stands for `${`.

use std::ops::Range;

use super::{
    problem::Problem,
    source::{Position, Sources},
    tree::{Node, Value},
};
use crate::base::moment::UnixSeconds;
use crate::certs::Files;

/// The source of variables and files.
pub(crate) trait Lookup: Files {
    /// The value of a variable of the environment.
    fn variable(&self, name: &str) -> Option<String>;
    /// The text of a file, or why it cannot be read.
    fn file(&self, path: &str) -> Result<String, String>;
    /// Checks that a file can be read, or says why not.
    fn readable(&self, path: &str) -> Result<(), String>;
    /// Wall time, for dates in files.
    fn now(&self) -> UnixSeconds;
}

/// Longest name of a variable or path of a file.
const REFERENCE_BYTES_MAX: usize = 4096;

/// Texts from `${file:…}`: they may be secrets, so people are shown the reference instead.
#[derive(Clone, Debug, Default)]
pub(crate) struct FromFiles {
    /// The strings that contain such a text.
    places: Vec<Position>,
    /// The inserted text, and the reference written for it.
    values: Vec<(String, String)>,
}

/// A value shorter than this may occur anywhere by chance: it is hidden only between quotes.
const SHORT: usize = 4;

impl FromFiles {
    /// Whether the string at this place contains such a text.
    pub(crate) fn are_at(&self, place: Position) -> bool {
        self.places.contains(&place)
    }

    /// A text for people, with the references in place of the secrets.
    pub(crate) fn hidden(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (value, written) in self.values.iter().filter(|(value, _)| !value.is_empty()) {
            if value.len() >= SHORT {
                text = text.replace(value, written);
            }
            for quote in ['`', '"'] {
                let alone = |inner: &str| format!("{quote}{inner}{quote}");
                text = text.replace(&alone(value), &alone(written));
            }
        }
        text
    }
}

/// Expands every string of a tree; what came from files is noted.
pub(crate) fn tree(
    node: &mut Node,
    sources: &Sources,
    lookup: &dyn Lookup,
    problems: &mut Vec<Problem>,
    from_files: &mut FromFiles,
) {
    match &mut node.value {
        Value::Text(written) => {
            if written.contains("${") {
                let errors = problems.len();
                let before = from_files.values.len();
                *written = text(written, node.place, sources, lookup, problems, from_files);
                if from_files.values.len() > before {
                    from_files.places.push(node.place);
                }
                if problems.len() > errors {
                    node.value = Value::Refused;
                }
            }
        }
        Value::List(list) => {
            for item in list {
                tree(item, sources, lookup, problems, from_files);
            }
        }
        Value::Table(entries) => {
            for entry in entries {
                tree(&mut entry.node, sources, lookup, problems, from_files);
            }
        }
        Value::Whole(_) | Value::Number(_) | Value::Flag(_) | Value::Moment | Value::Refused => {}
    }
}

fn text(
    written: &str,
    place: Position,
    sources: &Sources,
    lookup: &dyn Lookup,
    problems: &mut Vec<Problem>,
    from_files: &mut FromFiles,
) -> String {
    let mut expanded = String::new();
    let mut rest = 0;
    while let Some(at) = written[rest..].find("${").map(|at| rest + at) {
        if written[..at].ends_with('$') {
            // `$${`: the first `$` has been copied with the text before, the second is dropped.
            expanded.push_str(&written[rest..at]);
            expanded.push('{');
            rest = at + 2;
            continue;
        }
        expanded.push_str(&written[rest..at]);
        let Some(end) = written[at..].find('}').map(|end| at + end) else {
            problems.push(
                Problem::error("`${` without its `}`")
                    .at(sources.within(place, written, at..written.len()), "never closed")
                    .help("write `$${` where `${` itself is meant"),
            );
            return expanded;
        };
        match reference(&written[at + 2..end], lookup) {
            Ok(value) => {
                expanded.push_str(&value);
                let written = &written[at..=end];
                if written.starts_with("${file:") {
                    from_files.values.push((value, written.to_owned()));
                }
            }
            Err(problem) => {
                let part: Range<usize> = at..end + 1;
                let (title, label) = *problem;
                problems
                    .push(Problem::error(title).at(sources.within(place, written, part), label));
            }
        }
        rest = end + 1;
    }
    expanded.push_str(&written[rest..]);
    expanded
}

/// The value of the reference between `${` and `}`; otherwise title and label of a problem.
fn reference(name: &str, lookup: &dyn Lookup) -> Result<String, Box<(String, String)>> {
    let problem = |title: String, label: String| Err(Box::new((title, label)));
    if name.len() > REFERENCE_BYTES_MAX {
        return problem("`${…}` is too long".to_owned(), String::new());
    }
    if let Some(path) = name.strip_prefix("file:") {
        return match lookup.file(path) {
            // A file ends with a newline that is not part of the secret.
            Ok(text) => Ok(text.trim_end_matches(['\n', '\r']).to_owned()),
            Err(why) => problem(format!("`{path}` cannot be read"), why),
        };
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(fits) {
        let label = match name.contains('-') {
            true => "expected ${NAME} or ${file:/path}; there are no defaults",
            false => "expected ${NAME} or ${file:/path}",
        };
        return problem(format!("`{name}` is not the name of a variable"), label.to_owned());
    }
    match lookup.variable(name) {
        Some(value) => Ok(value),
        None => problem(
            format!("the variable `{name}` is not set"),
            "not in the environment of this process".to_owned(),
        ),
    }
}
