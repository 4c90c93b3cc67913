//! Addresses as people write them on a command line: `:8080`, `localhost:8080`, `http://app`.
//!
//! What stands for an address of a configuration becomes one; everything else is refused with a
//! sentence, or left to the check of the configuration.

/// `:8080` and `8080` listen on every IPv4 address, `localhost:8080` on loopback.
pub(super) fn bind(text: &str) -> Result<String, String> {
    let port = text.strip_prefix(':').or_else(|| text.strip_prefix("*:")).unwrap_or(text);
    if is_port(port) {
        return Ok(format!("0.0.0.0:{port}"));
    }
    if let Some(port) = text.strip_prefix("localhost:") {
        return Ok(format!("127.0.0.1:{port}"));
    }
    if text.parse::<std::net::SocketAddr>().is_ok() || text.parse::<std::net::IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    Err(format!("`{text}` is not an address to listen on"))
}

/// The address of a backend, and whether it is spoken to by TLS: `:3000` and `3000` are on this
/// machine, `http://` or `https://` may stand in front.
pub(super) fn backend(text: &str) -> Result<(String, bool), String> {
    let port = text.strip_prefix(':').unwrap_or(text);
    if is_port(port) {
        return Ok((format!("localhost:{port}"), false));
    }
    let (host, port, is_secure) =
        match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (rest, 80, false),
            (_, Some(rest)) => (rest, 443, true),
            (None, None) => return Ok((text.to_owned(), false)),
        };
    let host = host.strip_suffix('/').unwrap_or(host);
    if host.contains('/') {
        return Err(format!("`{text}`: a backend is a host and a port, without a path"));
    }
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| is_port(port));
    Ok((if has_port { host.to_owned() } else { format!("{host}:{port}") }, is_secure))
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_digit())
}
