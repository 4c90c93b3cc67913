//! TLS on a new connection to a backend, where its pool says so.
//!
//! What a handshake needs is made for each backend with its first connection, and again when the
//! plan or the certificates have changed. A backend that fails it is never spoken to in plain.

use std::{cell::RefCell, rc::Rc};

use super::BackendConns;
use crate::base::moment::Deadline;
use crate::http::fault::Cause;
use crate::net::{
    deadlines::{Ended, Unmet},
    stream::Stream,
    tls::{self, Failed, NoTls, ToBackend},
};
use crate::plan::{PoolTls, Protocol};

/// Why TLS to a backend failed: the fault, and a sentence for the log.
pub(super) type Refused = (Cause, String);

/// Says who the client is, if its pool says that, and shakes hands with the backend, if its pool
/// speaks TLS.
pub(super) async fn secured(
    conns: &RefCell<BackendConns>,
    mut stream: Stream,
    by: Deadline,
    greeting: &[u8],
) -> Result<Stream, Refused> {
    if !greeting.is_empty() && Box::pin(stream.send_all(greeting, false, || by)).await.is_err() {
        let why = "it did not take the PROXY header".to_owned();
        return Err((Cause::ConnectFailed, why));
    }
    let Some(to) = conns.borrow_mut().means_of_tls()? else { return Ok(stream) };
    let buffers = Rc::clone(&conns.borrow().means.buffers);
    let is_h2 = conns.borrow().protocol == Protocol::H2;
    match tls::connect(&mut stream, &to, &buffers, by).await {
        Ok(agreed) if is_h2 && agreed.alpn.as_deref() != Some(b"h2") => {
            let why = "it speaks HTTP/1 over TLS: it did not agree to HTTP/2 (ALPN)";
            Err((Cause::BackendOldHttp, why.to_owned()))
        }
        Ok(_) => Ok(stream),
        Err(no_tls) => Err(refused(&no_tls)),
    }
}

impl BackendConns {
    /// What a handshake needs; none if the pool speaks plain HTTP.
    fn means_of_tls(&mut self) -> Result<Option<Rc<ToBackend>>, Refused> {
        let ends = self.means.tls.borrow();
        let Some(back) = ends.backs.get(self.of.0) else { return Ok(None) };
        if let Some(to) = self.to.as_ref().filter(|to| to.is_of(back)) {
            return Ok(Some(Rc::clone(to)));
        }
        let Some(to) = ToBackend::new(back, &self.host) else {
            let why = format!("{:?} cannot be the name of a server", self.host);
            return Err((Cause::BackendTls, why));
        };
        let to = Rc::new(to);
        self.to = Some(Rc::clone(&to));
        Ok(Some(to))
    }

    /// The pool speaks this from now on, TLS like this or not at all, and begins with a PROXY
    /// header or without. If that is news, nothing that was opened before is used again.
    pub(crate) fn speak(&mut self, protocol: Protocol, tls: Option<&PoolTls>, greets: bool) {
        if self.protocol == protocol && self.tls.as_ref() == tls && self.greets == greets {
            return;
        }
        (self.protocol, self.tls, self.to) = (protocol, tls.cloned(), None);
        self.greets = greets;
        self.clear();
        let addresses: Vec<_> = self.all.iter().map(|at| at.address).collect();
        self.all = addresses.into_iter().map(|address| self.fresh(address)).collect();
    }

    /// Why TLS to it failed last, if that has not been taken.
    pub(crate) fn take_why(&mut self) -> Option<String> {
        self.why.take()
    }
}

fn refused(no_tls: &NoTls) -> Refused {
    let (cause, why) = match no_tls {
        NoTls::Ended(Unmet::Ended(Ended::Overdue)) => {
            (Cause::ConnectTimeout, "the handshake took too long".to_owned())
        }
        NoTls::Ended(Unmet::Ended(_)) => (Cause::BackendTls, "it was ended".to_owned()),
        NoTls::Ended(Unmet::NotNow) | NoTls::Left => {
            (Cause::BackendTls, "it closed the connection in the handshake".to_owned())
        }
        NoTls::Ended(Unmet::Broken(error)) => (Cause::BackendTls, error.to_string()),
        NoTls::PlainHttp => (Cause::BackendPlain, "it speaks plain HTTP, not TLS".to_owned()),
        NoTls::Failed(Failed::Told(alert)) => {
            (Cause::BackendTlsAlert, format!("it refused the handshake: {alert}"))
        }
        NoTls::Failed(failed @ Failed::Because(rustls::Error::InvalidCertificate(_))) => {
            (Cause::BackendCertificate, failed.to_string())
        }
        NoTls::Failed(failed) => (Cause::BackendTls, failed.to_string()),
    };
    (cause, why)
}
