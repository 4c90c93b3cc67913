//! Configuration: from files that people write to a plan, or to pictures of everything wrong in
//! them.
//!
//! Floor 3. Two stages: what was written (`file.rs`, read from a tree in which every value knows
//! its place) and what it means (`check`). Several files first become one tree, and flags and
//! variables of the environment are laid over it, so one path leads to a plan. `load` is the only
//! file access below floor 4. Host names of backends are not looked up here.

mod check;
mod effective;
mod expand;
mod file;
mod foreign;
mod load;
mod problem;
mod read;
#[cfg(test)]
mod reference_tests;
mod run_time;
mod schema;
mod source;
mod syntax;
mod trail;
mod tree;
mod units;
mod written;

use std::{path::PathBuf, sync::Arc, time::Duration};

pub use self::problem::{Problem, Problems, Severity};
pub(crate) use self::{
    check::Found as FoundCertificate, expand::Lookup, load::Machine, run_time::RunTimeChanges,
};
use self::{
    expand::FromFiles,
    source::{Position, Sources},
    tree::{Node, Value},
};
use crate::plan::{Address, Algorithm, Checked, Overlay};

/// A valid configuration.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// Its meaning.
    pub plan: Checked,
    /// Warnings, which do not prevent a start.
    pub warnings: Problems,
    /// The certificates that it names, with what is in them.
    pub(crate) certificates: Vec<FoundCertificate>,
    written: Node,
    sources: Arc<Sources>,
    from_files: FromFiles,
}

impl Loaded {
    /// The certificate that expires first, and whole days until then.
    pub(crate) fn first_to_expire(&self) -> Option<(&FoundCertificate, i64)> {
        let first = self.certificates.iter().min_by_key(|found| found.facts.not_after)?;
        Some((first, first.facts.days_left(Machine.now())))
    }

    /// The configuration in force as TOML, with the origin of each value. Text from `${file:…}` is
    /// shown as the reference.
    #[must_use]
    pub fn effective(&self) -> String {
        self.effective_with(&Overlay::default())
    }

    /// The same with run-time changes.
    pub(crate) fn effective_with(&self, overlay: &Overlay) -> String {
        let Loaded { plan, written, sources, from_files, .. } = self;
        let mut sections = effective::sections(plan, written, (sources, from_files));
        effective::lay_over(&mut sections, plan, overlay);
        effective::text(&sections)
    }
}

/// Values from flags and the environment, which override those of files.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    list: Vec<Override>,
}

#[derive(Clone, Debug)]
struct Override {
    key: &'static str,
    text: String,
    switch: Option<bool>,
    from: String,
}

impl Overrides {
    /// Sets a key of `[global]` (`global.cores`) to a text; `from` names its origin for messages
    /// (`--cores`, `RINGWAY_CORES`).
    pub fn text(&mut self, key: &'static str, text: &str, from: &str) {
        let (text, from) = (text.to_owned(), from.to_owned());
        self.list.push(Override { key, text, switch: None, from });
    }

    /// Sets a key to true or false.
    pub fn switch(&mut self, key: &'static str, on: bool, from: &str) {
        let (text, from) = (on.to_string(), from.to_owned());
        self.list.push(Override { key, text, switch: Some(on), from });
    }

    /// The same values as they would be written in a file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for setting in &self.list {
            let key = setting.key.strip_prefix("global.").unwrap_or(setting.key);
            let value = match setting.switch {
                Some(on) => on.to_string(),
                None => toml::Value::String(setting.text.clone()).to_string(),
            };
            text.push_str(&format!("{key} = {value}\n"));
        }
        if text.is_empty() { text } else { format!("[global]\n{text}\n") }
    }
}

/// Loads files and directories as one configuration, with overrides on top.
///
/// # Errors
///
/// Everything that is wrong with them.
pub fn load(paths: &[PathBuf], overrides: &Overrides) -> Result<Loaded, Problems> {
    let mut sources = Sources::default();
    let mut problems = Vec::new();
    load::files(paths, &mut sources, &mut problems);
    assemble(sources, problems, overrides, &Machine)
}

/// Checks a text as if it were a file of that name.
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn parse(name: &str, text: &str) -> Result<Loaded, Problems> {
    parse_with(name, text, &Overrides::default())
}

/// Like `parse`, with overrides on top.
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn parse_with(name: &str, text: &str, overrides: &Overrides) -> Result<Loaded, Problems> {
    let mut sources = Sources::default();
    sources.add(name, text.to_owned());
    assemble(sources, Vec::new(), overrides, &Machine)
}

/// The address of a backend, in the form of a configuration.
///
/// # Errors
///
/// What is wrong with the text, in one sentence.
pub fn backend_address(text: &str) -> Result<Address, String> {
    check::backend_address(text).map_err(units::BadValue::in_one_line)
}

/// The word for an algorithm, in the form of a configuration.
pub(crate) fn algorithm_word(algorithm: &Algorithm) -> &'static str {
    let found = check::ALGORITHMS.iter().find(|(_, other)| other == algorithm);
    found.map_or("hash", |(word, _)| word)
}

/// A duration, in the form of a configuration.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    units::duration(&written::Scalar::Text(text.to_owned())).map_err(units::BadValue::in_one_line)
}

/// Lets a test write keys that are not built yet.
#[cfg(test)]
pub(crate) fn open_doors() {
    foreign::OPEN.set(true);
}

/// The JSON Schema of the configuration.
#[must_use]
pub fn schema() -> String {
    schema::text()
}

/// The one path from texts to a plan.
fn assemble(
    mut sources: Sources,
    mut problems: Vec<Problem>,
    overrides: &Overrides,
    lookup: &dyn Lookup,
) -> Result<Loaded, Problems> {
    let mut root = Node::empty();
    let mut sound = problems.is_empty();
    for source in 0..sources.count() {
        let (tree, readable) = tree::parse(source, &sources, &mut problems);
        sound &= readable;
        tree::merge(&mut root, tree, "", &mut problems);
    }
    if !sound {
        // A source that is missing or not TOML leaves a tree full of holes: messages about the rest
        // would be guesses.
        return Err(Problems::new(problems, Arc::new(sources)));
    }
    let mut from_files = FromFiles::default();
    expand::tree(&mut root, &sources, lookup, &mut problems, &mut from_files);
    for setting in &overrides.list {
        let source = sources.add(&setting.from, setting.text.clone());
        let place = Position { source, ..sources.place(source, 0..setting.text.len()) };
        let value = match setting.switch {
            Some(on) => Value::Flag(on),
            None => Value::Text(setting.text.clone()),
        };
        tree::put(&mut root, setting.key, Node { place, value });
    }
    let (file, lost): (file::File, _) = read::read(&root, &mut problems);
    let (plan, certificates) = check::plan(&file, &lost, &sources, lookup, &mut problems);
    let sources = Arc::new(sources);
    let hide = |problem: Problem| {
        let problem = problem.with_texts(|text| from_files.hidden(text));
        // The help is made of parts of the hidden text.
        let is_hidden = problem.place().is_some_and(|place| from_files.are_at(place));
        if is_hidden { problem.without_help() } else { problem }
    };
    let problems = problems.into_iter().map(hide).collect();
    let problems = Problems::new(problems, Arc::clone(&sources));
    if problems.errors() > 0 {
        return Err(problems);
    }
    let plan = Checked::new(plan);
    let warnings = problems;
    Ok(Loaded { plan, warnings, certificates, written: root, sources, from_files })
}
