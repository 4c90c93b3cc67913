//! Answers of HTTP/2 as the heads that HTTP/1 makes (RFC 9113 §8.3.2), strictly.
//!
//! Like `request`, for the other direction: fields are written into the head as they are read. What
//! breaks a rule is malformed, and nothing of it reaches a client.

use super::{
    hpack::{Decoder, Unreadable},
    request::{NoHead, OF_CONNECTION, is_field},
};
use crate::http::{
    fault::Cause,
    head::{ResponseHead, Version},
    headers::Span,
    names::Name,
    parse::HeadLimits,
};

/// Reads the block of an answer.
///
/// # Errors
/// If it gives no head. The decoder has read it all the same.
pub(super) fn read(
    decoder: &mut Decoder,
    block: &[u8],
    limits: &HeadLimits,
    head: &mut ResponseHead,
) -> Result<(), NoHead> {
    head.clear();
    (head.version, head.keep_alive) = (Version::Http11, true);
    let (mut bytes, mut fields, mut wrong) = (0, 0, None);
    let read = decoder.read(block, |name, value| {
        bytes += name.len() + value.len() + 4;
        fields += 1;
        if bytes > limits.head_bytes_max || fields > limits.fields_max {
            // What is beyond is looked at no more, so that it costs nothing.
            wrong.get_or_insert(NoHead::Refused(Cause::ResponseHeadTooLarge.into()));
        } else if wrong.is_none() {
            wrong = field(head, name, value).err();
        }
    });
    read.map_err(|Unreadable| NoHead::Unreadable)?;
    match wrong {
        Some(wrong) => Err(wrong),
        None if head.status == 0 => Err(NoHead::Malformed),
        None => Ok(()),
    }
}

/// Takes the next field: the status first, and no other pseudo-field.
fn field(head: &mut ResponseHead, name: &[u8], value: &[u8]) -> Result<(), NoHead> {
    if name == b":status" {
        let [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] = value else {
            return Err(NoHead::Malformed);
        };
        if head.status != 0 {
            return Err(NoHead::Malformed);
        }
        let digit = |byte: &u8| u16::from(*byte - b'0');
        head.status = digit(a) * 100 + digit(b) * 10 + digit(c);
        status_line(head, value);
        return Ok(());
    }
    let known = Name::of(name);
    if head.status == 0 || !is_field(name, value) || OF_CONNECTION.contains(known) {
        return Err(NoHead::Malformed);
    }
    head.headers.push(known, name, value);
    Ok(())
}

/// Writes the first line that HTTP/1 has, before all fields. A reason means nothing there, and some
/// clients miss it.
fn status_line(head: &mut ResponseHead, digits: &[u8]) {
    let bytes = &mut head.headers.bytes;
    bytes.extend_from_slice(b"HTTP/1.1 ");
    bytes.extend_from_slice(digits);
    bytes.push(b' ');
    let start = bytes.len();
    bytes.extend_from_slice(reason(head.status).as_bytes());
    head.reason = Span::new(start, bytes.len());
    bytes.extend_from_slice(b"\r\n");
}

