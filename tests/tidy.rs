//! The rules of the house that a machine can check.
//!
//! Reads every `.rs` file of the package line by line, without comments and without what only tests
//! see, and says where a rule is broken and what to do instead. It knows no Rust grammar: a rule
//! here must be visible in one line, which is why each module is imported by one `use
//! crate::<module>::…`. Rules that clippy can check are in `Cargo.toml` and `.clippy.toml`. At the
//! end each rule has a test on a small source that breaks it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
};

/// A module may use floors below its own, and its own folder. Never upward, never sideways.
const FLOORS: [(&str, u8); 21] = [
    ("base", 0),
    ("http", 1),
    ("certs", 2),
    ("plan", 2),
    ("config", 3),
    ("policy", 3),
    ("shared", 3),
    ("net", 4),
    ("observe", 4),
    ("proto", 5),
    ("conns", 6),
    ("worker", 7),
    ("exchange", 8),
    ("health", 9),
    ("admin", 9),
    ("acme", 9),
    ("server", 10),
    ("demo", 11),
    ("cli", 12),
    ("lib", 13),
    ("main", 13),
];

/// Floors up to this one are pure: no async, no monoio, no clock, no socket.
const PURE: u8 = 3;
/// The exception: a message to a thread rings its eventfd.
const BELL: &str = "shared/bell.rs";
/// From this floor on the crate's own public door (`crate::start`) may be used.
const DOOR: u8 = 11;
/// Modules that only tests and benches turn on: they see everything, and nothing below sees them.
const FREE: [&str; 2] = ["testkit", "bench"];
/// Files of more lines than this need a head of three lines, the others of one.
const SHORT: usize = 200;
const COLUMNS: usize = 100;

/// A word, the only places that may use it, and what all others do instead.
struct Word {
    word: &'static str,
    allowed: &'static [&'static str],
    instead: &'static str,
}

#[rustfmt::skip] // one rule a line reads as the table it is
const WORDS: &[Word] = &[
    Word { word: "select!", allowed: &["net/io.rs"], instead: "give the operation a deadline: net/io.rs ends it and waits for its result" },
    Word { word: "timeout(", allowed: &["net/io.rs", "config/", "policy/"], instead: "give the operation a deadline: net/io.rs ends it and waits for its result" },
    Word { word: "Instant::now", allowed: CLOCKS, instead: "take `now` as a parameter, or ask the worker's clock" },
    Word { word: "SystemTime::now", allowed: CLOCKS, instead: "take the time as a parameter, or ask the worker's clock" },
    Word { word: "fs::", allowed: &["config/load.rs", "observe/writer/", "net/fd.rs", "net/socket_file.rs", "admin/bound.rs", "server/", "acme/"], instead: "a file is read by config/load.rs or written by observe/writer, never on a worker" },
    Word { word: "thread::sleep", allowed: &["cli/backend.rs", "cli/top.rs"], instead: "wait for what you wait for, or for the worker's timer" },
    Word { word: "Mutex", allowed: &[], instead: "let one thread own the state (Rc, Cell) and send it messages" },
    Word { word: "RwLock", allowed: &[], instead: "let one thread own the state (Rc, Cell) and send it messages" },
    Word { word: "Atomic", allowed: &["shared/"], instead: "put what crosses threads into src/shared, with its one writer named" },
    Word { word: "unsafe", allowed: &["net/fd.rs", "net/buffer.rs"], instead: "use rustix, or put a safe function into net/fd.rs with its reason and a test" },
    Word { word: "monoio::", allowed: &["net/", "health/"], instead: "go through net, which alone calls monoio's I/O" },
];

const CLOCKS: &[&str] = &[
    "config/load.rs",
    "net/clock.rs",
    "worker/",
    "server/",
    "health/",
    "admin/",
    "acme/",
    "observe/writer/",
];

/// Further words that the pure floors may not use.
const IMPURE: [&str; 5] = ["async", ".await", "rustix::", "TcpStream", "thread::"];

/// A file as the rules see it.
struct Source {
    path: String,
    text: String,
    /// Number and code of each line, without comments and what only tests see.
    code: Vec<(usize, String)>,
}

