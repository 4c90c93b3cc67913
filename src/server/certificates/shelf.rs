//! The certificates that are held: read once, read again when their files change.
//!
//! A file that cannot be used changes nothing: what was read from it before stays in use, and that
//! is said once. Nothing here waits or watches.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    SignatureAlgorithm, client::danger::ServerCertVerifier, pki_types::CertificateDer,
    server::danger::ClientCertVerifier,
};

use super::{Wanted, held::Held};
use crate::base::moment::UnixSeconds;
use crate::certs::{self, Files, Finding, Pair, Part, Stamp, TrustPart};
use crate::observe::event::{Certificate, Event};
use crate::plan::{
    CertificateFiles, ClientAuth, ClientAuthMode, ListenerTls, PoolTls, UnknownName,
};
use crate::shared::certs::{Certs, ListenerCerts, PoolCerts, Store, StoreEntry};

/// Days before the end of a certificate on which that is said.
const DAYS_TOLD: [i64; 4] = [30, 7, 1, 0];

/// A file is said to be broken when it was so at this many looks: a writer may be in the middle.
const LOOKS_UNTIL_TOLD: u32 = 2;

/// What was read from a few files, and whether they can be used now.
struct Kept<T> {
    /// None: it could never be used.
    value: Option<T>,
    stamps: Vec<Option<Stamp>>,
    since: UnixSeconds,
    failing: Option<Failing>,
}

struct Failing {
    why: String,
    looks: u32,
}

/// What decides about certificates of backends: by the file of the authorities, and whether it
/// decides at all.
pub(super) type Servers = (Option<PathBuf>, bool);

/// What decides about certificates of clients.
#[derive(Clone)]
struct Clients {
    verifier: Arc<dyn ClientCertVerifier>,
    /// When a list of revoked certificates should have been replaced.
    next_update: Option<UnixSeconds>,
}

/// All that is held.
#[derive(Default)]
pub(super) struct Shelf {
    pairs: HashMap<CertificateFiles, Kept<Pair>>,
    clients: HashMap<ClientAuth, Kept<Clients>>,
    servers: HashMap<Servers, Kept<Arc<dyn ServerCertVerifier>>>,
    folders: HashMap<PathBuf, Vec<CertificateFiles>>,
    /// The authorities of the system, once they are needed.
    system: Option<Vec<CertificateDer<'static>>>,
    /// Of each certificate, its end and the last number of days that was said.
    told: HashMap<CertificateFiles, (UnixSeconds, i64)>,
    /// The lists that were said to be out of date, and when they should have been replaced.
    stale: HashMap<PathBuf, UnixSeconds>,
}

/// The result of a look.
#[derive(Default)]
pub(super) struct Seen {
    /// Something else is in use from now on.
    pub(super) changed: bool,
    /// Some file cannot be used, and it was not said yet.
    pub(super) doubtful: bool,
    pub(super) events: Vec<Event>,
}

impl Shelf {
    /// Reads what is wanted and not held yet.
    ///
    /// # Errors
    /// What cannot be used, in one sentence.
    pub(super) fn load(
        &mut self,
        wanted: &Wanted,
        files: &dyn Files,
        now: UnixSeconds,
    ) -> Result<Certs, String> {
        for folder in wanted.folders() {
            let pairs = in_folder(files, folder)?;
            self.folders.insert(folder.to_owned(), pairs);
        }
        for pair in self.pairs_of(wanted) {
            let stamps = stamps(files, &pair);
            load(&mut self.pairs, &pair, (stamps, now), |held| read(files, &pair, (held, now)))?;
        }
        for auth in wanted.client_auths() {
            let stamps = client_stamps(files, auth);
            load(&mut self.clients, auth, (stamps, now), |_| clients(files, auth, now))?;
        }
        for key in wanted.servers() {
            let stamps = server_stamps(files, &key);
            let system = &mut self.system;
            load(&mut self.servers, &key, (stamps, now), |_| servers(files, &key, system, now))?;
        }
        self.certs(wanted, now)
    }

