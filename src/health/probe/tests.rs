//! Tests of probes against scripted backends on loopback, on both drivers.
//!
//! A backend is a thread that serves one connection: it sends these bytes, in these pieces, and
//! then closes or waits. Each verdict is one of the table of `ProbeFault`, or none at all.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::mpsc::{Receiver, channel},
    thread::JoinHandle,
    time::Duration,
};

use super::*;
use crate::plan::{Address, HttpProbe, Statuses};
use crate::testkit::on_both_drivers;

/// What the backend does after it has sent its answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Closes,
    /// Holds the connection until the probe has left.
    Waits,
}

/// The time limit of a probe that should succeed.
const LONG: Duration = Duration::from_secs(10);
/// The time limit of one that should time out.
const SHORT: Duration = Duration::from_millis(50);

/// Serves one connection; returns the request.
fn backend(
    pieces: Vec<Vec<u8>>,
    then: Then,
) -> (SocketAddr, JoinHandle<Option<()>>, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (asked, what) = channel();
    let address = listener.local_addr().unwrap();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().ok()?;
        stream.set_read_timeout(Some(LONG)).ok()?;
        stream.set_nodelay(true).ok()?;
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).ok()? > 0 {
            request.push(byte[0]);
        }
        asked.send(String::from_utf8(request).unwrap()).ok()?;
        for piece in pieces {
            stream.write_all(&piece).ok()?;
        }
        if then == Then::Waits {
            let _ = stream.read(&mut byte);
        }
        Some(())
    });
    (address, serving, what)
}

fn limits() -> HeadLimits {
    plan::Limits::default().heads()
}

fn of(probe: &HttpProbe, address: SocketAddr) -> Probe {
    let backend = Backend::new(address.to_string(), Address::Socket(address));
    Probe::Http(Box::new(Ask::new(probe, &backend, limits()).unwrap()))
}

#[track_caller]
fn check_pieces(probe: &HttpProbe, pieces: &[&[u8]], then: Then, expected: Result<(), ProbeFault>) {
    let time = if expected == Err(ProbeFault::Timeout) { SHORT } else { LONG };
    on_both_drivers(|| async {
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        let (address, serving, _what) = backend(pieces, then);
        let ending = Signal::default();
        let found = of(probe, address)
            .run(
                &[address.into()],
                Limits { time, greeting: b"", ending: &ending, hurried: &Signal::default() },
                None,
            )
            .await;
        assert_eq!(found, Some(expected));
        serving.join().unwrap();
    });
}

#[track_caller]
fn check(answer: impl AsRef<[u8]>, then: Then, expected: Result<(), ProbeFault>) {
    check_pieces(&HttpProbe::default(), &[answer.as_ref()], then, expected);
}

/// The verdict on an answer whose body must contain "ready".
#[track_caller]
fn check_body(pieces: &[&[u8]], then: Then, expected: Result<(), ProbeFault>) {
    let probe = HttpProbe { body: Some("ready".into()), ..HttpProbe::default() };
    check_pieces(&probe, pieces, then, expected);
}

#[test]
fn the_status_decides() {
    for status in [200, 204, 302, 399] {
        check(format!("HTTP/1.1 {status} Whatever\r\n\r\n"), Then::Waits, Ok(()));
    }
    for status in [101, 400, 404, 500, 503, 999] {
        let answer = format!("HTTP/1.1 {status} Whatever\r\n\r\n");
        check(answer, Then::Waits, Err(ProbeFault::Status(status)));
    }
    check("HTTP/1.0 200 OK\r\n\r\n", Then::Closes, Ok(()));
    let only = HttpProbe { statuses: Statuses(vec![404..=404]), ..HttpProbe::default() };
    check_pieces(&only, &[b"HTTP/1.1 404 Gone\r\n\r\n"], Then::Closes, Ok(()));
    let found = Err(ProbeFault::Status(200));
    check_pieces(&only, &[b"HTTP/1.1 200 OK\r\n\r\n"], Then::Closes, found);
}

#[test]
fn an_interim_answer_is_not_the_answer() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    check(format!("{interim}HTTP/1.1 200 OK\r\n\r\n"), Then::Waits, Ok(()));
    let found = Err(ProbeFault::Status(503));
    check(format!("{interim}HTTP/1.1 503 No\r\n\r\n"), Then::Waits, found);
    check(interim, Then::Closes, Err(ProbeFault::Reset));
}

#[test]
fn an_answer_may_come_byte_by_byte() {
    let answer =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nrea\r\n2\r\ndy\r\n0\r\n\r\n";
    let bytes: Vec<&[u8]> = answer.chunks(1).collect();
    check_body(&bytes, Then::Waits, Ok(()));
}

