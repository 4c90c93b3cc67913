//! Every kind of mistake in a configuration, with the whole picture that is drawn of it.
//!
//! A case is a file of `tests/pictures`: the configuration, a line of `=====`, and the output.
//! `UPDATE=1 cargo test --test pictures` writes the present output; read the diff before you commit
//! it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, path::Path};

use ringway::config;

const LINE: &str = "=====\n";

#[test]
fn each_mistake_has_its_picture() {
    let mut paths: Vec<_> = fs::read_dir("tests/pictures")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    paths.sort();
    assert!(paths.len() > 40, "the pictures are gone");
    let wrong: Vec<String> = paths.iter().filter_map(|path| check(path)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What differs, if anything does.
fn check(path: &Path) -> Option<String> {
    let case = fs::read_to_string(path).unwrap();
    let (input, expected) = case.split_once(LINE).expect("a case has a line of =====");
    let drawn = match config::parse("ringway.toml", input) {
        Ok(loaded) => loaded.warnings.render(false),
        Err(problems) => problems.render(false),
    };
    if drawn == expected {
        return None;
    }
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, format!("{input}{LINE}{drawn}")).unwrap();
        return None;
    }
    Some(format!("{}:\n{input}{LINE}{expected}--- but now:\n{drawn}", path.display()))
}
