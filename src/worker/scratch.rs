//! Recycled room for one exchange: its heads, what is written for it and recorded of it.
//!
//! A warm request finds all of it grown and allocates nothing.

use crate::base::backend_set::BackendSet;
use crate::http::head::{RequestHead, ResponseHead};
use crate::observe::record::{Asked, Record};
use crate::policy::sticky::Reading;

/// Room that grew beyond this is not kept.
const BYTES_KEPT: usize = 16 << 10;

/// The heads of one exchange, what is written for it and recorded of it.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) request: RequestHead,
    pub(crate) response: ResponseHead,
    /// Bytes on their way out.
    pub(crate) out: Vec<u8>,
    /// The body of an answer of our own.
    pub(crate) body: Vec<u8>,
    /// The backends that were asked.
    pub(crate) tried: BackendSet,
    /// What the pool balances by, where it does.
    pub(crate) key: Option<u64>,
    /// What the client's cookies said, where the pool is sticky.
    pub(crate) reading: Reading,
    /// Whether the client's scheme is https, by the word of a trusted proxy too.
    pub(crate) secure: bool,
    /// What the counters and the log will say.
    pub(crate) record: Record,
    /// What was asked, where that is logged.
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
