//! The lines in which streams of HTTP/2 wait to begin, and to be given up: so many do in each turn
//! of the core, whatever they come in.
//!
//! A hundred requests fit into one packet, and the packets of many connections into one turn; each
//! that begins runs until it waits for its backend. So what a turn begins is bounded, and a
//! connection with more stands in line: the first takes what is left, and goes to the end with the
//! rest. All that one connection may have at once fits into a turn, as its answers then leave
//! together; but where requests open connections to backends, which costs more than all the rest
//! of them, fewer begin in each. A client that leaves may end a hundred requests at once, each of
//! which closes a connection to a backend: they end in a line of their own.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    sync::Arc,
};

use crate::net::{
    pending::Mark,
    turns::{self, next_turn},
};
use crate::shared::counters::{Counter, Slab};

/// How many requests begin in a turn at most: a full connection and some of others. Of usual ones
/// that is a millisecond of a core.
const BEGIN: u32 = 128;

/// How many are given up in a turn, a tenth of a millisecond each at worst.
const GIVEN_UP: u32 = 4;

/// As how many a request counts that opens a connection to a backend: it takes a tenth of a
/// millisecond.
const OPENING: u32 = 32;

/// A turn that begins fewer does not tell what the next ones will need. The first of all begins as
/// many.
const TELLING: u32 = BEGIN / OPENING;

/// A line of a core.
pub(crate) struct Line {
    /// How many come on in a turn at most.
    each_turn: u32,
    /// Counts the connections that the core opens to backends, if who comes on may open some.
    opens: Option<Arc<Slab>>,
    /// The turn that was seen last.
    seen: Cell<Seen>,
    turn: Cell<Begun>,
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
    /// How many were seen before it.
    turn: u64,
}

/// The last turn in which somebody came on, and how many did.
#[derive(Clone, Copy)]
struct Begun {
    turn: u64,
    count: u32,
    /// How many may.
    most: u32,
    /// How many connections the core had opened to backends before it.
    opened: u64,
}

impl Begun {
    /// The next, in which so many may, as the core has opened so many connections before it.
    fn next(self, turn: u64, each_turn: u32, opened: u64) -> Begun {
        if self.count < TELLING {
            return Begun { turn, count: 0, opened, ..self };
        }
        // Others than those that began may have opened some, too.
        let opening = opened.saturating_sub(self.opened).min(u64::from(self.count)) as u32;
        let most = each_turn * self.count / (self.count + opening * (OPENING - 1));
        Begun { turn, count: 0, most, opened }
    }
}

/// Somebody who comes to a line, or stands there until dropped.
pub(crate) struct Comer<'a> {
    line: &'a Line,
    /// The number of its place.
    place: Option<u32>,
    has_come_on: bool,
}

impl Line {
    /// That of requests that begin on the core with these counters.
    pub(crate) fn of_beginnings(counters: &Arc<Slab>) -> Line {
        Line::of(BEGIN, Some(Arc::clone(counters)))
    }

    /// That of streams that are given up.
    pub(crate) fn of_endings() -> Line {
        Line::of(GIVEN_UP, None)
    }

    fn of(each_turn: u32, opens: Option<Arc<Slab>>) -> Line {
        let most = TELLING.min(each_turn);
        Line {
            each_turn,
            opens,
            seen: Cell::default(),
            turn: Cell::new(Begun { turn: 0, count: 0, most, opened: 0 }),
            waiting: RefCell::default(),
            next: Cell::new(0),
        }
    }

    /// Somebody who has no place yet.
    pub(crate) fn comer(&self) -> Comer<'_> {
        Comer { line: self, place: None, has_come_on: false }
    }

    /// Whether one more may come on, of who has this place or comes without one.
    fn lets(&self, place: Option<u32>) -> bool {
        turns::number().is_none_or(|number| self.lets_in(self.turn(number), place))
    }

    fn turn(&self, number: u64) -> u64 {
        let seen = self.seen.get();
        if number == seen.number && !seen.began.is_past() {
            return seen.turn;
        }
        let turn = seen.turn + 1;
        self.seen.set(Seen { number, began: Mark::now(), turn });
        turn
    }

    fn lets_in(&self, turn: u64, place: Option<u32>) -> bool {
        let last = self.turn.get();
        let begun = if last.turn == turn {
            last
        } else {
            let opened = self.opens.as_ref().map_or(0, |it| it.read(Counter::BackendOpened));
            last.next(turn, self.each_turn, opened)
        };
        // Who comes is behind all who wait.
        let is_first = self.waiting.borrow().front().copied() == place;
        let lets = is_first && begun.count < begun.most;
        self.turn.set(Begun { count: begun.count + u32::from(lets), ..begun });
        lets
    }
}

