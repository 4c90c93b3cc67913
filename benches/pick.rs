//! Picking a backend among 3, 64 and 1,024, all of one weight and of seven, by each algorithm.

use criterion::{Criterion, criterion_group, criterion_main};
use ringway::{
    bench::Picks,
    plan::{Address, Algorithm, Backend, HashOf, Pool, Share},
};

const ALGORITHMS: [(&str, Algorithm); 6] = [
    ("round-robin", Algorithm::RoundRobin),
    ("random", Algorithm::Random),
    ("least-connections", Algorithm::LeastConnections),
    ("least-response-time", Algorithm::LeastResponseTime),
    ("hash", Algorithm::Hash { of: HashOf::Uri, bound: None }),
    ("bounded-hash", Algorithm::Hash { of: HashOf::Uri, bound: Some(Share::percent(125)) }),
];

fn pool(algorithm: Algorithm, backends: u16, weights: u16) -> Pool {
    let backend = |id: u16| {
        let address = Address::Socket(([127, 0, 0, 1], id).into());
        let mut backend = Backend::new(format!("b{id}"), address);
        backend.weight = 1 + id % weights;
        backend
    };
    let mut pool = Pool::default();
    pool.backends = (0..backends).map(backend).collect();
    pool.algorithm = algorithm;
    pool
}

fn pick(criterion: &mut Criterion) {
    for (name, algorithm) in ALGORITHMS {
        for (backends, weights) in [(3, 1), (3, 7), (64, 1), (64, 7), (1024, 1), (1024, 7)] {
            let mut picks = Picks::new(&pool(algorithm.clone(), backends, weights));
            assert!(picks.pick());
            let case = format!("pick/{name}/{backends}/{weights}");
            criterion.bench_function(&case, |bencher| bencher.iter(|| picks.pick()));
        }
    }
}

criterion_group!(benches, pick);
criterion_main!(benches);
