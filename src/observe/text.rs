//! Escaping of client bytes, and formatting of numbers, for log lines.
//!
//! Bytes from a peer must never end a line, a string or a field early: every control character,
//! quote, backslash and byte that is not UTF-8 is written in a printable spelling. Nothing here
//! allocates beyond the buffer that it writes to.

use crate::base::moment::Micros;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};

/// Writes at most `bytes_max` bytes of a string as JSON, in quotes; a cut one ends in `…`.
pub(super) fn push_json(bytes: &[u8], bytes_max: usize, line: &mut Vec<u8>) {
    line.push(b'"');
    let (kept, cut) = cut(bytes, bytes_max);
    if is_plain(kept) {
        line.extend_from_slice(kept);
    } else {
        push_json_escaped(kept, line);
    }
    if cut {
        line.extend_from_slice("…".as_bytes());
    }
    line.push(b'"');
}

#[cold]
fn push_json_escaped(bytes: &[u8], line: &mut Vec<u8>) {
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\\' => line.extend([b'\\', character as u8]),
                // In addition to what JSON requires: DEL, the controls of Latin 1 and the two
                // separators that some readers take for the end of a line.
                '\0'..' ' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                    push_unicode(character as u32, line);
                }
                _ => line.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            push_unicode(0xfffd, line);
        }
    }
}

/// Writes at most `bytes_max` bytes as nginx does in its text logs: `\xHH` for all that is not
/// printable ASCII, and for quotes and backslashes.
pub(super) fn push_hex_escaped(bytes: &[u8], bytes_max: usize, line: &mut Vec<u8>) {
    let (kept, cut) = cut(bytes, bytes_max);
    if is_plain(kept) {
        line.extend_from_slice(kept);
    } else {
        for byte in kept {
            if is_plain(&[*byte]) {
                line.push(*byte);
            } else {
                line.extend([b'\\', b'x', hex(byte >> 4), hex(*byte)]);
            }
        }
    }
    if cut {
        line.extend_from_slice(b"...");
    }
}

/// Whether these bytes stand for themselves in any format.
fn is_plain(bytes: &[u8]) -> bool {
    let plain = |byte: u8| (b' '..=b'~').contains(&byte) & (byte != b'"') & (byte != b'\\');
    bytes.iter().fold(true, |all, byte| all & plain(*byte))
}

fn cut(bytes: &[u8], bytes_max: usize) -> (&[u8], bool) {
    match bytes.get(..bytes_max) {
        Some(kept) => (kept, bytes.len() > bytes_max),
        None => (bytes, false),
    }
}

fn push_unicode(code: u32, line: &mut Vec<u8>) {
    let digit = |shift: u32| hex((code >> shift) as u8);
    line.extend([b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
}

/// The digit of the lower four bits.
fn hex(value: u8) -> u8 {
    b"0123456789abcdef"[usize::from(value & 15)]
}

/// Writes a number.
pub(super) fn push_number(mut number: u64, line: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    line.extend_from_slice(&digits[first..]);
}

/// Writes microseconds as milliseconds with three decimals.
pub(super) fn push_millis(Micros(micros): Micros, line: &mut Vec<u8>) {
    push_number(micros / 1000, line);
    let rest = micros % 1000;
    let digit = |value: u64| b'0' + (value % 10) as u8;
    line.extend([b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
}

/// Written in place of an address for a peer on this machine that has none.
const NO_ADDRESS: &[u8] = b"unix";

pub(super) fn push_client(client: Option<IpAddr>, line: &mut Vec<u8>) {
    match client {
        Some(address) => push_address(address, line),
        None => line.extend_from_slice(NO_ADDRESS),
    }
}

pub(super) fn push_peer(peer: Option<SocketAddr>, line: &mut Vec<u8>) {
    match peer {
        Some(socket) => push_socket(socket, line),
        None => line.extend_from_slice(NO_ADDRESS),
    }
}

fn push_address(address: IpAddr, line: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => {
            for (index, part) in address.octets().into_iter().enumerate() {
                if index > 0 {
                    line.push(b'.');
                }
                push_number(u64::from(part), line);
            }
        }
        IpAddr::V6(address) => drop(write!(line, "{address}")), // a Vec takes everything
    }
}

fn push_socket(socket: SocketAddr, line: &mut Vec<u8>) {
    let brackets = socket.is_ipv6();
    if brackets {
        line.push(b'[');
    }
    push_address(socket.ip(), line);
    line.extend_from_slice(if brackets { b"]:" } else { b":" });
    push_number(u64::from(socket.port()), line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_json(bytes: &[u8], expected: &str) {
        let mut line = Vec::new();
        push_json(bytes, 8, &mut line);
        assert_eq!(str::from_utf8(&line), Ok(expected));
    }

    #[test]
    fn a_string_is_one_string_of_json_whatever_it_holds() {
        check_json(b"", r#""""#);
        check_json(b"plain/~ ", r#""plain/~ ""#);
        check_json(b"a\"b\\c", r#""a\"b\\c""#);
        check_json(b"\r\n\t\0\x1b\x7f", r#""\u000d\u000a\u0009\u0000\u001b\u007f""#);
        check_json("é€".as_bytes(), "\"é€\"");
        check_json("\u{85}\u{2028}".as_bytes(), r#""\u0085\u2028""#);
        check_json(b"a\xffb\xc3", r#""a\ufffdb\ufffd""#);
        check_json(b"12345678", r#""12345678""#);
        check_json(b"123456789", "\"12345678…\"");
        check_json("1234567é".as_bytes(), "\"1234567\\ufffd…\"");
    }

    #[test]
    fn text_logs_hold_nothing_but_printable_ascii() {
        let mut line = Vec::new();
        push_hex_escaped("a\"\\\r\né\x7f~".as_bytes(), 99, &mut line);
        assert_eq!(line, br"a\x22\x5c\x0d\x0a\xc3\xa9\x7f~");
        line.clear();
        push_hex_escaped(b"123456789", 8, &mut line);
        assert_eq!(line, b"12345678...");
    }

    #[test]
    fn numbers_and_addresses_are_spelled_as_the_library_does() {
        for number in [0, 7, 10, 999, 1000, 65_535, u64::MAX] {
            let mut line = Vec::new();
            push_number(number, &mut line);
            assert_eq!(line, number.to_string().into_bytes());
        }
        for socket in ["1.2.3.4:80", "255.0.10.1:65535", "[::1]:1", "[2001:db8::5:0]:443"] {
            let mut line = Vec::new();
            push_socket(socket.parse().unwrap(), &mut line);
            assert_eq!(line, socket.as_bytes());
        }
        for (micros, expected) in [(0, "0.000"), (7, "0.007"), (1_050, "1.050"), (98_765, "98.765")]
        {
            let mut line = Vec::new();
            push_millis(Micros(micros), &mut line);
            assert_eq!(line, expected.as_bytes());
        }
    }
}
