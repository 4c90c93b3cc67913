//! Recycled room for one exchange: its heads and what is written for it.
//!
//! A warm request finds all of it grown and allocates nothing.

use crate::base::backend_set::BackendSet;
use crate::http::{
    head::{RequestHead, ResponseHead},
    headers::Headers,
};

/// Room that grew beyond this is not kept.
const BYTES_KEPT: usize = 16 << 10;

/// The heads of one exchange and what is written for it.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) request: RequestHead,
    pub(crate) response: ResponseHead,
    pub(crate) trailers: Headers,
    /// Bytes on their way out.
    pub(crate) out: Vec<u8>,
    /// The backends that were asked.
    pub(crate) tried: BackendSet,
}

impl Scratch {
    pub(crate) fn clear(&mut self) {
        self.request.clear();
        self.response.clear();
        self.trailers.clear();
        self.out.clear();
        self.tried = BackendSet::EMPTY;
    }

    /// Whether it is worth keeping.
    pub(crate) fn is_small(&self) -> bool {
        self.request.headers.bytes.capacity() <= BYTES_KEPT
            && self.response.headers.bytes.capacity() <= BYTES_KEPT
            && self.trailers.bytes.capacity() <= BYTES_KEPT
            && self.out.capacity() <= BYTES_KEPT
    }
}
