//! The secrets that sticky cookies are signed with: read from the files that pools name, or made
//! once and kept in the state directory.
//!
//! Read on the main thread, before anything serves. A secret is never told or logged, only where it
//! stands. What is done with it is `policy::sticky`.

use std::{
    env, fs,
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::rand::{GetRandomFlags, getrandom};

use super::StartError;
use crate::base::base64url;
use crate::plan::Plan;
use crate::policy::sticky::{Pins, Secrets};

/// The file in the state directory: as one that a pool may name, so that it can be handed on.
const FILE: &str = "sticky.key";

/// More than two lines anybody writes.
const FILE_BYTES_MAX: u64 = 16 << 10;

/// How many bytes of chance a secret is made of: 256 bits, and a length that needs no padding.
const SECRET_BYTES: usize = 33;

/// What writes and reads the cookies of each pool; none = it is not sticky. Also what the operator
/// should know.
///
/// # Errors
/// A sentence that names the pool and the file that cannot be used.
pub(super) fn pins(
    plan: &Plan,
    states: &[PathBuf],
) -> Result<(Vec<Option<Pins>>, Option<String>), StartError> {
    let (mut made, mut note) = (None, None);
    let mut all = Vec::new();
    for pool in &plan.pools {
        let Some(sticky) = &pool.sticky else {
            all.push(None);
            continue;
        };
        let secrets = match &sticky.secret_file {
            Some(path) => read(path).map_err(|why| {
                let path = path.display();
                StartError(format!("pool \"{}\": the secret file {path} {why}", pool.name))
            })?,
            None => match &made {
                Some(made) => Secrets::clone(made),
                None => {
                    let (secrets, said) = kept_or_made(states)?;
                    note = said;
                    made.insert(secrets).clone()
                }
            },
        };
        all.push(Some(Pins::new(pool, sticky, &secrets)));
    }
    Ok((all, note))
}

/// Whether the files that pools name can be used; makes none.
///
/// # Errors
/// As `pins`.
pub(crate) fn check(plan: &Plan) -> Result<(), StartError> {
    let mut plan = plan.clone();
    plan.pools.retain(|pool| pool.sticky.as_ref().is_some_and(|s| s.secret_file.is_some()));
    pins(&plan, &[]).map(|_| ())
}

/// Where the state of this process may be, the best place first.
pub(super) fn state_directories() -> Vec<PathBuf> {
    let place = |variable: &str| env::var_os(variable).map(PathBuf::from);
    let of_user = place("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let at_home = place("HOME").map(|home| home.join(".local/state"));
    let bases = [Some(PathBuf::from("/var/lib")), of_user, at_home];
    bases.into_iter().flatten().map(|base| base.join("ringway")).collect()
}

/// The secret of the first place that has one or takes one; else one that ends with the process,
/// and a sentence that says so.
fn kept_or_made(states: &[PathBuf]) -> Result<(Secrets, Option<String>), StartError> {
    let mut refusals = Vec::new();
    for state in states {
        match kept(state) {
            Ok(secrets) => return Ok((secrets, None)),
            Err(why) => refusals.push(format!("{} {why}", state.join(FILE).display())),
        }
    }
    let note = format!(
        "sticky cookies end with this process, as there is no place for their secret ({}); \
         name one with `secret-file`",
        refusals.join("; ")
    );
    let secrets = made().and_then(|made| Secrets::parse(&made).map_err(io::Error::other));
    let secrets =
        secrets.map_err(|error| StartError(format!("the kernel gives no secret: {error}")))?;
    Ok((secrets, Some(note)))
}

/// The secret in a state directory, made where there is none.
fn kept(state: &Path) -> Result<Secrets, String> {
    let path = state.join(FILE);
    if !path.exists() {
        keep(state, &path).map_err(|error| format!("cannot be written: {}", said(&error)))?;
    }
    read(&path)
}

/// Makes a secret and puts it there whole or not at all; one that another process has put there
/// meanwhile stays.
fn keep(state: &Path, path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(state)?;
    let secret = made()?;
    let other = String::from_utf8(made()?).map_err(io::Error::other)?;
    let beside = state.join(format!(".{FILE}.{}", other.trim_end()));
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

/// A line of chance.
fn made() -> io::Result<Vec<u8>> {
    let mut chance = [0; SECRET_BYTES];
    // As few as these come whole or not at all.
    if getrandom(&mut chance, GetRandomFlags::empty())? != chance.len() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let mut line = Vec::new();
    base64url::encode(&chance, &mut line);
    line.push(b'\n');
    Ok(line)
}

/// The secrets of a file, or what is wrong with it.
fn read(path: &Path) -> Result<Secrets, String> {
    let unread = |error: io::Error| format!("cannot be read: {}", said(&error));
    let file = fs::File::open(path).map_err(unread)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unread)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("is larger than {} KiB", FILE_BYTES_MAX >> 10));
    }
    Secrets::parse(&bytes)
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
    use crate::plan::{Address, Backend, BackendId, Pool, Sticky};
    use crate::policy::sticky::Reading;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::atomic::{AtomicU32, Ordering};
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
        };
        let origin = Backend::new("a".into(), Address::Socket(([127, 0, 0, 1], 9).into()));
        let pool = |sticky| Pool {
            name: "app".into(),
            backends: vec![origin.clone()],
            sticky,
            ..Pool::default()
        };
        let sticky_ones = secret_files.iter().map(|file| pool(Some(sticky(file))));
        Plan { pools: sticky_ones.chain([pool(None)]).collect(), ..Plan::default() }
    }

    /// Whether one believes what the other writes.
    fn agree(one: &Pins, other: &Pins) -> bool {
        let mut line = Vec::new();
        one.write(BackendId(0), 0, 0, false, &mut line);
        let value = line.split(|byte| *byte == b';').next().unwrap().strip_prefix(b"rw=").unwrap();
        matches!(other.read([value].into_iter(), 0), Reading::Pinned(_))
    }

    #[test]
    fn a_secret_is_made_once_and_kept_where_only_its_owner_reads_it() {
        let folder = Folder::new();
        let states = [folder.0.join("file/below"), folder.0.join("a/b"), folder.0.join("c")];
        fs::write(folder.0.join("file"), "").unwrap();
        let (first, note) = pins(&plan(&[None, None]), &states).unwrap();
        assert_eq!(note, None);
        let [Some(one), Some(two), None] = &first[..] else { panic!("not two pins and none") };
        assert!(agree(one, two), "one secret for all pools of a process");
        let (again, _) = pins(&plan(&[None]), &states).unwrap();
        assert!(agree(again[0].as_ref().unwrap(), one), "it was not kept");
        let file = states[1].join(FILE);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&states[1]).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&states[1]).unwrap().count(), 1, "something was left behind");
        assert!(!states[2].exists());
        // It is a secret file like any other.
        let (named, _) = pins(&plan(&[Some(&file)]), &[]).unwrap();
        assert!(agree(named[0].as_ref().unwrap(), one));
    }

    #[test]
    fn of_two_that_begin_at_once_one_makes_the_secret() {
        for _ in 0..20 {
            let folder = Folder::new();
            let states = [folder.0.clone()];
            let made: Vec<Pins> = std::thread::scope(|scope| {
                let begin = || pins(&plan(&[None]), &states).unwrap().0.remove(0).unwrap();
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
        let (made, note) = pins(&plan(&[None]), &states).unwrap();
        let note = note.unwrap();
        assert!(note.starts_with("sticky cookies end with this process, "), "{note}");
        assert!(note.contains(&*states[0].to_string_lossy()), "{note}");
        assert!(made[0].is_some());
        let (other, _) = pins(&plan(&[None]), &states).unwrap();
        assert!(!agree(made[0].as_ref().unwrap(), other[0].as_ref().unwrap()), "always the same");
        assert_eq!(pins(&plan(&[]), &[]).unwrap().1, None, "nobody asked for a secret");
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
            let expected = format!("pool \"app\": the secret file {} {expected}", file.display());
            assert_eq!(refused(pins(&plan(&[Some(&file)]), &[]).map(|_| ())), expected);
            assert_eq!(refused(check(&plan(&[Some(&file)]))), expected);
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
    fn the_state_directory_is_the_systems_or_else_the_users() {
        let states = state_directories();
        assert_eq!(states[0], Path::new("/var/lib/ringway"));
        assert!(states.iter().all(|state| state.is_absolute() && state.ends_with("ringway")));
    }
}
