//! A connection of HTTP/2 for one request, which ends with it: that of a probe.
//!
//! Nothing is shared: no place is waited for, and no other request can take one. It is made on a
//! stream that is connected, and ended by ending that.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
};

use super::{Means, link::Link, links::no_link};
use crate::base::ids::{BackendId, PoolId};
use crate::http::fault::{Cause, Fault};
use crate::net::{clock::Clock, deadlines::Deadlines, stream::Stream};
use crate::proto::{
    Backend,
    h2::{Bell, Conn},
};

/// Asks on a connection of its own, by `asks`.
///
/// # Errors
/// If the backend does not speak HTTP/2, or that of `asks`.
pub(crate) async fn alone<T>(
    (stream, scheme): (Stream, &'static [u8]),
    (means, clock, deadlines): (&Rc<Means>, &Rc<Clock>, &Rc<Deadlines>),
    asks: impl AsyncFnOnce(&mut Backend) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let bell = Rc::<Bell>::default();
    let conn = Conn::to_backend(&means.buffers, deadlines, &means.head_limits.get(), &bell);
    let link = Link::new(Rc::clone(&conn), (scheme, 1), (means, clock));
    let mut backend = Backend::H2(link.take((PoolId(0), BackendId(0))));
    let mut running = pin!(Rc::clone(&link).runs(stream));
    let mut has_ended = false;
    let asked = {
        let mut asking = pin!(async {
            settles(&conn, &bell).await?;
            asks(&mut backend).await
        });
        poll_fn(|cx| {
            has_ended = has_ended || running.as_mut().poll(cx).is_ready();
            asking.as_mut().poll(cx)
        })
        .await
    };
    drop(backend);
    link.retire();
    if !has_ended {
        // What it has in flight ends before it is dropped.
        running.await;
    }
    asked
}

/// Until the backend has said how it speaks.
async fn settles(conn: &Conn, bell: &Bell) -> Result<(), Cause> {
    poll_fn(|cx| {
        if conn.has_settings() {
            return Poll::Ready(Ok(()));
        }
        if conn.is_over() {
            return Poll::Ready(Err(no_link(conn.says()).0));
        }
        bell.wakes(cx.waker());
        Poll::Pending
    })
    .await
}
