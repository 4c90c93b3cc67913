//! The secrets that sign sticky cookies and seal session tickets: read from the files that pools
//! and listeners name, or generated once and kept in the state directory.
//!
//! Read on the main thread, before anything serves. A secret is never reported or logged, only its
//! location. `policy::sticky` and `net::tls` use it.

use std::{
    env, fs,
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::OFlags,
    rand::{GetRandomFlags, getrandom},
};

use super::StartError;
use crate::base::base64url;
use crate::observe::event::Event;
use crate::plan::{ListenerId, Plan, Pool, PoolId, Table};
use crate::policy::sticky::{Pins, Secrets};

/// The files in the state directory: in the form that a pool or a listener may name, so that they
/// can be passed on.
const FILE: &str = "sticky.key";
const TICKETS_FILE: &str = "tickets.key";

/// More than two lines that people write.
const FILE_BYTES_MAX: u64 = 16 << 10;

/// What every user of the machine may do with a file: read or write it. Access for a group is a
/// deliberate choice, and orchestrators mount secrets readable for everyone in a container: there
/// is a warning, not a refusal.
const OTHERS: u32 = 0o006;

/// How many random bytes make a secret: 256 bits, and a length that needs no padding.
const SECRET_BYTES: usize = 33;

/// The secret of pools that name none.
pub(super) struct Made {
    secrets: Secrets,
    /// Its text, if it is in no file: it is handed to the process that takes over.
    pub(super) text: Option<String>,
}

impl Made {
    /// The secret of the process before this one.
    pub(super) fn inherited(text: &str) -> Option<Made> {
        let secrets = Secrets::parse(text.as_bytes()).ok()?;
        Some(Made { secrets, text: Some(text.to_owned()) })
    }
}

/// Writers and readers of cookies for each sticky pool. Also returns warnings for the operator.
/// `made` is the secret of pools that name none, once there is one.
///
/// # Errors
/// A sentence that names the pool and the file that cannot be used.
pub(super) fn pins(
    plan: &Plan,
    states: &[PathBuf],
    made: &mut Option<Made>,
) -> Result<(Table<PoolId, Pins>, Vec<Event>), StartError> {
    let mut notes = Vec::new();
    let mut all = Table::new();
    for (id, pool) in &plan.pools {
        let Some(sticky) = &pool.sticky else { continue };
        let secrets = match &sticky.secret_file {
            Some(path) => {
                let (secrets, exposed) = read(path).map_err(|cause| {
                    let (pool, file) = (pool.name.clone(), path.clone());
                    StartError::Secret { pool, file, cause }
                })?;
                notes.extend(exposed.map(|mode| {
                    let (pool, file) = (pool.name.as_str().into(), path.clone());
                    Event::SecretExposed { pool, file, mode }
                }));
                secrets
            }
            None => match &*made {
                Some(made) => made.secrets.clone(),
                None => {
                    let (kept, why_not_kept) = kept_or_made(states, FILE)?;
                    let note = |why: String| Event::SecretNotKept { cause: why.into() };
                    notes.extend(why_not_kept.map(note));
                    made.insert(kept).secrets.clone()
                }
            },
        };
        all.insert(id, Pins::new(pool, sticky, &secrets));
    }
    Ok((all, notes))
}

/// The secrets of session tickets of each listener that speaks TLS. Where none can be kept tickets
/// end with the process, and their clients make a whole handshake once more.
///
/// # Errors
/// A sentence that names the listener and the file that cannot be used.
pub(super) fn of_tickets(
    plan: &Plan,
    states: &[PathBuf],
    made: &mut Option<Made>,
) -> Result<Table<ListenerId, Secrets>, StartError> {
    let mut all = Table::new();
    for (id, listener) in &plan.listeners {
        let Some(tls) = &listener.tls else { continue };
        let secrets = match (&tls.ticket_secret_file, &*made) {
            (Some(path), _) => {
                let unusable = |why| {
                    let (listener, file) = (&listener.name, path.display());
                    StartError::Plan(format!("listener \"{listener}\": ticket secret {file} {why}"))
                };
                read(path).map_err(unusable)?.0
            }
            (None, Some(made)) => made.secrets.clone(),
            (None, None) => made.insert(kept_or_made(states, TICKETS_FILE)?.0).secrets.clone(),
        };
        all.insert(id, secrets);
    }
    Ok(all)
}

