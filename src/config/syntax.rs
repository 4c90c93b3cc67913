//! Errors of the TOML parser, reworded for people who do not write TOML every day.
//!
//! The parser goes on after an error, so one mistake may cause several; and a file in another
//! language causes one per line. Both are reported once. The parser supplies the place of a
//! mistake.

use std::collections::BTreeSet;

use super::{
    problem::Problem,
    source::{Position, Sources},
};

/// Most lines of a file in which each line is wrong and the author may still have meant TOML.
const LINES_FEW: usize = 2;

/// Notes the syntax errors of one source, in the order of its lines.
pub(super) fn note(errors: &[(&str, Position)], sources: &Sources, problems: &mut Vec<Problem>) {
    let mut seen = BTreeSet::new();
    let mut lines = errors.to_vec();
    // Further errors on a line follow from its first.
    lines.retain(|(_, at)| seen.insert(sources.line_start(*at)));
    let Some((_, first)) = lines.first() else { return };
    let text = sources.of(*first).map_or("", |source| source.text.as_str());
    let said =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let is_few = lines.len() <= LINES_FEW && !text.trim_start().starts_with('{');
    if lines.len() == said.count() && !is_few {
        problems.push(another_language(*first));
        return;
    }
    problems.extend(lines.iter().map(|(message, at)| problem(message, *at, sources)));
}

/// Every line is wrong: one message instead of one each.
fn another_language(first: Position) -> Problem {
    Problem::error("this is not TOML").at(first, "the file is in another language").help(SHAPE)
}

fn problem(message: &str, at: Position, sources: &Sources) -> Problem {
    let message = message.strip_suffix(", expected nothing").unwrap_or(message);
    let (label, help) = words(message, sources.text(at).trim());
    Problem::error("this is not TOML").at(at, label).help_if(help.map(str::to_owned))
}

const QUOTES: &str = "strings, addresses and durations need quotes: \"0.0.0.0:80\"";
const SHAPE: &str = "a setting is written key = \"value\", a section [listener.web]";
const ESCAPE: &str =
    "a backslash is literal in single quotes: '^/[0-9]+\\.html$'; in double quotes write two";

/// The text under the caret for a message of the parser, and the help.
fn words<'a>(message: &'a str, written: &str) -> (&'a str, Option<&'static str>) {
    let begins = |with: &str| message.starts_with(with);
    if message.contains(" string, expected `") {
        ("the closing quote is missing", None)
    } else if message.contains("visible characters") {
        ("a control character", None)
    } else if begins("missing escaped value") {
        ("not an escape", Some(ESCAPE))
    } else if begins("key with no value") || begins("invalid key-value pair") {
        (message, Some(SHAPE))
    } else if begins("string values must be quoted") {
        match written {
            "" => ("a value is missing", None),
            _ => ("not in quotes", Some(QUOTES)),
        }
    } else if begins("invalid") && !begins("invalid boolean") {
        (message, Some(QUOTES))
    } else {
        (message, None)
    }
}
