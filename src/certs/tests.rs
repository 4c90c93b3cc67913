//! Tables of files: those that can be used, those that are mended, and a sentence for each mistake.
//!
//! The certificates are made anew by `sample`; the time is a constant.

use std::{collections::HashMap, path::PathBuf};

use rustls::server::danger::ClientCertVerifier;

use super::{
    sample::{Authority, Kind, Sample, own},
    *,
};
use crate::base::moment::UnixSeconds;

/// 2026-12-01.
const NOW: UnixSeconds = UnixSeconds(1_796_083_200);

fn loaded(cert: &str, key: &str) -> Result<Pair, (Part, String)> {
    load(cert.as_bytes(), Some(key.as_bytes()), None)
        .map_err(|(part, finding)| (part, finding.to_string()))
}

fn findings(pair: &Pair) -> Vec<String> {
    pair.findings(NOW).map(|(_, finding)| finding.what).collect()
}

#[test]
fn facts_are_those_of_the_certificate() {
    for (kind, said) in
        [(Kind::Ecdsa, "ECDSA P-256"), (Kind::Ed25519, "Ed25519"), (Kind::Rsa, "RSA 2048")]
    {
        let Sample { cert, key } = own(&["A.example", "*.example", "10.0.0.1"], kind, 2027);
        let pair = loaded(&cert, &key).unwrap();
        let facts = &pair.facts;
        let names: Vec<&str> = facts.names.iter().map(|name| &**name).collect();
        assert_eq!(names, ["a.example", "*.example", "10.0.0.1"]);
        assert_eq!((&*facts.issuer, &*facts.key), ("A.example", said));
        assert_eq!((facts.days_left(NOW), &*facts.last_day()), (395, "2027-12-31"));
        assert_eq!(findings(&pair), [""; 0]);
    }
}

#[test]
fn times_are_worth_a_sentence_near_their_end() {
    for (not_before, not_after, expected) in [
        (0, 1_796_083_199, "has expired on 2026-11-30"),
        (0, 1_796_083_200 + 86_400, "expires in 1 day, on 2026-12-02"),
        (0, 1_796_083_200 + 29 * 86_400, "expires in 29 days, on 2026-12-30"),
        (0, 1_796_083_200 + 31 * 86_400, ""),
        (1_796_169_600, u64::MAX, "is not valid before 2026-12-02"),
        // Made for 6 days: it is renewed every 4.
        (1_796_083_200 - 3 * 86_400, 1_796_083_200 + 3 * 86_400, ""),
        (1_796_083_200 - 5 * 86_400, 1_796_083_200 + 86_399, "expires in 0 days, on 2026-12-01"),
    ] {
        let Sample { cert, key } = own(&["a.example"], Kind::Ecdsa, 2027);
        let mut facts = (*loaded(&cert, &key).unwrap().facts).clone();
        facts.not_before = UnixSeconds(not_before);
        facts.not_after = UnixSeconds(not_after);
        let said = facts.about_times(NOW).map_or(String::new(), |finding| finding.what);
        assert_eq!(said, expected);
    }
}

#[test]
fn both_may_be_in_one_file_in_any_order() {
    let Sample { cert, key } = own(&["a.example"], Kind::Ecdsa, 2027);
    for one in [format!("{cert}{key}"), format!("{key}\n# of the shop\n{cert}")] {
        let pair = load(one.as_bytes(), None, None).unwrap();
        assert_eq!(pair.certified.cert.len(), 1);
    }
}

