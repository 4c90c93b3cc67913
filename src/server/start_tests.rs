//! Tests of starts that work and of those that are refused: plans made from files, and plans made
//! by hand.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use super::{Stop, start};
use crate::config::{self, Overrides};
use crate::plan::{Address, Checked, Cores, ListenerId, Plan, PoolId};

/// Every file that is shipped.
fn shipped() -> Vec<PathBuf> {
    let entries = fs::read_dir("config").unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect()
}

#[test]
fn shipped_files_serve() {
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = origin.local_addr().unwrap();
    // Ends with the test's process: it has nothing to finish.
    std::thread::spawn(move || {
        for stream in origin.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            if stream.read(&mut head).unwrap_or(0) > 0 {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
                stream.write_all(answer).unwrap();
            }
        }
    });
    for path in shipped() {
        let loaded = config::load(std::slice::from_ref(&path), &Overrides::default()).unwrap();
        let mut plan = loaded.plan.into_plan();
        plan.global.cores = Cores::Count(1);
        plan.global.pin = false;
        plan.limits.connections = 100;
        for listener in plan.listeners.values_mut() {
            listener.bind = vec!["127.0.0.1:0".parse().unwrap()];
            listener.access_log = None;
            listener.proxies = None;
        }
        for pool in plan.pools.values_mut().map(Arc::make_mut) {
            // Its key would be made in a folder that is not the test's.
            pool.sticky = None;
            if let Some(health) = &mut pool.health {
                health.port = None;
            }
        }
        for backend in
            plan.pools.values_mut().map(Arc::make_mut).flat_map(|pool| pool.backends.values_mut())
        {
            backend.address = Address::Socket(address);
        }
        let handle = start(Checked::new(plan)).unwrap();
        let listening = handle.addresses()[0].1.tcp().unwrap();
        let mut client = TcpStream::connect(listening).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n";
        client.write_all(request).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{}: {answer}", path.display());
        assert!(answer.ends_with("ok"), "{}: {answer}", path.display());
        handle.stop(Stop::Now);
    }
}

fn plan() -> Plan {
    let text = "[global]\ncores = 1\npin = false\n[global.limits]\nconnections = 100\n\
                [listener.web]\nbind = \"127.0.0.1:0\"\npool = \"app\"\n\
                [pool.app]\nbackends = [\"127.0.0.1:9\"]\n";
    config::parse("start.toml", text).unwrap().plan.into_plan()
}

/// Only a check makes a `Checked`; if that has a bug, no id may index past the end of anything on a
/// core.
#[test]
fn an_id_that_leads_nowhere_reaches_no_core() {
    let refused = |plan| start(Checked::new(plan)).err().map(|refused| refused.to_string());
    let mut astray = plan();
    astray.listeners.get_mut(ListenerId(0)).unwrap().pool = Some(PoolId(9));
    let expected = "listener \"web\" leads to what is not in the plan";
    assert_eq!(refused(astray).as_deref(), Some(expected));
    let mut twice = plan();
    let again = twice.pool(PoolId(0)).clone();
    twice.pools.insert(PoolId(7), Arc::new(again));
    assert_eq!(refused(twice).as_deref(), Some("two pools are called \"app\""));
}

#[test]
fn a_plan_with_holes_starts() {
    let mut sparse = plan();
    let pool = sparse.pools.remove(PoolId(0)).unwrap();
    sparse.pools.insert(PoolId(7), pool);
    sparse.listeners.get_mut(ListenerId(0)).unwrap().pool = Some(PoolId(7));
    start(Checked::new(sparse)).unwrap().stop(Stop::Now);
}
