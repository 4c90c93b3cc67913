//! Run-time changes as a text that people can read, and back.
//!
//! The file that keeps them over a restart: one table for each change. A table that cannot be used
//! is named with its line, and the others are used; so is a text that is no TOML, as a whole.

use std::collections::HashMap;

use super::{
    check::backend_address,
    problem::Problem,
    source::Sources,
    tree::{self, Node, Value},
};
use crate::plan::{Amendment, Backend, Duty, Overlay, Settings, Subject};

/// What a text says.
#[derive(Debug, Default)]
pub(crate) struct RunTimeChanges {
    pub(crate) overlay: Overlay,
    /// The line of each change: `FILE:7`.
    pub(crate) lines: HashMap<Subject, String>,
    /// Lines that cannot be used, and why.
    pub(crate) refused: Vec<(String, String)>,
}

/// The form of the text; a later one may have another.
const VERSION: i64 = 1;

/// The words for the kinds of changes.
const ADDED: &str = "added";
const REMOVED: &str = "removed";
const SET: &str = "set";

impl RunTimeChanges {
    /// Reads a text; `name` is that of its file.
    pub(crate) fn read(name: &str, text: &str) -> RunTimeChanges {
        let mut sources = Sources::default();
        let (source, mut problems) = (sources.add(name, text.to_owned()), Vec::new());
        let (root, readable) = tree::parse(source, &sources, &mut problems);
        let mut changes = RunTimeChanges::default();
        if let Some(problem) = problems.first().filter(|_| !readable) {
            let at = problem.place().map_or(name.to_owned(), |at| sources.name_and_line(at));
            changes.refused.push((at, format!("it is no TOML: {}", Problem::title(problem))));
            return changes;
        }
        match root.key("version").map(|node| &node.value) {
            Some(Value::Whole(VERSION)) => {}
            _ => {
                let why = format!("it is of another version: expected version = {VERSION}");
                changes.refused.push((name.to_owned(), why));
                return changes;
            }
        }
        let list = match root.key("change").map(|node| &node.value) {
            Some(Value::List(list)) => list.as_slice(),
            _ => &[],
        };
        for node in list {
            let at = sources.name_and_line(node.place);
            match change(node) {
                Ok((subject, amendment)) => {
                    changes.lines.insert(subject.clone(), at);
                    changes.overlay.changes.insert(subject, amendment);
                }
                Err(why) => changes.refused.push((at, why)),
            }
        }
        changes
    }

    /// The text of these changes, for a process that reads these files.
    pub(crate) fn write(overlay: &Overlay, files: &[String]) -> String {
        let mut text = format!(
            "# Run-time changes of backends, which Ringway keeps over a restart for\n# {}\n\
             # `ringway reload --discard` drops them.\n\nversion = {VERSION}\n",
            files.join(", ")
        );
        for (subject, amendment) in &overlay.changes {
            let Subject { pool, backend, address } = subject;
            let (what, settings) = match amendment {
                Amendment::Added(settings) => (ADDED, *settings),
                Amendment::Removed => (REMOVED, Settings::default()),
                Amendment::Set(settings) => (SET, *settings),
            };
            text.push_str("\n[[change]]\n");
            let mut line = |key: &str, value: &str| {
                let value = toml::Value::String(value.to_owned());
                text.push_str(&format!("{key} = {value}\n"));
            };
            line("what", what);
            line("pool", pool);
            line("backend", backend);
            line("address", &address.to_string());
            if let Some(duty) = settings.duty {
                line("state", duty.word());
            }
            if let Some(weight) = settings.weight {
                text.push_str(&format!("weight = {weight}\n"));
            }
        }
        text
    }
}

