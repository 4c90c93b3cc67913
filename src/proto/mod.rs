//! HTTP over a stream: the two peers of an exchange, and the bodies between them.
//!
//! Floor 5. `Client`, `Backend`, `Source`, `Sink` and `Waits` are enums with an arm for each
//! protocol, so an exchange does not depend on what its peers speak. Heads are composed and bodies
//! are framed inside an arm (`h1`, `h2`). Only the code that serves client connections and the
//! connection pools know the protocol.

mod backend;
mod body;
mod client;
pub(crate) mod h1;
pub(crate) mod h2;
pub(crate) mod peer;
mod waits;

pub(crate) use self::{
    backend::{Arriving, Asking, Backend},
    body::{Cut, Piece, Sink, Source, Spliced},
    client::Client,
    waits::Waits,
};
