//! The limits of the whole process, each with the reason for its number.

use crate::http::parse::HeadLimits;

/// The limits of the whole process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Client connections, exact for the process. 100,000: about 100 MiB of idle connections.
    pub connections: u32,
    /// Whether `connections` was set by the operator. If so, a descriptor limit that is too small
    /// for it keeps the process from starting; otherwise it is lowered to what fits.
    pub connections_written: bool,
    /// Bytes of a request head (431), also of a response head (502). 32 KiB: four times what
    /// browsers with many cookies send, half of a read.
    pub head_bytes_max: u32,
    /// Bytes of a request line (414). 16 KiB: RFC 9112 §3 wants at least 8,000.
    pub line_bytes_max: u32,
    /// Fields of a head (431). 100, like most servers.
    pub fields_max: u16,
    /// Slowest body accepted, in bytes per second after 10 s, not counting waits for the backend; 0
    /// = only the gaps count. 500: Apache's limit; a modem is faster.
    pub body_rate_min: u64,
    /// Bytes of a request body (413); 0 = no limit.
    pub body_bytes_max: u64,
}

impl Limits {
    /// Each client connection may need one more to a backend.
    pub(crate) const DESCRIPTORS_EACH: u64 = 2;

    /// Descriptors that all connections may take together; without a limit, as many as there are.
    pub(crate) fn descriptors(&self) -> u64 {
        match self.connections {
            0 => u64::MAX,
            connections => u64::from(connections) * Limits::DESCRIPTORS_EACH,
        }
    }

    /// The limits of heads, from clients and backends alike.
    pub(crate) fn heads(&self) -> HeadLimits {
        HeadLimits {
            head_bytes_max: self.head_bytes_max as usize,
            line_bytes_max: self.line_bytes_max as usize,
            fields_max: usize::from(self.fields_max),
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 100_000,
            connections_written: false,
            head_bytes_max: 32 << 10,
            line_bytes_max: 16 << 10,
            fields_max: 100,
            body_rate_min: 500,
            body_bytes_max: 0,
        }
    }
}
