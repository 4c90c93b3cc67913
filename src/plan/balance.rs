//! How a backend is picked.

use super::share::Share;

/// How a backend is picked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Algorithm {
    /// Smooth weighted round robin.
    #[default]
    RoundRobin,
    /// The better of two drawn by weight.
    Random,
    /// The fewest requests in flight, by weight.
    LeastConnections,
    /// By the client's address: the same client, the same backend.
    IpHash,
    /// The shortest time to the first byte of an answer, as far as it is known.
    LeastResponseTime,
    /// By a hash of a part of the request.
    Hash {
        /// Of what.
        of: HashOf,
        /// How much more than its share a backend may have in flight before its keys go on to the
        /// next (1.25 = a quarter more); none = no bound.
        bound: Option<Share>,
    },
}

/// The part of a request that is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HashOf {
    /// The client's address, an IPv6 one by its /64.
    ClientIp,
    /// The value of this field, its name in lower case.
    Header(String),
    /// The value of this cookie.
    Cookie(String),
    /// The value of this argument of the query.
    Query(String),
    /// The path and the query.
    Uri,
}
