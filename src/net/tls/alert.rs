//! Alerts: why a TLS connection ends, as one peer says it to the other (RFC 8446 §6).

use std::fmt;

/// A fatal alert, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alert(pub(crate) u8);

impl Alert {
    pub(crate) const CLOSE_NOTIFY: Alert = Alert(0);
    pub(crate) const UNEXPECTED_MESSAGE: Alert = Alert(10);
    pub(crate) const BAD_RECORD_MAC: Alert = Alert(20);
    pub(crate) const RECORD_OVERFLOW: Alert = Alert(22);
    pub(crate) const ILLEGAL_PARAMETER: Alert = Alert(47);
    pub(crate) const DECODE_ERROR: Alert = Alert(50);
    pub(crate) const INTERNAL_ERROR: Alert = Alert(80);
    pub(crate) const USER_CANCELED: Alert = Alert(90);
    pub(crate) const NO_RENEGOTIATION: Alert = Alert(100);

    /// Its name in the standard.
    pub(crate) fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "close_notify",
            10 => "unexpected_message",
            20 => "bad_record_mac",
            22 => "record_overflow",
            40 => "handshake_failure",
            42 => "bad_certificate",
            43 => "unsupported_certificate",
            44 => "certificate_revoked",
            45 => "certificate_expired",
            46 => "certificate_unknown",
            47 => "illegal_parameter",
            48 => "unknown_ca",
            49 => "access_denied",
            50 => "decode_error",
            51 => "decrypt_error",
            70 => "protocol_version",
            71 => "insufficient_security",
            80 => "internal_error",
            86 => "inappropriate_fallback",
            90 => "user_canceled",
            100 => "no_renegotiation",
            109 => "missing_extension",
            110 => "unsupported_extension",
            112 => "unrecognized_name",
            113 => "bad_certificate_status_response",
            115 => "unknown_psk_identity",
            116 => "certificate_required",
            120 => "no_application_protocol",
            _ => return None,
        })
    }
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "alert {}", self.0),
        }
    }
}
