//! Getting a connection to a backend: a warm one that is known to be quiet, or a new one to the
//! first of its addresses that takes it, in turn and within one time.
//!
//! Where connections carry many requests (`links`), it is a place in one of them.

use std::{cell::RefCell, io::ErrorKind, rc::Rc, time::Duration};

use super::{BackendConns, links, secured::secured};
use crate::base::{
    endpoint::Endpoint,
    moment::{Deadline, Tick},
};
use crate::http::fault::{Cause, Fault};
use crate::net::{
    clock::Clock,
    deadlines::{Deadlines, Watch},
    io::{self, Manner},
    stream::Stream,
};
use crate::plan::Protocol;
use crate::policy::connect;
use crate::proto::{Backend, h1};

/// A warm connection that is known to be quiet, if there is one. If `unrepeatable` (the request may
/// not be sent twice), only one that was in use a moment ago.
pub(crate) async fn warm(
    conns: &RefCell<BackendConns>,
    now: Tick,
    unrepeatable: bool,
) -> Option<Backend> {
    if conns.borrow().protocol != Protocol::H1 {
        return conns.borrow_mut().place(now, unrepeatable);
    }
    loop {
        let idle = conns.borrow_mut().take(now, unrepeatable)?;
        let number = idle.backend.address;
        let warm = if idle.is_at_hand(now) {
            let means = &conns.borrow().means;
            let quiet = idle.backend.stream.quiet(&means.buffers);
            idle.warm(quiet, now, means)
        } else {
            // Boxed, as it is rare: in a burst, those that were returned in this turn; and new
            // ones.
            let means = Rc::clone(&conns.borrow().means);
            Box::pin(idle.warm_after_all(now, means)).await
        };
        match warm {
            Ok(warm) => return Some(Backend::H1(warm)),
            Err(spent) if spent.by_surplus => conns.borrow_mut().suspect_at(number, now),
            Err(_) => {}
        }
    }
}

/// Opens a connection, trying the addresses in turn within one time; zero = no bound. If there is
/// no descriptor left, `frees` may close unused ones, and returns whether it did. Where connections
/// carry many requests it may be a place in one that there is.
/// The connection begins with `greeting`.
///
/// # Errors
/// `ConnectTimeout`, `ConnectFailed` or that of a handshake, of the last address; `Overloaded` if
/// we ran out of something, `NameNotResolved` without addresses.
pub(crate) async fn open(
    conns: &RefCell<BackendConns>,
    (time, manner): (Duration, Manner),
    clock: &Rc<Clock>,
    deadlines: &Rc<Deadlines>,
    (greeting, frees): (&[u8], impl Fn() -> bool),
) -> Result<Backend, Fault> {
    let began = clock.tick();
    let to_try = conns.borrow_mut().in_turn(began);
    let protocol = conns.borrow().protocol;
    let mut fault = Cause::NameNotResolved;
    for (tried, (number, address)) in to_try.iter().enumerate() {
        let spent = clock.tick().since(began);
        let share = connect::share(time, spent, to_try.len() - tried);
        let until = Deadline::after(clock.tick(), share);
        let of = (manner, greeting);
        let opening = Opening { clock, deadlines, share, until, of, frees: &frees };
        let opened = match protocol {
            Protocol::H1 => opening
                .connected(conns, address)
                .await
                .map(|stream| Backend::H1(h1::Backend::new(stream, *number))),
            Protocol::H2 | Protocol::H2c => {
                Box::pin(links::join(conns, (*number, address), &opening)).await
            }
        };
        let error = match opened {
            Ok(backend) => return Ok(backend),
            Err(cause) => cause,
        };
        clock.renew();
        if error != Cause::BackendUnprocessed {
            conns.borrow_mut().failed(*number, clock.tick());
        }
        fault = error;
    }
    Err(fault.into())
}

/// What a connection is opened with.
pub(super) struct Opening<'a, F: Fn() -> bool> {
    pub(super) clock: &'a Rc<Clock>,
    pub(super) deadlines: &'a Rc<Deadlines>,
    share: Duration,
    pub(super) until: Deadline,
    /// How, and what it begins with.
    of: (Manner, &'a [u8]),
    frees: &'a F,
}

impl<F: Fn() -> bool> Opening<'_, F> {
    /// Connects, and shakes hands if the backend speaks TLS.
    pub(super) async fn connected(
        &self,
        conns: &RefCell<BackendConns>,
        address: &Endpoint,
    ) -> Result<Stream, Cause> {
        let watched = |fd| {
            let watched = self.deadlines.watch(fd, Watch::Backend);
            let (pool, backend) = conns.borrow().of;
            watched.is_of(pool, backend);
            watched
        };
        let (manner, greeting) = self.of;
        match Stream::connect(address, (self.share, manner), self.frees, watched).await {
            Ok(stream) => {
                secured(conns, stream, self.until, greeting).await.map_err(|(cause, why)| {
                    conns.borrow_mut().why = Some(why);
                    cause
                })
            }
            Err(error) if io::is_for_want(&error, address) => Err(Cause::Overloaded),
            Err(error) if error.kind() == ErrorKind::TimedOut => Err(Cause::ConnectTimeout),
            Err(_) => Err(Cause::ConnectFailed),
        }
    }
}
