//! The place of a stream socket: an address of the network, or a path (or a name) on this machine.
//!
//! It is a value that is copied, as an address of the network is: a path of a Unix socket has at
//! most 107 bytes (unix(7)), so it is kept whole. *Invariant:* a path is absolute and has no zero
//! byte; one that begins with `@` is an abstract name, which lies in no folder.

use std::{fmt, net::SocketAddr, path::Path, str::FromStr};

/// Where a socket listens, or is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(UnixPath),
}

/// What stands before the path of a Unix socket in a text.
const UNIX: &str = "unix:";

/// `sun_path` without the zero byte at its end.
const PATH_BYTES_MAX: usize = 107;

/// The path of a Unix socket; `@name` is an abstract one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixPath {
    bytes: [u8; PATH_BYTES_MAX],
    len: u8,
}

/// Why a text is not the path of a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPath {
    Empty,
    Relative,
    TooLong,
    Zero,
}

impl UnixPath {
    /// # Errors
    /// Why it is none.
    pub(crate) fn new(text: &str) -> Result<UnixPath, NoPath> {
        if text.is_empty() || text == "@" {
            return Err(NoPath::Empty);
        }
        if !text.starts_with(['/', '@']) {
            return Err(NoPath::Relative);
        }
        if text.contains('\0') {
            return Err(NoPath::Zero);
        }
        let mut bytes = [0; PATH_BYTES_MAX];
        let room = bytes.get_mut(..text.len()).ok_or(NoPath::TooLong)?;
        room.copy_from_slice(text.as_bytes());
        let len = u8::try_from(text.len()).map_err(|_| NoPath::TooLong)?;
        Ok(UnixPath { bytes, len })
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.len)).unwrap_or_default();
        str::from_utf8(bytes).unwrap_or_default()
    }

    /// The file, if it is not an abstract name.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.name().is_none().then(|| Path::new(self.as_str()))
    }

    /// The abstract name, if it is one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.as_str().strip_prefix('@')
    }
}

impl fmt::Debug for UnixPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for UnixPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{UNIX}{}", self.as_str())
    }
}

impl Endpoint {
    /// The address and port, if it has them.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Endpoint::Tcp(address) => Some(*address),
            Endpoint::Unix(_) => None,
        }
    }

    /// The Unix socket, if it is one.
    #[must_use]
    pub fn unix(&self) -> Option<UnixPath> {
        match self {
            Endpoint::Tcp(_) => None,
            Endpoint::Unix(path) => Some(*path),
        }
    }

    /// The path in a text such as `unix:/run/app.sock`, if it is about a Unix socket.
    pub(crate) fn unix_path(text: &str) -> Option<&str> {
        text.strip_prefix(UNIX)
    }

    pub(crate) fn is_ipv4(&self) -> bool {
        self.tcp().is_some_and(|address| address.is_ipv4())
    }

    /// Whether it names one place; port 0 stands for any that is free.
    pub(crate) fn is_one(&self) -> bool {
        self.tcp().is_none_or(|address| address.port() != 0)
    }

    /// The port; 0 if it has none.
    pub(crate) fn port(&self) -> u16 {
        self.tcp().map_or(0, |address| address.port())
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Endpoint {
        Endpoint::Tcp(address)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(address) => address.fmt(f),
            Endpoint::Unix(path) => path.fmt(f),
        }
    }
}

impl FromStr for Endpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Endpoint, &'static str> {
        match Endpoint::unix_path(text) {
            Some(path) => UnixPath::new(path).map(Endpoint::Unix).map_err(|_| "no path"),
            None => text.parse().map(Endpoint::Tcp).map_err(|_| "no address"),
        }
    }
}

/// In messages it is its text.
impl serde::Serialize for Endpoint {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Endpoint {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Endpoint, D::Error> {
        let text = <std::borrow::Cow<'_, str> as serde::Deserialize>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_read_is_written_alike() {
        let longest = format!("unix:/{}", "x".repeat(PATH_BYTES_MAX - 1));
        for text in
            ["127.0.0.1:80", "[::1]:80", "unix:/run/app.sock", "unix:@name", "unix:/é", &longest]
        {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), text);
            let json = serde_json::to_string(&endpoint).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<Endpoint>(&json).unwrap(), endpoint);
        }
    }

    #[test]
    fn what_is_no_path_is_none() {
        let long = format!("/{}", "x".repeat(PATH_BYTES_MAX));
        for (text, why) in [
            ("", NoPath::Empty),
            ("@", NoPath::Empty),
            ("run/x", NoPath::Relative),
            ("/a\0b", NoPath::Zero),
            (&long, NoPath::TooLong),
        ] {
            assert_eq!(UnixPath::new(text), Err(why), "{text:?}");
        }
    }

    #[test]
    fn a_name_lies_in_no_folder() {
        let file = UnixPath::new("/run/x").unwrap();
        assert_eq!((file.file(), file.name()), (Some(Path::new("/run/x")), None));
        let name = UnixPath::new("@x").unwrap();
        assert_eq!((name.file(), name.name()), (None, Some("x")));
    }
}
