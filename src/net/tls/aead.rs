//! Sealing and opening one record's bytes, by whichever library is faster on this processor.
//!
//! Both have the same ciphers and give the same bytes. aws-lc has code for AVX-512, ring for VAES
//! with AVX2, which aws-lc lacks: on processors with VAES and without AVX-512 (AMD Zen 3, Intel's
//! clients) ring is up to twice as fast (DECISIONS 147). rustls' own handshakes are aws-lc's.

use aws_lc_rs::aead as aws;
use ring::aead as ring;

use super::keys::Cipher;

pub(super) const NONCE_LEN: usize = 12;
pub(super) const TAG: usize = 16;

/// The key of one direction.
pub(super) enum Aead {
    AwsLc(aws::LessSafeKey),
    /// Boxed: the tables of GCM are in it, half a kilobyte.
    Ring(Box<ring::LessSafeKey>),
}

impl Aead {
    /// None if the key does not fit the cipher.
    pub(super) fn new(cipher: Cipher, key: &[u8]) -> Option<Aead> {
        let is_gcm = matches!(cipher, Cipher::Aes128Gcm | Cipher::Aes256Gcm);
        if is_gcm && has_vaes_alone() { Aead::ring(cipher, key) } else { Aead::aws_lc(cipher, key) }
    }

    fn aws_lc(cipher: Cipher, key: &[u8]) -> Option<Aead> {
        let algorithm = match cipher {
            Cipher::Aes128Gcm => &aws::AES_128_GCM,
            Cipher::Aes256Gcm => &aws::AES_256_GCM,
            Cipher::Chacha20Poly1305 => &aws::CHACHA20_POLY1305,
        };
        let key = aws::UnboundKey::new(algorithm, key).ok()?;
        Some(Aead::AwsLc(aws::LessSafeKey::new(key)))
    }

    fn ring(cipher: Cipher, key: &[u8]) -> Option<Aead> {
        let algorithm = match cipher {
            Cipher::Aes128Gcm => &ring::AES_128_GCM,
            Cipher::Aes256Gcm => &ring::AES_256_GCM,
            Cipher::Chacha20Poly1305 => &ring::CHACHA20_POLY1305,
        };
        let key = ring::UnboundKey::new(algorithm, key).ok()?;
        Some(Aead::Ring(Box::new(ring::LessSafeKey::new(key))))
    }

    /// Seals two pieces as one into `out`, which is as long as both and the tag.
    #[inline]
    pub(super) fn seal(
        &self,
        nonce: [u8; NONCE_LEN],
        beside: &[u8],
        (plain, more): (&[u8], &[u8]),
        out: &mut [u8],
    ) -> Option<()> {
        let (body, end) = out.split_at_mut_checked(plain.len())?;
        match self {
            Aead::AwsLc(key) => {
                let nonce = aws::Nonce::assume_unique_for_key(nonce);
                let aad = aws::Aad::from(beside);
                key.seal_out_of_place_scatter(nonce, aad, plain, body, more, end).ok()
            }
            Aead::Ring(key) => {
                body.copy_from_slice(plain);
                end.get_mut(..more.len())?.copy_from_slice(more);
                let (both, place) = out.split_at_mut_checked(plain.len() + more.len())?;
                let nonce = ring::Nonce::assume_unique_for_key(nonce);
                let tag = key.seal_in_place_separate_tag(nonce, ring::Aad::from(beside), both);
                let tag = tag.ok()?;
                place.get_mut(..TAG)?.copy_from_slice(tag.as_ref());
                Some(())
            }
        }
    }

    /// Opens what begins at `from`, and moves it to the front.
    #[inline]
    pub(super) fn open<'b>(
        &self,
        nonce: [u8; NONCE_LEN],
        beside: &[u8],
        bytes: &'b mut [u8],
        from: usize,
    ) -> Option<&'b mut [u8]> {
        match self {
            Aead::AwsLc(key) => {
                let nonce = aws::Nonce::assume_unique_for_key(nonce);
                key.open_within(nonce, aws::Aad::from(beside), bytes, from..).ok()
            }
            Aead::Ring(key) => {
                let nonce = ring::Nonce::assume_unique_for_key(nonce);
                key.open_within(nonce, ring::Aad::from(beside), bytes, from..).ok()
            }
        }
    }
}

/// Whether the processor has AES for long vectors, and the vectors are those of AVX2.
fn has_vaes_alone() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let has_vaes = std::is_x86_feature_detected!("vaes")
            && std::is_x86_feature_detected!("vpclmulqdq")
            && std::is_x86_feature_detected!("avx2");
        let has_avx512 = std::is_x86_feature_detected!("avx512f")
            && std::is_x86_feature_detected!("avx512bw")
            && std::is_x86_feature_detected!("avx512vl");
        has_vaes && !has_avx512
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::bytes;

    /// What one seals the other opens, in place and behind other bytes; a changed bit is refused.
    #[test]
    fn both_libraries_give_the_same_bytes() {
        for (cipher, key) in [
            (Cipher::Aes128Gcm, &[7; 16][..]),
            (Cipher::Aes256Gcm, &[7; 32]),
            (Cipher::Chacha20Poly1305, &[7; 32]),
        ] {
            let keys = [Aead::aws_lc(cipher, key).unwrap(), Aead::ring(cipher, key).unwrap()];
            for len in [0, 1, 15, 16, 17, 300, 16_384] {
                let plain = bytes(len);
                for more in [&[][..], &[23]] {
                    let sealed = keys.each_ref().map(|key| {
                        let mut out = vec![0; len + more.len() + TAG];
                        key.seal([1; 12], b"beside", (&plain, more), &mut out).unwrap();
                        out
                    });
                    assert!(sealed[0] == sealed[1], "{cipher:?} {len}");
                    let whole = [&plain[..], more].concat();
                    for key in &keys {
                        for before in [0, 5, 400] {
                            let mut record = vec![9; before];
                            record.extend_from_slice(&sealed[0]);
                            let opened = key.open([1; 12], b"beside", &mut record, before);
                            assert!(opened.is_some_and(|opened| opened == whole));
                        }
                        let mut wrong = sealed[0].clone();
                        wrong[len / 2] ^= 1;
                        assert!(key.open([1; 12], b"beside", &mut wrong, 0).is_none());
                    }
                }
            }
        }
        assert!(Aead::new(Cipher::Aes128Gcm, &[7; 5]).is_none());
    }
}
