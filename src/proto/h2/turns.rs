//! The order in which streams write what they cannot all write at once (RFC 9218 §10).
//!
//! A stream that finds no room, or others that wait for it, waits for a turn. A turn is one frame:
//! the more urgent first; among equals those that do not share, one after the other; then those
//! that share, in rounds.

use std::rc::Rc;

use super::stream::{Stream, Turn};

/// Streams that wait for a turn.
#[derive(Default)]
pub(super) struct Turns {
    waiting: Vec<Rc<Stream>>,
    /// Turns so far.
    number: u64,
    /// Whether a stream has a turn that it has not used.
    is_given: bool,
}

impl Turns {
    #[inline]
    pub(super) fn are_wanted(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A stream waits for a turn.
    pub(super) fn wait(&mut self, stream: &Rc<Stream>) {
        if stream.turn.replace(Turn::Waits) != Turn::Waits {
            self.waiting.push(Rc::clone(stream));
        }
    }

    /// A stream uses its turn, if it has one.
    #[inline]
    pub(super) fn is_used(&mut self, stream: &Stream) {
        if stream.turn.get() == Turn::Its {
            self.is_given = false;
        }
    }

    /// The stream whose turn it is now is woken, unless another has one.
    pub(super) fn give(&mut self) {
        if self.is_given {
            return;
        }
        let order = |stream: &Rc<Stream>| {
            let priority = stream.priority.get();
            let after = if priority.shares { stream.served.get() + 1 } else { 0 };
            (priority.urgency, after, stream.id.get())
        };
        let next = (0..self.waiting.len()).min_by_key(|at| self.waiting.get(*at).map(order));
        if let Some(at) = next {
            let stream = self.waiting.swap_remove(at);
            self.is_given = true;
            self.number += 1;
            stream.served.set(self.number);
            stream.turn.set(Turn::Its);
            stream.wake();
        }
    }

    /// A stream wants none any more; whether it had one that it did not use.
    pub(super) fn leave(&mut self, stream: &Stream) -> bool {
        self.is_used(stream);
        let turn = stream.turn.replace(Turn::None);
        if turn == Turn::Waits {
            self.waiting.retain(|other| other.id.get() != stream.id.get());
        }
        turn == Turn::Its
    }
}
