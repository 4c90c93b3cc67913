//! Unknown keys and words: what was probably meant.
//!
//! People bring spellings from nginx, HAProxy, Traefik, Caddy and Envoy; one table translates them.
//! Another lists the keys that are decided but not built yet, so that no operator looks for a
//! spelling mistake. Anything else is compared with the existing keys.

mod table;

use self::table::{FOREIGN, FOREIGN_WORDS, KEYS, NOT_BUILT, Say, WORDS_NOT_BUILT};
use super::{
    problem::Problem,
    trail::Trail,
    tree::{Entry, Node, Value},
};

/// The message for an unknown key of a section.
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

/// The name of a section in a sentence.
fn what_it_is(section: &str) -> &'static str {
    match section {
        "global" => "[global]",
        "limits" => "[global.limits]",
        "shutdown" => "`shutdown`",
        "log" => "`log`",
        "listener" => "a listener",
        "access-log" => "`access-log`",
        "listener-timeouts" => "the timeouts of a listener",
        "route" => "a route",
        "webhook" => "a webhook",
        "pool" => "a pool",
        "backend" => "a backend",
        "bind" => "an address to listen on",
        "balance" => "`balance`",
        "health" => "`health`",
        "passive" => "`passive`",
        "breaker" => "`breaker`",
        "budget" => "`budget`",
        "hedge" => "`hedge`",
        "sticky" => "`sticky`",
        "queue" => "`queue`",
        "retry" => "`retry`",
        "connections" => "`connections`",
        "listener-tls" => "`tls` of a listener",
        "certificate" => "a certificate",
        "client-auth" => "`client-auth`",
        "pool-tls" => "`tls` of a pool",
        "pool-timeouts" => "the timeouts of a pool",
        _ => "the file",
    }
}

