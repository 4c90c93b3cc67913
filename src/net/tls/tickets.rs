//! Session tickets: what a client brings back so that its next handshake is short.
//!
//! Nothing is stored. A ticket is sealed with a key that is made of a secret, the listener and the
//! present window of time, so all cores open it, and so do other instances and later processes with
//! the same secret. Keys rotate by themselves: three windows are live. A ticket of a listener opens
//! at no other one, as what clients must show there may differ.

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac, rand,
};
use rustls::server::ProducesTickets;

use crate::net::clock::Clock;

/// How long a key seals. Tickets open for two windows more.
const WINDOW: u64 = 12 * 3600;
const WINDOWS_LIVE: u64 = 3;

/// How long clients are told to keep a ticket: for at least so long it opens.
const LIFETIME: u32 = (WINDOW * (WINDOWS_LIVE - 1)) as u32;

/// In front of what is sealed: its window and its nonce.
const WINDOW_LEN: usize = 8;
const HEAD: usize = WINDOW_LEN + NONCE_LEN;

/// Seals and opens the tickets of one listener.
pub(crate) struct Tickets {
    /// The first seals.
    secrets: Vec<hmac::Key>,
    /// What must be the same where a ticket is sealed and where it is opened.
    scope: Vec<u8>,
    now: fn() -> u64,
}

impl Tickets {
    /// With these secrets, the first of which seals, for this scope.
    pub(crate) fn new(secrets: &[[u8; 32]], scope: Vec<u8>) -> Tickets {
        let secrets = secrets.iter().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret));
        Tickets { secrets: secrets.collect(), scope, now: unix_now }
    }

    fn window(&self) -> u64 {
        (self.now)() / WINDOW
    }

    fn key(&self, secret: &hmac::Key, window: u64) -> Option<LessSafeKey> {
        let mut context = hmac::Context::with_key(secret);
        context.update(b"ringway session tickets\0");
        context.update(&window.to_be_bytes());
        context.update(&self.scope);
        let key = UnboundKey::new(&AES_256_GCM, context.sign().as_ref()).ok()?;
        Some(LessSafeKey::new(key))
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        !self.secrets.is_empty()
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let window = self.window();
        let key = self.key(self.secrets.first()?, window)?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        let aad = Aad::from(window.to_be_bytes());
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).ok()?;
        Some([&window.to_be_bytes()[..], &nonce, &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (head, sealed) = ticket.split_first_chunk::<HEAD>()?;
        let (window, nonce) = head.split_first_chunk::<WINDOW_LEN>()?;
        let nonce: [u8; NONCE_LEN] = nonce.try_into().ok()?;
        let (window, now) = (u64::from_be_bytes(*window), self.window());
        // The clock of the instance that sealed it may be a little ahead.
        if window > now + 1 || window + WINDOWS_LIVE <= now {
            return None;
        }
        self.secrets.iter().find_map(|secret| {
            let mut sealed = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key(nonce);
            let aad = Aad::from(window.to_be_bytes());
            let plain = self.key(secret, window)?.open_in_place(nonce, aad, &mut sealed);
            plain.ok().map(|plain| plain.to_vec())
        })
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

fn unix_now() -> u64 {
    Clock::unix_now().0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secrets: &[u8], scope: &str, now: fn() -> u64) -> Tickets {
        let secrets: Vec<_> = secrets.iter().map(|byte| [*byte; 32]).collect();
        Tickets { now, ..Tickets::new(&secrets, scope.into()) }
    }

    #[test]
    fn a_ticket_opens_where_the_secret_is_known_for_three_windows_and_at_its_listener_alone() {
        const NOON: u64 = 40_000 * WINDOW;
        let sealed = at(&[1], "web", || NOON + 7).encrypt(b"session").unwrap();
        for (secrets, scope, now, opens) in [
            (&[1][..], "web", (|| NOON) as fn() -> u64, true),
            (&[1], "web", || NOON + 3 * WINDOW - 1, true),
            (&[1], "web", || NOON + 3 * WINDOW, false),
            (&[1], "web", || NOON - 1, true),
            (&[1], "web", || NOON - WINDOW - 1, false),
            (&[2, 1], "web", || NOON, true),
            (&[2], "web", || NOON, false),
            (&[1], "other", || NOON, false),
            (&[], "web", || NOON, false),
        ] {
            let opened = at(secrets, scope, now).decrypt(&sealed);
            assert_eq!(opened, opens.then(|| b"session".to_vec()), "{secrets:?} {scope} {}", now());
        }
    }

    #[test]
    fn a_changed_or_cut_ticket_does_not_open() {
        let tickets = at(&[1], "web", unix_now);
        let sealed = tickets.encrypt(b"session").unwrap();
        assert_ne!(tickets.encrypt(b"session").unwrap(), sealed, "each has its own nonce");
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None, "{place}");
            assert_eq!(tickets.decrypt(&sealed[..place]), None, "{place}");
        }
        assert!(!at(&[], "web", unix_now).enabled());
    }
}
