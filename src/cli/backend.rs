//! The command `backend`: shows, adds, sets and removes backends of a running process.
//!
//! Each action is one call of the admin interface; `--wait` then looks until nothing is left there.

use std::{thread, time::Duration};

use serde_json::{Value, json};

use super::{
    Exit,
    ask::{Answer, Target, ask},
    say,
};
use crate::admin::encoded;

/// How often `--wait` looks.
const LOOK: Duration = Duration::from_millis(200);

/// How long a removal with `--wait` may drain where no time is given.
const DRAIN: &str = "1h";

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    List,
    Add,
    Remove,
    Drain,
    Up,
    Maintenance,
    Weight,
}

impl Action {
    /// The words of the command line.
    pub(super) const WORDS: [(&str, Action); 7] = [
        ("list", Action::List),
        ("add", Action::Add),
        ("remove", Action::Remove),
        ("drain", Action::Drain),
        ("up", Action::Up),
        ("maintenance", Action::Maintenance),
        ("weight", Action::Weight),
    ];
}

/// What was given besides the action.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Given<'a> {
    /// `POOL` or `POOL/BACKEND`.
    pub(super) of: Option<&'a str>,
    /// An address or a weight.
    pub(super) value: Option<&'a str>,
    pub(super) name: Option<&'a str>,
    pub(super) weight: Option<u16>,
    pub(super) drain: Option<&'a str>,
    pub(super) wait: bool,
    pub(super) json: bool,
}

/// Does it.
pub(super) fn backend(target: &Target<'_>, action: Action, given: Given<'_>) -> Exit {
    match run(target, action, given) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn run(target: &Target<'_>, action: Action, given: Given<'_>) -> Result<Exit, Exit> {
    check(action, &given)?;
    let (pool, backend) = match given.of.map(|of| of.split_once('/').unwrap_or((of, ""))) {
        None if action == Action::List => return list(target, "", "", given.json),
        None => return Err(say::usage("name the pool: ringway backend list shows all")),
        Some((pool, backend)) => (pool, backend),
    };
    match action {
        Action::List => return list(target, pool, backend, given.json),
        Action::Add => return add(target, pool, given),
        _ => {}
    }
    if backend.is_empty() {
        let listed = format!("ringway backend list {pool}");
        return Err(say::usage(&format!("name the backend: {pool}/BACKEND; {listed} shows them")));
    }
    let one = One { target, pool, backend, json: given.json };
    match action {
        Action::Drain => one.set(&json!({ "state": "draining" }))?,
        Action::Up => one.set(&json!({ "state": "up" }))?,
        Action::Maintenance => one.set(&json!({ "state": "maintenance" }))?,
        Action::Weight => {
            let weight = given.value.and_then(|value| value.parse::<u16>().ok());
            let Some(weight) = weight.filter(|weight| *weight <= 256) else {
                return Err(say::usage("a weight is a number from 0 to 256"));
            };
            one.set(&json!({ "weight": weight }))?
        }
        _ => one.remove(given.drain.or(given.wait.then_some(DRAIN)))?,
    }
    if given.wait { one.wait(action == Action::Remove) } else { Ok(Exit::Done) }
}

/// What does not go together.
fn check(action: Action, given: &Given<'_>) -> Result<(), Exit> {
    let takes_value = matches!(action, Action::Add | Action::Weight);
    let wrong = match action {
        Action::Add if given.value.is_none() => {
            "name the address: ringway backend add POOL ADDRESS"
        }
        Action::Weight if given.value.is_none() => {
            "name the weight: ringway backend weight POOL/BACKEND 0..256"
        }
        _ if given.value.is_some() && !takes_value => "this takes no value",
        _ if (given.name.is_some() || given.weight.is_some()) && action != Action::Add => {
            "--name and --weight are for `add`"
        }
        _ if given.drain.is_some() && action != Action::Remove => "--drain is for `remove`",
        _ if given.wait && matches!(action, Action::List | Action::Add | Action::Weight) => {
            "--wait is for `drain`, `maintenance` and `remove`"
        }
        _ => return Ok(()),
    };
    Err(say::usage(wrong))
}

/// A call; what it answers, or why it is refused.
fn call(target: &Target<'_>, method: &str, path: &str, body: &str) -> Result<Value, Exit> {
    match reply(target, method, path, body)? {
        (status, said) if status < 400 => {
            let warnings = said["warnings"].as_array().into_iter().flatten();
            let warnings = warnings.filter_map(Value::as_str);
            warnings.for_each(|it| say::talk(&format!("ringway: warning: {it}")));
            Ok(said)
        }
        (_, said) => Err(refused(&said)),
    }
}

fn reply(target: &Target<'_>, method: &str, path: &str, body: &str) -> Result<(u16, Value), Exit> {
    let Answer { status, body } = ask(target, method, &format!("/api/v1/pools{path}"), body)?;
    Ok((status, serde_json::from_str(&body).unwrap_or_default()))
}

fn refused(said: &Value) -> Exit {
    say::failed(said["error"].as_str().unwrap_or("refused, and it does not say why"))
}

fn path(pool: &str, backend: &str) -> String {
    format!("/{}/backends/{}", encoded(pool), encoded(backend))
}

fn add(target: &Target<'_>, pool: &str, given: Given<'_>) -> Result<Exit, Exit> {
    let mut body = json!({ "address": given.value });
    if let Some(name) = given.name {
        body["name"] = name.into();
    }
    if let Some(weight) = given.weight {
        body["weight"] = weight.into();
    }
    let path = format!("/{}/backends", encoded(pool));
    let view = call(target, "POST", &path, &body.to_string())?;
    if given.json {
        return Ok(say::data(&format!("{view}\n")));
    }
    let name = view["name"].as_str().unwrap_or_default();
    Ok(say::data(&format!("added {pool}/{name}: {}\n", state(&view))))
}

/// A backend of a running process.
struct One<'a> {
    target: &'a Target<'a>,
    pool: &'a str,
    backend: &'a str,
    json: bool,
}