/// What to do about an unknown key, from the surest guess to the boldest.
fn help(name: &str, section: &str, fields: &[&'static str], node: &Node) -> Option<String> {
    if let Some(meant) = unbuilt(NOT_BUILT, section, name) {
        return Some(meant);
    }
    if let Some(meant) = elsewhere(FOREIGN, section, name) {
        return Some(meant);
    }
    if section == "route" && matches!(node.value, Value::Table(_)) {
        return Some(format!("routes are a list: write [[route]], and name = \"{name}\" below it"));
    }
    let plain = name.replace('_', "-").to_lowercase();
    let has = |keys: &[&str]| keys.contains(&plain.as_str());
    if let Some((owner, _)) = KEYS.iter().find(|(owner, keys)| *owner != section && has(keys)) {
        return Some(format!("`{plain}` is a key of {}", what_it_is(owner)));
    }
    // A misspelling may also be one of a foreign word.
    let others = FOREIGN.iter().filter(|row| row.0 == section).map(|row| row.1);
    let coming = NOT_BUILT.iter().filter(|row| row.0 == section).map(|row| row.1);
    let near = nearest(name, fields.iter().copied().chain(others).chain(coming))?;
    unbuilt(NOT_BUILT, section, near)
        .or_else(|| elsewhere(FOREIGN, section, near))
        .or_else(|| Some(format!("did you mean `{near}`?")))
}

/// The message for an unknown word of a closed list.
pub(crate) fn unknown_word(what: &str, word: &str, known: &[&str]) -> Option<String> {
    if let Some(meant) = unbuilt(WORDS_NOT_BUILT, what, word) {
        return Some(meant);
    }
    if let Some(meant) = elsewhere(FOREIGN_WORDS, what, word) {
        return Some(meant);
    }
    if word.chars().all(|c| c.is_ascii_digit()) {
        // Between two numbers no spelling is nearer than another.
        return None;
    }
    let coming = WORDS_NOT_BUILT.iter().filter(|row| row.0 == what).map(|row| row.1);
    let near = nearest(word, known.iter().copied().chain(coming))?;
    unbuilt(WORDS_NOT_BUILT, what, near).or_else(|| Some(format!("did you mean \"{near}\"?")))
}

/// Whether a key that `file.rs` has may be written: a row of `NOT_BUILT` keeps it out until its
/// capability is there.
pub(crate) fn is_built(section: &str, key: &str) -> bool {
    #[cfg(test)]
    if OPEN.get() {
        return true;
    }
    !NOT_BUILT.iter().any(|row| row.0 == section && row.1 == key)
}

#[cfg(test)]
thread_local! {
    /// Whether this test may write keys that are not built yet.
    pub(crate) static OPEN: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// The message for a key or word that is decided but not built.
fn unbuilt(table: &[(&str, &str, &str)], place: &str, name: &str) -> Option<String> {
    let row = table.iter().find(|row| row.0 == place && row.1 == name)?;
    Some(format!("`{name}` is not built yet: it comes with {}", row.2))
}

/// The message for a foreign spelling.
fn elsewhere(table: &[(&str, &str, Say)], place: &str, spelling: &str) -> Option<String> {
    let plain = spelling.replace('_', "-").to_lowercase();
    let row = table.iter().find(|row| row.0 == place && row.1 == plain)?;
    Some(row.2.0.to_owned())
}

/// How to write a value that must be a table and is not.
pub(crate) fn table_meant(keys: &[&str]) -> Option<String> {
    let example = match keys {
        ["listener"] => return Some("each has a name: write [listener.web]".to_owned()),
        ["pool"] => return Some("each has a name: write [pool.app]".to_owned()),
        ["listener", key] => {
            return Some(format!(
                "each listener has a name: write [listener.web], and `{key}` below it"
            ));
        }
        ["pool", key] => {
            return Some(format!("each pool has a name: write [pool.app], and `{key}` below it"));
        }
        [.., "log"] => "log = { level = \"info\" }",
        [.., "access-log"] => "access-log = { path = \"access.log\" }",
        [.., "shutdown"] => "shutdown = { drain = \"30s\" }",
        ["pool", .., "tls"] => "tls = { server-name = \"app.internal\" }",
        [.., "tls"] => "tls = { certificates = [{ cert = \"a.pem\", key = \"a.key\" }] }",
        [.., "certificates", ""] => "{ cert = \"a.pem\", key = \"a.key\" }",
        [.., "client-auth"] => "client-auth = { ca = \"ca.pem\" }",
        [.., "retry"] => "retry = { attempts = 2 }",
        [.., "balance"] => "balance = \"least-connections\", or balance = { hash = \"uri\" }",
        [.., "health"] => "health = { path = \"/health\" }",
        [.., "headers"] => "headers = { x-probe = \"1\" }",
        [.., "passive"] => "passive = { max-failures = 3 }; 0 = off",
        [.., "breaker"] => "breaker = { error-ratio = 0.5 }; it is off by default",
        [.., "hedge"] => "hedge = { after = \"p95\", max = 0.05 }, or \"off\"",
        [.., "budget"] => "budget = { ratio = 0.2, per-second = 10 }, or \"off\"",
        [.., "sticky"] => "sticky = { cookie = \"ringway\" }",
        [.., "queue"] => "queue = { size = 100, timeout = \"5s\" }",
        [.., "connections"] => "connections = { max-idle = 64 }",
        ["pool", .., "timeouts"] => "timeouts = { connect = \"3s\", response = \"30s\" }",
        [.., "timeouts"] => "timeouts = { client-header = \"10s\", idle = \"60s\" }",
        [.., "header"] => "header = { x-canary = \"1\" }",
        [.., "backends", ""] => "\"10.0.0.1:3000\"",
        _ => return None,
    };
    Some(format!("write for example: {example}"))
}

/// How to write a value that must be one string and is not.
pub(crate) fn text_meant(keys: &[&str]) -> Option<String> {
    let meant = match keys {
        [.., "cores"] => "write for example: cores = \"0-3,8\"",
        [.., "pool"] => "write the name of one pool: pool = \"app\"",
        ["route", .., "path" | "path-exact" | "path-regex"] => {
            "a route has one path: write two routes"
        }
        ["route", .., "listener"] => {
            "a route is for one listener; without `listener` for all of them"
        }
        _ => return None,
    };
    Some(meant.to_owned())
}

/// The candidate closest to a word, if it is close enough to be meant.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of a section, from the JSON Schema.
    fn keys_of(section: &str) -> Vec<String> {
        let schema: serde_json::Value =
            serde_json::from_str(&super::super::schema::text()).unwrap();
        let owner = if section == "file" { &schema } else { &schema["definitions"][section] };
        let owner = if ["backend", "bind"].contains(&section) { &owner["anyOf"][1] } else { owner };
        owner["properties"].as_object().unwrap().keys().cloned().collect()
    }

    #[test]
    fn keys_of_other_sections_are_where_it_says() {
        for (section, keys) in KEYS {
            for key in *keys {
                assert!(keys_of(section).iter().any(|known| known == key), "{section} {key}");
            }
        }
    }

    #[test]
    fn no_row_stands_for_a_key_that_is_there() {
        let foreign = FOREIGN.iter().map(|row| (row.0, row.1));
        for (section, key) in foreign.chain(NOT_BUILT.iter().map(|row| (row.0, row.1))) {
            assert!(!keys_of(section).iter().any(|known| known == key), "{section} {key}");
        }
    }

    #[test]
    fn every_row_says_something() {
        for (section, spelling, _) in FOREIGN {
            assert!(elsewhere(FOREIGN, section, spelling).is_some(), "{section} {spelling}");
        }
        for (list, spelling, _) in FOREIGN_WORDS {
            assert!(elsewhere(FOREIGN_WORDS, list, spelling).is_some(), "{list} {spelling}");
        }
    }

    #[test]
    fn only_near_spellings_are_suggested() {
        for (word, near) in
            [("conect", Some("connect")), ("wbe", Some("web")), ("zebra", None), ("", None)]
        {
            assert_eq!(nearest(word, ["connect", "web", "response"]), near, "{word}");
        }
    }
}
