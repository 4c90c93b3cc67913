//! Lingering close: the client sees its answer and not a reset (RFC 9112 §9.6).
//!
//! A close over unread bytes resets the connection, and a reset may destroy what the client has not
//! read yet. So we shut down our half, read and drop what still comes for a while, and close.

use std::{cell::Cell, os::fd::OwnedFd, rc::Rc, time::Duration};

use super::panic_net::catching;
use crate::base::moment::{Deadline, Tick};
use crate::net::{
    buffer::Buffer,
    deadlines::{Ended, Unmet, Watch},
    fd::Half,
    stream::{InVain, Stream},
    turns::next_turn,
};
use crate::worker::Worker;

/// The limits for a client that has had its last answer.
#[derive(Clone, Copy)]
struct Patience {
    /// How long it is read while it makes progress.
    time: Duration,
    /// How long its next piece is waited for.
    piece: Duration,
    /// This many bytes are read and dropped.
    bytes: usize,
}

/// The times are nginx's `lingering_time` and `lingering_timeout`: a client that reads its answer
/// when it has sent everything gets there at 50 KB/s with 1.5 MB. The bytes are more than most
/// bodies may have, and a tenth of a second of a core for a client that never stops.
const PATIENCE: Patience =
    Patience { time: Duration::from_secs(30), piece: Duration::from_secs(5), bytes: 256 << 20 };

/// Connections of a core that linger at once. Beyond, the one that has lingered longest is closed.
/// They keep their permits, and are the first to make room at a limit.
const LINGERING_MAX: u32 = 1_024;

/// How often to check whether the client has received everything.
const LOOK: Duration = Duration::from_millis(250);

/// Clients that were refused and have not read their answer yet, at a time: they are beyond the
/// limit of connections, and so are their descriptors. More are closed at once, and each of them
/// after a second.
const TURNED_AWAY_MAX: u32 = 16;
const TURNED_AWAY: Patience =
    Patience { time: Duration::from_secs(1), piece: Duration::from_secs(1), bytes: 256 << 10 };

/// Until when a client is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// Until it ends, as it may be sending a long body.
    Ended,
    /// Until it has acknowledged all that we sent, including our end. Its request was whole.
    Told,
}

/// Shuts down and reads what the client still sends.
pub(super) async fn linger(worker: &Worker, stream: &Stream, until: Until) {
    let _counted = Counted::one_more(&worker.lingering);
    if worker.lingering.get() > LINGERING_MAX {
        worker.deadlines.close_longest_lingering();
    }
    read_on(worker, stream, until, PATIENCE).await;
}

