//! The one loop that moves bytes from one peer to the other: a body, or one direction of a tunnel.
//!
//! It pulls: a piece is read when the one before has been written. So memory is one piece, and a
//! slow reader slows down the sender. `Bounds` says how long each wait may last; `Through` lists
//! the stages that a body passes. Called by `upload`, `download`, `tunnel` and `early`.

use super::{
    download::Downloading, early::Dropping, replay::Keeping, tunnel::Tunneling, upload::Uploading,
};
use crate::base::moment::Deadline;
use crate::http::fault::{Cause, Fault};
use crate::net::leaving::ForClient;
use crate::proto::{Cut, Piece, Sink, Source, Spliced};

/// From this many bytes on a body of known length is spliced: below, the pipe costs more than the
/// copy.
const SPLICE_BYTES_MIN: u64 = 96 << 10;

/// Moves a body to its end.
///
/// # Errors
/// Which side ended it early, and why.
pub(super) async fn pass(
    from: &mut Source,
    to: &mut Sink,
    through: &mut Through<'_>,
    bounds: &Bounds<'_>,
) -> Result<(), Cut> {
    loop {
        if from.spliceable() >= SPLICE_BYTES_MIN && splice(from, to, bounds).await? {
            return Ok(());
        }
        let bytes = through.bytes;
        let next = from.next(|| bounds.reads(bytes));
        let next = match bounds.stop() {
            None => next.await,
            // The upload was stopped for another try. `upload` sees the signal; the fault is not
            // used.
            Some(stop) => stop.or(next).await.unwrap_or(Err(Cause::BackendReset.into())),
        };
        let mut piece = next.map_err(Cut::From)?;
        bounds.has_come(from.received());
        let written = match through.check(&piece) {
            Ok(()) => to.write(&mut piece, |sent| bounds.writes(sent)).await.map_err(Cut::To),
            Err(fault) => Err(Cut::From(fault)),
        };
        bounds.has_gone();
        let ended = piece.ends();
        from.done(piece);
        written?;
        if ended {
            return Ok(());
        }
    }
}

/// Lets the kernel move the rest of the body. False if it moved none of it, or only a part.
async fn splice(from: &mut Source, to: &mut Sink, bounds: &Bounds<'_>) -> Result<bool, Cut> {
    let Bounds::Download(down) = bounds else { return Ok(false) };
    let pipes = &down.worker.pipes;
    let spliced = to.splice(from, pipes, || bounds.reads(0), |sent| bounds.writes(sent)).await?;
    if let Spliced::NoDescriptor = spliced {
        // The body, or the rest of it, is copied.
        down.worker.frees_descriptors();
    }
    Ok(matches!(spliced, Spliced::All))
}

/// The stages that a body passes, in order.
pub(super) struct Through<'a> {
    stages: &'a [Stage<'a>],
    /// Bytes of the body so far.
    bytes: u64,
}

pub(super) enum Stage<'a> {
    /// At most so many bytes; 0 = no limit.
    Limit(u64),
    /// Bytes are kept in case they have to be sent again.
    Keep(&'a Keeping),
}

impl<'a> Through<'a> {
    pub(super) fn these(stages: &'a [Stage<'a>]) -> Through<'a> {
        Through { stages, bytes: 0 }
    }

    fn check(&mut self, piece: &Piece) -> Result<(), Fault> {
        self.bytes += piece.bytes().len() as u64;
        for stage in self.stages {
            match stage {
                Stage::Limit(most) if *most != 0 && self.bytes > *most => {
                    return Err(Cause::BodyTooLarge.into());
                }
                Stage::Limit(_) => {}
                Stage::Keep(keeping) => keeping.note(piece),
            }
        }
        Ok(())
    }
}

/// How long each wait may last, and what else follows from it.
pub(super) enum Bounds<'a> {
    Upload(Uploading<'a>),
    Download(Downloading<'a>),
    Tunnel(Tunneling<'a>),
    /// A body that is read and dropped.
    Drop(Dropping<'a>),
}

impl Bounds<'_> {
    /// A wait for the source begins, after this many bytes of the body. Returns its deadline and
    /// the client whose leaving ends it.
    fn reads(&self, bytes: u64) -> (Deadline, Option<ForClient>) {
        match self {
            Bounds::Upload(up) => (up.reads(bytes), None),
            Bounds::Download(down) => (down.reads(), Some(down.for_client.get())),
            Bounds::Tunnel(tunnel) => (tunnel.reads(), None),
            Bounds::Drop(drop) => (drop.reads(), None),
        }
    }

    /// Tells the bounds that bytes have come: `received` in all by now, including framing.
    fn has_come(&self, received: u64) {
        match self {
            Bounds::Upload(up) => up.has_come(received),
            Bounds::Tunnel(tunnel) => tunnel.has_come(),
            Bounds::Download(_) | Bounds::Drop(_) => {}
        }
    }

    /// A write begins, after which the sink will have got `sent` bytes. Returns the deadline by
    /// which the sink must take something.
    fn writes(&self, sent: u64) -> Deadline {
        match self {
            Bounds::Upload(up) => up.writes(),
            Bounds::Download(down) => down.writes(sent),
            Bounds::Tunnel(tunnel) => tunnel.writes(),
            Bounds::Drop(_) => Deadline::NEVER,
        }
    }

    /// Tells the bounds that the write is over or has failed.
    fn has_gone(&self) {
        match self {
            Bounds::Tunnel(tunnel) => tunnel.has_gone(),
            Bounds::Upload(_) | Bounds::Download(_) | Bounds::Drop(_) => {}
        }
    }

    /// A signal that stops the pass while it waits for the source, whose wait may then be dropped.
    fn stop(&self) -> Option<&crate::net::signal::Signal> {
        match self {
            Bounds::Upload(up) => up.keeping.map(|keeping| &keeping.stop),
            Bounds::Download(_) | Bounds::Tunnel(_) | Bounds::Drop(_) => None,
        }
    }
}
