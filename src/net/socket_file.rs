//! The file of a listening Unix socket: made, replaced where nobody listens, and removed at the
//! end.
//!
//! A socket file outlives its process, so one that is there may be abandoned: it is replaced only
//! when a connect to it is refused. Two processes that find the same abandoned one at the same
//! moment would each replace that of the other; so a lock on the folder is held meanwhile, which
//! needs no file of its own and ends with the process. What is no socket is never touched.

use std::{
    fs,
    io::{self, ErrorKind},
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType},
};

use super::io::unix_address;
use crate::base::endpoint::UnixPath;

/// Who may connect; without a mode the umask of the process decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rights {
    pub(crate) mode: Option<u32>,
    pub(crate) user: Option<u32>,
    pub(crate) group: Option<u32>,
}

/// A socket file of this process. It is removed with this, if it is still the same file.
#[derive(Debug)]
pub(crate) struct SocketFile {
    pub(crate) path: UnixPath,
    file: PathBuf,
    /// The device and the number of the file.
    is: (u64, u64),
    /// Another process has taken it over, and removes it.
    is_given_away: bool,
}

impl SocketFile {
    /// The one that is there; none for an abstract name, which leaves nothing behind.
    pub(crate) fn of(path: UnixPath) -> Option<SocketFile> {
        let file = path.file()?.to_owned();
        let is = identity(&file)?;
        Some(SocketFile { path, file, is, is_given_away: false })
    }

    pub(crate) fn give_away(&mut self, is_given_away: bool) {
        self.is_given_away = is_given_away;
    }

    fn allow(&self, rights: Rights) -> io::Result<()> {
        let Rights { mode, user, group } = rights;
        if user.is_some() || group.is_some() {
            chown(&self.file, user, group)?;
        }
        match mode {
            Some(mode) => fs::set_permissions(&self.file, fs::Permissions::from_mode(mode)),
            None => Ok(()),
        }
    }

    /// The same for the file of a path at which we listen already; what is not said stays.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn allow_again(path: UnixPath, rights: Rights) -> io::Result<()> {
        let Some(mut file) = SocketFile::of(path) else { return Ok(()) };
        // It is removed with the one that is kept.
        file.give_away(true);
        file.allow(rights)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !self.is_given_away && identity(&self.file) == Some(self.is) {
            // Where this process may not remove it, the next one finds it abandoned.
            let _ = fs::remove_file(&self.file);
        }
    }
}

fn identity(file: &Path) -> Option<(u64, u64)> {
    let known = fs::symlink_metadata(file).ok()?;
    known.file_type().is_socket().then(|| (known.dev(), known.ino()))
}

/// Listens at a path. Nobody can connect before the file has these rights.
///
/// # Errors
/// `AddrInUse` if somebody listens there, `AlreadyExists` if the file is no socket; otherwise the
/// kernel's.
pub(crate) fn listen(
    path: UnixPath,
    rights: Rights,
    backlog: u32,
) -> io::Result<(OwnedFd, Option<SocketFile>)> {
    let address = unix_address(path)?;
    let socket = stream()?;
    let _alone = match path.file() {
        Some(file) => {
            let alone = lock(file.parent())?;
            make_room(file, path)?;
            alone
        }
        None => None,
    };
    rustix::net::bind(&socket, &address)?;
    let file = SocketFile::of(path);
    file.as_ref().map_or(Ok(()), |file| file.allow(rights))?;
    rustix::net::listen(&socket, i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok((socket, file))
}

fn stream() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// A lock on the folder, until it is dropped; none if the folder cannot be read.
fn lock(folder: Option<&Path>) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = folder.and_then(|folder| rustix::fs::open(folder, flags, Mode::empty()).ok());
    let Some(folder) = opened else { return Ok(None) };
    match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        // Tried again by the caller, as an address that is in use.
        Err(Errno::WOULDBLOCK) => Err(ErrorKind::AddrInUse.into()),
        // A file system without locks.
        Err(_) => Ok(None),
        Ok(()) => Ok(Some(folder)),
    }
}

