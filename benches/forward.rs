//! Forwarding a head: parsed, framed, edited, written.

use criterion::{Criterion, criterion_group, criterion_main};
use ringway::bench::Connection;
use std::hint::black_box;

const WRK: &[u8] = include_bytes!("heads/wrk.txt");
const BROWSER: &[u8] = include_bytes!("heads/browser.txt");
const NGINX: &[u8] = include_bytes!("heads/nginx.txt");

fn forward(criterion: &mut Criterion) {
    let mut connection = Connection::default();
    for (name, head) in [("relay/wrk", WRK), ("relay/browser", BROWSER)] {
        assert!(!connection.relay(head).is_empty());
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| connection.relay(black_box(head)).len());
        });
    }
    assert!(!connection.relay_response(NGINX).is_empty());
    criterion.bench_function("relay/nginx", |bencher| {
        bencher.iter(|| connection.relay_response(black_box(NGINX)).len());
    });
}

criterion_group!(benches, forward);
criterion_main!(benches);
