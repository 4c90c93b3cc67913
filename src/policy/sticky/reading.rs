//! The result of reading a request's sticky cookies, and what becomes of them when a backend has
//! answered.

use super::clamped;
use crate::base::{ids::BackendId, moment::UnixSeconds};

/// The backend that a client is pinned to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pin {
    pub(crate) backend: BackendId,
    /// When it was pinned, in seconds since 1970.
    pub(crate) issued: u32,
    /// Whether the client should get the cookie anew: it was last seen long ago, or is signed with
    /// the older secret.
    pub(crate) refresh: bool,
}

/// The result of reading the cookies of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reading {
    Pinned(Pin),
    /// No cookie of ours.
    #[default]
    Absent,
    /// Nothing that we ever write.
    Malformed,
    /// Not signed by us, or for another pool.
    Forged,
    /// Too old, too long unused, or from the future.
    Expired,
    /// Of a backend that is gone.
    Unknown,
}

/// What became of a client's cookie when a backend has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CookieReading {
    /// The backend it names has answered.
    Kept,
    /// The same, and the client got it anew.
    Refreshed,
    /// Another backend has answered, and the client is pinned to that.
    Moved,
    /// There was none; now there is.
    New,
    /// It was not valid, and the client is pinned anew.
    Malformed,
    Forged,
    Expired,
    Unknown,
}

impl Reading {
    /// The backend that the client stays with.
    #[inline]
    pub(crate) fn pinned(self) -> Option<BackendId> {
        match self {
            Reading::Pinned(pin) => Some(pin.backend),
            Reading::Absent
            | Reading::Malformed
            | Reading::Forged
            | Reading::Expired
            | Reading::Unknown => None,
        }
    }

    /// What becomes of it when this backend has answered.
    pub(crate) fn outcome(self, answered: BackendId) -> CookieReading {
        match self {
            Reading::Pinned(pin) if pin.backend != answered => CookieReading::Moved,
            Reading::Pinned(pin) if pin.refresh => CookieReading::Refreshed,
            Reading::Pinned(_) => CookieReading::Kept,
            Reading::Absent => CookieReading::New,
            Reading::Malformed => CookieReading::Malformed,
            Reading::Forged => CookieReading::Forged,
            Reading::Expired => CookieReading::Expired,
            Reading::Unknown => CookieReading::Unknown,
        }
    }

    /// The date of the cookie that the client gets when this backend has answered; none = it keeps
    /// the one it has.
    pub(crate) fn issued(self, answered: BackendId, now: UnixSeconds) -> Option<u32> {
        match (self.outcome(answered), self) {
            (CookieReading::Kept, _) => None,
            (CookieReading::Refreshed, Reading::Pinned(pin)) => Some(pin.issued),
            _ => Some(clamped(now)),
        }
    }
}

impl CookieReading {
    /// The word in the access log.
    #[must_use]
    pub(crate) fn word(self) -> &'static str {
        match self {
            CookieReading::Kept => "kept",
            CookieReading::Refreshed => "refreshed",
            CookieReading::Moved => "moved",
            CookieReading::New => "new",
            CookieReading::Malformed => "malformed",
            CookieReading::Forged => "forged",
            CookieReading::Expired => "expired",
            CookieReading::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pinned(backend: u16, refresh: bool) -> Reading {
        Reading::Pinned(Pin { backend: BackendId(backend), issued: 0, refresh })
    }

    #[test]
    fn what_becomes_of_a_cookie_hangs_on_who_has_answered() {
        for (reading, answered, expected) in [
            (pinned(1, false), 1, CookieReading::Kept),
            (pinned(1, true), 1, CookieReading::Refreshed),
            (pinned(1, true), 2, CookieReading::Moved),
            (pinned(1, false), 0, CookieReading::Moved),
            (Reading::Absent, 0, CookieReading::New),
            (Reading::Malformed, 0, CookieReading::Malformed),
            (Reading::Forged, 0, CookieReading::Forged),
            (Reading::Expired, 0, CookieReading::Expired),
            (Reading::Unknown, 0, CookieReading::Unknown),
        ] {
            assert_eq!(reading.outcome(BackendId(answered)), expected);
        }
    }
}
