//! Whose requests stay with one backend: those that bring a cookie of ours.

use std::{path::PathBuf, time::Duration};

/// Stickiness by a cookie that we set and the backends never see.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sticky {
    /// The cookie's name.
    pub cookie: String,
    /// Where the key is that its values are signed with; none = one made once, kept in the state
    /// directory.
    pub secret_file: Option<PathBuf>,
    /// How long without a request it holds; zero = for ever.
    pub idle_max: Duration,
    /// How long it holds at all; zero = for ever.
    pub life_max: Duration,
    /// Whether it is sent along with requests that other sites cause.
    pub same_site: SameSite,
}

/// With which requests of other sites a browser sends a cookie (RFC 6265bis §5.6.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SameSite {
    /// With those that lead a person here: a link.
    #[default]
    Lax,
    /// With none.
    Strict,
    /// With all of them. Browsers take such a cookie only over TLS, so it is always `Secure`.
    None,
}

impl Default for Sticky {
    fn default() -> Sticky {
        Sticky {
            cookie: "ringway".into(),
            secret_file: None,
            idle_max: Duration::ZERO,
            life_max: Duration::ZERO,
            same_site: SameSite::default(),
        }
    }
}
