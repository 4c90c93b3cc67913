//! Reader of header blocks (RFC 7541 §6).
//!
//! A block is read to its end even if nobody wants its fields: each may change the table. Fields
//! are given as slices, of the block, of a table, or of the decoder's own room.

use super::{
    huffman,
    table::{Dynamic, STATIC},
};

/// The cost of the table that a peer may fill: what the standard gives it unless we say otherwise
/// (RFC 9113 §6.5.2), and we do not.
const SIZE_MAX: usize = 4_096;

/// The block is none: what follows on the connection cannot be read either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// The reader of one peer's blocks.
pub(crate) struct Decoder {
    table: Dynamic,
    /// What the peer lets the table cost.
    size_max: usize,
    /// Room for a name and a value.
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder {
            table: Dynamic::default(),
            size_max: SIZE_MAX,
            name: Vec::new(),
            value: Vec::new(),
        }
    }
}

/// A name: of a table, by its number, or in the decoder's room, or in the block.
enum Named<'b> {
    Entry(usize),
    Room,
    Block(&'b [u8]),
}

impl Decoder {
    /// Reads a whole block.
    ///
    /// # Errors
    /// If it is none.
    pub(crate) fn read(
        &mut self,
        block: &[u8],
        mut each: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Unreadable> {
        let mut rest = block;
        let mut has_begun = false;
        while let Some(first) = rest.first().copied() {
            match first {
                0x80.. => {
                    let number = integer(&mut rest, 7)?;
                    let (name, value) = entry(&self.table, number)?;
                    each(name, value);
                }
                0x40.. => self.literal(&mut rest, 6, true, &mut each)?,
                // RFC 7541 §4.2: only before the first field.
                0x20.. if has_begun => return Err(Unreadable),
                0x20.. => {
                    self.size_max = integer(&mut rest, 5)?;
                    if self.size_max > SIZE_MAX {
                        return Err(Unreadable);
                    }
                    self.table.shrink(self.size_max);
                    continue;
                }
                _ => self.literal(&mut rest, 4, false, &mut each)?,
            }
            has_begun = true;
        }
        Ok(())
    }

    /// A field that is spelled, at least in part.
    fn literal<'b>(
        &mut self,
        rest: &mut &'b [u8],
        prefix: u32,
        is_kept: bool,
        each: &mut impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Unreadable> {
        let Decoder { table, size_max, name: name_room, value: value_room } = self;
        let named = match integer(rest, prefix)? {
            0 => match text(rest, name_room)? {
                Some(name) => Named::Block(name),
                None => Named::Room,
            },
            number => Named::Entry(number),
        };
        let value: Option<&'b [u8]> = text(rest, value_room)?;
        let value = value.unwrap_or(value_room);
        let name = match named {
            Named::Block(name) => name,
            Named::Room => name_room,
            Named::Entry(number) => {
                let (name, _) = entry(table, number)?;
                if is_kept {
                    // It may leave the table with the new entry.
                    name_room.clear();
                    name_room.extend_from_slice(name);
                    name_room
                } else {
                    each(name, value);
                    return Ok(());
                }
            }
        };
        each(name, value);
        if is_kept {
            table.insert(name, value, *size_max);
        }
        Ok(())
    }

    /// Gives back what it does not need while nothing comes.
    pub(crate) fn rest(&mut self) {
        self.table.rest();
        (self.name, self.value) = (Vec::new(), Vec::new());
    }
}

/// An entry by its number in both tables (RFC 7541 §2.3.3).
fn entry(table: &Dynamic, number: usize) -> Result<(&[u8], &[u8]), Unreadable> {
    let place = number.checked_sub(1).ok_or(Unreadable)?;
    match STATIC.get(place) {
        Some((name, value)) => Ok((name.as_bytes(), value.as_bytes())),
        None => table.get(place - STATIC.len()).ok_or(Unreadable),
    }
}

/// A number behind a prefix of so many bits (RFC 7541 §5.1). None of ours is longer than 28 bits.
#[inline]
fn integer(rest: &mut &[u8], prefix: u32) -> Result<usize, Unreadable> {
    let (first, mut behind) = rest.split_first().ok_or(Unreadable)?;
    let full = (1_usize << prefix) - 1;
    let mut number = usize::from(*first) & full;
    if number == full {
        let mut shift = 0;
        loop {
            let (byte, next) = behind.split_first().ok_or(Unreadable)?;
            behind = next;
            if shift > 21 {
                return Err(Unreadable);
            }
            number += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *rest = behind;
    Ok(number)
}

/// A text (RFC 7541 §5.2): of the block, or, decoded, in the room.
#[inline]
fn text<'b>(rest: &mut &'b [u8], room: &mut Vec<u8>) -> Result<Option<&'b [u8]>, Unreadable> {
    let is_coded = rest.first().ok_or(Unreadable)? & 0x80 != 0;
    let length = integer(rest, 7)?;
    let (bytes, behind) = rest.split_at_checked(length).ok_or(Unreadable)?;
    *rest = behind;
    if !is_coded {
        return Ok(Some(bytes));
    }
    room.clear();
    huffman::decode(bytes, room)?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text
            .bytes()
            .filter(u8::is_ascii_hexdigit)
            .map(|it| (it as char).to_digit(16).unwrap() as u8)
            .collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    /// The fields of a block, one a line.
    fn read(decoder: &mut Decoder, block: &[u8]) -> Result<String, Unreadable> {
        let mut fields = String::new();
        decoder.read(block, |name, value| {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            fields += &format!("{}: {}\n", text(name), text(value));
        })?;
        Ok(fields)
    }

    /// Blocks of one connection, one after the other.
    #[track_caller]
    fn check(blocks: &[(&str, Option<&str>)]) {
        let mut decoder = Decoder::default();
        for (block, expected) in blocks {
            let fields = read(&mut decoder, &hex(block));
            assert_eq!(fields.as_deref().ok(), *expected, "{block}");
        }
    }

    const FIRST: &str = ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n";
    const SECOND: &str = ":method: GET\n:scheme: http\n:path: /\n\
                          :authority: www.example.com\ncache-control: no-cache\n";
    const THIRD: &str = ":method: GET\n:scheme: https\n:path: /index.html\n\
                         :authority: www.example.com\ncustom-key: custom-value\n";

    /// RFC 7541 appendix C.2 to C.4.
    #[test]
    fn the_examples_of_the_standard_are_read() {
        check(&[(
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            Some("custom-key: custom-header\n"),
        )]);
        check(&[("040c 2f73 616d 706c 652f 7061 7468", Some(":path: /sample/path\n"))]);
        check(&[("1008 7061 7373 776f 7264 0673 6563 7265 74", Some("password: secret\n"))]);
        check(&[("82", Some(":method: GET\n"))]);
        check(&[
            ("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", Some(FIRST)),
            ("8286 84be 5808 6e6f 2d63 6163 6865", Some(SECOND)),
            (
                "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
                Some(THIRD),
            ),
        ]);
        check(&[
            ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", Some(FIRST)),
            ("8286 84be 5886 a8eb 1064 9cbf", Some(SECOND)),
            ("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", Some(THIRD)),
        ]);
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for block in [
            "80",                // no entry has the number 0
            "be",                // the table is empty
            "ff ff ff ff ff 7f", // a number that is too long
            "ff",                // a number that is cut
            "40",                // a field without a name
            "40 01 61",          // without a value
            "40 05 61 62",       // a text that is cut
            "44 81 00",          // a text with wrong padding
            "82 20",             // a size behind a field
            "3f e2 1f",          // a size of more than 4,096
        ] {
            check(&[(block, None)]);
        }
        check(&[
            ("", Some("")),
            ("3f e1 1f", Some("")),
            ("20 3f e1 1f 82", Some(":method: GET\n")),
        ]);
    }

    #[test]
    fn a_table_that_a_peer_closes_keeps_nothing() {
        check(&[
            ("40 01 61 01 62", Some("a: b\n")),
            ("be", Some("a: b\n")),
            ("20", Some("")),
            ("be", None),
        ]);
        check(&[("20 40 01 61 01 62", Some("a: b\n")), ("be", None)]);
    }

    /// A name that leaves the table with the entry that it names is read before.
    #[test]
    fn a_name_of_an_entry_that_leaves_is_read() {
        let long = "61".repeat(100);
        let first = format!("3f 45 40 64 {long} 00"); // a table of 100, and a name of 100 letters
        let mut decoder = Decoder::default();
        assert!(read(&mut decoder, &hex("3f 45 40 03 616263 00")).is_ok());
        assert_eq!(
            read(
                &mut decoder,
                &hex("7e 20 6162636465666768696a6b6c6d6e6f707172737475767778797a303132333435")
            )
            .as_deref(),
            Ok("abc: abcdefghijklmnopqrstuvwxyz012345\n")
        );
        assert!(read(&mut decoder, &hex(&first)).is_ok());
        assert!(read(&mut decoder, &hex("be")).is_err(), "an entry that costs more than the table");
    }

    /// Whatever comes, it neither panics nor keeps much.
    #[test]
    fn garbage_does_no_harm() {
        use crate::base::rng::Rng;
        for seed in 0..20_000 {
            let mut rng = Rng::seeded(seed);
            let mut decoder = Decoder::default();
            for _ in 0..4 {
                let length = rng.below(80);
                let block: Vec<u8> = (0..length).map(|_| rng.next() as u8).collect();
                let _ = read(&mut decoder, &block);
            }
        }
    }
}