#[test]
fn a_chain_is_sent_in_the_order_of_its_issuers() {
    let root = Authority::root("root");
    let middle = root.below("middle");
    let Sample { cert, key } = middle.signs(&["a.example"], Kind::Ecdsa);
    let stranger = Authority::root("stranger");
    let order = "has its certificates out of order";
    for (file, length, expected) in [
        (vec![&cert], 1, vec![]),
        (vec![&cert, &middle.pem()], 2, vec![]),
        (vec![&cert, &middle.pem(), &root.pem()], 3, vec![]),
        (vec![&middle.pem(), &cert], 2, vec![order]),
        (vec![&root.pem(), &middle.pem(), &cert], 3, vec![order]),
        (vec![&cert, &root.pem(), &middle.pem()], 3, vec![order]),
        (vec![&cert, &root.pem()], 1, vec!["has 1 certificate outside the chain of its own"]),
        (
            vec![&cert, &stranger.pem(), &middle.pem(), &cert],
            2,
            vec!["has 2 certificates outside the chain of its own"],
        ),
    ] {
        let file: String = file.into_iter().map(String::as_str).collect();
        let pair = loaded(&file, &key).unwrap();
        assert_eq!(pair.certified.cert.len(), length, "{expected:?}");
        assert_eq!(findings(&pair), expected);
        let own = facts::parse(&pair.certified.cert[0]).unwrap().subject().to_string();
        assert!(own.contains("a.example"), "{own}");
        if let [_, second, ..] = pair.certified.cert.as_slice() {
            let title = facts::title(facts::parse(second).unwrap().subject());
            assert_eq!(title, "middle");
        }
    }
}

#[test]
fn every_mistake_has_a_sentence_and_a_file_that_is_to_blame() {
    let a = own(&["a.example"], Kind::Ecdsa, 2027);
    let b = own(&["b.example"], Kind::Ecdsa, 2027);
    let half = &a.cert[..a.cert.len() / 2];
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGf\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let old = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIGf\n\
        -----END EC PRIVATE KEY-----\n";
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let no_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let two = format!("{}{}", a.key, b.key);
    for (cert, key, part, expected) in [
        ("", &*a.key, Part::Cert, "has no certificate; expected"),
        ("\u{30}\u{2}", &a.key, Part::Cert, "is not PEM; it looks like DER"),
        (half, &a.key, Part::Cert, "ends in the middle of a section"),
        (nonsense, &a.key, Part::Cert, "has a section that is not a certificate"),
        (&a.key, &a.cert, Part::Cert, "has no certificate; it has a private key; are the"),
        (&a.cert, "", Part::Key, "has no private key; expected"),
        (&a.cert, &a.cert, Part::Key, "has no private key; it has a certificate"),
        (&a.cert, &b.key, Part::Key, "does not fit the certificate (of \"a.example\")"),
        (&a.cert, encrypted, Part::Key, "has an encrypted private key; nobody is there"),
        (&a.cert, old, Part::Key, "has an encrypted private key; nobody is there"),
        (&a.cert, no_key, Part::Key, "has a private key that cannot be used; use ECDSA"),
        (&a.cert, &two, Part::Key, "has 2 private keys"),
        (&a.cert, &a.key[..60], Part::Key, "ends in the middle of a section"),
    ] {
        let (to_blame, said) = loaded(cert, key).err().unwrap_or((part, "fine".into()));
        assert!(said.starts_with(expected), "{expected}: {said}");
        assert_eq!(to_blame, part, "{said}");
    }
    let one = format!("{}{encrypted}", a.cert);
    let (part, said) = load(one.as_bytes(), None, None).err().unwrap();
    assert_eq!(part, Part::Key);
    assert!(said.what.starts_with("has an encrypted private key"), "{said}");
}

#[test]
fn a_staple_must_be_an_answer() {
    let Sample { cert, key } = own(&["a.example"], Kind::Ecdsa, 2027);
    let mut answer = vec![0x30, 0x82, 0x01, 0x00, 0x0a, 0x01, 0x00];
    let with = |ocsp: &[u8]| load(cert.as_bytes(), Some(key.as_bytes()), Some(ocsp.to_vec()));
    assert_eq!(with(&answer).unwrap().certified.ocsp.as_deref(), Some(&answer[..]));
    answer[6] = 3; // tryLater
    for (ocsp, expected) in [
        (&answer[..], "has an OCSP response without an answer"),
        (b"<html>", "is not an OCSP response"),
    ] {
        let (part, said) = with(ocsp).err().unwrap();
        assert_eq!((part, &*said.what), (Part::Ocsp, expected));
    }
}

/// Files in memory.
struct Memory(HashMap<PathBuf, Vec<u8>>);

impl Files for Memory {
    fn bytes(&self, path: &std::path::Path) -> Result<Vec<u8>, String> {
        self.0.get(path).cloned().ok_or_else(|| "there is no such file".to_owned())
    }

