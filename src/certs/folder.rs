//! The certificates of a folder: `NAME.pem` or `NAME.crt` with `NAME.key`, or both in one file.

use std::path::{Path, PathBuf};

use super::Files;

/// The files of a pair: the certificate, its key (the same file if both are in one), and an OCSP
/// response if there is one.
pub(crate) type Paths = (PathBuf, PathBuf, Option<PathBuf>);

/// The pairs of a folder, in the order of their names; `default` comes first. Hidden files, as
/// those that editors and orchestrators swap, are left out.
///
/// # Errors
/// Why it cannot be read.
pub(crate) fn pairs_in(files: &dyn Files, folder: &Path) -> Result<Vec<Paths>, String> {
    let names = files.names(folder)?;
    let has = |name: &str| names.binary_search_by(|other| other.as_str().cmp(name)).is_ok();
    let mut pairs = Vec::new();
    for name in names.iter().filter(|name| !name.starts_with('.')) {
        let Some(stem) = name.strip_suffix(".pem").or_else(|| name.strip_suffix(".crt")) else {
            continue;
        };
        if name.ends_with(".pem") && has(&format!("{stem}.crt")) {
            // NAME.crt with NAME.pem: the second is the key or the chain of the first.
            continue;
        }
        let beside = |ending: &str| {
            let name = format!("{stem}.{ending}");
            has(&name).then(|| folder.join(name))
        };
        let cert = folder.join(name);
        let key = beside("key").unwrap_or_else(|| cert.clone());
        pairs.push((stem == "default", (cert, key, beside("ocsp"))));
    }
    // A stable sort: the others keep their order.
    pairs.sort_by_key(|(is_default, _)| !is_default);
    Ok(pairs.into_iter().map(|(_, pair)| pair).collect())
}
