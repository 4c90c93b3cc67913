//! HTTP messages as pure functions of bytes: parsing, framing, forwarding, writing.
//!
//! Floor 1: pure. No function here can panic on any input, keeps more than its limits allow, or
//! knows where bytes come from. The modules are listed in reading order.

#![deny(clippy::indexing_slicing)]

pub(crate) mod fault;

pub(crate) mod grammar;
pub(crate) mod names;
pub(crate) mod words;

pub(crate) mod headers;

pub(crate) mod cookies;
pub(crate) mod keep_alive;

pub(crate) mod head;

pub(crate) mod grpc;

pub(crate) mod target;

pub(crate) mod parse;

pub(crate) mod framing;

pub(crate) mod chunks;

pub(crate) mod forward;
pub(crate) mod upgrade;

pub(crate) mod write;

pub(crate) mod answer;
