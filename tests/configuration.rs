//! Tests that files, directories and overrides become one configuration, and that a printed
//! configuration loads again.
//!
//! Files are made in folders of the tests' own; mistakes within one file are in `pictures`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use proptest::prelude::*;
use ringway::{
    config::{self, Loaded, Overrides},
    plan::{Cores, PoolId},
};
use serde_json::Value as Json;

const SMALLEST: &str = "[listener.web]\nbind = \"0.0.0.0:8080\"\npool = \"app\"\n\n\
    [pool.app]\nbackends = [\"10.0.0.1:3000\"]\n";

/// A folder of this test's own, empty.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

/// Loads files of a folder; problems are given without the folder's name.
fn load(folder: &Path, paths: &[&str], overrides: &Overrides) -> Result<Loaded, String> {
    let paths: Vec<PathBuf> = paths.iter().map(|path| folder.join(path)).collect();
    let short = |text: String| text.replace(&format!("{}/", folder.display()), "");
    config::load(&paths, overrides).map_err(|problems| short(problems.render(false)))
}

/// The result of loading these files, as files of a folder.
fn check(name: &str, files: &[(&str, &[u8])], paths: &[&str], expected: &str) {
    let folder = folder(name);
    for (file, text) in files {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let said = match load(&folder, paths, &Overrides::default()) {
        Ok(loaded) => loaded.warnings.render(false),
        Err(problems) => problems,
    };
    assert_eq!(said, expected, "\n{said}");
}

#[test]
fn a_file_that_is_not_there_is_said_so() {
    check(
        "missing",
        &[],
        &["ringway.toml"],
        "error: ringway.toml cannot be read: there is no such file\n",
    );
}

#[test]
fn a_file_that_is_not_utf_8_is_shown_where() {
    check(
        "latin",
        &[("ringway.toml", b"[global]\ninstance = \"B\xfccher\"\n")],
        &["ringway.toml"],
        "\
error: ringway.toml is not UTF-8
 --> ringway.toml:2:14
  |
2 | instance = \"B\u{fffd}cher\"
  |              ^ this byte belongs to another encoding
  |
help: save the file as UTF-8
",
    );
}

#[test]
fn a_file_that_is_no_text_is_not_drawn() {
    for (name, bytes) in [("binary", b"\x7fELF\n\0\n".as_slice()), ("utf-16", b"[\0g\0]\0\n\0")] {
        check(
            name,
            &[("ringway.toml", bytes)],
            &["ringway.toml"],
            "error: ringway.toml is not UTF-8 text\nhelp: save the file as UTF-8\n",
        );
    }
}

#[test]
fn a_file_that_is_named_twice_is_said_so() {
    let files = [("conf.d/a.toml", SMALLEST.as_bytes())];
    let expected = "error: conf.d/a.toml is named twice\n\
        help: name each file once; a directory includes its own\n";
    check("named-twice", &files, &["conf.d/a.toml", "conf.d/a.toml"], expected);
    check("named-by-folder", &files, &["conf.d", "conf.d/a.toml"], expected);
}

#[test]
fn a_file_behind_a_link_is_one_file() {
    let folder = folder("link");
    fs::write(folder.join("a.toml"), SMALLEST).unwrap();
    std::os::unix::fs::symlink("a.toml", folder.join("b.toml")).unwrap();
    for (paths, title) in [
        (&["."][..], "./a.toml and ./b.toml are one file"),
        (&["a.toml", "./a.toml"], "./a.toml is named twice"),
    ] {
        let said = load(&folder, paths, &Overrides::default()).unwrap_err();
        assert!(said.starts_with(&format!("error: {title}\n")), "{said}");
    }
}

#[test]
fn a_mark_of_windows_is_no_column() {
    check(
        "mark",
        &[("ringway.toml", b"\xEF\xBB\xBFlistner = 1\r\n")],
        &["ringway.toml"],
        "\
error: unknown key `listner`
 --> ringway.toml:1:1
  |
1 | listner = 1
  | ^^^^^^^ not a key of the file
  |
help: did you mean `listener`?
",
    );
}

#[test]
fn an_empty_file_is_answered_with_the_smallest() {
    let folder = folder("empty");
    fs::write(folder.join("ringway.toml"), "\n\n").unwrap();
    let said = load(&folder, &["ringway.toml"], &Overrides::default()).unwrap_err();
    assert!(said.starts_with("error: ringway.toml is empty\n"), "{said}");
    assert!(said.contains("[listener.web]"), "{said}");
}

#[test]
fn a_key_set_in_two_files_shows_both() {
    check(
        "twice",
        &[
            ("a.toml", SMALLEST.as_bytes()),
            ("b.toml", b"[listener.web]\nbind = \"0.0.0.0:80\"\nbacklog = 16\n"),
        ],
        &["a.toml", "b.toml"],
        "\
error: `listener.web.bind` is set twice
 --> b.toml:2:1
  |
2 | bind = \"0.0.0.0:80\"
  | ^^^^ set again here
  |
 ::: a.toml:2:1
  |
2 | bind = \"0.0.0.0:8080\"
  | ---- first set here
  |
help: keep one of them: the order of files decides nothing
",
    );
}

#[test]
fn files_of_a_directory_are_one_configuration() {
    let folder = folder("directory");
    let route =
        |name: &str| format!("[[route]]\nname = \"{name}\"\npath = \"/{name}\"\npool = \"app\"\n");
    fs::create_dir(folder.join("conf.d")).unwrap();
    fs::write(folder.join("main.toml"), SMALLEST).unwrap();
    fs::write(folder.join("conf.d/20-b.toml"), route("b")).unwrap();
    fs::write(folder.join("conf.d/10-a.toml"), route("a")).unwrap();
    fs::write(folder.join("conf.d/.hidden.toml"), "not = read").unwrap();
    fs::write(folder.join("conf.d/README"), "not read").unwrap();
    let loaded = load(&folder, &["main.toml", "conf.d"], &Overrides::default()).unwrap();
    let names: Vec<&str> = loaded.plan.routes.values().map(|route| route.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    let shown = loaded.effective();
    assert!(shown.contains("10-a.toml:2"), "{shown}");
}

#[test]
fn a_directory_without_files_is_said_so() {
    check(
        "nothing",
        &[("conf.d/README", b"")],
        &["conf.d"],
        "error: conf.d has no configuration\nhelp: only files that end in .toml \
         are read\n",
    );
}

#[test]
fn every_file_of_a_set_is_read_before_anything_is_said() {
    let folder = folder("set");
    fs::write(folder.join("a.toml"), "[listener.web\n").unwrap();
    fs::write(folder.join("b.toml"), "x = = 1\n").unwrap();
    let said = load(&folder, &["a.toml", "b.toml", "c.toml"], &Overrides::default()).unwrap_err();
    assert_eq!(said.matches("error:").count(), 3, "{said}");
}

#[test]
fn the_text_of_a_file_goes_into_a_string() {
    let folder = folder("expanded");
    let secret = folder.join("host");
    fs::write(&secret, "app.internal\n").unwrap();
    let host = format!("host = \"${{file:{}}}\"\n", secret.display());
    fs::write(folder.join("ringway.toml"), format!("{SMALLEST}{host}")).unwrap();
    let loaded = load(&folder, &["ringway.toml"], &Overrides::default()).unwrap();
    let host = ringway::plan::HostHeader::Literal("app.internal".to_owned());
    assert_eq!(loaded.plan.pool(PoolId(0)).host, host);
}

#[test]
fn overrides_beat_files_and_say_so() {
    let folder = folder("overrides");
    fs::write(folder.join("ringway.toml"), format!("[global]\ncores = 3\n{SMALLEST}")).unwrap();
    let mut overrides = Overrides::default();
    overrides.text("global.cores", "1", "--cores");
    overrides.text("global.log.level", "debug", "RINGWAY_LOG_LEVEL");
    overrides.switch("global.pin", false, "--no-pin");
    let loaded = load(&folder, &["ringway.toml"], &overrides).unwrap();
    assert_eq!(loaded.plan.global.cores, Cores::Count(1));
    let shown = loaded.effective();
    let of = |key: &str| shown.lines().find(|line| line.starts_with(key)).unwrap();
    assert!(of("cores").ends_with("# --cores"), "{shown}");
    assert!(of("pin").ends_with("# --no-pin"), "{shown}");
    assert!(of("log.level").ends_with("# RINGWAY_LOG_LEVEL"), "{shown}");
    assert!(of("log.format").ends_with("# default"), "{shown}");
    assert!(of("backlog").ends_with("# default"), "{shown}");
}

#[test]
fn a_process_without_a_name_is_called_as_its_machine() {
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    for (global, expected, origin) in [
        ("", machine.as_str(), "# this machine"),
        ("[global]\ninstance = \"a\"\n", "a", "# named:2"),
    ] {
        let loaded = config::parse("named", &format!("{global}{SMALLEST}")).unwrap();
        assert_eq!(loaded.plan.global.instance, expected);
        let shown = loaded.effective();
        let line = shown.lines().find(|line| line.starts_with("instance = ")).unwrap();
        assert!(line.contains(expected) && line.ends_with(origin), "{shown}");
    }
}

/// Every file that is shipped.
fn shipped() -> Vec<PathBuf> {
    let entries = fs::read_dir("config").unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    files.sort();
    assert!(files.len() >= 4, "the shipped files are gone");
    files
}

#[test]
fn shipped_files_are_good_and_show_themselves() {
    for path in shipped() {
        let loaded = match config::load(std::slice::from_ref(&path), &Overrides::default()) {
            Ok(loaded) => loaded,
            Err(problems) => panic!("{problems}"),
        };
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
        shows_itself(&loaded);
    }
}

/// The printed configuration loads to the same plan.
fn shows_itself(loaded: &Loaded) {
    let shown = loaded.effective();
    let again = match config::parse("shown", &shown) {
        Ok(again) => again,
        Err(problems) => panic!("{problems}"),
    };
    assert_eq!(format!("{:#?}", loaded.plan), format!("{:#?}", again.plan), "{shown}");
}

#[test]
fn what_a_pool_is_told_about_failure_is_shown_with_its_origin() {
    let folder = folder("failure");
    let key = folder.join("sticky.key");
    fs::write(&key, "a secret of more than enough bytes\n").unwrap();
    let pool = format!(
        "balance = {{ hash = \"header:X-User\", bound = 1.25 }}\n\
         hash-seed = \"mine\"\n\
         health = {{ type = \"tcp\", port = 9000, interval = \"1s\" }}\n\
         passive = {{ statuses = [\"500\", 502, \"503-504\"], max-ejected = 1 }}\n\
         breaker = {{ error-ratio = 0.25, open = \"2m\", allow-empty = true }}\n\
         retry = {{ budget = \"off\", per-try = \"1s\", body = \"1MiB\" }}\n\
         sticky = {{ secret-file = {:?}, max-idle = \"1h\" }}\n\
         panic = 0.5\n",
        key.display().to_string()
    );
    fs::write(folder.join("ringway.toml"), format!("{SMALLEST}{pool}")).unwrap();
    let loaded = load(&folder, &["ringway.toml"], &Overrides::default()).unwrap();
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    shows_itself(&loaded);
    let shown = loaded.effective();
    for (line, origin) in [
        ("balance.hash = \"header:x-user\" ", ":7"),
        ("balance.bound = 1.25 ", ":7"),
        ("hash-seed = \"mine\" ", ":8"),
        ("health.type = \"tcp\" ", ":9"),
        // The default is 2 s, which does not fit into this interval.
        ("health.timeout = \"1s\" ", "# default"),
        ("passive.statuses = [\"500\", \"502-504\"] ", ":10"),
        ("passive.max-ejected = 1.0 ", ":10"),
        ("breaker.error-ratio = 0.25 ", ":11"),
        ("breaker.max-open = \"2m\" ", "# default"),
        ("retry.budget = \"off\" ", ":12"),
        ("sticky.secret-file = ", ":13"),
        ("sticky.cookie = \"ringway\" ", "# default"),
        ("panic = 0.5 ", ":14"),
        ("slow-start = \"0s\" ", "# default"),
    ] {
        let found = shown.lines().find(|found| found.starts_with(line));
        assert!(found.is_some_and(|found| found.ends_with(origin)), "{line}{origin}\n{shown}");
    }
}

#[test]
fn a_key_file_has_to_be_one() {
    let folder = folder("no-key");
    let sticky = format!("sticky = {{ secret-file = {:?} }}\n", folder.display().to_string());
    fs::write(folder.join("ringway.toml"), format!("{SMALLEST}{sticky}")).unwrap();
    let said = load(&folder, &["ringway.toml"], &Overrides::default()).unwrap_err();
    assert!(said.starts_with("error: `secret-file` cannot be read: it is a directory\n"), "{said}");
}

#[test]
fn shipped_files_fit_the_schema() {
    let schema: Json = serde_json::from_str(&config::schema()).unwrap();
    for path in shipped() {
        let text = fs::read_to_string(&path).unwrap();
        let table: toml::Table = text.parse().unwrap();
        let file = serde_json::to_value(&table).unwrap();
        let wrong = misfits(&schema, &schema, &file, "");
        assert!(wrong.is_empty(), "{}: {wrong:#?}", path.display());
    }
}

#[test]
fn the_schema_takes_what_the_program_takes() {
    let schema: Json = serde_json::from_str(&config::schema()).unwrap();
    for more in [
        "slow-start = \"1  s\"\nhealth = { status = [200, \"300 - 399\"] }",
        "[global]\ncores = \"0 - 1, 3\"\nlimits = { body-size = \"1\\tKiB\" }",
    ] {
        let text = format!("{SMALLEST}{more}");
        let table: toml::Table = text.parse().unwrap();
        let wrong = misfits(&schema, &schema, &serde_json::to_value(&table).unwrap(), "");
        assert!(wrong.is_empty(), "{more}: {wrong:#?}");
        assert!(config::parse("good", &text).is_ok(), "{more}");
    }
}

#[test]
fn the_schema_refuses_what_the_program_refuses() {
    let schema: Json = serde_json::from_str(&config::schema()).unwrap();
    for broken in [
        "zebra = 1",
        "[global]\ncores = true",
        "[global]\ncores = \"x\"",
        "[listener.web]\nbnd = \"0.0.0.0:80\"",
        "[listener.web]\ntimeouts = { idle = 60 }",
        "[listener.web]\ntimeouts = { idle = \"60\" }",
        "[global.limits]\nbody-size = \"10m\"",
        "[pool.app]\nbackends = [{ weight = 2 }]",
        "[pool.app]\nbackends = [{ address = \"a:1\", weight = 300 }]",
        "[pool.app]\nbackends = [{ address = \"a:1\", max-in-flight = -1 }]",
        "[pool.app]\nbalance = 1",
        "[pool.app]\nbalance = { hsh = \"uri\" }",
        "[pool.app]\nhealth = { status = \"2xx\" }",
        "[pool.app]\nhealth = { status = [99] }",
        "[pool.app]\npanic = -0.1",
        "[pool.app]\npassive = { max-ejected = \"50%\" }",
        "[pool.app]\nretry = { budget = { ratio = true } }",
        "[route.api]\npool = \"app\"",
    ] {
        let table: toml::Table = broken.parse().unwrap();
        let file = serde_json::to_value(&table).unwrap();
        assert!(!misfits(&schema, &schema, &file, "").is_empty(), "{broken}");
        assert!(config::parse("broken", broken).is_err(), "{broken}");
    }
}

proptest! {
    /// Whatever is cut out of a valid file or inserted into it: there is a plan or there are
    /// pictures.
    #[test]
    fn no_text_ends_in_a_panic(
        from in 0_usize..10_000,
        cut in 0_usize..200,
        put in concat!(
            "(\\PC|[\\n\"'\\[\\]{}=.,#$]|\\$\\{|é|\u{feff}",
            "|\\[\\[route\\]\\]\\n|path = \"){0,12}",
        ),
    ) {
        let text = fs::read_to_string("config/reference.toml").unwrap();
        let is_between = |at: &usize| text.is_char_boundary(*at);
        let place = |at: usize| (0..=at.min(text.len())).rfind(is_between).unwrap();
        let broken = format!("{}{put}{}", &text[..place(from)], &text[place(from + cut)..]);
        if let Err(problems) = config::parse("broken", &broken) {
            prop_assert!(problems.errors() > 0);
            prop_assert!(problems.render(true).contains("error"));
        }
    }
}

#[test]
fn ten_thousand_routes_are_checked_in_no_time() {
    let mut text = SMALLEST.to_owned();
    for number in 0..10_000 {
        text.push_str(&format!(
            "[[route]]\nname = \"r{number}\"\nhost = \"h{}.example\"\npath = \"/p{number}\"\n\
             pool = \"app\"\n",
            number % 100
        ));
    }
    assert_eq!(config::parse("many", &text).unwrap().plan.routes.len(), 10_000);
}

#[test]
fn of_very_many_problems_the_first_are_drawn() {
    let text: String = (0..300).map(|number| format!("key-{number} = 1\n")).collect();
    let said = config::parse("many", &text).unwrap_err().render(false);
    assert_eq!(said.matches("error:").count(), 200);
    assert!(said.ends_with("\nand 100 more\n"), "{said}");
}

/// As much of JSON Schema as ours uses; an unknown keyword fails.
fn misfits(root: &Json, schema: &Json, value: &Json, at: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut say = |what: &str| wrong.push(format!("{at}: {what}"));
    let mut below = Vec::new();
    for (word, rule) in schema.as_object().unwrap() {
        match word.as_str() {
            "$schema" | "title" | "description" | "definitions" | "default" | "items" => {}
            "$ref" => {
                let rule = root.pointer(&rule.as_str().unwrap()[1..]).unwrap();
                below.extend(misfits(root, rule, value, at));
            }
            "type" if rule == "number" && value.is_number() => {}
            "type" if kind(value) != rule => say(&format!("is not {rule}")),
            "type" => {}
            "pattern" => {
                let pattern = regex::Regex::new(rule.as_str().unwrap()).unwrap();
                if value.as_str().is_some_and(|text| !pattern.is_match(text)) {
                    say(&format!("does not match {rule}"));
                }
            }
            "minimum" if value.as_f64().is_some_and(|n| n < rule.as_f64().unwrap()) => say("small"),
            "maximum" if value.as_f64().is_some_and(|n| n > rule.as_f64().unwrap()) => say("large"),
            "minimum" | "maximum" => {}
            "required" => {
                for key in rule.as_array().unwrap() {
                    if value.is_object() && value.get(key.as_str().unwrap()).is_none() {
                        say(&format!("has no {key}"));
                    }
                }
            }
            "anyOf" => {
                let options = rule.as_array().unwrap();
                if options.iter().all(|rule| !misfits(root, rule, value, at).is_empty()) {
                    say("fits none of the options");
                }
            }
            "properties" | "additionalProperties" => {}
            other => panic!("the test does not know `{other}` of JSON Schema"),
        }
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        let at = format!("{at}.{key}");
        match (schema["properties"].get(key), &schema["additionalProperties"]) {
            (Some(rule), _) => below.extend(misfits(root, rule, value, &at)),
            (None, Json::Bool(false)) => below.push(format!("{at}: is unknown")),
            (None, rule @ Json::Object(_)) => below.extend(misfits(root, rule, value, &at)),
            (None, _) => {}
        }
    }
    if let (Some(rule), Some(list)) = (schema.get("items"), value.as_array()) {
        for value in list {
            below.extend(misfits(root, rule, value, &format!("{at}[]")));
        }
    }
    wrong.extend(below);
    wrong
}

fn kind(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "boolean",
        Json::Number(number) if number.is_f64() => "number",
        Json::Number(_) => "integer",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    }
}

/// What `${file:…}` inserts may be a secret: everywhere the reference is shown instead.
#[test]
fn what_files_bring_is_never_shown() {
    let folder = folder("from-files");
    let file = |name: &str, text: &str| {
        fs::write(folder.join(name), text).unwrap();
        format!("${{file:{}}}", folder.join(name).display())
    };
    let (token, host) = (file("token", "s3cr3t-token\n"), file("host", "secret.internal\n"));
    let short = file("short", "xyz");
    let text = format!(
        "[global]\ninstance = \"{short}\"\n\
         [listener.web]\nbind = \"127.0.0.1:8080\"\npool = \"app\"\n\
         access-log = {{ path = \"/tmp/{token}.log\" }}\n\
         [[route]]\nname = \"r\"\nhost = [\"a.test\", \"{host}\"]\npool = \"app\"\n\
         header = {{ x-key = \"{token}\" }}\n\
         [pool.app]\nbackends = [\"{host}:80\", \
         {{ address = \"10.0.0.1:80\", name = \"{short}\" }}]\n\
         [pool.app.health]\npath = \"/{token}\"\n\
         headers = {{ authorization = \"Bearer {token}\" }}\n"
    );
    fs::write(folder.join("ringway.toml"), text).unwrap();
    let loaded = load(&folder, &["ringway.toml"], &Overrides::default()).unwrap();
    let shown = loaded.effective();
    for secret in ["s3cr3t-token", "secret.internal", "xyz"] {
        assert!(!shown.contains(secret), "{secret} in\n{shown}");
    }
    assert!(shown.contains("Bearer ${file:"), "{shown}");
    assert!(loaded.plan.global.instance == "xyz");
    shows_itself(&loaded);
}

#[test]
fn what_files_bring_is_in_no_picture() {
    let folder = folder("from-files-wrong");
    for (name, text) in [("secret", "s3cr3t://token\n"), ("short", "q!z")] {
        fs::write(folder.join(name), text).unwrap();
    }
    let named = |name: &str| format!("${{file:{}}}", folder.join(name).display());
    let text = format!(
        "[listener.web]\nbind = \"{0}\"\npool = \"app\"\nmode = \"{1}\"\n\
         [pool.app]\nbackends = \"{0}\"\nresolve = \"{0}\"\nbalance = \"{0}\"\n",
        named("secret"),
        named("short")
    );
    fs::write(folder.join("ringway.toml"), text).unwrap();
    let said = load(&folder, &["ringway.toml"], &Overrides::default()).unwrap_err();
    assert!(said.contains("is not the address of a backend"), "{said}");
    for secret in ["s3cr3t", "token", "q!z"] {
        assert!(!said.contains(secret), "{secret} in\n{said}");
    }
}

#[test]
fn words_may_stand_in_large_letters() {
    let mut overrides = Overrides::default();
    overrides.text("global.log.level", "INFO", "RINGWAY_LOG_LEVEL");
    overrides.text("global.log.format", "Json", "RINGWAY_LOG_FORMAT");
    let loaded = config::parse_with("a", SMALLEST, &overrides).unwrap();
    let shown = loaded.effective();
    assert!(shown.contains("log.level = \"info\"") && shown.contains("log.format = \"json\""));
}

#[test]
fn a_folder_that_ends_in_toml_is_no_file() {
    let folder = folder("sub");
    fs::create_dir(folder.join("sub.toml")).unwrap();
    fs::write(folder.join("sub.toml/other.toml"), "nonsense").unwrap();
    fs::write(folder.join("a.toml"), SMALLEST).unwrap();
    assert!(load(&folder, &["."], &Overrides::default()).is_ok());
}

/// Sixty thousand of everything that has names: quadratic growth would take minutes here.
#[test]
fn many_routes_and_pools_are_read_in_good_time() {
    let count = 60_000;
    let mut text = String::from("[listener.web]\nbind = \"127.0.0.1:8080\"\n");
    for place in 0..count {
        text += &format!(
            "[[route]]\nname = \"r{place}\"\nhost = \"h{}.test\"\npath = \"/{place}/\"\n\
             pool = \"p{place}\"\n[pool.p{place}]\nbackends = [\"127.0.0.1:9\"]\n",
            place % 500
        );
    }
    read_in_good_time(&text, count);
}

/// The same if only a field distinguishes them.
#[test]
fn many_routes_of_one_path_are_read_in_good_time() {
    let count = 60_000;
    let mut text = String::from("[listener.web]\nbind = \"127.0.0.1:8080\"\n");
    for place in 0..count {
        let more = if place % 2 == 0 { "" } else { ", x-more = \"1\"" };
        text += &format!(
            "[[route]]\nname = \"r{place}\"\npath = \"/\"\npool = \"app\"\n\
             header = {{ x-tenant = \"t{place}\"{more} }}\n"
        );
    }
    read_in_good_time(&format!("{text}[pool.app]\nbackends = [\"127.0.0.1:9\"]\n"), count);
}

#[track_caller]
fn read_in_good_time(text: &str, routes: usize) {
    let since = std::time::Instant::now();
    let loaded = config::parse("many.toml", text).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.plan.routes.len(), routes);
    // A second in an optimised build; this one is not, and other tests may want the processor.
    assert!(since.elapsed() < Duration::from_secs(60), "{:?}", since.elapsed());
}
