//! Parsing heads: the smallest head there is, a browser's, and an answer of nginx.

use criterion::{Criterion, criterion_group, criterion_main};
use ringway::bench::Connection;
use std::hint::black_box;

const WRK: &[u8] = include_bytes!("heads/wrk.txt");
const BROWSER: &[u8] = include_bytes!("heads/browser.txt");
const NGINX: &[u8] = include_bytes!("heads/nginx.txt");

fn parse(criterion: &mut Criterion) {
    let mut connection = Connection::default();
    for (name, head) in [("parse/wrk", WRK), ("parse/browser", BROWSER)] {
        assert!(connection.parse(head));
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| connection.parse(black_box(head)));
        });
    }
    assert!(connection.parse_response(NGINX));
    criterion.bench_function("parse/nginx", |bencher| {
        bencher.iter(|| connection.parse_response(black_box(NGINX)));
    });
}

criterion_group!(benches, parse);
criterion_main!(benches);
