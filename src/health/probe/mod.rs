//! Probes: a new connection to a backend, and a verdict within a time limit.
//!
//! Connections are never kept: a reused connection would hide that a new one cannot be made. All
//! addresses of a backend are one backend: the first that accepts a connection is probed.

mod http;
mod streams;
mod tcp;
#[cfg(test)]
mod tests;

use std::{
    io::{self, ErrorKind},
    sync::Arc,
    time::Duration,
};

use self::http::Ask;
use crate::base::endpoint::Endpoint;
use crate::http::parse::HeadLimits;
use crate::net::{
    clock::Clock,
    fd::{self, Socket},
    io::{self as net_io, Manner},
    signal::Signal,
    tls::Back,
};
use crate::plan::{self, Backend, Health, Protocol};
use crate::policy::{connect, health::ProbeFault};

/// How one backend is probed.
pub(super) enum Probe {
    Tcp,
    Http(Box<Ask>),
    Streams(Box<streams::Ask>),
}

/// How long a probe may take, and what ends it earlier: the thread's end, or that it has less time
/// after all.
#[derive(Clone, Copy)]
pub(super) struct Limits<'a> {
    pub(super) time: Duration,
    /// With which its connection begins.
    pub(super) greeting: &'static [u8],
    pub(super) ending: &'a Signal,
    pub(super) hurried: &'a Signal,
}

/// How a backend that speaks TLS is spoken to, and its host.
pub(super) struct Secure {
    pub(super) back: Arc<Back>,
    pub(super) host: String,
}

impl Probe {
    /// The probe of a backend that speaks this, with these limits on heads.
    ///
    /// # Errors
    /// A sentence, if the configured request cannot be sent.
    pub(super) fn of(
        health: &Health,
        (backend, protocol): (&Backend, Protocol),
        limits: HeadLimits,
    ) -> Result<Probe, String> {
        Ok(match (&health.probe, protocol) {
            (plan::Probe::Tcp, _) => Probe::Tcp,
            (plan::Probe::Http(probe), Protocol::H1) => {
                Probe::Http(Box::new(Ask::new(probe, backend, limits)?))
            }
            (plan::Probe::Http(probe), Protocol::H2 | Protocol::H2c) => {
                Probe::Streams(Box::new(streams::Ask::http(probe, backend, limits)?))
            }
            (plan::Probe::Grpc(probe), _) => {
                Probe::Streams(Box::new(streams::Ask::grpc(probe, backend, limits)?))
            }
        })
    }

    /// Probes the backend at these addresses. None if nothing was found out: the fault is ours, or
    /// the thread ends.
    pub(super) async fn run(
        &self,
        addresses: &[Endpoint],
        limits: Limits<'_>,
        secure: Option<&Secure>,
    ) -> Option<Result<(), ProbeFault>> {
        let began = Clock::moment();
        let spent = || Duration::from_micros(Clock::moment().since(began).0);
        let mut last = None;
        for (place, address) in addresses.iter().enumerate() {
            let share = connect::share(limits.time, spent(), addresses.len() - place);
            let connecting =
                limits.hurried.or(net_io::connect(address, (share, Manner::default())));
            match limits.ending.or(connecting).await?.unwrap_or(Err(ErrorKind::TimedOut.into())) {
                Ok(stream) => {
                    // A new connection takes it at once.
                    let raw = std::os::fd::AsRawFd::as_raw_fd(&stream);
                    let _ = fd::with_borrowed(raw, |of| fd::send(of, limits.greeting, false));
                    let time = limits.time.saturating_sub(spent());
                    return self.ask(stream, Limits { time, ..limits }, secure).await;
                }
                Err(error) if net_io::is_for_want(&error, address) => last = None,
                Err(error) => last = Some(fault(&error)),
            }
        }
        last.map(Err)
    }

    async fn ask(
        &self,
        stream: Socket,
        limits: Limits<'_>,
        secure: Option<&Secure>,
    ) -> Option<Result<(), ProbeFault>> {
        match self {
            Probe::Tcp => Some(tcp::judge(stream)),
            Probe::Http(ask) => http::judge(ask, stream, limits, secure).await,
            // Boxed, as most probes are not.
            Probe::Streams(ask) => Box::pin(streams::judge(ask, stream, limits, secure)).await,
        }
    }
}

/// What a failed connect says about the backend.
fn fault(error: &io::Error) -> ProbeFault {
    match error.kind() {
        io::ErrorKind::TimedOut => ProbeFault::Timeout,
        io::ErrorKind::ConnectionRefused => ProbeFault::Refused,
        io::ErrorKind::ConnectionReset => ProbeFault::Reset,
        _ => ProbeFault::Unreachable,
    }
}
