//! Known field names as small integers, so that rules compare numbers.
//!
//! A name is looked up once, when its line is parsed: by length, then first letter, then one
//! comparison; nothing is hashed. Sets of names are one word, so that a rule about twenty fields
//! costs as much as a rule about one.

/// A field name that some rule asks for; all the others are `Other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Name {
    Other,
    Accept,
    Authorization,
    CacheControl,
    Connection,
    ContentLength,
    ContentType,
    Cookie,
    Date,
    Expect,
    Forwarded,
    Host,
    KeepAlive,
    MaxForwards,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    Referer,
    SetCookie,
    Te,
    Traceparent,
    Trailer,
    TransferEncoding,
    Upgrade,
    UserAgent,
    Via,
    XForwardedFor,
    XForwardedHost,
    XForwardedPort,
    XForwardedProto,
    XRealIp,
    XRequestId,
}

impl Name {
    /// The known name these bytes spell, in any case (RFC 9110 §5.1).
    #[inline]
    #[must_use]
    pub(crate) fn of(bytes: &[u8]) -> Name {
        let Some(first) = bytes.first() else { return Name::Other };
        let first = first | 0x20;
        let (name, matches) = match (bytes.len(), first) {
            (2, b't') => (Name::Te, spells(bytes, b"te")),
            (3, b'v') => (Name::Via, spells(bytes, b"via")),
            (4, b'd') => (Name::Date, spells(bytes, b"date")),
            (4, b'h') => (Name::Host, spells(bytes, b"host")),
            (6, b'a') => (Name::Accept, spells(bytes, b"accept")),
            (6, b'c') => (Name::Cookie, spells(bytes, b"cookie")),
            (6, b'e') => (Name::Expect, spells(bytes, b"expect")),
            (7, b'r') => (Name::Referer, spells(bytes, b"referer")),
            (7, b't') => (Name::Trailer, spells(bytes, b"trailer")),
            (7, b'u') => (Name::Upgrade, spells(bytes, b"upgrade")),
            (9, b'f') => (Name::Forwarded, spells(bytes, b"forwarded")),
            (9, b'x') => (Name::XRealIp, spells(bytes, b"x-real-ip")),
            (10, b'c') => (Name::Connection, spells(bytes, b"connection")),
            (10, b'k') => (Name::KeepAlive, spells(bytes, b"keep-alive")),
            (10, b's') => (Name::SetCookie, spells(bytes, b"set-cookie")),
            (10, b'u') => (Name::UserAgent, spells(bytes, b"user-agent")),
            (11, b't') => (Name::Traceparent, spells(bytes, b"traceparent")),
            (12, b'c') => (Name::ContentType, spells(bytes, b"content-type")),
            (12, b'm') => (Name::MaxForwards, spells(bytes, b"max-forwards")),
            (12, b'x') => (Name::XRequestId, spells(bytes, b"x-request-id")),
            (13, b'a') => (Name::Authorization, spells(bytes, b"authorization")),
            (13, b'c') => (Name::CacheControl, spells(bytes, b"cache-control")),
            (14, b'c') => (Name::ContentLength, spells(bytes, b"content-length")),
            (15, b'x') => (Name::XForwardedFor, spells(bytes, b"x-forwarded-for")),
            (16, b'p') => (Name::ProxyConnection, spells(bytes, b"proxy-connection")),
            (16, b'x') => return x_forwarded_16(bytes),
            (17, b't') => (Name::TransferEncoding, spells(bytes, b"transfer-encoding")),
            (17, b'x') => (Name::XForwardedProto, spells(bytes, b"x-forwarded-proto")),
            (18, b'p') => (Name::ProxyAuthenticate, spells(bytes, b"proxy-authenticate")),
            (19, b'p') => (Name::ProxyAuthorization, spells(bytes, b"proxy-authorization")),
            _ => return Name::Other,
        };
        if matches { name } else { Name::Other }
    }

