//! The records of a TLS connection after its handshake: bytes of the wire to plaintext and back.
//!
//! Pure: bytes in, bytes out. Records are opened in place, whole ones only; what is left of an
//! incomplete one stays with the caller. Besides data this knows what may come at any time: alerts,
//! key updates, tickets (to clients), and in TLS 1.2 a wish to renegotiate, which is refused. What
//! is not allowed ends the connection with the alert that the standard names, after what came
//! before it has been delivered. Nothing that a peer sends without data is free of a limit.

use super::{
    alert::Alert,
    handshake::Kept,
    keys::{self, ALERT, DATA, HANDSHAKE, HEADER, Keys, PLAIN_MAX, RECORD_MAX},
};

/// Records without plaintext in a row, warnings, and key updates without data between them, that a
/// peer may send: as rustls and BoringSSL have it.
const EMPTY_MAX: u8 = 32;
const WARNINGS_MAX: u8 = 4;
const KEY_UPDATES_MAX: u8 = 32;

/// The longest message of a handshake, as rustls has it: a ticket.
const MESSAGE_MAX: usize = 0xffff;

/// The types of messages that may come after the handshake.
const HELLO_REQUEST: u8 = 0;
const CLIENT_HELLO: u8 = 1;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// Both directions of a connection after its handshake.
pub(crate) struct Records {
    sealing: Keys,
    opening: Keys,
    kept: Kept,
    /// The beginning of a message of which more is to come.
    message: Vec<u8>,
    empty: u8,
    warnings: u8,
    key_updates: u8,
    /// Whether the peer wants us to change our keys. Before our next data, and once for all wishes
    /// until then (RFC 8446 §4.6.3).
    owes_update: bool,
    has_renegotiated: bool,
    /// Whether the peer has said that it sends no more.
    has_closed: bool,
    /// Whether we have.
    has_said_end: bool,
    /// Why nothing more is read.
    failure: Option<Failure>,
}

/// Why a connection ended otherwise than by `close_notify`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The peer broke a rule, and is told so by this alert.
    Broke(Alert),
    /// The peer sent this alert.
    Told(Alert),
}

/// The result of opening what has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Opened {
    /// How much plaintext is at the front now.
    pub(crate) plain: usize,
    /// How many bytes were used; an incomplete record begins behind them.
    pub(crate) used: usize,
}

impl Records {
    /// With the keys that a handshake has made.
    pub(super) fn new(sealing: Keys, opening: Keys, kept: Kept) -> Records {
        Records {
            sealing,
            opening,
            kept,
            message: Vec::new(),
            empty: 0,
            warnings: 0,
            key_updates: 0,
            owes_update: false,
            has_renegotiated: false,
            has_closed: false,
            has_said_end: false,
            failure: None,
        }
    }

    /// Whether the peer has said that it sends no more.
    #[inline]
    pub(crate) fn has_closed(&self) -> bool {
        self.has_closed
    }

    /// Whether we have said that nothing more follows.
    pub(crate) fn has_said_end(&self) -> bool {
        self.has_said_end
    }

    /// Whether we began the handshake.
    pub(crate) fn is_to_backend(&self) -> bool {
        self.kept.is_client()
    }

    /// Why nothing more is read, if so.
    #[inline]
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// Opens the whole records at the front of `bytes`, and moves their plaintext there. What has
    /// to be sent for them is appended to `replies`.
    #[inline]
    pub(crate) fn open(&mut self, bytes: &mut [u8], replies: &mut Vec<u8>) -> Opened {
        let mut opened = Opened::default();
        while !self.has_closed && self.failure.is_none() {
            let len = match whole(bytes.get(opened.used..).unwrap_or(&[])) {
                Ok(Some(len)) => len,
                Ok(None) => return opened,
                Err(alert) => {
                    self.fail(alert, replies);
                    break;
                }
            };
            let (at, end) = (opened.used - opened.plain, opened.used + len);
            let Some(record) = bytes.get_mut(opened.plain..end) else { break };
            match self.opening.open(record, at) {
                Ok((DATA, count)) if count > 0 => {
                    if !self.message.is_empty() {
                        self.fail(Alert::UNEXPECTED_MESSAGE, replies);
                        break;
                    }
                    (self.empty, self.key_updates) = (0, 0);
                    opened.plain += count;
                }
                Ok((kind, count)) => {
                    let plain = record.get(..count).unwrap_or(&[]);
                    if let Err(alert) = self.other(kind, plain, replies) {
                        self.fail(alert, replies);
                    }
                }
                Err(alert) => self.fail(alert, replies),
            }
            opened.used = end;
        }
        // Whatever follows is ignored (RFC 8446 §6.1).
        opened.used = bytes.len();
        opened
    }

