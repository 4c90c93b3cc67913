//! Finding the route of a request among a thousand: on one host by path, on a hundred hosts by name
//! and by suffix, without a match, and with a path that must be normalised first.

use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use ringway::{
    bench::Routes,
    plan::{HostPattern, PathPattern, PoolId, Route, RouteId, Table},
};

const ROUTES: usize = 1_000;

fn route(number: usize, host: Option<HostPattern>, path: String) -> Arc<Route> {
    let mut route = Route::new(format!("r{number}"), PoolId(0));
    route.hosts = host.into_iter().collect();
    route.path = PathPattern::Prefix(path);
    Arc::new(route)
}

/// A thousand services on one host.
fn by_path() -> Table<RouteId, Arc<Route>> {
    (0..ROUTES).map(|number| route(number, None, format!("/service-{number}/v1"))).collect()
}

/// Ten parts of each of a hundred shops.
fn by_host(pattern: fn(String) -> HostPattern) -> Table<RouteId, Arc<Route>> {
    let shop = |number: usize| {
        let host = pattern(format!("shop{}.example.com", number / 10));
        route(number, Some(host), format!("/part-{}/v1", number % 10))
    };
    (0..ROUTES).map(shop).collect()
}

fn find(criterion: &mut Criterion) {
    let named = || by_host(HostPattern::Exact);
    let suffix = || by_host(|host| HostPattern::Suffix(format!(".{host}")));
    let cases = [
        ("path", by_path(), "www.example.com", "/service-777/v1/items/42", true),
        ("spelled", by_path(), "www.example.com", "/service%2D777/v1/items/42", true),
        ("name", named(), "Shop77.example.com:8080", "/part-7/v1/items/42", true),
        ("suffix", suffix(), "a.b.shop77.example.com", "/part-7/v1/items/42", true),
        ("none", suffix(), "a.b.c.example.com", "/part-7/v1/items/42", false),
    ];
    for (case, routes, host, path, found) in cases {
        let mut routes = Routes::compile(&routes);
        routes.ask(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        assert_eq!(routes.find(), found, "{case}");
        criterion.bench_function(&format!("route/{case}"), |bencher| {
            bencher.iter(|| routes.find());
        });
    }
}

criterion_group!(benches, find);
criterion_main!(benches);
