//! The tables of HPACK: the fixed one (RFC 7541 appendix A), and the one that the peer fills.
//!
//! The second is a queue: what comes in at the front pushes out what was first, until it fits. Its
//! bytes lie in one buffer, which is moved together when half of it is spent.

use std::collections::VecDeque;

/// What an entry costs beside its bytes (RFC 7541 §4.1).
const OVERHEAD: usize = 32;

/// The fixed table; its first entry has the number 1.
#[rustfmt::skip]
pub(super) const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"),
    (":path", "/index.html"), (":scheme", "http"), (":scheme", "https"), (":status", "200"),
    (":status", "204"), (":status", "206"), (":status", "304"), (":status", "400"),
    (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""),
    ("accept", ""), ("access-control-allow-origin", ""), ("age", ""), ("allow", ""),
    ("authorization", ""), ("cache-control", ""), ("content-disposition", ""),
    ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""),
    ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""),
    ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""),
    ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""),
    ("via", ""), ("www-authenticate", ""),
];

/// The table that a peer fills.
#[derive(Default)]
pub(super) struct Dynamic {
    bytes: Vec<u8>,
    /// Where the bytes of the oldest entry begin.
    start: usize,
    /// The newest last.
    entries: VecDeque<Entry>,
    /// What the entries cost.
    size: usize,
    /// How many bytes were ever taken from the front of the buffer.
    moved: u32,
}

/// An entry: where its bytes began in all that ever came, and the lengths of name and value.
struct Entry {
    at: u32,
    name: u16,
    value: u16,
}

impl Entry {
    fn len(&self) -> usize {
        usize::from(self.name) + usize::from(self.value)
    }
}

impl Dynamic {
    /// The entry of this number, the newest being 0: its name, and its value.
    pub(super) fn get(&self, number: usize) -> Option<(&[u8], &[u8])> {
        let place = self.entries.len().checked_sub(number.checked_add(1)?)?;
        let entry = self.entries.get(place)?;
        let at = entry.at.wrapping_sub(self.moved) as usize;
        self.bytes.get(at..at + entry.len())?.split_at_checked(usize::from(entry.name))
    }

    /// A new entry, in a table that may cost this much. One that costs more empties it.
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8], size_max: usize) {
        let cost = name.len() + value.len() + OVERHEAD;
        self.shrink(size_max.saturating_sub(cost));
        let lengths = (u16::try_from(name.len()), u16::try_from(value.len()));
        if let (Ok(name_len), Ok(value_len)) = lengths
            && cost <= size_max
        {
            let at = self.moved.wrapping_add(self.bytes.len() as u32);
            self.bytes.extend_from_slice(name);
            self.bytes.extend_from_slice(value);
            self.entries.push_back(Entry { at, name: name_len, value: value_len });
            self.size += cost;
        }
    }

    /// Drops the oldest entries until it costs no more than this.
    pub(super) fn shrink(&mut self, size_max: usize) {
        while self.size > size_max
            && let Some(oldest) = self.entries.pop_front()
        {
            self.start += oldest.len();
            self.size -= oldest.len() + OVERHEAD;
        }
        if self.start * 2 >= self.bytes.len() {
            self.move_together();
        }
    }

    fn move_together(&mut self) {
        self.bytes.drain(..self.start);
        self.moved = self.moved.wrapping_add(self.start as u32);
        self.start = 0;
    }

    /// Gives back what it does not need.
    pub(super) fn rest(&mut self) {
        self.move_together();
        self.bytes.shrink_to_fit();
        self.entries.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    /// Against a plain list.
    #[test]
    fn the_table_is_a_queue_of_bounded_cost() {
        for seed in 0..200 {
            let mut rng = Rng::seeded(seed);
            let (mut table, mut list): (_, Vec<(Vec<u8>, Vec<u8>)>) = (Dynamic::default(), vec![]);
            let cost = |list: &[(Vec<u8>, Vec<u8>)]| -> usize {
                list.iter().map(|(name, value)| name.len() + value.len() + OVERHEAD).sum()
            };
            for _ in 0..300 {
                let most = [0, 40, 200, 4096][rng.below(4) as usize];
                if rng.below(8) == 0 {
                    table.shrink(most);
                } else {
                    let mut text = |most| -> Vec<u8> {
                        (0..rng.below(most)).map(|_| rng.next() as u8).collect()
                    };
                    let (name, value) = (text(20), text(60));
                    table.insert(&name, &value, most);
                    list.insert(0, (name, value));
                }
                while cost(&list) > most {
                    list.pop();
                }
                if rng.below(16) == 0 {
                    table.rest();
                }
                for (number, (name, value)) in list.iter().enumerate() {
                    assert_eq!(table.get(number), Some((&name[..], &value[..])), "seed {seed}");
                }
                assert_eq!(table.get(list.len()), None);
                assert_eq!(table.size, cost(&list));
                assert!(table.bytes.len() <= 2 * 4096 + 80, "{}", table.bytes.len());
            }
        }
    }
}
