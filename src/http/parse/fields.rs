//! The fields of a head as ranges of it, and the facts they state that parsing needs at once.

use super::offset;
use crate::http::{
    fault::{Cause, Fault},
    grammar,
    head::Version,
    headers::{Field, Headers, Span},
    names::{Name, NameSet},
};

/// The facts in the fields of a head that parsing needs at once.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) hosts: u32,
    pub(super) host: Span,
    close: bool,
    keep_alive: bool,
    /// Whether Connection says more than one of these two.
    pub(super) other_options: bool,
    pub(super) connection_upgrade: bool,
    pub(super) upgrade: bool,
    /// An upgrade to a protocol that would hide HTTP from us.
    pub(super) upgrade_to_http: bool,
    pub(super) expects_continue: bool,
    pub(super) expects_other: bool,
    pub(super) body: bool,
}

/// The fields that `Facts` reads.
pub(super) const TELLING: NameSet = NameSet::of(&[
    Name::Connection,
    Name::ContentLength,
    Name::Expect,
    Name::Host,
    Name::TransferEncoding,
    Name::Upgrade,
]);

/// Fills the fields of a head of `used` bytes, whose lines begin at `line_end`.
pub(super) fn fields(
    seen: &[u8],
    used: usize,
    line_end: usize,
    found: &[httparse::Header<'_>],
    headers: &mut Headers,
    broken: Cause,
) -> Result<Facts, Fault> {
    let mut facts = Facts::default();
    let mut all_end_well = true;
    headers.extend_fields(found.iter().map(|field| {
        let (name, value) = (field.name.as_bytes(), field.value);
        let name_start = offset(seen, name);
        let name_end = name_start + name.len();
        let value_start = offset(seen, value);
        let value_end = value_start + value.len();
        let ended = seen.get(value_end) == Some(&b'\r');
        all_end_well &= ended || ends_in_crlf_after_spaces(seen, value_end);
        let known = Name::of(name);
        let value_span = Span::new(value_start, value_end);
        if TELLING.contains(known) {
            facts.note(known, value, value_span);
        }
        let one_space = value_start == name_end + 2 && seen.get(name_end + 1) == Some(&b' ');
        Field {
            known,
            removed: false,
            canonical: ended && one_space,
            name: Span::new(name_start, name_end),
            value: value_span,
        }
    }));
    // The empty line at the end; httparse has seen its LF, and all fields are before it.
    debug_assert!(line_end < used);
    if !all_end_well || seen.get(used.wrapping_sub(2)) != Some(&b'\r') {
        return Err(broken.into());
    }
    Ok(facts)
}

/// Whether a line with trailing whitespace in its value ends correctly.
#[cold]
fn ends_in_crlf_after_spaces(seen: &[u8], value_end: usize) -> bool {
    let rest = seen.get(value_end..).unwrap_or_default();
    rest.iter().find(|byte| !matches!(byte, b' ' | b'\t')) == Some(&b'\r')
}

impl Facts {
    #[inline]
    pub(super) fn note(&mut self, known: Name, value: &[u8], span: Span) {
        if known == Name::Host {
            self.hosts += 1;
            self.host = span;
        } else if known == Name::Connection {
            // Most say just this.
            let is_first = !self.close && !self.keep_alive && !self.other_options;
            if is_first && Name::of(value) == Name::KeepAlive {
                self.keep_alive = true;
                return;
            }
            self.other_options |= !is_first || !value.eq_ignore_ascii_case(b"close");
            for option in grammar::list(value) {
                self.close |= option.eq_ignore_ascii_case(b"close");
                self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                self.connection_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
            }
        } else if known == Name::Expect {
            for expectation in grammar::list(value) {
                let known = expectation.eq_ignore_ascii_case(b"100-continue");
                self.expects_continue |= known;
                self.expects_other |= !known;
            }
        } else if known == Name::Upgrade {
            for protocol in grammar::list(value) {
                self.upgrade = true;
                self.upgrade_to_http |= is_http_itself(protocol);
            }
        } else {
            // `framing` checks whether the length makes sense.
            self.body |= known == Name::TransferEncoding || value != b"0";
        }
    }

    /// Whether the connection stays open after this message (RFC 9112 §9.3).
    pub(super) fn keeps_alive(&self, version: Version) -> bool {
        !self.close && (version != Version::Http10 || self.keep_alive)
    }
}

/// Whether a protocol of Upgrade is HTTP or TLS: relaying these would carry requests past every
/// rule (above all `h2c`, which RFC 9113 §3.1 has withdrawn).
fn is_http_itself(protocol: &[u8]) -> bool {
    let name = protocol.split(|byte| *byte == b'/').next().unwrap_or_default();
    [&b"h2c"[..], b"h2", b"http", b"tls"].iter().any(|known| name.eq_ignore_ascii_case(known))
}
