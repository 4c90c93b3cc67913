//! What one stream leaves for the next of the same core: heads that have grown, room for what is
//! read of one, and for a body that comes.
//!
//! It belongs to no connection, so that an idle one keeps none of it, and a connection whose
//! streams come one by one allocates nothing for them.

use std::cell::RefCell;

use super::request::Room;
use crate::http::head::RequestHead;

/// How many of each are kept: as many as streams under way on a core that is busy.
const KEPT: usize = 512;

/// How many stay after a quiet while.
const KEPT_QUIET: usize = 16;

/// What has grown beyond this is not kept.
const BYTES_KEPT: usize = 4 << 10;

#[derive(Default)]
struct Spare {
    heads: Vec<RequestHead>,
    bodies: Vec<Vec<u8>>,
    room: Room,
}

thread_local! {
    static SPARE: RefCell<Spare> = RefCell::default();
}

/// A head for a request, in any state.
#[inline]
pub(super) fn head() -> RequestHead {
    SPARE.with_borrow_mut(|spare| spare.heads.pop()).unwrap_or_default()
}

/// A head for a later request.
#[inline]
pub(super) fn give_head(head: RequestHead) {
    let bytes = head.headers.bytes.capacity();
    if (1..=BYTES_KEPT).contains(&bytes) {
        SPARE.with_borrow_mut(|spare| {
            if spare.heads.len() < KEPT {
                spare.heads.push(head);
            }
        });
    }
}

/// Room for bytes of a body, empty.
#[inline]
pub(super) fn body() -> Vec<u8> {
    SPARE.with_borrow_mut(|spare| spare.bodies.pop()).unwrap_or_default()
}

/// Room for a later body.
#[inline]
pub(super) fn give_body(mut bytes: Vec<u8>) {
    if (1..=BYTES_KEPT).contains(&bytes.capacity()) {
        bytes.clear();
        SPARE.with_borrow_mut(|spare| {
            if spare.bodies.len() < KEPT {
                spare.bodies.push(bytes);
            }
        });
    }
}

/// Reads a head with the room of the core.
#[inline]
pub(super) fn with_room<T>(read: impl FnOnce(&mut Room) -> T) -> T {
    let mut room = SPARE.with_borrow_mut(|spare| std::mem::take(&mut spare.room));
    let result = read(&mut room);
    if room.is_small(BYTES_KEPT) {
        SPARE.with_borrow_mut(|spare| spare.room = room);
    }
    result
}

/// After a peak: what only that needed is freed.
pub(crate) fn give_memory_back() {
    SPARE.with_borrow_mut(|spare| {
        spare.heads.truncate(KEPT_QUIET);
        spare.bodies.truncate(KEPT_QUIET);
        spare.heads.shrink_to_fit();
        spare.bodies.shrink_to_fit();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_grown_is_used_again_unless_it_has_grown_too_much() {
        give_memory_back();
        for (grown, is_kept) in [(0, false), (1, true), (BYTES_KEPT, true), (5_000, false)] {
            SPARE.take();
            give_body(Vec::with_capacity(grown));
            let mut head = RequestHead::default();
            head.headers.bytes.reserve_exact(grown);
            give_head(head);
            assert_eq!(body().capacity() > 0, is_kept, "{grown}");
            assert_eq!(self::head().headers.bytes.capacity() > 0, is_kept, "{grown}");
        }
    }

    #[test]
    fn no_more_is_kept_than_is_of_use() {
        SPARE.take();
        for _ in 0..KEPT + 3 {
            give_body(vec![1]);
        }
        assert_eq!(SPARE.with_borrow(|spare| spare.bodies.len()), KEPT);
        assert!(body().is_empty(), "what was in it is gone");
        give_memory_back();
        assert_eq!(SPARE.with_borrow(|spare| spare.bodies.len()), KEPT_QUIET);
    }
}
