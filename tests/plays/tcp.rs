//! Plays of TCP listeners: connections whose bytes pass both ways, with the end that each had.
//!
//! Servers and clients are plain sockets: nothing here speaks HTTP.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::{
    addresses,
    stage::{Driver, Stage, eventually},
};

on_both_drivers!(
    bytes_pass_both_ways,
    a_server_may_speak_first,
    a_half_that_is_shut_down_is_shut_down_on_the_other_side,
    a_reset_of_a_server_is_a_reset_for_its_client,
    a_reset_of_a_client_is_a_reset_for_its_server,
    a_server_that_refuses_costs_no_client_anything,
    a_client_without_any_server_is_reset,
    connections_are_shared_out_and_counted,
    much_passes_both_ways_at_once,
    a_silent_connection_is_ended,
    a_connection_beyond_the_limit_is_reset,
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

/// Says back what it hears, until that ends.
fn echoes(stream: TcpStream) {
    let mut reading = stream.try_clone().unwrap();
    let mut writing = stream;
    let _ = std::io::copy(&mut reading, &mut writing);
    let _ = writing.shutdown(Shutdown::Write);
}

fn stage(driver: Driver, servers: &[SocketAddr]) -> Stage {
    let setting = Stage::on(driver).listener("mode = \"tcp\"");
    servers.iter().fold(setting, |setting, at| setting.written(at.to_string())).start()
}

fn connect(stage: &Stage) -> TcpStream {
    let stream = TcpStream::connect(stage.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Makes the close of a connection a reset.
fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
}

/// The kind of error with which reading ends; none if by a clean end.
fn ending(stream: &mut TcpStream) -> Option<ErrorKind> {
    std::io::copy(stream, &mut std::io::sink()).err().map(|error| error.kind())
}

fn bytes_pass_both_ways(driver: Driver) {
    let stage = stage(driver, &[serves(echoes)]);
    let (mut client, mut bytes) = (connect(&stage), 0);
    for word in [&b"one"[..], b"GET / HTTP/1.1\r\n\r\n", b"\0\x16\x03", b"four"] {
        client.write_all(word).unwrap();
        let mut heard = vec![0; word.len()];
        client.read_exact(&mut heard).unwrap();
        assert_eq!(heard, word);
        bytes += word.len() as u64;
    }
    assert_eq!(stage.count("tunnels"), 1);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(ending(&mut client), None);
    stage.expect_count("tunnels", 0);
    // They are counted for the backend, too.
    let statistics = stage.handle().statistics().unwrap();
    let backend = &statistics.pools[0].backends[0];
    assert_eq!((backend.bytes_in, backend.bytes_out), (bytes, bytes));
}

fn a_server_may_speak_first(driver: Driver) {
    let stage = stage(
        driver,
        &[serves(|mut stream| {
            stream.write_all(b"220 ready\r\n").unwrap();
            echoes(stream);
        })],
    );
    let mut client = connect(&stage);
    let mut greeting = [0; 11];
    client.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
}

fn a_half_that_is_shut_down_is_shut_down_on_the_other_side(driver: Driver) {
    let stage = stage(
        driver,
        &[serves(|mut stream| {
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).unwrap();
            // Only now: what follows shows that this half is still open.
            write!(stream, "{} bytes", heard.len()).unwrap();
        })],
    );
    let mut client = connect(&stage);
    client.write_all(&[b'x'; 1000]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).unwrap();
    assert_eq!(said, "1000 bytes");
}

fn a_reset_of_a_server_is_a_reset_for_its_client(driver: Driver) {
    let stage = stage(
        driver,
        &[serves(|mut stream| {
            stream.write_all(b"half of it").unwrap();
            // So that what was said is not lost on the way.
            stream.read_exact(&mut [0; 1]).unwrap();
            reset(stream);
        })],
    );
    let mut client = connect(&stage);
    client.read_exact(&mut [0; 10]).unwrap();
    client.write_all(b"!").unwrap();
    assert_eq!(ending(&mut client), Some(ErrorKind::ConnectionReset));
    stage.expect_count("tunnels", 0);
}

fn a_reset_of_a_client_is_a_reset_for_its_server(driver: Driver) {
    let (tell, told) = mpsc::channel();
    let server = serves(move |mut stream| {
        let mut heard = [0; 5];
        stream.read_exact(&mut heard).unwrap();
        stream.write_all(&heard).unwrap();
        tell.send(ending(&mut stream)).unwrap();
    });
    let stage = stage(driver, &[server]);
    let mut client = connect(&stage);
    client.write_all(b"hello").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    reset(client);
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), Some(ErrorKind::ConnectionReset));
}

