//! Sockets and buffers: all that the data path knows of monoio's input and output.
//!
//! Floor 4. It gives bytes, ends and deadlines; nothing here knows HTTP.

pub(crate) mod buffer;
pub(crate) mod chance;
pub(crate) mod client_hello;
pub(crate) mod clock;
pub(crate) mod deadlines;
pub(crate) mod fd;
pub(crate) mod io;
pub(crate) mod leaving;
pub(crate) mod listener;
pub(crate) mod pending;
pub(crate) mod proxy_header;
pub(crate) mod relay;
pub(crate) mod repeated;
pub(crate) mod runtime;
pub(crate) mod signal;
pub(crate) mod socket_file;
pub(crate) mod stream;
pub(crate) mod tls;
pub(crate) mod turns;
pub(crate) mod wake;
