//! Known field names as small integers, so that rules compare numbers.
//!
//! A name is looked up once, when its line is parsed: by length, then first letter, then one
//! comparison, without hashing. A set of names is one word, so a rule about twenty fields costs as
//! much as a rule about one.
//!
//! Names are compared by their letters, and also as CGI does: CGI and its descendants (WSGI, Rack,
//! PHP, FastCGI) turn names into variables with `_` for each `-`, so `X_Forwarded_For` is to them
//! the same as `X-Forwarded-For`. Removing or overwriting a name, or believing it of trusted peers
//! alone, is useless if another spelling of it passes: such a spelling is `Disguised`.

/// A field name that some rule depends on; all others are `Other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Name {
    Other,
    Accept,
    Authorization,
    CacheControl,
    ClientCert,
    ClientCertChain,
    Connection,
    ContentLength,
    ContentType,
    Cookie,
    Date,
    /// A spelling with underscores of a name that we remove, write, or believe of some peers alone.
    Disguised,
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
    Tracestate,
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
    /// The known name that these bytes spell, in any case (RFC 9110 §5.1).
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
            (9, b'x') => return guarded(Name::XRealIp, bytes, b"x-real-ip"),
            (10, b'c') => (Name::Connection, spells(bytes, b"connection")),
            (10, b'k') => return guarded(Name::KeepAlive, bytes, b"keep-alive"),
            (10, b's') => (Name::SetCookie, spells(bytes, b"set-cookie")),
            (10, b'u') => (Name::UserAgent, spells(bytes, b"user-agent")),
            (11, b'c') => return guarded(Name::ClientCert, bytes, b"client-cert"),
            (10, b't') => (Name::Tracestate, spells(bytes, b"tracestate")),
            (11, b't') => (Name::Traceparent, spells(bytes, b"traceparent")),
            (12, b'c') => (Name::ContentType, spells(bytes, b"content-type")),
            (12, b'm') => return guarded(Name::MaxForwards, bytes, b"max-forwards"),
            (12, b'x') if dashed_is(bytes, b"x-request-id") => {
                return guarded(Name::XRequestId, bytes, b"x-request-id");
            }
            (13, b'a') => (Name::Authorization, spells(bytes, b"authorization")),
            (13, b'c') => (Name::CacheControl, spells(bytes, b"cache-control")),
            (14, b'c') => return guarded(Name::ContentLength, bytes, b"content-length"),
            (16, b'p') => return guarded(Name::ProxyConnection, bytes, b"proxy-connection"),
            (17, b'c') => return guarded(Name::ClientCertChain, bytes, b"client-cert-chain"),
            (17, b't') => return guarded(Name::TransferEncoding, bytes, b"transfer-encoding"),
            (18, b'p') => return guarded(Name::ProxyAuthenticate, bytes, b"proxy-authenticate"),
            (19, b'p') => return guarded(Name::ProxyAuthorization, bytes, b"proxy-authorization"),
            (12.., b'x') => return x_forwarded(bytes),
            _ => return Name::Other,
        };
        if matches { name } else { Name::Other }
    }

    /// The name in lower case; empty for `Other` and `Disguised`.
    #[cfg(test)]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Name::Other | Name::Disguised => "",
            Name::Accept => "accept",
            Name::Authorization => "authorization",
            Name::CacheControl => "cache-control",
            Name::ClientCert => "client-cert",
            Name::ClientCertChain => "client-cert-chain",
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
            Name::Tracestate => "tracestate",
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

/// The names that begin with `X-Forwarded-`, including disguised spellings of the others.
fn x_forwarded(bytes: &[u8]) -> Name {
    let name = match bytes.len() {
        15 if spells(bytes, b"x-forwarded-for") => Name::XForwardedFor,
        16 if spells(bytes, b"x-forwarded-host") => Name::XForwardedHost,
        16 if spells(bytes, b"x-forwarded-port") => Name::XForwardedPort,
        17 if spells(bytes, b"x-forwarded-proto") => Name::XForwardedProto,
        _ => Name::Other,
    };
    let start = bytes.iter().zip(X_FORWARDED).all(|(byte, wanted)| dashed(*byte) == *wanted);
    let is_disguised = name == Name::Other && start && bytes.contains(&b'_');
    if is_disguised { Name::Disguised } else { name }
}

