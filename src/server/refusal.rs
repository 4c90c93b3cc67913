//! The message for an address that cannot be listened on, with what to do.
//!
//! For an address in use it reads from the kernel's tables which process has it: another Ringway,
//! or any other. If they do not say (another user's process), the message does without. Called only
//! when a start is refused already.

use std::{fs, io, net::IpAddr, net::SocketAddr};

use super::start_error::Holder;
use crate::base::endpoint::{Endpoint, UnixPath};

/// The message; for an address in use with the process that has it, if known.
pub(super) fn cannot_listen(
    endpoint: Endpoint,
    error: &io::Error,
    holder: Option<&Holder>,
) -> String {
    let reason = match (endpoint, error.kind()) {
        (_, io::ErrorKind::AddrInUse) => in_use(holder),
        (Endpoint::Tcp(address), _) => of_address(address, error),
        (Endpoint::Unix(path), _) => of_file(path, error),
    };
    format!("cannot listen on {endpoint}: {reason}")
}

/// What is wrong with the file of a Unix socket.
fn of_file(path: UnixPath, error: &io::Error) -> String {
    let folder = path.file().and_then(|file| file.parent()).unwrap_or(std::path::Path::new("/"));
    let folder = folder.display();
    match error.kind() {
        io::ErrorKind::AlreadyExists => {
            "there is a file that is no socket, which is left alone: remove it, or choose another \
             path"
                .to_owned()
        }
        io::ErrorKind::NotFound => format!("the folder {folder} is not there; make it first"),
        io::ErrorKind::PermissionDenied => format!(
            "this process may not make, replace or give away a file in {folder} (only root gives \
             one to another user)"
        ),
        _ => error.to_string(),
    }
}

fn of_address(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied if address.port() < 1024 => format!(
            "a port below 1024 needs a capability that this process does not have: run it under a \
             systemd unit with AmbientCapabilities=CAP_NET_BIND_SERVICE, or give it to the binary \
             once: setcap cap_net_bind_service=+ep {}",
            std::env::current_exe().map_or("ringway".into(), |path| path.display().to_string())
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("this machine does not have the address {}", address.ip())
        }
        _ => error.to_string(),
    }
}

fn in_use(holder: Option<&Holder>) -> String {
    match holder {
        Some(Holder { pid, name }) if name == "ringway" => {
            format!("another ringway (pid {pid}) already serves it; stop that one first")
        }
        Some(Holder { pid, name }) => format!("it is in use by {name} (pid {pid})"),
        None => "it is in use by another process".to_owned(),
    }
}

/// The process that listens on an address. Processes with our own name are checked first: it is
/// most often one of those, and a machine may have many others with many files.
pub(super) fn holder(endpoint: Endpoint) -> Option<Holder> {
    let read = |path: &&str| fs::read_to_string(path).ok();
    let sockets: Vec<u64> = match endpoint {
        Endpoint::Tcp(address) => ["/proc/net/tcp", "/proc/net/tcp6"]
            .iter()
            .filter_map(read)
            .flat_map(|table| listening(&table, address))
            .collect(),
        Endpoint::Unix(path) => {
            let table = read(&"/proc/net/unix").unwrap_or_default();
            table.lines().filter_map(|line| listens_at(line, path)).collect()
        }
    };
    if sockets.is_empty() {
        return None;
    }
    let links: Vec<String> = sockets.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let pid = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    let pids: Vec<u32> = fs::read_dir("/proc").ok()?.flatten().filter_map(pid).collect();
    let name = |pid: u32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.trim().to_owned()
    };
    let (ours, others): (Vec<u32>, Vec<u32>) =
        pids.into_iter().partition(|pid| name(*pid) == "ringway");
    let found = ours.into_iter().chain(others).find(|pid| has_one_of(*pid, &links))?;
    Some(Holder { pid: found, name: name(found) })
}

/// Whether a process has one of these sockets open.
fn has_one_of(pid: u32, links: &[String]) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files.flatten().any(|file| {
        fs::read_link(file.path())
            .is_ok_and(|to| links.iter().any(|link| to.as_os_str() == link.as_str()))
    })
}

/// The socket of a line of `/proc/net/unix`, if it listens at this path.
fn listens_at(line: &str, path: UnixPath) -> Option<u64> {
    /// `__SO_ACCEPTCON`.
    const LISTENS: &str = "00010000";
    let mut fields = line.split_whitespace();
    let (flags, inode) = (fields.nth(3)?, fields.nth(2)?);
    (flags == LISTENS && fields.next()? == path.as_str()).then(|| inode.parse().ok()).flatten()
}

/// The sockets of a table (proc(5), `/proc/net/tcp`) that listen on an address or collide with it.
fn listening(table: &str, address: SocketAddr) -> Vec<u64> {
    let rows = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let (ip, port) = local.split_once(':')?;
        let local = SocketAddr::new(ip_of(ip)?, u16::from_str_radix(port, 16).ok()?);
        (*state == "0A").then_some(())?;
        Some((local, inode.parse().ok()?))
    });
    let collides = |other: &SocketAddr| {
        let is_any = other.ip().is_unspecified() || address.ip().is_unspecified();
        other.port() == address.port() && (is_any || other.ip() == address.ip())
    };
    rows.filter(|(local, _)| collides(local)).map(|(_, inode)| inode).collect()
}

/// An address as the kernel writes it: words of 32 bits in the byte order of the machine.
fn ip_of(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (place, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(place * 8)?);
            }
            Some(IpAddr::from(bytes))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn finds_who_listens_in_the_kernels_table() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1
   1: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 112 1
   2: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 113 1
   3: nonsense
   4: 00000000000000000000000001000000:1F91 0:0 0A 0:0 0:0 0 0 0 114 1
";
        for (address, expected) in [
            ("127.0.0.1:8080", &[111][..]),
            ("127.0.0.2:8080", &[]),
            ("0.0.0.0:8080", &[111]),
            ("10.0.0.1:80", &[113]),
            ("[::1]:8081", &[114]),
            ("127.0.0.1:9", &[]),
        ] {
            assert_eq!(listening(table, address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn names_the_process_that_has_the_address() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(holder(address.into()).unwrap().pid, std::process::id());
    }

    #[test]
    fn says_what_to_do() {
        let address: Endpoint = "0.0.0.0:80".parse().unwrap();
        let denied = cannot_listen(address, &io::ErrorKind::PermissionDenied.into(), None);
        assert!(denied.contains("AmbientCapabilities") && denied.contains("setcap"), "{denied}");
        let held_by = |pid, name: &str| in_use(Some(&Holder { pid, name: name.to_owned() }));
        let ours = held_by(812, "ringway");
        assert_eq!(ours, "another ringway (pid 812) already serves it; stop that one first");
        let theirs = held_by(31, "nginx");
        assert_eq!(theirs, "it is in use by nginx (pid 31)");
    }
}
