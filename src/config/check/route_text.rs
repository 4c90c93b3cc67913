//! The texts of a route: hosts, paths, expressions, methods, fields; also the names of cookies.
//!
//! A text that could never match a request is refused, so that a route that never applies is a
//! problem on the first day and not a puzzle later.

use std::ops::Range;

use super::address::is_host_name;
use crate::config::units::BadValue;
use crate::plan::{HostPattern, PathPattern, path_regex};

/// Why a text was refused, and which part of it.
#[derive(Debug)]
pub(super) struct Complaint {
    pub(super) part: Option<Range<usize>>,
    pub(super) refusal: BadValue,
}

impl Complaint {
    fn of(part: Range<usize>, refusal: BadValue) -> Complaint {
        Complaint { part: Some(part), refusal }
    }
}

impl From<BadValue> for Complaint {
    fn from(refusal: BadValue) -> Complaint {
        Complaint { part: None, refusal }
    }
}

/// `api.example.com`, `*.example.com`, `10.0.0.1`, `[::1]`.
pub(super) fn host(text: &str) -> Result<HostPattern, BadValue> {
    let refusal = |label: &str| BadValue::new(format!("`{text}` is not a host"), label);
    if text == "*" {
        return Err(refusal("any host").help("leave `host` out: the route then takes any host"));
    }
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split(['/', ':']).next().unwrap_or_default();
        return Err(refusal("a URL, not a host").help(format!("write \"{host}\"")));
    }
    if let Some((host, _)) = text.split_once('/') {
        return Err(refusal("a host has no path")
            .help(format!("write host = \"{host}\", and the rest as `path`")));
    }
    if text.starts_with('[') {
        let address = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        return match address.map(str::parse::<std::net::Ipv6Addr>) {
            Some(Ok(address)) => Ok(HostPattern::Exact(format!("[{address}]"))),
            _ => Err(refusal("expected an IPv6 address in brackets, without a port")),
        };
    }
    if let Some((host, _)) = text.split_once(':') {
        return Err(refusal("hosts are compared without their port")
            .help(format!("write \"{host}\"; `listener` says which port")));
    }
    if !text.is_ascii() {
        return Err(refusal("not ASCII").help("write the name as clients send it: \"xn--…\""));
    }
    if text.parse::<std::net::Ipv4Addr>().is_ok() {
        return Ok(HostPattern::Exact(text.to_owned()));
    }
    let plain = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let (name, wildcard) = match plain.strip_prefix("*.") {
        Some(rest) => (rest, true),
        None => (plain.as_str(), false),
    };
    if name.contains('*') {
        return Err(refusal("a wildcard comes first, followed by a dot")
            .help("write for example \"*.example.com\""));
    }
    if !is_host_name(name) {
        return Err(refusal("expected a host name or \"*.\" and one"));
    }
    Ok(match wildcard {
        true => HostPattern::Suffix(format!(".{name}")),
        false => HostPattern::Exact(plain),
    })
}

/// A path and all below it.
pub(super) fn prefix(text: &str) -> Result<PathPattern, Complaint> {
    path(text)?;
    if let Some(star) = text.find('*') {
        return Err(Complaint::of(
            star..text.len(),
            BadValue::new("`path` has no wildcards", "is compared as written")
                .help("`path` includes all below it; or write a `path-regex`"),
        ));
    }
    reachable(PathPattern::Prefix(text.to_owned()))
}

/// Exactly this path.
pub(super) fn exact(text: &str) -> Result<PathPattern, Complaint> {
    path(text)?;
    reachable(PathPattern::Exact(text.to_owned()))
}

/// The pattern, if a request can have such a path.
fn reachable(pattern: PathPattern) -> Result<PathPattern, Complaint> {
    match pattern.text() {
        Some(_) => Ok(pattern),
        None => {
            Err(BadValue::new("a path that no request has", "such requests are refused").into())
        }
    }
}

/// An expression that compiles.
pub(super) fn regex(text: &str) -> Result<PathPattern, Complaint> {
    match path_regex(text) {
        Ok(_) => Ok(PathPattern::Regex(text.to_owned())),
        Err(regex::Error::CompiledTooBig(bytes)) => Err(BadValue::new(
            "`path-regex` is too large",
            format!("compiles to more than {bytes} bytes"),
        )
        .into()),
        Err(error) => {
            // The library's message is itself a picture; its last line says what is wrong.
            let picture = error.to_string();
            let said = picture.lines().last().unwrap_or_default();
            let label = said.strip_prefix("error: ").unwrap_or(said).to_owned();
            let column = picture.lines().find_map(|line| {
                let carets = line.trim_start();
                (!carets.is_empty() && carets.chars().all(|c| c == '^'))
                    .then(|| (line.len() - carets.len(), carets.len()))
            });
            let refusal = BadValue::new("`path-regex` does not compile", label);
            // The library indents by four, and counts characters.
            let part = column.filter(|_| text.is_ascii()).and_then(|(indent, length)| {
                let start = indent.checked_sub(4)?;
                (start + length <= text.len()).then_some(start..start + length)
            });
            Err(Complaint { part, refusal })
        }
    }
}

