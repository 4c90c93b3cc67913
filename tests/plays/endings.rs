//! Plays of how connections of TCP end, what their lines in the log say of it, and what it says of
//! their backend.
//!
//! A reset must be a reset on both sides: a clean end would say that all had come.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use ringway::{Stop, events::Event};
use rustls::{ClientConnection, ServerConnection, StreamOwned};
use serde_json::{Map, Value};

use crate::{
    addresses,
    logs::Folder,
    pace::ms,
    secure::{Identity, VERSIONS},
    stage::{Driver, Setting, Stage, eventually, expect_about},
    told::Process,
};

on_both_drivers!(
    what_is_open_when_a_drain_is_over_is_reset,
    nothing_looks_whole_through_tls_when_a_drain_is_over,
    a_reset_is_no_end_for_a_backend_with_tls,
    a_line_says_how_a_connection_ended_and_who_ended_it,
    a_line_names_the_host_that_a_client_of_tls_wants,
    a_line_has_what_a_proxy_in_front_has_told,
    a_backend_that_resets_before_its_first_byte_is_ejected,
    a_breaker_opens_for_a_backend_that_resets_before_its_first_byte,
    what_clients_do_ejects_nobody,
    a_backend_that_ends_connections_too_soon_is_ejected,
    first_bytes_that_come_with_their_end_leave_with_it_and_a_reset_stays_one,
    ; at a pace:
    a_connection_lasts_no_longer_than_it_may,
);

const PATIENCE: Duration = Duration::from_secs(30);

/// A server that does this with each connection.
fn serves(with: impl Fn(TcpStream) + Send + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind((addresses::host(), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let with = with.clone();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            thread::spawn(move || with(stream));
        }
    });
    address
}

/// Says back what it hears, until that ends; then tells how it ended: none = cleanly. Of those that
/// say nothing it tells nothing.
fn echoes(told: mpsc::Sender<Option<ErrorKind>>) -> SocketAddr {
    serves(move |mut stream| {
        if !matches!(stream.peek(&mut [0]), Ok(1)) {
            return;
        }
        let ended = echo(&mut stream);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = told.send(ended);
    })
}

fn echo(stream: &mut (impl Read + Write)) -> Option<ErrorKind> {
    let mut room = [0; 4096];
    loop {
        match stream.read(&mut room) {
            Ok(0) => return None,
            Ok(count) => stream.write_all(&room[..count]).ok()?,
            Err(error) => return Some(error.kind()),
        }
    }
}

fn tcp(driver: Driver) -> Setting {
    Stage::on(driver).listener("mode = \"tcp\"")
}

