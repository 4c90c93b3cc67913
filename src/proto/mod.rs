//! HTTP over a stream: reading heads, reading bodies piece by piece, framing what is sent.
//!
//! Floor 5. HTTP/1 for now; a second protocol makes `Client` and `Backend` enums here, and nothing
//! above this floor changes.

pub(crate) mod h1;
pub(crate) mod peer;
