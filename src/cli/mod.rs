//! The command line: parses it, runs the command, reports the result.
//!
//! Data goes to stdout and messages to stderr, in colour only on a terminal. Each command ends with
//! one of four exit codes. Nothing here serves a request: a command line becomes a plan, and the
//! plan is handed on.

mod about;
mod address;
mod args;
mod ask;
mod backend;
mod explain;
mod history;
mod launch;
mod proxy;
#[cfg(test)]
mod reference_tests;
mod say;
mod top;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::FromArgMatches as _;

use self::args::{Args, Command, Flags};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// The command succeeded.
    Done,
    /// It failed: a bad configuration, an address in use.
    Failed,
    /// The command line is invalid.
    Usage,
    /// There is no running instance to ask.
    NoInstance,
}

/// Exit codes, as the manual and the documents show them.
pub(crate) const EXIT_CODES: &[(u8, &str)] = &[
    (0, "done"),
    (1, "failed: bad configuration, address refused, reload or upgrade refused, not ready"),
    (2, "the command line makes no sense"),
    (3, "there is no running instance to talk to"),
];

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NoInstance => 3,
        })
    }
}

/// Runs a command line; the first argument is the program's own name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    say::panics_in_one_line();
    let matches = match args::command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            // If this fails there is nowhere left to report it.
            let _ = error.print();
            return exit.into();
        }
    };
    match Args::from_arg_matches(&matches) {
        Ok(args) => {
            let flags = &args.flags;
            if Flags::names_files(&matches)
                && args.command.as_ref().is_some_and(Command::is_without_file)
            {
                return say::usage("this command takes no file: -c is for `run` and `check`")
                    .into();
            }
            if matches!(
                args.command,
                None | Some(Command::Run | Command::Demo { .. } | Command::Proxy(_))
            ) {
                say::serves();
            }
            let exit = dispatch(&args, &flags.files(&matches), &flags.overrides(&matches));
            if exit != Exit::Done {
                say::ends();
            }
            exit.into()
        }
        Err(error) => {
            let _ = error.print();
            Exit::Usage.into()
        }
    }
}

fn dispatch(args: &Args, files: &[PathBuf], overrides: &crate::config::Overrides) -> Exit {
    let target = ask::Target { files, overrides, admin: args.flags.admin() };
    match &args.command {
        None if files.is_empty() && launch::found().is_none() => {
            launch::demo(args::DEMO_LISTEN, overrides)
        }
        None | Some(Command::Run) => launch::run(files, overrides),
        Some(Command::Demo { listen }) => launch::demo(listen, overrides),
        Some(Command::Proxy(proxy)) => proxy::main(proxy, overrides),
        Some(Command::Reload { dry_run, discard }) => ask::reload(&target, *dry_run, *discard),
        Some(Command::Backend(it)) => it.run(&target),
        Some(Command::Upgrade) => ask::upgrade(&target),
        Some(Command::Ready) => ask::ready(&target),
        Some(Command::Cert { json }) => ask::cert(&target, *json),
        Some(Command::Top { once, json }) => top::top(&target, *once, *json),
        Some(Command::History { pool, backend, since, json }) => {
            let (pool, backend) = (pool.as_deref(), backend.as_deref());
            history::history(&target, &history::Wanted { pool, backend, since }, *json)
        }
        Some(Command::Explain { method, url, headers, from, json }) => {
            let asked = explain::Asked { method, url, headers, from: from.as_deref() };
            explain::explain(&target, &asked, *json)
        }
        Some(Command::Status { json }) => ask::status(&target, *json),
        Some(Command::Check { print }) => launch::check(files, overrides, *print),
        Some(Command::Version { json }) => about::version(*json),
        Some(Command::Completions { shell }) => about::completions(*shell),
        Some(Command::Man) => about::man(),
        Some(Command::Schema) => about::schema(),
    }
}
