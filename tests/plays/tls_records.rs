//! Plays of clients that seal their own records: what no library sends, and what a hostile one may.
//!
//! rustls shakes hands and gives the keys away; from then on the records of TLS 1.3 are made here.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::{ClientConnection, ConnectionTrafficSecrets, version::TLS13};

use crate::{
    client::{get, post},
    scripts::{answers, answers_target, echoes},
    secure::Identity,
    stage::{Driver, Stage},
    wire::PATIENCE,
};

on_both_drivers!(
    records_may_hold_one_byte_or_all_that_fits_and_be_padded,
    what_is_no_data_may_come_in_the_middle_of_a_request,
    garbage_behind_the_handshake_is_refused_by_an_alert,
    an_alert_in_the_middle_of_a_body_is_an_abort,
);

const DATA: u8 = 23;
const ALERT: u8 = 21;

/// The keys of one direction.
struct Keys {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Keys {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Keys {
        let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else { panic!("a suite") };
        let key = UnboundKey::new(&AES_128_GCM, key.as_ref()).unwrap();
        let iv = iv.as_ref().try_into().unwrap();
        Keys { key: LessSafeKey::new(key), iv, sequence }
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, of) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= of;
        }
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    fn seal(&mut self, kind: u8, plain: &[u8], padding: usize) -> Vec<u8> {
        let mut sealed = [plain, &[kind], &vec![0; padding]].concat();
        let len = u16::try_from(sealed.len() + 16).unwrap().to_be_bytes();
        let header = [DATA, 3, 3, len[0], len[1]];
        let nonce = self.nonce();
        self.key.seal_in_place_append_tag(nonce, Aad::from(header), &mut sealed).unwrap();
        [&header[..], &sealed].concat()
    }

    fn open(&mut self, header: [u8; 5], mut sealed: Vec<u8>) -> (u8, Vec<u8>) {
        let nonce = self.nonce();
        let plain = self.key.open_in_place(nonce, Aad::from(header), &mut sealed).unwrap();
        let end = plain.iter().rposition(|byte| *byte != 0).unwrap();
        (plain[end], plain[..end].to_vec())
    }
}

/// A client that has shaken hands.
struct Sealing {
    stream: TcpStream,
    sealing: Keys,
    opening: Keys,
}

impl Sealing {
    fn connect(stage: &Stage, identity: &Identity) -> Sealing {
        let mut config = identity.trusting(&[&TLS13]);
        config.enable_secret_extraction = true;
        config.resumption = rustls::client::Resumption::disabled();
        let name = "play.test".try_into().unwrap();
        let mut tls = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = TcpStream::connect(stage.address()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut stream).unwrap();
        }
        // The one ticket: what is read later is ours.
        while tls.tls13_tickets_received() == 0 {
            tls.read_tls(&mut stream).unwrap();
            tls.process_new_packets().unwrap();
        }
        let secrets = tls.dangerous_extract_secrets().unwrap();
        Sealing { stream, sealing: Keys::new(secrets.tx), opening: Keys::new(secrets.rx) }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next record; none at the end.
    fn record(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 5];
        self.stream.read_exact(&mut header).ok()?;
        let mut sealed = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
        self.stream.read_exact(&mut sealed).unwrap();
        Some(self.opening.open(header, sealed))
    }

    /// All plaintext until it ends like this.
    #[track_caller]
    fn expect(&mut self, end: &str) {
        let mut all = Vec::new();
        while !all.ends_with(end.as_bytes()) {
            let (kind, plain) = self.record().expect("an end");
            assert_eq!(kind, DATA, "{plain:?}");
            all.extend(plain);
        }
    }

    /// A fatal alert, and the end.
    #[track_caller]
    fn expect_alert(&mut self, number: u8, what: &str) {
        assert_eq!(self.record(), Some((ALERT, vec![2, number])), "{what}");
        assert_eq!(self.record(), None, "{what}");
    }
}

fn name() -> Identity {
    Identity::of(&["play.test"])
}