    /// Looks whether files have changed, and reads those that have.
    pub(super) fn look(&mut self, wanted: &Wanted, files: &dyn Files, now: UnixSeconds) -> Seen {
        let mut seen = Seen::default();
        for folder in wanted.folders() {
            // A folder that is empty for a moment is being swapped.
            let Ok(pairs) = in_folder(files, folder) else { continue };
            let held = self.folders.entry(folder.to_owned()).or_default();
            if !pairs.is_empty() && *held != pairs {
                seen.changed = true;
                *held = pairs;
            }
        }
        for pair in self.pairs_of(wanted) {
            let kept = self.pairs.entry(pair.clone()).or_insert_with(|| Kept::empty(now));
            let stamps = stamps(files, &pair);
            let turn = kept.refresh(stamps, now, |held| read(files, &pair, (held, now)));
            let file = || pair.cert.clone();
            if turn == Turn::Replaced
                && let Some(it) = &kept.value
            {
                seen.events.push(Event::CertificateReplaced(certificate(file(), it)));
            }
            seen.note(turn, file, &kept.failing);
        }
        for auth in wanted.client_auths() {
            let kept = self.clients.entry(auth.clone()).or_insert_with(|| Kept::empty(now));
            let stamps = client_stamps(files, auth);
            let turn = kept.refresh(stamps, now, |_| clients(files, auth, now));
            seen.note(turn, || auth.ca.clone(), &kept.failing);
        }
        for key in wanted.servers() {
            let kept = self.servers.entry(key.clone()).or_insert_with(|| Kept::empty(now));
            let (stamps, system) = (server_stamps(files, &key), &mut self.system);
            let turn = kept.refresh(stamps, now, |_| servers(files, &key, system, now));
            seen.note(turn, || key.0.clone().unwrap_or_default(), &kept.failing);
        }
        seen.events.extend(self.ends(wanted, now));
        seen.events.extend(self.stale(wanted, now));
        seen
    }

    /// Drops what is no longer wanted.
    pub(super) fn keep_only(&mut self, wanted: &Wanted) {
        let folders: HashSet<&Path> = wanted.folders().collect();
        self.folders.retain(|folder, _| folders.contains(folder.as_path()));
        let pairs: HashSet<CertificateFiles> = self.pairs_of(wanted).into_iter().collect();
        self.pairs.retain(|files, _| pairs.contains(files));
        self.told.retain(|files, _| pairs.contains(files));
        let auths: HashSet<&ClientAuth> = wanted.client_auths().collect();
        self.clients.retain(|auth, _| auths.contains(auth));
        let servers: HashSet<Servers> = wanted.servers().collect();
        self.servers.retain(|key, _| servers.contains(key));
    }

    /// What cores are given of it.
    ///
    /// # Errors
    /// If there is nothing of what a listener or a pool needs.
    pub(super) fn certs(&self, wanted: &Wanted, now: UnixSeconds) -> Result<Certs, String> {
        let mut certs = Certs::default();
        for (id, (name, tls)) in &wanted.listeners {
            let clients = match &tls.client_auth {
                Some(auth) => Some(held(&self.clients, auth)?.verifier),
                None => None,
            };
            let store = self.store(tls, now);
            let none = || format!("listener \"{name}\" has no certificate that can be used");
            certs.listeners.insert(id, ListenerCerts { store: store.ok_or_else(none)?, clients });
        }
        for (id, (_, tls)) in &wanted.pools {
            let backends = held(&self.servers, &servers_of(tls))?;
            let identity = match &tls.identity {
                Some(files) => Some(held(&self.pairs, files)?.certified),
                None => None,
            };
            certs.pools.insert(id, PoolCerts { backends, identity });
        }
        Ok(certs)
    }

    /// The certificates of a listener by name; none if there is none.
    fn store(&self, tls: &ListenerTls, now: UnixSeconds) -> Option<Arc<Store>> {
        let all = self.files_of(tls);
        let pairs = all.iter().filter_map(|files| self.pairs.get(*files)?.value.as_ref());
        let entry = |pair: &Pair| StoreEntry {
            names: pair.facts.names.clone(),
            certified: Arc::clone(&pair.certified),
        };
        let mut pairs: Vec<&Pair> = pairs.collect();
        let default = entry(pairs.first()?);
        // A key of few bits first, then what clients accept, then what lasts.
        pairs.sort_by_key(|pair| {
            let is_rsa = pair.certified.key.algorithm() == SignatureAlgorithm::RSA;
            let facts = &pair.facts;
            (is_rsa, !facts.is_current(now), std::cmp::Reverse(facts.not_after))
        });
        let entries: Vec<StoreEntry> = pairs.into_iter().map(entry).collect();
        let refuses = tls.unknown_name == UnknownName::Refuse;
        Some(Arc::new(Store::with_default(&default, &entries, refuses)))
    }

