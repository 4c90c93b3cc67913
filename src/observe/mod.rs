//! Observation: events, the access log, statistics and, later, traces.
//!
//! Nothing here affects what is served. Lines are made on the core that ran the exchange and
//! written by a separate thread, so that no core ever waits for a disk.

pub(crate) mod access_log;
pub(crate) mod carried;
pub(crate) mod dates;
mod digest;
pub(crate) mod event;
pub(crate) mod events;
pub(crate) mod hub;
pub(crate) mod record;
pub(crate) mod reports;
pub(crate) mod request_id;
pub mod statistics;
mod text;
pub(crate) mod tries;
pub(crate) mod writer;
