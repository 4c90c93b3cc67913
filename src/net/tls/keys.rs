//! The keys of one direction of a TLS connection: they seal and open single records.
//!
//! A record is opened where it lies, and its plaintext moved to the front in the same pass; it is
//! sealed from the plaintext straight into the bytes that leave. So no record is copied, and
//! nothing is allocated. What is in a record, and which comes next, is known in `records.rs`.

use super::{
    aead::{Aead, NONCE_LEN, TAG},
    alert::Alert,
};

/// The most plaintext in a record (RFC 8446 §5.1).
pub(super) const PLAIN_MAX: usize = 1 << 14;

/// The header of a record: its type, a version, the length of the rest.
pub(super) const HEADER: usize = 5;

/// The part of the nonce that each record of TLS 1.2 with AES carries (RFC 5288 §3).
const EXPLICIT: usize = 8;

/// The longest record that a peer may send: in TLS 1.3 with padding and a type (RFC 8446 §5.2).
pub(super) const RECORD_MAX: usize = HEADER + PLAIN_MAX + 256;

/// The types of records.
pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const DATA: u8 = 23;

/// The secrets of one direction, as the handshake made them.
pub(super) struct Secrets<'a> {
    pub(super) cipher: Cipher,
    pub(super) key: &'a [u8],
    pub(super) iv: &'a [u8],
    /// The number of the next record.
    pub(super) sequence: u64,
}

/// How records are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cipher {
    Aes128Gcm,
    Aes256Gcm,
    Chacha20Poly1305,
}

/// How a sealed record is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// TLS 1.3: the type is sealed too, behind the plaintext.
    Inner,
    /// TLS 1.2 with AES: a part of the nonce is in front.
    Explicit,
    /// TLS 1.2 with ChaCha20.
    Bare,
}

/// The keys of one direction.
pub(super) struct Keys {
    key: Aead,
    iv: [u8; NONCE_LEN],
    sequence: u64,
    /// Records that may be sealed with this key (RFC 8446 §5.5).
    records_max: u64,
    layout: Layout,
}

/// For AES-GCM: full records that keep the advantage of an attacker under 2^-60, as rustls has it.
const GCM_RECORDS_MAX: u64 = 1 << 24;

impl Keys {
    /// None if the secrets do not fit the cipher, which does not happen.
    pub(super) fn new(is_tls13: bool, secrets: &Secrets<'_>) -> Option<Keys> {
        let records_max = match secrets.cipher {
            Cipher::Aes128Gcm | Cipher::Aes256Gcm => GCM_RECORDS_MAX,
            Cipher::Chacha20Poly1305 => u64::MAX - 1,
        };
        let layout = match (is_tls13, secrets.cipher) {
            (true, _) => Layout::Inner,
            (false, Cipher::Aes128Gcm | Cipher::Aes256Gcm) => Layout::Explicit,
            (false, Cipher::Chacha20Poly1305) => Layout::Bare,
        };
        Some(Keys {
            key: Aead::new(secrets.cipher, secrets.key)?,
            iv: secrets.iv.try_into().ok()?,
            sequence: secrets.sequence,
            records_max,
            layout,
        })
    }

    /// How many more records may be sealed with these.
    pub(super) fn left(&self) -> u64 {
        self.records_max.saturating_sub(self.sequence)
    }

    /// How much longer than its plaintext a record is.
    pub(super) fn overhead(&self) -> usize {
        match self.layout {
            Layout::Inner => HEADER + 1 + TAG,
            Layout::Explicit => HEADER + EXPLICIT + TAG,
            Layout::Bare => HEADER + TAG,
        }
    }

