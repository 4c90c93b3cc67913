//! One client connection, from accept to close: exchange after exchange.
//!
//! Thousands of these are idle at any moment, so what a task keeps while it waits is small: the
//! stream, who the client is, and nothing else. Everything a request needs lives in one boxed
//! future per burst of requests, which outlasts it only for a client that asks again at once; the
//! buffer is taken when there is something to read.

use std::{io::ErrorKind, rc::Rc, time::Duration};

use super::{linger::linger, netted::netted};
use crate::exchange::{Reuse, run};
use crate::http::fault::{Cause, Fault};
use crate::net::{buffer::Buffer, clock, deadlines::Ended, fd::Half, stream::Stream};
use crate::plan::ListenerTimeouts;
use crate::proto::h1::{Client, HeadRead, Incoming, Peer, Reader};
use crate::worker::{Admitted, Worker};

/// Serves a connection in a task of its own.
pub(super) fn spawn(worker: Rc<Worker>, stream: Stream, peer: Peer, admitted: Admitted) {
    let mut began = 0;
    if worker.logs.is_on(peer.listener) {
        began = clock::precise();
        stream.time_stalls();
    }
    let connection = Connection {
        worker: Rc::clone(&worker),
        stream: Rc::new(stream),
        peer: Rc::new(peer),
        partial: Vec::new(),
        began,
        _admitted: admitted,
    };
    netted(worker, connection.serve());
}

/// A client connection while nobody asks anything.
struct Connection {
    worker: Rc<Worker>,
    stream: Rc<Stream>,
    peer: Rc<Peer>,
    /// The first bytes of a head that has not come whole.
    partial: Vec<u8>,
    /// When the request that is awaited began, in microseconds of the precise clock: at accept, or
    /// with its first byte; 0 where it has not, or is not logged.
    began: u64,
    _admitted: Admitted,
}

/// What a burst of requests left behind.
enum After {
    /// Nothing: the next request may come.
    Idle,
    /// The first bytes of a head; `new` where they came in this burst.
    Partial { new: bool },
    /// The connection is to be closed.
    Close(Reuse),
}

impl Connection {
    async fn serve(mut self) {
        self.read_by(self.timeouts().client_header);
        loop {
            if self.stream.readable().await.is_err() {
                return;
            }
            match Box::pin(self.burst()).await {
                After::Idle => self.idle(),
                After::Partial { new: true } => self.read_by(self.timeouts().client_header),
                After::Partial { new: false } => {}
                After::Close(Reuse::Linger) => {
                    return Box::pin(linger(&self.worker, &self.stream)).await;
                }
                After::Close(Reuse::Reset) => return self.stream.reset_on_close(),
                // First the end of what we say, with what was held back for it.
                After::Close(Reuse::Keep | Reuse::Close) => {
                    return self.stream.shut_down(Half::Writing);
                }
            }
        }
    }

    /// The client must go on within this time.
    fn read_by(&self, time: Duration) {
        self.stream.watched().read_by(self.worker.clock.after(time));
    }

    /// Nothing is asked: the longest idle goes first when room is needed.
    fn idle(&self) {
        let clock = &self.worker.clock;
        self.stream.watched().idle(clock.now(), clock.after(self.timeouts().idle));
    }

    fn timeouts(&self) -> ListenerTimeouts {
        self.worker.in_force().plan.listener(self.peer.listener).timeouts
    }