    /// The certificates that are in use, as people see them.
    pub(super) fn held(&self, wanted: &Wanted) -> Vec<Held> {
        let mut users: HashMap<&CertificateFiles, Vec<Arc<str>>> = HashMap::new();
        let mut order = Vec::new();
        let of_listeners = wanted.listeners.values().flat_map(|(name, tls)| {
            self.files_of(tls).into_iter().map(move |files| (files, format!("listener {name}")))
        });
        let of_pools = wanted
            .pools
            .values()
            .filter_map(|(name, tls)| Some((tls.identity.as_ref()?, format!("pool {name}"))));
        for (files, user) in of_listeners.chain(of_pools) {
            let users = users.entry(files).or_default();
            if users.is_empty() {
                order.push(files);
            }
            users.push(Arc::from(user));
        }
        let held = |files: &CertificateFiles| {
            let kept = self.pairs.get(files)?;
            let (file, used_by) = (files.cert.clone(), users.remove(files).unwrap_or_default());
            let problem = kept.failing.as_ref().map(|failing| failing.why.clone());
            let facts = kept.value.as_ref().map(|pair| Arc::clone(&pair.facts));
            Some(Held { file, key: files.key.clone(), facts, since: kept.since, used_by, problem })
        };
        order.into_iter().filter_map(held).collect()
    }

    /// What should be said about certificates that end soon.
    fn ends(&mut self, wanted: &Wanted, now: UnixSeconds) -> Vec<Event> {
        let mut events = Vec::new();
        for files in self.pairs_of(wanted) {
            let Some(pair) = self.pairs.get(&files).and_then(|kept| kept.value.as_ref()) else {
                continue;
            };
            let facts = &pair.facts;
            let left = facts.days_left(now);
            // Of one that is made for a week, a month before its end means nothing.
            let half = facts.lifetime_days() / 2;
            let due = DAYS_TOLD.into_iter().filter(|days| left <= *days && *days <= half).min();
            let due = if left < 0 { Some(-1) } else { due };
            let (end, said) = self.told.entry(files.clone()).or_insert((facts.not_after, i64::MAX));
            if *end != facts.not_after {
                (*end, *said) = (facts.not_after, i64::MAX);
            }
            let Some(due) = due.filter(|due| due < said) else { continue };
            *said = due;
            let certificate = certificate(files.cert, pair);
            events.push(match due {
                -1 => Event::CertificateExpired(certificate),
                _ => Event::CertificateExpires { certificate, days: left.max(0).unsigned_abs() },
            });
        }
        events
    }

    /// Lists of revoked certificates that are out of date; each is said once.
    fn stale(&mut self, wanted: &Wanted, now: UnixSeconds) -> Vec<Event> {
        let mut events = Vec::new();
        for auth in wanted.client_auths() {
            let held = self.clients.get(auth).and_then(|kept| kept.value.as_ref());
            let next = held.and_then(|clients| clients.next_update).filter(|next| *next < now);
            if let (Some(crl), Some(next)) = (&auth.crl, next)
                && self.stale.insert(crl.clone(), next) != Some(next)
            {
                events.push(Event::RevocationsStale { file: crl.clone() });
            }
        }
        events
    }

    /// The files of all certificates that are wanted, each once.
    fn pairs_of(&self, wanted: &Wanted) -> Vec<CertificateFiles> {
        let of_listeners = wanted.listeners.values().flat_map(|(_, tls)| self.files_of(tls));
        let of_pools = wanted.pools.values().filter_map(|(_, tls)| tls.identity.as_ref());
        let mut seen = HashSet::new();
        of_listeners.chain(of_pools).filter(|files| seen.insert(*files)).cloned().collect()
    }