/// The checks for every path that is compared as text.
fn path(text: &str) -> Result<(), Complaint> {
    if !text.starts_with('/') {
        return Err(BadValue::new(format!("`{text}` is not a path"), "a path begins with `/`")
            .help(format!("write \"/{text}\""))
            .into());
    }
    if let Some(at) = text.find(['?', '#']) {
        return Err(Complaint::of(
            at..text.len(),
            BadValue::new("a path has no query", "not part of what is compared"),
        ));
    }
    // Parts that `http::target` cuts from a request's path are never compared.
    let encoded = || text.to_ascii_lowercase().find("%3b");
    if let Some(at) = text.find(';').or_else(encoded) {
        return Err(Complaint::of(
            at..text.len(),
            BadValue::new("a path has no parameters", "not part of what is compared"),
        ));
    }
    let mut start = 0;
    for segment in text.split('/') {
        if segment == "." || segment == ".." {
            return Err(Complaint::of(
                start..start + segment.len(),
                BadValue::new("a path without `.` and `..`", "no such request gets here"),
            ));
        }
        start += segment.len() + 1;
    }
    Ok(())
}

/// A method that can reach a route.
pub(super) fn method(text: &str) -> Result<(), BadValue> {
    let refusal = |label: &str| BadValue::new(format!("`{text}` is not a method"), label);
    if text.is_empty() || !text.chars().all(is_token) {
        return Err(refusal("expected letters, such as \"GET\""));
    }
    let upper = text.to_ascii_uppercase();
    if upper != text {
        return Err(refusal("methods are case-sensitive").help(format!("write \"{upper}\"")));
    }
    if text == "CONNECT" || text == "TRACE" {
        return Err(refusal("refused before routing"));
    }
    Ok(())
}

/// A field name (RFC 9110 §5.1).
pub(super) fn field_name(text: &str) -> Result<(), BadValue> {
    if text.is_empty() || !text.chars().all(is_token) {
        return Err(BadValue::new(format!("`{text}` is not a field name"), "expected a token"));
    }
    Ok(())
}

/// The name of a cookie (RFC 6265 §4.1.1).
pub(super) fn cookie_name(text: &str) -> Result<(), BadValue> {
    if text.is_empty() || !text.chars().all(is_token) {
        return Err(BadValue::new(
            format!("`{text}` is not the name of a cookie"),
            "expected letters, digits, `-` and `_`",
        ));
    }
    Ok(())
}

/// A field value (RFC 9110 §5.5).
pub(super) fn field_value(text: &str) -> Result<(), BadValue> {
    let fits = |c: char| c == '\t' || !c.is_control();
    if text.trim() != text || !text.chars().all(fits) {
        return Err(BadValue::new("an impossible field value", "no field can have this value"));
    }
    Ok(())
}

/// RFC 9110 §5.6.2.
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_hosts() {
        let exact = |text: &str| HostPattern::Exact(text.to_owned());
        for (text, pattern) in [
            ("api.example.com", exact("api.example.com")),
            ("API.example.com.", exact("api.example.com")),
            ("*.example.com", HostPattern::Suffix(".example.com".to_owned())),
            ("localhost", exact("localhost")),
            ("10.0.0.1", exact("10.0.0.1")),
            ("[::1]", exact("[::1]")),
        ] {
            assert_eq!(host(text), Ok(pattern), "{text}");
        }
    }

    #[test]
    fn refuses_hosts_that_no_request_has() {
        for (text, label) in [
            ("*", "any host"),
            ("http://example.com/", "a URL, not a host"),
            ("example.com/v1", "a host has no path"),
            ("example.com:80", "hosts are compared without their port"),
            ("www.*.com", "a wildcard comes first, followed by a dot"),
            ("*example.com", "a wildcard comes first, followed by a dot"),
            ("bücher.example", "not ASCII"),
            ("a b", "expected a host name or \"*.\" and one"),
            ("", "expected a host name or \"*.\" and one"),
            ("[::1]:80", "expected an IPv6 address in brackets, without a port"),
        ] {
            assert_eq!(host(text).unwrap_err().label, label, "{text}");
        }
    }

    #[test]
    fn refuses_paths_that_no_request_has() {
        for (text, part) in [
            ("v1", None),
            ("/v1?x=1", Some(3..7)),
            ("/a%00b", None),
            ("/a/../b", Some(3..5)),
            ("/v1/*", Some(4..5)),
            ("/v1;a=b/c", Some(3..9)),
            ("/v1%3Ba", Some(3..7)),
        ] {
            assert_eq!(prefix(text).unwrap_err().part, part, "{text}");
        }
    }

    #[test]
    fn says_where_an_expression_is_wrong() {
        let complaint = regex("^/a/(b").unwrap_err();
        assert_eq!(complaint.part, Some(4..5));
        assert_eq!(complaint.refusal.label, "unclosed group");
        assert!(regex("^/assets/[0-9a-f]{8}/").is_ok());
    }

    #[test]
    fn refuses_methods_that_never_come() {
        assert!(method("GET").is_ok() && method("PURGE").is_ok());
        for text in ["get", "", "G T", "TRACE", "CONNECT"] {
            assert!(method(text).is_err(), "{text}");
        }
    }
}
