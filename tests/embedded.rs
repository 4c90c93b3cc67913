//! A program that starts and stops Ringway many times has no more threads and descriptors than
//! before: whoever embeds it, and whoever tests with it, does just that.
//!
//! A program of its own, because it counts what the process has.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use ringway::Stop;

/// How often it is started and stopped.
const TIMES: usize = 20;

/// A backend that answers once on each connection.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1_024]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    address
}

/// The descriptors and the threads of this process.
fn has() -> [usize; 2] {
    ["/proc/self/fd", "/proc/self/task"].map(|folder| fs::read_dir(folder).unwrap().count())
}

/// Starts it, asks once, and stops it; a stop that waits for nobody finds the client still there.
fn once(driver: &str, backend: SocketAddr, how: Stop) {
    let text = format!(
        "[global]\ndriver = \"{driver}\"\ncores = 2\nadmin = \"off\"\n\
         [listener.web]\nbind = [\"127.0.0.1:0\", \"[::1]:0\"]\npool = \"app\"\n\
         [pool.app]\nbackends = [\"{backend}\"]\nhealth = {{ path = \"/\" }}\n"
    );
    let handle = ringway::start(ringway::config::parse("t.toml", &text).unwrap().plan).unwrap();
    let address = handle.addresses()[0].1.tcp().unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    if how == Stop::Graceful {
        drop(client);
    }
    handle.stop(how);
    assert!(TcpStream::connect(address).is_err(), "the port is free");
}

#[test]
fn a_stop_leaves_nothing_behind() {
    let backend = backend();
    for driver in ["io_uring", "epoll"] {
        for how in [Stop::Now, Stop::Graceful] {
            // What is made once stays.
            once(driver, backend, how);
            let before = has();
            (0..TIMES).for_each(|_| once(driver, backend, how));
            let since = Instant::now();
            while has().iter().zip(before).any(|(now, before)| *now > before + TIMES / 4) {
                let (after, late) = (has(), since.elapsed() > Duration::from_secs(10));
                assert!(!late, "{driver}, {how:?}: descriptors and threads {before:?}, {after:?}");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}
