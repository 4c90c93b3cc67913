//! HTTP/2 over a stream (RFC 9113).
//!
//! `Conn` is the state of one connection: what comes is fed to it (`receive`), what is to be sent
//! is taken from it (`output`), and neither is done here: `server/http2.rs` drives that of a
//! client, `conns/link.rs` that of a backend (`answers`). Each stream is a client, a backend or a
//! body like any other (`Asking`, `Backend`, `Source`, `Sink`); its task waits for the connection's
//! state to change, never for a socket. Messages become the heads that HTTP/1 makes (`request`,
//! `answer`), so that nothing above this floor asks which version it is.
//!
//! What one connection can hold is bounded: `conn.rs` has the numbers.

mod answer;
mod answers;
#[cfg(test)]
mod answers_tests;
mod backend;
mod bell;
mod body;
mod bounds;
mod client;
mod compose;
mod conn;
#[cfg(test)]
pub(crate) mod conn_tests;
mod ending;
mod frame;
mod guard;
mod hpack;
mod out;
mod places;
mod request;
mod response;
mod sending;
mod spare;
mod stream;
mod taking;
mod turns;

pub(crate) use self::{
    backend::Backend,
    bell::Bell,
    body::{Sink, Source},
    client::Asking,
    conn::Conn,
    frame::{PREFACE, Reason},
    guard::Abuse,
    places::{Places, Share},
    spare::give_memory_back,
    stream::Stream,
};
