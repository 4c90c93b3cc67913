//! Records and handshakes against rustls itself, and the layer over scripted wires.
//!
//! Where rustls is the other end it is the judge: the same bytes, the same plaintext, and a failure
//! at the same place. What rustls never sends (empty records, broken alerts) our own end seals.

use std::{
    io::{Read, Write},
    rc::Rc,
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

use super::{
    Agreed, Tls,
    alert::Alert,
    failed::Why,
    front::Front,
    handshake::{self, Handshake},
    keys::{ALERT, DATA, HANDSHAKE, PLAIN_MAX},
    records::{Failure, Opened, Records},
};
use crate::net::{
    buffer::{Buffer, Buffers},
    clock::Clock,
    deadlines::{Deadlines, Unmet, Watch},
    fd::Half,
    stream::{
        Stream,
        script::{Script, Step, says},
    },
};
use crate::plan::{ListenerTls, Protocols};
use crate::shared::certs::{Challenges, ListenerCerts, Store, StoreEntry};
use crate::testkit::{bytes, play};

/// The certificate of `a.example`, and who trusts it.
struct Trust {
    front: Front,
    roots: RootCertStore,
}

fn trust() -> Trust {
    trust_with(Challenges::default())
}

fn trust_with(mut challenges: Challenges) -> Trust {
    let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    let cert: CertificateDer<'static> = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let certified = Arc::new(CertifiedKey::new(vec![cert.clone()], key));
    let entry = StoreEntry { names: vec!["a.example".into()], certified };
    let others = challenges.certificates.values_mut();
    others.for_each(|other| *other = Arc::clone(&entry.certified));
    let store = Store::new(&[entry], true).with_challenges(Arc::new(challenges));
    let store = Arc::new(store);
    let certs = ListenerCerts { store, clients: None };
    let tickets = aws_lc_rs::Ticketer::new().unwrap();
    let front =
        Front::new((&ListenerTls::default(), Protocols::default()), &certs, tickets).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert).unwrap();
    Trust { front, roots }
}

impl Trust {
    fn client_config(&self, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let mut config = builder
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.enable_secret_extraction = true;
        Arc::new(config)
    }

    fn client(&self, version: &'static SupportedProtocolVersion) -> ClientConnection {
        let name = "a.example".try_into().unwrap();
        ClientConnection::new(self.client_config(version), name).unwrap()
    }
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// All that a client of rustls has to say.
fn said(client: &mut ClientConnection) -> Vec<u8> {
    let mut said = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut said).unwrap();
    }
    said
}