/// Checks whether the files that pools name can be used; creates none. Returns warnings for the
/// operator.
///
/// # Errors
/// Like `pins`.
pub(super) fn check(plan: &Plan) -> Result<Vec<String>, StartError> {
    let is_named = |pool: &Pool| pool.sticky.as_ref().is_some_and(|s| s.secret_file.is_some());
    let named = plan.pools.iter().filter(|(_, pool)| is_named(pool));
    let pools = named.map(|(id, pool)| (id, pool.clone())).collect();
    let (_, notes) = pins(&Plan { pools, ..Plan::default() }, &[], &mut None)?;
    let sentence = |event: &Event| match event {
        Event::SecretExposed { pool, file, mode } => {
            let may = match mode & OTHERS {
                0o002 => "written",
                0o004 => "read",
                _ => "read and written",
            };
            format!(
                "pool \"{pool}\": the secret file {} may be {may} by every user of this machine \
                 (mode {mode:03o}): chmod o= it",
                file.display()
            )
        }
        other => other.sentence().to_owned(),
    };
    Ok(notes.iter().map(sentence).collect())
}

/// Where the state of this process may be, the best place first.
pub(super) fn state_directories() -> Vec<PathBuf> {
    state_directories_by(|variable| env::var_os(variable).map(PathBuf::from))
}

/// The same in this environment: where a service manager has made a folder for it, that is the
/// best; of several, the first.
fn state_directories_by(variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let is_absolute = |path: &PathBuf| path.is_absolute();
    let given = variable("STATE_DIRECTORY").and_then(|all| env::split_paths(&all).next());
    let of_user = variable("XDG_STATE_HOME").filter(is_absolute);
    let at_home = variable("HOME").map(|home| home.join(".local/state"));
    let bases = [Some(PathBuf::from("/var/lib")), of_user, at_home];
    let usual = bases.into_iter().flatten().map(|base| base.join("ringway"));
    given.filter(is_absolute).into_iter().chain(usual).collect()
}

/// The secret of the first place that has one or takes one; otherwise one that ends with the
/// process, and why.
fn kept_or_made(states: &[PathBuf], file: &str) -> Result<(Made, Option<String>), StartError> {
    let mut refusals = Vec::new();
    for state in states {
        match kept(state, file) {
            Ok(secrets) => return Ok((Made { secrets, text: None }, None)),
            Err(why) => refusals.push(format!("{} {why}", state.join(file).display())),
        }
    }
    let cause = match refusals.is_empty() {
        true => "there is no folder to keep it in".into(),
        false => refusals.join("; "),
    };
    let made = made().and_then(|line| {
        let secrets = Secrets::parse(&line).map_err(io::Error::other)?;
        Ok(Made { secrets, text: Some(String::from_utf8_lossy(&line).trim().to_owned()) })
    });
    Ok((made.map_err(StartError::system("make a secret"))?, Some(cause)))
}

/// The secret in a state directory, generated if there is none.
fn kept(state: &Path, file: &str) -> Result<Secrets, String> {
    let path = state.join(file);
    if !path.exists() {
        keep(state, &path).map_err(|error| format!("cannot be written: {}", said(&error)))?;
    }
    read(&path).map(|(secrets, _)| secrets)
}

/// Generates a secret and stores it atomically; one that another process has stored meanwhile
/// stays.
fn keep(state: &Path, path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(state)?;
    let secret = made()?;
    let other = String::from_utf8(made()?).map_err(io::Error::other)?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or(FILE);
    let beside = state.join(format!(".{name}.{}", other.trim_end()));
    let written = write(&beside, &secret).and_then(|()| fs::hard_link(&beside, path));
    let removed = fs::remove_file(&beside);
    match written {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => removed,
    }
}

/// Writes a file that only its owner may read, to the disk.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A line of random bytes.
fn made() -> io::Result<Vec<u8>> {
    let mut chance = [0; SECRET_BYTES];
    // So few bytes come whole or not at all.
    if getrandom(&mut chance, GetRandomFlags::empty())? != chance.len() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let mut line = Vec::new();
    base64url::encode(&chance, &mut line);
    line.push(b'\n');
    Ok(line)
}

