//! Plays of backends that are configured by name.
//!
//! Changes while the proxy runs are played in `src/server/names/tests.rs`, where the answers for
//! names are scripted. Here the system answers; the top-level domain `invalid` never exists (RFC
//! 6761 §6.4).

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ringway::{Stop, events::Event};

use crate::{
    backend::Backend,
    scripts::answers,
    stage::{Driver, Setting, Stage},
};

on_both_drivers!(
    localhost_is_ipv4_and_ipv6,
    a_name_that_does_not_resolve_is_passed_over,
    a_pool_of_names_that_do_not_resolve_says_so,
    a_stop_does_not_wait_for_names,
);

fn named(setting: Setting, host: &str, backend: &Backend) -> Setting {
    setting.written(format!("{host}:{}", backend.address().port()))
}

/// Names that were not resolved when the proxy started, and why.
fn unknown(stage: &Stage) -> Vec<(String, String)> {
    let unknown = |event| match event {
        Event::NameUnknown { name, cause, .. } => {
            Some((name.address.to_string(), cause.to_string()))
        }
        _ => None,
    };
    stage.happened().into_iter().filter_map(unknown).collect()
}

fn localhost_is_ipv4_and_ipv6(driver: Driver) {
    let four = Backend::open_on(Ipv4Addr::LOCALHOST.into(), answers("four"));
    let six = Backend::open_on(Ipv6Addr::LOCALHOST.into(), answers("six"));
    for (backend, expected) in [(&four, "four"), (&six, "six")] {
        for host in ["localhost", "LOCALHOST", "app.localhost"] {
            let stage = named(Stage::on(driver), host, backend).start();
            assert_eq!(unknown(&stage), []);
            let mut client = stage.connect();
            for _ in 0..5 {
                client.get("/").expect(200, expected);
            }
            assert_eq!(stage.count("retries_total"), 0);
            assert_eq!(stage.count("backend_connections_opened_total"), 1);
        }
        assert_eq!(backend.complaints(), [""; 0]);
    }
}

fn a_name_that_does_not_resolve_is_passed_over(driver: Driver) {
    let stage = Stage::on(driver).written("nowhere.invalid:80").backend(answers("here")).start();
    let [(name, cause)] = &unknown(&stage)[..] else { panic!("{:?}", stage.happened()) };
    // If no name server can be reached, the system takes its time to say so.
    assert!(name == "nowhere.invalid:80" && !cause.is_empty(), "{name}: {cause}");
    let mut client = stage.connect();
    for _ in 0..10 {
        client.get("/").expect(200, "here");
    }
    assert_eq!(stage.count("retries_total"), 0, "nobody tried the one without an address");
}

fn a_pool_of_names_that_do_not_resolve_says_so(driver: Driver) {
    let stage = Stage::on(driver).written("nowhere.invalid:80").written("never.invalid:80").start();
    assert_eq!(unknown(&stage).len(), 2);
    let response = stage.get("/");
    response.expect_fault(503, "no_backend");
    assert!(response.text().contains("No healthy backends available"));
}

fn a_stop_does_not_wait_for_names(driver: Driver) {
    let mut stage =
        Stage::on(driver).written("nowhere.invalid:80").pool("resolve = \"1d\"").start();
    let (took, _) = stage.stop_beside(Stop::Graceful).join().unwrap();
    took.expect_at_most(Duration::from_secs(2));
}