    /// The nonce of the next record (RFC 8446 §5.3; RFC 7905 §2; for AES in TLS 1.2 any that is
    /// not used twice).
    #[inline]
    fn nonce(&mut self) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        for (byte, of_sequence) in
            nonce[NONCE_LEN - 8..].iter_mut().zip(self.sequence.to_be_bytes())
        {
            *byte ^= of_sequence;
        }
        self.sequence += 1;
        nonce
    }

    /// What TLS 1.2 seals with a record (RFC 5246 §6.2.3.3).
    fn beside(&self, [kind, major, minor, ..]: [u8; HEADER], plain_len: usize) -> [u8; 13] {
        let mut aad = [0; 13];
        let len = u16::try_from(plain_len).unwrap_or(u16::MAX);
        aad[..8].copy_from_slice(&self.sequence.to_be_bytes());
        aad[8..11].copy_from_slice(&[kind, major, minor]);
        aad[11..].copy_from_slice(&len.to_be_bytes());
        aad
    }

    /// Seals a record of this type into the front of `out`; returns its length. The plaintext is at
    /// most `PLAIN_MAX` bytes, and `out` has room for it and the overhead.
    #[inline]
    pub(super) fn seal(&mut self, kind: u8, plain: &[u8], out: &mut [u8]) -> Result<usize, Alert> {
        let total = plain.len() + self.overhead();
        let Some((header, rest)) = out.get_mut(..total).and_then(<[u8]>::split_first_chunk_mut)
        else {
            return Err(Alert::INTERNAL_ERROR);
        };
        let len = u16::try_from(total - HEADER).map_err(|_| Alert::INTERNAL_ERROR)?;
        let [high, low] = len.to_be_bytes();
        *header = [if self.layout == Layout::Inner { DATA } else { kind }, 3, 3, high, low];
        let sealed = match self.layout {
            Layout::Inner => {
                let nonce = self.nonce();
                self.key.seal(nonce, &*header, (plain, &[kind]), rest)
            }
            Layout::Explicit | Layout::Bare => {
                let aad = self.beside(*header, plain.len());
                let nonce = self.nonce();
                let mut rest = rest;
                if self.layout == Layout::Explicit {
                    let (explicit, behind) = rest.split_at_mut(EXPLICIT);
                    explicit.copy_from_slice(&nonce[NONCE_LEN - EXPLICIT..]);
                    rest = behind;
                }
                self.key.seal(nonce, &aad, (plain, &[]), rest)
            }
        };
        sealed.map(|()| total).ok_or(Alert::INTERNAL_ERROR)
    }

    /// Opens the record that `bytes` ends with and that begins at `at`, and moves its plaintext to
    /// the front of `bytes`; returns its type and the length of the plaintext.
    #[inline]
    pub(super) fn open(&mut self, bytes: &mut [u8], at: usize) -> Result<(u8, usize), Alert> {
        let header = bytes.get(at..).and_then(<[u8]>::first_chunk::<HEADER>);
        let header = *header.ok_or(Alert::INTERNAL_ERROR)?;
        let (kind, len) = (header[0], bytes.len() - at - HEADER);
        let start = at + HEADER;
        let (opened, kind_is_inner) = match self.layout {
            Layout::Inner => {
                if kind != DATA {
                    // Nothing else comes after the handshake.
                    return Err(Alert::UNEXPECTED_MESSAGE);
                }
                let nonce = self.nonce();
                (self.key.open(nonce, &header, bytes, start), true)
            }
            Layout::Explicit => {
                let plain_len = len.checked_sub(EXPLICIT + TAG).ok_or(Alert::BAD_RECORD_MAC)?;
                let mut nonce = self.iv;
                let explicit = bytes.get(start..start + EXPLICIT).ok_or(Alert::BAD_RECORD_MAC)?;
                nonce[NONCE_LEN - EXPLICIT..].copy_from_slice(explicit);
                let aad = self.beside(header, plain_len);
                self.sequence += 1;
                (self.key.open(nonce, &aad, bytes, start + EXPLICIT), false)
            }
            Layout::Bare => {
                let plain_len = len.checked_sub(TAG).ok_or(Alert::BAD_RECORD_MAC)?;
                let aad = self.beside(header, plain_len);
                let nonce = self.nonce();
                (self.key.open(nonce, &aad, bytes, start), false)
            }
        };
        let plain = opened.ok_or(Alert::BAD_RECORD_MAC)?;
        let (kind, count) = if kind_is_inner {
            // The type is the last byte that is not padding (RFC 8446 §5.4).
            let last = plain.iter().rposition(|byte| *byte != 0);
            let last = last.ok_or(Alert::UNEXPECTED_MESSAGE)?;
            (plain[last], last)
        } else {
            (kind, plain.len())
        };
        if count > PLAIN_MAX {
            return Err(Alert::RECORD_OVERFLOW);
        }
        Ok((kind, count))
    }
}