impl Source {
    fn new(path: &str, text: &str) -> Source {
        let lines: Vec<&str> = text.lines().collect();
        let mut code = Vec::new();
        let mut at = 0;
        while at < lines.len() {
            if lines[at].trim_start().starts_with("#[cfg(test)]")
                || lines[at].trim_start().starts_with("#[cfg(any(test")
            {
                at = item_end(&lines, at);
            } else {
                code.push((at + 1, without_comment(lines[at]).to_owned()));
            }
            at += 1;
        }
        Source { path: path.to_owned(), text: text.to_owned(), code }
    }

    /// The path below `src`; none for tests, benches and files that only tests include.
    fn below_src(&self) -> Option<&str> {
        self.path.strip_prefix("src/").filter(|path| !path.ends_with("tests.rs"))
    }

    /// The top module it belongs to; none if the rules of modules do not apply.
    fn module(&self) -> Option<&str> {
        let module = self.below_src()?.split('/').next()?.trim_end_matches(".rs");
        (!FREE.contains(&module)).then_some(module)
    }
}

fn without_comment(line: &str) -> &str {
    line.split("//").next().unwrap_or("")
}

/// The last line of the item whose first attribute stands at `start`.
fn item_end(lines: &[&str], start: usize) -> usize {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let is_end = |line: &&str| {
        let code = without_comment(line).trim();
        indent(line) == indent(lines[start])
            && !code.starts_with('#')
            && code.ends_with(['}', ';', ','])
    };
    lines[start..].iter().position(is_end).map_or(lines.len() - 1, |more| start + more)
}

fn floor_of(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

/// The positions in `line` where `word` begins and is not the tail of a longer one.
fn occurrences<'a>(line: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_part = |before: char| before.is_alphanumeric() || before == '_';
    line.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |at| !(word.starts_with(is_part) && line[..*at].ends_with(is_part)))
}

/// Rule 1: imports go down the floors, by one `use crate::<module>::…` per module.
fn imports(source: &Source, say: &mut Vec<String>) {
    let Some(module) = source.module() else { return };
    let Some(own) = floor_of(module) else {
        say.push(format!("{}: give `{module}` a floor in FLOORS of tests/tidy.rs", source.path));
        return;
    };
    // `use super::…` may climb to the top of its own folder and no further.
    let depth = source.path.trim_end_matches("/mod.rs").matches('/').count();
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (number, line) in &source.code {
        let place = format!("{}:{number}", source.path);
        if occurrences(line, &"super::".repeat(depth)).next().is_some() {
            say.push(format!(
                "{place}: `super::` leaves the folder; write `use crate::<module>::…`"
            ));
        }
        for at in occurrences(line, "crate::") {
            let path = &line[at + "crate::".len()..];
            let end = path.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(path.len());
            let used = &path[..end];
            match floor_of(used) {
                Some(floor) if used == module || floor < own => {}
                Some(floor) => say.push(format!(
                    "{place}: `{module}` (floor {own}) may not use `{used}` (floor {floor}); move \
                     what both need down, or pass it in as a parameter"
                )),
                None if FREE.contains(&used) => say.push(format!(
                    "{place}: `{used}` is for tests; what the product needs lives on a floor"
                )),
                None if used.is_empty() => say.push(format!(
                    "{place}: write one `use crate::<module>::…;` for each module, not one for all"
                )),
                None if own >= DOOR => {}
                None => say.push(format!(
                    "{place}: `crate::{used}` is no module with a floor; name the module where it \
                     lives"
                )),
            }
            let before = line[..at].trim();
            if before.ends_with("use")
                && let Some(first) = seen.insert(format!("{before} {used}"), *number)
            {
                say.push(format!(
                    "{place}: join this with the `use crate::{used}` of line {first}"
                ));
            }
        }
    }
}

/// Rules 15 to 18 and 22: words that only some places may use.
fn words(source: &Source, say: &mut Vec<String>) {
    let (Some(path), Some(module)) = (source.below_src(), source.module()) else { return };
    let is_pure = floor_of(module).is_some_and(|floor| floor <= PURE) && path != BELL;
    for (number, line) in &source.code {
        let place = format!("{}:{number}", source.path);
        for Word { word, allowed, instead } in WORDS {
            let is_allowed = allowed.iter().any(|start| path.starts_with(start));
            if !is_allowed && occurrences(line, word).next().is_some() {
                say.push(format!("{place}: `{word}` has no place here; {instead}"));
            }
        }
        for word in IMPURE.iter().filter(|_| is_pure) {
            if occurrences(line, word).next().is_some() {
                say.push(format!(
                    "{place}: `{word}` on a pure floor; decide here and do it above floor {PURE}"
                ));
            }
        }
    }
}