    fn names(&self, folder: &std::path::Path) -> Result<Vec<String>, String> {
        let inside = |path: &PathBuf| path.parent() == Some(folder);
        let paths = self.0.keys().filter(|path| inside(path));
        let mut names: Vec<String> =
            paths.filter_map(|path| Some(path.file_name()?.to_string_lossy().into())).collect();
        names.sort();
        Ok(names)
    }

    fn stamp(&self, _: &std::path::Path) -> Option<Stamp> {
        None
    }
}

#[test]
fn a_folder_has_pairs_by_stem_and_both_in_one_file() {
    let names = [
        "a.crt",
        "a.key",
        "a.ocsp",
        "b.pem",
        "c.pem",
        "c.key",
        "default.crt",
        "default.key",
        ".hidden.pem",
        "README",
        "d.crt",
        "d.pem",
    ];
    let files =
        Memory(names.iter().map(|name| (PathBuf::from("certs.d").join(name), vec![])).collect());
    let pairs = pairs_in(&files, "certs.d".as_ref()).unwrap();
    let shown: Vec<String> = pairs
        .iter()
        .map(|(cert, key, ocsp)| format!("{} {} {}", cert.display(), key.display(), ocsp.is_some()))
        .collect();
    assert_eq!(
        shown,
        [
            "certs.d/default.crt certs.d/default.key false",
            "certs.d/a.crt certs.d/a.key true",
            "certs.d/b.pem certs.d/b.pem false",
            "certs.d/c.pem certs.d/c.key false",
            "certs.d/d.crt certs.d/d.crt false",
        ]
    );
}

#[test]
fn authorities_and_lists_are_read_and_a_stale_list_is_said() {
    let root = Authority::root("root");
    let ca = root.pem();
    let fresh = root.revokes(7, 2030);
    let stale = root.revokes(7, 2021);
    let said = |ca: &str, crl: Option<&str>| match clients(
        ca.as_bytes(),
        crl.map(str::as_bytes),
        (true, 6),
        NOW,
    ) {
        Ok((_, findings)) => {
            findings.into_iter().map(|(part, it)| format!("{part:?} {}", it.what)).collect()
        }
        Err((part, finding)) => vec![format!("{part:?} error {}", finding.what)],
    };
    assert_eq!(said(&ca, None), [""; 0]);
    assert_eq!(said(&ca, Some(&fresh)), [""; 0]);
    assert_eq!(said(&ca, Some(&stale)), ["Crl is out of date: \"root\" has promised a newer list"]);
    assert_eq!(said(&ca, Some(&ca)), ["Crl error has no list of revoked certificates"]);
    assert_eq!(said("", None), ["Ca error has no certificate"]);
    let expired = own(&["old"], Kind::Ecdsa, 2021);
    assert_eq!(said(&expired.cert, None), ["Ca has an authority that has expired: \"old\""]);
    assert!(servers(None, &[], NOW).is_err(), "nobody is trusted by nothing");
    assert!(servers(Some(ca.as_bytes()), &[], NOW).is_ok());
}

#[test]
fn no_more_certificates_than_the_depth_stand_between_a_client_and_an_authority() {
    use rustls::pki_types::{CertificateDer, UnixTime, pem::PemObject as _};
    let root = Authority::root("root");
    let upper = root.below("upper");
    let lower = upper.below("lower");
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(NOW.0));
    let clients = [&root, &upper, &lower].map(|it| der(&it.signs(&["a"], Kind::Ecdsa).cert));
    let all = [&lower, &upper, &root].map(|it| der(&it.pem()));
    for depth in 0..4_u8 {
        let (decides, _) = clients_of(&root.pem(), depth);
        for (own, (needed, sent)) in clients.iter().zip([(0, 2..), (1, 1..), (2, 0..)]) {
            let verdict = decides.verify_client_cert(own, &all[sent], now);
            assert_eq!(verdict.is_ok(), needed <= depth, "{needed} {depth} {verdict:?}");
        }
    }
    // One in between may be trusted itself.
    let (decides, _) = clients_of(&upper.pem(), 0);
    assert!(decides.verify_client_cert(&clients[1], &[], now).is_ok());
}

fn clients_of(ca: &str, depth: u8) -> (std::sync::Arc<dyn ClientCertVerifier>, usize) {
    let (decides, findings) = clients(ca.as_bytes(), None, (true, depth), NOW).ok().unwrap();
    (decides, findings.len())
}
