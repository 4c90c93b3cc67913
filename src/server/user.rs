//! The user that the process becomes when root starts it.
//!
//! It is done before anything is opened or bound: sockets that share an address belong to one user,
//! and what is opened as that user can be opened again. One capability is left, to bind ports below
//! 1024, and it is left to no program that the process starts. Folders for the admin socket and for
//! state are made as root and given away.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, chown},
    path::{Path, PathBuf},
};

use nix::unistd::{self, Group, User};
use rustix::{
    process::geteuid,
    thread::{CapabilitySet, CapabilitySets, set_capabilities, set_keep_capabilities},
};

use super::StartError;

/// Becomes this user; `folders` are made for it if their parents allow only root to. Nothing
/// happens if the process is that user's already.
///
/// # Errors
/// If there is no such user, or only root may become it.
pub(super) fn become_user(name: &str, folders: &[PathBuf]) -> Result<(), StartError> {
    let user = find(name)?;
    if geteuid().as_raw() == user.uid.as_raw() {
        return Ok(());
    }
    if !geteuid().is_root() {
        let cause = format!(
            "only root can become another user, and this process is user {}: start it as root, \
             or as \"{name}\", or leave `user` out",
            geteuid().as_raw()
        );
        return Err(StartError::User { user: name.to_owned(), cause });
    }
    // If a folder cannot be made the start goes on without it, as without root.
    folders.iter().for_each(|folder| drop(make(folder, &user)));
    drop_to(&user).map_err(StartError::system(format!("become the user \"{name}\"")))
}

/// Whether a plan names a user that this machine does not have.
///
/// # Errors
/// A sentence that says so.
pub(super) fn check(name: Option<&str>) -> Result<(), StartError> {
    name.map_or(Ok(()), |name| find(name).map(|_| ()))
}

fn find(name: &str) -> Result<User, StartError> {
    let refused = |cause: String| StartError::User { user: name.to_owned(), cause };
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Err(refused(format!(
            "this machine has no such user; make one: useradd --system --no-create-home {name}"
        ))),
        Err(error) => Err(refused(format!("it cannot be looked up: {error}"))),
    }
}

/// The user and the group of `USER:GROUP`, by name or number; either may be left out.
pub(super) fn ids(owner: &str) -> io::Result<(Option<u32>, Option<u32>)> {
    let (user, group) = owner.split_once(':').unwrap_or((owner, ""));
    let none = |what: &str, name: &str| io::Error::other(format!("there is no {what} \"{name}\""));
    let number = |text: &str| text.parse::<u32>().ok();
    let user = match (user, number(user)) {
        ("", _) => None,
        (_, Some(number)) => Some(number),
        (name, None) => {
            let known = User::from_name(name)?.ok_or_else(|| none("user", name))?;
            Some(known.uid.as_raw())
        }
    };
    let group = match (group, number(group)) {
        ("", _) => None,
        (_, Some(number)) => Some(number),
        (name, None) => {
            let known = Group::from_name(name)?.ok_or_else(|| none("group", name))?;
            Some(known.gid.as_raw())
        }
    };
    Ok((user, group))
}

/// Makes a folder for the user; one that is there stays as it is.
fn make(folder: &Path, user: &User) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(folder)?;
    chown(folder, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
}

/// Becomes the user, in all threads. Those that run already keep no capability, and those that come
/// have the one of this thread.
fn drop_to(user: &User) -> io::Result<()> {
    let name = std::ffi::CString::new(user.name.as_str())?;
    unistd::initgroups(&name, user.gid)?;
    unistd::setgid(user.gid)?;
    set_keep_capabilities(true)?;
    unistd::setuid(user.uid)?;
    let bind = CapabilitySet::NET_BIND_SERVICE;
    let none = CapabilitySet::empty();
    let left = CapabilitySets { effective: bind, permitted: bind, inheritable: none };
    // In a container root itself may lack it; then low ports are refused, as they were before.
    let left = set_capabilities(None, left).or_else(|_| {
        set_capabilities(None, CapabilitySets { effective: none, permitted: none, ..left })
    });
    set_keep_capabilities(false)?;
    Ok(left?)
}

/// The files among these that the user cannot read: a reload will not find them.
pub(super) fn unreadable(files: &[PathBuf]) -> Vec<String> {
    let is_unreadable = |file: &&PathBuf| fs::File::open(file).is_err();
    files.iter().filter(is_unreadable).map(|file| file.display().to_string()).collect()
}