impl One<'_> {
    fn set(&self, body: &Value) -> Result<(), Exit> {
        let view = call(self.target, "PATCH", &path(self.pool, self.backend), &body.to_string())?;
        self.show(&view)
    }

    fn remove(&self, drain: Option<&str>) -> Result<(), Exit> {
        let query = drain.map_or(String::new(), |time| format!("?drain={time}"));
        let path = path(self.pool, self.backend) + &query;
        match call(self.target, "DELETE", &path, "")? {
            Value::Null => self.gone(),
            view => self.show(&view),
        }
    }

    /// Looks until nothing is left, or until it is gone.
    fn wait(&self, until_gone: bool) -> Result<Exit, Exit> {
        let mut last = Value::Null;
        loop {
            let (status, view) = reply(self.target, "GET", &path(self.pool, self.backend), "")?;
            if status == 404 {
                if !until_gone || last != Value::Null {
                    self.gone()?;
                }
                return Ok(Exit::Done);
            }
            if status != 200 {
                return Err(refused(&view));
            }
            let left = view["activeConnections"].clone();
            if left != last && !(last == Value::Null && until_gone) {
                self.show(&view)?;
            }
            last = left;
            if last == 0 && !until_gone {
                return Ok(Exit::Done);
            }
            thread::sleep(LOOK);
        }
    }

    fn show(&self, view: &Value) -> Result<(), Exit> {
        let text = match self.json {
            true => format!("{view}\n"),
            false => format!("{}/{}: {}\n", self.pool, self.backend, state(view)),
        };
        written(&text)
    }

    fn gone(&self) -> Result<(), Exit> {
        let text = match self.json {
            true => format!("{}\n", json!({ "name": self.backend, "state": "removed" })),
            false => format!("{}/{}: removed\n", self.pool, self.backend),
        };
        written(&text)
    }
}

fn written(text: &str) -> Result<(), Exit> {
    match say::data(text) {
        Exit::Done => Ok(()),
        exit => Err(exit),
    }
}

/// `draining, weight 3, 2 requests under way`.
fn state(view: &Value) -> String {
    let state = view["state"].as_str().unwrap_or("?");
    let under_way = match view["activeConnections"].as_u64().unwrap_or_default() {
        0 => "nothing under way".to_owned(),
        1 => "1 request under way".to_owned(),
        count => format!("{count} requests under way"),
    };
    format!("{state}, weight {}, {under_way}", view["weight"])
}

fn list(target: &Target<'_>, pool: &str, backend: &str, as_json: bool) -> Result<Exit, Exit> {
    let of = match (pool, backend) {
        ("", _) => String::new(),
        (pool, "") => format!("/{}", encoded(pool)),
        (pool, backend) => path(pool, backend),
    };
    let view = call(target, "GET", &of, "")?;
    if as_json {
        return Ok(say::data(&format!("{view}\n")));
    }
    let rows = match (pool, backend) {
        ("", _) => view["pools"].as_array().into_iter().flatten().flat_map(rows_of).collect(),
        (_, "") => rows_of(&view),
        (pool, _) => vec![row(pool, &view)],
    };
    Ok(say::data(&table(&rows)))
}

const COLUMNS: [&str; 7] = ["POOL", "BACKEND", "STATE", "WEIGHT", "UNDER WAY", "REQUESTS", "FROM"];

fn rows_of(pool: &Value) -> Vec<[String; 7]> {
    let name = pool["name"].as_str().unwrap_or_default();
    pool["backends"].as_array().into_iter().flatten().map(|it| row(name, it)).collect()
}

fn row(pool: &str, it: &Value) -> [String; 7] {
    let text = |key: &str| match &it[key] {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    let counts = [text("weight"), text("activeConnections"), text("totalRequests")];
    let [weight, active, total] = counts;
    [pool.to_owned(), text("name"), text("state"), weight, active, total, text("origin")]
}

/// The rows in columns.
fn table(rows: &[[String; 7]]) -> String {
    let head = COLUMNS.map(str::to_owned);
    let all = || std::iter::once(&head).chain(rows);
    let width = |column: usize| all().filter_map(|row| row.get(column)).map(String::len).max();
    let widths: Vec<usize> = (0..COLUMNS.len()).filter_map(width).collect();
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    all().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_listed_in_columns() {
        let backend = |name: &str| {
            json!({ "name": name, "state": "up", "weight": 1, "activeConnections": 0,
                    "totalRequests": 12, "origin": "run-time" })
        };
        let pool = json!({ "name": "app", "backends": [backend("b"), backend("10.0.0.1:3000")] });
        let expected = "\
POOL  BACKEND        STATE  WEIGHT  UNDER WAY  REQUESTS  FROM
app   b              up     1       0          12        run-time
app   10.0.0.1:3000  up     1       0          12        run-time
";
        assert_eq!(table(&rows_of(&pool)), expected);
    }
}
