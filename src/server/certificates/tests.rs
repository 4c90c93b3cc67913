//! Files that are replaced, swapped, half written and broken, as the thread sees them.
//!
//! The files are real, in a folder of the test's own; waits end as soon as what they wait for is
//! there, and fail only after a long time.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use super::{
    shelf::{Seen, Shelf},
    *,
};
use crate::base::moment::UnixSeconds;
use crate::certs::sample::{Authority, Kind, Sample, own};
use crate::observe::reports::{self, Report, ToHub};

/// The longest wait for something that takes two seconds on a machine with time.
const LONG: Duration = Duration::from_secs(30);

struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("ringway-certs-{process}-{count}"));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Replaces a file as careful programs do.
    fn put(&self, name: &str, text: &str) {
        let new = self.path(&format!("{name}.new"));
        fs::write(&new, text).unwrap();
        fs::rename(new, self.path(name)).unwrap();
    }

    fn pair(&self, stem: &str, sample: &Sample) {
        self.put(&format!("{stem}.key"), &sample.key);
        self.put(&format!("{stem}.pem"), &sample.cert);
    }

    /// A plan whose listener has this `tls`, in which `~` is the folder.
    fn plan(&self, tls: &str) -> Plan {
        crate::config::open_doors();
        let text = format!(
            "[listener.web]\nbind = \"127.0.0.1:0\"\npool = \"app\"\ntls = {tls}\n\
             [pool.app]\nbackends = [\"127.0.0.1:9\"]\n"
        );
        let text = text.replace('~', &self.0.to_string_lossy());
        let loaded = crate::config::parse("certs.toml", &text);
        loaded.unwrap_or_else(|wrong| panic!("{wrong}")).plan.into_plan()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The thread, with the ends of all that it says.
struct Stage {
    certificates: Certificates,
    renewed: Receiver<Fresh>,
    told: Receiver<ToHub>,
}

impl Stage {
    fn of(plan: &Plan) -> (Stage, Fresh) {
        let (reporter, told) = reports::channel();
        let death = Death::new(false, &reporter);
        let (mut certificates, renewed) = Certificates::new(death, reporter);
        let fresh = certificates.read(plan).unwrap();
        certificates.keep(&fresh);
        (Stage { certificates, renewed, told }, fresh)
    }

    fn next(&self) -> Fresh {
        self.renewed.recv_timeout(LONG).unwrap()
    }

    fn next_event(&self) -> Event {
        loop {
            match self.told.recv_timeout(LONG).unwrap() {
                ToHub::Report(Report::Event(event)) => return *event,
                _ => continue,
            }
        }
    }
}

/// The names of what is in use.
fn names(fresh: &Fresh) -> Vec<String> {
    let named = fresh.held.iter().map(|held| held.json(UnixSeconds(0)));
    named.map(|json| json["names"][0].as_str().unwrap_or("-").to_owned()).collect()
}

fn sample(name: &str) -> Sample {
    own(&[name], Kind::Ecdsa, 2100)
}

#[test]
fn a_file_that_is_replaced_is_taken_up_and_that_is_said() {
    let folder = Folder::new();
    folder.pair("a", &sample("one.example"));
    let plan = folder.plan("{ certificates = [{ cert = \"~/a.pem\", key = \"~/a.key\" }] }");
    let (stage, fresh) = Stage::of(&plan);
    assert_eq!(names(&fresh), ["one.example"]);
    assert_eq!(fresh.certs.listeners.len(), 1);
    folder.pair("a", &sample("two.example"));
    let next = stage.next();
    assert_eq!((names(&next), next.number), (vec!["two.example".to_owned()], fresh.number));
    let Event::CertificateReplaced(it) = stage.next_event() else { panic!("another event") };
    assert_eq!((it.file, &*it.names[0]), (folder.path("a.pem"), "two.example"));
}

/// Kubernetes mounts a secret as links to a folder behind one link, which is renamed.
#[test]
fn a_link_that_is_swapped_is_taken_up() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new();
    let version = |number: u32, name: &str| {
        let (inside, it) = (folder.path(&format!("..v{number}")), sample(name));
        fs::create_dir(&inside).unwrap();
        fs::write(inside.join("tls.crt"), it.cert).unwrap();
        fs::write(inside.join("tls.key"), it.key).unwrap();
        symlink(format!("..v{number}"), folder.path("..data_tmp")).unwrap();
        fs::rename(folder.path("..data_tmp"), folder.path("..data")).unwrap();
    };
    version(1, "one.example");
    symlink("..data/tls.crt", folder.path("tls.crt")).unwrap();
    symlink("..data/tls.key", folder.path("tls.key")).unwrap();
    for tls in [
        "{ certificates = [{ cert = \"~/tls.crt\", key = \"~/tls.key\" }] }",
        "{ directory = \"~\" }",
    ] {
        let (stage, fresh) = Stage::of(&folder.plan(tls));
        let before = names(&fresh);
        let (number, name) = if before == ["one.example"] { (2, "two") } else { (3, "three") };
        version(number, &format!("{name}.example"));
        fs::remove_dir_all(folder.path(&format!("..v{}", number - 1))).unwrap();
        assert_eq!(names(&stage.next()), [format!("{name}.example")], "{tls}");
    }
}

