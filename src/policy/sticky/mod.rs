//! Sticky cookies: written, signed and read; each names the backend that a client stays with.
//!
//! ```text
//! version 1 │ backend 8 │ issued 4 │ last seen 4 │ MAC 16     33 bytes, 44 letters of base64url
//! ```
//!
//! Times are seconds since 1970. The MAC is HMAC-SHA256 cut to 128 bits (RFC 2104 §5), under a key
//! made of the secret and the pool's name, so that a cookie of one pool says nothing to another. A
//! backend is named by a MAC of its name: instances that share a secret agree on it, whatever its
//! position in the list, and outsiders cannot learn or guess names and addresses. Nothing is kept
//! about a client here, and nothing is allocated to read what it sends.

mod reading;
mod secrets;

use std::{num::NonZeroU32, time::Duration};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

pub(crate) use self::{
    reading::{CookieReading, Pin, Reading},
    secrets::Secrets,
};
use crate::base::{base64url, ids::BackendId, moment::UnixSeconds};
use crate::plan::{Pool, SameSite, Sticky, Table};

/// Changes whenever the contents of a cookie or the way it is signed change.
const VERSION: u8 = 1;

const VALUE_BYTES: usize = 33;
const SIGNED_BYTES: usize = 17;

/// Cookies of our name that are read. An honest client has one, or one for each of a few nested
/// domains; each costs two MACs at most.
const COOKIES_MAX: usize = 4;

/// A date further in the future than this is ignored: clocks differ, but not by a day.
const FUTURE_SECONDS_MAX: u32 = 86_400;

/// Writes and reads the cookies of one pool.
pub(crate) struct Pins {
    cookie: String,
    same_site: SameSite,
    /// In seconds; none = for ever.
    idle_max: Option<NonZeroU32>,
    life_max: Option<NonZeroU32>,
    /// The first one signs.
    keys: Vec<Key>,
}

/// One secret, as one pool uses it.
struct Key {
    mac: Hmac<Sha256>,
    /// The names of its backends in cookies, by id.
    names: Table<BackendId, [u8; 8]>,
    /// The same in the order of the names.
    backends: Vec<([u8; 8], BackendId)>,
}

impl Pins {
    pub(crate) fn new(pool: &Pool, sticky: &Sticky, secrets: &Secrets) -> Pins {
        Pins {
            cookie: sticky.cookie.clone(),
            same_site: sticky.same_site,
            idle_max: seconds(sticky.idle_max),
            life_max: seconds(sticky.life_max),
            keys: secrets.0.iter().map(|secret| Key::new(secret, pool)).collect(),
        }
    }

    /// Whether another writes and reads the same cookies: names of backends are made with the
    /// secrets, so where those are the same the secrets are.
    pub(crate) fn is_same(&self, other: &Pins) -> bool {
        let Pins { cookie, same_site, idle_max, life_max, keys } = self;
        let names = |keys: &[Key]| keys.iter().map(|key| key.names.clone()).collect::<Vec<_>>();
        (cookie, same_site, idle_max, life_max)
            == (&other.cookie, &other.same_site, &other.idle_max, &other.life_max)
            && names(keys) == names(&other.keys)
    }

    /// The cookie's name.
    pub(crate) fn cookie(&self) -> &[u8] {
        self.cookie.as_bytes()
    }