/// Rules for every line: its width, issues of what is left to do, no ignored test.
fn lines(source: &Source, say: &mut Vec<String>) {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut skipped = 0;
    for (at, line) in lines.iter().enumerate() {
        let place = format!("{}:{}", source.path, at + 1);
        if line.trim_start().starts_with("#[rustfmt::skip]") {
            skipped = item_end(&lines, at) + 1;
        }
        if line.chars().count() > COLUMNS && at >= skipped {
            say.push(format!(
                "{place}: over {COLUMNS} columns; break the line (a table: `#[rustfmt::skip]`)"
            ));
        }
        let comment = line.split_once("//").map_or("", |(_, comment)| comment);
        for word in ["TODO", "FIXME"] {
            if occurrences(comment, word).any(|at| !comment[at..].starts_with("TODO(#")) {
                say.push(format!("{place}: do it now, or name its issue: `TODO(#12): …`"));
            }
        }
        if line.trim_start().starts_with("#[ignore") {
            say.push(format!("{place}: an ignored test proves nothing; mend it or remove it"));
        }
    }
}

/// §11: every file says what it is.
fn head(source: &Source, say: &mut Vec<String>) {
    let head = source.text.lines().take_while(|line| line.starts_with("//!")).count();
    let least = if source.text.lines().count() > SHORT { 3 } else { 1 };
    if head < least {
        say.push(format!(
            "{}: open the file with `//!`, {least} lines or more: what it is, what it is not, the \
             invariant it keeps",
            source.path
        ));
    }
}

