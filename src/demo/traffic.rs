//! The demo's own traffic, so that its dashboard moves: some requests a second, of all kinds, to a
//! route and a pool of their own.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use crate::base::rng::Rng;

/// The host that its route takes.
pub(super) const HOST: &str = "traffic.test";

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The traffic; it ends when this is dropped.
pub(super) struct Traffic {
    _ends: Sender<()>,
}

impl Traffic {
    /// Begins to send requests to this listener. Without a thread there are none.
    pub(super) fn start(to: SocketAddr) -> Traffic {
        let (ends, ended) = bounded::<()>(0);
        let _ = thread::Builder::new().name("demo-traffic".into()).spawn(move || {
            let mut rng = Rng::seeded(u64::from(std::process::id()));
            loop {
                let pause = Duration::from_millis(u64::from(10 + rng.below(60)));
                if ended.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                // One that fails is seen on the page.
                let _ = ask(to, &path(&mut rng));
            }
        });
        Traffic { _ends: ends }
    }
}

/// What is asked for: mostly something quick.
fn path(rng: &mut Rng) -> String {
    match rng.below(100) {
        0 => "/status/503".to_owned(),
        1..=3 => "/status/404".to_owned(),
        4..=9 => format!("/bytes/{}", 1_000 + rng.below(50_000)),
        10..=24 => format!("/delay/{}", 1 + rng.below(40)),
        25 => format!("/delay/{}", 200 + rng.below(200)),
        _ => "/".to_owned(),
    }
}

fn ask(to: SocketAddr, path: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut room = [0; 16 << 10];
    while stream.read(&mut room)? > 0 {}
    Ok(())
}
