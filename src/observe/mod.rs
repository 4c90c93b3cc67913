//! What is told about what happened: events, the access log and, later, metrics and traces.
//!
//! Nothing here decides anything but what people are told. Lines are made on the core that ran the
//! exchange and written by a thread of their own, so that no disk is ever waited for on a core.

pub(crate) mod access_log;
pub(crate) mod dates;
mod digest;
pub(crate) mod event;
pub(crate) mod events;
pub(crate) mod hub;
pub(crate) mod record;
pub(crate) mod request_id;
mod text;
pub(crate) mod told;
pub(crate) mod writer;
