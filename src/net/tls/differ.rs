//! The record layer held against rustls: the same records, changed and split in the same way, give
//! the same plaintext and fail alike.
//!
//! For the fuzz target and for a test with a seed. The input is a program of one byte for each
//! step: what the client says, where its bytes are changed, where they are cut. Two connections do
//! the same, since no two servers have the same keys: one of them reads with `records.rs`, the
//! other is rustls.

use std::{
    cell::OnceCell,
    io::{Read, Write},
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    crypto::aws_lc_rs,
    pki_types::PrivateKeyDer,
    version::{TLS12, TLS13},
};

use super::{handshake::Handshake, records::Records};

/// Steps of a program: each may seal a few records.
const STEPS_MAX: usize = 64;

/// Both sides of a connection.
struct Configs {
    server: Arc<ServerConfig>,
    clients: [Arc<ClientConfig>; 2],
}

thread_local! {
    static CONFIGS: OnceCell<Configs> = const { OnceCell::new() };
}

/// Runs a program on both, and panics where they differ.
#[allow(clippy::expect_used, reason = "what cannot be made ends the test")]
pub(crate) fn differ(program: &[u8]) {
    let Some((version, steps)) = program.split_first() else { return };
    let is_tls13 = version % 2 == 1;
    let (mut ours, mut theirs) = CONFIGS.with(|configs| {
        let Configs { server, clients } = configs.get_or_init(configs_of);
        let client = || {
            let name = "a.example".try_into().expect("a name");
            let config = Arc::clone(&clients[usize::from(is_tls13)]);
            let mut client = ClientConnection::new(config, name).expect("a client");
            client.set_buffer_limit(None);
            client
        };
        (with_records(client(), server), with_rustls(client(), server))
    });
    let (mut to_ours, mut to_theirs) = (Vec::new(), Vec::new());
    let mut is_changed = false;
    let mut steps = steps.iter().copied().take(STEPS_MAX);
    while let Some(step) = steps.next() {
        let number = usize::from(steps.next().unwrap_or_default());
        for (client, stream) in [(&mut ours.0, &mut to_ours), (&mut theirs.0, &mut to_theirs)] {
            says(client, (step, number), is_tls13, stream);
        }
        is_changed |= changes((step, number), &mut to_ours);
        changes((step, number), &mut to_theirs);
        assert_eq!(to_ours.len(), to_theirs.len());
        if step % 4 == 0 {
            let piece = (1 + number * 31).min(to_ours.len());
            hears((&mut ours.1, &mut to_ours), (&mut theirs.1, &mut to_theirs), piece);
        }
    }
    let rest = to_ours.len();
    hears((&mut ours.1, &mut to_ours), (&mut theirs.1, &mut to_theirs), rest);
    let (ours, theirs) = (ours.1, theirs.1);
    assert!(ours.plain == theirs.plain, "{} {}", ours.plain.len(), theirs.plain.len());
    // What cannot become a record is refused before it is whole.
    let has_failed = ours.records.failure().is_some();
    assert!(has_failed || !theirs.has_failed, "rustls has refused it");
    assert!(is_changed || !has_failed, "{:?}", ours.records.failure());
}

/// What a step makes the client say.
#[allow(clippy::unwrap_used, reason = "rustls writes into memory")]
fn says(
    client: &mut ClientConnection,
    (step, number): (u8, usize),
    is_tls13: bool,
    to: &mut Vec<u8>,
) {
    match step % 8 {
        0..=3 => client.writer().write_all(&vec![step; number * number]).unwrap(),
        4 if is_tls13 => client.refresh_traffic_keys().unwrap(),
        // Once: rustls says it once.
        5 if number < 8 => client.send_close_notify(),
        _ => {}
    }
    while client.wants_write() {
        client.write_tls(to).unwrap();
    }
}

/// What a step does to bytes that were not delivered yet; returns whether it did.
fn changes((step, number): (u8, usize), stream: &mut Vec<u8>) -> bool {
    match (step % 8, stream.len()) {
        (6, len @ 1..) => {
            stream[number * 7 % len] ^= 1 << (step >> 5);
            true
        }
        (7, len) => {
            let at = (number * 13).min(len);
            let garbage = vec![step; number % 9];
            let is_changed = !garbage.is_empty();
            stream.splice(at..at, garbage);
            is_changed
        }
        _ => false,
    }
}

struct Ours {
    records: Records,
    come: Vec<u8>,
    plain: Vec<u8>,
}

struct Theirs {
    server: ServerConnection,
    has_failed: bool,
    plain: Vec<u8>,
}

/// Delivers so many bytes to both.
#[allow(clippy::unwrap_used, reason = "rustls reads from memory")]
fn hears(
    (ours, to_ours): (&mut Ours, &mut Vec<u8>),
    (theirs, to_theirs): (&mut Theirs, &mut Vec<u8>),
    count: usize,
) {
    ours.come.extend(to_ours.drain(..count));
    let opened = ours.records.open(&mut ours.come, &mut Vec::new());
    ours.plain.extend_from_slice(&ours.come[..opened.plain]);
    ours.come.drain(..opened.used);
    let bytes: Vec<u8> = to_theirs.drain(..count).collect();
    let mut rest = &bytes[..];
    while !rest.is_empty() && !theirs.has_failed {
        match theirs.server.read_tls(&mut rest) {
            Ok(0) => break,
            Ok(_) => {}
            // It wants to hold no more: what has come is no record.
            Err(_) => theirs.has_failed = true,
        }
        theirs.has_failed |= theirs.server.process_new_packets().is_err();
        let _ = theirs.server.reader().read_to_end(&mut theirs.plain);
    }
}

#[allow(clippy::unwrap_used, reason = "both ends are ours")]
fn with_records(
    mut client: ClientConnection,
    server: &Arc<ServerConfig>,
) -> (ClientConnection, Ours) {
    let mut shaking = Handshake::server(server).unwrap();
    let mut come = Vec::new();
    loop {
        while client.wants_write() {
            client.write_tls(&mut come).unwrap();
        }
        let mut out = Vec::new();
        let advanced = shaking.advance(&mut come, &mut out).unwrap();
        come.drain(..advanced.used);
        while !out.is_empty() {
            let count = client.read_tls(&mut &out[..]).unwrap();
            client.process_new_packets().unwrap();
            out.drain(..count);
        }
        if advanced.is_done {
            let (records, _) = shaking.finish(None).unwrap();
            return (client, Ours { records, come, plain: Vec::new() });
        }
    }
}

#[allow(clippy::unwrap_used, reason = "both ends are ours")]
fn with_rustls(
    mut client: ClientConnection,
    config: &Arc<ServerConfig>,
) -> (ClientConnection, Theirs) {
    let mut server = ServerConnection::new(Arc::clone(config)).unwrap();
    while client.is_handshaking() || server.is_handshaking() || server.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().unwrap();
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    (client, Theirs { server, has_failed: false, plain: Vec::new() })
}

#[allow(clippy::unwrap_used, reason = "a certificate made for this")]
fn configs_of() -> Configs {
    let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS12, &TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    server.enable_secret_extraction = true;
    let clients = [&TLS12, &TLS13].map(|version| {
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        Arc::new(config)
    });
    Configs { server: Arc::new(server), clients }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn programs_of_any_bytes_find_no_difference_to_rustls() {
        for seed in 0..150 {
            let mut rng = Rng::seeded(seed);
            let len = 2 + rng.below(60);
            let program: Vec<u8> = (0..len).map(|_| rng.below(256) as u8).collect();
            println!("seed {seed}: {program:?}");
            differ(&program);
        }
    }
}
