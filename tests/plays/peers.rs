//! Plays of TLS with programs of others as the other end: OpenSSL, curl and GnuTLS.
//!
//! A program that is not installed is said and passed over; where CI=true it must be there.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use ringway::events::Event;

use crate::{
    addresses,
    client::get,
    scripts::{answers, answers_target},
    secure::Identity,
    stage::{Driver, Stage, eventually},
    wire::PATIENCE,
};

on_both_drivers!(
    openssl_is_answered_and_comes_again_with_its_session,
    openssl_is_refused_what_is_old_or_of_another_protocol,
    curl_is_answered_twice_on_one_connection,
    gnutls_is_answered_while_it_changes_its_keys,
    openssl_and_gnutls_are_backends,
);

const LAST: &str = "GET /here HTTP/1.1\r\nHost: play.test\r\nConnection: close\r\n\r\n";

fn name() -> Identity {
    Identity::of(&["play.test"])
}

/// Whether a program can be run.
fn is_there(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&paths).any(|path| path.join(program).exists());
    assert!(is_there || std::env::var("CI").is_err(), "{program} is missing");
    if !is_there {
        eprintln!("skipped: no {program}");
    }
    is_there
}

/// Runs a program with this input; whatever it waits for, it is ended after a while.
fn run(program: &str, arguments: &[&str], input: &str) -> Output {
    let patience = PATIENCE.as_secs().to_string();
    let mut child = Command::new("timeout")
        .args([&patience, program])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn all(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// A client of OpenSSL that asks once.
fn s_client(at: SocketAddr, identity: &Identity, more: &[&str]) -> String {
    let (at, cert) = (at.to_string(), identity.cert());
    let fixed = ["s_client", "-connect", &at, "-CAfile", &cert, "-verify_return_error", "-ign_eof"];
    let named = ["-servername", "play.test", "-verify_hostname", "play.test"];
    all(&run("openssl", &[&fixed[..], &named, more].concat(), LAST))
}

fn openssl_is_answered_and_comes_again_with_its_session(driver: Driver) {
    if !is_there("openssl") {
        return;
    }
    let identity = name();
    let stage = Stage::on(driver).listener(&identity.line("")).backend(answers_target()).start();
    let kept = format!("{}.session", identity.cert());
    for (version, said) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        for (keep, what) in [("-sess_out", "New"), ("-sess_in", "Reused")] {
            let said_of_it = s_client(
                stage.address(),
                &identity,
                &[version, "-alpn", "h9,http/1.1", keep, &kept],
            );
            for expected in [&format!("{what}, {said}"), "ALPN protocol: http/1.1", "\r\n\r\n/here"]
            {
                assert!(said_of_it.contains(expected), "{version} {expected}\n{said_of_it}");
            }
            assert!(!said_of_it.contains("unexpected eof"), "{said_of_it}");
        }
    }
}

fn openssl_is_refused_what_is_old_or_of_another_protocol(driver: Driver) {
    if !is_there("openssl") {
        return;
    }
    let identity = name();
    let stage = Stage::on(driver).listener(&identity.line("")).backend(answers("never")).start();
    for (more, alert) in [
        (&["-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"][..], "handshake failure"),
        (&["-alpn", "imap"], "no application protocol"),
        (&["-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"], "handshake failure"),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"], "handshake failure"),
    ] {
        let said = s_client(stage.address(), &identity, more);
        assert!(said.contains(&format!("alert {alert}")), "{more:?}\n{said}");
    }
    let is_old = |event: &Event| match event {
        Event::HandshakeFailed { cause, .. } => cause.contains("speaks no version of TLS"),
        _ => false,
    };
    assert!(stage.happened().iter().any(is_old), "{:?}", stage.happened());
}

fn curl_is_answered_twice_on_one_connection(driver: Driver) {
    if !is_there("curl") {
        return;
    }
    let identity = name();
    let stage = Stage::on(driver).listener(&identity.line("")).backend(answers_target()).start();
    let at = stage.address();
    let resolve = format!("play.test:{}:{}", at.port(), at.ip());
    let url = |path: &str| format!("https://play.test:{}{path}", at.port());
    let cert = identity.cert();
    let arguments =
        ["-sS", "--fail", "--cacert", &cert, "--resolve", &resolve, &url("/a"), &url("/b")];
    let output = run("curl", &arguments, "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/a/b", "{}", all(&output));
    assert_eq!(stage.count("tls_handshakes_total"), 1);
    let plain = format!("http://{at}/");
    let said = all(&run("curl", &["-sS", &plain], ""));
    assert!(said.contains("speaks HTTPS"), "{said}");
}

fn gnutls_is_answered_while_it_changes_its_keys(driver: Driver) {
    if !is_there("gnutls-cli") {
        return;
    }
    let identity = name();
    let stage = Stage::on(driver).listener(&identity.line("")).backend(answers_target()).start();
    let (host, port) = (stage.address().ip().to_string(), stage.address().port().to_string());
    let cert = identity.cert();
    for (versions, inline) in
        [("NORMAL:-VERS-ALL:+VERS-TLS1.2", ""), ("NORMAL:-VERS-ALL:+VERS-TLS1.3", "^rekey^\n")]
    {
        let arguments = [
            "--x509cafile",
            &cert,
            "--verify-hostname",
            "play.test",
            "--sni-hostname",
            "play.test",
            "--priority",
            versions,
            "--inline-commands",
            "--logfile",
            "/dev/stderr",
            "-p",
            &port,
            &host,
        ];
        let input = format!("{}{inline}{LAST}", get("/before"));
        let said = all(&run("gnutls-cli", &arguments, &input));
        assert!(said.contains("/before") && said.contains("\r\n\r\n/here"), "{versions}\n{said}");
    }
}

/// A program that is ended with the play.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serves(program: &str, arguments: &[&str]) -> Server {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    Server(command.spawn().unwrap())
}

