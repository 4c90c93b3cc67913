//! The one door of the library, as the plays use it.
//!
//! STAND-IN: until the library has its door, this module has the same signatures and puts nothing
//! between client and backend: the "listener" is the first backend itself. Plays that need no
//! proxy pass against it; the rest fail. To switch, replace all below by
//! `pub use ringway::{Handle, Stop, config::parse, start};`.

use std::net::SocketAddr;

/// Whether all this only stands in; plays are then not played.
pub(crate) const STAND_IN: bool = true;

/// What `parse` gives.
pub(crate) struct Loaded {
    /// The checked configuration.
    pub(crate) plan: SocketAddr,
}

/// A running proxy.
pub(crate) struct Handle(SocketAddr);

/// How to stop.
pub(crate) enum Stop {
    /// Finish what runs.
    Graceful,
    /// At once.
    Now,
}

pub(crate) fn parse(_path: &str, text: &str) -> Result<Loaded, String> {
    let table: toml::Table = text.parse().map_err(|error| format!("{error}"))?;
    let first = &table["pool"]["app"]["backends"][0];
    let address = first.get("address").unwrap_or(first).as_str().unwrap();
    Ok(Loaded { plan: address.parse().unwrap() })
}

pub(crate) fn start(plan: SocketAddr) -> Result<Handle, String> {
    Ok(Handle(plan))
}

impl Handle {
    pub(crate) fn addresses(&self) -> Vec<(String, SocketAddr)> {
        vec![("web".to_owned(), self.0)]
    }

    pub(crate) fn stop(self, _how: Stop) -> Result<(), String> {
        Ok(())
    }

    pub(crate) fn count(&self, _counter: &str) -> u64 {
        0
    }
}