/// Removes an abandoned socket.
fn make_room(file: &Path, path: UnixPath) -> io::Result<()> {
    match fs::symlink_metadata(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(known) if !known.file_type().is_socket() => {
            return Err(ErrorKind::AlreadyExists.into());
        }
        Ok(_) => {}
    }
    match rustix::net::connect(stream()?, &unix_address(path)?) {
        Err(Errno::CONNREFUSED) => fs::remove_file(file),
        // A full queue is one that somebody has.
        Ok(()) | Err(Errno::AGAIN) => Err(ErrorKind::AddrInUse.into()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    /// A folder of its own, removed with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let folder = format!("ringway-socket-{name}-{}", std::process::id());
            let folder = std::env::temp_dir().join(folder);
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir(&folder).unwrap();
            Folder(folder)
        }

        fn path(&self) -> UnixPath {
            UnixPath::new(self.0.join("x.sock").to_str().unwrap()).unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn rights(mode: u32) -> Rights {
        Rights { mode: Some(mode), ..Rights::default() }
    }

    #[test]
    fn the_file_has_its_mode_and_is_removed_at_the_end() {
        let folder = Folder::new("mode");
        let (path, file) = (folder.path(), folder.0.join("x.sock"));
        for mode in [0o600, 0o660, 0o666] {
            let (socket, held) = listen(path, rights(mode), 8).unwrap();
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, mode);
            drop(UnixStream::connect(&file).unwrap());
            drop((socket, held));
            assert!(!file.exists());
        }
    }

    #[test]
    fn an_abandoned_one_is_replaced_and_one_in_use_is_not() {
        let folder = Folder::new("abandoned");
        let (path, file) = (folder.path(), folder.0.join("x.sock"));
        let other = UnixListener::bind(&file).unwrap();
        let refused = listen(path, Rights::default(), 8).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AddrInUse);
        assert!(UnixStream::connect(&file).is_ok(), "it is as it was");
        drop(other);
        assert!(file.exists() && UnixStream::connect(&file).is_err());
        let held = listen(path, Rights::default(), 8).unwrap();
        assert!(UnixStream::connect(&file).is_ok());
        drop(held);
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let folder = Folder::new("other");
        let (path, file) = (folder.path(), folder.0.join("x.sock"));
        fs::write(&file, "precious").unwrap();
        let refused = listen(path, Rights::default(), 8).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink(folder.0.join("elsewhere"), &file).unwrap();
        assert_eq!(listen(path, Rights::default(), 8).unwrap_err().kind(), refused.kind());
    }

    #[test]
    fn one_that_another_has_put_there_meanwhile_stays() {
        let folder = Folder::new("meanwhile");
        let (path, file) = (folder.path(), folder.0.join("x.sock"));
        let (_socket, held) = listen(path, Rights::default(), 8).unwrap();
        fs::remove_file(&file).unwrap();
        // The number of the one before is not used again while that is listened on.
        let _other = UnixListener::bind(&file).unwrap();
        drop(held);
        assert!(file.exists());
        let (_socket, mut held) = {
            fs::remove_file(&file).unwrap();
            listen(path, Rights::default(), 8).unwrap()
        };
        held.as_mut().unwrap().give_away(true);
        drop(held);
        assert!(file.exists(), "another process has it now");
    }

    #[test]
    fn of_many_who_find_it_abandoned_one_has_it() {
        let folder = Folder::new("many");
        let (path, file) = (folder.path(), folder.0.join("x.sock"));
        for _ in 0..20 {
            drop(UnixListener::bind(&file).unwrap());
            let begins = std::sync::Barrier::new(8);
            let all: Vec<_> = std::thread::scope(|scope| {
                let take = || {
                    begins.wait();
                    listen(path, Rights::default(), 8)
                };
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(take)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(all.iter().filter(|it| it.is_ok()).count(), 1);
            assert!(UnixStream::connect(&file).is_ok());
        }
    }

    #[test]
    fn a_name_lies_in_no_folder_and_is_free_when_its_socket_is_closed() {
        let path = UnixPath::new(&format!("@ringway-{}", std::process::id())).unwrap();
        let (socket, held) = listen(path, rights(0o600), 8).unwrap();
        assert!(held.is_none());
        let refused = listen(path, Rights::default(), 8).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AddrInUse);
        drop(socket);
        listen(path, Rights::default(), 8).unwrap();
    }
}
