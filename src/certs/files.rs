//! Files, as far as certificates need them.

use std::path::Path;

/// Most bytes of one file of certificates, keys or revocations: a list of revoked certificates may
/// be long, a log file by accident is longer.
pub(crate) const FILE_BYTES_MAX: u64 = 64 << 20;

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Stamp {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) bytes: u64,
    /// When its content was changed, in nanoseconds since 1970.
    pub(crate) modified: i128,
    /// When anything of it was changed.
    pub(crate) changed: i128,
}

/// The source of files.
pub(crate) trait Files {
    /// The bytes of a file, or why it cannot be read.
    fn bytes(&self, path: &Path) -> Result<Vec<u8>, String>;
    /// The names in a folder, sorted, or why it cannot be read.
    fn names(&self, folder: &Path) -> Result<Vec<String>, String>;
    /// The state of the file that a path leads to; none if there is none.
    fn stamp(&self, path: &Path) -> Option<Stamp>;
}
