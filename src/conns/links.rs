//! The connections of HTTP/2 to one address of a backend: one until it has no room, then another.
//!
//! What comes while one is being opened waits for it, so a burst opens one and not hundreds; what
//! it opens in vain fails for all who waited, and counts against the backend once. A connection on
//! which nothing has come lately is asked first whether it is there. Streams on one that breaks are
//! requests that failed; a place is only taken in one that is whole.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use super::{BackendConns, link::Link, opening::Opening};
use crate::base::{endpoint::Endpoint, moment::Tick};
use crate::http::fault::Cause;
use crate::net::{
    deadlines::{End, Ended, Watch, Watched},
    io::task,
    stream::Stream,
};
use crate::plan::Connections;
use crate::proto::{
    Backend,
    h2::{self, Bell, Conn},
};

/// A connection on which something has come since is there: for a request that may be sent again,
/// and for one that may not.
const TRUSTED: Duration = Duration::from_secs(5);
const TRUSTED_WITHOUT_PROOF: Duration = Duration::from_secs(1);

/// The connections to one address.
#[derive(Default)]
pub(super) struct Links {
    all: Vec<Rc<Link>>,
    /// How many are being opened, and how often that was in vain.
    opening: Rc<Cell<usize>>,
    in_vain: u64,
}

/// How a request gets a place.
enum Step {
    Take(Rc<Link>),
    Open,
    /// Something is on its way.
    Wait,
}

/// One that is being opened, until it has settings or has failed.
struct BeingOpened {
    opening: Rc<Cell<usize>>,
    bell: Rc<Bell>,
}

impl BeingOpened {
    fn new(opening: &Rc<Cell<usize>>, bell: &Rc<Bell>) -> BeingOpened {
        opening.set(opening.get() + 1);
        BeingOpened { opening: Rc::clone(opening), bell: Rc::clone(bell) }
    }
}

impl Drop for BeingOpened {
    fn drop(&mut self) {
        self.opening.set(self.opening.get().saturating_sub(1));
        self.bell.ring();
    }
}

impl Links {
    /// The first that has room and is there for all we know: the others may become idle.
    fn first(&self, now: Tick, time: Duration) -> Option<&Rc<Link>> {
        self.all.iter().find(|link| link.has_room() && link.is_trusted(now, time))
    }

    /// A place, if one is at hand.
    pub(super) fn at_hand(&self, now: Tick, unrepeatable: bool) -> Option<&Rc<Link>> {
        self.first(now, if unrepeatable { TRUSTED_WITHOUT_PROOF } else { TRUSTED })
    }

    /// What the next request does.
    fn step(&mut self, now: Tick, options: Connections) -> Step {
        self.all.retain(|link| !link.conn.is_over());
        if let Some(link) = self.first(now, TRUSTED_WITHOUT_PROOF) {
            return Step::Take(Rc::clone(link));
        }
        if let Some(link) = self.all.iter().find(|link| link.has_room()) {
            link.conn.probe(now);
            return Step::Wait;
        }
        let open = self.all.iter().filter(|link| link.is_open()).count();
        let may_open = self.opening.get() == 0 && open < usize::from(options.idle_max).max(1);
        if may_open { Step::Open } else { Step::Wait }
    }

    /// Looks at each, and ends what was idle for too long.
    pub(super) fn expire(&mut self, now: Tick, options: Connections) {
        self.all.iter().for_each(|link| link.expire(now, options.idle_timeout));
        self.all.retain(|link| !link.conn.is_over());
    }

    /// Whether one takes requests.
    pub(super) fn is_open(&self) -> bool {
        self.all.iter().any(|link| link.is_open())
    }

    /// Appends since when each of those is idle that are.
    pub(super) fn idle_since(&self, all: &mut Vec<Tick>) {
        all.extend(self.all.iter().filter_map(|link| link.idle_since()));
    }

    /// Ends those that have been idle since `until` or longer, while there are any `left` to end.
    pub(super) fn close_idle_since(&mut self, until: Tick, left: &mut usize) -> usize {
        let before = *left;
        self.all.retain(|link| {
            let closes = *left > 0 && link.idle_since().is_some_and(|since| since <= until);
            if closes {
                *left -= 1;
                link.retire();
            }
            !closes
        });
        before - *left
    }

    /// They take no more requests, and end with their last.
    pub(super) fn clear(&mut self) {
        self.all.drain(..).for_each(|link| link.retire());
    }
}