/// The secrets of a file, with its mode if that exposes it, or what is wrong with the file. Never
/// blocks: a FIFO is refused.
fn read(path: &Path) -> Result<(Secrets, Option<u32>), String> {
    let unread = |error: io::Error| format!("cannot be read: {}", said(&error));
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file = fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path);
    let file = file.map_err(unread)?;
    let about = file.metadata().map_err(unread)?;
    if !about.is_file() && !about.is_dir() {
        return Err("is no file".to_owned());
    }
    let mode = about.mode() & 0o777;
    let exposed = (mode & OTHERS != 0).then_some(mode);
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unread)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("is larger than {} KiB", FILE_BYTES_MAX >> 10));
    }
    Ok((Secrets::parse(&bytes)?, exposed))
}

fn said(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file".to_owned(),
        ErrorKind::PermissionDenied => "this user may not".to_owned(),
        ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::moment::UnixSeconds;
    use crate::plan::{Address, Backend, BackendId, Pool, Sticky};
    use crate::policy::sticky::Reading;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };
    use std::time::Duration;

    /// A directory for one test.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Folder {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::SeqCst);
            let name = format!("ringway-secrets-{}-{number}", std::process::id());
            let path = env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn file(&self, text: &[u8]) -> PathBuf {
            let path = self.0.join("secret");
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            path
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    /// A plan of one pool for each of these secret files, and of one that is not sticky.
    fn plan(secret_files: &[Option<&Path>]) -> Plan {
        let sticky = |file: &Option<&Path>| Sticky {
            cookie: "rw".into(),
            secret_file: file.map(Path::to_path_buf),
            idle_max: Duration::ZERO,
            life_max: Duration::ZERO,
            ..Sticky::default()
        };
        let origin = Backend::new("a".into(), Address::Socket(([127, 0, 0, 1], 9).into()));
        let pool = |sticky| Pool {
            name: "app".into(),
            backends: vec![origin.clone()].into(),
            sticky,
            ..Pool::default()
        };
        let sticky_ones = secret_files.iter().map(|file| pool(Some(sticky(file))));
        let all = sticky_ones.chain([pool(None)]);
        Plan { pools: all.map(Arc::new).collect(), ..Plan::default() }
    }

    /// Whether one accepts what the other writes.
    fn agree(one: &Pins, other: &Pins) -> bool {
        let mut line = Vec::new();
        one.write(BackendId(0), 0, UnixSeconds(0), false, &mut line);
        let value = line.split(|byte| *byte == b';').next().unwrap().strip_prefix(b"rw=").unwrap();
        matches!(other.read([value].into_iter(), UnixSeconds(0)), Reading::Pinned(_))
    }

    #[test]
    fn a_secret_is_made_once_and_kept_where_only_its_owner_reads_it() {
        let folder = Folder::new();
        let states = [folder.0.join("file/below"), folder.0.join("a/b"), folder.0.join("c")];
        fs::write(folder.0.join("file"), "").unwrap();
        let (first, notes) = pins(&plan(&[None, None]), &states, &mut None).unwrap();
        assert_eq!(notes, []);
        let [Some(one), Some(two), None] = [0, 1, 2].map(|id| first.get(PoolId(id))) else {
            panic!("not two pins and none")
        };
        assert!(agree(one, two), "one secret for all pools of a process");
        let (again, _) = pins(&plan(&[None]), &states, &mut None).unwrap();
        assert!(agree(again.get(PoolId(0)).unwrap(), one), "it was not kept");
        let file = states[1].join(FILE);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&states[1]).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&states[1]).unwrap().count(), 1, "something was left behind");
        assert!(!states[2].exists());
        // It is a secret file like any other.
        let (named, _) = pins(&plan(&[Some(&file)]), &[], &mut None).unwrap();
        assert!(agree(named.get(PoolId(0)).unwrap(), one));
    }

    #[test]
    fn of_two_that_begin_at_once_one_makes_the_secret() {
        for _ in 0..20 {
            let folder = Folder::new();
            let states = [folder.0.clone()];
            let made: Vec<Pins> = std::thread::scope(|scope| {
                let begin = || {
                    pins(&plan(&[None]), &states, &mut None).unwrap().0.remove(PoolId(0)).unwrap()
                };
                let threads = [scope.spawn(begin), scope.spawn(begin), scope.spawn(begin)];
                threads.map(|thread| thread.join().unwrap()).into()
            });
            assert!(agree(&made[0], &made[1]) && agree(&made[1], &made[2]));
            assert_eq!(folder.names(), [FILE]);
        }
    }

    #[test]
    fn where_none_can_be_kept_the_start_says_so() {
        let folder = Folder::new();
        let blocked = folder.file(b"").join("ringway");
        let states = [blocked];
        let (made, notes) = pins(&plan(&[None]), &states, &mut None).unwrap();
        let [Event::SecretNotKept { cause }] = &notes[..] else { panic!("{notes:?}") };
        assert!(cause.contains(&*states[0].to_string_lossy()), "{cause}");
        assert!(made.get(PoolId(0)).is_some());
        let (other, _) = pins(&plan(&[None]), &states, &mut None).unwrap();
        assert!(
            !agree(made.get(PoolId(0)).unwrap(), other.get(PoolId(0)).unwrap()),
            "always the same"
        );
        let nowhere = [Event::SecretNotKept { cause: "there is no folder to keep it in".into() }];
        assert_eq!(pins(&plan(&[None]), &[], &mut None).unwrap().1, nowhere);
        assert_eq!(pins(&plan(&[]), &[], &mut None).unwrap().1, [], "nobody asked for a secret");
    }

    #[test]
    fn a_secret_file_that_cannot_be_used_is_named() {
        let folder = Folder::new();
        let missing = folder.0.join("none");
        let large = vec![b'a'; 20 << 10];
        for (file, expected) in [
            (missing.clone(), "cannot be read: there is no such file"),
            (folder.0.clone(), "cannot be read: it is a directory"),
            (folder.file(&large), "is larger than 16 KiB"),
        ] {
            let refused = |result: Result<(), StartError>| result.unwrap_err().to_string();
            let checked = check(&plan(&[Some(&file)])).map(|_| ());
            let expected = format!("pool \"app\": the secret file {} {expected}", file.display());
            assert_eq!(refused(pins(&plan(&[Some(&file)]), &[], &mut None).map(|_| ())), expected);
            assert_eq!(refused(checked), expected);
        }
        let short = folder.file(b"fifteen letters\n");
        let said = check(&plan(&[None, Some(&short)])).unwrap_err().to_string();
        assert!(
            said.ends_with("/secret holds a secret of 15 bytes: it takes 16 or more"),
            "{said}"
        );
        let good = folder.file(b"sixteen letters!\n");
        assert!(check(&plan(&[None, Some(&good)])).is_ok());
        assert_eq!(folder.names(), ["secret"], "a check makes nothing");
    }

    #[test]
    fn a_file_that_everybody_may_read_is_named_and_a_fifo_is_not_waited_for() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let folder = Folder::new();
        let file = folder.file(b"sixteen letters!\n");
        for (mode, may) in [
            (0o600, None),
            (0o640, None),
            (0o644, Some("read")),
            (0o604, Some("read")),
            (0o602, Some("written")),
            (0o606, Some("read and written")),
        ] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let notes = check(&plan(&[Some(&file)])).unwrap();
            let pool = Arc::from("app");
            let exposed = Event::SecretExposed { pool, file: file.clone(), mode };
            let told = pins(&plan(&[Some(&file)]), &[], &mut None).unwrap().1;
            assert_eq!(told, if may.is_some() { vec![exposed] } else { vec![] });
            let words = may.map(|may| format!("{} may be {may} by every user", file.display()));
            let is_named = |note: &String| words.as_ref().is_some_and(|it| note.contains(it));
            assert_eq!(notes.iter().any(is_named), may.is_some(), "{mode:o}: {notes:?}");
        }
        let fifo = folder.0.join("fifo");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let said = check(&plan(&[Some(&fifo)])).unwrap_err().to_string();
        assert!(said.ends_with("/fifo is no file"), "{said}");
    }

    #[test]
    fn the_state_directory_is_the_one_given_or_the_systems_or_else_the_users() {
        for (given, expected) in [
            (None, "/var/lib/ringway /x/ringway /h/.local/state/ringway"),
            (Some("/run/own"), "/run/own /var/lib/ringway /x/ringway /h/.local/state/ringway"),
            (Some("/a:/b"), "/a /var/lib/ringway /x/ringway /h/.local/state/ringway"),
            (Some("a"), "/var/lib/ringway /x/ringway /h/.local/state/ringway"),
            (Some(""), "/var/lib/ringway /x/ringway /h/.local/state/ringway"),
        ] {
            let variable = |name: &str| match name {
                "STATE_DIRECTORY" => given.map(PathBuf::from),
                "XDG_STATE_HOME" => Some("/x".into()),
                _ => Some("/h".into()),
            };
            let states = state_directories_by(variable);
            let states: Vec<_> = states.iter().map(|it| it.to_str().unwrap()).collect();
            assert_eq!(states.join(" "), expected, "{given:?}");
        }
    }
}