/// One letter as CGI compares names.
#[inline]
fn dashed(byte: u8) -> u8 {
    if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
}

/// Whether the bytes are this name to CGI, whose length they have.
#[inline]
fn dashed_is(bytes: &[u8], name: &[u8]) -> bool {
    bytes.iter().zip(name).all(|(byte, wanted)| dashed(*byte) == *wanted)
}

/// A name that must not pass in any spelling: itself, disguised, or another.
#[inline]
fn guarded<const N: usize>(name: Name, bytes: &[u8], spelled: &[u8; N]) -> Name {
    if spells(bytes, spelled) {
        name
    } else if dashed_is(bytes, spelled) {
        Name::Disguised
    } else {
        Name::Other
    }
}

/// Whether `bytes` is `name`, which is in lower case. The length is a constant, so this compiles to
/// a few wide instructions instead of a loop.
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

    /// This set with one more name.
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

/// What a message says about its client; only trusted peers are believed.
pub(crate) const ABOUT_CLIENT: NameSet = NameSet::of(&[
    Name::ClientCert,
    Name::ClientCertChain,
    Name::Forwarded,
    Name::XForwardedFor,
    Name::XForwardedHost,
    Name::XForwardedPort,
    Name::XForwardedProto,
    Name::XRealIp,
]);

const X_FORWARDED: &[u8; 12] = b"x-forwarded-";

/// Whether a name outside `ABOUT_CLIENT` still says something about the client: the rest of
/// `X-Forwarded-…`.
pub(crate) fn claims_client(name: &[u8]) -> bool {
    name.get(..X_FORWARDED.len()).is_some_and(|start| start.eq_ignore_ascii_case(X_FORWARDED))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Name; 34] = [
        Name::Accept,
        Name::Authorization,
        Name::CacheControl,
        Name::ClientCert,
        Name::ClientCertChain,
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
        Name::Tracestate,
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
        let mut places = (1..).filter(|place| *place != Name::Disguised as usize);
        for name in ALL {
            assert_eq!(Some(name as usize), places.next(), "the list above misses a name");
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

    /// Names that we remove, write, or believe of some peers alone.
    const GUARDED: NameSet = ABOUT_CLIENT.union(NameSet::of(&[
        Name::ContentLength,
        Name::KeepAlive,
        Name::MaxForwards,
        Name::ProxyAuthenticate,
        Name::ProxyAuthorization,
        Name::ProxyConnection,
        Name::TransferEncoding,
        Name::XRequestId,
    ]));

    #[test]
    fn a_guarded_name_is_known_in_every_spelling_that_is_one_variable_to_cgi() {
        for name in ALL {
            let bytes = name.as_str().as_bytes();
            let dashes: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] == b'-').collect();
            for spelling in 1..1_u32 << dashes.len() {
                let mut bytes = bytes.to_vec();
                for (bit, at) in dashes.iter().enumerate() {
                    bytes[*at] = if spelling >> bit & 1 == 1 { b'_' } else { b'-' };
                }
                let guarded = GUARDED.contains(name);
                let expected = if guarded { Name::Disguised } else { Name::Other };
                assert_eq!(Name::of(&bytes), expected, "{name:?} {spelling:b}");
                let upper = bytes.to_ascii_uppercase();
                assert_eq!(Name::of(&upper), expected, "{name:?} {spelling:b}");
                bytes.push(b'x');
                let longer = Name::of(&bytes);
                assert!(longer == Name::Other || bytes.starts_with(b"x"), "{name:?} {longer:?}");
            }
        }
        for name in ["X_Forwarded_Prefix", "X-Forwarded_Server", "x-forwarded-my_thing"] {
            assert_eq!(Name::of(name.as_bytes()), Name::Disguised, "{name}");
        }
        for name in ["X_Forward_For", "X_Forwarded", "My_Field", "Content_Type", "X_Request_Ids"] {
            assert_eq!(Name::of(name.as_bytes()), Name::Other, "{name}");
        }
    }

    #[test]
    fn a_name_that_says_something_about_the_client_is_known_by_its_start() {
        for name in ["X-Forwarded-Server", "x-forwarded-prefix", "X-FORWARDED-"] {
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
