//! Random conversations in both directions at once: through a TCP listener each side hears every
//! byte, and the kind of end, that it hears on a direct connection.
//!
//! What a side says, in which pieces, how it listens and how it ends is drawn beforehand; both
//! sides of a round do the same twice, once directly and once through the proxy.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use crate::{
    addresses,
    chance::{Chance, rounds},
    stage::{Driver, Stage, eventually},
};

on_both_drivers!(
    what_both_sides_hear_is_what_they_hear_on_a_direct_connection,
    so_it_is_while_neither_reads_before_it_has_written,
);

const PATIENCE: Duration = Duration::from_secs(30);

/// How a side ends, after it has said all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// It shuts its half down, and hears the other to its end.
    Closes,
    /// The same, when it has heard all that the other says.
    ClosesLast,
    /// It resets, when both have heard all.
    Resets,
}

/// What a side does.
#[derive(Clone, Debug)]
struct Part {
    says: Vec<Vec<u8>>,
    ends: Ends,
    /// The size of its reads.
    reads: usize,
}

impl Part {
    fn draw(chance: &mut Chance, may_reset: bool, most: usize) -> Part {
        let mut says = Vec::new();
        for _ in 0..chance.below(6) {
            let len = chance.size().min(most);
            let first = chance.below(256) as u8;
            says.push((0..len).map(|at| first.wrapping_add((at % 251) as u8)).collect());
        }
        let ends = match chance.below(3) {
            0 if may_reset => Ends::Resets,
            1 => Ends::ClosesLast,
            _ => Ends::Closes,
        };
        Part { says, ends, reads: [1 << 16, 4096, 777][chance.below(3)] }
    }

    fn len(&self) -> usize {
        self.says.iter().map(Vec::len).sum()
    }
}

/// What a side has heard, and the kind of error with which that ended.
#[derive(Clone, PartialEq, Eq)]
struct Heard(Vec<u8>, Option<ErrorKind>);

impl std::fmt::Debug for Heard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes, {:?}", self.0.len(), self.1)
    }
}

/// How many bytes each side has heard so far: its own, then the other's.
type Counts = [Arc<AtomicUsize>; 2];

/// Plays a side to its end.
fn play(stream: TcpStream, part: Part, expected: usize, counts: Counts) -> Heard {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let said = part.len();
    let mut writing = stream.try_clone().unwrap();
    let [own, others] = counts;
    let (reads, ends) = (part.reads, part.ends);
    let heard_so_far = Arc::clone(&own);
    let saying = thread::spawn(move || {
        for piece in part.says {
            // Of one that is reset meanwhile the other side tells.
            if writing.write_all(&piece).is_err() {
                return;
            }
        }
        if ends == Ends::ClosesLast {
            eventually("it has heard all", || own.load(SeqCst), |count| *count >= expected);
        }
        if ends != Ends::Resets {
            let _ = writing.shutdown(Shutdown::Write);
        }
    });
    let mut heard = Vec::new();
    let mut room = vec![0; reads];
    let end = loop {
        if ends == Ends::Resets && heard.len() == expected {
            break None;
        }
        match (&stream).read(&mut room) {
            Ok(0) => break None,
            Ok(count) => {
                heard.extend_from_slice(&room[..count]);
                heard_so_far.store(heard.len(), SeqCst);
            }
            Err(error) => break Some(error.kind()),
        }
    };
    saying.join().unwrap();
    if ends == Ends::Resets {
        eventually("the other has heard all", || others.load(SeqCst), |count| *count >= said);
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    }
    Heard(heard, end)
}

/// What both sides hear of each other, by this address, if the server listens there.
fn talk(address: SocketAddr, listener: &TcpListener, [client, server]: &[Part; 2]) -> [Heard; 2] {
    let counts: Counts = Default::default();
    let [of_client, of_server] = counts.clone();
    let (part, expected) = (client.clone(), server.len());
    let other = [Arc::clone(&of_client), Arc::clone(&of_server)];
    let asking =
        thread::spawn(move || play(TcpStream::connect(address).unwrap(), part, expected, other));
    let (stream, _) = listener.accept().unwrap();
    let heard = play(stream, server.clone(), client.len(), [of_server, of_client]);
    [asking.join().unwrap(), heard]
}

fn compare(driver: Driver, most: usize, count: usize) {
    let listener = TcpListener::bind((addresses::host(), 0)).unwrap();
    let direct = listener.local_addr().unwrap();
    let stage = Stage::on(driver).listener("mode = \"tcp\"").written(direct.to_string()).start();
    let mut chance = Chance::new();
    for round in 0..rounds(count) {
        let client = Part::draw(&mut chance, true, most);
        // Two that wait for each other to end would wait for ever.
        let mut server = Part::draw(&mut chance, client.ends == Ends::Closes, most);
        if client.ends != Ends::Closes {
            server.ends = Ends::Closes;
        }
        let parts = [client, server];
        let expected = talk(direct, &listener, &parts);
        let heard = talk(stage.address(), &listener, &parts);
        let ends = (parts[0].ends, parts[1].ends);
        assert_eq!(format!("{heard:?}"), format!("{expected:?}"), "round {round} {ends:?}");
        assert!(heard == expected, "round {round} {ends:?}: other bytes");
    }
}

fn what_both_sides_hear_is_what_they_hear_on_a_direct_connection(driver: Driver) {
    compare(driver, usize::MAX, 40);
}

/// Little enough for the kernel's buffers.
fn so_it_is_while_neither_reads_before_it_has_written(driver: Driver) {
    compare(driver, 2_000, 60);
}
