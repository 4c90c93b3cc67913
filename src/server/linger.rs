//! Closing so that the client sees its answer and not a reset (RFC 9112 §9.6).
//!
//! Whoever closes over bytes that were not read resets the connection, and a reset may destroy what
//! the client has not read yet. So we say that we are done, read and forget what still comes for a
//! while, and close.

use std::{os::fd::OwnedFd, rc::Rc};

use super::netted::netted;
use crate::net::{
    deadlines::{Ended, Ends, NO_TAG},
    fd::Half,
    stream::Stream,
};
use crate::worker::Worker;

/// So much is read and forgotten, for so long.
const BYTES: usize = 256 << 10;
const TIME_MS: u64 = 1_000;

/// Clients that were turned away and still have their answer before them, at a time: they are
/// beyond the limit of connections, and so are their descriptors. More are closed at once.
const TURNED_AWAY_MAX: u32 = 16;

/// Says that we are done and reads what the client still sends for a while.
pub(super) async fn linger(worker: &Worker, stream: &Stream) {
    stream.shut_down(Half::Writing);
    worker.clock.renew();
    stream.watched().read_by(worker.clock.now() + TIME_MS);
    let mut room = vec![0; 16 << 10];
    let mut left = BYTES;
    while left > 0 && stream.ended() == Ended::No {
        match stream.discard_now(&mut room) {
            Ok(count) if count > 0 => left = left.saturating_sub(count),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if stream.readable().await.is_err() {
                    return;
                }
            }
            Ok(_) | Err(_) => return,
        }
    }
}

/// Answers a client that is not let in, without a look at what it asks.
pub(super) fn turn_away(worker: &Rc<Worker>, fd: OwnedFd, answer: &[u8]) {
    let watch = |fd| worker.deadlines.watch(fd, Ends::Both, NO_TAG);
    let Ok(stream) = Stream::adopt(fd, watch) else { return };
    // What a new connection does not take at once it may do without.
    let _ = stream.send_now(answer, false);
    if worker.turned_away.get() == TURNED_AWAY_MAX {
        stream.shut_down(Half::Writing);
        let _ = stream.discard_now(&mut [0; 4096]);
        return;
    }
    worker.turned_away.set(worker.turned_away.get() + 1);
    let lingering = Rc::clone(worker);
    netted(Rc::clone(worker), async move {
        linger(&lingering, &stream).await;
        drop(stream);
        lingering.turned_away.set(lingering.turned_away.get() - 1);
    });
}