    /// Reads what has come and serves the requests in it.
    async fn burst(&mut self) -> After {
        let worker = Rc::clone(&self.worker);
        let Ok(mut buffer) = worker.buffers.take() else { return After::Close(Reuse::Reset) };
        let mut scanned = self.partial.len();
        let new = scanned == 0;
        restore(&mut buffer, &mut self.partial);
        match self.stream.recv_now(&mut buffer) {
            Ok(count) if count > 0 => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let idle = buffer.is_empty();
                self.keep(buffer);
                return if idle { After::Idle } else { After::Partial { new: false } };
            }
            Ok(_) | Err(_) => return Box::pin(self.ended(buffer)).await,
        }
        let asks_at_once = self.stream.watched().was_idle_lately(worker.clock.now());
        self.stream.watched().busy();
        if self.began == 0 && worker.logs.is_on(self.peer.listener) {
            self.began = clock::precise();
        }
        let mut client = self.client(buffer);
        let after = loop {
            let after = requests(&worker, &mut client, scanned).await;
            if !asks_at_once || !matches!(after, After::Idle) {
                break after;
            }
            scanned = 0;
            if let Some(after) = self.stay(&mut client).await {
                break after;
            }
        };
        self.began = if matches!(after, After::Partial { .. }) { client.began } else { 0 };
        if let Some(Reader { buffer, .. }) = client.reader {
            if let After::Partial { new: served } = after {
                self.keep(buffer);
                return After::Partial { new: new || served };
            }
            worker.buffers.give(buffer);
        }
        after
    }

    /// Waits, with all that a burst has at hand, for the next request of a client who asks again
    /// as soon as it is answered; `None` when that has come.
    async fn stay(&self, client: &mut Client) -> Option<After> {
        let worker = &self.worker;
        let Some(Reader { buffer, .. }) = client.reader.take() else {
            return Some(After::Close(Reuse::Close));
        };
        worker.buffers.give(buffer);
        self.idle();
        match self.stream.readable_soon().await {
            Ok(true) => {}
            Ok(false) => return Some(After::Idle),
            Err(_) => return Some(After::Close(Reuse::Close)),
        }
        let Ok(mut buffer) = worker.buffers.take() else {
            return Some(After::Close(Reuse::Reset));
        };
        let received = self.stream.recv_now(&mut buffer);
        client.reader = Some(Reader { buffer, body: Incoming::Ended });
        match received {
            Ok(count) if count > 0 => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(After::Idle),
            Ok(_) | Err(_) => return Some(After::Close(Reuse::Close)),
        }
        self.stream.watched().busy();
        client.began = if worker.logs.is_on(self.peer.listener) { clock::precise() } else { 0 };
        None
    }

    fn client(&self, buffer: Buffer) -> Client {
        Client {
            stream: Rc::clone(&self.stream),
            peer: Rc::clone(&self.peer),
            reader: Some(Reader { buffer, body: Incoming::Ended }),
            head_sent: false.into(),
            began: self.began,
        }
    }

    /// Keeps what has come of a head, in no more room than it needs.
    fn keep(&mut self, buffer: Buffer) {
        self.partial.extend_from_slice(buffer.bytes());
        self.worker.buffers.give(buffer);
    }

    /// The client sends nothing more, or not in time.
    async fn ended(&mut self, buffer: Buffer) -> After {
        // The empty line that is forgiven before a request begins none.
        let begun = !matches!(buffer.bytes(), b"" | b"\r" | b"\r\n");
        let fault: Fault = match self.stream.ended() {
            Ended::Overdue if begun => Cause::RequestTimeout.into(),
            Ended::No if begun => Cause::ClientAbort.into(),
            Ended::No | Ended::Overdue | Ended::ClientLeft | Ended::Closed => {
                self.worker.buffers.give(buffer);
                return After::Close(Reuse::Close);
            }
        };
        let worker = Rc::clone(&self.worker);
        let mut client = self.client(buffer);
        let reuse = run::refuse(&worker, &mut client, worker.scratch(), fault).await;
        if let Some(Reader { buffer, .. }) = client.reader {
            worker.buffers.give(buffer);
        }
        After::Close(reuse)
    }
}

/// Serves the requests that are buffered, one after the other.
async fn requests(worker: &Rc<Worker>, client: &mut Client, mut scanned: usize) -> After {
    let mut served = false;
    loop {
        let mut scratch = worker.scratch();
        let reuse = match client.take_head(&mut scratch.request, &worker.head_limits, scanned) {
            HeadRead::Head(bytes) => {
                scratch.record.request_bytes = bytes as u64;
                client.stream.watched().read_by(0);
                run::run(worker, client, scratch).await
            }
            HeadRead::Refused(fault) => Box::pin(run::refuse(worker, client, scratch, fault)).await,
            HeadRead::Partial => {
                worker.recycle(scratch);
                return After::Partial { new: served };
            }
        };
        scanned = 0;
        served = true;
        match (reuse, &client.reader) {
            (Reuse::Keep, Some(reader)) if reader.buffer.is_empty() => return After::Idle,
            (Reuse::Keep, Some(_)) => {}
            // A close over unread bytes is a reset, which may destroy the answer.
            (Reuse::Close, Some(reader)) if !reader.buffer.is_empty() => {
                return After::Close(Reuse::Linger);
            }
            (reuse, _) => return After::Close(reuse),
        }
    }
}

/// Puts the bytes of a partial head where a read goes on behind them.
fn restore(buffer: &mut Buffer, partial: &mut Vec<u8>) {
    if partial.is_empty() {
        return;
    }
    let count = partial.len().min(buffer.room_len());
    if let (Some(room), Some(bytes)) = (buffer.room().get_mut(..count), partial.get(..count)) {
        room.copy_from_slice(bytes);
    }
    buffer.filled(count);
    *partial = Vec::new();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::netted::Netted;

    /// How large what a function returns is; it is not called.
    fn size_of_output<A, R>(_: impl FnOnce(A) -> R) -> usize {
        size_of::<R>()
    }

    /// What each of thousands of idle connections keeps, and what each burst under way takes: one
    /// large future that is awaited without a box undoes both.
    #[test]
    fn what_an_idle_connection_keeps_is_small_and_so_is_a_burst() {
        let idle = size_of::<Netted>() + size_of_output(Connection::serve);
        let burst = size_of_output(|connection: &'static mut Connection| connection.burst());
        println!("idle {idle} bytes, burst {burst} bytes");
        assert!(idle <= 512, "an idle connection's task: {idle} bytes");
        assert!(burst <= 2048, "a burst: {burst} bytes");
    }
}
