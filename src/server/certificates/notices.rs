//! Notices of the kernel that something in a folder has changed (inotify).
//!
//! Folders are watched, not files: a file is replaced by another of its name, and orchestrators
//! swap a link beside it. A notice says only that it is time to look; where there are none (a
//! network file system, no watches left) the regular look finds what has changed.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};

/// Bytes of notices that are read at once: 64 of the longest names.
const BUFFER_BYTES: usize = 64 * (16 + 256);

/// The watch on folders.
pub(super) struct Notices {
    inotify: OwnedFd,
}

impl Notices {
    /// A watch on nothing yet.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn new() -> io::Result<Notices> {
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Notices { inotify })
    }

    /// Watches these folders too. A folder that was replaced by another of its name is watched
    /// anew; one that is no longer needed costs a look at most.
    ///
    /// # Errors
    /// The kernel's for the first that it does not watch.
    pub(super) fn watch<'a>(&self, folders: impl Iterator<Item = &'a Path>) -> io::Result<()> {
        let what = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVE_SELF
            | WatchFlags::DELETE_SELF
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR;
        let mut refused = Ok(());
        for folder in folders {
            let watched = add_watch(&self.inotify, folder, what);
            refused = refused.and(watched.map(|_| ()));
        }
        Ok(refused?)
    }

    /// Reads all notices; returns whether there was one.
    pub(super) fn drain(&self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut notices = Reader::new(&self.inotify, &mut buffer);
        let mut any = false;
        while notices.next().is_ok() {
            any = true;
        }
        any
    }
}

impl AsFd for Notices {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}
