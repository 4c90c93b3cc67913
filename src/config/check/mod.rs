//! From what was written to a plan, section by section; every problem is collected.
//!
//! The second of two stages: units, names, ranges, and everything that concerns more than one key.
//! A refused value is noted and its default used instead, so that the rest is still checked; such a
//! plan is thrown away at the end. Nothing here opens a file or looks up a name; `Lookup` says
//! whether a file that the plan names exists.

mod address;
mod balance;
mod bind;
mod certificates;
mod cookies;
mod failures;
mod global;
mod health;
mod listener;
mod pool;
mod retry;
mod route;
mod route_text;
mod statuses;
mod sticky;
mod tcp;
mod ties;
mod tls;
mod useless;
mod webhook;
mod whole;

use std::{collections::HashMap, ops::RangeInclusive, sync::Arc, time::Duration};

use super::{
    expand::Lookup,
    file::{DurationText, File, ShareNumber, SizeText},
    foreign,
    problem::Problem,
    source::{Position, Sources},
    units::{self, BadValue},
    written::{Scalar, Tables, Written},
};
use crate::plan::{Backend, Plan, PoolId, Share};

pub(super) use self::address::backend as backend_address;
pub(crate) use self::balance::{ALGORITHMS, write_hash_of};
pub(crate) use self::certificates::Found;
pub(crate) use self::global::{DRIVERS, LOG_FORMATS, LOG_LEVELS};
pub(crate) use self::listener::{ACCESS_LOG_FORMATS, MODES};
pub(crate) use self::retry::RETRY_ON;
pub(crate) use self::statuses::words as status_words;
pub(crate) use self::sticky::SAME_SITE;
pub(crate) use self::tls::{CLIENT_AUTH_MODES, TLS_VERSIONS, UNKNOWN_NAMES};
pub(crate) use self::whole::SMALLEST;

/// What the file means, if nothing was added to `problems`; `lost` are the names of tables that
/// could not be read.
pub(super) fn plan(
    file: &File,
    lost: &[String],
    sources: &Sources,
    lookup: &dyn Lookup,
    problems: &mut Vec<Problem>,
) -> (Plan, Vec<Found>) {
    let loose_ends = !lost.is_empty();
    let mut check = Check { sources, lookup, problems, loose_ends, certificates: Vec::new() };
    let (mut global, limits) = check.global(file.global.as_ref());
    global.webhooks = check.webhooks(&file.webhook);
    let pools = check.pools(&file.pool);
    let (pools_by_name, listeners) = (Positions::of(&file.pool), Positions::of(&file.listener));
    let names = Names { pools: pools_by_name, listeners, lost };
    let listeners = check.listeners(&file.listener, &names);
    check.client_certs(&file.pool, &listeners);
    let routes = check.routes(&file.route, &names);
    check.tcp_listeners(&file.listener, (&listeners, &routes), &pools);
    check.tcp_routes(&file.route, (&listeners, &routes), &pools);
    check.counts([
        ("listeners", listeners.len()),
        ("routes", routes.len()),
        ("pools", pools.len()),
    ]);
    let listeners = listeners.into_iter().collect();
    let routes = routes.into_iter().map(Arc::new).collect();
    let pools = pools.into_iter().map(Arc::new).collect();
    let plan = Plan { global, limits, listeners, routes, pools };
    check.whole(file, &plan);
    (plan, check.certificates)
}

/// The problems so far, and what is needed to say where they are.
struct Check<'a> {
    sources: &'a Sources,
    lookup: &'a dyn Lookup,
    problems: &'a mut Vec<Problem>,
    /// Whether some reference to a pool could not be understood.
    loose_ends: bool,
    /// The certificates that were read.
    certificates: Vec<Found>,
}

/// The names that sections may refer to.
struct Names<'a> {
    pools: Positions<'a>,
    listeners: Positions<'a>,
    /// The names of sections that could not be read.
    lost: &'a [String],
}

/// The index of each name in the order of its tables: there may be tens of thousands.
struct Positions<'a>(HashMap<&'a str, usize>);

impl<'a> Positions<'a> {
    fn of<T>(tables: &'a Tables<T>) -> Positions<'a> {
        let keys = tables.0.iter().filter_map(|(key, _)| key.value.as_deref());
        Positions(keys.enumerate().map(|(place, name)| (name, place)).collect())
    }

    /// The id of a name.
    fn id<I>(&self, name: &str, id: impl Fn(u16) -> I) -> Option<I> {
        u16::try_from(*self.0.get(name)?).ok().map(id)
    }

    /// All names, in a fixed order.
    fn sorted(&self) -> Vec<&'a str> {
        let mut names: Vec<&str> = self.0.keys().copied().collect();
        names.sort_by_key(|name| self.0.get(name));
        names
    }
}

impl Names<'_> {
    /// Whether this may be the name of a section that could not be read.
    fn may_have(&self, name: &str) -> bool {
        self.lost.iter().any(|lost| lost == name)
    }
}