#[test]
fn a_file_that_cannot_be_used_keeps_what_there_is_and_is_said_once() {
    let folder = Folder::new();
    let one = sample("one.example");
    folder.pair("a", &one);
    let plan = folder.plan("{ certificates = [{ cert = \"~/a.pem\", key = \"~/a.key\" }] }");
    let (stage, _) = Stage::of(&plan);
    let half = &one.cert[..one.cert.len() / 2];
    fs::write(folder.path("a.pem"), half).unwrap();
    let refused = stage.next();
    assert_eq!(names(&refused), ["one.example"]);
    assert!(refused.held[0].problem.is_some());
    let Event::CertificateRefused { file, cause } = stage.next_event() else { panic!("another") };
    assert_eq!(file, folder.path("a.pem"));
    assert!(cause.contains("ends in the middle of a section"), "{cause}");
    // The key of another comes first, and does not fit; its certificate follows at once.
    folder.pair("a", &sample("two.example"));
    let good = stage.next();
    assert_eq!(names(&good), ["two.example"]);
    assert!(good.held[0].problem.is_none());
    let Event::CertificateReplaced(_) = stage.next_event() else { panic!("another") };
}

#[test]
fn an_expired_certificate_replaces_none_that_is_valid_and_is_said_once() {
    let folder = Folder::new();
    let old = |name| own(&[name], Kind::Ecdsa, 2021);
    folder.pair("a", &sample("one.example"));
    folder.pair("b", &old("old.example"));
    let plan = folder.plan(
        "{ certificates = [{ cert = \"~/a.pem\", key = \"~/a.key\" }, \
         { cert = \"~/b.pem\", key = \"~/b.key\" }] }",
    );
    let (mut stage, fresh) = Stage::of(&plan);
    assert_eq!(names(&fresh), ["one.example", "old.example"], "a start takes what there is");
    assert!(matches!(stage.next_event(), Event::CertificateExpired(_)));
    // One that is no good either is no worse.
    folder.pair("b", &old("older.example"));
    let Event::CertificateReplaced(it) = stage.next_event() else { panic!("another event") };
    assert_eq!(it.file, folder.path("b.pem"));
    folder.pair("a", &old("two.example"));
    let Event::CertificateRefused { file, cause } = stage.next_event() else { panic!("another") };
    assert_eq!(file, folder.path("a.pem"));
    assert!(cause.contains("a.pem has expired on 2021-12-31"), "{cause}");
    // Events come before what they are about.
    let said = || std::iter::repeat_with(|| stage.next()).find(|it| it.held[0].problem.is_some());
    assert_eq!(names(&said().unwrap()), ["one.example", "older.example"]);
    // Neither does another plan take it up.
    let again = stage.certificates.read(&plan).unwrap();
    assert_eq!(names(&again), ["one.example", "older.example"]);
    stage.certificates.keep(&again);
    folder.pair("a", &sample("three.example"));
    let Event::CertificateReplaced(_) = stage.next_event() else { panic!("another event") };
    let mended = std::iter::repeat_with(|| stage.next()).find(|it| it.held[0].problem.is_none());
    assert_eq!(names(&mended.unwrap()), ["three.example", "older.example"]);
}

#[test]
fn a_folder_gives_what_is_in_it_and_is_not_empty_for_a_moment() {
    let folder = Folder::new();
    folder.pair("a", &sample("a.example"));
    let (stage, fresh) = Stage::of(&folder.plan("{ directory = \"~\" }"));
    assert_eq!(names(&fresh), ["a.example"]);
    folder.pair("b", &sample("b.example"));
    assert_eq!(names(&stage.next()), ["a.example", "b.example"]);
    fs::remove_file(folder.path("a.pem")).unwrap();
    assert_eq!(names(&stage.next()), ["b.example"]);
    fs::remove_file(folder.path("b.pem")).unwrap();
    // Nothing is given up: what is said is that its file cannot be read.
    let refused = stage.next();
    assert_eq!(names(&refused), ["b.example"]);
    assert!(refused.held[0].problem.is_some());
}

