//! Statuses of gRPC (its `statuscodes.md`): the words for them, and which an answer has in its
//! head.
//!
//! A call whose answer has no message may be answered by one head ("trailers-only"). Its status is
//! known before anything is passed on; that of any other call stands behind its messages.

use super::head::ResponseHead;

/// The statuses of calls that failed, by their words.
pub(crate) const STATUSES: [(&str, u8); 16] = [
    ("grpc:cancelled", 1),
    ("grpc:unknown", 2),
    ("grpc:invalid-argument", 3),
    ("grpc:deadline-exceeded", 4),
    ("grpc:not-found", 5),
    ("grpc:already-exists", 6),
    ("grpc:permission-denied", 7),
    ("grpc:resource-exhausted", 8),
    ("grpc:failed-precondition", 9),
    ("grpc:aborted", 10),
    ("grpc:out-of-range", 11),
    ("grpc:unimplemented", 12),
    ("grpc:internal", 13),
    ("grpc:unavailable", 14),
    ("grpc:data-loss", 15),
    ("grpc:unauthenticated", 16),
];

/// The word for a status.
pub(crate) fn word(status: u8) -> &'static str {
    let found = STATUSES.iter().find(|(_, other)| *other == status);
    found.map_or("grpc:ok", |(word, _)| word)
}

/// The status that stands in the head of an answer; none if it does not, or is none of the list.
pub(crate) fn status_in(head: &ResponseHead) -> Option<u8> {
    let digits = std::str::from_utf8(head.headers.named(b"grpc-status").next()?).ok()?;
    digits.parse().ok().filter(|status| *status <= 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::names::Name;

    #[test]
    fn each_status_has_a_word_and_a_place() {
        for (place, (word_of, status)) in STATUSES.into_iter().enumerate() {
            assert_eq!((usize::from(status), word(status)), (place + 1, word_of));
        }
    }

    #[test]
    fn a_status_is_found_in_a_head_if_it_is_one() {
        for (value, status) in
            [("14", Some(14)), ("0", Some(0)), ("17", None), ("", None), ("-1", None), ("x", None)]
        {
            let mut head = ResponseHead::default();
            assert_eq!(status_in(&head), None);
            head.headers.push(Name::Other, b"Grpc-Status", value.as_bytes());
            assert_eq!(status_in(&head), status, "{value:?}");
        }
    }
}
