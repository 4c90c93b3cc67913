//! What clients may take of this core, and which of them it lets in no more for a while: each
//! client by its address, unless it is a proxy that is trusted, which speaks for many.

use super::Worker;
use crate::base::subscriber::Subscriber;
use crate::proto::{
    h2::Share,
    peer::{Peer, PeerAddress},
};

impl Worker {
    /// The places for the streams of a connection: as many as this core may have connections, and
    /// of each client fewer.
    pub(crate) fn places_of(&self, peer: &Peer) -> Share {
        // Each may need a connection to a backend, and so do those of HTTP/1.
        let most = self.in_force().share / 2;
        self.places.share(peer.subscriber(), most)
    }

    /// The client has done this much for nothing; whether it is refused for that from now on.
    pub(crate) fn penalise(&self, peer: &Peer, amount: u32) -> bool {
        let now = self.clock.tick();
        let mut penalties = self.penalties.borrow_mut();
        peer.subscriber().is_some_and(|client| penalties.add(client, amount, now))
    }

    /// Whether connections from there are refused now.
    #[inline]
    pub(crate) fn refuses(&self, from: PeerAddress) -> bool {
        let (penalties, now) = (self.penalties.borrow(), self.clock.tick());
        penalties.is_in_use(now)
            && from.ip().is_some_and(|ip| penalties.refuses(Subscriber::of(ip), now))
    }
}
