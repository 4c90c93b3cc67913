//! An operation of the ring that a connection repeats, in one allocation.
//!
//! Its future is made once and never ends: it is given a piece (a buffer to fill, bytes to send),
//! does the operation, gives result and piece back, and waits for the next piece. So a warm
//! connection allocates nothing to receive or to send.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

/// The result of an operation, and the piece it was done with.
pub(crate) type Done<T> = (io::Result<usize>, T);

/// An operation that is repeated. It must not be dropped while it is under way.
pub(crate) struct Repeated<T> {
    desk: Rc<Desk<T>>,
    future: RefCell<Pin<Box<dyn Future<Output = ()>>>>,
}

/// What passes between the future and its owner.
struct Desk<T> {
    step: Cell<Step>,
    piece: Cell<Option<T>>,
    result: Cell<io::Result<usize>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nothing is asked of it.
    Rests,
    /// The piece is there, the operation has not begun.
    Asked,
    UnderWay,
    /// Result and piece are there.
    Ended,
}

impl<T: 'static> Repeated<T> {
    pub(crate) fn new(operation: impl AsyncFn(T) -> Done<T> + 'static) -> Repeated<T> {
        let desk = Rc::new(Desk {
            step: Cell::new(Step::Rests),
            piece: Cell::new(None),
            result: Cell::new(Ok(0)),
        });
        let own = Rc::clone(&desk);
        let future = Box::pin(async move {
            loop {
                let piece = own.asked().await;
                let (result, piece) = operation(piece).await;
                own.result.set(result);
                own.piece.set(Some(piece));
                own.step.set(Step::Ended);
            }
        });
        Repeated { desk, future: RefCell::new(future) }
    }

    /// Begins it; returns whether it ended at once.
    pub(crate) fn begin(&self, piece: T, cx: &mut Context<'_>) -> bool {
        debug_assert!(self.desk.step.get() == Step::Rests, "one operation at a time");
        self.desk.piece.set(Some(piece));
        self.desk.step.set(Step::Asked);
        self.go_on(cx);
        self.desk.step.get() == Step::Ended
    }

    /// Its end, if it was begun and has ended; otherwise the task is woken then.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Done<T>> {
        if self.desk.step.get() == Step::UnderWay {
            self.go_on(cx);
        }
        if self.desk.step.get() != Step::Ended {
            return Poll::Pending;
        }
        self.desk.step.set(Step::Rests);
        let result = self.desk.result.replace(Ok(0));
        self.desk.piece.take().map_or(Poll::Pending, |piece| Poll::Ready((result, piece)))
    }

    /// Does it once, to its end. The wait must not be dropped.
    pub(crate) async fn done_with(&self, piece: T) -> Done<T> {
        let mut piece = Some(piece);
        poll_fn(|cx| {
            if let Some(piece) = piece.take() {
                self.begin(piece, cx);
            }
            self.poll(cx)
        })
        .await
    }

    /// Whether it was begun and its end has not been taken.
    pub(crate) fn is_under_way(&self) -> bool {
        self.desk.step.get() != Step::Rests
    }

    #[inline]
    fn go_on(&self, cx: &mut Context<'_>) {
        // It never ends.
        let _ = self.future.borrow_mut().as_mut().poll(cx);
    }
}

impl<T> Desk<T> {
    /// Waits for the next piece.
    #[inline]
    async fn asked(&self) -> T {
        poll_fn(|_| {
            if self.step.get() != Step::Asked {
                return Poll::Pending;
            }
            self.step.set(Step::UnderWay);
            self.piece.take().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn each_piece_comes_back_with_the_result_of_its_own_operation() {
        let cx = &mut Context::from_waker(Waker::noop());
        let lets: Rc<Cell<bool>> = Rc::default();
        let may = Rc::clone(&lets);
        let repeated = Repeated::new(async move |piece: Vec<u8>| {
            poll_fn(|_| if may.get() { Poll::Ready(()) } else { Poll::Pending }).await;
            (Ok(piece.len()), piece)
        });
        assert!(repeated.poll(cx).is_pending(), "nothing was begun");
        for (piece, at_once) in [("abc", true), ("de", false), ("", true), ("f", false)] {
            lets.set(at_once);
            assert!(!repeated.is_under_way());
            assert_eq!(repeated.begin(piece.into(), cx), at_once, "{piece}");
            assert!(repeated.is_under_way());
            if !at_once {
                assert!(repeated.poll(cx).is_pending());
                lets.set(true);
            }
            let Poll::Ready((result, back)) = repeated.poll(cx) else { panic!("{piece}") };
            assert_eq!((result.unwrap(), back), (piece.len(), piece.into()));
        }
        assert!(repeated.poll(cx).is_pending(), "its end is taken once");
    }
}
