//! The wire between the old process and the new one: messages with descriptors over a Unix socket.
//!
//! A message is a frame: the length of its text and the number of its descriptors, four bytes each
//! (little endian), then the text, then the descriptors, at most `AT_ONCE` with each further byte.
//! Every wait is bounded.

use std::{
    io::{self, ErrorKind, IoSlice, IoSliceMut, Read as _, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Serialize, de::DeserializeOwned};

/// Descriptors that go with one byte; the kernel takes 253 at most.
const AT_ONCE: usize = 64;

/// The longest text of a message: the state of four full pools of a large configuration is some
/// megabytes.
const TEXT_MAX: usize = 64 << 20;

/// The most descriptors of a message: the sockets of 256 cores at 64 addresses.
const DESCRIPTORS_MAX: usize = 16_384;

/// How long a write may wait: the other side reads at once, or is not well.
const WRITE: Duration = Duration::from_secs(5);

/// One end.
pub(super) struct Wire {
    socket: UnixStream,
}

impl Wire {
    /// # Errors
    /// The kernel's.
    pub(super) fn new(socket: UnixStream) -> io::Result<Wire> {
        socket.set_nonblocking(false)?;
        socket.set_write_timeout(Some(WRITE))?;
        Ok(Wire { socket })
    }

    /// Another handle of the same end: one thread may write while another reads.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn another(&self) -> io::Result<Wire> {
        Ok(Wire { socket: self.socket.try_clone()? })
    }

    /// Sends a message with these descriptors.
    ///
    /// # Errors
    /// The kernel's; the other side has got a part of it, and nothing more can be sent.
    pub(super) fn send(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        let length = |count: usize| u32::try_from(count).map_err(io::Error::other);
        let mut frame = Vec::with_capacity(text.len() + 8);
        frame.extend_from_slice(&length(text.len())?.to_le_bytes());
        frame.extend_from_slice(&length(descriptors.len())?.to_le_bytes());
        frame.extend_from_slice(&text);
        (&self.socket).write_all(&frame)?;
        descriptors.chunks(AT_ONCE).try_for_each(|some| self.send_some(some))
    }

    fn send_some(&self, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut with = SendAncillaryBuffer::new(&mut room);
        if !with.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(ErrorKind::InvalidInput.into());
        }
        match sendmsg(&self.socket, &[IoSlice::new(b"+")], &mut with, SendFlags::NOSIGNAL)? {
            1 => Ok(()),
            _ => Err(ErrorKind::WriteZero.into()),
        }
    }

    /// The next message and its descriptors.
    ///
    /// # Errors
    /// `TimedOut` if nothing has come by then, `UnexpectedEof` if the other side has closed.
    pub(super) fn receive<T: DeserializeOwned>(
        &self,
        until: Instant,
    ) -> io::Result<(T, Vec<OwnedFd>)> {
        let mut head = [0; 8];
        self.read(&mut head, until)?;
        let [a, b, c, d, e, f, g, h] = head;
        let text = u32::from_le_bytes([a, b, c, d]) as usize;
        let count = u32::from_le_bytes([e, f, g, h]) as usize;
        if text > TEXT_MAX || count > DESCRIPTORS_MAX {
            return Err(io::Error::new(ErrorKind::InvalidData, "it does not speak this protocol"));
        }
        // What has begun comes whole.
        let until = until.max(Instant::now() + WRITE);
        let mut body = vec![0; text];
        self.read(&mut body, until)?;
        let mut descriptors = Vec::new();
        while descriptors.len() < count {
            self.read_some(&mut descriptors, until)?;
        }
        Ok((serde_json::from_slice(&body)?, descriptors))
    }

    fn read(&self, mut room: &mut [u8], until: Instant) -> io::Result<()> {
        while !room.is_empty() {
            self.waits_until(until)?;
            match (&self.socket).read(room) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => room = room.get_mut(count..).unwrap_or_default(),
                Err(error) => retried(error)?,
            }
        }
        Ok(())
    }

    fn read_some(&self, into: &mut Vec<OwnedFd>, until: Instant) -> io::Result<()> {
        self.waits_until(until)?;
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut with = RecvAncillaryBuffer::new(&mut room);
        let mut byte = [0];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let room = &mut [IoSliceMut::new(&mut byte)];
        let came = match recvmsg(self.socket.as_fd(), room, &mut with, flags) {
            Ok(came) => came,
            Err(error) => return retried(error.into()),
        };
        if came.bytes == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let before = into.len();
        for message in with.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                into.extend(descriptors);
            }
        }
        // The kernel drops what this process has no room for.
        if into.len() == before { Err(io::Error::other("no descriptor is left")) } else { Ok(()) }
    }

    fn waits_until(&self, until: Instant) -> io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.socket.set_read_timeout(Some(left))
    }
}

/// Whether a read is tried again: its wait may be over.
fn retried(error: io::Error) -> io::Result<()> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(()),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd as _, AsRawFd as _};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn pair() -> (Wire, Wire) {
        let (one, other) = UnixStream::pair().unwrap();
        (Wire::new(one).unwrap(), Wire::new(other).unwrap())
    }

    #[test]
    fn messages_come_whole_with_their_descriptors_in_order() {
        let (old, new) = pair();
        let files: Vec<OwnedFd> =
            (0..200).map(|_| OwnedFd::from(UnixStream::pair().unwrap().0)).collect();
        let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
        let expected: Vec<u64> = files.iter().map(inode).collect();
        let long = "x".repeat(3 << 20);
        let sent = long.clone();
        let sends = std::thread::spawn(move || {
            let given: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
            old.send(&sent, &given).unwrap();
            old.send(&"next", &[]).unwrap();
            old.send(&"last", &given[..1]).unwrap();
        });
        let until = Instant::now() + LONG;
        let (text, descriptors): (String, _) = new.receive(until).unwrap();
        assert!(text == long);
        assert_eq!(descriptors.iter().map(inode).collect::<Vec<_>>(), expected);
        for (expected, count) in [("next", 0), ("last", 1)] {
            let (text, descriptors): (String, _) = new.receive(until).unwrap();
            assert_eq!((text.as_str(), descriptors.len()), (expected, count));
            for descriptor in descriptors {
                let flags = rustix::io::fcntl_getfd(&descriptor).unwrap();
                assert_eq!(flags, rustix::io::FdFlags::CLOEXEC, "{}", descriptor.as_raw_fd());
            }
        }
        sends.join().unwrap();
        let ended = new.receive::<String>(until).unwrap_err();
        assert_eq!(ended.kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_wait_is_over_in_time_and_what_is_no_message_is_refused() {
        let (old, new) = pair();
        let soon = Instant::now() + Duration::from_millis(50);
        let late = new.receive::<String>(soon).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::TimedOut);
        (&old.socket).write_all(b"GET / HTTP/1.1\r\n").unwrap();
        let refused = new.receive::<String>(Instant::now() + LONG).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidData);
    }
}
