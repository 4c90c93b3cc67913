//! Tests that hold `docs/command-line.md`, `docs/errors.md` and `docs/access-log.md` to what the
//! program takes, answers and logs.
//!
//! `UPDATE=1` rewrites the tables between the marks of a page.

use std::fs;

use clap::{Arg, Command, CommandFactory as _};

use super::{EXIT_CODES, args::Args};
use crate::http::fault::{Cause, Side};
use crate::observe::{access_log::KEYS, record::Term};

#[test]
fn the_page_of_commands_is_what_the_program_takes() {
    let mut program = Args::command();
    program.build();
    let mut text = String::from("\n## Commands\n\n| command | does |\n|---|---|\n");
    let commands = || program.get_subcommands().filter(|command| command.get_name() != "help");
    for command in commands() {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        text.push_str(&format!("| `{}` | {} |\n", usage(command), cell(&about)));
    }
    text.push_str("\n## Flags of every command\n\n| flag | environment | does |\n|---|---|---|\n");
    for flag in program.get_arguments().filter(|flag| is_flag(flag)) {
        let variable = flag.get_env().map(|name| name.to_string_lossy().into_owned());
        let variable = variable.map_or("–".to_owned(), |name| format!("`{name}`"));
        text.push_str(&format!("| `{}` | {variable} | {} |\n", cell(&spelled(flag)), says(flag)));
    }
    text.push_str("\n## Flags of one command\n\n| command | flag | does |\n|---|---|---|\n");
    for command in commands() {
        for flag in command.get_arguments().filter(|flag| is_flag(flag) && !flag.is_global_set()) {
            let name = command.get_name();
            text.push_str(&format!("| `{name}` | `{}` | {} |\n", spelled(flag), says(flag)));
        }
    }
    text.push_str("\n## Exit codes\n\n| code | meaning |\n|---|---|\n");
    for (code, meaning) in EXIT_CODES {
        text.push_str(&format!("| {code} | {meaning} |\n"));
    }
    held("docs/command-line.md", "command line", &text);
}

fn usage(command: &Command) -> String {
    let usage = command.clone().render_usage().to_string();
    usage.trim_start_matches("Usage: ").replace(" [OPTIONS]", "")
}

fn is_flag(argument: &Arg) -> bool {
    let is_help = ["help", "version"].contains(&argument.get_id().as_str());
    !argument.is_positional() && !argument.is_hide_set() && !is_help
}

fn spelled(flag: &Arg) -> String {
    let long = flag.get_long().map(|long| format!("--{long}"));
    let short = flag.get_short().map(|short| format!("-{short}"));
    let names: Vec<String> = short.into_iter().chain(long).collect();
    let value = flag.get_value_names().filter(|_| flag.get_action().takes_values());
    let value = value.and_then(|names| names.first()).map(|name| format!(" {name}"));
    format!("{}{}", names.join(", "), value.unwrap_or_default())
}

/// Its help, with the values it takes.
fn says(flag: &Arg) -> String {
    let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
    let values: Vec<String> = flag
        .get_possible_values()
        .iter()
        .filter(|_| flag.get_action().takes_values())
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    match values.as_slice() {
        [] => cell(&help),
        values => format!("{}: {}", cell(&help), values.join(", ")),
    }
}

fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// Every cause, in the order of the table; a match without wildcard keeps the list whole.
macro_rules! causes {
    ($($cause:ident)*) => {
        const CAUSES: &[Cause] = &[$(Cause::$cause),*];

        #[allow(dead_code)] // read by the compiler only
        fn all_are_listed(cause: Cause) {
            match cause {
                $(Cause::$cause)|* => {}
            }
        }
    };
}

causes! {
    BadRequest PlainHttp Denied NoRoute MethodRefused RequestTimeout LengthRequired BodyTooLarge
    UriTooLong ExpectationFailed Misdirected Limited HeadTooLarge Internal NotImplemented Loop
    ConnectFailed NameNotResolved BackendTls BackendCertificate BackendTlsAlert BackendPlain
    BackendSecure BackendReset BackendStale BackendUnprocessed BackendOldHttp BackendProtocol
    ResponseRefused ResponseHeadTooLarge
    NoBackend QueueFull QueueTimeout Overloaded ShuttingDown ConnectTimeout ResponseTimeout
    BackendDown Deadline VersionRefused ClientAbort ClientTimeout ResponseIncomplete
}

/// Every ending that is not a fault; the match keeps the list whole.
fn well() -> [Term; 5] {
    let all =
        [Term::Ok, Term::TunnelClosed, Term::TunnelIdle, Term::TunnelExpired, Term::TunnelDrained];
    for term in all {
        match term {
            Term::Ok
            | Term::TunnelClosed
            | Term::TunnelIdle
            | Term::TunnelExpired
            | Term::TunnelDrained => {}
            Term::Fault(_) | Term::Cut(_) => unreachable!("the causes have a table of their own"),
        }
    }
    all
}

#[test]
fn the_page_of_errors_is_what_is_answered() {
    let mut answered = String::from(
        "\n| status | `code` | `Proxy-Status` error | whose fault | `error` |\n\
         |---|---|---|---|---|\n",
    );
    let mut logged = String::from(
        "\nIn the log only: successes, and failures that can no longer be answered.\n\n\
         | `term` | whose fault | meaning |\n|---|---|---|\n",
    );
    for (code, meaning) in well().map(Term::row) {
        logged.push_str(&format!("| `{code}` | – | {meaning} |\n"));
    }
    let mut seen = Vec::new();
    for row in CAUSES.iter().map(|cause| cause.row()) {
        if seen.contains(&row.code) {
            continue;
        }
        seen.push(row.code);
        let side = match row.side {
            Side::Client => "client",
            Side::Proxy => "Ringway",
            Side::Backend => "backend",
        };
        let (code, sentence) = (row.code, row.sentence);
        if row.status == 0 {
            logged.push_str(&format!("| `{code}` | {side} | {sentence} |\n"));
        } else {
            let (status, error) = (row.status, row.proxy_status);
            answered
                .push_str(&format!("| {status} | `{code}` | `{error}` | {side} | {sentence} |\n"));
        }
    }
    held("docs/errors.md", "errors", &format!("{answered}{logged}"));
}

#[test]
fn the_page_of_the_access_log_is_what_is_written() {
    let mut fields = String::from("\n| field | says |\n|---|---|\n");
    for (key, says) in KEYS {
        fields.push_str(&format!("| `{key}` | {says} |\n"));
    }
    held("docs/access-log.md", "access log", &fields);
}

/// Compares the text between the marks of a page; `UPDATE=1` rewrites it.
fn held(path: &str, mark: &str, expected: &str) {
    let page = fs::read_to_string(path).unwrap();
    let (start, end) = (format!("<!-- generated: {mark} -->\n"), format!("\n<!-- end: {mark} -->"));
    let (before, rest) = page.split_once(&start).expect("the page has its marks");
    let (written, after) = rest.split_once(&end).expect("the page has its marks");
    if written != expected && std::env::var_os("UPDATE").is_some() {
        fs::write(path, format!("{before}{start}{expected}{end}{after}")).unwrap();
        return;
    }
    assert!(written == expected, "{path} is not what the program says: UPDATE=1 rewrites it");
}
