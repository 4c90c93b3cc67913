//! A certificate for trying HTTPS: signed by itself, made once and kept.
//!
//! No client trusts it unasked. It is kept so that an exception made in a browser lasts, and made
//! anew when it is about to end or another name is asked for.

use std::{
    fs,
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};

use super::secrets::state_directories;
use crate::base::{calendar, moment::UnixSeconds};
use crate::certs;
use crate::config::{Lookup as _, Machine};

const FILE: &str = "self-signed.pem";

const DAY_SECONDS: u64 = 24 * 3600;
const LIFETIME_DAYS: u64 = 90;

/// The file of a certificate for what listens at this address, with its key.
///
/// # Errors
/// Why it cannot be kept anywhere, in one sentence.
pub(crate) fn self_signed(listening: Option<IpAddr>) -> Result<PathBuf, String> {
    let mut names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    names.extend(listening.filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string()));
    let mut refusals = Vec::new();
    for folder in state_directories() {
        match kept(&folder, &names, Machine.now()) {
            Ok(file) => return Ok(file),
            Err(error) => refusals.push(format!("{}: {error}", folder.join(FILE).display())),
        }
    }
    Err(format!("a self-signed certificate cannot be kept: {}", refusals.join("; ")))
}

fn kept(folder: &Path, names: &[String], now: UnixSeconds) -> io::Result<PathBuf> {
    let path = folder.join(FILE);
    if !is_good(&path, names, now) {
        let text = made(names, now).map_err(io::Error::other)?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let beside = folder.join(format!(".{FILE}.{}", std::process::id()));
        let _ = fs::remove_file(&beside);
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&beside, &path)?;
    }
    Ok(path)
}

/// Whether what is there is for these names, and lasts.
fn is_good(path: &Path, names: &[String], now: UnixSeconds) -> bool {
    let Ok(pair) = certs::read(&Machine, path, path, None) else { return false };
    let has = |name: &String| pair.facts.names.iter().any(|known| **known == **name);
    names.iter().all(has) && pair.facts.days_left(now) > 1
}

/// Certificate and key in PEM.
fn made(names: &[String], now: UnixSeconds) -> Result<String, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "Ringway, signed by itself");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let date = |day: u64| {
        let (year, month, day) = calendar::civil(day);
        let year = i32::try_from(year).unwrap_or(i32::MAX);
        date_time_ymd(year, u8::try_from(month).unwrap_or(1), u8::try_from(day).unwrap_or(1))
    };
    let today = now.0 / DAY_SECONDS;
    // Clocks differ.
    params.not_before = date(today.saturating_sub(1));
    params.not_after = date(today + LIFETIME_DAYS);
    let cert = params.self_signed(&key)?;
    Ok(format!("{}{}", cert.pem(), key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn it_is_kept_while_it_is_good_and_only_its_owner_reads_it() {
        let folder = format!("ringway-self-signed-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let now = Machine.now();
        let path = kept(&folder, &names(&["localhost", "127.0.0.1"]), now).unwrap();
        let first = fs::read(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let pair = certs::read(&Machine, &path, &path, None).unwrap();
        assert_eq!(pair.findings(now).count(), 0);
        assert_eq!(pair.facts.days_left(now), 89);
        kept(&folder, &names(&["localhost"]), now).unwrap();
        assert!(fs::read(&path).unwrap() == first, "it was made anew");
        kept(&folder, &names(&["other.test"]), now).unwrap();
        let second = fs::read(&path).unwrap();
        assert!(second != first, "another name is asked for");
        let later = UnixSeconds(now.0 + 89 * DAY_SECONDS);
        kept(&folder, &names(&["other.test"]), later).unwrap();
        assert!(fs::read(&path).unwrap() != second, "it is about to end");
        fs::remove_dir_all(folder).unwrap();
    }
}
