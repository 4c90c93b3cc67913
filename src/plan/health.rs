//! Health checks, outlier ejection and circuit breaking of a pool, as configured.

use std::{ops::RangeInclusive, time::Duration};

use super::share::Share;

/// How the backends of a pool are probed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// What a probe is.
    pub probe: Probe,
    /// The port to probe, if not the backend's own.
    pub port: Option<u16>,
    /// From the start of a probe to the start of the next. 5 s: HAProxy uses 2 s, nginx 5 s.
    pub interval: Duration,
    /// For the whole probe.
    pub timeout: Duration,
    /// Successes in a row that mark a backend up.
    pub rise: u16,
    /// Failures in a row that mark it down.
    pub fall: u16,
}

/// What a probe is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Probe {
    /// A connection can be made.
    Tcp,
    /// A GET is answered as expected.
    Http(HttpProbe),
    /// `grpc.health.v1` says SERVING.
    Grpc(GrpcProbe),
}

/// The question of `grpc.health.v1`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GrpcProbe {
    /// The service that is asked for; empty = the server as a whole.
    pub service: String,
    /// Its authority; none = the backend's address as written.
    pub host: Option<String>,
}

/// A GET and the answer that is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpProbe {
    /// Its target, in origin form.
    pub path: String,
    /// Its Host; none = the backend's address as written.
    pub host: Option<String>,
    /// Extra fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The statuses that count as success.
    pub statuses: Statuses,
    /// What the first 64 KiB of the answer's body must contain, if anything.
    pub body: Option<String>,
}

/// A set of statuses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statuses(pub Vec<RangeInclusive<u16>>);

impl Statuses {
    /// Whether the set contains a status.
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl Default for HttpProbe {
    fn default() -> HttpProbe {
        HttpProbe {
            path: "/health".into(),
            host: None,
            headers: Vec::new(),
            statuses: Statuses(vec![200..=399]),
            body: None,
        }
    }
}

impl Default for Health {
    fn default() -> Health {
        Health {
            probe: Probe::Http(HttpProbe::default()),
            port: None,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            rise: 2,
            fall: 3,
        }
    }
}

/// Outlier ejection: when a backend that fails requests is left out for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Passive {
    /// Failures in a row, over all cores; 0 = never eject for them.
    pub failures_max: u16,
    /// The statuses that count as failures.
    pub statuses: Statuses,
    /// The first ejection lasts this long, each further one twice as long, up to 300 s.
    pub eject: Duration,
    /// The share of the pool that may be ejected at once; one backend always may be.
    pub ejected_max: Share,
    /// A connection of TCP that its backend ends sooner counts as a failure; zero = none does.
    pub life_min: Duration,
}

impl Default for Passive {
    fn default() -> Passive {
        Passive {
            failures_max: 3,
            statuses: Statuses(vec![502..=504]),
            eject: Duration::from_secs(10),
            ejected_max: Share::percent(50),
            life_min: Duration::ZERO,
        }
    }
}

/// The circuit breaker of each backend: *closed* lets traffic through, *open* stops it, *half-open*
/// lets trials through.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Breaker {
    /// The share of failures in the window at which it opens.
    pub error_ratio: Share,
    /// The fewest requests in the window for it to open.
    pub requests_min: u32,
    /// The time over which requests are counted.
    pub window: Duration,
    /// How long it stays open the first time.
    pub open: Duration,
    /// The longest it stays open: each opening in a row lasts twice as long as the one before.
    pub open_max: Duration,
    /// Requests in flight while it is half-open, exact for the process.
    pub probes: u16,
    /// Successes while half-open that close it.
    pub successes: u16,
    /// Whether it may open for the last usable backend.
    pub allow_empty: bool,
}

impl Default for Breaker {
    fn default() -> Breaker {
        Breaker {
            error_ratio: Share::percent(50),
            requests_min: 20,
            window: Duration::from_secs(10),
            open: Duration::from_secs(5),
            open_max: Duration::from_secs(60),
            probes: 1,
            successes: 2,
            allow_empty: false,
        }
    }
}
