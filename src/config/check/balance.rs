//! `balance` of a pool: a word, or a table that says what is hashed.

use super::{Check, both, route_text};
use crate::config::{
    file,
    problem::Problem,
    source::Position,
    units::BadValue,
    written::{WordOr, Written},
};
use crate::plan::{Algorithm, HashOf, Share};

pub(crate) const ALGORITHMS: &[(&str, Algorithm)] = &[
    ("round-robin", Algorithm::RoundRobin),
    ("weighted", Algorithm::RoundRobin),
    ("random", Algorithm::Random),
    ("least-connections", Algorithm::LeastConnections),
    ("ip-hash", Algorithm::IpHash),
    ("least-response-time", Algorithm::LeastResponseTime),
];

/// A bound of exactly the share leaves no room for one more request; a hundredfold is never useful.
const BOUNDS: std::ops::RangeInclusive<Share> = Share(1_000_001)..=Share::percent(10_000);

impl Check<'_> {
    /// How a backend is picked, if the key is present and valid.
    pub(super) fn balance(
        &mut self,
        key: Option<&Written<WordOr<file::Balance>>>,
        into: &mut Algorithm,
    ) {
        let Some(key) = key else { return };
        match &key.value {
            None => {}
            Some(WordOr::Word(word)) => {
                if let Some(found) = self.choose("balancing algorithm", key.place, word, ALGORITHMS)
                {
                    *into = found;
                }
            }
            Some(WordOr::Table(table)) => self.hash(key, table, into),
        }
    }

    fn hash(
        &mut self,
        key: &Written<WordOr<file::Balance>>,
        table: &file::Balance,
        into: &mut Algorithm,
    ) {
        if table.hash.is_none() && !key.holes {
            self.note(
                Problem::error("`balance` table without `hash`")
                    .at(key.place, "has no `hash`")
                    .help("write for example: balance = { hash = \"header:x-user\" }"),
            );
        }
        let mut bound = Share::ZERO;
        self.share(table.bound.as_ref(), BOUNDS, "expected a factor above 1", &mut bound);
        if let Some(of) = self.hash_of(both(table.hash.as_ref())) {
            *into = Algorithm::Hash { of, bound: (bound != Share::ZERO).then_some(bound) };
        }
    }

    fn hash_of(&mut self, written: Option<(Position, &String)>) -> Option<HashOf> {
        let (place, text) = written?;
        match hash_of(text) {
            Ok(of) => Some(of),
            Err(refusal) => {
                self.refuse(place, refusal);
                None
            }
        }
    }
}

/// `header:x-user`, `cookie:session`, `query:id`, `uri`.
fn hash_of(text: &str) -> Result<HashOf, BadValue> {
    let refusal = |label: &str| BadValue::new(format!("`{text}` cannot be hashed"), label);
    let expected = "expected \"header:…\", \"cookie:…\", \"query:…\" or \"uri\"";
    let (part, name) = match text.split_once(':') {
        Some((part, name)) => (part, Some(name)),
        None => (text, None),
    };
    match (part, name) {
        ("uri", None) => Ok(HashOf::Uri),
        ("header", Some(name)) => {
            route_text::field_name(name)?;
            Ok(HashOf::Header(name.to_ascii_lowercase()))
        }
        ("cookie", Some(name)) => {
            route_text::cookie_name(name)?;
            Ok(HashOf::Cookie(name.to_owned()))
        }
        ("query", Some(name)) => {
            // RFC 3986 §3.4, and `&` and `=` as query strings are commonly split.
            let fits = |c: char| c.is_ascii_graphic() && !"&=#\"<>".contains(c);
            if name.is_empty() || !name.chars().all(fits) {
                return Err(refusal("expected the name of a query argument"));
            }
            Ok(HashOf::Query(name.to_owned()))
        }
        ("header" | "cookie" | "query", None) => {
            Err(refusal("whose value?").help(format!("write for example \"{part}:user\"")))
        }
        ("ip" | "client-ip" | "source", None) => {
            Err(refusal(expected).help("write balance = \"ip-hash\""))
        }
        ("url" | "path" | "url-path", None) => Err(refusal(expected).help("write \"uri\"")),
        ("hdr" | "cookies" | "arg" | "url-param" | "url_param" | "query-parameter", Some(name)) => {
            let ours = match part {
                "hdr" => "header",
                "cookies" => "cookie",
                _ => "query",
            };
            Err(refusal(expected).help(format!("write \"{ours}:{name}\"")))
        }
        _ if text.starts_with('$') => Err(refusal(expected)
            .help("there are no variables: \"header:…\" for $http_…, \"cookie:…\" for $cookie_…")),
        _ => Err(refusal(expected).help("write for example \"header:x-user\"")),
    }
}

/// The words for this part.
pub(crate) fn write_hash_of(of: &HashOf) -> String {
    match of {
        HashOf::ClientIp => "client-ip".to_owned(),
        HashOf::Header(name) => format!("header:{name}"),
        HashOf::Cookie(name) => format!("cookie:{name}"),
        HashOf::Query(name) => format!("query:{name}"),
        HashOf::Uri => "uri".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_can_be_written() {
        for algorithm in Algorithm::each() {
            let is_word = ALGORITHMS.iter().any(|(_, known)| *known == algorithm);
            let is_table = matches!(algorithm, Algorithm::Hash { .. });
            assert!(is_word != is_table, "{algorithm:?}");
        }
    }

    #[test]
    fn reads_what_is_hashed() {
        for (text, of) in [
            ("uri", HashOf::Uri),
            ("header:X-User", HashOf::Header("x-user".into())),
            ("cookie:Session", HashOf::Cookie("Session".into())),
            ("query:id", HashOf::Query("id".into())),
        ] {
            assert_eq!(hash_of(text), Ok(of.clone()), "{text}");
            assert_eq!(hash_of(&write_hash_of(&of)), Ok(of), "{text}");
        }
    }

    #[test]
    fn refuses_what_cannot_be_hashed() {
        for (text, help) in [
            ("", Some("write for example \"header:x-user\"")),
            ("zebra", Some("write for example \"header:x-user\"")),
            ("header", Some("write for example \"header:user\"")),
            ("client-ip", Some("write balance = \"ip-hash\"")),
            ("path", Some("write \"uri\"")),
            ("hdr:x-user", Some("write \"header:x-user\"")),
            ("url_param:id", Some("write \"query:id\"")),
            ("header:", None),
            ("header:x user", None),
            ("cookie:a=b", None),
            ("query:", None),
            ("query:a&b", None),
            ("uri:x", Some("write for example \"header:x-user\"")),
        ] {
            let refusal = hash_of(text).unwrap_err();
            assert_eq!(refusal.help.as_deref(), help, "{text}");
        }
    }
}
