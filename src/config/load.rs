//! Reading of configuration files, directories and the files they name.
//!
//! The only file access below floor 4, and the only clock there: dates in certificates are compared
//! with now. Nothing is written.

use std::{
    fs,
    io::{ErrorKind, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{expand::Lookup, problem::Problem, source::Sources};
use crate::base::moment::UnixSeconds;
use crate::certs::{self, Files, Stamp};

/// Most bytes of one file: enough for a hundred thousand routes, too few for a log file by
/// accident.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Most bytes of a file named by `${file:…}`.
const NAMED_FILE_BYTES_MAX: u64 = 64 << 10;

/// The environment and the files of this machine.
pub(crate) struct Machine;

impl Lookup for Machine {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &str) -> Result<String, String> {
        let bytes = bytes(Path::new(path), NAMED_FILE_BYTES_MAX)?;
        String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
    }

    fn readable(&self, path: &str) -> Result<(), String> {
        // Opening a FIFO would block.
        let about = fs::metadata(path).map_err(|error| said(&error))?;
        if !about.is_file() && !about.is_dir() {
            return Err("it is not a file".to_owned());
        }
        // Reading one byte tells a directory from a file.
        let mut open = fs::File::open(path).map_err(|error| said(&error))?;
        open.read(&mut [0]).map(|_| ()).map_err(|error| said(&error))
    }

    fn now(&self) -> UnixSeconds {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        UnixSeconds(since.map_or(0, |since| since.as_secs()))
    }
}

impl Files for Machine {
    fn bytes(&self, path: &Path) -> Result<Vec<u8>, String> {
        let about = fs::metadata(path).map_err(|error| said(&error))?;
        if !about.is_file() {
            let what = if about.is_dir() { "it is a directory" } else { "it is not a file" };
            return Err(what.to_owned());
        }
        bytes(path, certs::FILE_BYTES_MAX)
    }

    fn names(&self, folder: &Path) -> Result<Vec<String>, String> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).map_err(|error| said(&error))? {
            let name = entry.map_err(|error| said(&error))?.file_name();
            names.push(name.to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn stamp(&self, path: &Path) -> Option<Stamp> {
        let about = fs::metadata(path).ok()?;
        let nanos = |seconds: i64, nanos: i64| {
            i128::from(seconds).saturating_mul(1_000_000_000).saturating_add(i128::from(nanos))
        };
        Some(Stamp {
            device: about.dev(),
            inode: about.ino(),
            bytes: about.size(),
            modified: nanos(about.mtime(), about.mtime_nsec()),
            changed: nanos(about.ctime(), about.ctime_nsec()),
        })
    }
}

/// The host name of this machine, which is the default name of the process. A kernel that does not
/// give it does not prevent a start.
pub(super) fn machine_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// Reads each file, and each `*.toml` of each directory in the order of their names.
pub(super) fn files(paths: &[PathBuf], sources: &mut Sources, problems: &mut Vec<Problem>) {
    let mut seen = Vec::new();
    let mut file = |path: &PathBuf, problems: &mut Vec<Problem>| match again(path, &mut seen) {
        Some(problem) => problems.push(problem),
        None => file(path, sources, problems),
    };
    for path in paths {
        if !path.is_dir() {
            file(path, problems);
            continue;
        }
        match directory(path) {
            Ok(found) if found.is_empty() => problems.push(
                Problem::error(format!("{} has no configuration", path.display()))
                    .help("only files that end in .toml are read"),
            ),
            Ok(found) => found.iter().for_each(|path| file(path, problems)),
            Err(why) => {
                problems.push(Problem::error(format!("{} cannot be read: {why}", path.display())))
            }
        }
    }
}

fn directory(path: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| said(&error))? {
        let path = entry.map_err(|error| said(&error))?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        // A dangling link counts as a file, and is reported.
        let is_file = fs::metadata(&path).map_or(true, |about| about.is_file());
        if path.extension().is_some_and(|extension| extension == "toml") && !hidden && is_file {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The problem of a file that was read before, by this name or through a link.
fn again(path: &Path, seen: &mut Vec<(PathBuf, PathBuf)>) -> Option<Problem> {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let Some((_, first)) = seen.iter().find(|(other, _)| *other == real) else {
        seen.push((real, path.to_owned()));
        return None;
    };
    let title = match first == path {
        true => format!("{} is named twice", path.display()),
        false => format!("{} and {} are one file", first.display(), path.display()),
    };
    Some(Problem::error(title).help("name each file once; a directory includes its own"))
}

fn file(path: &Path, sources: &mut Sources, problems: &mut Vec<Problem>) {
    let name = path.display().to_string();
    let bytes = match bytes(path, FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(why) => {
            let help = (name == "-").then(|| "standard input is /dev/stdin".to_owned());
            let problem = Problem::error(format!("{name} cannot be read: {why}"));
            problems.push(problem.help_if(help));
            return;
        }
    };
    if bytes.contains(&0) {
        // A program, or UTF-16: none of its lines is worth showing.
        let problem = Problem::error(format!("{name} is not UTF-8 text"));
        problems.push(problem.help("save the file as UTF-8"));
        return;
    }
    // Editors on Windows put an invisible mark in front; columns are counted without it.
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").map(<[u8]>::to_vec).unwrap_or(bytes);
    match String::from_utf8(bytes) {
        Ok(text) if text.trim().is_empty() => {
            sources.add(&name, text);
            problems.push(Problem::error(format!("{name} is empty")).help(super::check::SMALLEST));
        }
        Ok(text) => {
            sources.add(&name, text);
        }
        Err(error) => {
            // The line is still shown, with invalid bytes replaced.
            let sound = error.utf8_error().valid_up_to();
            let shown = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let source = sources.add(&name, shown);
            let place = sources.place(source, sound..sound + '\u{FFFD}'.len_utf8());
            problems.push(
                Problem::error(format!("{name} is not UTF-8"))
                    .at(place, "this byte belongs to another encoding")
                    .help("save the file as UTF-8"),
            );
        }
    }
}

fn bytes(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let open = fs::File::open(path).map_err(|error| said(&error))?;
    let mut bytes = Vec::new();
    open.take(most + 1).read_to_end(&mut bytes).map_err(|error| said(&error))?;
    if bytes.len() as u64 > most {
        return Err(format!("it is larger than {}", super::units::write_size(most)));
    }
    Ok(bytes)
}

fn said(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file".to_owned(),
        ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
        ErrorKind::IsADirectory => "it is a directory".to_owned(),
        ErrorKind::NotADirectory => "it is not a directory".to_owned(),
        _ => error.to_string(),
    }
}