/// A place for a request in a connection to this address, if need be in a new one.
///
/// # Errors
/// If there is none in time.
pub(super) async fn join(
    conns: &RefCell<BackendConns>,
    (number, address): (u32, &Endpoint),
    opening: &Opening<'_, impl Fn() -> bool>,
) -> Result<Backend, Cause> {
    let Opening { clock, deadlines, until, .. } = opening;
    let watched = deadlines.watch(-1, Watch::Task);
    watched.read_by(*until);
    let bell = Rc::clone(&conns.borrow().bell);
    let mut in_vain = None;
    loop {
        let step = {
            let conns = &mut *conns.borrow_mut();
            let (options, of) = (conns.options, conns.of);
            // Its name has other addresses by now: another is tried.
            let Some(links) = conns.links(number) else { return Err(Cause::ConnectFailed) };
            if *in_vain.get_or_insert(links.in_vain) != links.in_vain {
                // Who opened it says so of the backend.
                return Err(Cause::BackendUnprocessed);
            }
            match links.step(clock.tick(), options) {
                Step::Take(link) => return Ok(Backend::H2(link.take(of))),
                step => step,
            }
        };
        if let Step::Open = step {
            let opened = open(conns, (number, address), (&watched, &bell), opening).await;
            if opened.is_err()
                && let Some(links) = conns.borrow_mut().links(number)
            {
                links.in_vain += 1;
            }
            return opened.map(Backend::H2);
        }
        changes(&bell, &watched).await?;
        clock.renew();
    }
}

/// Waits until something has changed.
async fn changes(bell: &Bell, watched: &Watched) -> Result<(), Cause> {
    let mut waits = false;
    poll_fn(|cx| match watched.ended_or_wakes(End::Reading, cx.waker()) {
        Some(Ended::Overdue) => Poll::Ready(Err(Cause::ConnectTimeout)),
        Some(_) => Poll::Ready(Err(Cause::ShuttingDown)),
        None if waits => Poll::Ready(Ok(())),
        None => {
            waits = true;
            bell.wakes(cx.waker());
            Poll::Pending
        }
    })
    .await
}

/// Opens a connection, and takes the first place in it. Nothing is asked before the backend has
/// said that it speaks HTTP/2: what speaks something else is found out before it gets a request.
async fn open(
    conns: &RefCell<BackendConns>,
    (number, address): (u32, &Endpoint),
    (watched, bell): (&Watched, &Rc<Bell>),
    opening: &Opening<'_, impl Fn() -> bool>,
) -> Result<h2::Backend, Cause> {
    let count = conns.borrow_mut().links(number).map(|links| Rc::clone(&links.opening));
    let _being_opened = count.map(|count| BeingOpened::new(&count, bell));
    let stream: Stream = opening.connected(conns, address).await?;
    let (link, first) = {
        let conns = &mut *conns.borrow_mut();
        let limits = conns.means.head_limits.get();
        let conn = Conn::to_backend(&conns.means.buffers, opening.deadlines, &limits, bell);
        let scheme: &'static [u8] = if conns.tls.is_some() { b"https" } else { b"http" };
        let worn_at = conns.options.requests_max;
        let link = Link::new(conn, (scheme, worn_at), (&conns.means, opening.clock));
        let (first, keeps) = (link.take(conns.of), conns.options.idle_max > 0);
        match conns.links(number).filter(|_| keeps) {
            Some(links) => links.all.push(Rc::clone(&link)),
            None => link.retire(),
        }
        (link, first)
    };
    task(Rc::clone(&link).runs(stream));
    while !link.conn.has_settings() {
        if link.conn.is_over() {
            let (cause, why) = no_link(link.conn.says());
            conns.borrow_mut().why = Some(why.to_owned());
            return Err(cause);
        }
        if let Err(cause) = changes(bell, watched).await {
            link.conn.broke();
            return Err(cause);
        }
    }
    Ok(first)
}

/// Why there is no connection of HTTP/2, and a sentence for the log.
pub(super) fn no_link(says: Option<Cause>) -> (Cause, &'static str) {
    match says {
        Some(Cause::BackendOldHttp) => (Cause::BackendOldHttp, "it speaks HTTP/1, not HTTP/2"),
        Some(Cause::BackendSecure) => (Cause::BackendSecure, "it speaks TLS, not plain HTTP/2"),
        Some(Cause::BackendProtocol) => {
            (Cause::BackendProtocol, "its first bytes are none of HTTP/2")
        }
        _ => (Cause::ConnectFailed, "it closed the connection before it spoke HTTP/2"),
    }
}
