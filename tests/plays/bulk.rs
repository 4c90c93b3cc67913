//! Plays of much that passes through a tunnel: the kernel moves it, through pipes that are held
//! only while bytes are in them, and no core waits inside a call.
//!
//! A peer that stands still has all the buffers between it and the other side full before a play
//! goes on.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::linux::net::SocketAddrExt as _,
    os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    addresses,
    backend::Cue,
    stage::{Driver, Stage, settled},
    told::Process,
};

on_both_drivers!(
    a_server_that_reads_nothing_delays_no_other,
    a_server_behind_a_unix_socket_that_reads_nothing_delays_no_other,
    a_client_that_reads_nothing_delays_no_other,
    more_stand_still_than_there_are_pipes_and_others_pass,
    silent_connections_hold_no_pipe,
    silent_connections_take_little_memory,
    without_descriptors_for_pipes_bytes_pass_all_the_same,
);

const PATIENCE: Duration = Duration::from_secs(60);

/// The goal is 1,640, which the best of three reaches. It was 8,000 while each kept what it takes
/// to find a backend.
const MOST_FOR_EACH: u64 = 1_900;

/// More than two sockets on each side and a pipe hold.
const MUCH: usize = 48 << 20;

/// The most that is said or heard at a time.
const PIECE: usize = 64 << 10;

/// A long word repeats itself after this many bytes.
const PERIOD: usize = 8 << 10;

/// This piece of a long word.
fn piece(at: usize, len: usize) -> &'static [u8] {
    static WORD: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..PERIOD + PIECE).map(|at| ((at * 31) >> 5) as u8).collect());
    &WORD[at % PERIOD..][..len]
}

/// Says so many bytes, and counts them.
fn say(to: &mut impl Write, count: usize, said: &AtomicUsize) {
    let mut at = 0;
    while at < count {
        let len = PIECE.min(count - at);
        to.write_all(piece(at, len)).unwrap();
        at += len;
        said.store(at, SeqCst);
    }
}

/// Hears so many bytes, each of which is the right one.
#[track_caller]
fn hear(from: &mut impl Read, count: usize) {
    let (mut room, mut at) = (vec![0; PIECE], 0);
    while at < count {
        let want = PIECE.min(count - at);
        let came = from.read(&mut room[..want]).unwrap();
        assert!(came > 0, "it ended after {at} of {count} bytes");
        assert!(room[..came] == *piece(at, came), "not what was said");
        at += came;
    }
}

/// What a server does, as its client says with the first byte.
const ECHOES: u8 = b'e';
/// It reads nothing until it may.
const STANDS: u8 = b's';
/// It says much.
const SAYS_MUCH: u8 = b'm';

/// A server's side of one connection.
fn serve<S: Read + Write>(mut stream: S, may_read: &Cue) {
    let mut first = [0];
    if stream.read_exact(&mut first).is_err() {
        return;
    }
    match first[0] {
        ECHOES => {
            let mut room = vec![0; PIECE];
            while let Ok(count @ 1..) = stream.read(&mut room) {
                if stream.write_all(&room[..count]).is_err() {
                    return;
                }
            }
        }
        STANDS => {
            let begun = Instant::now();
            while !may_read.given() && begun.elapsed() < PATIENCE {
                thread::sleep(Duration::from_millis(5));
            }
            hear(&mut stream, MUCH);
            stream.write_all(b"all").unwrap();
        }
        SAYS_MUCH => say(&mut stream, MUCH, &AtomicUsize::new(0)),
        other => panic!("{other} is not known"),
    }
}

/// Serves each connection in a thread of its own; some not before the cue.
fn serves<S: Read + Write + Send + 'static>(
    connections: impl Iterator<Item = S> + Send + 'static,
) -> Cue {
    let cue = Cue::default();
    let own = cue.clone();
    thread::spawn(move || {
        for stream in connections {
            let cue = own.clone();
            thread::spawn(move || serve(stream, &cue));
        }
    });
    cue
}

