//! The secrets that sign sticky cookies, parsed from a file.

use sha2::{Digest as _, Sha256};

/// Secrets in force at a time: the one that signs, and the one before it.
const SECRETS_MAX: usize = 2;

/// The shortest secret: 128 bits, if it is random.
const SECRET_BYTES_MIN: usize = 16;

/// The secrets that sign cookies: the first signs, both are accepted.
#[derive(Clone)]
pub(crate) struct Secrets(pub(super) Vec<[u8; 32]>);

impl Secrets {
    /// Parses the secrets of a file: one per line.
    ///
    /// # Errors
    /// What is wrong with the text; the secret is not repeated.
    pub(crate) fn parse(text: &[u8]) -> Result<Secrets, String> {
        let text = str::from_utf8(text).map_err(|_| {
            "is not text: a secret is a line, such as `openssl rand -base64 32` writes".to_owned()
        })?;
        let lines: Vec<&str> =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if lines.is_empty() {
            return Err("contains no secret".to_owned());
        }
        if lines.len() > SECRETS_MAX {
            let count = lines.len();
            return Err(format!(
                "contains {count} secrets: the first line signs, and one more is accepted"
            ));
        }
        if let Some(short) = lines.iter().map(|line| line.len()).find(|l| *l < SECRET_BYTES_MIN) {
            return Err(format!(
                "holds a secret of {short} bytes: it takes {SECRET_BYTES_MIN} or more"
            ));
        }
        Ok(Secrets(lines.iter().map(|line| Sha256::digest(line).into()).collect()))
    }
}

impl Secrets {
    /// As keys: the first signs or seals.
    pub(crate) fn keys(&self) -> &[[u8; 32]] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_one_secret_or_two() {
        for (text, expected) in [
            (&b"0123456789abcdef"[..], Ok(1)),
            (b"\n  0123456789abcdef \r\n\n", Ok(1)),
            (b"0123456789abcdef\n0123456789abcdeg\n", Ok(2)),
            (b"", Err("contains no secret")),
            (b" \n\n", Err("contains no secret")),
            (b"0123456789abcde\n", Err("holds a secret of 15 bytes: it takes 16 or more")),
            (b"0123456789abcdef\nshort\n", Err("holds a secret of 5 bytes: it takes 16 or more")),
            (
                b"0123456789abcdef\n0123456789abcdef\n0123456789abcdef\n",
                Err("contains 3 secrets: the first line signs, and one more is accepted"),
            ),
            (
                b"\xff0123456789abcdef",
                Err("is not text: a secret is a line, such as `openssl rand -base64 32` writes"),
            ),
        ] {
            let secrets = Secrets::parse(text).map(|secrets| secrets.0.len());
            assert_eq!(secrets, expected.map_err(str::to_owned));
        }
    }
}
