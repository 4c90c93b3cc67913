//! HTTP over a stream: the two peers of an exchange, and the bodies between them.
//!
//! Floor 5. Above this floor nobody knows which protocol a peer speaks: `Client`, `Backend`,
//! `Source`, `Sink` and `Waits` are enums with an arm for each, today for HTTP/1 alone. Heads are
//! composed and bodies are framed below (`h1`). Who serves a client's connection, and who keeps
//! those to backends, knows the protocol, of course.

mod backend;
mod body;
mod client;
pub(crate) mod h1;
pub(crate) mod peer;
mod waits;

pub(crate) use self::{
    backend::{Arriving, Asking, Backend},
    body::{Cut, Piece, Sink, Source, Spliced},
    client::Client,
    waits::Waits,
};
