//! The balancing algorithms of a pool, as configured.

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
    /// By the client's address: the same client gets the same backend.
    IpHash,
    /// The shortest time to the first byte of an answer, as far as known.
    LeastResponseTime,
    /// By a hash of a part of the request.
    Hash {
        /// The part that is hashed.
        of: HashOf,
        /// How far above its share of requests in flight a backend may go before its keys move on
        /// to the next (1.25 = a quarter more); none = no bound.
        bound: Option<Share>,
    },
}

impl Algorithm {
    /// Every algorithm, for tests about all: a new one does not compile until it is added to the
    /// chain here.
    #[cfg(test)]
    pub(crate) fn each() -> Vec<Algorithm> {
        let hash = |bound| Algorithm::Hash { of: HashOf::Uri, bound };
        let next = |last: &Algorithm| match last {
            Algorithm::RoundRobin => Some(Algorithm::Random),
            Algorithm::Random => Some(Algorithm::LeastConnections),
            Algorithm::LeastConnections => Some(Algorithm::LeastResponseTime),
            Algorithm::LeastResponseTime => Some(Algorithm::IpHash),
            Algorithm::IpHash => Some(hash(None)),
            Algorithm::Hash { bound: None, .. } => Some(hash(Some(Share::percent(125)))),
            Algorithm::Hash { bound: Some(_), .. } => None,
        };
        std::iter::successors(Some(Algorithm::RoundRobin), next).collect()
    }
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
    /// The value of this query argument.
    Query(String),
    /// The path and the query.
    Uri,
}
