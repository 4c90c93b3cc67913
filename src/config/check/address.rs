//! Addresses: where listeners bind, and where backends are.
//!
//! Host names of backends stay names here; the running process looks them up.

use std::net::{IpAddr, SocketAddr};

use crate::base::endpoint::{Endpoint, NoPath, UnixPath};
use crate::config::units::BadValue;
use crate::plan::Address;

/// An address to listen on: `0.0.0.0:80`, `[::]:80`, `unix:/run/x.sock`.
pub(crate) fn listens(text: &str) -> Result<Endpoint, BadValue> {
    let Some(path) = Endpoint::unix_path(text) else { return bind(text).map(Endpoint::Tcp) };
    unix_path(path).map(Endpoint::Unix).map_err(|(label, help)| {
        let title = format!("`{text}` is not an address to listen on");
        let refused = BadValue::new(title, label);
        if help.is_empty() { refused } else { refused.help(help) }
    })
}

/// An address of the network to listen on.
pub(crate) fn bind(text: &str) -> Result<SocketAddr, BadValue> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let refusal =
        |label: &str| BadValue::new(format!("`{text}` is not an address to listen on"), label);
    if text.starts_with("unix:") {
        return Err(refusal("a Unix socket").help("write an IP address and a port"));
    }
    if text.is_empty() {
        return Err(refusal("nothing")
            .help("write for example \"0.0.0.0:8080\"; if this is a variable, it is empty"));
    }
    if let Some(parts) = several(text) {
        return Err(refusal("several addresses in one string").help(list_of("bind", &parts)));
    }
    if let Some(zone) = zone(text) {
        return Err(refusal("cannot listen on an address with a zone id").help(format!(
            "leave `{zone}` out and name an address of another scope, or \"[::]:…\""
        )));
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err(refusal("no port").help(with_port(text)));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let port = port_number(port).map_err(&refusal)?;
    match host {
        "" | "*" => Err(refusal("no IP address").help(format!(
            "write \"0.0.0.0:{port}\" for all of IPv4, \"[::]:{port}\" for all of IPv6"
        ))),
        "localhost" => Err(refusal("expected an IP address, not a name")
            .help(format!("write \"127.0.0.1:{port}\""))),
        host if host.parse::<IpAddr>().is_ok() => {
            Err(refusal("an IPv6 address needs brackets")
                .help(format!("write \"[{host}]:{port}\"")))
        }
        _ => Err(refusal("expected an IP address and a port")
            .help(format!("write for example \"0.0.0.0:{port}\""))),
    }
}

