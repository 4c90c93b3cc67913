//! Protocol upgrades: which 101 response may open a tunnel.
//!
//! A backend that switches protocols unasked, or to a protocol that the client did not name, would
//! leave the client speaking HTTP to something else. Whether a request may ask at all is decided
//! when it is parsed (`RequestHead::upgrade`). CONNECT opens no tunnel: it is refused.

use super::{
    fault::{Cause, Fault},
    grammar,
    head::{RequestHead, ResponseHead},
    names::Name,
};

/// Whether this 101 (Switching Protocols) answers this request (RFC 9110 §7.8, §15.2.2): it names
/// at least one protocol, and only such as the client asked for. Must be called before the response
/// is edited for forwarding.
pub(crate) fn allowed(request: &RequestHead, response: &ResponseHead) -> Result<(), Fault> {
    let mut named = response.headers.all(Name::Upgrade).flat_map(grammar::list).peekable();
    let asked = |protocol: &[u8]| {
        let mut wanted = request.headers.all(Name::Upgrade).flat_map(grammar::list);
        wanted.any(|wanted| wanted.eq_ignore_ascii_case(protocol))
    };
    if request.upgrade && named.peek().is_some() && named.all(asked) {
        Ok(())
    } else {
        Err(Cause::ResponseRefused.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(asks: bool, wanted: &str, named: &[&str], expected: bool) {
        let mut request = RequestHead { upgrade: asks, ..RequestHead::default() };
        request.headers.push(Name::Upgrade, b"upgrade", wanted.as_bytes());
        let mut response = ResponseHead { status: 101, ..ResponseHead::default() };
        for named in named {
            response.headers.push(Name::Upgrade, b"Upgrade", named.as_bytes());
        }
        assert_eq!(allowed(&request, &response).is_ok(), expected, "{wanted} {named:?}");
    }

    #[test]
    fn only_what_the_client_asked_for_may_be_switched_to() {
        check(true, "websocket", &["websocket"], true);
        check(true, "websocket", &["WebSocket"], true);
        check(true, "websocket, foo/2", &["foo/2"], true);
        check(true, "foo/2, bar", &["bar, foo/2"], true);
        check(true, "foo/2, bar", &["bar", "foo/2"], true);
        check(true, "websocket", &[], false);
        check(true, "websocket", &[""], false);
        check(true, "websocket", &["h2c"], false);
        check(true, "websocket", &["websocket, h2c"], false);
        check(true, "foo/2", &["foo/1"], false);
        check(false, "websocket", &["websocket"], false);
    }
}
