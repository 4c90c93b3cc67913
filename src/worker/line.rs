//! The line in which requests of HTTP/2 wait to begin: so many do in each turn of the core,
//! whatever they come in.
//!
//! A hundred requests fit into one packet, and the packets of many connections into one turn; each
//! that begins runs until it waits for its backend. So what a turn begins is bounded, and a
//! connection with more stands in line: the first takes what is left, and goes to the end with the
//! rest. All that one connection may have at once fits into a turn, as its answers then leave
//! together; but while somebody stands in line and turns are long, fewer begin in each.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use crate::base::moment::{Micros, Moment};
use crate::net::{clock::Clock, pending::Mark, turns};

/// What begins in a turn at most: a full connection and some of others. Of usual requests that is
/// a millisecond of a core.
const EACH_TURN: u32 = 128;

/// What begins in a turn at least, however long turns are: of requests that each need a new
/// connection to a backend, two or three milliseconds.
const EACH_TURN_LEAST: u32 = 32;

/// A turn that is longer than this is long for those who wait for theirs.
const LONG: Micros = Micros(2_000);

/// The line of a core.
#[derive(Default)]
pub(crate) struct Line {
    /// The turn that was seen last.
    seen: Cell<Seen>,
    /// The last turn in which something began, and how much.
    turn: Cell<(u64, u32)>,
    budget: Cell<Budget>,
    /// Who stands there, by numbers.
    waiting: RefCell<VecDeque<u32>>,
    next: Cell<u32>,
}

/// A turn, as it can be told from others: where nobody waits for the next it keeps its number, but
/// operations that began in it have ended.
#[derive(Clone, Copy, Default)]
struct Seen {
    number: u64,
    began: Mark,
    at: Option<Moment>,
    /// How many were seen before it.
    turn: u64,
}

/// How many may begin in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Budget(u32);

impl Default for Budget {
    fn default() -> Budget {
        Budget(EACH_TURN)
    }
}

impl Budget {
    /// That of the next turn, when the present one took so long, if somebody waited for its end.
    fn next(self, took: Option<Micros>) -> Budget {
        match took {
            None => Budget::default(),
            Some(took) if took > LONG => Budget((self.0 / 2).max(EACH_TURN_LEAST)),
            Some(_) => Budget((self.0 * 2).min(EACH_TURN)),
        }
    }
}

/// A place in the line, until it is dropped.
pub(crate) struct InLine {
    line: Rc<Line>,
    number: u32,
}

impl Line {
    /// Whether one more may begin, of who has this place or comes without one; it counts as begun.
    pub(crate) fn lets_begin(&self, place: Option<&InLine>) -> bool {
        turns::number().is_none_or(|number| self.lets_begin_in(self.turn(number), place))
    }

    fn turn(&self, number: u64) -> u64 {
        let seen = self.seen.get();
        if number == seen.number && !seen.began.is_past() {
            return seen.turn;
        }
        let (turn, at) = (seen.turn + 1, Clock::moment());
        let took = seen.at.filter(|_| !self.waiting.borrow().is_empty()).map(|it| at.since(it));
        self.budget.set(self.budget.get().next(took));
        self.seen.set(Seen { number, began: Mark::now(), at: Some(at), turn });
        turn
    }

    fn lets_begin_in(&self, turn: u64, place: Option<&InLine>) -> bool {
        let (of, begun) = self.turn.get();
        let begun = if of == turn { begun } else { 0 };
        // Who comes is behind all who wait.
        let is_first = self.waiting.borrow().front().copied() == place.map(|it| it.number);
        let lets = is_first && begun < self.budget.get().0;
        if lets {
            self.turn.set((turn, begun + 1));
        }
        lets
    }

    /// A place at the end.
    pub(crate) fn stand(self: &Rc<Line>) -> InLine {
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        self.waiting.borrow_mut().push_back(number);
        InLine { line: Rc::clone(self), number }
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        self.line.waiting.borrow_mut().retain(|number| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many begin for it now.
    fn begin(line: &Line, turn: u64, place: Option<&InLine>) -> u32 {
        (0..1_000).take_while(|_| line.lets_begin_in(turn, place)).count() as u32
    }

    #[test]
    fn a_turn_begins_so_many_for_all_together() {
        let line = Rc::new(Line::default());
        assert_eq!((begin(&line, 7, None), begin(&line, 7, None)), (EACH_TURN, 0));
        assert_eq!(begin(&line, 8, None), EACH_TURN);
        assert_eq!(begin(&line, 7, None), EACH_TURN, "any other turn is another");
    }

    #[test]
    fn fewer_begin_while_somebody_waits_and_turns_are_long() {
        let mut budget = Budget::default();
        let mut turn = |took: Option<u64>| {
            budget = budget.next(took.map(Micros));
            budget.0
        };
        let long = Some(2_001);
        assert_eq!([turn(Some(2_000)), turn(long), turn(long), turn(long)], [128, 64, 32, 32]);
        assert_eq!([turn(Some(900)), turn(Some(900)), turn(Some(900))], [64, 128, 128]);
        assert_eq!([turn(long), turn(long), turn(None)], [64, 32, 128], "nobody waited");
    }

    #[test]
    fn who_came_first_is_first_and_who_comes_waits_behind_all() {
        let line = Rc::new(Line::default());
        assert_eq!(begin(&line, 1, None), EACH_TURN);
        let (one, two) = (line.stand(), line.stand());
        assert_eq!((begin(&line, 2, None), begin(&line, 2, Some(&two))), (0, 0));
        assert!((0..5).all(|_| line.lets_begin_in(2, Some(&one))));
        // It goes to the end, and the next has what is left.
        drop(one);
        let one = line.stand();
        assert_eq!((begin(&line, 2, Some(&one)), begin(&line, 2, Some(&two))), (0, EACH_TURN - 5));
        // Who leaves is waited for no longer.
        drop(two);
        assert_eq!(begin(&line, 3, Some(&one)), EACH_TURN);
        drop(one);
        assert_eq!(begin(&line, 4, None), EACH_TURN);
    }
}
