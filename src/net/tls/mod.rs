//! TLS: handshakes, records, and the layer between a stream and its wire.
//!
//! rustls does the handshakes, and no more of a connection than that: afterwards its keys are ours,
//! and records are sealed and opened where their bytes lie (`records.rs`, `keys.rs`). Exactly one
//! file knows how rustls moves bytes (`handshake.rs`). `layer.rs` is TLS to a stream.

mod accept;
mod aead;
mod alert;
mod back;
mod connect;
#[cfg(any(test, feature = "bench"))]
mod differ;
mod ends;
mod failed;
mod front;
mod gate;
mod handshake;
mod keys;
mod layer;
mod records;
#[cfg(test)]
mod tests;
mod tickets;

#[cfg(any(test, feature = "bench"))]
pub(crate) use self::differ::differ;
pub(crate) use self::{
    accept::{Means, NoTls, accept},
    back::{Back, Backs, ToBackend},
    connect::connect,
    ends::Ends,
    failed::{Failed, Why},
    front::Front,
    gate::Gate,
    handshake::Agreed,
    layer::Tls,
    records::Records,
    tickets::Tickets,
};
