//! Plays of TLS and TCP: connections that are passed on by the name in their first message, and TLS
//! that ends here, begins here, or both, with plain bytes in between.
//!
//! Hellos are those of rustls, cut into pieces and records here; plain servers say their name.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use ringway::events::Event;
use rustls::{ClientConfig, ClientConnection, pki_types::ServerName};

use crate::{
    addresses,
    client::get,
    pace::ms,
    scripts::answers,
    secure::{self, Identity, VERSIONS},
    stage::{Driver, Setting, Stage, eventually, expect_about},
    wire::Broken,
};

on_both_drivers!(
    a_connection_goes_where_the_name_in_its_hello_says,
    a_hello_reaches_the_backend_untouched_however_it_is_split,
    the_protocols_of_a_client_are_a_condition,
    what_names_nothing_goes_to_the_default_pool,
    without_a_default_pool_an_unknown_name_is_reset,
    tls_may_end_in_front_of_a_plain_backend,
    tls_may_begin_behind_a_plain_client,
    tls_may_end_and_begin_again,
    a_cut_transfer_looks_cut_through_tls,
    ; at a pace:
    a_hello_has_the_time_of_a_handshake,
);

const PATIENCE: Duration = Duration::from_secs(20);

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

/// Says its name, then back what it hears.
fn says(name: &'static str) -> SocketAddr {
    serves(move |mut stream| {
        let _ = stream.write_all(name.as_bytes());
        let mut reading = stream.try_clone().unwrap();
        let _ = std::io::copy(&mut reading, &mut stream);
        let _ = stream.shutdown(Shutdown::Write);
    })
}

fn pool(name: &str, at: SocketAddr) -> String {
    format!("[pool.{name}]\nbackends = [\"{at}\"]\n")
}

fn route(name: &str, condition: &str) -> String {
    format!("[[route]]\nname = \"{name}\"\nlistener = \"web\"\n{condition}\npool = \"{name}\"\n")
}

fn tcp(driver: Driver) -> Setting {
    Stage::on(driver).listener("mode = \"tcp\"")
}