/// A server that listens, and where. It may take the port on every address of the machine, and is
/// begun again at another one if that is in use on any: then it ends, or goes on without this one.
fn served(begin: impl Fn(SocketAddr) -> Server) -> (Server, SocketAddr) {
    for _ in 0..20 {
        let (at, since) = (addresses::free(), Instant::now());
        let mut server = begin(at);
        while server.0.try_wait().unwrap().is_none() && since.elapsed() < Duration::from_secs(5) {
            if TcpStream::connect(at).is_ok() {
                return (server, at);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
    panic!("there is no port for it");
}

fn openssl_and_gnutls_are_backends(driver: Driver) {
    let identity = Identity::of(&["back.test"]);
    let (cert, key) = (identity.cert(), identity.key());
    for (program, version, said) in [
        ("openssl", "-tls1_2", "TLSv1.2"),
        ("openssl", "-tls1_3", "TLSv1.3"),
        ("gnutls-serv", "NORMAL:-VERS-ALL:+VERS-TLS1.2", "GnuTLS"),
        ("gnutls-serv", "NORMAL:-VERS-ALL:+VERS-TLS1.3", "GnuTLS"),
    ] {
        if !is_there(program) {
            continue;
        }
        let (_server, at) = served(|at| {
            let (all, port) = (at.to_string(), at.port().to_string());
            if program == "openssl" {
                let named = ["-accept", &all, "-cert", &cert, "-key", &key, "-www", version];
                return serves(program, &[&["s_server", "-quiet"][..], &named].concat());
            }
            let named = ["--x509certfile", &cert, "--x509keyfile", &key, "--priority", version];
            serves(program, &[&["--http", "--quiet", "-p", &port][..], &named].concat())
        });
        let tls = format!("tls = {{ server-name = \"back.test\", ca = \"{cert}\" }}");
        let stage = Stage::on(driver).written(at.to_string()).pool(&tls).start();
        let asks = || {
            let mut client = stage.connect();
            client.send("GET / HTTP/1.0\r\nHost: back.test\r\n\r\n");
            client.try_response().map_or((0, String::new()), |response| {
                (response.status, String::from_utf8_lossy(&response.body).into_owned())
            })
        };
        let (_, page) = eventually("it serves", asks, |(status, _)| *status == 200);
        assert!(page.contains(said), "{program} {version}\n{page}");
        for _ in 0..3 {
            let (status, page) = asks();
            assert!(status == 200 && page.contains(said), "{program} {version} {status}\n{page}");
        }
    }
}