#[test]
fn what_is_no_answer_is_a_fault_and_never_a_panic() {
    check("", Then::Closes, Err(ProbeFault::Reset));
    check("HTTP/1.1 200 OK\r\nServ", Then::Closes, Err(ProbeFault::Reset));
    check("SSH-2.0-OpenSSH_9.6\r\n\r\n", Then::Waits, Err(ProbeFault::Protocol));
    check("HTTP/1.1 20 OK\r\n\r\n", Then::Waits, Err(ProbeFault::Protocol));
    check("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", Then::Waits, Err(ProbeFault::Protocol));
    // The limits of any other answer: 32 KiB, 100 fields.
    for (length, expected) in [
        (30_000, Ok(())),
        (33_000, Err(ProbeFault::Protocol)),
        (200_000, Err(ProbeFault::Protocol)),
    ] {
        let name = "n".repeat(length);
        check(format!("HTTP/1.1 200 OK\r\n{name}: value\r\n\r\n"), Then::Waits, expected);
    }
    for (count, expected) in [(100, Ok(())), (101, Err(ProbeFault::Protocol))] {
        let fields = "N: value\r\n".repeat(count);
        check(format!("HTTP/1.1 200 OK\r\n{fields}\r\n"), Then::Waits, expected);
    }
    let interim = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(40);
    check(format!("{interim}HTTP/1.1 200 OK\r\n\r\n"), Then::Waits, Err(ProbeFault::Protocol));
    for byte in (0..=255_u8).filter(|byte| !matches!(byte, b'\n' | b'\r')).step_by(7) {
        let line = [b"HTTP/1.1 200 OK\r\nn", &[byte][..], b"n: v", &[byte], b"v\r\n\r\n"].concat();
        on_both_drivers(|| async {
            let (address, serving, _what) = backend(vec![line.clone()], Then::Closes);
            let limits = Limits {
                time: LONG,
                greeting: b"",
                ending: &Signal::default(),
                hurried: &Signal::default(),
            };
            let found =
                of(&HttpProbe::default(), address).run(&[address.into()], limits, None).await;
            assert!(matches!(found, Some(Ok(()) | Err(ProbeFault::Protocol))), "{byte}: {found:?}");
            serving.join().unwrap();
        });
    }
}

/// Clients would get 502.
#[test]
fn an_answer_that_no_client_would_get_is_a_fault() {
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: gzip",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: +5",
        "Content-Length: 99999999999999999999",
        "A: b\n  folded",
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nready");
        check(&answer, Then::Waits, Err(ProbeFault::Protocol));
        check_body(&[answer.as_bytes()], Then::Waits, Err(ProbeFault::Protocol));
        let refused = answer.replace("200 OK", "503 No");
        let found =
            if fields.contains("folded") { ProbeFault::Protocol } else { ProbeFault::Status(503) };
        check(refused, Then::Waits, Err(found));
    }
}

#[test]
fn who_says_nothing_or_too_slowly_runs_out_of_time() {
    check("", Then::Waits, Err(ProbeFault::Timeout));
    check("HTTP/1.1 200 OK\r\nServer: slow", Then::Waits, Err(ProbeFault::Timeout));
    let body = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nre";
    check_body(&[body], Then::Waits, Err(ProbeFault::Timeout));
}

#[test]
fn a_text_is_found_in_the_body_however_that_is_framed() {
    let with_length = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n".as_slice();
    check_body(&[with_length, b"is ", b"rea", b"dy!"], Then::Waits, Ok(()));
    check_body(&[with_length, b"not at al"], Then::Waits, Err(ProbeFault::Body));
    check_body(&[with_length, b"not at all, but ready"], Then::Waits, Err(ProbeFault::Body));
    check_body(&[with_length, b"not"], Then::Closes, Err(ProbeFault::Reset));
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice();
    check_body(&[chunked, b"5;a=b\r\nis re\r\n3\r\nady\r\n0\r\n\r\n"], Then::Waits, Ok(()));
    check_body(&[chunked, b"4\r\nrea\r\r\n0\r\n\r\n"], Then::Waits, Err(ProbeFault::Body));
    check_body(&[chunked, b"5\r\nready"], Then::Waits, Ok(()));
    check_body(&[chunked, b"x\r\nready"], Then::Waits, Err(ProbeFault::Protocol));
    let until_close = b"HTTP/1.0 200 OK\r\n\r\n".as_slice();
    check_body(&[until_close, b"it is ready now"], Then::Waits, Ok(()));
    check_body(&[until_close, b"it is not"], Then::Closes, Err(ProbeFault::Body));
    check_body(&[b"HTTP/1.1 200 OK\r\nReady: ready\r\n\r\n"], Then::Closes, Err(ProbeFault::Body));
    check_body(&[b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nready"], Then::Waits, {
        Err(ProbeFault::Protocol)
    });
    let bad = b"HTTP/1.1 503 No\r\nContent-Length: 5\r\n\r\nready".as_slice();
    check_body(&[bad], Then::Waits, Err(ProbeFault::Status(503)));
}

