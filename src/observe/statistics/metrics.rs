//! The text of metrics, in the two formats that scrapers read: OpenMetrics 1.0, Prometheus 0.0.4.
//!
//! Names, kinds and sentences are those of `samples`; the spelling of both formats is the crate
//! `prometheus-client`. Nothing is kept between two scrapes.

use std::{borrow::Cow, fmt, time::Duration};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text},
    metrics::MetricType,
    registry::Registry,
};

use super::{Histogram, Kind, Sample, Statistics, Value};
use crate::base::quick_hash::QuickMap;

/// A format of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    OpenMetrics,
    Prometheus,
}

impl Format {
    /// The media type that an answer in this format has.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Prometheus => prometheus_text::CONTENT_TYPE,
        }
    }
}

/// Before each name but those of the process, which have the same names in all programs.
const PREFIX: &str = "ringway_";
const OF_ALL_PROGRAMS: &str = "process_";

/// The upper bounds of histograms, in microseconds. Each is a bound of a cell, so that the counts
/// are exact.
const BOUNDS: [u64; 20] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000,
    500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

/// A text that is made while it is written, so that no more of it is in memory than the writer has
/// room for.
pub(crate) type Text = Box<dyn FnOnce(&mut dyn fmt::Write) -> fmt::Result + Send>;

/// All numbers of the statistics as text.
pub(crate) fn text(statistics: Statistics, format: Format) -> Text {
    Box::new(move |mut out| {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Snapshot(statistics)));
        match format {
            Format::OpenMetrics => text::encode(&mut out, &registry),
            Format::Prometheus => prometheus_text::encode(&mut out, &registry),
        }
    })
}

#[derive(Debug)]
struct Snapshot(Statistics);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // A family stands in one piece.
        let (mut families, mut places) = (Vec::<Vec<Sample<'_>>>::new(), QuickMap::default());
        for sample in self.0.samples() {
            let place = *places.entry(sample.family).or_insert(families.len());
            match families.get_mut(place) {
                Some(family) => family.push(sample),
                None => families.push(vec![sample]),
            }
        }
        families.iter().try_for_each(|family| encode(&mut encoder, family))
    }
}

fn encode(encoder: &mut DescriptorEncoder<'_>, family: &[Sample<'_>]) -> fmt::Result {
    let Some(Sample { family: name, help, kind, .. }) = family.first() else { return Ok(()) };
    // The encoder writes the end of a counter's name itself.
    let stem = name.strip_suffix("_total").unwrap_or(name);
    let prefix = if stem.starts_with(OF_ALL_PROGRAMS) { "" } else { PREFIX };
    let stem = format!("{prefix}{stem}");
    let kind = match kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    };
    let mut all = encoder.encode_descriptor(&stem, help, None, kind)?;
    for Sample { labels, value, kind, .. } in family {
        let labels: &[(&str, Cow<'_, str>)] = labels;
        put(all.encode_family(&labels)?, value, *kind)?;
    }
    Ok(())
}

fn put(mut one: MetricEncoder<'_>, value: &Value<'_>, kind: Kind) -> fmt::Result {
    match (value, kind) {
        (Value::Count(count), Kind::Counter) => {
            one.encode_counter::<NoLabelSet, u64, f64>(count, None)
        }
        (Value::Number(number), Kind::Counter) => {
            one.encode_counter::<NoLabelSet, f64, f64>(number, None)
        }
        (Value::Count(count), Kind::Gauge | Kind::Histogram) => one.encode_gauge(count),
        (Value::Number(number), Kind::Gauge | Kind::Histogram) => one.encode_gauge(number),
        (Value::Times(times), _) => {
            let sum = times.sum().as_secs_f64();
            one.encode_histogram::<NoLabelSet>(sum, times.count(), &buckets(times), None)
        }
    }
}

/// Upper bounds in seconds, and how many times are in each bucket.
fn buckets(times: &Histogram) -> Vec<(f64, u64)> {
    let mut before = 0;
    let mut bucket = |bound: f64, up_to: u64| {
        let own = up_to.saturating_sub(before);
        before = up_to;
        (bound, own)
    };
    let bounds = BOUNDS.map(|micros| (micros as f64 / 1e6, Duration::from_micros(micros)));
    let mut buckets: Vec<_> =
        bounds.into_iter().map(|(bound, time)| bucket(bound, times.below(time))).collect();
    buckets.push(bucket(f64::INFINITY, times.count()));
    buckets
}
