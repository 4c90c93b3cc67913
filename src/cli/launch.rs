//! The commands `run`, `check` and `demo`: from files and flags to a plan, and on to the server.

use std::path::{Path, PathBuf};

use super::{Exit, address, say};
use crate::config::{self, Loaded, Overrides};
use crate::demo;
use crate::plan::{Checked, Plan};
use crate::server::{self, Source};

/// Where to look for a configuration when none is named.
pub(super) const FILES: [&str; 2] = ["ringway.toml", "/etc/ringway/ringway.toml"];

/// The first of them that exists.
pub(super) fn found() -> Option<PathBuf> {
    FILES.iter().map(Path::new).find(|path| path.exists()).map(Path::to_path_buf)
}

/// Serves until told to stop.
pub(super) fn run(files: &[PathBuf], overrides: &Overrides) -> Exit {
    match load(files, overrides) {
        Ok((loaded, files)) => {
            serve(loaded.plan, Some(Source { files, overrides: overrides.clone() }))
        }
        Err(exit) => exit,
    }
}

/// Shows what is wrong, or that nothing is.
pub(super) fn check(files: &[PathBuf], overrides: &Overrides, print: bool) -> Exit {
    let (loaded, files) = match load(files, overrides) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let found = server::check::check(&loaded.plan);
    let (overlay, dropped) = server::check::run_time_changes(&loaded.plan, &files);
    // A configuration can be shown on any machine.
    let (mut warnings, mut refusals) = (found.warnings, found.refusals);
    warnings.extend(dropped);
    if print { &mut warnings } else { &mut refusals }.extend(found.missing_here);
    warnings.iter().for_each(|note| say::talk(&format!("ringway: warning: {note}")));
    refusals.iter().for_each(|why| _ = say::failed(why));
    if !refusals.is_empty() {
        return Exit::Failed;
    }
    if print {
        return say::data(&loaded.effective_with(&overlay));
    }
    let (summary, certificates) = (summary(&loaded.plan), certificates(&loaded));
    say::talk(&format!("ringway: the configuration is good: {summary}{certificates}"));
    Exit::Done
}

/// Three built-in backends and a balancer in front.
pub(super) fn demo(listen: &str, overrides: &Overrides) -> Exit {
    let address = match address::bind(listen) {
        Ok(address) => address,
        Err(refusal) => return say::usage(&refusal),
    };
    let Ok(address) = address.parse() else {
        return say::usage(&format!("`{listen}` is not an address to listen on"));
    };
    match demo::run(address, overrides) {
        Ok(()) => Exit::Done,
        Err(why) => say::failed(&why.to_string()),
    }
}

/// Serves a plan until told to stop, and reads `source` again when told to; a failed start is
/// reported in one sentence.
pub(super) fn serve(plan: Checked, source: Option<Source>) -> Exit {
    match server::main(plan, source) {
        Ok(()) => Exit::Done,
        Err(why) => say::failed(&why.to_string()),
    }
}

/// The configuration of these files, or of the first default file that exists; and the files.
fn load(files: &[PathBuf], overrides: &Overrides) -> Result<(Loaded, Vec<PathBuf>), Exit> {
    let paths = paths(files)?;
    match config::load(&paths, overrides) {
        Ok(loaded) => {
            say::problems(&loaded.warnings);
            Ok((loaded, paths))
        }
        Err(problems) => {
            say::problems(&problems);
            Err(Exit::Failed)
        }
    }
}

/// These files, or the first default file that exists.
pub(super) fn paths(files: &[PathBuf]) -> Result<Vec<PathBuf>, Exit> {
    paths_quietly(files).ok_or_else(no_file)
}

/// Like `paths`, but prints nothing if there is no file.
pub(super) fn paths_quietly(files: &[PathBuf]) -> Option<Vec<PathBuf>> {
    match files {
        [] => Some(vec![found()?]),
        files => Some(files.to_vec()),
    }
}

fn no_file() -> Exit {
    say::failed(&format!(
        "no configuration: neither {} nor {} exists, and no -c FILE was given\n\
         \n  ringway demo                         shows what it does\n  \
         ringway proxy :8080 10.0.0.1:3000    is a proxy without a file",
        FILES[0], FILES[1]
    ))
}

/// `, 2 certificates (the first expires in 41 days: a.pem)`; nothing if there are none.
fn certificates(loaded: &Loaded) -> String {
    let Some((first, days)) = loaded.first_to_expire() else { return String::new() };
    let count = loaded.certificates.len();
    let (certificates, the_first) = match count {
        1 => ("certificate", "it"),
        _ => ("certificates", "the first"),
    };
    let ends = match days {
        0.. => format!("expires in {}", crate::certs::days_in_words(days)),
        _ => "has expired".to_owned(),
    };
    format!(", {count} {certificates} ({the_first} {ends}: {})", first.files.cert.display())
}

/// `1 listener, 2 routes, 1 pool (3 backends)`.
fn summary(plan: &Plan) -> String {
    let some = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    let backends = plan.pools.values().map(|pool| pool.backends.len()).sum();
    format!(
        "{}, {}, {} ({})",
        some(plan.listeners.len(), "listener"),
        some(plan.routes.len(), "route"),
        some(plan.pools.len(), "pool"),
        some(backends, "backend")
    )
}
