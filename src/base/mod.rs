//! General-purpose types that know nothing of HTTP: backend sets, tables by id, time, seeded
//! randomness, decaying averages, histograms, the calendar, digits, places of sockets, who is one
//! client.
//!
//! Floor 0. Nothing here uses another module, reads a clock or touches a socket.

pub(crate) mod backend_set;
pub(crate) mod base64url;
pub(crate) mod calendar;
pub(crate) mod core_load;
pub(crate) mod endpoint;
pub(crate) mod ewma;
pub(crate) mod histogram;
pub(crate) mod ids;
pub(crate) mod moment;
pub(crate) mod quick_hash;
pub(crate) mod rng;
pub(crate) mod segments;
pub(crate) mod sha1;
pub(crate) mod spell;
pub(crate) mod subscriber;
pub(crate) mod table;
pub(crate) mod totals;