fn hears(client: &mut ClientConnection, mut what: &[u8]) -> Result<(), rustls::Error> {
    while !what.is_empty() {
        client.read_tls(&mut what).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

/// The plaintext that it has got.
fn got(client: &mut ClientConnection) -> Vec<u8> {
    let mut got = Vec::new();
    let _ = client.reader().read_to_end(&mut got);
    got
}

/// Shakes hands with a client of rustls, whose bytes come in pieces of so many.
fn shaken(
    client: &mut ClientConnection,
    front: &Front,
    piece: usize,
) -> (Records, Agreed, Vec<u8>) {
    let mut shaking = Handshake::server(&front.config).unwrap();
    let (mut come, mut name) = (Vec::new(), None);
    for _ in 0..4 {
        let all = said(client);
        for piece in all.chunks(piece) {
            come.extend_from_slice(piece);
            let mut out = Vec::new();
            let advanced = shaking.advance(&mut come, &mut out).unwrap();
            name = handshake::take_name().or(name);
            come.drain(..advanced.used);
            hears(client, &out).unwrap();
            if advanced.is_done {
                let (records, agreed) = shaking.finish(name).unwrap();
                return (records, agreed, come);
            }
        }
    }
    panic!("no end");
}

/// Two ends of ours.
fn both(trust: &Trust, version: &'static SupportedProtocolVersion) -> (Records, Records) {
    let mut server = Handshake::server(&trust.front.config).unwrap();
    let name = "a.example".try_into().unwrap();
    let mut client = Handshake::client(&trust.client_config(version), name).unwrap();
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    let (mut one, mut other) = (false, false);
    while !one || !other {
        if !other {
            let mut out = Vec::new();
            let advanced = client.advance(&mut to_client, &mut out).unwrap();
            to_client.drain(..advanced.used);
            other = advanced.is_done;
            to_server.extend(out);
        }
        if !one {
            let mut out = Vec::new();
            let advanced = server.advance(&mut to_server, &mut out).unwrap();
            to_server.drain(..advanced.used);
            one = advanced.is_done;
            to_client.extend(out);
        }
    }
    let (server, mut client) = (server.finish(None).unwrap().0, client.finish(None).unwrap().0);
    // Tickets come late.
    let mut replies = Vec::new();
    let opened = client.open(&mut to_client, &mut replies);
    assert_eq!((opened.plain, opened.used), (0, to_client.len()), "{:?}", client.failure());
    assert!(replies.is_empty() && to_server.is_empty());
    (server, client)
}

/// All of this, sealed.
fn sealed(records: &mut Records, mut plain: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::new();
    while !plain.is_empty() {
        let mut out = vec![0; 20_000];
        let (count, len) = records.seal(plain, &mut out).unwrap();
        sealed.extend_from_slice(&out[..len]);
        plain = &plain[count..];
    }
    sealed
}

/// What comes of these bytes, in pieces that end at these places: plaintext, and a failure.
fn opened(
    records: &mut Records,
    all: &[u8],
    pieces: impl IntoIterator<Item = usize>,
) -> (Vec<u8>, Option<Failure>) {
    let (mut come, mut plain, mut replies, mut from) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for to in pieces.into_iter().chain([all.len()]) {
        come.extend_from_slice(&all[from..to.max(from)]);
        from = to.max(from);
        let Opened { plain: count, used } = records.open(&mut come, &mut replies);
        plain.extend_from_slice(&come[..count]);
        come.drain(..used);
    }
    (plain, records.failure())
}

#[test]
fn a_handshake_is_the_same_in_pieces_of_any_size() {
    let trust = trust();
    for version in VERSIONS {
        for piece in (1..40).chain([100, 255, 1000, 20_000]) {
            let mut client = trust.client(version);
            let (mut records, agreed, come) = shaken(&mut client, &trust.front, piece);
            assert!(come.is_empty());
            assert_eq!(agreed.name.as_deref(), Some("a.example"));
            assert_eq!(agreed.is_tls13, version == &TLS13);
            assert!(!agreed.is_resumed && agreed.suite.starts_with("TLS"), "{agreed:?}");
            client.writer().write_all(b"hello").unwrap();
            let came = said(&mut client);
            assert_eq!(opened(&mut records, &came, []), (b"hello".to_vec(), None));
            hears(&mut client, &sealed(&mut records, b"good day")).unwrap();
            assert_eq!(got(&mut client), b"good day");
        }
    }
}

#[test]
fn what_follows_the_handshake_at_once_is_not_lost() {
    let trust = trust();
    for version in VERSIONS {
        let mut client = trust.client(version);
        client.writer().write_all(b"early").unwrap();
        let (mut records, _, come) = shaken(&mut client, &trust.front, 20_000);
        let rest = said(&mut client);
        let (plain, failure) = opened(&mut records, &[come, rest].concat(), []);
        assert_eq!((plain, failure), (b"early".to_vec(), None));
    }
}

#[test]
fn a_client_that_comes_again_is_resumed_and_gets_one_ticket() {
    let trust = trust();
    for version in VERSIONS {
        let config = trust.client_config(version);
        for again in [false, true, true] {
            let name = "a.example".try_into().unwrap();
            let mut client = ClientConnection::new(Arc::clone(&config), name).unwrap();
            let (_, agreed, _) = shaken(&mut client, &trust.front, 20_000);
            assert_eq!(agreed.is_resumed, again, "{version:?}");
            if version == &TLS13 {
                assert_eq!(client.tls13_tickets_received(), 1);
            }
        }
    }
}

#[test]
fn an_unknown_name_and_a_foreign_protocol_are_refused_by_their_alerts() {
    let trust = trust();
    for (name, alpn, expected) in [
        ("b.example", "http/1.1", "UnrecognisedName"),
        ("a.example", "imap", "NoApplicationProtocol"),
    ] {
        let mut config = ClientConfig::clone(&trust.client_config(&TLS13));
        config.alpn_protocols = vec![alpn.into()];
        let asked = name.try_into().unwrap();
        let mut client = ClientConnection::new(Arc::new(config), asked).unwrap();
        let mut shaking = Handshake::server(&trust.front.config).unwrap();
        let mut out = Vec::new();
        let failed = shaking.advance(&mut said(&mut client), &mut out);
        assert!(failed.is_err());
        let told = hears(&mut client, &out).expect_err(&format!("{name:?} {failed:?} {out:?}"));
        assert!(format!("{told:?}").contains(expected), "{told:?}");
    }
}

#[test]
fn authorities_find_a_certificate_by_their_own_protocol_while_there_is_one_and_clients_do_not() {
    let mut challenges = Challenges::default();
    let anyone = Arc::new(CertifiedKey::new(vec![], Arc::new(NoKey)));
    challenges.certificates.insert("a.example".into(), anyone);
    let (with, without) = (trust_with(challenges), trust());
    let agreed = |trust: &Trust, offered: &[&str]| -> Result<Option<String>, Why> {
        let mut config = ClientConfig::clone(&trust.client_config(&TLS13));
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = "a.example".try_into().unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut shaking = Handshake::server(&trust.front.config).unwrap();
        let mut out = Vec::new();
        shaking.advance(&mut said(&mut client), &mut out).map_err(|failed| failed.of_client())?;
        hears(&mut client, &out).unwrap();
        Ok(client.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()))
    };
    let some = |name: &str| Ok(Some(name.to_owned()));
    assert_eq!(agreed(&with, &["acme-tls/1"]), some("acme-tls/1"));
    assert_eq!(agreed(&with, &["acme-tls/1", "http/1.1"]), some("http/1.1"));
    assert_eq!(agreed(&with, &["http/1.1"]), some("http/1.1"));
    assert_eq!(agreed(&with, &[]), Ok(None));
    let refused = agreed(&without, &["acme-tls/1"]).unwrap_err();
    assert_eq!(refused.sentence, "the client speaks no protocol that is offered here (ALPN)");
}

#[derive(Debug)]
struct NoKey;

impl rustls::sign::SigningKey for NoKey {
    fn choose_scheme(
        &self,
        _: &[rustls::SignatureScheme],
    ) -> Option<Box<dyn rustls::sign::Signer>> {
        None
    }

    fn algorithm(&self) -> rustls::SignatureAlgorithm {
        rustls::SignatureAlgorithm::ECDSA
    }
}

#[test]
fn records_of_rustls_are_opened_alike_wherever_they_are_split() {
    let trust = trust();
    for version in VERSIONS {
        let mut client = trust.client(version);
        let (mut records, ..) = shaken(&mut client, &trust.front, 20_000);
        let mut all = Vec::new();
        for what in [&b"one"[..], b"two and more", b"3"] {
            client.writer().write_all(what).unwrap();
            if version == &TLS13 {
                client.refresh_traffic_keys().unwrap();
            }
            all.extend(said(&mut client));
        }
        client.send_close_notify();
        all.extend(said(&mut client));
        all.extend(b"behind the end");
        // Every pair of places would take long, and each stream can be opened once; so each place
        // gets a stream of its own.
        assert_eq!(opened(&mut records, &all, []), (b"onetwo and more3".to_vec(), None));
        assert!(records.has_closed());
        for place in 0..all.len() {
            let (mut server, mut client) = both(&trust, version);
            let stream = spoken(&mut client, version);
            let place = place % stream.len();
            let result = opened(&mut server, &stream, [place, place + 1]);
            assert_eq!(result, (b"onetwo and more3".to_vec(), None), "{place}");
            assert!(server.has_closed());
        }
        let (mut server, mut client) = both(&trust, version);
        let stream = spoken(&mut client, version);
        let result = opened(&mut server, &stream, 0..stream.len());
        assert_eq!(result, (b"onetwo and more3".to_vec(), None), "byte by byte");
    }
}

/// A short conversation of a client of ours, with a change of keys, and its end.
fn spoken(client: &mut Records, version: &SupportedProtocolVersion) -> Vec<u8> {
    let mut stream = sealed(client, b"one");
    if version == &TLS13 {
        client.update_keys(&mut stream).unwrap();
    }
    stream.extend(sealed(client, b"two and more"));
    stream.extend(sealed(client, b"3"));
    client.say_end(&mut stream);
    stream
}

#[test]
fn a_change_of_keys_that_asks_for_one_is_answered_by_one() {
    let trust = trust();
    let mut client = trust.client(&TLS13);
    let (mut records, ..) = shaken(&mut client, &trust.front, 20_000);
    for round in 0..100_u8 {
        client.writer().write_all(&[round; 300]).unwrap();
        client.refresh_traffic_keys().unwrap();
        client.writer().write_all(&[round; 3]).unwrap();
        let mut came = said(&mut client);
        let mut replies = Vec::new();
        let opened = records.open(&mut came, &mut replies);
        assert_eq!((opened.plain, records.failure()), (303, None), "{round}");
        assert!(replies.is_empty());
        // However many were asked for meanwhile, one is enough.
        if round % 40 == 39 {
            let answer = sealed(&mut records, &[round; 20]);
            assert_eq!(answer.len(), 20 + 22 + 5 + 22);
            hears(&mut client, &answer).unwrap();
            assert_eq!(got(&mut client), [round; 20]);
        }
    }
}

#[test]
fn large_answers_are_cut_into_records_that_rustls_opens() {
    let trust = trust();
    for version in VERSIONS {
        let mut client = trust.client(version);
        let (mut records, ..) = shaken(&mut client, &trust.front, 20_000);
        client.set_buffer_limit(None);
        for len in [1, PLAIN_MAX - 1, PLAIN_MAX, PLAIN_MAX + 1, 3 * PLAIN_MAX + 7] {
            let what = bytes(len);
            let mut all = Vec::new();
            for piece in sealed(&mut records, &what).chunks(10_000) {
                hears(&mut client, piece).unwrap();
                all.extend(got(&mut client));
            }
            assert!(all == what, "{len}");
        }
    }
}

/// What a server makes of a record of this type with this content, after a good one.
fn check(
    version: &'static SupportedProtocolVersion,
    kind: u8,
    plain: &[u8],
    times: usize,
    expected: Option<Failure>,
) {
    let trust = trust();
    let (mut server, mut client) = both(&trust, version);
    let mut stream = sealed(&mut client, b"good");
    for _ in 0..times {
        client.seal_short(kind, plain, &mut stream).unwrap();
    }
    stream.extend(sealed(&mut client, b"more"));
    let (got, failure) = opened(&mut server, &stream, []);
    assert_eq!(failure, expected, "{kind} {plain:?} {times}");
    let whole = if expected.is_none() && !server.has_closed() { "goodmore" } else { "good" };
    assert_eq!(got, whole.as_bytes(), "{kind} {plain:?} {times}");
}

#[test]
fn what_may_come_between_data_is_taken_and_all_else_ends_the_connection() {
    let broke = |alert| Some(Failure::Broke(alert));
    for version in VERSIONS {
        let is_tls13 = version == &TLS13;
        // Empty records, so many.
        check(version, DATA, b"", 32, None);
        check(version, DATA, b"", 33, broke(Alert::UNEXPECTED_MESSAGE));
        // Alerts: the end, warnings, fatal ones, broken ones.
        check(version, ALERT, &[1, 0], 1, None);
        check(version, ALERT, &[2, 0], 1, None);
        check(version, ALERT, &[1, 90], 4, None);
        check(version, ALERT, &[1, 90], 5, broke(Alert::UNEXPECTED_MESSAGE));
        check(version, ALERT, &[1, 41], 1, is_tls13.then_some(Failure::Broke(Alert::DECODE_ERROR)));
        check(version, ALERT, &[2, 42], 1, Some(Failure::Told(Alert(42))));
        check(version, ALERT, &[3, 42], 1, broke(Alert::ILLEGAL_PARAMETER));
        check(version, ALERT, &[1], 1, broke(Alert::DECODE_ERROR));
        check(version, ALERT, &[1, 0, 1], 1, broke(Alert::DECODE_ERROR));
        // Messages of a handshake.
        check(version, HANDSHAKE, b"", 1, broke(Alert::UNEXPECTED_MESSAGE));
        check(version, HANDSHAKE, &[4, 0, 0, 0], 1, broke(Alert::UNEXPECTED_MESSAGE));
        check(version, HANDSHAKE, &[9, 1, 0, 0], 1, broke(Alert::DECODE_ERROR));
        check(version, HANDSHAKE, &[4, 0, 0, 9], 1, broke(Alert::UNEXPECTED_MESSAGE));
        check(version, 99, b"x", 1, broke(Alert::UNEXPECTED_MESSAGE));
        check(version, 20, &[1], 1, broke(Alert::UNEXPECTED_MESSAGE));
    }
    let key_update = |rest: &[u8]| [&[24, 0, 0, rest.len() as u8], rest].concat();
    check(&TLS13, HANDSHAKE, &key_update(&[2]), 1, broke(Alert::ILLEGAL_PARAMETER));
    check(&TLS13, HANDSHAKE, &key_update(&[0, 0]), 1, broke(Alert::ILLEGAL_PARAMETER));
    let two = [key_update(&[0]), key_update(&[0])].concat();
    check(&TLS13, HANDSHAKE, &two, 1, broke(Alert::UNEXPECTED_MESSAGE));
    check(&TLS12, HANDSHAKE, &key_update(&[0]), 1, broke(Alert::UNEXPECTED_MESSAGE));
    // A wish to renegotiate is refused, and an insistent one ends it.
    check(&TLS12, HANDSHAKE, &[1, 0, 0, 0], 1, None);
    check(&TLS12, HANDSHAKE, &[1, 0, 0, 0], 2, broke(Alert::NO_RENEGOTIATION));
    check(&TLS13, HANDSHAKE, &[1, 0, 0, 0], 1, broke(Alert::UNEXPECTED_MESSAGE));
}

#[test]
fn changed_and_foreign_bytes_end_the_connection_after_what_was_good() {
    let trust = trust();
    for version in VERSIONS {
        let (mut server, mut client) = both(&trust, version);
        let good = sealed(&mut client, b"good");
        let next = sealed(&mut client, b"next");
        for place in 0..next.len() {
            let (mut server, mut client) = both(&trust, version);
            let mut stream = sealed(&mut client, b"good");
            let next = sealed(&mut client, b"next");
            stream.extend(&next);
            stream[good.len() + place] ^= 0x80;
            let (plain, failure) = opened(&mut server, &stream, []);
            assert!(plain == b"good", "{place}");
            // A longer one is waited for.
            let is_longer = place == 3 || (place == 4 && next[4] < 0x80);
            assert!(failure.is_some() || is_longer, "{place} {failure:?}");
        }
        // The same record twice.
        let twice = [&good[..], &good].concat();
        let (plain, failure) = opened(&mut server, &twice, []);
        assert_eq!(
            (&plain[..], failure),
            (&b"good"[..], Some(Failure::Broke(Alert::BAD_RECORD_MAC)))
        );
    }
}

/// A client whose bytes come from a script, behind TLS.
struct Scripted {
    ours: Stream,
    script: Rc<Script>,
    buffers: Rc<Buffers>,
    _deadlines: Rc<Deadlines>,
}

fn scripted(records: Records, come: &[u8], steps: Vec<Step>) -> Scripted {
    let clock = Rc::new(Clock::new());
    let deadlines = Deadlines::new(Rc::clone(&clock));
    let script = Script::new(steps);
    let mut ours = script.stream(|fd| deadlines.watch(fd, Watch::Backend));
    let buffers = Buffers::new(8);
    ours.secure(records, come.to_vec(), &buffers);
    Scripted { ours, script, buffers, _deadlines: deadlines }
}

/// All that can be read, with reads into this much room; and whether it ended by `close_notify`.
async fn read_all(scripted: &Scripted, room: usize) -> (Vec<u8>, bool) {
    let (mut all, never) = (Vec::new(), crate::base::moment::Deadline::NEVER);
    loop {
        let mut buffer: Buffer = scripted.buffers.take().unwrap();
        buffer.filled(buffer.room_len() - room.min(buffer.room_len()));
        let before = buffer.len();
        let read = scripted.ours.recv(&mut buffer, never).await;
        all.extend_from_slice(&buffer.bytes()[before..]);
        scripted.buffers.give(buffer);
        match read {
            Ok(0) => return (all, true),
            Ok(_) => {}
            Err(Unmet::Broken(_)) => return (all, false),
            Err(unmet) => panic!("{unmet:?}"),
        }
    }
}

#[test]
fn a_stream_behind_tls_reads_alike_wherever_its_records_are_split_and_however_little_room_there_is()
{
    let trust = trust();
    for version in VERSIONS {
        let len = spoken(&mut both(&trust, version).1, version).len();
        for room in [1, 5, 70_000] {
            for place in 0..len {
                let (server, mut client) = both(&trust, version);
                let stream = spoken(&mut client, version);
                let (come, rest) = stream.split_at(place.min(stream.len()));
                let (first, second) = rest.split_at(rest.len() / 2);
                let steps = vec![says(first), Step::Pauses, says(second), Step::Ends];
                let (all, closed) = play(async {
                    let scripted = scripted(server, come, steps);
                    read_all(&scripted, room).await
                });
                assert_eq!((&all[..], closed), (&b"onetwo and more3"[..], true), "{place} {room}");
            }
        }
    }
}

#[test]
fn an_end_without_close_notify_is_an_error_and_not_an_end() {
    let trust = trust();
    for version in VERSIONS {
        let (server, mut client) = both(&trust, version);
        let stream = sealed(&mut client, b"cut");
        let read = play(async {
            read_all(&scripted(server, b"", vec![says(stream), Step::Ends]), 70_000).await
        });
        assert_eq!(read, (b"cut".to_vec(), false));
    }
}

#[test]
fn writes_are_taken_once_and_in_order_however_little_the_wire_takes() {
    let trust = trust();
    let what = bytes(100_000);
    for version in VERSIONS {
        for takes in [1, 700, 20_000, 100_001] {
            let (server, mut client) = both(&trust, version);
            let steps = (0..200_000 / takes.max(400) + 3)
                .flat_map(|_| [Step::Takes(takes.max(400)), Step::Pauses]);
            let mut steps: Vec<Step> = steps.collect();
            if takes == 1 {
                steps.insert(0, Step::Takes(1));
                steps.insert(1, Step::Pauses);
            }
            steps.push(Step::Takes(usize::MAX));
            let heard = play(async {
                let scripted = scripted(server, b"", steps);
                let never = || crate::base::moment::Deadline::NEVER;
                let (first, rest) = what.split_at(3);
                let (second, third) = rest.split_at(60_000);
                scripted.ours.send_parts(first, second, false, never).await.unwrap();
                let (sent, _) = scripted.ours.send_vec(third.to_vec(), never).await;
                sent.unwrap();
                scripted.ours.shut_down(Half::Writing);
                scripted.script.heard()
            });
            let (plain, failure) = opened(&mut client, &heard, []);
            assert_eq!(
                (plain == what, failure, client.has_closed()),
                (true, None, true),
                "{takes}"
            );
        }
    }
}

#[test]
fn a_posted_send_is_sealed_once_however_little_the_wire_takes() {
    let trust = trust();
    for version in VERSIONS {
        for takes in [0, 1, 20, 1_000] {
            let (server, mut client) = both(&trust, version);
            let steps = vec![Step::Takes(takes), Step::Pauses, Step::Takes(usize::MAX)];
            let heard = play(async {
                let scripted = scripted(server, b"", steps);
                let ours = &scripted.ours;
                for what in ["ask", "and again"] {
                    ours.post_send(what.into()).unwrap();
                    assert!(ours.is_sending());
                    let never = crate::base::moment::Deadline::NEVER;
                    let (sent, back) = ours.sent(never).await;
                    sent.unwrap();
                    assert_eq!((back, ours.is_sending()), (what.into(), false));
                }
                scripted.script.heard()
            });
            let (plain, failure) = opened(&mut client, &heard, []);
            assert_eq!((&plain[..], failure), (&b"askand again"[..], None), "{takes}");
        }
    }
}

#[test]
fn an_idle_connection_keeps_no_buffer_and_little_else() {
    let trust = trust();
    let (server, mut client) = both(&trust, &TLS13);
    let stream = sealed(&mut client, &bytes(40_000));
    play(async {
        let scripted =
            scripted(server, b"", vec![says(&stream[..20_000]), says(&stream[20_000..])]);
        let mut buffer = scripted.buffers.take().unwrap();
        let mut count = 0;
        while count < 40_000 {
            buffer.clear();
            count += scripted
                .ours
                .recv(&mut buffer, crate::base::moment::Deadline::NEVER)
                .await
                .unwrap();
        }
        assert!(matches!(scripted.ours.recv_now(&mut buffer), Err(Unmet::NotNow)));
        scripted
            .ours
            .send_all(b"answer", false, || crate::base::moment::Deadline::NEVER)
            .await
            .unwrap();
        assert_eq!(scripted.ours.kept_by_tls(), 0);
    });
    println!("Tls {} bytes, Records {} bytes", size_of::<Tls>(), size_of::<Records>());
    assert!(size_of::<Tls>() < 700);
}

/// The bytes of the wire in any pieces give the same as rustls itself.
#[test]
fn random_records_in_random_pieces_give_what_rustls_gives() {
    use crate::base::rng::Rng;
    let trust = trust();
    for seed in 0..60 {
        let mut rng = Rng::seeded(seed);
        let version = VERSIONS[rng.below(2) as usize];
        let mut client = trust.client(version);
        let server_config: Arc<ServerConfig> = Arc::clone(&trust.front.config);
        // Two servers cannot have the same keys: rustls reads what ours does not, and the other
        // way round, each from its own client.
        let (mut records, ..) = shaken(&mut client, &trust.front, 20_000);
        let mut theirs = trust.client(version);
        let mut server = ServerConnection::new(server_config).unwrap();
        shake(&mut theirs, &mut server);
        let (mut ours_came, mut theirs_came) = (Vec::new(), Vec::new());
        for _ in 0..10 {
            let what = bytes(rng.below(20_000) as usize);
            for (client, came) in [(&mut client, &mut ours_came), (&mut theirs, &mut theirs_came)] {
                client.writer().write_all(&what).unwrap();
                came.extend(said(client));
            }
            if version == &TLS13 && rng.below(3) == 0 {
                client.refresh_traffic_keys().unwrap();
                theirs.refresh_traffic_keys().unwrap();
            }
        }
        assert_eq!(ours_came.len(), theirs_came.len());
        if rng.below(2) == 0 {
            let place = rng.below(ours_came.len() as u32) as usize;
            ours_came[place] ^= 1;
            theirs_came[place] ^= 1;
        }
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < ours_came.len() {
            at += 1 + rng.below(9_000) as usize;
            pieces.push(at.min(ours_came.len()));
        }
        let (plain, failure) = opened(&mut records, &ours_came, pieces);
        let (mut expected, mut failed) = (Vec::new(), false);
        let mut rest = &theirs_came[..];
        while !rest.is_empty() && !failed {
            server.read_tls(&mut rest).unwrap();
            failed = server.process_new_packets().is_err();
            let _ = server.reader().read_to_end(&mut expected);
        }
        assert!(plain == expected, "seed {seed}: {} {}", plain.len(), expected.len());
        assert_eq!(failure.is_some(), failed, "seed {seed}: {failure:?}");
    }
}

fn shake(client: &mut ClientConnection, server: &mut ServerConnection) {
    for _ in 0..4 {
        let all = said(client);
        let mut rest = &all[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().unwrap();
        }
        let mut out = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut out).unwrap();
        }
        hears(client, &out).unwrap();
    }
}