fn connect(stage: &Stage) -> TcpStream {
    let stream = TcpStream::connect(stage.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The first word that comes.
fn first(stream: &mut TcpStream, len: usize) -> String {
    let mut room = vec![0; len];
    stream.read_exact(&mut room).unwrap();
    String::from_utf8(room).unwrap()
}

/// The first message of a client that wants this name and speaks these protocols.
fn hello(name: &str, alpn: &[&str]) -> Vec<u8> {
    let identity = Identity::of(&["a.example"]);
    let mut config: ClientConfig = identity.trusting(&VERSIONS);
    config.alpn_protocols = alpn.iter().map(|one| one.as_bytes().to_vec()).collect();
    let name: ServerName<'static> = name.to_owned().try_into().unwrap();
    let mut tls = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    tls.write_tls(&mut bytes).unwrap();
    bytes
}

/// The same message in records of so many bytes.
fn in_records(hello: &[u8], bytes: usize) -> Vec<u8> {
    let record = |part: &[u8]| [&hello[..3], &(part.len() as u16).to_be_bytes()[..], part].concat();
    hello[5..].chunks(bytes).flat_map(record).collect()
}

fn a_connection_goes_where_the_name_in_its_hello_says(driver: Driver) {
    let names = ["a.example", "b.example", "c.example", "other.test"];
    let all: Vec<_> = names
        .into_iter()
        .map(|name| {
            let identity = Identity::of(&[name]);
            let at = secure::behind(says(name), identity.server(&VERSIONS, None), false).address;
            (identity, at)
        })
        .collect();
    let sections = [
        route("a", "host = \"A.example\""),
        route("b", "host = [\"b.example\", \"x.example\"]"),
        route("any", "host = \"*.example\""),
        pool("a", all[0].1),
        pool("b", all[1].1),
        pool("any", all[2].1),
    ];
    let stage = tcp(driver).written(all[3].1.to_string()).sections(&sections.concat()).start();
    for ((identity, _), name) in all.iter().zip(names) {
        let mut client = identity.connect(stage.address());
        // The certificate is that of the backend: nothing was decrypted on the way.
        assert_eq!(client.wire().bytes(name.len()).unwrap(), name.as_bytes());
        client.send("and back");
        assert_eq!(client.wire().bytes(8).unwrap(), b"and back");
    }
}

fn a_hello_reaches_the_backend_untouched_however_it_is_split(driver: Driver) {
    let (said, heard) = mpsc::channel();
    let backend = serves(move |mut stream| {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        said.send(all).unwrap();
    });
    let sections = [route("a", "host = \"a.example\""), pool("a", backend)].concat();
    let stage = tcp(driver).without_default_pool().sections(&sections).start();
    let whole = hello("a.example", &["h2"]);
    for bytes in [whole.clone(), in_records(&whole, 60), in_records(&whole, 1)] {
        let all = [&bytes[..], b"and more"].concat();
        for pieces in [all.len(), 7, 100] {
            let mut client = connect(&stage);
            client.set_nodelay(true).unwrap();
            all.chunks(pieces).for_each(|piece| client.write_all(piece).unwrap());
            client.shutdown(Shutdown::Write).unwrap();
            assert!(heard.recv_timeout(PATIENCE).unwrap() == all, "in pieces of {pieces}");
        }
    }
}

fn the_protocols_of_a_client_are_a_condition(driver: Driver) {
    let sections = [
        route("h2", "host = \"a.example\"\nalpn = \"h2\""),
        route("any", "host = \"a.example\""),
        route("sql", "alpn = [\"postgresql\", \"mysql\"]"),
        pool("h2", says("h2-")),
        pool("any", says("any")),
        pool("sql", says("sql")),
    ];
    let backend = says("app");
    let stage = tcp(driver).written(backend.to_string()).sections(&sections.concat()).start();
    for (name, alpn, expected) in [
        ("a.example", &["http/1.1", "h2"][..], "h2-"),
        ("a.example", &["http/1.1"], "any"),
        ("a.example", &[], "any"),
        ("b.example", &["mysql"], "sql"),
        ("b.example", &["h2"], "app"),
    ] {
        let mut client = connect(&stage);
        client.write_all(&hello(name, alpn)).unwrap();
        assert_eq!(first(&mut client, 3), expected, "{name} {alpn:?}");
    }
}

fn what_names_nothing_goes_to_the_default_pool(driver: Driver) {
    let sections = [route("a", "host = \"a.example\""), pool("a", says("one"))].concat();
    let backend = says("app");
    let stage = tcp(driver).written(backend.to_string()).sections(&sections).start();
    let unnamed = hello("127.0.0.1", &[]);
    for bytes in [&unnamed[..], b"SSH-2.0-x\r\n", b"GET / HTTP/1.1\r\n\r\n", &[0; 70_000]] {
        let mut client = connect(&stage);
        let mut writing = client.try_clone().unwrap();
        let said = bytes.to_vec();
        let saying = thread::spawn(move || writing.write_all(&said).unwrap());
        assert_eq!(first(&mut client, 3), "app");
        let mut back = vec![0; bytes.len()];
        client.read_exact(&mut back).unwrap();
        assert!(back == bytes);
        saying.join().unwrap();
    }
    // One that says nothing and has no more to say may still be told something.
    let mut client = connect(&stage);
    client.shutdown(Shutdown::Write).unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).unwrap();
    assert_eq!(said, "app");
}

fn without_a_default_pool_an_unknown_name_is_reset(driver: Driver) {
    let sections = [route("a", "host = \"a.example\""), pool("a", says("one"))].concat();
    let stage = tcp(driver).without_default_pool().sections(&sections).start();
    let mut client = connect(&stage);
    client.write_all(&hello("b.example", &[])).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let mut client = connect(&stage);
    client.write_all(&hello("a.example", &[])).unwrap();
    assert_eq!(first(&mut client, 3), "one");
}

fn tls_may_end_in_front_of_a_plain_backend(driver: Driver) {
    let identity = Identity::of(&["a.example"]);
    let sections = [route("a", "host = \"a.example\""), pool("a", says("one"))].concat();
    let stage = tcp(driver)
        .listener(&identity.line(""))
        .written(says("app").to_string())
        .sections(&sections)
        .start();
    // By the name of the handshake.
    let mut client = identity.connect(stage.address());
    assert_eq!(client.wire().bytes(3).unwrap(), b"one");
    client.send("twice");
    assert_eq!(client.wire().bytes(5).unwrap(), b"twice");
    client.half_close();
    client.expect_end();
    stage.expect_count("tunnels", 0);
}

fn tls_may_begin_behind_a_plain_client(driver: Driver) {
    let identity = Identity::of(&["a.example"]);
    let behind = secure::behind(says("app"), identity.server(&VERSIONS, None), false);
    let stage = tcp(driver).written(behind.address.to_string()).pool(&identity.pool_line()).start();
    let mut client = connect(&stage);
    assert_eq!(first(&mut client, 3), "app");
    client.write_all(b"twice").unwrap();
    assert_eq!(first(&mut client, 5), "twice");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    stage.expect_count("tunnels", 0);
}

fn tls_may_end_and_begin_again(driver: Driver) {
    let (front, back) = (Identity::of(&["a.example"]), Identity::of(&["b.example"]));
    let behind = secure::behind(says("app"), back.server(&VERSIONS, None), false);
    let stage = tcp(driver)
        .listener(&front.line(""))
        .written(behind.address.to_string())
        .pool(&back.pool_line())
        .start();
    let mut client = front.connect(stage.address());
    assert_eq!(client.wire().bytes(3).unwrap(), b"app");
    let many = vec![b'x'; 300_000];
    client.send(&many);
    assert!(client.wire().bytes(many.len()).unwrap() == many);
}

/// A server that resets amid its answer: the client may not take what has come for all of it.
fn a_cut_transfer_looks_cut_through_tls(driver: Driver) {
    let identity = Identity::of(&["a.example"]);
    let backend = serves(|mut stream| {
        stream.write_all(b"half").unwrap();
        // Once that has been passed on.
        let _ = stream.read(&mut [0]);
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    });
    let stage = tcp(driver).listener(&identity.line("")).written(backend.to_string()).start();
    let mut client = identity.connect(stage.address());
    assert_eq!(client.wire().bytes(4).unwrap(), b"half");
    client.send("x");
    // The bridge makes a reset of an end without `close_notify`.
    assert_eq!(client.wire().until_end(), Err(Broken::Reset));
    stage.expect_count("tunnels", 0);
}

fn a_hello_has_the_time_of_a_handshake(driver: Driver, slower: u32) {
    let time = Duration::from_millis(500) * slower;
    let sections = [route("a", "host = \"a.example\""), pool("a", says("one"))].concat();
    let stage = tcp(driver)
        .listener(&format!("timeouts = {{ tls-handshake = {} }}", ms(time)))
        .without_default_pool()
        .sections(&sections)
        .start();
    let whole = hello("a.example", &[]);
    let mut client = crate::client::Client::connect(stage.address());
    client.send(&whole[..whole.len() / 2]);
    let took = client.waits(|client| client.expect_gone());
    expect_about(took, time);
    let is_told = |event: &Event| format!("{event:?}").contains("tls-handshake");
    eventually("it is said", || stage.happened().iter().any(is_told), |said| *said);
    // HTTP goes on as ever beside it.
    let other = Stage::on(driver).backend(answers("ok")).start();
    other.connect().send(get("/")).response().expect(200, "ok");
}