#[test]
fn only_the_first_64_kib_of_a_body_are_looked_at() {
    let head = b"HTTP/1.1 200 OK\r\n\r\n".as_slice();
    let before = vec![b'.'; 64 * 1024 - 5];
    check_body(&[head, &before, b"ready"], Then::Waits, Ok(()));
    check_body(&[head, &before, b".ready"], Then::Waits, Err(ProbeFault::Body));
}

#[test]
fn it_asks_as_configured_and_closes() {
    on_both_drivers(|| async {
        let answer = vec![b"HTTP/1.1 200 OK\r\n\r\n".to_vec()];
        let (address, serving, asked) = backend(answer, Then::Waits);
        let probe = HttpProbe {
            path: "/up?full=1".into(),
            host: Some("app.test".into()),
            headers: vec![("x-probe".into(), "a b".into())],
            ..HttpProbe::default()
        };
        let limits = Limits {
            time: LONG,
            greeting: b"",
            ending: &Signal::default(),
            hurried: &Signal::default(),
        };
        assert_eq!(of(&probe, address).run(&[address.into()], limits, None).await, Some(Ok(())));
        let request = asked.recv().unwrap();
        let mut lines: Vec<&str> = request.split("\r\n").collect();
        assert_eq!(lines.remove(0), "GET /up?full=1 HTTP/1.1");
        lines.retain(|line| !line.is_empty());
        lines.sort_unstable();
        let expected =
            ["connection: close", "host: app.test", "user-agent: ringway", "x-probe: a b"];
        assert_eq!(lines, expected);
        serving.join().unwrap();
    });
    let backend = Backend::new("b".into(), Address::Name { host: "app.test".into(), port: 81 });
    assert!(Ask::new(&HttpProbe::default(), &backend, limits()).is_ok());
    for path in ["/`", "/ü\u{7f}"] {
        let probe = HttpProbe { path: path.into(), ..HttpProbe::default() };
        assert!(Ask::new(&probe, &backend, limits()).is_err(), "{path}");
    }
}

/// A port without a listener, reserved.
fn refusing() -> (std::os::fd::OwnedFd, SocketAddr) {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
    let held = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&held, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = getsockname(&held).unwrap();
    (held, SocketAddr::try_from(address).unwrap())
}

#[test]
fn the_first_address_that_lets_us_connect_is_asked() {
    on_both_drivers(|| async {
        let (_held, refusing) = refusing();
        let limits = Limits {
            time: LONG,
            greeting: b"",
            ending: &Signal::default(),
            hurried: &Signal::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (refusing, accepting) =
            (Endpoint::Tcp(refusing), Endpoint::Tcp(listener.local_addr().unwrap()));
        for (addresses, expected) in [
            (&[refusing][..], Some(Err(ProbeFault::Refused))),
            (&[refusing, refusing], Some(Err(ProbeFault::Refused))),
            (&[refusing, accepting], Some(Ok(()))),
            (&[accepting, refusing], Some(Ok(()))),
            (&[], None),
        ] {
            assert_eq!(Probe::Tcp.run(addresses, limits, None).await, expected, "{addresses:?}");
        }
    });
}

#[test]
fn the_end_of_the_thread_ends_a_probe_without_a_verdict() {
    on_both_drivers(|| async {
        let (address, serving, _what) = backend(Vec::new(), Then::Waits);
        let ending = std::rc::Rc::new(Signal::default());
        let raising = std::rc::Rc::clone(&ending);
        net_io::spawn(async move {
            net_io::sleep(Duration::from_millis(20)).await;
            raising.raise();
        });
        let limits =
            Limits { time: LONG, greeting: b"", ending: &ending, hurried: &Signal::default() };
        assert_eq!(
            of(&HttpProbe::default(), address).run(&[address.into()], limits, None).await,
            None
        );
        assert_eq!(Probe::Tcp.run(&[address.into()], limits, None).await, None);
        serving.join().unwrap();
    });
}
