//! The two ways through a head held against each other: the short one, and httparse's.
//!
//! Most heads take the short way (`plain`), and httparse decides about all others; so on what both
//! take they must agree to the last range. For tests and fuzz targets.

use super::{HeadLimits, Parse, request, response};
use crate::http::head::{RequestHead, ResponseHead};

/// Whether the input is a whole head of a request.
///
/// # Panics
/// Panics if the ways have different results.
pub(crate) fn agree_on_request(input: &[u8], limits: &HeadLimits) -> bool {
    let seen = input.get(..limits.head_bytes_max).unwrap_or(input);
    let (mut one, mut other) = (RequestHead::default(), RequestHead::default());
    let result = request::request(input, limits, &mut one);
    let expected = request::any_request(seen, limits, &mut other);
    assert_eq!(result, expected, "{}", input.escape_ascii());
    let is_whole = matches!(result, Ok(Parse::Done { .. }));
    if is_whole {
        assert_eq!(format!("{one:?}"), format!("{other:?}"), "{}", input.escape_ascii());
    }
    is_whole
}

/// Whether the input is a whole head of a response.
///
/// # Panics
/// Panics if the ways have different results.
pub(crate) fn agree_on_response(input: &[u8], limits: &HeadLimits) -> bool {
    let seen = input.get(..limits.head_bytes_max).unwrap_or(input);
    let (mut one, mut other) = (ResponseHead::default(), ResponseHead::default());
    let result = response::response(input, limits, &mut one);
    let expected = response::any_response(seen, limits, &mut other);
    // The first byte is looked at before either.
    if input.first() == Some(&b'H') {
        assert_eq!(result, expected, "{}", input.escape_ascii());
    }
    let is_whole = matches!(result, Ok(Parse::Done { .. }));
    if is_whole {
        assert_eq!(format!("{one:?}"), format!("{other:?}"), "{}", input.escape_ascii());
    }
    is_whole
}
