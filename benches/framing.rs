//! Body framing: without a body, and with a length among other fields.

use criterion::{Criterion, criterion_group, criterion_main};
use ringway::bench::Connection;
use std::hint::black_box;

const BROWSER: &[u8] = include_bytes!("heads/browser.txt");
const NGINX: &[u8] = include_bytes!("heads/nginx.txt");

fn framing(criterion: &mut Criterion) {
    let mut connection = Connection::default();
    assert!(connection.parse(BROWSER) && connection.parse_response(NGINX));
    criterion.bench_function("framing/browser", |bencher| {
        bencher.iter(|| black_box(&connection).framing());
    });
    criterion.bench_function("framing/nginx", |bencher| {
        bencher.iter(|| black_box(&mut connection).framing_response());
    });
}

criterion_group!(benches, framing);
criterion_main!(benches);
