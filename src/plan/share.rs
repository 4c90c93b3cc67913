//! A share of a whole, exactly as written: in millionths, so that plans can be compared.

/// A share of a whole, or a factor, in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(pub u32);

impl Share {
    /// Nothing.
    pub const ZERO: Share = Share(0);

    /// A share from per cent.
    #[must_use]
    pub const fn percent(percent: u32) -> Share {
        Share(percent * 10_000)
    }

    /// As a number: 1.0 is the whole.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / 1e6
    }
}
