//! Output of the command line: data on stdout, messages on stderr, colour only on a terminal.

use std::io::{IsTerminal as _, Write as _};

use super::Exit;
use crate::config::Problems;
use crate::server::{self, stderr};

/// Writes data to stdout. A reader that has closed (`| head`) has what it wanted.
pub(super) fn data(text: &str) -> Exit {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Exit::Done,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => failed(&format!("stdout: {error}")),
    }
}

/// Writes a message to stderr; a command that serves does not wait for its reader.
pub(super) fn talk(text: &str) {
    stderr::say(text);
}

/// Marks that a command that serves begins: from now on nothing waits for the reader of stderr.
pub(super) fn serves() {
    // If no thread can be made, the start fails and reports it.
    drop(stderr::open());
}

/// Waits at the end of a command until its messages are written, but not long.
pub(super) fn ends() {
    stderr::flush();
}

/// Says why the command failed.
pub(super) fn failed(why: &str) -> Exit {
    // A process that is to take over says it to the one that has started it, too.
    server::tell_refusal(why);
    talk(&format!("ringway: {why}"));
    Exit::Failed
}

/// Says why the command line is invalid.
pub(super) fn usage(why: &str) -> Exit {
    talk(&format!("ringway: {why}\n\nFor more information, try '--help'."));
    Exit::Usage
}

/// Shows each problem in its line, and how many there are.
pub(super) fn problems(problems: &Problems) {
    if problems.is_empty() {
        return;
    }
    if problems.errors() > 0 {
        server::tell_refusal(&problems.render(false));
    }
    talk(&problems.render(is_colored()));
    talk(&format!("\nringway: {}", count(problems)));
}

fn count(problems: &Problems) -> String {
    let some = |count: usize, what: &str| match count {
        0 => None,
        1 => Some(format!("1 {what}")),
        _ => Some(format!("{count} {what}s")),
    };
    let counts = [some(problems.errors(), "error"), some(problems.warnings(), "warning")];
    counts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// On a terminal that can, unless <https://no-color.org> applies.
fn is_colored() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    std::io::stderr().is_terminal()
        && set("NO_COLOR").is_none()
        && set("TERM").is_none_or(|term| term != "dumb")
}

/// Prints a panic as one line that asks for a bug report, with a backtrace only on request.
pub(super) fn panics_in_one_line() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::env::var_os("RUST_BACKTRACE").is_some() {
            return usual(panic);
        }
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("no reason given");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let version = env!("CARGO_PKG_VERSION");
        if tracing::dispatcher::has_been_set() {
            tracing::error!(place, version, "a bug, please report it: {text}");
        } else {
            talk(&format!("ringway: a bug, please report it: {text} ({place}, version {version})"));
            stderr::flush();
        }
    }));
}