impl Check<'_> {
    fn note(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    fn refuse(&mut self, place: Position, refusal: BadValue) {
        let problem = Problem::error(refusal.title).at(place, refusal.label);
        self.note(problem.help_if(refusal.help));
    }

    /// A duration, if the key is present and valid.
    fn duration(&mut self, key: Option<&Written<DurationText>>, into: &mut Duration) {
        if let Some((place, DurationText(written))) = both(key) {
            match units::duration(written) {
                Ok(duration) => *into = duration,
                Err(refusal) => self.refuse(place, refusal),
            }
        }
    }

    /// A non-zero duration, if the key is present and valid; returns whether it is.
    fn duration_above_zero(
        &mut self,
        key: Option<&Written<DurationText>>,
        into: &mut Duration,
    ) -> bool {
        let Some((place, DurationText(written))) = both(key) else { return false };
        match units::duration(written) {
            Ok(Duration::ZERO) => {
                self.note(Problem::error("duration of zero").at(place, "expected more than 0"));
                return false;
            }
            Ok(duration) => *into = duration,
            Err(refusal) => {
                self.refuse(place, refusal);
                return false;
            }
        }
        true
    }

    /// A share in a range, if the key is present and valid; `expected` is the range in words.
    fn share(
        &mut self,
        key: Option<&Written<ShareNumber>>,
        range: RangeInclusive<Share>,
        expected: &str,
        into: &mut Share,
    ) {
        if let Some((place, ShareNumber(written))) = both(key) {
            match units::share(written, &range, expected) {
                Ok(share) => *into = share,
                Err(refusal) => self.refuse(place, refusal),
            }
        }
    }

    /// A size in a range, if the key is present and valid.
    fn size(&mut self, key: Option<&Written<SizeText>>, range: RangeInclusive<u64>) -> Option<u64> {
        let (place, SizeText(written)) = both(key)?;
        match units::size(written) {
            Ok(bytes) if range.contains(&bytes) => Some(bytes),
            Ok(_) => {
                let (least, most) = range.into_inner();
                let (least, most) = (units::write_size(least), units::write_size(most));
                let label = format!("expected {least} to {most}");
                self.refuse(place, BadValue::new("size out of range", label));
                None
            }
            Err(refusal) => {
                self.refuse(place, refusal);
                None
            }
        }
    }

    /// A whole number in a range, if the key is present and valid.
    fn whole_number<T: TryFrom<i64>>(
        &mut self,
        key: Option<&Written<i64>>,
        range: RangeInclusive<i64>,
        into: &mut T,
    ) {
        let Some((place, number)) = both(key) else { return };
        match T::try_from(*number) {
            Ok(number_in_range) if range.contains(number) => *into = number_in_range,
            _ => {
                let label = format!("expected {} to {}", range.start(), range.end());
                self.note(Problem::error("number out of range").at(place, label));
            }
        }
    }

    /// One of a few words, if the key is present and valid.
    fn word<T: Clone>(
        &mut self,
        what: &str,
        key: Option<&Written<String>>,
        words: &[(&str, T)],
        into: &mut T,
    ) {
        let Some((place, word)) = both(key) else { return };
        if let Some(found) = self.choose(what, place, word, words) {
            *into = found;
        }
    }

    /// The meaning of one of a few words, in upper or lower case.
    fn choose<T: Clone>(
        &mut self,
        what: &str,
        place: Position,
        word: &str,
        words: &[(&str, T)],
    ) -> Option<T> {
        // As in variables of the environment: `INFO`.
        let is_it = |(name, _): &&(&str, T)| name.eq_ignore_ascii_case(word);
        if let Some((_, meaning)) = words.iter().find(is_it) {
            return Some(meaning.clone());
        }
        let known: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let help = foreign::unknown_word(what, word, &known);
        self.note(
            Problem::error(format!("unknown {what} \"{word}\""))
                .at(place, format!("expected {}", one_of(&known)))
                .help_if(help),
        );
        None
    }

    /// The pool of a name.
    fn pool_named(&mut self, who: &str, key: &Written<String>, names: &Names) -> Option<PoolId> {
        let Some(name) = key.value.as_deref() else {
            self.loose_ends = true;
            return None;
        };
        if let Some(id) = names.pools.id(name, PoolId) {
            return Some(id);
        }
        self.loose_ends = true;
        if names.may_have(name) {
            return None;
        }
        let help = foreign::nearest(name, names.pools.sorted())
            .map(|near| format!("did you mean `{near}`?"))
            .or_else(|| Some(format!("add a [pool.{name}] with its `backends`")));
        self.note(
            Problem::error(format!("{who} sends to pool \"{name}\", which is not defined"))
                .at(key.place, "no pool has this name")
                .help_if(help),
        );
        None
    }

    /// Whether a table's name can be a label in metrics and a part of a URL.
    fn name(&mut self, what: &str, place: Position, name: &str) {
        let signs = if what == "backend" { Backend::SIGNS } else { "-_." };
        let fits = |c: char| c.is_ascii_alphanumeric() || signs.contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
            let label = format!("expected 1 to 64 letters, digits and {}", one_of_signs(signs));
            self.note(
                Problem::error(format!("name of a {what} that cannot be used")).at(place, label),
            );
        }
    }
}

/// Place and value of a key that is present and was not refused before.
fn both<T>(key: Option<&Written<T>>) -> Option<(Position, &T)> {
    key.and_then(|key| Some((key.place, key.value.as_ref()?)))
}

/// The value of a section that is present.
fn section<T>(key: Option<&Written<T>>) -> Option<&T> {
    key.and_then(|key| key.value.as_ref())
}

/// The text of a scalar, for messages.
fn spelled(scalar: &Scalar) -> String {
    match scalar {
        Scalar::Text(text) => text.clone(),
        Scalar::Whole(number) => number.to_string(),
        Scalar::Number(number) => number.to_string(),
        Scalar::Flag(flag) => flag.to_string(),
    }
}

/// A set of characters in words.
fn one_of_signs(signs: &str) -> String {
    let signs: Vec<String> = signs.chars().map(|sign| format!("`{sign}`")).collect();
    signs.join(" ")
}

/// `"a"`, `"a" or "b"`, `"a", "b" or "c"`.
fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}
