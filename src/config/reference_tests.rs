//! Tests that hold `config/reference.toml` and `docs/configuration.md` to the keys of `file.rs` and
//! the defaults of the plan.
//!
//! `UPDATE=1` rewrites the tables of the page.

use std::fs;

use serde_json::Value as Json;

use super::*;

/// What the page calls each section, its name in a file, and its struct.
const SECTIONS: &[(&str, &str)] = &[
    ("[global]", "global"),
    ("[global.limits]", "limits"),
    ("[listener.NAME]", "listener"),
    ("[[route]]", "route"),
    ("[pool.NAME]", "pool"),
    ("[[webhook]]", "webhook"),
];

/// One row of the page's tables.
struct Row {
    key: String,
    takes: &'static str,
    default: Option<String>,
    meaning: String,
}

fn schema() -> Json {
    serde_json::from_str(&schema::text()).unwrap()
}

/// Follows a reference; the text beside it (the sentence about this key) takes precedence.
fn resolved<'a>(schema: &'a Json, at: &'a Json) -> &'a Json {
    at["$ref"].as_str().map_or(at, |path| schema.pointer(&path[1..]).unwrap())
}

/// The keys of a section, those of its tables with a dot.
fn rows(schema: &Json, section: &Json, before: &str, into: &mut Vec<Row>) {
    for (name, at) in section["properties"].as_object().unwrap() {
        let key = format!("{before}{name}");
        let kind = resolved(schema, at);
        if name == "limits" {
            continue; // a section of its own
        }
        if kind["properties"].is_object() {
            rows(schema, kind, &format!("{key}."), into);
            continue;
        }
        let meaning = at["description"].as_str().unwrap_or_else(|| panic!("{key} says nothing"));
        let default = at.get("default").map(ToString::to_string);
        let takes = takes(schema, at);
        into.push(Row { takes, key: key.clone(), default, meaning: one_line(meaning) });
        // A list of tables, or a table where a word is also allowed.
        let element = resolved(schema, &kind["anyOf"][1]["items"]);
        let table = resolved(schema, &kind["anyOf"][1]);
        for (table, owner) in
            [(&element["anyOf"][1], format!("{name}[].")), (table, format!("{key}."))]
        {
            if table["properties"].is_object() {
                rows(schema, table, &owner, into);
            }
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn takes(schema: &Json, at: &Json) -> &'static str {
    match at["$ref"].as_str() {
        Some("#/definitions/duration") => return "duration",
        Some("#/definitions/size") => return "size",
        Some("#/definitions/cores") => return "number or string",
        Some("#/definitions/share") => return "number",
        _ => {}
    }
    let kind = resolved(schema, at);
    match kind["type"].as_str() {
        Some("string") => "string",
        Some("integer") => "number",
        Some("boolean") => "true or false",
        Some("object") => "table",
        _ if resolved(schema, &kind["anyOf"][1])["properties"].is_object() => "string or table",
        _ => "list",
    }
}

/// Defaults of a section's keys, as they would be written.
fn defaults(header: &str) -> Vec<(String, String)> {
    let text = "[listener.NAME]\nbind = \"0.0.0.0:80\"\npool = \"NAME\"\n\
        access-log = { path = \"-\" }\n[[route]]\nname = \"a\"\npool = \"NAME\"\n\
        [pool.NAME]\nbackends = \"10.0.0.1:3000\"\nhealth = {}\nbreaker = {}\nsticky = {}\n\
        [[webhook]]\nurl = \"http://a/\"\n";
    let loaded = parse("defaults", text).unwrap();
    let sections =
        effective::sections(&loaded.plan, &loaded.written, (&loaded.sources, &loaded.from_files));
    let section = sections.into_iter().find(|section| section.header == header).unwrap();
    let lines = section.lines.into_iter().filter(|line| line.origin == "default");
    lines.map(|line| (line.key, line.value)).collect()
}

fn all_rows() -> Vec<(&'static str, Vec<Row>)> {
    let schema = schema();
    let of = |(header, name): &(&'static str, &str)| {
        let mut found = Vec::new();
        rows(&schema, &schema["definitions"][name], "", &mut found);
        let defaults = defaults(header);
        for row in &mut found {
            let default = defaults.iter().find(|(key, _)| *key == row.key);
            row.default = row.default.take().or(default.map(|(_, value)| value.clone()));
        }
        (*header, found)
    };
    SECTIONS.iter().map(of).collect()
}

#[test]
fn the_page_of_keys_is_what_the_program_takes() {
    let mut tables = String::new();
    for (header, rows) in all_rows() {
        tables.push_str(&format!("\n### `{header}`\n\n"));
        tables.push_str("| key | takes | default | meaning |\n|---|---|---|---|\n");
        for Row { key, takes, default, meaning } in rows {
            let default = default.map_or("–".to_owned(), |default| format!("`{default}`"));
            let meaning = meaning.replace('|', "\\|");
            tables.push_str(&format!("| `{key}` | {takes} | {default} | {meaning} |\n"));
        }
    }
    held("docs/configuration.md", &tables);
}

#[test]
fn the_reference_names_every_key() {
    let text = fs::read_to_string("config/reference.toml").unwrap();
    let table: toml::Table = text.parse().unwrap();
    let has = |owner: &toml::Value, key: &str| {
        let step = |at: Option<toml::Value>, part: &str| match part.strip_suffix("[]") {
            None => at?.get(part).cloned(),
            Some(list) => at?.get(list)?.as_array()?.iter().find(|item| item.is_table()).cloned(),
        };
        key.split('.').fold(Some(owner.clone()), step).is_some()
    };
    for (header, rows) in all_rows() {
        let owners: Vec<toml::Value> = match header {
            "[global]" => vec![table["global"].clone()],
            "[global.limits]" => vec![table["global"]["limits"].clone()],
            "[listener.NAME]" => vec![table["listener"]["web"].clone()],
            "[[route]]" => table["route"].as_array().unwrap().clone(),
            "[[webhook]]" => table["webhook"].as_array().unwrap().clone(),
            _ => table["pool"].as_table().unwrap().values().cloned().collect(),
        };
        for row in rows {
            // A key that names a file which must exist can only be set in a comment, and so can the
            // keys of a table where the default is a word.
            let in_comment = match row.key.as_str() {
                "sticky.secret-file" => text.contains(", secret-file = "),
                "admin.bind" | "admin.token-file" => text.contains("{ bind = \"…\", token-file = "),
                "retry.hedge.after" | "retry.hedge.max" => {
                    text.contains("{ after = \"p95\", max = 0.05 }")
                }
                key if key.starts_with("tls.") || key.starts_with("certificates[].") => {
                    let last = key.rsplit('.').next().unwrap();
                    ["# ", "{ ", ", "].iter().any(|before| {
                        let names = |line: &str| line.trim_start().starts_with([' ', '=']);
                        text.split(&format!("{before}{last}")).skip(1).any(names)
                    })
                }
                _ => false,
            };
            let found = in_comment || owners.iter().any(|owner| has(owner, &row.key));
            assert!(found, "config/reference.toml does not name `{}` of {header}", row.key);
        }
    }
}

#[test]
fn the_reference_shows_the_defaults() {
    let text = fs::read_to_string("config/reference.toml").unwrap();
    let loaded = parse("reference", &text).unwrap();
    for section in
        effective::sections(&loaded.plan, &loaded.written, (&loaded.sources, &loaded.from_files))
    {
        let header = match section.header.as_str() {
            "[listener.web]" => "[listener.NAME]",
            "[pool.app]" => "[pool.NAME]",
            // The other way to write `balance`, the other mode, and another protocol.
            "[pool.sessions]" | "[listener.database]" | "[pool.databases]" | "[pool.orders]" => {
                continue;
            }
            other => other,
        };
        let defaults = defaults(header);
        for line in section.lines {
            let default = defaults.iter().find(|(key, _)| *key == line.key);
            let Some((key, default)) = default else { continue };
            assert_eq!(&line.value, default, "config/reference.toml: {key} of {header}");
        }
    }
}

/// Compares the text between the marks of a page; `UPDATE=1` rewrites it.
fn held(path: &str, expected: &str) {
    let page = fs::read_to_string(path).unwrap();
    let (start, end) = ("<!-- generated: keys -->\n", "\n<!-- end: keys -->");
    let (before, rest) = page.split_once(start).expect("the page has its marks");
    let (written, after) = rest.split_once(end).expect("the page has its marks");
    if written != expected && std::env::var_os("UPDATE").is_some() {
        fs::write(path, format!("{before}{start}{expected}{end}{after}")).unwrap();
        return;
    }
    assert!(written == expected, "{path} is not what the program takes: UPDATE=1 rewrites it");
}