/// A server, and the cue on which it reads what it had let stand.
fn tcp_server() -> (String, Cue) {
    let listener = TcpListener::bind((addresses::host(), 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let accept = move || listener.accept().ok().map(|(stream, _)| stream);
    let patient = |stream: TcpStream| {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    (address, serves(std::iter::from_fn(accept).map(patient)))
}

/// The same, behind a Unix socket.
fn unix_server() -> (String, Cue) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, SeqCst);
    let name = format!("ringway-bulk-{}-{number}", std::process::id());
    let listener = UnixListener::bind_addr(&UnixAddr::from_abstract_name(&name).unwrap()).unwrap();
    let accept = move || listener.accept().ok().map(|(stream, _)| stream);
    let patient = |stream: UnixStream| {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    (format!("unix:@{name}"), serves(std::iter::from_fn(accept).map(patient)))
}

fn stage(driver: Driver, server: &str) -> Stage {
    Stage::on(driver).listener("mode = \"tcp\"").written(server).start()
}

/// A client of a server that does this.
fn connect(address: SocketAddr, server_does: u8) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(&[server_does]).unwrap();
    stream
}

/// Says this many bytes to a server that echoes, and hears them again.
fn echo(client: &TcpStream, count: usize) {
    let mut writing = client.try_clone().unwrap();
    let saying = thread::spawn(move || say(&mut writing, count, &AtomicUsize::new(0)));
    hear(&mut &*client, count);
    saying.join().unwrap();
}

/// A client whose server reads nothing: how much it has said, and what it does.
fn stands(address: SocketAddr) -> (Arc<AtomicUsize>, JoinHandle<()>) {
    let mut client = connect(address, STANDS);
    client.set_write_timeout(None).unwrap();
    let said = Arc::new(AtomicUsize::new(0));
    let own = Arc::clone(&said);
    let saying = thread::spawn(move || {
        say(&mut client, MUCH, &own);
        let mut all = [0; 3];
        client.read_exact(&mut all).unwrap();
        assert_eq!(&all, b"all");
    });
    (said, saying)
}

fn delays_no_other(driver: Driver, (server, may_read): (String, Cue)) {
    let stage = stage(driver, &server);
    let (said, saying) = stands(stage.address());
    let other = connect(stage.address(), ECHOES);
    let until_then = settled(|| {
        echo(&other, 128);
        said.load(SeqCst)
    });
    assert!((1..MUCH).contains(&until_then), "{until_then} bytes had room");
    // Also with much of its own, and where it comes only now.
    echo(&other, 2 << 20);
    echo(&connect(stage.address(), ECHOES), 2 << 20);
    may_read.give();
    saying.join().unwrap();
}

fn a_server_that_reads_nothing_delays_no_other(driver: Driver) {
    delays_no_other(driver, tcp_server());
}

fn a_server_behind_a_unix_socket_that_reads_nothing_delays_no_other(driver: Driver) {
    delays_no_other(driver, unix_server());
}

fn a_client_that_reads_nothing_delays_no_other(driver: Driver) {
    let stage = stage(driver, &tcp_server().0);
    let mut still = connect(stage.address(), SAYS_MUCH);
    let other = connect(stage.address(), ECHOES);
    let unread = settled(|| {
        echo(&other, 128);
        rustix::io::ioctl_fionread(&still).unwrap()
    });
    assert!(unread > 0);
    echo(&other, 2 << 20);
    hear(&mut still, MUCH);
    still.shutdown(Shutdown::Write).unwrap();
    assert_eq!(still.read(&mut [0]).unwrap(), 0);
    stage.expect_count("tunnels", 1);
}

/// A core has 20 pipes.
fn more_stand_still_than_there_are_pipes_and_others_pass(driver: Driver) {
    let (server, may_read) = unix_server();
    let stage = stage(driver, &server);
    let (said, saying): (Vec<_>, Vec<_>) = (0..24).map(|_| stands(stage.address())).unzip();
    let other = connect(stage.address(), ECHOES);
    let count = || said.iter().map(|said| said.load(SeqCst)).sum::<usize>();
    let until_then = settled(|| {
        echo(&other, 128);
        count()
    });
    assert!(until_then < said.len() * MUCH, "{until_then} bytes had room");
    echo(&other, 4 << 20);
    may_read.give();
    saying.into_iter().for_each(|saying| saying.join().unwrap());
    echo(&other, 4 << 20);
}

fn tcp_process(driver: Driver, server: &str) -> Process {
    let pool = format!("backends = [\"{server}\"]");
    Process::with_pool(driver, "mode = \"tcp\"", &pool, "text")
}

fn silent_connections_hold_no_pipe(driver: Driver) {
    let process = tcp_process(driver, &tcp_server().0);
    let before = process.pipes();
    let clients: Vec<_> = (0..300).map(|_| connect(process.address, ECHOES)).collect();
    clients.iter().for_each(|client| echo(client, 128));
    assert_eq!(settled(|| process.pipes()), before, "for small messages");
    clients.iter().for_each(|client| echo(client, 400_000));
    let kept = settled(|| process.pipes()) - before;
    // Two ends of each, on two cores, for one connection at a time.
    assert!((2..=16).contains(&kept), "{kept}");
}

/// Both sides open. It is measured without optimization, which changes little.
fn silent_connections_take_little_memory(driver: Driver) {
    let process = tcp_process(driver, &tcp_server().0);
    // One after the other: each has a buffer for as long as a backend is looked for.
    let open = |count: usize| -> Vec<_> {
        let silent = |_| {
            let client = connect(process.address, ECHOES);
            echo(&client, 128);
            client
        };
        (0..count).map(silent).collect()
    };
    let mut all = vec![open(300)];
    // A part of one may be what the process sets up some time after its start.
    let each = (0..3).map(|_| {
        let before = settled(|| process.memory());
        all.push(open(300));
        settled(|| process.memory()).saturating_sub(before) / 300
    });
    let each: Vec<u64> = each.collect();
    println!("{each:?} bytes for each");
    assert!(each.iter().any(|each| *each <= MOST_FOR_EACH), "{each:?} bytes for each");
}

fn without_descriptors_for_pipes_bytes_pass_all_the_same(driver: Driver) {
    let process = tcp_process(driver, &tcp_server().0);
    let clients: Vec<_> = (0..4).map(|_| connect(process.address, ECHOES)).collect();
    clients.iter().for_each(|client| echo(client, 128));
    let (before, _) = (process.pipes(), settled(|| process.open()));
    // All below are in use.
    process.may_open(process.first_free());
    clients.iter().for_each(|client| echo(client, 2 << 20));
    assert_eq!(process.pipes(), before);
}