/// One table.
fn change(node: &Node) -> Result<(Subject, Amendment), String> {
    let text = |key: &str| match node.key(key).map(|node| &node.value) {
        Some(Value::Text(text)) => Ok(text.clone()),
        Some(_) => Err(format!("`{key}` is no string")),
        None => Err(format!("it has no `{key}`")),
    };
    let (pool, backend) = (text("pool")?, text("backend")?);
    let address =
        backend_address(&text("address")?).map_err(super::units::BadValue::in_one_line)?;
    let duty = match node.key("state") {
        None => None,
        Some(_) => {
            let word = text("state")?;
            Some(Duty::of(&word).ok_or_else(|| format!("there is no state \"{word}\""))?)
        }
    };
    let weight = match node.key("weight").map(|node| &node.value) {
        None => None,
        Some(Value::Whole(weight @ 0..=256)) => u16::try_from(*weight).ok(),
        Some(_) => return Err("`weight` is no number from 0 to 256".to_owned()),
    };
    let settings = Settings { weight, duty };
    let amendment = match text("what")?.as_str() {
        ADDED if !Backend::is_name(&backend) => {
            return Err(format!("\"{backend}\" cannot be the name of a backend"));
        }
        ADDED => Amendment::Added(settings),
        REMOVED => Amendment::Removed,
        SET => Amendment::Set(settings),
        other => return Err(format!("there is no change \"{other}\"")),
    };
    Ok((Subject { pool, backend, address }, amendment))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(backend: &str, address: &str) -> Subject {
        let address = backend_address(address).unwrap();
        Subject { pool: "a b\"c".into(), backend: backend.into(), address }
    }

    #[test]
    fn what_is_written_is_read() {
        let all = Settings { weight: Some(0), duty: Some(Duty::Draining) };
        let changes = [
            (subject("b1", "10.0.0.1:80"), Amendment::Added(all)),
            (subject("[::1]:80", "[::1]:80"), Amendment::Added(Settings::default())),
            (subject("b2", "app.internal:80"), Amendment::Removed),
            (
                subject("b3", "10.0.0.3:80"),
                Amendment::Set(Settings { weight: None, duty: Some(Duty::Maintenance) }),
            ),
        ];
        let overlay = Overlay { changes: changes.into_iter().collect() };
        let text = RunTimeChanges::write(&overlay, &["/etc/ringway.toml".to_owned()]);
        let read = RunTimeChanges::read("x.toml", &text);
        assert_eq!((read.overlay, read.refused), (overlay, vec![]), "{text}");
        assert_eq!(read.lines[&subject("b1", "10.0.0.1:80")], "x.toml:13", "{text}");
    }

    #[test]
    fn a_line_that_cannot_be_used_is_named_and_the_rest_is_used() {
        let table = |what: &str, more: &str| {
            format!("[[change]]\nwhat = \"{what}\"\npool = \"app\"\n{more}\n")
        };
        let good = "backend = \"b\"\naddress = \"10.0.0.1:80\"";
        for (wrong, why) in [
            (table("added", "backend = \"b\""), "it has no `address`"),
            (table("added", "backend = \"b\"\naddress = \"10.0.0.1\""), "no port"),
            (table("added", "backend = \"b/\"\naddress = \"10.0.0.1:1\""), "cannot be the name"),
            (table("moved", good), "there is no change \"moved\""),
            (table("set", &format!("{good}\nweight = 257")), "0 to 256"),
            (table("set", &format!("{good}\nweight = \"1\"")), "0 to 256"),
            (table("set", &format!("{good}\nstate = \"off\"")), "there is no state \"off\""),
            (table("set", &format!("{good}\nstate = 1")), "`state` is no string"),
        ] {
            let text = format!("version = 1\n{wrong}{}", table("removed", good));
            let read = RunTimeChanges::read("x.toml", &text);
            assert_eq!(read.overlay.changes.len(), 1, "{wrong}");
            let [(at, said)] = &*read.refused else { panic!("{:?}", read.refused) };
            assert!(at == "x.toml:2" && said.contains(why), "{at}: {said}");
        }
    }

    #[test]
    fn a_text_that_is_no_such_file_changes_nothing() {
        for (text, why) in [
            ("version = 2\n", "another version"),
            ("", "another version"),
            ("version = 1\n[[change", "no TOML"),
            ("\u{0}\u{1}", "no TOML"),
        ] {
            let read = RunTimeChanges::read("x.toml", text);
            assert!(read.overlay.changes.is_empty());
            assert!(read.refused.iter().any(|(_, said)| said.contains(why)), "{:?}", read.refused);
        }
    }
}
