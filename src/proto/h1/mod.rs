//! HTTP/1 over a stream.

mod backend;
mod body;
mod client;

pub(crate) use self::{
    backend::{Backend, Begun},
    body::{Framed, Incoming, Outgoing},
    client::{Client, HeadRead, Reader},
};