fn a_server_that_refuses_costs_no_client_anything(driver: Driver) {
    let setting = Stage::on(driver).listener("mode = \"tcp\"").pool("retry = { attempts = 3 }");
    let servers = [addresses::free(), serves(echoes), addresses::free()];
    let stage = servers.iter().fold(setting, |it, at| it.written(at.to_string())).start();
    for _ in 0..12 {
        let mut client = connect(&stage);
        client.write_all(b"here").unwrap();
        client.read_exact(&mut [0; 4]).unwrap();
    }
    assert!(stage.count("retries_total") > 0);
}

fn a_client_without_any_server_is_reset(driver: Driver) {
    let stage = stage(driver, &[addresses::free()]);
    let mut client = connect(&stage);
    assert_eq!(ending(&mut client), Some(ErrorKind::ConnectionReset));
}

fn connections_are_shared_out_and_counted(driver: Driver) {
    let named = |name: u8| {
        serves(move |mut stream| {
            stream.write_all(&[name]).unwrap();
            echoes(stream);
        })
    };
    let setting = Stage::on(driver)
        .listener("mode = \"tcp\"")
        .pool("balance = \"least-connections\"")
        .written(named(b'a').to_string())
        .written(named(b'b').to_string());
    let stage = setting.start();
    let mut names = Vec::new();
    let clients: Vec<TcpStream> = (0..8)
        .map(|_| {
            let mut client = connect(&stage);
            let mut name = [0; 1];
            client.read_exact(&mut name).unwrap();
            names.push(name[0]);
            client
        })
        .collect();
    assert_eq!(names.iter().filter(|name| **name == b'a').count(), 4, "{names:?}");
    assert_eq!(stage.count("tunnels"), 8);
    drop(clients);
    stage.expect_count("tunnels", 0);
}

fn much_passes_both_ways_at_once(driver: Driver) {
    const MUCH: usize = 8 << 20;
    let stage = stage(driver, &[serves(echoes)]);
    let client = connect(&stage);
    let sent: Vec<u8> = (0..MUCH).map(|at| ((at * 31) >> 5) as u8).collect();
    let mut writing = client.try_clone().unwrap();
    let again = sent.clone();
    let writer = thread::spawn(move || {
        writing.write_all(&again).unwrap();
        writing.shutdown(Shutdown::Write).unwrap();
    });
    let mut heard = Vec::new();
    (&client).read_to_end(&mut heard).unwrap();
    writer.join().unwrap();
    assert!(heard == sent, "{} of {MUCH} bytes, or not the same", heard.len());
}

fn a_silent_connection_is_ended(driver: Driver) {
    let setting = Stage::on(driver).listener("mode = \"tcp\"\ntimeouts = { tunnel = \"300ms\" }");
    let stage = setting.written(serves(echoes).to_string()).start();
    let mut client = connect(&stage);
    client.write_all(b"here").unwrap();
    client.read_exact(&mut [0; 4]).unwrap();
    ending(&mut client);
    stage.expect_count("tunnels", 0);
}

fn a_connection_beyond_the_limit_is_reset(driver: Driver) {
    let setting = Stage::on(driver).listener("mode = \"tcp\"\nmax-connections = 1");
    let stage = setting.written(serves(echoes).to_string()).start();
    let mut first = connect(&stage);
    first.write_all(b"here").unwrap();
    first.read_exact(&mut [0; 4]).unwrap();
    let mut second = connect(&stage);
    assert_eq!(ending(&mut second), Some(ErrorKind::ConnectionReset));
    drop(first);
    let again = || {
        let mut next = connect(&stage);
        let _ = next.write_all(b"here");
        next.read_exact(&mut [0; 4]).is_ok()
    };
    eventually("room for another", again, |is_served| *is_served);
}
