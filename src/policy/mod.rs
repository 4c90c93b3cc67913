//! Decisions, one file each: values in, a verdict out.
//!
//! Floor 3: pure. Nothing here reads a clock, has randomness of its own, touches a socket or learns
//! why a backend is not usable; it sees only which are.

pub(crate) mod backoff;
pub(crate) mod balance;
pub(crate) mod blame;
pub(crate) mod breaker;
pub(crate) mod budget;
pub(crate) mod connect;
pub(crate) mod health;
pub(crate) mod level;
pub(crate) mod lookups;
pub(crate) mod outlier;
pub(crate) mod overlay;
pub(crate) mod penalties;
pub(crate) mod probes;
pub(crate) mod resolve;
pub(crate) mod retry;
pub(crate) mod route;
#[cfg_attr(not(test), expect(dead_code, reason = "the next plan is seated with the reload"))]
pub(crate) mod seats;
pub(crate) mod standing;
pub(crate) mod sticky;
pub(crate) mod suspicion;
