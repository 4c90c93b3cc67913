//! Reusable buffers of one exchange: its heads, its output, its record.
//!
//! A warm request finds all of it grown and allocates nothing.

use crate::base::backend_set::BackendSet;
use crate::http::head::{RequestHead, ResponseHead};
use crate::observe::{
    record::{Asked, Record},
    tries::Tried,
};
use crate::policy::sticky::Reading;

/// Buffers that grew beyond this are not kept.
const BYTES_KEPT: usize = 16 << 10;

/// The heads, output and record of one exchange.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) request: RequestHead,
    pub(crate) response: ResponseHead,
    /// Bytes to send.
    pub(crate) out: Vec<u8>,
    /// The body of an answer of our own.
    pub(crate) body: Vec<u8>,
    /// The backends that were asked.
    pub(crate) tried: BackendSet,
    /// The hash key, if the pool balances by key.
    pub(crate) key: Option<u64>,
    /// The result of reading the client's cookies, if the pool is sticky.
    pub(crate) reading: Reading,
    /// Whether the client's scheme is https, also according to a trusted proxy.
    pub(crate) secure: bool,
    /// What the counters and the log will say.
    pub(crate) record: Record,
    /// How its tries ended, but for one that succeeds at once.
    pub(crate) tries: Vec<Tried>,
    /// The request as it will be logged.
    pub(crate) asked: Asked,
}

impl Scratch {
    pub(crate) fn clear(&mut self) {
        self.request.clear();
        self.response.clear();
        self.out.clear();
        self.body.clear();
        self.tried = BackendSet::EMPTY;
        self.key = None;
        self.reading = Reading::Absent;
        self.secure = false;
        self.tries.clear();
        if self.record.logged {
            self.asked = Asked::default();
        }
        self.record = Record::default();
    }

    /// Whether it is worth keeping.
    pub(crate) fn is_small(&self) -> bool {
        self.request.headers.bytes.capacity() <= BYTES_KEPT
            && self.response.headers.bytes.capacity() <= BYTES_KEPT
            && self.out.capacity() <= BYTES_KEPT
    }
}
