//! How it is found out that a backend fails: by probes, by its answers, by a circuit breaker.

use std::{ops::RangeInclusive, time::Duration};

use super::share::Share;

/// How the backends of a pool are probed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// What a probe is.
    pub probe: Probe,
    /// The port that is probed, where it is not the backend's own.
    pub port: Option<u16>,
    /// From the start of a probe to the start of the next. 5 s: HAProxy has 2 s, nginx 5 s.
    pub interval: Duration,
    /// For all of one probe.
    pub timeout: Duration,
    /// Successes in a row that bring a backend up.
    pub rise: u16,
    /// Failures in a row that take it down.
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
}

/// A GET and what is expected of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpProbe {
    /// Its target, in origin form.
    pub path: String,
    /// Its Host; none = the backend's address as it was written.
    pub host: Option<String>,
    /// Further fields, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// The statuses that are good.
    pub statuses: Statuses,
    /// What must stand in the first 64 KiB of the answer's body, if anything.
    pub body: Option<String>,
}

/// A set of statuses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statuses(pub Vec<RangeInclusive<u16>>);

impl Statuses {
    /// Whether it holds a status.
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

/// When a backend that fails requests is left out for a while: it is ejected.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Passive {
    /// Failures in a row, over all cores; 0 = none ejects.
    pub failures_max: u16,
    /// The statuses that are failures.
    pub statuses: Statuses,
    /// How long the first time; each further time twice as long, up to 300 s.
    pub eject: Duration,
    /// The share of the pool that may be ejected at once; one backend always may.
    pub ejected_max: Share,
}

impl Default for Passive {
    fn default() -> Passive {
        Passive {
            failures_max: 3,
            statuses: Statuses(vec![502..=504]),
            eject: Duration::from_secs(10),
            ejected_max: Share::percent(50),
        }
    }
}

/// The circuit breaker of each backend: *closed* lets traffic through, *open* stops it, *half-open*
/// lets probes through.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Breaker {
    /// The share of failures in the window from which it opens.
    pub error_ratio: Share,
    /// Requests in the window below which it does not.
    pub requests_min: u32,
    /// What is looked back on.
    pub window: Duration,
    /// How long it stays open the first time.
    pub open: Duration,
    /// How long at most: each time in a row twice as long.
    pub open_max: Duration,
    /// Requests let through at once while it is half-open, exact for the process.
    pub probes: u16,
    /// Their successes that close it.
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