/// The reason of a status (RFC 9110 §15).
fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        410 => "Gone",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Other",
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{conn_tests::block, hpack, response},
        *,
    };
    use crate::base::rng::Rng;
    use crate::http::{
        forward::{self, ToClient},
        framing::{self, BodyLength},
        head::Method,
        parse::{self, Parse},
        write::{self, Connection},
    };

    const LIMITS: HeadLimits =
        HeadLimits { head_bytes_max: 200, line_bytes_max: 100, fields_max: 4 };

    fn of(fields: &str) -> Result<(u16, String), NoHead> {
        let mut head = ResponseHead::default();
        read(&mut Decoder::default(), &block(fields), &LIMITS, &mut head)?;
        Ok((head.status, String::from_utf8(head.headers.bytes).unwrap()))
    }

    #[test]
    fn an_answer_becomes_the_head_that_http_1_has() {
        let head = of(":status: 200\nserver: s\nx: \n");
        assert_eq!(head, Ok((200, "HTTP/1.1 200 OK\r\nserver: s\r\nx: \r\n".to_owned())));
        assert_eq!(of(":status: 103\nlink: x\n").map(|head| head.0), Ok(103));
        assert_eq!(of(":status: 999\n").map(|head| head.0), Ok(999));
    }

    /// RFC 9113 §8.1.1, §8.2, §8.3.2.
    #[test]
    fn an_answer_that_breaks_a_rule_is_malformed() {
        for fields in [
            "",
            "server: s\n",
            "server: s\n:status: 200\n",
            ":status: 200\n:status: 200\n",
            ":status: 20\n",
            ":status: 2000\n",
            ":status: 2x0\n",
            ":status: 000\n",
            ":status: 200\n:path: /\n",
            ":status: 200\nServer: s\n",
            ":status: 200\nconnection: close\n",
            ":status: 200\ntransfer-encoding: chunked\n",
            ":status: 200\nupgrade: x\n",
            ":status: 200\nx: a\rb\n",
            ":status: 200\nx:  a\n",
            ":status: 200\nx y: a\n",
        ] {
            assert_eq!(of(fields), Err(NoHead::Malformed), "{fields:?}");
        }
    }

    #[test]
    fn an_answer_with_too_large_a_head_is_refused_as_such() {
        let refused = Err(NoHead::Refused(Cause::ResponseHeadTooLarge.into()));
        assert_eq!(
            of(&format!(":status: 200\nx: {}\ny: {}\n", "a".repeat(100), "b".repeat(100))),
            refused
        );
        assert_eq!(of(":status: 200\na: b\na: b\na: b\na: b\n"), refused);
    }
    /// Names and values, names in lower case.
    type Fields = Vec<(Vec<u8>, Vec<u8>)>;

    const DATE: &[u8; 29] = b"Sun, 06 Nov 1994 08:49:37 GMT";

    /// Fields that any answer may have, in any order, some of them several times.
    fn fields(rng: &mut Rng) -> Fields {
        const KNOWN: [&str; 12] = [
            "date",
            "server",
            "set-cookie",
            "cache-control",
            "etag",
            "vary",
            "via",
            "location",
            "content-type",
            "www-authenticate",
            "trailer",
            "alt-svc",
        ];
        const TOKEN: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^`|~";
        let of = |from: &[u8], rng: &mut Rng| from[rng.below(from.len() as u32) as usize];
        let name = |rng: &mut Rng| match rng.below(3) {
            0 => [b"x".to_vec(), (0..rng.below(30)).map(|_| of(TOKEN, rng)).collect()].concat(),
            _ => KNOWN[rng.below(12) as usize].as_bytes().to_vec(),
        };
        let value = |rng: &mut Rng| {
            let inside: Vec<u8> = (33..127).chain(128..=255).chain(*b" \t").collect();
            let text: Vec<u8> = (0..rng.below(80)).map(|_| of(&inside, rng)).collect();
            text.trim_ascii().to_vec()
        };
        (0..rng.below(14)).map(|_| (name(rng), value(rng))).collect()
    }

    fn of_head(head: &ResponseHead) -> Fields {
        let fields = head.headers.iter();
        let each = fields.map(|field| {
            (head.headers.name(field).to_ascii_lowercase(), head.headers.value(field).to_vec())
        });
        each.collect()
    }

    /// An answer of a backend of HTTP/2 goes to a client of HTTP/1, and what that gets comes from a
    /// backend of HTTP/1 and goes to a client of HTTP/2.
    #[test]
    fn no_field_of_an_answer_changes_on_its_way_through_both_versions() {
        let limits =
            HeadLimits { head_bytes_max: 16 << 10, line_bytes_max: 1 << 10, fields_max: 50 };
        let to = |version| ToClient { method: Method::Get, version };
        for seed in 0..2_000 {
            let mut rng = Rng::seeded(seed);
            let (status, length) = (200 + rng.below(4) as u16, u64::from(rng.below(1 << 20)));
            let mut expected = fields(&mut rng);
            let mut block = Vec::new();
            hpack::status(status, &mut block);
            for (name, value) in &expected {
                hpack::field(name, value, &mut block);
            }
            let mut head = ResponseHead::default();
            read(&mut Decoder::default(), &block, &limits, &mut head).expect("an answer");
            assert_eq!((head.status, of_head(&head)), (status, expected.clone()), "seed {seed}");
            if !expected.iter().any(|(name, _)| name == b"date") {
                expected.push((b"date".to_vec(), DATE.to_vec()));
            }
            let body = BodyLength::Fixed(length);
            forward::response(&mut head, body, to(Version::Http11), || *DATE).unwrap();
            let mut text = Vec::new();
            write::response(&head, body, Connection::Unsaid, &mut text);

            let mut head = ResponseHead::default();
            let parsed = parse::response(&text, &limits, &mut head);
            assert_eq!(parsed, Ok(Parse::Done { used: text.len() }), "seed {seed}");
            let body = framing::response(Method::Get, &mut head).unwrap();
            assert_eq!((head.status, body), (status, BodyLength::Fixed(length)), "seed {seed}");
            expected.push((b"content-length".to_vec(), length.to_string().into_bytes()));
            assert_eq!(of_head(&head), expected, "seed {seed}");

            forward::response(&mut head, body, to(Version::Http2), || *DATE).unwrap();
            response::head((status, &head.headers), body, &mut block);
            let mut got = Fields::new();
            let take = |name: &[u8], value: &[u8]| got.push((name.to_vec(), value.to_vec()));
            Decoder::default().read(&block, take).expect("a block");
            expected.insert(0, (b":status".to_vec(), status.to_string().into_bytes()));
            assert_eq!(got, expected, "seed {seed}");
        }
    }
}