    /// The folders in which something of what is wanted may change.
    pub(super) fn folders_of(&self, wanted: &Wanted) -> HashSet<PathBuf> {
        let mut folders: HashSet<PathBuf> = wanted.folders().map(Path::to_owned).collect();
        let mut add = |path: &Path| {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            folders.insert(folder.unwrap_or(Path::new(".")).to_owned());
        };
        for files in self.pairs_of(wanted) {
            [Some(&files.cert), Some(&files.key), files.ocsp.as_ref()]
                .into_iter()
                .flatten()
                .for_each(|path| add(path));
        }
        for auth in wanted.client_auths() {
            add(&auth.ca);
            auth.crl.iter().for_each(|crl| add(crl));
        }
        wanted.servers().filter_map(|(ca, _)| ca).for_each(|ca| add(&ca));
        folders
    }

    /// The files of a listener's certificates, the default first.
    fn files_of<'a>(&'a self, tls: &'a ListenerTls) -> Vec<&'a CertificateFiles> {
        let folder = tls.directory.as_ref().and_then(|folder| self.folders.get(folder));
        tls.certificates.iter().chain(folder.into_iter().flatten()).collect()
    }
}

impl Seen {
    fn note(&mut self, turn: Turn, file: impl Fn() -> PathBuf, failing: &Option<Failing>) {
        match (turn, failing) {
            (Turn::Same, _) => {}
            (Turn::Replaced, _) => self.changed = true,
            (Turn::Failing, Some(failing)) if failing.looks < LOOKS_UNTIL_TOLD => {
                self.doubtful = true;
            }
            (Turn::Failing, Some(failing)) if failing.looks == LOOKS_UNTIL_TOLD => {
                let cause = Arc::from(failing.why.as_str());
                self.events.push(Event::CertificateRefused { file: file(), cause });
            }
            (Turn::Failing, _) => {}
        }
    }
}

/// What became of something held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Same,
    Replaced,
    Failing,
}

impl<T> Kept<T> {
    fn empty(now: UnixSeconds) -> Kept<T> {
        Kept { value: None, stamps: Vec::new(), since: now, failing: None }
    }

    /// Reads it again if its files are others than those it was read from. What it is now is shown
    /// to the reader, which may insist on it.
    fn refresh(
        &mut self,
        stamps: Vec<Option<Stamp>>,
        now: UnixSeconds,
        read: impl FnOnce(Option<&T>) -> Result<T, String>,
    ) -> Turn {
        if self.value.is_some() && stamps == self.stamps {
            self.failing = None;
            return Turn::Same;
        }
        match read(self.value.as_ref()) {
            Ok(value) => {
                (self.value, self.stamps, self.since) = (Some(value), stamps, now);
                self.failing = None;
                Turn::Replaced
            }
            Err(why) => {
                let looks = self.failing.as_ref().map_or(0, |failing| failing.looks);
                self.failing = Some(Failing { why, looks: looks.saturating_add(1) });
                Turn::Failing
            }
        }
    }
}

/// Reads what is not held yet, or holds nothing; a value that is held stays.
fn load<K: Hash + Eq + Clone, T>(
    held: &mut HashMap<K, Kept<T>>,
    key: &K,
    (stamps, now): (Vec<Option<Stamp>>, UnixSeconds),
    read: impl FnOnce(Option<&T>) -> Result<T, String>,
) -> Result<(), String> {
    let kept = held.entry(key.clone()).or_insert_with(|| Kept::empty(now));
    match kept.refresh(stamps, now, read) {
        Turn::Failing if kept.value.is_none() => {
            Err(kept.failing.as_ref().map(|failing| failing.why.clone()).unwrap_or_default())
        }
        Turn::Failing | Turn::Same | Turn::Replaced => Ok(()),
    }
}

fn held<K: Hash + Eq, T: Clone>(held: &HashMap<K, Kept<T>>, key: &K) -> Result<T, String> {
    let found = held.get(key).and_then(|kept| kept.value.clone());
    found.ok_or_else(|| "a certificate is not there any more".to_owned())
}