#[test]
fn a_plan_with_a_certificate_that_cannot_be_used_is_refused_and_nothing_is_started_for_none() {
    let folder = Folder::new();
    folder.pair("a", &sample("a.example"));
    let plan = folder.plan("{ certificates = [{ cert = \"~/a.pem\", key = \"~/a.key\" }] }");
    let (mut stage, _) = Stage::of(&plan);
    let other = Folder::new();
    other.pair("b", &sample("b.example"));
    let broken = other.plan("{ directory = \"~\" }");
    fs::write(other.path("b.key"), "").unwrap();
    let why = stage.certificates.read(&broken).err().unwrap().to_string();
    assert!(why.contains("b.key has no private key"), "{why}");
    // What is in force is still watched.
    folder.pair("a", &sample("two.example"));
    assert_eq!(names(&stage.next()), ["two.example"]);
    assert_eq!(stage.certificates.end(), None);

    let text = "[listener.web]\nbind = \"127.0.0.1:0\"\npool = \"app\"\n\
                [pool.app]\nbackends = [\"127.0.0.1:9\"]\n";
    let plain = crate::config::parse("plain.toml", text).unwrap().plan.into_plan();
    let (stage, fresh) = Stage::of(&plain);
    assert!(stage.certificates.thread.is_none() && fresh.held.is_empty());
}

/// A file system whose time is the test's.
struct Fixed(Sample);

impl Files for Fixed {
    fn bytes(&self, path: &Path) -> Result<Vec<u8>, String> {
        let is_key = path.extension().is_some_and(|it| it == "key");
        Ok(if is_key { self.0.key.clone() } else { self.0.cert.clone() }.into_bytes())
    }

    fn names(&self, _: &Path) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }

    fn stamp(&self, _: &Path) -> Option<crate::certs::Stamp> {
        None
    }
}

#[test]
fn the_end_of_a_certificate_is_said_thirty_seven_and_one_days_before() {
    const DAY: u64 = 24 * 3600;
    // 2100-12-31, the end of the sample.
    let end = UnixSeconds(4_133_894_400);
    let files = Fixed(sample("a.example"));
    let mut wanted = Wanted::default();
    let tls = ListenerTls {
        certificates: vec![crate::plan::CertificateFiles::new("a.pem".into(), "a.key".into())],
        ..ListenerTls::default()
    };
    wanted.listeners.insert(ListenerId(0), (Arc::from("web"), tls));
    let mut shelf = Shelf::default();
    let start = UnixSeconds(end.0 - 100 * DAY);
    shelf.load(&wanted, &files, start).unwrap();
    let mut said = Vec::new();
    for hours in 0..=(101 * 24) {
        let now = UnixSeconds(start.0 + hours * 3600 + 1);
        let Seen { events, .. } = shelf.look(&wanted, &files, now);
        let day = (i64::try_from(end.0).unwrap() - i64::try_from(now.0).unwrap()) / DAY as i64;
        said.extend(events.into_iter().map(|event| (event.word(), day)));
    }
    let expected = [
        ("certificate_expires", 30),
        ("certificate_expires", 7),
        ("certificate_expires", 1),
        ("certificate_expires", 0),
        ("certificate_expired", 0),
    ];
    assert_eq!(said, expected);
}

#[test]
fn a_list_of_revoked_certificates_that_is_out_of_date_is_said_once() {
    let folder = Folder::new();
    folder.pair("a", &sample("a.example"));
    let root = Authority::root("root");
    folder.put("ca.pem", &root.pem());
    folder.put("crl.pem", &root.revokes(7, 2021));
    let plan = folder.plan(
        "{ certificates = [{ cert = \"~/a.pem\", key = \"~/a.key\" }], \
         client-auth = { ca = \"~/ca.pem\", crl = \"~/crl.pem\" } }",
    );
    let (mut stage, fresh) = Stage::of(&plan);
    let Event::RevocationsStale { file } = stage.next_event() else { panic!("another event") };
    assert_eq!(file, folder.path("crl.pem"));
    assert!(
        fresh.certs.listeners.values().all(|certs| certs.clients.is_some()),
        "it still refuses"
    );
    // Another look says nothing more of it, a newer list is taken up.
    folder.put("crl.pem", &root.revokes(7, 2100));
    folder.pair("a", &sample("b.example"));
    let Event::CertificateReplaced(_) = stage.next_event() else { panic!("another event") };
    assert_eq!(stage.certificates.end(), None);
    assert!(stage.told.try_iter().next().is_none(), "it was said again");
}