fn connect(stage: &Stage) -> TcpStream {
    let stream = TcpStream::connect(stage.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn says_and_hears(stream: &mut (impl Read + Write), word: &str) -> io::Result<()> {
    stream.write_all(word.as_bytes())?;
    let mut heard = vec![0; word.len()];
    stream.read_exact(&mut heard)?;
    assert_eq!(heard, word.as_bytes());
    Ok(())
}

/// Makes the close of a connection a reset.
fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
}

/// The kind of error with which reading ends; none if by a clean end.
fn ending(stream: &mut impl Read) -> Option<ErrorKind> {
    io::copy(stream, &mut io::sink()).err().map(|error| error.kind())
}

/// Hears the other out, and closes.
fn hears_out(mut stream: TcpStream) {
    let _ = ending(&mut stream);
}

const RESET: Option<ErrorKind> = Some(ErrorKind::ConnectionReset);

fn what_is_open_when_a_drain_is_over_is_reset(driver: Driver) {
    for (how, drain) in [(Stop::Graceful, "1s"), (Stop::Now, "1h")] {
        let (told, ends) = mpsc::channel();
        let setting = tcp(driver).global(&format!("shutdown = {{ drain = \"{drain}\" }}"));
        let mut stage = setting.written(echoes(told).to_string()).start();
        let address = stage.address();
        let [mut one, mut other] = [connect(&stage), connect(&stage)];
        for client in [&mut one, &mut other] {
            says_and_hears(client, "here").unwrap();
        }
        let stopping = stage.stop_beside(how);
        if how == Stop::Graceful {
            crate::stage::expect_closed(address);
            // It drains: what is open goes on.
            says_and_hears(&mut one, "still here").unwrap();
        }
        assert_eq!(ending(&mut one), RESET);
        assert_eq!(ending(&mut other), RESET);
        for _ in 0..2 {
            assert_eq!(ends.recv_timeout(PATIENCE).unwrap(), RESET);
        }
        let (_, finished) = stopping.join().unwrap();
        assert!(!finished);
    }
}

/// A server that speaks TLS, and tells how its connections end.
fn secure_echo(identity: &Identity, told: mpsc::Sender<Option<ErrorKind>>) -> SocketAddr {
    let config = Arc::new(identity.server(&VERSIONS, None));
    serves(move |stream| {
        let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
        let ended = echo(&mut StreamOwned::new(tls, stream));
        let _ = told.send(ended);
    })
}

fn secure_client(identity: &Identity, stage: &Stage) -> StreamOwned<ClientConnection, TcpStream> {
    let config = Arc::new(identity.trusting(&VERSIONS));
    let name = "a.example".try_into().unwrap();
    StreamOwned::new(ClientConnection::new(config, name).unwrap(), connect(stage))
}

/// TLS says its end itself; without that a transfer was cut.
fn is_cut(ended: Option<ErrorKind>) -> bool {
    matches!(ended, Some(ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof))
}

/// In front and behind.
fn with_tls(driver: Driver, identity: &Identity, behind: SocketAddr) -> Setting {
    tcp(driver).listener(&identity.line("")).pool(&identity.pool_line()).written(behind.to_string())
}

fn nothing_looks_whole_through_tls_when_a_drain_is_over(driver: Driver) {
    let identity = Identity::of(&["a.example"]);
    let (told, ends) = mpsc::channel();
    let behind = secure_echo(&identity, told);
    let mut stage = with_tls(driver, &identity, behind).start();
    let mut client = secure_client(&identity, &stage);
    says_and_hears(&mut client, "here").unwrap();
    stage.stop_beside(Stop::Now).join().unwrap();
    let ended = ending(&mut client);
    assert!(is_cut(ended), "{ended:?}");
    let ended = ends.recv_timeout(PATIENCE).unwrap();
    assert!(is_cut(ended), "{ended:?}");
}

fn a_reset_is_no_end_for_a_backend_with_tls(driver: Driver) {
    let identity = Identity::of(&["a.example"]);
    let (told, ends) = mpsc::channel();
    let behind = secure_echo(&identity, told);
    let stage = with_tls(driver, &identity, behind).start();
    let mut client = secure_client(&identity, &stage);
    says_and_hears(&mut client, "here").unwrap();
    reset(client.sock);
    let ended = ends.recv_timeout(PATIENCE).unwrap();
    assert!(is_cut(ended), "{ended:?}");
    // An end is passed on as one.
    let mut client = secure_client(&identity, &stage);
    says_and_hears(&mut client, "here").unwrap();
    client.conn.send_close_notify();
    client.flush().unwrap();
    assert_eq!(ends.recv_timeout(PATIENCE).unwrap(), None);
}

fn a_connection_lasts_no_longer_than_it_may(driver: Driver, slower: u32) {
    let time = Duration::from_millis(600) * slower;
    let (told, ends) = mpsc::channel();
    let stage = tcp(driver)
        .listener(&format!("timeouts = {{ tunnel-life = {} }}", ms(time)))
        .written(echoes(told).to_string())
        .start();
    let watch = crate::pace::Watch::start();
    let mut client = connect(&stage);
    // It is never silent.
    let ended = loop {
        if let Err(error) = says_and_hears(&mut client, "here") {
            break error.kind();
        }
        thread::sleep(Duration::from_millis(5));
    };
    expect_about(watch.took(), time);
    assert!(matches!(ended, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{ended:?}");
    assert_eq!(ends.recv_timeout(PATIENCE).unwrap(), RESET);
    stage.expect_count("tunnels", 0);
}

/// The one line of a connection, once the stage is struck.
#[track_caller]
fn one_line(folder: &Folder, stage: Stage) -> Map<String, Value> {
    let mut lines = folder.lines(stage);
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

fn a_line_says_how_a_connection_ended_and_who_ended_it(driver: Driver) {
    type Ends = fn(TcpStream);
    let waits: Ends = hears_out;
    let closes: Ends = |stream| {
        stream.shutdown(Shutdown::Write).unwrap();
        let _ = ending(&mut &stream);
    };
    let resets: Ends = reset;
    for (timeouts, client_ends, server_ends, expected) in [
        ("", closes, waits, ("tunnel_closed", "client")),
        ("", waits, closes, ("tunnel_closed", "backend")),
        ("", resets, waits, ("client_abort", "client")),
        ("", waits, resets, ("response_incomplete", "backend")),
        ("tunnel = \"1500ms\"", waits, waits, ("tunnel_idle", "ringway")),
        ("tunnel-life = \"1500ms\"", waits, waits, ("tunnel_expired", "ringway")),
    ] {
        let server = serves(move |mut stream| {
            let mut heard = [0; 5];
            stream.read_exact(&mut heard).unwrap();
            stream.write_all(b"and hello").unwrap();
            // Until the client has it.
            stream.read_exact(&mut [0; 1]).unwrap();
            server_ends(stream);
        });
        let folder = Folder::new();
        let stage = folder
            .stage(driver, "json")
            .listener(&format!("mode = \"tcp\"\ntimeouts = {{ {timeouts} }}"))
            .written(server.to_string())
            .start();
        let mut client = connect(&stage);
        client.write_all(b"hello").unwrap();
        client.read_exact(&mut [0; 9]).unwrap();
        client.write_all(b"!").unwrap();
        client_ends(client);
        let line = one_line(&folder, stage);
        let said = |key: &str| line[key].as_str().unwrap_or("null").to_owned();
        assert_eq!((&*said("term"), &*said("ended_by")), expected);
        assert_eq!((&line["request_bytes"], &line["response_bytes"]), (&6.into(), &9.into()));
        assert_eq!((said("pool"), said("backend")), ("app".into(), server.to_string()));
        assert_eq!((said("scheme"), said("host")), ("tcp".into(), "null".into()));
        assert!(line["t_total"].as_f64() >= line["t_connect"].as_f64(), "{line:?}");
        for key in ["status", "method", "path", "protocol", "trace_id"] {
            assert_eq!(line[key], Value::Null, "{key}");
        }
    }
    // What cannot be connected has one, too.
    let folder = Folder::new();
    let setting = folder.stage(driver, "json").listener("mode = \"tcp\"");
    let stage = setting.written(addresses::free().to_string()).start();
    assert_eq!(ending(&mut connect(&stage)), RESET);
    let line = one_line(&folder, stage);
    assert_eq!((&line["term"], &line["ended_by"]), (&"connect_failed".into(), &"ringway".into()));
    // And what a stop ends: its line is written before the process ends.
    let folder = Folder::new();
    let setting = folder.stage(driver, "json").listener("mode = \"tcp\"");
    let mut stage = setting.written(echoes(mpsc::channel().0).to_string()).start();
    let mut client = connect(&stage);
    says_and_hears(&mut client, "here").unwrap();
    stage.stop_beside(Stop::Now).join().unwrap();
    let text = std::fs::read_to_string(folder.path()).unwrap();
    assert!(text.contains("\"term\":\"tunnel_drained\"") && text.contains("ringway\""), "{text}");
}

fn a_line_names_the_host_that_a_client_of_tls_wants(driver: Driver) {
    let identity = Identity::of(&["a.example"]);
    let route = "[[route]]\nname = \"a\"\nlistener = \"web\"\nhost = \"a.example\"\npool = \"a\"\n";
    for ends_here in [false, true] {
        let (told, ends) = mpsc::channel();
        let (server, tls, scheme) = if ends_here {
            (echoes(told), identity.line(""), "tls")
        } else {
            (secure_echo(&identity, told), String::new(), "tcp")
        };
        let folder = Folder::new();
        let stage = folder
            .stage(driver, "json")
            .listener(&format!("mode = \"tcp\"\n{tls}"))
            .without_default_pool()
            .sections(&format!("{route}[pool.a]\nbackends = [\"{server}\"]\n"))
            .start();
        let mut client = secure_client(&identity, &stage);
        says_and_hears(&mut client, "here").unwrap();
        client.conn.send_close_notify();
        client.flush().unwrap();
        client.sock.shutdown(Shutdown::Write).unwrap();
        assert_eq!(ends.recv_timeout(PATIENCE).unwrap(), None);
        let _ = ending(&mut client.sock);
        let line = one_line(&folder, stage);
        assert_eq!((&line["host"], &line["route"]), (&"a.example".into(), &"a".into()));
        assert_eq!((&line["scheme"], line["tls"].is_string()), (&scheme.into(), ends_here));
    }
}

fn a_line_has_what_a_proxy_in_front_has_told(driver: Driver) {
    let addition = |kind: u8, value: &[u8]| {
        let mut bytes = vec![kind, 0, u8::try_from(value.len()).unwrap()];
        bytes.extend_from_slice(value);
        bytes
    };
    let ssl = [
        &[7, 0, 0, 0, 0][..],
        &addition(0x21, b"TLSv1.3"),
        &addition(0x22, b"some\"one"),
        &addition(0x23, b"SUITE"),
    ]
    .concat();
    let additions = [
        addition(0x01, b"postgresql"),
        addition(0x02, b"a.example"),
        addition(0x05, b"id-7"),
        addition(0xe7, b"own"),
        addition(0x20, &ssl),
    ]
    .concat();
    let len = u16::try_from(12 + additions.len()).unwrap().to_be_bytes();
    let header = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..],
        &len,
        &[192, 0, 2, 7, 203, 0, 113, 9, 0xdc, 0x04, 0x11, 0x4e],
        &additions,
    ]
    .concat();
    let folder = Folder::new();
    let stage = folder
        .stage(driver, "json")
        .listener("mode = \"tcp\"\nproxy-protocol = { from = [\"127.0.0.0/8\"] }")
        .written(echoes(mpsc::channel().0).to_string())
        .start();
    let mut client = connect(&stage);
    client.write_all(&header).unwrap();
    says_and_hears(&mut client, "here").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(ending(&mut client), None);
    let line = one_line(&folder, stage);
    for (key, expected) in [
        ("client", "192.0.2.7"),
        ("proxy_alpn", "postgresql"),
        ("proxy_authority", "a.example"),
        ("proxy_unique_id", "id-7"),
        ("proxy_tls_version", "TLSv1.3"),
        ("proxy_tls_suite", "SUITE"),
        ("proxy_tls_name", "some\"one"),
        ("term", "tunnel_closed"),
    ] {
        assert_eq!(line[key], expected, "{key}");
    }
}

/// Connects, says something, and reads to the end, without a complaint whatever comes.
fn visits(stage: &Stage) {
    if let Ok(mut stream) = TcpStream::connect(stage.address()) {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(b"here");
        let _ = stream.shutdown(Shutdown::Write);
        let _ = ending(&mut stream);
    }
}

/// The addresses of backends that were ejected, with what that was for.
fn ejected(stage: &Stage) -> Vec<String> {
    let names = stage.happened().into_iter().filter_map(|event| match event {
        Event::BackendEjected(it) => Some(it.backend.to_string()),
        _ => None,
    });
    names.collect()
}

/// Takes connections, hears something, and resets them.
fn resets_unheard() -> SocketAddr {
    serves(|mut stream| {
        let _ = stream.read(&mut [0; 1]);
        reset(stream);
    })
}

const THREE: &str = "passive = { max-failures = 3, eject = \"60s\" }";

fn a_backend_that_resets_before_its_first_byte_is_ejected(driver: Driver) {
    let (bad, good) = (resets_unheard(), echoes(mpsc::channel().0));
    let stage = tcp(driver).pool(THREE).written(bad.to_string()).written(good.to_string()).start();
    let ejects = || {
        visits(&stage);
        ejected(&stage)
    };
    let names = eventually("one is ejected", ejects, |names| !names.is_empty());
    assert_eq!(names, [bad.to_string()]);
    // It gets no more connections.
    for _ in 0..6 {
        says_and_hears(&mut connect(&stage), "here").unwrap();
    }
}

fn a_breaker_opens_for_a_backend_that_resets_before_its_first_byte(driver: Driver) {
    let (bad, good) = (resets_unheard(), echoes(mpsc::channel().0));
    let stage = tcp(driver)
        .pool("passive = { max-failures = 0 }\nbreaker = { min-requests = 4, open = \"60s\" }")
        .written(bad.to_string())
        .written(good.to_string())
        .start();
    let opens = || {
        visits(&stage);
        let is_open = |event: &Event| matches!(event, Event::BreakerOpen(_));
        stage.happened().iter().any(is_open)
    };
    eventually("its breaker opens", opens, |open| *open);
    assert!(ejected(&stage).is_empty());
    for _ in 0..6 {
        says_and_hears(&mut connect(&stage), "here").unwrap();
    }
}

fn what_clients_do_ejects_nobody(driver: Driver) {
    // One that says nothing, and one that ends well when its client does.
    let [silent, other] = [(); 2].map(|()| serves(hears_out));
    let stage = tcp(driver)
        .pool("passive = { max-failures = 3, eject = \"60s\", min-life = \"1h\" }")
        .written(silent.to_string())
        .written(other.to_string())
        .start();
    for number in 0..16 {
        let mut client = connect(&stage);
        client.write_all(b"here").unwrap();
        stage.expect_count("tunnels", 1);
        if number % 2 == 0 {
            reset(client);
        } else {
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(ending(&mut client), None);
        }
        stage.expect_count("tunnels", 0);
    }
    assert!(ejected(&stage).is_empty());
}

fn a_backend_that_ends_connections_too_soon_is_ejected(driver: Driver) {
    for (min_life, ejects) in [("", false), (", min-life = \"30s\"", true)] {
        // A whole answer, and a clean end.
        let brief = || serves(|mut stream| drop(stream.write_all(b"good bye")));
        let (one, other) = (brief(), brief());
        let stage = tcp(driver)
            .pool(&format!("passive = {{ max-failures = 3, eject = \"60s\"{min_life} }}"))
            .written(one.to_string())
            .written(other.to_string())
            .start();
        for _ in 0..12 {
            let mut client = connect(&stage);
            let mut said = String::new();
            client.read_to_string(&mut said).unwrap();
            assert_eq!(said, "good bye");
            drop(client);
            stage.expect_count("tunnels", 0);
        }
        if ejects {
            eventually("one is ejected", || ejected(&stage), |names| names.len() == 1);
        } else {
            assert!(ejected(&stage).is_empty());
        }
    }
}

/// What is heard up to the end, and the end.
fn hears_all(stream: &mut TcpStream) -> (Vec<u8>, Option<ErrorKind>) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut heard = Vec::new();
    let ended = stream.read_to_end(&mut heard).err().map(|error| error.kind());
    (heard, ended)
}

/// Says a word and ends, while nobody hears it.
fn says_and_ends(mut stream: &TcpStream, word: &str, resets: bool) {
    stream.write_all(word.as_bytes()).unwrap();
    match resets {
        true => rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).unwrap(),
        false => stream.shutdown(Shutdown::Write).unwrap(),
    }
}

