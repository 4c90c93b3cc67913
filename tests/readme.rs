//! Tests that hold the tour of README.md to the program: its files are valid, its mistakes are
//! drawn as it shows them, and its output is what the program prints.
//!
//! Parts that depend on time and place (timestamps, which backend answers first) are not checked.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, path::PathBuf, process::Command};

use ringway::config::{self, Overrides};

/// A fenced block: its language and its text.
type Block = (String, String);

/// The blocks after a heading or a bold beginning, up to the next of its kind.
fn blocks(from: &str, to: &str) -> Vec<Block> {
    let page = fs::read_to_string("README.md").unwrap();
    let (_, rest) = page.split_once(from).unwrap_or_else(|| panic!("README.md has no `{from}`"));
    let (part, _) = rest.split_once(to).unwrap_or_else(|| panic!("README.md has no `{to}`"));
    let fenced = part.split("```").skip(1).step_by(2);
    let parted = fenced.map(|block| block.split_once('\n').expect("a block has lines"));
    parted.map(|(language, text)| (language.to_owned(), text.to_owned())).collect()
}

/// The first block of this language.
#[track_caller]
fn first<'a>(blocks: &'a [Block], language: &str) -> &'a str {
    let found = blocks.iter().find(|(of, _)| of == language);
    &found.unwrap_or_else(|| panic!("no {language} in {blocks:#?}")).1
}

fn step(number: u8) -> Vec<Block> {
    let next = if number == 5 { "\n## ".to_owned() } else { format!("\n**{}. ", number + 1) };
    blocks(&format!("\n**{number}. "), &next)
}

/// A folder of this test's own with these files.
fn folder(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("readme-{name}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    files.iter().for_each(|(file, text)| fs::write(folder.join(file), text).unwrap());
    folder
}

/// The output of the program, on stdout and on stderr.
fn said(folder: &PathBuf, arguments: &[&str]) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.args(arguments).current_dir(folder).env_remove("APP_HOST");
    command.env("RUNTIME_DIRECTORY", folder).env("STATE_DIRECTORY", folder);
    std::env::vars()
        .filter(|(name, _)| name.starts_with("RINGWAY_"))
        .for_each(|(name, _)| _ = command.env_remove(name));
    let output = command.output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn the_file_is_what_the_proxy_prints_and_is_good() {
    let step = step(2);
    let (command, _) = first(&step, "sh").split_once(" > ringway.toml\n").unwrap();
    let arguments: Vec<_> = command.split(' ').skip(1).collect();
    let (printed, _) = said(&folder("printed", &[]), &arguments);
    assert_eq!(first(&step, "toml"), printed);
    let (_, talk) = said(&folder("good", &[("ringway.toml", &printed)]), &["check"]);
    assert_eq!(first(&step, "text").lines().next(), talk.lines().next());
}

#[test]
fn the_mistakes_are_drawn_as_shown() {
    let step = step(3);
    let (data, talk) =
        said(&folder("bad", &[("bad.toml", first(&step, "toml"))]), &["check", "-c", "bad.toml"]);
    assert_eq!((first(&step, "text"), ""), (talk.as_str(), data.as_str()));
    assert!(talk.ends_with("\nringway: 10 errors\n"));
}

#[test]
fn route_and_log_go_into_the_file_of_the_tour() {
    let (file, route, log) = (step(2), step(4), step(5));
    let log = format!("pool = \"app\"\n{}", first(&log, "toml"));
    let file = first(&file, "toml").replacen("pool = \"app\"\n", &log, 1);
    let loaded = config::parse("tour", &format!("{file}\n{}", first(&route, "toml")));
    let plan = loaded.unwrap_or_else(|problems| panic!("{problems}")).plan;
    assert!(plan.listeners.values().all(|listener| listener.access_log.is_some()));
    assert_eq!((plan.routes.len(), plan.pools.len()), (1, 2));
}

#[test]
fn what_jq_asks_for_is_in_the_log() {
    let fields = fs::read_to_string("docs/access-log.md").unwrap();
    let step = step(5);
    let filter = first(&step, "sh").split('\'').find(|text| text.starts_with("select")).unwrap();
    let asked: Vec<_> = filter
        .split(|letter: char| !letter.is_ascii_alphanumeric() && !"._".contains(letter))
        .filter_map(|word| word.strip_prefix('.'))
        .collect();
    assert!(asked.len() > 5, "{filter}");
    for field in asked {
        assert!(fields.contains(&format!("\n| `{field}` | ")), "{field}");
    }
    let line = first(&step, "text").lines().next().unwrap();
    assert_eq!(line.split('\t').count(), filter.matches(", .").count() + 1);
}

/// Each is valid with this file, as one of several.
#[test]
fn what_is_shown_by_task_is_good() {
    const BASE: &str = "[listener.web]\nbind = \"127.0.0.1:0\"\npool = \"app\"\n\
        [pool.app]\nbackends = \"127.0.0.1:1\"\n[pool.api]\nbackends = \"127.0.0.1:2\"\n";
    let blocks = blocks("\n## Configuration by task", "\n## Operations");
    let shown: Vec<_> = blocks.iter().filter(|(language, _)| language == "toml").collect();
    assert!(!shown.is_empty());
    for (_, text) in shown {
        let folder = folder("task", &[("base.toml", BASE), ("shown.toml", text)]);
        if let Err(problems) = config::load(&[folder], &Overrides::default()) {
            panic!("{problems}");
        }
    }
}