/// An address of a backend: `10.0.0.1:3000`, `[::1]:3000`, `app.internal:8080`.
pub(crate) fn backend(text: &str) -> Result<Address, BadValue> {
    let refusal =
        |label: &str| BadValue::new(format!("`{text}` is not the address of a backend"), label);
    if let Ok(address) = text.parse::<SocketAddr>() {
        return match address.port() {
            0 => Err(refusal("no backend has port 0")),
            _ => Ok(Address::Socket(address)),
        };
    }
    if let Some(path) = Endpoint::unix_path(text) {
        return unix_path(path).map(Address::Unix).map_err(|(label, help)| {
            let refused = refusal(label);
            if help.is_empty() { refused } else { refused.help(help) }
        });
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err(refusal("no port").help(with_port(text)));
    }
    if text.is_empty() {
        return Err(refusal("nothing")
            .help("write for example \"10.0.0.1:3000\"; if this is a variable, it is empty"));
    }
    if let Some(parts) = several(text) {
        return Err(refusal("several addresses in one string").help(list_of("backends", &parts)));
    }
    if let Some(zone) = zone(text) {
        return Err(refusal("a zone id is valid on one machine only").help(format!(
            "leave `{zone}` out and name an address of another scope (fd00::/8, 2000::/3)"
        )));
    }
    if text.trim() != text || text.contains('\n') {
        return Err(refusal("expected an address and nothing else")
            .help("write a list: backends = [\"10.0.0.1:3000\", \"10.0.0.2:3000\"]"));
    }
    if let Some(name) = text.strip_prefix("srv:") {
        return match name.rsplit_once(':') {
            Some((name, _)) => Err(refusal("SRV records say the port themselves")
                .help(format!("write \"srv:{name}\""))),
            None if is_host_name(name) => Ok(Address::Srv { name: name.to_owned() }),
            None => Err(refusal("expected a name behind `srv:`")
                .help("write for example \"srv:_http._tcp.app.internal\"")),
        };
    }
    if let Some((address, options)) = text.split_once(' ') {
        let weight = options.split_once("weight=").map(|(_, rest)| rest);
        let weight: Option<u16> = weight.and_then(|rest| rest.split(' ').next()?.parse().ok());
        let weight = weight.map_or("…".to_owned(), |weight| weight.to_string());
        return Err(refusal("expected an address and nothing else")
            .help(format!("write {{ address = \"{address}\", weight = {weight} }}")));
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let host = rest.split('/').next().unwrap_or_default();
        let port = if scheme == "https" { 443 } else { 80 };
        let meant = if host.contains(':') { host.to_owned() } else { format!("{host}:{port}") };
        return Err(
            refusal("a backend is a host and a port, not a URL").help(format!("write \"{meant}\""))
        );
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        let digits = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
        return Err(if digits {
            refusal("no host").help(format!("write for example \"localhost:{text}\""))
        } else {
            refusal("no port").help(format!("write for example \"{text}:80\""))
        });
    };
    if let Some((port, _)) = port.split_once('/') {
        return Err(refusal("a backend is a host and a port, without a path")
            .help(format!("write \"{host}:{port}\"")));
    }
    let number = port_number(port).map_err(&refusal)?;
    if number == 0 {
        return Err(refusal("no backend has port 0"));
    }
    if host.is_empty() {
        return Err(refusal("no host").help(format!("write for example \"localhost:{port}\"")));
    }
    if host.contains(':') {
        return Err(
            refusal("an IPv6 address needs brackets").help(format!("write \"[{host}]:{port}\""))
        );
    }
    if !is_host_name(host) {
        return Err(refusal("expected an IP address or a host name, and a port"));
    }
    Ok(Address::Name { host: host.to_owned(), port: number })
}

/// The path of a Unix socket; otherwise what is wrong with it, and what to write.
fn unix_path(path: &str) -> Result<UnixPath, (&'static str, String)> {
    UnixPath::new(path).map_err(|why| match why {
        NoPath::Empty => (
            "no path",
            "write for example \"unix:/run/app.sock\", or \"unix:@app\" for an abstract name"
                .into(),
        ),
        NoPath::Relative => (
            "not an absolute path",
            format!("write \"unix:/run/{path}\", or \"unix:@{path}\" for an abstract name"),
        ),
        NoPath::TooLong => ("longer than 107 bytes", "the kernel takes no longer path".into()),
        NoPath::Zero => ("a zero byte in the path", String::new()),
    })
}

/// The addresses in a string that has several, as a variable may: separated by commas, semicolons
/// or white space.
fn several(text: &str) -> Option<Vec<&str>> {
    let parts = text.split(|c: char| c.is_whitespace() || ",;".contains(c));
    let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
    let is_one = |part: &&str| {
        part.rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port_number(port).is_ok())
    };
    (parts.len() > 1 && parts.iter().all(is_one)).then_some(parts)
}

/// How to write them as a list. A string is never split silently: each variable is one string.
fn list_of(key: &str, parts: &[&str]) -> String {
    let shown: Vec<String> = parts.iter().take(3).map(|part| format!("\"{part}\"")).collect();
    let more = if parts.len() > 3 { ", …" } else { "" };
    format!(
        "write a list: {key} = [{}{more}]; a variable in a string is one address, so use one for \
         each: [\"${{ONE}}\", \"${{TWO}}\"]",
        shown.join(", ")
    )
}

