//! The connections that the kernel shows, to check our own counts against.

use std::net::{IpAddr, SocketAddr};

/// A socket that is connected, and one whose peer has closed its half.
const ESTABLISHED: &str = "01";
const CLOSE_WAIT: &str = "08";

/// How many connections to this address (IPv4) are accepted and not ended. Those waiting in the
/// backlog have no owner, and no inode.
pub(crate) fn held(address: SocketAddr) -> usize {
    let IpAddr::V4(ip) = address.ip() else { panic!("{address} is not of IPv4") };
    let local = format!("{:08X}:{:04X}", u32::from_le_bytes(ip.octets()), address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let is_held = |line: &&str| {
        let mut words = line.split_whitespace().skip(1);
        let (is_local, state) = (words.next() == Some(&local), words.nth(1));
        let inode = words.nth(5);
        is_local && matches!(state, Some(ESTABLISHED | CLOSE_WAIT)) && inode != Some("0")
    };
    table.lines().skip(1).filter(is_held).count()
}

#[test]
fn a_connection_is_held_once_it_is_accepted() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    assert_eq!(held(address), 0);
    let client = std::net::TcpStream::connect(address).unwrap();
    assert_eq!(held(address), 0);
    let accepted = listener.accept().unwrap().0;
    assert_eq!(held(address), 1);
    accepted.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(held(address), 0);
    drop(client);
}