fn first_bytes_that_come_with_their_end_leave_with_it_and_a_reset_stays_one(driver: Driver) {
    let server = TcpListener::bind((addresses::host(), 0)).unwrap();
    let pool = format!("backends = [\"{}\"]", server.local_addr().unwrap());
    let process = Process::with_pool(driver, "mode = \"tcp\"", &pool, "text");
    for resets in [false, true] {
        let ended = resets.then_some(ErrorKind::ConnectionReset);
        // The client's: they are there before a backend is looked for.
        let client = process.standing(|| {
            let client = TcpStream::connect(process.address).unwrap();
            says_and_ends(&client, "ask", resets);
            (!resets).then_some(client)
        });
        let (mut behind, _) = server.accept().unwrap();
        let (heard, end) = hears_all(&mut behind);
        assert_eq!(end, ended);
        assert!(resets || heard == b"ask", "{heard:?}");
        if let Some(mut client) = client {
            behind.write_all(b"answer").unwrap();
            drop(behind);
            assert_eq!(hears_all(&mut client), (b"answer".to_vec(), None));
        }
        // The backend's.
        let mut client = TcpStream::connect(process.address).unwrap();
        client.write_all(b"ask").unwrap();
        let (mut behind, _) = server.accept().unwrap();
        behind.read_exact(&mut [0; 3]).unwrap();
        process.standing(move || says_and_ends(&behind, "answer", resets));
        let (heard, end) = hears_all(&mut client);
        assert_eq!(end, ended);
        assert!(resets || heard == b"answer", "{heard:?}");
    }
}