/// The zone id in an IPv6 address (RFC 4007 §11): `%eth0`.
fn zone(text: &str) -> Option<&str> {
    let inner = text.trim_start_matches('[');
    let (address, rest) = inner.split_once('%')?;
    address.parse::<std::net::Ipv6Addr>().ok()?;
    let end = rest.find(']').unwrap_or(rest.len());
    let start = text.len() - rest.len() - 1;
    text.get(start..start + 1 + end)
}

/// Why a valid address cannot be that of a backend, if it cannot: a warning.
pub(crate) fn doubtful(address: &SocketAddr) -> Option<(&'static str, String)> {
    let port = address.port();
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Some((
            "any address of this machine",
            format!("write \"127.0.0.1:{port}\" for this machine"),
        )),
        IpAddr::V6(ip) if ip.is_unspecified() => Some((
            "any address of this machine",
            format!("write \"[::1]:{port}\" for this machine"),
        )),
        IpAddr::V4(ip) if ip.is_broadcast() => {
            Some(("the broadcast address", "no TCP connection can be made to it".to_owned()))
        }
        ip if ip.is_multicast() => {
            Some(("a multicast address", "no TCP connection can be made to it".to_owned()))
        }
        _ => None,
    }
}

/// A host name in the form used to compare: in lower case, without the dot of the root.
pub(crate) fn comparable(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// How to add the port to an IP address. `::1:8080` is a valid address, but its author meant a
/// port.
fn with_port(address: &str) -> String {
    let parts = address.rsplit_once(':').filter(|(host, port)| {
        host.parse::<std::net::Ipv6Addr>().is_ok() && port_number(port).is_ok_and(|port| port != 0)
    });
    match parts {
        Some((host, port)) => {
            format!("write \"[{host}]:{port}\", or \"[{address}]:80\" for port 80 of the whole")
        }
        None if address.contains(':') => format!("write for example \"[{address}]:80\""),
        None => format!("write for example \"{address}:80\""),
    }
}

fn port_number(text: &str) -> Result<u16, &'static str> {
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_digit()) {
        return Err("expected a port number after the last `:`");
    }
    text.parse().map_err(|_| "port out of range: 1 to 65535")
}

