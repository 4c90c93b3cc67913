//! A runtime of either driver for one test, and connected sockets within it.
//!
//! Operations in flight when the test ends are waited for, as a worker does; a test that leaves
//! something behind fails.

use std::{
    future::Future,
    net::{TcpListener, TcpStream},
    os::fd::{OwnedFd, RawFd},
    time::Duration,
};

use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

use crate::net::{
    deadlines::Watched,
    io::{ending, set_running, sleep},
    stream::Stream,
    turns,
};

/// Entries of the ring: a test has few operations in flight.
const ENTRIES: u32 = 256;

/// No test and no blocking call of one may take longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs a test on io_uring and on epoll. If the kernel forbids io_uring this says so; in CI that is
/// a failure.
pub(crate) fn on_both_drivers<F: Future<Output = ()>>(test: impl Fn() -> F) {
    match RuntimeBuilder::<IoUringDriver>::new().with_entries(ENTRIES).enable_timer().build() {
        Ok(mut ring) => ring.block_on(to_the_end(false, test())),
        Err(error) => {
            assert!(std::env::var("CI").is_err(), "io_uring is forbidden here: {error}");
            eprintln!("skipped: io_uring is forbidden here: {error}");
        }
    }
    let epoll = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build();
    epoll.expect("epoll").block_on(to_the_end(true, test()));
}

#[expect(clippy::disallowed_methods, reason = "a test that hangs has failed, whatever it loses")]
async fn to_the_end(eager: bool, test: impl Future<Output = ()>) {
    set_running(true);
    turns::begin(eager).expect("a bell");
    monoio::time::timeout(PATIENCE, test).await.expect("the test hangs");
    for _ in 0..1_000 {
        if ending() == 0 {
            break;
        }
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(ending(), 0, "operations are still in flight");
    turns::end();
    set_running(false);
}

/// Both ends of a connection on loopback: ours, watched, and the peer's, which blocks.
pub(crate) fn pair(watch: impl FnOnce(RawFd) -> Watched) -> (Stream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let peer = TcpStream::connect(listener.local_addr().expect("an address")).expect("connects");
    let (ours, _) = listener.accept().expect("accepts");
    ours.set_nonblocking(true).expect("an open socket");
    ours.set_nodelay(true).expect("an open socket");
    peer.set_nodelay(true).expect("an open socket");
    peer.set_read_timeout(Some(PATIENCE)).expect("an open socket");
    peer.set_write_timeout(Some(PATIENCE)).expect("an open socket");
    (Stream::adopt(OwnedFd::from(ours), watch).expect("in a runtime"), peer)
}

/// Bytes in which every position can be told from its neighbours.
pub(crate) fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|place| (place * 31 % 251) as u8).collect()
}

/// Checks again and again until it is true, while the runtime does its work.
#[track_caller]
pub(crate) fn eventually(mut is_true: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    async move {
        for _ in 0..5_000 {
            if is_true() {
                return;
            }
            sleep(Duration::from_millis(1)).await;
        }
        panic!("it never came true: {place}");
    }
}