    /// The name in lower case; empty for `Other`.
    #[cfg(test)]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Name::Other => "",
            Name::Accept => "accept",
            Name::Authorization => "authorization",
            Name::CacheControl => "cache-control",
            Name::Connection => "connection",
            Name::ContentLength => "content-length",
            Name::ContentType => "content-type",
            Name::Cookie => "cookie",
            Name::Date => "date",
            Name::Expect => "expect",
            Name::Forwarded => "forwarded",
            Name::Host => "host",
            Name::KeepAlive => "keep-alive",
            Name::MaxForwards => "max-forwards",
            Name::ProxyAuthenticate => "proxy-authenticate",
            Name::ProxyAuthorization => "proxy-authorization",
            Name::ProxyConnection => "proxy-connection",
            Name::Referer => "referer",
            Name::SetCookie => "set-cookie",
            Name::Te => "te",
            Name::Traceparent => "traceparent",
            Name::Trailer => "trailer",
            Name::TransferEncoding => "transfer-encoding",
            Name::Upgrade => "upgrade",
            Name::UserAgent => "user-agent",
            Name::Via => "via",
            Name::XForwardedFor => "x-forwarded-for",
            Name::XForwardedHost => "x-forwarded-host",
            Name::XForwardedPort => "x-forwarded-port",
            Name::XForwardedProto => "x-forwarded-proto",
            Name::XRealIp => "x-real-ip",
            Name::XRequestId => "x-request-id",
        }
    }
}

/// The two names that share length and first letter.
#[inline]
fn x_forwarded_16(bytes: &[u8]) -> Name {
    if spells(bytes, b"x-forwarded-host") {
        Name::XForwardedHost
    } else if spells(bytes, b"x-forwarded-port") {
        Name::XForwardedPort
    } else {
        Name::Other
    }
}

/// Whether `bytes` is `name`, which is in lower case. The length is a constant, so that this is a
/// few wide instructions and not a loop.
#[inline]
fn spells<const N: usize>(bytes: &[u8], name: &[u8; N]) -> bool {
    let Ok(bytes) = <&[u8; N]>::try_from(bytes) else { return false };
    let differing = bytes.iter().zip(name).fold(0, |differing, (byte, wanted)| {
        let case = if wanted.is_ascii_lowercase() { 0x20 } else { 0 };
        differing | ((byte | case) ^ wanted)
    });
    differing == 0
}

/// A set of known names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NameSet(u64);

impl NameSet {
    pub(crate) const fn of(names: &[Name]) -> NameSet {
        let mut set = NameSet(0);
        let mut rest = names;
        while let [first, others @ ..] = rest {
            set = set.with(*first);
            rest = others;
        }
        set
    }

    /// This set and one name more.
    #[inline]
    pub(crate) const fn with(self, name: Name) -> NameSet {
        NameSet(self.0 | 1 << name as u8)
    }

    #[inline]
    pub(crate) const fn union(self, other: NameSet) -> NameSet {
        NameSet(self.0 | other.0)
    }

    #[inline]
    pub(crate) const fn contains(self, name: Name) -> bool {
        self.0 & 1 << name as u8 != 0
    }

    #[inline]
    pub(crate) const fn intersects(self, other: NameSet) -> bool {
        self.0 & other.0 != 0
    }
}

/// What a message says about the client it came from; only trusted peers are believed.
pub(crate) const ABOUT_CLIENT: NameSet = NameSet::of(&[
    Name::Forwarded,
    Name::XForwardedFor,
    Name::XForwardedHost,
    Name::XForwardedPort,
    Name::XForwardedProto,
    Name::XRealIp,
]);

