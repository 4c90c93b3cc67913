//! Edits to a message between the two connections (RFC 9110 §7.6).
//!
//! Hop-by-hop fields are removed, Via and the fields about the client are added, the framing fields
//! are removed, as `write` writes its own. Everything else passes in its order. Edits mark and
//! append; they are done once per message, however often it is then sent. Framing must be read
//! before, since the fields that it is read from are gone afterwards. `request` edits requests and
//! `response` responses; this file holds what both share.

mod client;
mod forwarded;
mod ids;
mod request;
mod response;

pub(crate) use self::{
    client::{client_address, is_secure},
    ids::{ID_BYTES_MAX, MadeIds, given_id, trace_id},
    request::{Forward, ForwardedFor, request, tell_certificate},
    response::{Reply, ToClient, reply, response},
};
use super::{
    fault::{Cause, Fault},
    grammar,
    headers::Headers,
    names::{self, Name, NameSet},
};

/// Fields that never pass: they were meant for us alone (RFC 9110 §7.6.1), or are ours to write
/// (framing), or could be mistaken for these or for fields that only trusted peers may send.
const HOP_BY_HOP: NameSet = NameSet::of(&[
    Name::Connection,
    Name::ContentLength,
    Name::Disguised,
    Name::KeepAlive,
    Name::ProxyAuthenticate,
    Name::ProxyAuthorization,
    Name::ProxyConnection,
    Name::Te,
    Name::TransferEncoding,
]);

/// Fields that `Connection` cannot make us drop: those that something behind us trusts, and those
/// that the rules below decide about (`Connection: X-Forwarded-For` is a known attack).
const PROTECTED: NameSet = names::ABOUT_CLIENT.union(NameSet::of(&[
    Name::Authorization,
    Name::Connection,
    Name::ContentLength,
    Name::ContentType,
    Name::Cookie,
    Name::Expect,
    Name::Host,
    Name::SetCookie,
    Name::Te,
    Name::Traceparent,
    Name::Tracestate,
    Name::Upgrade,
    Name::Via,
    Name::XRequestId,
]));

/// More options than any honest `Connection` has: each costs a scan of all fields.
const OPTIONS_MAX: usize = 64;

/// Removes the fields that `Connection` names (RFC 9110 §7.6.1), except the protected ones.
fn drop_listed(headers: &mut Headers, broken: Cause) -> Result<(), Fault> {
    if !headers.has_options {
        return Ok(());
    }
    let Headers { bytes, fields, .. } = headers;
    let mut options = 0;
    for at in 0..fields.len() {
        let Some(field) = fields.get(at).filter(|field| field.known == Name::Connection) else {
            continue;
        };
        for option in grammar::list(field.value.of(bytes)) {
            options += 1;
            if options > OPTIONS_MAX {
                return Err(broken.into());
            }
            let known = Name::of(option);
            // Hop-by-hop fields are removed anyway, listed or not, and `close` is no field.
            if PROTECTED.union(HOP_BY_HOP).contains(known)
                || names::claims_client(option)
                || option.eq_ignore_ascii_case(b"close")
            {
                continue;
            }
            for field in fields.iter_mut().filter(|field| field.known == known) {
                field.removed |=
                    known != Name::Other || field.name.of(bytes).eq_ignore_ascii_case(option);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::http::{
        head::RequestHead,
        parse::{self, HeadLimits, Parse},
    };

    pub(super) const LIMITS: HeadLimits =
        HeadLimits { head_bytes_max: 32 << 10, line_bytes_max: 4096, fields_max: 100 };

    pub(super) fn parsed(input: &str) -> RequestHead {
        let mut head = RequestHead::default();
        let parsed = parse::request(input.as_bytes(), &LIMITS, &mut head);
        assert_eq!(parsed, Ok(Parse::Done { used: input.len() }), "{input}");
        head
    }
}