    /// The result of reading our cookies: the first that is valid, otherwise what is wrong with the
    /// first.
    pub(crate) fn read<'a>(
        &self,
        values: impl Iterator<Item = &'a [u8]>,
        now: UnixSeconds,
    ) -> Reading {
        let mut first = Reading::Absent;
        for value in values.take(COOKIES_MAX) {
            match (self.read_one(value, clamped(now)), first) {
                (Reading::Pinned(pin), _) => return Reading::Pinned(pin),
                (wrong, Reading::Absent) => first = wrong,
                _ => {}
            }
        }
        first
    }

    fn read_one(&self, value: &[u8], now: u32) -> Reading {
        let Some(bytes) = base64url::decode::<VALUE_BYTES>(value) else {
            return Reading::Malformed;
        };
        let [VERSION, b0, b1, b2, b3, b4, b5, b6, b7, i0, i1, i2, i3, s0, s1, s2, s3, mac @ ..] =
            bytes
        else {
            return Reading::Malformed;
        };
        let name = [b0, b1, b2, b3, b4, b5, b6, b7];
        let (issued, seen) =
            (u32::from_be_bytes([i0, i1, i2, i3]), u32::from_be_bytes([s0, s1, s2, s3]));
        let signed = signed(name, issued, seen);
        let mut keys = self.keys.iter().enumerate();
        let Some((place, key)) = keys.find(|(_, key)| key.has_signed(&signed, &mac)) else {
            return Reading::Forged;
        };
        let latest = now.saturating_add(FUTURE_SECONDS_MAX);
        let is_over = |since: u32, most: Option<NonZeroU32>| {
            most.is_some_and(|most| now.saturating_sub(since) > most.get())
        };
        if issued > latest
            || seen > latest
            || is_over(seen, self.idle_max)
            || is_over(issued, self.life_max)
        {
            return Reading::Expired;
        }
        let Some(backend) = key.backend(name) else { return Reading::Unknown };
        let is_old = self.idle_max.is_some_and(|most| now.saturating_sub(seen) > most.get() / 4);
        Reading::Pinned(Pin { backend, issued, refresh: is_old || place > 0 })
    }

    /// Appends the value of a `Set-Cookie` that pins to this backend (RFC 6265 §4.1). `issued` is
    /// when the client was first pinned to it, `secure` whether its scheme is https.
    pub(crate) fn write(
        &self,
        backend: BackendId,
        issued: u32,
        now: UnixSeconds,
        secure: bool,
        out: &mut Vec<u8>,
    ) {
        let now = clamped(now);
        let Some((key, name)) =
            self.keys.first().and_then(|key| Some((key, *key.names.get(backend)?)))
        else {
            debug_assert!(false, "no secret, or no such backend");
            return;
        };
        let signed = signed(name, issued, now);
        let mut value = [0; VALUE_BYTES];
        let (start, mac) = value.split_at_mut(SIGNED_BYTES);
        start.copy_from_slice(&signed);
        mac.copy_from_slice(&key.sign(&signed));
        out.extend_from_slice(self.cookie());
        out.push(b'=');
        base64url::encode(&value, out);
        out.extend_from_slice(b"; Path=/; HttpOnly; SameSite=");
        out.extend_from_slice(match self.same_site {
            SameSite::Lax => b"Lax",
            SameSite::Strict => b"Strict",
            SameSite::None => b"None",
        });
        // Browsers refuse `None` without it (RFC 6265bis §5.7).
        if secure || self.same_site == SameSite::None {
            out.extend_from_slice(b"; Secure");
        }
        if let Some(left) = self.left(issued, now) {
            use std::io::Write as _;
            // Writing to a vector cannot fail.
            let _ = write!(out, "; Max-Age={left}");
        }
    }

    /// How long a cookie stays valid that is used now and never again; none = for ever.
    fn left(&self, issued: u32, now: u32) -> Option<u32> {
        let age = now.saturating_sub(issued);
        let life = self.life_max.map(|most| most.get().saturating_sub(age).max(1));
        let idle = self.idle_max.map(NonZeroU32::get);
        idle.into_iter().chain(life).min()
    }
}

impl Key {
    fn new(secret: &[u8; 32], pool: &Pool) -> Key {
        let mac = keyed(&keyed(secret).chain_update(pool.name.as_bytes()).finalize().into_bytes());
        // No signed cookie begins with a zero.
        let named = |name: &str| mac.clone().chain_update([0]).chain_update(name);
        let name_of = |name: &str| first(named(name).finalize().into_bytes());
        let named = pool.backends.iter().map(|(id, backend)| (id, name_of(&backend.name)));
        let names: Table<_, _> = named.collect();
        let mut backends: Vec<_> = names.iter().map(|(id, name)| (*name, id)).collect();
        backends.sort_unstable();
        Key { mac, names, backends }
    }

    fn sign(&self, signed: &[u8; SIGNED_BYTES]) -> [u8; 16] {
        first(self.mac.clone().chain_update(signed).finalize().into_bytes())
    }

    /// Whether this is our signature; takes the same time in any case.
    fn has_signed(&self, signed: &[u8; SIGNED_BYTES], mac: &[u8; 16]) -> bool {
        self.mac.clone().chain_update(signed).verify_truncated_left(mac).is_ok()
    }

    fn backend(&self, name: [u8; 8]) -> Option<BackendId> {
        let place = self.backends.binary_search_by_key(&name, |(name, _)| *name).ok()?;
        self.backends.get(place).map(|(_, id)| *id)
    }
}

/// The part of a cookie that the MAC covers, and that comes before it.
fn signed(name: [u8; 8], issued: u32, seen: u32) -> [u8; SIGNED_BYTES] {
    let mut bytes = [VERSION; SIGNED_BYTES];
    let parts = name.into_iter().chain(issued.to_be_bytes()).chain(seen.to_be_bytes());
    bytes.iter_mut().skip(1).zip(parts).for_each(|(byte, part)| *byte = part);
    bytes
}