/// The pairs of a folder.
fn in_folder(files: &dyn Files, folder: &Path) -> Result<Vec<CertificateFiles>, String> {
    let pairs = certs::pairs_in(files, folder)
        .map_err(|why| format!("{} cannot be read: {why}", folder.display()))?;
    let pair = |(cert, key, ocsp)| {
        let mut files = CertificateFiles::new(cert, key);
        files.ocsp = ocsp;
        files
    };
    Ok(pairs.into_iter().map(pair).collect())
}

/// The state of the files of a pair.
fn stamps(files: &dyn Files, pair: &CertificateFiles) -> Vec<Option<Stamp>> {
    let paths = [Some(&pair.cert), Some(&pair.key), pair.ocsp.as_ref()];
    paths.into_iter().map(|path| files.stamp(path?)).collect()
}

/// Reads a pair. One that clients refuse for its times does not replace one that they accept.
fn read(
    files: &dyn Files,
    pair: &CertificateFiles,
    (held, now): (Option<&Pair>, UnixSeconds),
) -> Result<Pair, String> {
    let read = certs::read(files, &pair.cert, &pair.key, pair.ocsp.as_deref());
    let fresh = read.map_err(|(part, finding)| {
        let path = match part {
            Part::Cert => &pair.cert,
            Part::Key => &pair.key,
            Part::Ocsp => pair.ocsp.as_ref().unwrap_or(&pair.cert),
        };
        said(path, &finding)
    })?;
    let is_worse =
        held.is_some_and(|held| held.facts.is_current(now)) && !fresh.facts.is_current(now);
    match fresh.facts.about_times(now).filter(|_| is_worse) {
        Some(finding) => Err(said(&pair.cert, &finding)),
        None => Ok(fresh),
    }
}

fn said(path: &Path, finding: &Finding) -> String {
    format!("{} {finding}", path.display())
}

fn client_stamps(files: &dyn Files, auth: &ClientAuth) -> Vec<Option<Stamp>> {
    vec![files.stamp(&auth.ca), auth.crl.as_ref().and_then(|crl| files.stamp(crl))]
}

fn clients(files: &dyn Files, auth: &ClientAuth, now: UnixSeconds) -> Result<Clients, String> {
    let crl = auth.crl.as_ref().map(|crl| bytes(files, crl)).transpose()?;
    let is_required = auth.mode == ClientAuthMode::Required;
    let how = (is_required, auth.depth);
    let read = certs::clients(&bytes(files, &auth.ca)?, crl.as_deref(), how, now);
    let next_update = crl.as_deref().and_then(certs::next_update);
    let clients = |(verifier, _)| Clients { verifier, next_update };
    read.map(clients).map_err(|(part, finding)| match part {
        TrustPart::Ca => said(&auth.ca, &finding),
        TrustPart::Crl => said(auth.crl.as_ref().unwrap_or(&auth.ca), &finding),
    })
}

fn server_stamps(files: &dyn Files, (ca, _): &Servers) -> Vec<Option<Stamp>> {
    ca.iter().map(|ca| files.stamp(ca)).collect()
}

fn servers(
    files: &dyn Files,
    (ca, verifies): &Servers,
    system: &mut Option<Vec<CertificateDer<'static>>>,
    now: UnixSeconds,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    if !verifies {
        return Ok(certs::unverified());
    }
    let (file, path) = match ca {
        Some(ca) => (Some(bytes(files, ca)?), ca.as_path()),
        None => (None, Path::new("the folder of certificates of this system")),
    };
    let system: &[CertificateDer<'static>] = match ca {
        Some(_) => &[],
        None => system.get_or_insert_with(|| rustls_native_certs::load_native_certs().certs),
    };
    let read = certs::servers(file.as_deref(), system, now);
    read.map(|(verifier, _)| verifier).map_err(|(_, finding)| said(path, &finding))
}

fn bytes(files: &dyn Files, path: &Path) -> Result<Vec<u8>, String> {
    files.bytes(path).map_err(|why| format!("{} cannot be read: {why}", path.display()))
}

/// What decides about the backends of a pool.
pub(super) fn servers_of(tls: &PoolTls) -> Servers {
    (tls.ca.clone().filter(|_| tls.verify), tls.verify)
}

fn certificate(file: PathBuf, pair: &Pair) -> Certificate {
    Certificate::new(file, pair.facts.names.clone(), &pair.facts.last_day())
}