fn records_may_hold_one_byte_or_all_that_fits_and_be_padded(driver: Driver) {
    let identity = name();
    let stage = Stage::on(driver).listener(&identity.line("")).backend(echoes()).start();
    let body = "0123456789abcdef".repeat(3_000);
    for size in [1, 7, 1_000, 16_384] {
        let mut client = Sealing::connect(&stage, &identity);
        let what = post("/", if size == 1 { &body[..3_000] } else { &body });
        for padding in [0, 1, 200] {
            let padding = if size == 16_384 { padding.min(239) } else { padding };
            let pieces = what.as_bytes().chunks(size);
            let records: Vec<Vec<u8>> =
                pieces.map(|piece| client.sealing.seal(DATA, piece, padding)).collect();
            // In one piece, and then as the network likes it.
            let all = records.concat();
            match padding {
                0 => client.send(&all),
                1 => all.chunks(997).for_each(|piece| client.send(piece)),
                _ => all.chunks(20_000).for_each(|piece| client.send(piece)),
            }
            client.expect(&what[what.len() - 64..]);
        }
    }
}

fn what_is_no_data_may_come_in_the_middle_of_a_request(driver: Driver) {
    let identity = name();
    let stage = Stage::on(driver).listener(&identity.line("")).backend(answers_target()).start();
    let mut client = Sealing::connect(&stage, &identity);
    for at_once in [false, true] {
        let request = get("/here");
        let (head, rest) = request.as_bytes().split_at(7);
        let mut records = vec![client.sealing.seal(DATA, head, 0)];
        records.extend((0..20).map(|padding| client.sealing.seal(DATA, b"", padding)));
        // user_canceled, a warning.
        records.push(client.sealing.seal(ALERT, &[1, 90], 3));
        records.push(client.sealing.seal(DATA, rest, 0));
        // Empty ones where nothing is awaited, too.
        records.push(client.sealing.seal(DATA, b"", 0));
        if at_once {
            client.send(&records.concat());
        } else {
            records.iter().for_each(|record| client.send(record));
        }
        client.expect("/here");
    }
    let end = client.sealing.seal(ALERT, &[1, 0], 0);
    client.send(&end);
    assert_eq!(client.record(), Some((ALERT, vec![1, 0])));
    assert_eq!(client.record(), None);
}

fn garbage_behind_the_handshake_is_refused_by_an_alert(driver: Driver) {
    let identity = name();
    let stage = Stage::on(driver).listener(&identity.line("")).backend(answers("ok")).start();
    for is_idle in [false, true] {
        for (what, bytes, alert) in [
            ("plain HTTP", &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], 10),
            ("data in plain", b"\x17\x03\x03\x00\x20hello hello hello hello hello ok", 20),
            ("a record too long", b"\x17\x03\x03\x50\x00hello", 22),
            ("a handshake in plain", b"\x16\x03\x03\x00\x04\x01\x00\x00\x00", 10),
            ("an alert in plain", b"\x15\x03\x03\x00\x02\x02\x28", 10),
            ("another version", b"\x17\x02\x03\x00\x20", 10),
        ] {
            let mut client = Sealing::connect(&stage, &identity);
            if is_idle {
                let request = client.sealing.seal(DATA, get("/").as_bytes(), 0);
                client.send(&request);
                client.expect("ok");
            }
            client.send(bytes);
            client.expect_alert(alert, what);
        }
        for (what, kind, plain, alert) in [
            ("a type that is none", 99, &b"x"[..], 10),
            ("a hello", 22, &[1, 0, 0, 0], 10),
            ("a change of ciphers", 20, &[1], 10),
            ("half an alert", ALERT, &[1], 50),
            ("a broken change of keys", 22, &[24, 0, 0, 1, 9], 47),
        ] {
            let mut client = Sealing::connect(&stage, &identity);
            let record = client.sealing.seal(kind, plain, 0);
            client.send(&record);
            client.expect_alert(alert, what);
        }
    }
    identity.connect(stage.address()).get("/").expect(200, "ok");
}

fn an_alert_in_the_middle_of_a_body_is_an_abort(driver: Driver) {
    let identity = name();
    let stage = Stage::on(driver).listener(&identity.line("")).backend(echoes()).start();
    for (count, number) in [(1, 80), (2, 0)] {
        let mut client = Sealing::connect(&stage, &identity);
        let whole = post("/", "the whole body");
        let half = client.sealing.seal(DATA, &whole.as_bytes()[..whole.len() - 3], 0);
        let alert = client.sealing.seal(ALERT, &[2, number], 0);
        client.send(&[half, alert].concat());
        stage.expect_count("client_aborts_total", count);
    }
    assert!(stage.backend(0).requests().is_empty());
}