/// Whether a name that is not one of `ABOUT_CLIENT` would be taken for one by what stands behind
/// us: the rest of `X-Forwarded-…`, and the spellings with underscores, which are the same
/// variables to CGI and its heirs.
pub(crate) fn claims_client(name: &[u8]) -> bool {
    let starts = |wanted: &[u8]| {
        name.len() >= wanted.len()
            && name.iter().zip(wanted).all(|(byte, wanted)| match byte {
                b'_' => *wanted == b'-',
                byte => byte.eq_ignore_ascii_case(wanted),
            })
    };
    starts(b"x-forwarded-") || (name.len() == 9 && starts(b"x-real-ip"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Name; 31] = [
        Name::Accept,
        Name::Authorization,
        Name::CacheControl,
        Name::Connection,
        Name::ContentLength,
        Name::ContentType,
        Name::Cookie,
        Name::Date,
        Name::Expect,
        Name::Forwarded,
        Name::Host,
        Name::KeepAlive,
        Name::MaxForwards,
        Name::ProxyAuthenticate,
        Name::ProxyAuthorization,
        Name::ProxyConnection,
        Name::Referer,
        Name::SetCookie,
        Name::Te,
        Name::Traceparent,
        Name::Trailer,
        Name::TransferEncoding,
        Name::Upgrade,
        Name::UserAgent,
        Name::Via,
        Name::XForwardedFor,
        Name::XForwardedHost,
        Name::XForwardedPort,
        Name::XForwardedProto,
        Name::XRealIp,
        Name::XRequestId,
    ];

    #[test]
    fn every_known_name_is_found_in_any_case() {
        for (place, name) in ALL.into_iter().enumerate() {
            assert_eq!(name as usize, place + 1, "the list above misses a name");
            let lower = name.as_str();
            assert_eq!(Name::of(lower.as_bytes()), name, "{lower}");
            assert_eq!(Name::of(lower.to_ascii_uppercase().as_bytes()), name, "{lower}");
            let mixed: String = lower
                .chars()
                .enumerate()
                .map(|(at, c)| if at % 2 == 0 { c.to_ascii_uppercase() } else { c })
                .collect();
            assert_eq!(Name::of(mixed.as_bytes()), name, "{mixed}");
        }
    }

    #[test]
    fn one_byte_more_less_or_other_is_another_name() {
        for name in ALL {
            let bytes = name.as_str().as_bytes();
            assert_eq!(Name::of(&[bytes, b"x"].concat()), Name::Other, "{name:?}");
            assert_eq!(Name::of(&bytes[1..]), Name::Other, "{name:?}");
            assert_eq!(Name::of(&bytes[..bytes.len() - 1]), Name::Other, "{name:?}");
            for at in 0..bytes.len() {
                for other in 0..=255u8 {
                    let mut changed = bytes.to_vec();
                    changed[at] = other;
                    let same = changed.eq_ignore_ascii_case(bytes);
                    assert_eq!(Name::of(&changed) == name, same, "{name:?} {at} {other}");
                }
            }
        }
        assert_eq!(Name::of(b""), Name::Other);
    }

    #[test]
    fn a_name_that_would_be_taken_for_one_about_the_client_is_known_by_its_start() {
        for name in ["X-Forwarded-Server", "x_forwarded_for", "X-Forwarded_Proto", "X_REAL_IP"] {
            assert!(claims_client(name.as_bytes()), "{name}");
        }
        for name in ["X-Forward", "X-Forwarded", "X-Real-IPs", "X-Request-Id", "Forwarded", ""] {
            assert!(!claims_client(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn a_set_holds_what_was_put_in_and_nothing_else() {
        let set = NameSet::of(&[Name::Te, Name::Via]);
        for name in ALL {
            assert_eq!(set.contains(name), matches!(name, Name::Te | Name::Via), "{name:?}");
            assert!(set.with(name).contains(name), "{name:?}");
        }
        assert!(set.intersects(NameSet::of(&[Name::Host, Name::Via])));
        assert!(!set.intersects(NameSet::of(&[Name::Host])));
        assert!(set.union(NameSet::of(&[Name::Host])).contains(Name::Host));
    }
}