/// An HMAC under these 32 bytes, which RFC 2104 §2 pads with zeros.
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    let mut block = [0; 64];
    block.iter_mut().zip(key).for_each(|(byte, part)| *byte = *part);
    Hmac::new(&block.into())
}

/// The first bytes of a whole MAC.
fn first<const N: usize>(mac: impl IntoIterator<Item = u8>) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.iter_mut().zip(mac).for_each(|(byte, part)| *byte = part);
    bytes
}

/// Whole seconds, rounded up: less than one is not zero, which means no bound.
fn seconds(time: Duration) -> Option<NonZeroU32> {
    let seconds = time.as_secs().saturating_add((time.subsec_nanos() > 0).into());
    NonZeroU32::new(u32::try_from(seconds).unwrap_or(u32::MAX))
}

/// A second in the form of a cookie: until 2106.
fn clamped(UnixSeconds(seconds): UnixSeconds) -> u32 {
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Address, Backend};
    use crate::testkit::allocations;
    use proptest::prelude::*;

    const NOW: u64 = 1_795_478_400;
    const OLD: &str = "the secret before";
    const NEW: &str = "the secret of now";

    fn pool(name: &str, backends: &[&str]) -> Pool {
        let backend = |name: &&str| {
            let address = Address::Name { host: "origin.test".into(), port: 80 };
            Backend::new((*name).to_owned(), address)
        };
        let backends = backends.iter().map(backend).collect();
        Pool { name: name.into(), backends, ..Pool::default() }
    }

    fn pins_of(pool: &Pool, secrets: &str, idle_max: u64, life_max: u64) -> Pins {
        let sticky = Sticky {
            cookie: "rw".into(),
            secret_file: None,
            idle_max: Duration::from_secs(idle_max),
            life_max: Duration::from_secs(life_max),
            ..Sticky::default()
        };
        Pins::new(pool, &sticky, &Secrets::parse(secrets.as_bytes()).unwrap())
    }

    fn pins(idle_max: u64, life_max: u64) -> Pins {
        pins_of(&pool("app", &["a", "b", "c"]), NEW, idle_max, life_max)
    }

    /// The whole `Set-Cookie`.
    fn written(pins: &Pins, backend: u16, issued: u64, now: u64) -> String {
        let mut out = Vec::new();
        pins.write(BackendId(backend), issued as u32, UnixSeconds(now), false, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// A cookie's value alone.
    fn value(pins: &Pins, backend: u16, issued: u64, seen: u64) -> String {
        let line = written(pins, backend, issued, seen);
        line.strip_prefix("rw=").unwrap().split(';').next().unwrap().to_owned()
    }

    fn read(pins: &Pins, values: &[&str], now: u64) -> Reading {
        pins.read(values.iter().map(|value| value.as_bytes()), UnixSeconds(now))
    }

    fn pinned(backend: u16, issued: u64, refresh: bool) -> Reading {
        Reading::Pinned(Pin { backend: BackendId(backend), issued: issued as u32, refresh })
    }

    /// Anything that a client could see of them makes them others.
    #[test]
    fn pins_are_the_same_when_they_write_and_read_the_same() {
        let of_app = |backends: &[&str]| pins_of(&pool("app", backends), NEW, 60, 600);
        let before = of_app(&["a", "b"]);
        assert!(before.is_same(&of_app(&["a", "b"])));
        assert!(!before.is_same(&of_app(&["b", "a"])));
        assert!(!before.is_same(&of_app(&["a", "b", "c"])));
        let app = pool("app", &["a", "b"]);
        assert!(!before.is_same(&pins_of(&app, OLD, 60, 600)));
        assert!(!before.is_same(&pins_of(&app, NEW, 61, 600)));
        assert!(!before.is_same(&pins_of(&app, NEW, 60, 601)));
        let both = format!("{NEW}\n{OLD}");
        assert!(!before.is_same(&pins_of(&app, &both, 60, 600)));
    }

    #[test]
    fn what_is_written_reads_back() {
        let pins = pins(0, 0);
        for backend in 0..3 {
            let value = value(&pins, backend, NOW - 5, NOW);
            assert_eq!(value.len(), 44);
            assert_eq!(read(&pins, &[&value], NOW), pinned(backend, NOW - 5, false));
        }
        assert_eq!(read(&pins, &[], NOW), Reading::Absent);
    }

    /// The bytes are an interface: cookies outlive the process, and instances share them.
    #[test]
    fn a_cookie_is_the_same_in_every_version() {
        assert_eq!(
            written(&pins(0, 0), 1, NOW, NOW),
            "rw=Ab1bQMUaYZz3awTTgGsE04CiXOB5CuqBJ90_p_l31eVC; Path=/; HttpOnly; SameSite=Lax"
        );
    }

    #[test]
    fn attributes_say_how_long_it_holds() {
        let start = "; Path=/; HttpOnly; SameSite=Lax";
        for (idle, life, age, expected) in [
            (0, 0, 0, ""),
            (600, 0, 0, "; Max-Age=600"),
            (600, 0, 10_000, "; Max-Age=600"),
            (0, 3600, 0, "; Max-Age=3600"),
            (0, 3600, 600, "; Max-Age=3000"),
            (0, 3600, 3600, "; Max-Age=1"),
            (600, 3600, 600, "; Max-Age=600"),
            (600, 3600, 3500, "; Max-Age=100"),
        ] {
            let line = written(&pins(idle, life), 0, NOW - age, NOW);
            let attributes = &line[line.find(';').unwrap()..];
            assert_eq!(attributes, format!("{start}{expected}"), "{idle} {life} {age}");
        }
        for (same_site, secure, expected) in [
            (SameSite::Lax, false, "SameSite=Lax"),
            (SameSite::Lax, true, "SameSite=Lax; Secure"),
            (SameSite::Strict, false, "SameSite=Strict"),
            (SameSite::Strict, true, "SameSite=Strict; Secure"),
            (SameSite::None, false, "SameSite=None; Secure"),
            (SameSite::None, true, "SameSite=None; Secure"),
        ] {
            let pins = Pins { same_site, ..pins(0, 0) };
            let mut out = Vec::new();
            pins.write(BackendId(0), 0, UnixSeconds(NOW), secure, &mut out);
            let out = String::from_utf8(out).unwrap();
            assert!(out.ends_with(&format!("; Path=/; HttpOnly; {expected}")), "{out}");
        }
    }

    #[test]
    fn one_bit_anywhere_makes_it_forged() {
        let pins = pins(0, 0);
        let good: [u8; VALUE_BYTES] =
            base64url::decode(value(&pins, 1, NOW, NOW).as_bytes()).unwrap();
        for bit in 0..VALUE_BYTES * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut text = Vec::new();
            base64url::encode(&bytes, &mut text);
            let expected = if bit < 8 { Reading::Malformed } else { Reading::Forged };
            assert_eq!(pins.read([&text[..]].into_iter(), UnixSeconds(NOW)), expected, "bit {bit}");
        }
    }

    #[test]
    fn what_we_never_write_is_malformed() {
        let pins = pins(0, 0);
        let good = value(&pins, 0, NOW, NOW);
        for bad in ["", "a", "b\"", &good[1..], &good[..43], &format!("{good}A")] {
            assert_eq!(read(&pins, &[bad], NOW), Reading::Malformed, "{bad}");
        }
        for bad in ["=", "+", "/", " ", "\"", "\u{e9}"] {
            let bad = format!("{}{bad}", &good[..43]);
            assert_eq!(read(&pins, &[&bad], NOW), Reading::Malformed, "{bad}");
        }
    }

    #[test]
    fn a_cookie_of_another_pool_or_secret_is_forged() {
        let ours = pins(0, 0);
        let names = ["a", "b", "c"];
        for other in [
            pins_of(&pool("app2", &names), NEW, 0, 0),
            pins_of(&pool("", &names), NEW, 0, 0),
            pins_of(&pool("app", &names), OLD, 0, 0),
        ] {
            let value = value(&other, 0, NOW, NOW);
            assert_eq!(read(&ours, &[&value], NOW), Reading::Forged);
            assert!(matches!(read(&other, &[&value], NOW), Reading::Pinned(_)));
        }
    }

    #[test]
    fn a_backend_is_its_name_wherever_it_stands() {
        let value = value(&pins(0, 0), 2, NOW, NOW);
        let later = pins_of(&pool("app", &["x", "c", "a"]), NEW, 0, 0);
        assert_eq!(read(&later, &[&value], NOW), pinned(1, NOW, false));
        let gone = pins_of(&pool("app", &["a", "b"]), NEW, 0, 0);
        assert_eq!(read(&gone, &[&value], NOW), Reading::Unknown);
    }

    #[test]
    fn time_is_over_after_its_last_second() {
        #[track_caller]
        fn check(idle: u64, life: u64, (issued, seen): (u64, u64), expected: Option<bool>) {
            let pins = pins(idle, life);
            let value = value(&pins, 0, issued, seen);
            let expected = expected.map_or(Reading::Expired, |due| pinned(0, issued, due));
            assert_eq!(read(&pins, &[&value], NOW), expected);
        }
        // Without a bound it neither expires nor is written again.
        check(0, 0, (0, 0), Some(false));
        // Not used for `idle`; due after a quarter of it.
        check(100, 0, (0, NOW - 100), Some(true));
        check(100, 0, (0, NOW - 101), None);
        check(100, 0, (0, NOW - 26), Some(true));
        check(100, 0, (0, NOW - 25), Some(false));
        check(1, 0, (0, NOW - 1), Some(true));
        check(1, 0, (0, NOW), Some(false));
        // Issued `life` ago, however much it is used.
        check(0, 100, (NOW - 100, NOW - 100), Some(false));
        check(0, 100, (NOW - 101, NOW), None);
        check(100, 200, (NOW - 200, NOW), Some(false));
        check(100, 200, (NOW - 201, NOW), None);
        check(100, 200, (NOW - 200, NOW - 101), None);
        // In the future: other clocks may be ahead of ours, by a day.
        let day = u64::from(FUTURE_SECONDS_MAX);
        check(100, 200, (NOW + day, NOW + day), Some(false));
        check(0, 0, (NOW + day + 1, NOW), None);
        check(0, 0, (NOW, NOW + day + 1), None);
    }

    #[test]
    fn less_than_a_second_is_not_for_ever() {
        for (millis, expected) in [(0, 0), (1, 1), (1000, 1), (1001, 2), (u64::MAX, u32::MAX)] {
            assert_eq!(seconds(Duration::from_millis(millis)), NonZeroU32::new(expected));
        }
    }

    #[test]
    fn the_older_secret_is_believed_and_replaced() {
        let names = pool("app", &["a", "b"]);
        let before = value(&pins_of(&names, OLD, 0, 0), 1, NOW, NOW);
        let rotated = pins_of(&names, &format!("{NEW}\n{OLD}\n"), 0, 0);
        assert_eq!(read(&rotated, &[&before], NOW), pinned(1, NOW, true));
        let after = value(&rotated, 1, NOW, NOW);
        assert_eq!(read(&rotated, &[&after], NOW), pinned(1, NOW, false));
        assert_eq!(read(&pins_of(&names, NEW, 0, 0), &[&after], NOW), pinned(1, NOW, false));
        assert_eq!(read(&pins_of(&names, NEW, 0, 0), &[&before], NOW), Reading::Forged);
    }

    #[test]
    fn of_several_the_first_valid_one_counts() {
        let pins = pins(10, 0);
        let (a, b) = (value(&pins, 0, NOW, NOW), value(&pins, 1, NOW, NOW));
        let old = value(&pins, 2, 0, 0);
        let forged = format!("{}A", &a[..43]);
        assert_eq!(read(&pins, &[&a, &b], NOW), pinned(0, NOW, false));
        assert_eq!(read(&pins, &["x", &forged, &b, &a], NOW), pinned(1, NOW, false));
        assert_eq!(read(&pins, &[&forged, "x", &old], NOW), Reading::Forged);
        assert_eq!(read(&pins, &[&old, "x"], NOW), Reading::Expired);
        assert_eq!(read(&pins, &["x", "x", "x", "x", &a], NOW), Reading::Malformed);
    }

    #[test]
    fn neither_reading_nor_writing_allocates() {
        let pins = pins(600, 3600);
        let good = value(&pins, 0, NOW, NOW);
        let mut out = Vec::with_capacity(200);
        let allocated = allocations(|| {
            let read = pins.read(["x", &good].map(str::as_bytes).into_iter(), UnixSeconds(NOW));
            assert!(matches!(read, Reading::Pinned(_)));
            pins.write(BackendId(1), 0, UnixSeconds(NOW), true, &mut out);
        });
        assert_eq!(allocated, 0);
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_pins_or_panics(
            value in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let read = pins(1, 1).read([&value[..]].into_iter(), UnixSeconds(NOW));
            prop_assert!(matches!(read, Reading::Malformed | Reading::Forged));
        }

        #[test]
        fn nothing_of_the_right_shape_pins_either(value in "[A-Za-z0-9_-]{44}") {
            let read = pins(1, 1).read([value.as_bytes()].into_iter(), UnixSeconds(NOW));
            prop_assert!(matches!(read, Reading::Malformed | Reading::Forged));
        }
    }
}