    /// A record that is not data, or has none.
    #[cold]
    fn other(&mut self, kind: u8, plain: &[u8], replies: &mut Vec<u8>) -> Result<(), Alert> {
        if !self.message.is_empty() && kind != HANDSHAKE {
            return Err(Alert::UNEXPECTED_MESSAGE);
        }
        match (kind, plain) {
            (DATA, _) => count(&mut self.empty, EMPTY_MAX),
            (ALERT, &[level, number]) => self.alert(level, Alert(number)),
            (ALERT, _) => Err(Alert::DECODE_ERROR),
            (HANDSHAKE, []) => Err(Alert::UNEXPECTED_MESSAGE),
            (HANDSHAKE, _) => self.messages(plain, replies),
            _ => Err(Alert::UNEXPECTED_MESSAGE),
        }
    }

    fn alert(&mut self, level: u8, alert: Alert) -> Result<(), Alert> {
        const WARNING: u8 = 1;
        const FATAL: u8 = 2;
        if !matches!(level, WARNING | FATAL) {
            return Err(Alert::ILLEGAL_PARAMETER);
        }
        if alert == Alert::CLOSE_NOTIFY {
            self.has_closed = true;
        } else if level == WARNING {
            count(&mut self.warnings, WARNINGS_MAX)?;
            if self.kept.is_tls13() && alert != Alert::USER_CANCELED {
                return Err(Alert::DECODE_ERROR);
            }
        } else {
            self.failure = Some(Failure::Told(alert));
        }
        Ok(())
    }

    /// Messages of a handshake, whole or in part.
    fn messages(&mut self, plain: &[u8], replies: &mut Vec<u8>) -> Result<(), Alert> {
        self.message.extend_from_slice(plain);
        let come = std::mem::take(&mut self.message);
        let mut rest = &come[..];
        while let Some((&[kind, a, b, c], behind)) = rest.split_first_chunk() {
            let len = u32::from_be_bytes([0, a, b, c]) as usize;
            if len > MESSAGE_MAX {
                return Err(Alert::DECODE_ERROR);
            }
            let Some((message, behind)) = behind.split_at_checked(len) else { break };
            // A key changes between records (RFC 8446 §5.1).
            if kind == KEY_UPDATE && !behind.is_empty() {
                return Err(Alert::UNEXPECTED_MESSAGE);
            }
            self.message_of(kind, message, replies)?;
            rest = behind;
        }
        self.message = rest.to_vec();
        Ok(())
    }

    fn message_of(&mut self, kind: u8, message: &[u8], replies: &mut Vec<u8>) -> Result<(), Alert> {
        let (is_tls13, is_client) = (self.kept.is_tls13(), self.kept.is_client());
        match (is_tls13, kind) {
            (true, KEY_UPDATE) => self.key_update(message),
            (true, NEW_SESSION_TICKET) if is_client => self.kept.take_ticket(message),
            (false, CLIENT_HELLO) if !is_client => self.refuse_renegotiation(replies),
            (false, HELLO_REQUEST) if is_client => self.refuse_renegotiation(replies),
            _ => Err(Alert::UNEXPECTED_MESSAGE),
        }
    }

    /// The peer seals with its next keys from now on, and may want us to do so too.
    fn key_update(&mut self, message: &[u8]) -> Result<(), Alert> {
        count(&mut self.key_updates, KEY_UPDATES_MAX)?;
        match message {
            [0] => {}
            [1] => self.owes_update = true,
            _ => return Err(Alert::ILLEGAL_PARAMETER),
        }
        self.opening = self.kept.next_opening()?;
        Ok(())
    }