/// Each counter of the table in `shared/counters.rs` is counted somewhere else.
fn counters(sources: &[Source], say: &mut Vec<String>) {
    let Some(table) = sources.iter().find(|source| source.path == "src/shared/counters.rs") else {
        return;
    };
    let rows = table.code.iter().skip_while(|(_, line)| !line.starts_with("counters! {")).skip(1);
    let names: Vec<&str> = rows
        .take_while(|(_, line)| !line.starts_with('}'))
        .map(|(_, line)| line.trim().split(|c: char| !c.is_alphanumeric()).next().unwrap_or(""))
        .filter(|name| name.starts_with(|c: char| c.is_uppercase()))
        .collect();
    if names.is_empty() {
        say.push(format!("{}: found no row `Name …` in `counters! {{ … }}`", table.path));
    }
    for name in names {
        let counted = format!("Counter::{name}");
        let is_counted = |line: &str| {
            occurrences(line, &counted).any(|at| {
                !line[at + counted.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
            })
        };
        let others = sources.iter().filter(|source| source.path != table.path);
        if !others.flat_map(|source| &source.code).any(|(_, line)| is_counted(line)) {
            say.push(format!(
                "{}: `{counted}` is never counted; count it where it happens or take it out",
                table.path
            ));
        }
    }
}

/// Each key that may be written (`config/file.rs`) is in `config/reference.toml`.
fn keys(file: &Source, reference: &str, say: &mut Vec<String>) {
    let is_key = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    let known: HashSet<&str> = reference.split(|letter| !is_key(letter)).collect();
    for (number, line) in &file.code {
        let field = line.trim().strip_prefix("pub(crate) ").and_then(|rest| rest.split_once(": "));
        let key = field.map_or(String::new(), |(name, _)| name.replace('_', "-"));
        if !key.is_empty() && key.chars().all(is_key) && !known.contains(&key[..]) {
            say.push(format!(
                "{}:{number}: `{key}` is missing from config/reference.toml; add it there with its \
                 default and a sentence",
                file.path
            ));
        }
    }
}

/// Each file that a page or a comment names (`policy/retry.rs`) exists.
fn names(page: &str, text: &str, is_there: impl Fn(&str) -> bool, say: &mut Vec<String>) {
    let is_comment = |line: &&str| !page.ends_with(".rs") || line.trim_start().starts_with("//");
    for (at, line) in text.lines().enumerate().filter(|(_, line)| is_comment(line)) {
        let quoted = line.split('`').skip(1).step_by(2);
        for name in quoted.filter(|name| name.ends_with(".rs") && !name.starts_with('.')) {
            if !is_there(name) {
                say.push(format!("{page}:{}: there is no `{name}`; say where it is now", at + 1));
            }
        }
    }
}

fn complaints(sources: &[Source]) -> Vec<String> {
    let mut say = Vec::new();
    for source in sources {
        imports(source, &mut say);
        words(source, &mut say);
        lines(source, &mut say);
        head(source, &mut say);
    }
    counters(sources, &mut say);
    say
}

/// Every `.rs` file below `folder` but this one, which holds the words it forbids.
fn read(folder: &Path, root: &Path, into: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && !path.ends_with("target") {
            read(&path, root, into);
        } else if name.ends_with(".rs") && name != "tests/tidy.rs" {
            into.push(Source::new(&name, &fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn the_tree_keeps_the_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for folder in ["src", "tests", "benches", "fuzz", "loadtest"] {
        read(&root.join(folder), root, &mut sources);
    }
    assert!(sources.len() > 10, "tidy found almost no files in {}", root.display());
    let mut say = complaints(&sources);
    if let Ok(reference) = fs::read_to_string(root.join("config/reference.toml")) {
        let file = sources.iter().find(|source| source.path == "src/config/file.rs");
        keys(file.expect("the keys stand in src/config/file.rs"), &reference, &mut say);
    }
    let is_there = |name: &str| {
        let is_it =
            |path: &str| path.strip_suffix(name).is_some_and(|p| p.is_empty() || p.ends_with('/'));
        name == "tests/tidy.rs" || sources.iter().any(|source| is_it(&source.path))
    };
    for page in ["README.md", "docs/ARCHITECTURE.md"] {
        let text = fs::read_to_string(root.join(page)).unwrap();
        names(page, &text, is_there, &mut say);
    }
    for source in &sources {
        names(&source.path, &source.text, is_there, &mut say);
    }
    assert!(say.is_empty(), "{} offences:\n{}", say.len(), say.join("\n"));
}

/// The complaints about one made-up file below a one-line head: exactly one that contains
/// `expected`, or none if that is empty.
#[track_caller]
fn check(path: &str, code: &str, expected: &str) {
    let say = complaints(&[Source::new(path, &format!("//! A head.\n{code}\n"))]);
    let is_as_expected = match expected {
        "" => say.is_empty(),
        _ => matches!(&say[..], [one] if one.contains(expected)),
    };
    assert!(is_as_expected, "{path}: {code}\nexpected: {expected:?}\nsaid: {say:#?}");
}

#[test]
fn imports_go_down() {
    check("src/http/parse.rs", "use crate::base::rng::Rng;", "");
    check("src/http/parse.rs", "use crate::http::head::Method;", "");
    check("src/http/parse.rs", "use super::head::Method;", "");
    check("src/policy/balance/random.rs", "use super::super::route::Router;", "");
    check("src/http/parse.rs", "use crate::plan::Limits;", "may not use `plan` (floor 2)");
    check("src/policy/route.rs", "pub use crate::config::parse;", "may not use `config` (floor 3)");
    check("src/policy/route.rs", "fn f() { crate::net::io::read() }", "may not use `net`");
    check("src/http/parse.rs", "use super::super::net::io;", "leaves the folder");
    check("src/http/mod.rs", "use super::net::io;", "leaves the folder");
    check("src/cli.rs", "use super::net::io;", "leaves the folder");
    check("src/weather/mod.rs", "", "give `weather` a floor");
}

#[test]
fn each_module_is_imported_once() {
    let twice = "use crate::base::ids::PoolId;\nuse crate::base::rng::Rng;";
    check("src/http/parse.rs", twice, "join this with the `use crate::base` of line 2");
    check("src/net/io.rs", "use crate::{http::head, base::rng};", "not one for all");
    check("src/net/io.rs", "use crate::start;", "no module with a floor");
    check("src/cli.rs", "use crate::start;\nuse crate::demo::run;", "");
}

#[test]
fn only_tests_may_look_anywhere() {
    let test = "#[cfg(test)]\nmod tests {\n    use crate::net::io;\n}";
    check("src/http/parse.rs", test, "");
    check("src/testkit/mod.rs", "use crate::server::start;\nuse std::sync::Mutex;", "");
    check("src/http/parse.rs", "use crate::testkit::stage;", "is for tests");
    check("src/http/parse.rs", &format!("{test}\nuse crate::net::io;"), "may not use `net`");
}

#[test]
fn words_have_their_places() {
    for Word { word, allowed, instead } in WORDS {
        let code = format!("fn f() {{ {word}x }}");
        check("src/proto/h1/client.rs", &code, instead);
        check("src/proto/h1/client.rs", &format!("// {word}"), "");
        for place in *allowed {
            let file = if place.ends_with(".rs") { "" } else { "any.rs" };
            check(&format!("src/{place}{file}"), &code, "");
        }
    }
    check("src/proto/mod.rs", "fn f() { set_idle_timeout(x) }", "");
}

#[test]
fn low_floors_are_pure() {
    check("src/policy/retry.rs", "async fn wait() {}", "`async` on a pure floor");
    check("src/base/rng.rs", "fn f() { g().await }", "`.await` on a pure floor");
    check("src/shared/bell.rs", "fn ring() { rustix::io::write() }", "");
    check("src/net/io.rs", "async fn wait() {}", "");
}

#[test]
fn lines_are_short_and_nothing_is_left_to_do() {
    let wide = format!("const WIDE: &str = \"{}\";", "x".repeat(COLUMNS));
    check("tests/plays/main.rs", &wide, "over 100 columns");
    check("src/http/parse.rs", &format!("#[rustfmt::skip]\n{wide}"), "");
    check("src/http/parse.rs", &format!("#[rustfmt::skip]\nfn f() {{}}\n{wide}"), "over 100");
    check("src/http/parse.rs", "// TODO: later", "name its issue");
    check("src/http/parse.rs", "// TODO(#7): with the cache", "");
    check("tests/plays/main.rs", "#[ignore]\nfn f() {}", "proves nothing");
}

#[test]
fn files_say_what_they_are() {
    let say = complaints(&[Source::new("src/http/parse.rs", "fn f() {}\n")]);
    assert!(say[0].contains("open the file with `//!`, 1 lines"), "{say:?}");
    check("src/http/parse.rs", &"\n".repeat(SHORT + 1), "open the file with `//!`, 3 lines");
}

#[test]
fn files_are_called_by_their_names() {
    let said = |page: &str, text: &str| {
        let mut say = Vec::new();
        names(page, text, |name| name == "http/chunks.rs", &mut say);
        say
    };
    assert!(said("README.md", "`http/chunks.rs`, `http/mod` and http/gone.rs").is_empty());
    let say = said("README.md", "\n`http/chunks.rs` and `http/gone.rs`");
    assert!(
        say.len() == 1 && say[0].contains("README.md:2: there is no `http/gone.rs`"),
        "{say:?}"
    );
    assert_eq!(said("src/lib.rs", "/// `gone.rs`").len(), 1);
    assert!(said("src/lib.rs", "let text = \"`gone.rs`\";").is_empty());
}

#[test]
fn counters_are_counted() {
    let table = "//! Head.\ncounters! {\n    Retries: \"retries_total\";\n    Retry: \"x\";\n}\n";
    let table = Source::new("src/shared/counters.rs", table);
    let counting = "//! Head.\nfn f() { count(Counter::Retries) }\n";
    let say = complaints(&[table, Source::new("src/exchange/finish.rs", counting)]);
    assert_eq!(say.len(), 1, "{say:?}");
    assert!(say[0].contains("`Counter::Retry` is never counted"), "{say:?}");
    check("src/shared/counters.rs", "counters! {\n}", "found no row");
}

#[test]
fn keys_stand_in_the_reference() {
    let code =
        "pub(crate) struct Log {\n    pub(crate) level: u8,\n    pub(crate) max_idle: u8,\n}";
    let file = Source::new("src/config/file.rs", code);
    let mut say = Vec::new();
    keys(&file, "log = { level = \"info\", max-idle = 64 }", &mut say);
    assert!(say.is_empty(), "{say:?}");
    keys(&file, "log = { level = \"info\" }", &mut say);
    assert!(say.len() == 1 && say[0].contains("`max-idle` is missing"), "{say:?}");
}
