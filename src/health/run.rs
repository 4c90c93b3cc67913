//! What the thread does, turn after turn, until it is told to end.

use std::io;

use super::Job;
use crate::net::wake::Bell;
use crate::shared::inbox::Message;

/// Hears what is posted until told to end.
pub(super) async fn run(job: Job, ready: impl FnOnce()) -> io::Result<()> {
    let Job { inbox, posted, .. } = job;
    let bell = Bell::adopt(inbox.bell())?;
    ready();
    loop {
        bell.rung().await?;
        while let Some(message) = inbox.next() {
            match message {
                Message::Addresses(_) | Message::Room(_) | Message::Drain => {}
                Message::Stop => return Ok(()),
            }
        }
        let _ = posted.missed();
        while posted.next().is_some() {}
    }
}
