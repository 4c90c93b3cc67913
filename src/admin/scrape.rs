//! The call of scrapers: metrics as text, in the format that they prefer.

use super::{Doors, answer::Answer, request::Request};
use crate::observe::statistics::metrics::Format;

/// All metrics.
pub(super) fn answer(request: &Request, doors: &impl Doors) -> Answer {
    let format = preferred(request.head.headers.named(b"accept"));
    let Some(text) = doors.metrics(format) else {
        return Answer::error(503, "hung", "the process does not answer");
    };
    let mut answer = Answer::empty(200);
    (answer.content_type, answer.body) = (format.content_type(), text.into_bytes());
    answer
}

/// OpenMetrics where it is asked for at least as much as the older format (RFC 9110 §12.5.1).
fn preferred<'a>(accept: impl Iterator<Item = &'a [u8]>) -> Format {
    let (mut open, mut plain) = (0, 0);
    for range in accept.flat_map(|line| line.split(|byte| *byte == b',')) {
        let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let media = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix(b"q=")).map_or(1_000, thousandths);
        match media {
            media if media.eq_ignore_ascii_case(b"application/openmetrics-text") => {
                open = weight.max(open);
            }
            media if media.eq_ignore_ascii_case(b"text/plain") => plain = weight.max(plain),
            _ => {}
        }
    }
    if open > 0 && open >= plain { Format::OpenMetrics } else { Format::Prometheus }
}

/// A weight (RFC 9110 §12.4.2); what is none counts as nought.
fn thousandths(weight: &[u8]) -> u32 {
    let weight = str::from_utf8(weight).ok().and_then(|text| text.parse::<f64>().ok());
    weight.filter(|weight| (0.0..=1.0).contains(weight)).map_or(0, |it| (it * 1_000.0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_one_that_is_asked_for_most() {
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                            application/openmetrics-text;version=0.0.1;q=0.5,\
                            text/plain;version=1.0.0;q=0.4,\
                            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, expected) in [
            (&[][..], Format::Prometheus),
            (&["*/*"], Format::Prometheus),
            (&["text/plain"], Format::Prometheus),
            (&["application/openmetrics-text"], Format::OpenMetrics),
            (&[prometheus_3], Format::OpenMetrics),
            (&["text/plain", "application/openmetrics-text; q=0.5"], Format::Prometheus),
            (&["application/openmetrics-text; q=0"], Format::Prometheus),
            (&["application/openmetrics-text; q=x"], Format::Prometheus),
            (&["Application/OpenMetrics-Text; version=1.0.0"], Format::OpenMetrics),
        ] {
            let lines = accept.iter().map(|line| line.as_bytes());
            assert_eq!(preferred(lines), expected, "{accept:?}");
        }
    }
}
