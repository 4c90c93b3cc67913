//! HTTP/1 over a stream.

mod backend;
mod body;
mod client;
mod compose;
mod sink;
mod source;

pub(crate) use self::{
    backend::Backend,
    body::Incoming,
    client::{Client, HeadRead},
    sink::Sink,
    source::Source,
};
use self::{
    body::{Framed, Outgoing},
    client::Reader,
    sink::To,
};
