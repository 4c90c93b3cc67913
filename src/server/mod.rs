//! Start and stop of the threads: the public API, from a plan to a handle.
//!
//! Floor 10. Everything that can fail is done before the first worker serves: cores are chosen,
//! addresses bound. So a refused start has changed nothing. Names are looked up off the cores.

mod accept;
mod access_logs;
mod addresses;
mod admin_doors;
mod backend_writes;
mod certificates;
mod cgroup;
mod changes;
pub(crate) mod check;
mod chronicle;
pub(crate) mod connection;
mod control;
mod cores;
mod crew;
mod descriptors;
mod ends;
mod explain;
mod given;
mod handle;
mod health_thread;
mod http2;
#[cfg(test)]
mod http2_wire_tests;
mod ledger;
mod level;
mod linger;
mod names;
mod operational_log;
mod options;
mod panic_net;
mod peek;
mod process;
mod proxied;
mod readers;
mod refusal;
mod reload;
mod roster;
mod run;
mod secrets;
mod secure;
mod self_signed;
mod service_manager;
mod serving;
mod signals;
mod spawn;
mod start;
mod start_error;
#[cfg(test)]
mod start_tests;
mod state_file;
pub(crate) mod stderr;
mod tell;
mod upgrade;
mod user;
mod views;
mod vitals;
mod webhooks;

pub(crate) use self::{
    admin_doors::{AdminInterface, token as admin_token},
    chronicle::history_on_disk,
    process::run as main,
    reload::Source,
    self_signed::self_signed,
    upgrade::tell_refusal,
};
pub use self::{
    handle::{ChangeError, Handle, Stop},
    options::Options,
    start::{start, start_with},
    start_error::{Holder, StartError},
};
pub use crate::base::endpoint::{Endpoint, UnixPath};
pub use crate::net::runtime::DriverInUse;