impl Comer<'_> {
    /// Waits until it may come on with one thing more.
    pub(crate) async fn comes_on(&mut self) {
        while !self.line.lets(self.place) {
            if std::mem::take(&mut self.has_come_on) || self.place.is_none() {
                // Whose turn it was goes to the end.
                self.stand();
            }
            next_turn().await;
        }
        self.has_come_on = true;
    }

    /// Takes the place at the end.
    fn stand(&mut self) {
        self.leave();
        let number = self.line.next.get();
        self.line.next.set(number.wrapping_add(1));
        self.line.waiting.borrow_mut().push_back(number);
        self.place = Some(number);
    }

    fn leave(&mut self) {
        if let Some(place) = self.place.take() {
            self.line.waiting.borrow_mut().retain(|number| *number != place);
        }
    }
}

impl Drop for Comer<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::on_both_drivers;

    /// How many it lets begin now.
    fn begin(line: &Line, turn: u64, place: Option<u32>) -> u32 {
        (0..1_000).take_while(|_| line.lets_in(turn, place)).count() as u32
    }

    #[test]
    fn a_turn_begins_so_many_for_all_together() {
        let line = Line::of_beginnings(&Slab::new());
        assert_eq!((begin(&line, 6, None), begin(&line, 6, None)), (4, 0));
        assert_eq!((begin(&line, 7, None), begin(&line, 7, None)), (128, 0));
        assert_eq!(begin(&line, 8, None), 128);
        assert_eq!(begin(&line, 7, None), 128, "any other turn is another");
    }

    #[test]
    fn fewer_begin_while_they_open_connections() {
        let counters = Slab::new();
        let line = Line::of_beginnings(&counters);
        let opens = |count| counters.add(Counter::BackendOpened, count);
        // As many as opened before the turn, of those that began in the one before.
        let turns =
            [(0, 4), (0, 128), (128, 4), (4, 4), (0, 128), (64, 7), (4, 6), (799, 4), (0, 128)];
        for (turn, (opened, begins)) in (1..).zip(turns) {
            opens(opened);
            assert_eq!(begin(&line, turn, None), begins, "turn {turn}");
        }
        // Few tell nothing: neither that all open one, nor that none does.
        assert!((0..3).all(|_| line.lets_in(20, None)));
        opens(3);
        assert_eq!(begin(&line, 21, None), 128);
        opens(128);
        assert!((0..3).all(|_| line.lets_in(22, None)));
        assert_eq!(begin(&line, 23, None), 4);
    }

    #[test]
    fn who_comes_waits_for_as_many_turns_as_it_needs() {
        on_both_drivers(|| async {
            let line = Line::of_endings();
            let first = turns::number().unwrap();
            let mut comer = line.comer();
            for _ in 0..4 * GIVEN_UP {
                comer.comes_on().await;
            }
            assert_eq!(turns::number().unwrap() - first, 3);
            drop(comer);
            assert!(line.waiting.borrow().is_empty());
        });
    }

    #[test]
    fn who_came_first_is_first_and_who_comes_waits_behind_all() {
        let line = Line::of_beginnings(&Slab::new());
        assert_eq!((begin(&line, 0, None), begin(&line, 1, None)), (4, 128));
        let (mut one, mut two) = (line.comer(), line.comer());
        one.stand();
        two.stand();
        assert_eq!((begin(&line, 2, None), begin(&line, 2, two.place)), (0, 0));
        assert!((0..5).all(|_| line.lets_in(2, one.place)));
        // It goes to the end, and the next has what is left.
        one.stand();
        assert_eq!((begin(&line, 2, one.place), begin(&line, 2, two.place)), (0, 128 - 5));
        // Who leaves is waited for no longer.
        drop(two);
        assert_eq!(begin(&line, 3, one.place), 128);
        drop(one);
        assert_eq!(begin(&line, 4, None), 128);
    }
}
