//! A whole message on the wire: from a client through the proxy on one core to a backend and back.
//!
//! Everything is on loopback and in this process: client and backend are plain threads, the proxy
//! is started through the public API. One request at a time shows what a message costs in turns and
//! system calls, sixteen at once what it costs besides. For comparing two states of this tree on
//! one machine; `loadtest/` compares it with other proxies.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringway::{Handle, Stop};

const REQUEST: &[u8] = include_bytes!("heads/wrk.txt");

/// Requests that are sent at once.
const PIPELINED: usize = 16;

/// A backend that answers each request with so many bytes; its thread ends with the process.
fn backend(bytes: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + bytes, b'x');
    std::thread::spawn(move || {
        // One core asks on one connection at a time here.
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            connection.set_nodelay(true).unwrap();
            let mut room = [0; 4096];
            while connection.read(&mut room).is_ok_and(|count| count > 0) {
                connection.write_all(&answer).unwrap();
            }
        }
    });
    address
}

/// A proxy on one core before this backend; none where the kernel refuses the driver.
fn proxy(driver: &str, backend: SocketAddr) -> Option<Handle> {
    let text = format!(
        "global = {{ cores = 1, pin = false, driver = \"{driver}\" }}\n\
         [listener.web]\nbind = \"127.0.0.1:0\"\npool = \"app\"\n\
         [pool.app]\nbackends = [\"{backend}\"]\n"
    );
    let loaded = ringway::config::parse("wire.toml", &text);
    let plan = loaded.unwrap_or_else(|problems| panic!("{problems}")).plan;
    ringway::start(plan).inspect_err(|error| eprintln!("not measured: {error}")).ok()
}

/// A client that knows how long an answer is.
struct Client {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr, bytes: usize) -> Client {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(REQUEST).unwrap();
        let mut answer = Vec::new();
        let head_end = b"\r\n\r\n";
        let mut room = [0; 64 << 10];
        loop {
            let count = stream.read(&mut room).unwrap();
            answer.extend_from_slice(&room[..count]);
            let body = answer.windows(4).position(|four| four == head_end).map(|at| at + 4);
            if body.is_some_and(|start| answer.len() == start + bytes) {
                break;
            }
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 "));
        Client { stream, answer }
    }

    /// Asks so many times at once and reads all the answers.
    fn ask(&mut self, requests: &[u8], count: usize) {
        self.stream.write_all(requests).unwrap();
        for _ in 0..count {
            self.stream.read_exact(&mut self.answer).unwrap();
        }
    }
}

fn wire(criterion: &mut Criterion) {
    let pipelined = REQUEST.repeat(PIPELINED);
    for driver in ["io_uring", "epoll"] {
        for (size, bytes) in [("128B", 128), ("16KiB", 16 << 10)] {
            let Some(handle) = proxy(driver, backend(bytes)) else { continue };
            let mut client = Client::connect(handle.addresses()[0].1.tcp().unwrap(), bytes);
            let mut group = criterion.benchmark_group(format!("wire/{driver}/{size}"));
            for (requests, count) in [(REQUEST, 1), (&pipelined[..], PIPELINED)] {
                group.throughput(Throughput::Elements(count as u64));
                group.bench_function(format!("{count}"), |bencher| {
                    bencher.iter(|| client.ask(requests, count));
                });
            }
            group.finish();
            drop(client);
            handle.stop(Stop::Now);
        }
    }
}

criterion_group!(benches, wire);
criterion_main!(benches);
