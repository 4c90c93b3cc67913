//! Stickiness by cookie, as configured.

use std::{path::PathBuf, time::Duration};

/// Stickiness by a cookie that we set and that backends never see.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sticky {
    /// The cookie's name.
    pub cookie: String,
    /// The file of the key that signs its values; none = a generated key, kept in the state
    /// directory.
    pub secret_file: Option<PathBuf>,
    /// How long it stays valid without a request; zero = for ever.
    pub idle_max: Duration,
    /// How long it stays valid at all; zero = for ever.
    pub life_max: Duration,
    /// Whether browsers send it with cross-site requests.
    pub same_site: SameSite,
}

/// The cross-site requests with which a browser sends a cookie (RFC 6265bis §5.6.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SameSite {
    /// Those that navigate here: a link.
    #[default]
    Lax,
    /// None of them.
    Strict,
    /// All of them. Browsers accept such a cookie only over TLS, so it is always `Secure`.
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
