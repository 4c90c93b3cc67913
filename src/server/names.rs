//! Looking up the names of backends, off the cores.

use std::net::ToSocketAddrs;

use crate::plan::{Address, Plan};

/// Looks up every name of the plan once; the names that gave nothing, with the reason.
pub(super) fn resolve(plan: &mut Plan) -> Vec<String> {
    let mut failed = Vec::new();
    for pool in &mut plan.pools {
        for backend in &mut pool.backends {
            let Address::Name { host, port, found } = &mut backend.address else { continue };
            match (host.as_str(), *port).to_socket_addrs() {
                Ok(addresses) => *found = addresses.collect(),
                Err(error) => failed.push(format!(
                    "pool \"{}\": backend `{host}:{port}` does not resolve: {error}",
                    pool.name
                )),
            }
        }
    }
    failed
}