    /// Tells the peer that we seal with our next keys from now on, and does so.
    pub(super) fn update_keys(&mut self, replies: &mut Vec<u8>) -> Result<(), Alert> {
        self.seal_short(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 0], replies)?;
        self.sealing = self.kept.next_sealing()?;
        Ok(())
    }

    /// Once; whoever insists is refused for good (RFC 5246 §7.2.2).
    fn refuse_renegotiation(&mut self, replies: &mut Vec<u8>) -> Result<(), Alert> {
        if std::mem::replace(&mut self.has_renegotiated, true) {
            return Err(Alert::NO_RENEGOTIATION);
        }
        self.seal_short(ALERT, &[1, Alert::NO_RENEGOTIATION.0], replies)
    }

    /// Ends the connection by an alert.
    #[cold]
    fn fail(&mut self, alert: Alert, replies: &mut Vec<u8>) {
        self.failure = Some(Failure::Broke(alert));
        if !std::mem::replace(&mut self.has_said_end, true) {
            // Without it the end is all that the peer learns.
            let _ = self.seal_short(ALERT, &[2, alert.0], replies);
        }
    }

    /// Says that nothing more follows, once.
    pub(crate) fn say_end(&mut self, replies: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.has_said_end, true) {
            let _ = self.seal_short(ALERT, &[1, Alert::CLOSE_NOTIFY.0], replies);
        }
    }

    pub(super) fn seal_short(
        &mut self,
        kind: u8,
        plain: &[u8],
        to: &mut Vec<u8>,
    ) -> Result<(), Alert> {
        if self.sealing.left() == 0 {
            return Err(Alert::INTERNAL_ERROR);
        }
        let before = to.len();
        to.resize(before + plain.len() + self.sealing.overhead(), 0);
        let sealed = self.sealing.seal(kind, plain, to.get_mut(before..).unwrap_or(&mut []));
        if sealed.is_err() {
            to.truncate(before);
        }
        sealed.map(|_| ())
    }

    /// The room of messages that have come in part.
    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        self.message.capacity()
    }

    /// How much plaintext can be sealed into this much room.
    #[inline]
    pub(crate) fn fits(&self, room: usize) -> usize {
        let full = PLAIN_MAX + self.sealing.overhead();
        let rest = (room % full).saturating_sub(self.sealing.overhead());
        room / full * PLAIN_MAX + rest
    }

    /// Seals a part of what is to be sent, at most a record, into the front of `out`; returns how
    /// much of it, and how long it has become. `out` has room for it.
    ///
    /// # Errors
    /// If the keys are used up, and there are no next ones: the connection ends.
    #[inline]
    pub(crate) fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> Result<(usize, usize), Alert> {
        let mut written = 0;
        // The last record is for the message that changes the key, or for an alert.
        if self.owes_update || self.sealing.left() <= 1 {
            written = self.next_keys(out)?;
        }
        let room = out.get_mut(written..).unwrap_or(&mut []);
        let count = plain.len().min(PLAIN_MAX).min(self.fits(room.len()));
        let plain = plain.get(..count).unwrap_or(&[]);
        if count > 0 {
            written += self.sealing.seal(DATA, plain, room)?;
        }
        Ok((count, written))
    }

    #[cold]
    fn next_keys(&mut self, out: &mut [u8]) -> Result<usize, Alert> {
        let mut replies = Vec::new();
        self.update_keys(&mut replies)?;
        self.owes_update = false;
        let room = out.get_mut(..replies.len()).ok_or(Alert::INTERNAL_ERROR)?;
        room.copy_from_slice(&replies);
        Ok(replies.len())
    }
}

/// Whether opening these bytes may have a result: they hold a whole record, or none that could be.
#[inline]
pub(super) fn may_be_whole(bytes: &[u8]) -> bool {
    !bytes.is_empty() && !matches!(whole(bytes), Ok(None))
}

/// The length of the record at the front of these bytes; none if it is incomplete.
#[inline]
fn whole(bytes: &[u8]) -> Result<Option<usize>, Alert> {
    let Some(&[kind, major, _, high, low]) = bytes.first_chunk::<HEADER>() else {
        // Garbage is refused at once.
        return match bytes.first() {
            Some(kind) if !is_known(*kind) => Err(Alert::UNEXPECTED_MESSAGE),
            _ => Ok(None),
        };
    };
    let len = HEADER + usize::from(u16::from_be_bytes([high, low]));
    if !is_known(kind) || major != 3 {
        return Err(Alert::UNEXPECTED_MESSAGE);
    }
    if len > RECORD_MAX {
        return Err(Alert::RECORD_OVERFLOW);
    }
    Ok((bytes.len() >= len).then_some(len))
}

fn is_known(kind: u8) -> bool {
    matches!(kind, keys::CHANGE_CIPHER_SPEC | ALERT | HANDSHAKE | DATA)
}

/// One more; refused beyond `max`.
fn count(counted: &mut u8, max: u8) -> Result<(), Alert> {
    if *counted == max {
        return Err(Alert::UNEXPECTED_MESSAGE);
    }
    *counted += 1;
    Ok(())
}