/// Letters, digits, `-`, `_` in labels of 1 to 63, at most 253 in all (RFC 1123 §2.1; `_` is
/// forbidden there and found everywhere). All digits is a mistyped IP address.
pub(crate) fn is_host_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.len() <= 253
        && host.split('.').all(label)
        && !host.chars().all(|c| c.is_ascii_digit() || c == '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses_to_listen_on() {
        for text in ["0.0.0.0:80", "[::]:80", "127.0.0.1:0"] {
            assert!(bind(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_listener_may_have_a_unix_socket() {
        for text in ["0.0.0.0:80", "unix:/run/x.sock", "unix:@x"] {
            assert_eq!(listens(text).unwrap().to_string(), text);
        }
        for (text, label) in [("unix:x.sock", "not an absolute path"), ("unix:", "no path")] {
            assert_eq!(listens(text).unwrap_err().label, label);
        }
    }

    #[test]
    fn refuses_other_addresses_to_listen_on() {
        for (text, label) in [
            (":80", "no IP address"),
            ("8080", "no IP address"),
            ("*:80", "no IP address"),
            ("0.0.0.0", "no port"),
            ("::1", "no port"),
            ("::1:8080", "no port"),
            ("", "nothing"),
            ("0.0.0.0:70000", "port out of range: 1 to 65535"),
            ("0.0.0.0:http", "expected a port number after the last `:`"),
            ("localhost:80", "expected an IP address, not a name"),
            ("300.0.0.1:80", "expected an IP address and a port"),
            ("unix:/run/x.sock", "a Unix socket"),
            ("0.0.0.0:80,[::]:80", "several addresses in one string"),
            ("[fe80::1%eth0]:80", "cannot listen on an address with a zone id"),
        ] {
            assert_eq!(bind(text).unwrap_err().label, label, "{text}");
        }
    }

    #[test]
    fn says_how_several_are_written_and_which_zone_to_leave_out() {
        let help = backend("10.0.0.1:80,10.0.0.2:80").unwrap_err().help.unwrap();
        assert!(help.starts_with("write a list: backends = [\"10.0.0.1:80\", \"10.0.0.2:80\"];"));
        for (text, expected) in
            [("[fe80::1%eth0]:80", Some("%eth0")), ("fe80::1%2", Some("%2")), ("a%2:80", None)]
        {
            assert_eq!(zone(text), expected, "{text}");
        }
    }

    #[test]
    fn doubts_addresses_that_are_no_backends() {
        for (text, expected) in [
            ("0.0.0.0:80", "any address of this machine"),
            ("[::]:80", "any address of this machine"),
            ("255.255.255.255:80", "the broadcast address"),
            ("224.0.0.1:80", "a multicast address"),
            ("[ff02::1]:80", "a multicast address"),
            ("10.0.0.255:80", ""),
            ("127.0.0.1:80", ""),
            ("[::1]:80", ""),
        ] {
            let doubt = doubtful(&text.parse().unwrap()).map_or("", |(label, _)| label);
            assert_eq!(doubt, expected, "{text}");
        }
    }

    #[test]
    fn says_where_the_port_goes() {
        for (address, help) in [
            ("10.0.0.1", "write for example \"10.0.0.1:80\""),
            ("fe80::1", "write for example \"[fe80::1]:80\""),
            ("2001:db8::a", "write for example \"[2001:db8::a]:80\""),
            ("::1:8080", "write \"[::1]:8080\", or \"[::1:8080]:80\" for port 80 of the whole"),
        ] {
            assert_eq!(with_port(address), help);
        }
    }

    #[test]
    fn reads_addresses_of_backends() {
        let name = |host: &str, port| Address::Name { host: host.to_owned(), port };
        let unix = |path: &str| Address::Unix(UnixPath::new(path).unwrap());
        for (text, address) in [
            ("10.0.0.1:3000", Address::Socket("10.0.0.1:3000".parse().unwrap())),
            ("[::1]:3000", Address::Socket("[::1]:3000".parse().unwrap())),
            ("localhost:3001", name("localhost", 3001)),
            ("App.Internal:80", name("App.Internal", 80)),
            ("my_service:80", name("my_service", 80)),
            ("srv:_http._tcp.app", Address::Srv { name: "_http._tcp.app".to_owned() }),
            ("unix:/run/app.sock", unix("/run/app.sock")),
            ("unix:@app", unix("@app")),
        ] {
            assert_eq!(backend(text), Ok(address));
        }
    }

    #[test]
    fn refuses_other_addresses_of_backends() {
        for (text, label) in [
            ("10.0.0.1", "no port"),
            ("app", "no port"),
            ("3000", "no host"),
            (":3000", "no host"),
            ("10.0.0.1:0", "no backend has port 0"),
            ("app:0", "no backend has port 0"),
            ("10.0.0.1:70000", "port out of range: 1 to 65535"),
            ("http://app:3000/x", "a backend is a host and a port, not a URL"),
            ("app:3000/x", "a backend is a host and a port, without a path"),
            ("300.0.0.1:80", "expected an IP address or a host name, and a port"),
            ("a b:80", "expected an address and nothing else"),
            (" a:80", "expected an address and nothing else"),
            ("a:80\nb:80", "several addresses in one string"),
            ("10.0.0.1:80,10.0.0.2:80", "several addresses in one string"),
            ("10.0.0.1:80 a:80 b:81", "several addresses in one string"),
            ("[::1]:80; [::2]:80", "several addresses in one string"),
            ("[fe80::1%eth0]:80", "a zone id is valid on one machine only"),
            ("fe80::1%2", "a zone id is valid on one machine only"),
            ("unix:", "no path"),
            ("unix:@", "no path"),
            ("unix:app.sock", "not an absolute path"),
            ("srv:app:80", "SRV records say the port themselves"),
            ("srv:", "expected a name behind `srv:`"),
            ("a&b:80", "expected an IP address or a host name, and a port"),
            ("", "nothing"),
        ] {
            assert_eq!(backend(text).unwrap_err().label, label, "{text}");
        }
    }
}
