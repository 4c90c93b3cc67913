//! Keys that are not ours: what was probably meant.
//!
//! People bring spellings from nginx, HAProxy, Traefik, Caddy and Envoy; a table of their own says
//! what we call it. Another table names the keys that are decided but not built yet, so that nobody
//! hunts for a spelling mistake. What is in neither is compared with the keys that are there.

use super::{
    problem::Problem,
    read::Trail,
    tree::{Entry, Node},
};

/// What an unknown key of a section is told.
pub(crate) fn unknown_key(
    entry: &Entry,
    section: &str,
    fields: &[&'static str],
    trail: &Trail,
) -> Problem {
    let name = entry.name();
    let owner = trail.describe();
    let title = if owner.is_empty() {
        format!("unknown key `{name}`")
    } else {
        format!("unknown key `{name}` in {owner}")
    };
    Problem::error(title)
        .at(entry.key.place, format!("not a key of {}", what_it_is(section)))
        .help_if(help(name, section, fields, &entry.node))
}

/// A section as one calls it in a sentence.
fn what_it_is(section: &str) -> &'static str {
    match section {
        "global" => "`[global]`",
        "limits" => "`[global.limits]`",
        "shutdown" => "`shutdown`",
        "log" => "`log`",
        "listener" => "a listener",
        "access-log" => "`access-log`",
        "listener-timeouts" => "the timeouts of a listener",
        "route" => "a route",
        "pool" => "a pool",
        "backend" => "a backend",
        "retry" => "`retry`",
        "connections" => "`connections`",
        "pool-timeouts" => "the timeouts of a pool",
        _ => "the file",
    }
}

fn help(name: &str, section: &str, fields: &[&'static str], _: &Node) -> Option<String> {
    if let Some((_, _, capability)) =
        NOT_BUILT.iter().find(|(at, key, _)| *at == section && *key == name)
    {
        return Some(format!("`{name}` is not built yet: it arrives with {capability}"));
    }
    if let Some(meant) = spelled_elsewhere(name, section) {
        return Some(meant.to_owned());
    }
    let spellings = FOREIGN
        .iter()
        .filter(|(at, _, meant)| *at == section && meant.starts_with("did you mean"))
        .map(|(_, spelling, _)| *spelling);
    let near = nearest(name, fields.iter().copied().chain(spellings))?;
    spelled_elsewhere(near, section)
        .map(ToOwned::to_owned)
        .or_else(|| Some(format!("did you mean `{near}`?")))
}

fn spelled_elsewhere(name: &str, section: &str) -> Option<&'static str> {
    let plain = name.replace('_', "-").to_lowercase();
    FOREIGN.iter().find(|(at, key, _)| *at == section && *key == plain).map(|(_, _, meant)| *meant)
}

/// What an unknown word of a closed list is told.
pub(crate) fn unknown_word(_what: &str, word: &str, known: &[&str]) -> Option<String> {
    nearest(word, known.iter().copied()).map(|near| format!("did you mean `{near}`?"))
}

/// The candidate that is spelled most like a word, if any is near enough to be meant.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let word = word.to_lowercase();
    let reach = word.chars().count().max(3) / 3;
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, candidate), candidate))
        .filter(|(distance, _)| *distance <= reach)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Section, key, and what it arrives with.
const NOT_BUILT: &[(&str, &str, &str)] = &[];

/// Section, spelling from elsewhere, and what to say.
const FOREIGN: &[(&str, &str, &str)] = &[];