async fn read_on(worker: &Worker, stream: &Stream, until: Until, patience: Patience) {
    let Patience { time, piece, bytes } = patience;
    stream.shut_down(Half::Writing);
    worker.clock.renew();
    let over = worker.clock.tick() + time;
    let mut progress = Progress { since: worker.clock.tick(), left: bytes, untold: usize::MAX };
    let mut in_vain = InVain::default();
    loop {
        let Ok(buffer) = worker.buffers.take() else { return };
        let read = discard(worker, stream, buffer);
        let now = worker.clock.tick();
        match read {
            // Its end: nothing comes that could make the close a reset.
            Ok(0) => return,
            Ok(count) if count < progress.left => {
                progress.left -= count;
                progress.since = now;
                in_vain = InVain::default();
                // Bytes that are there at once are also read one buffer a turn.
                next_turn().await;
                if now >= over {
                    return;
                }
                continue;
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => return,
        }
        if until == Until::Told {
            let untold = stream.unacknowledged();
            if untold == 0 {
                return;
            }
            if untold < progress.untold {
                (progress.untold, progress.since) = (untold, now);
            }
        }
        let last = over.min(progress.since + piece);
        if now >= last {
            return;
        }
        let look = if until == Until::Told { last.min(now + LOOK) } else { last };
        stream.watched().lingers(now, Deadline::at(look));
        match stream.readable().await {
            Ok(()) => in_vain.pause().await,
            Err(Unmet::Ended(Ended::Overdue)) => {}
            Err(_) => return,
        }
    }
}

/// The progress of a client.
struct Progress {
    since: Tick,
    /// Bytes that are still allowed.
    left: usize,
    /// Bytes that it had not acknowledged at the last check.
    untold: usize,
}

fn discard(worker: &Worker, stream: &Stream, mut buffer: Buffer) -> std::io::Result<usize> {
    let read = stream.discard_now(buffer.room());
    worker.buffers.give(buffer);
    read
}

/// Adds one to a count for as long as it lives, however it ends.
struct Counted(Rc<Cell<u32>>);

impl Counted {
    fn one_more(count: &Rc<Cell<u32>>) -> Counted {
        count.set(count.get() + 1);
        Counted(Rc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Answers a client that is not let in, without reading its request.
pub(super) fn turn_away(worker: &Rc<Worker>, fd: OwnedFd, answer: &[u8]) {
    let watch = |fd| worker.deadlines.watch(fd, Watch::Refused);
    let Ok(stream) = Stream::adopt(fd, watch) else { return };
    // The client can do without what a new connection does not take at once.
    let _ = stream.send_now(answer, false);
    if worker.turned_away.get() == TURNED_AWAY_MAX {
        stream.shut_down(Half::Writing);
        let _ = stream.discard_now(&mut [0; 4096]);
        return;
    }
    let counted = Counted::one_more(&worker.turned_away);
    let lingering = Rc::clone(worker);
    catching(Rc::clone(worker), async move {
        read_on(&lingering, &stream, Until::Ended, TURNED_AWAY).await;
        drop((stream, counted));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::ListenerId;
    use crate::net::{
        clock::Clock,
        io::task,
        stream::script::{Script, Step, says},
    };
    use crate::testkit::{beside, eventually, on_both_drivers, pair, play};

    const PLAN: &str = "[listener.web]\nbind = \"127.0.0.1:0\"\npool = \"app\"\n\
                        [pool.app]\nbackends = [\"127.0.0.1:9\"]\n";

    fn worker() -> Rc<Worker> {
        let worker = Worker::crew(PLAN, 1).remove(0);
        let sweeping = Rc::clone(&worker);
        task(async move { sweeping.deadlines.sweep(|| {}).await });
        worker
    }

    /// How long a client that does these steps is read, in milliseconds: by the clock of the play,
    /// in which it pauses for 100 ms each time and the sweep runs every 250.
    #[track_caller]
    fn check(steps: Vec<Step>, until: Until, patience: Patience, expected: u128) {
        let took = play(async {
            let worker = Worker::crew(PLAN, 1).remove(0);
            let client = Script::new(steps);
            let stream =
                client.stream(|fd| worker.deadlines.watch(fd, Watch::Client(ListenerId(0))));
            let since = Clock::moment();
            let reads = read_on(&worker, &stream, until, patience);
            beside(reads, worker.deadlines.sweep(|| {})).await;
            Duration::from_micros(Clock::moment().since(since).0)
        });
        assert_eq!(took.as_millis(), expected, "{until:?}");
    }

    #[test]
    fn a_client_is_read_while_it_makes_progress_and_not_for_ever() {
        let patience = Patience {
            time: Duration::from_secs(1),
            piece: Duration::from_millis(400),
            bytes: 1 << 20,
        };
        let few = Patience { bytes: 3_000, ..patience };
        let sends_on = || (0..50).flat_map(|_| [says([b'x'; 1_000]), Step::Pauses]).collect();
        let ends = vec![says(b"x"), Step::Pauses, Step::Ends];
        check(vec![], Until::Ended, patience, 500);
        check(sends_on(), Until::Ended, patience, 1_000);
        check(sends_on(), Until::Ended, few, 200);
        check(ends, Until::Ended, patience, 100);
        check(vec![], Until::Told, patience, 0);
    }

    #[test]
    fn who_lingers_makes_room_and_so_many_linger_and_no_more() {
        on_both_drivers(|| async {
            let worker = worker();
            let (lingering, most) = (Rc::new(Cell::new(0)), LINGERING_MAX + 10);
            worker.lingering.set(LINGERING_MAX - 2);
            let mut peers = Vec::new();
            for _ in 0..4 {
                let (ours, peer) =
                    pair(|fd| worker.deadlines.watch(fd, Watch::Client(ListenerId(0))));
                peers.push(peer);
                let (worker, lingering) = (Rc::clone(&worker), Rc::clone(&lingering));
                lingering.set(lingering.get() + 1);
                task(async move {
                    linger(&worker, &ours, Until::Ended).await;
                    lingering.set(lingering.get() - 1);
                });
                next_turn().await;
            }
            eventually(|| lingering.get() == 2).await;
            assert!(worker.lingering.get() < most);
            assert!(worker.deadlines.make_room(None));
            eventually(|| lingering.get() == 1).await;
            peers.clear();
            eventually(|| lingering.get() == 0).await;
        });
    }
}
