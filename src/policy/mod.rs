//! Every decision, a file each: values in, a verdict out.
//!
//! Floor 3: pure. Nothing here reads a clock, draws by chance of its own, touches a socket or
//! learns why a backend is not usable; it sees only which are.

#[allow(dead_code, reason = "the health thread, being written, uses it")]
pub(crate) mod backoff;
pub(crate) mod balance;
pub(crate) mod blame;
#[allow(dead_code, reason = "the health thread, being written, uses it")]
pub(crate) mod breaker;
pub(crate) mod budget;
pub(crate) mod connect;
#[allow(dead_code, reason = "the health thread, being written, uses it")]
pub(crate) mod health;
pub(crate) mod lookups;
#[allow(dead_code, reason = "the health thread, being written, uses it")]
pub(crate) mod outlier;
pub(crate) mod resolve;
pub(crate) mod retry;
pub(crate) mod route;
#[allow(dead_code, reason = "the health thread, being written, uses it")]
pub(crate) mod standing;
pub(crate) mod sticky;
