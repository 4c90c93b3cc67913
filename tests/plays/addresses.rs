//! Addresses that a play can name before anything binds them: for listeners of a separate process,
//! and for backends that are not there.
//!
//! A port of 127.0.0.1 that is free now may be given to the next socket that asks for any, so each
//! of these has a host of its own within 127.64.0.0/10, which nothing else uses.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU32, Ordering},
};

/// A host of loopback that no other call returns.
pub(crate) fn host() -> Ipv4Addr {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let host = 127 << 24 | 64 << 16 | (std::process::id() & 0xff) << 14 | (number & 0x3fff);
    Ipv4Addr::from(host)
}

/// An address that nothing listens on, and that no other call returns.
pub(crate) fn free() -> SocketAddr {
    let any = SocketAddr::from((host(), 0));
    TcpListener::bind(any).unwrap().local_addr().unwrap()
}
