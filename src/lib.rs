//! Ringway: a load balancer and reverse proxy for Linux, one pinned thread and one io_uring per
//! core.
//!
//! Most people run the binary. A program that embeds it turns a text into a plan, starts a balancer
//! from the plan, and receives its events.
//!
//! ```
//! use ringway::{Stop, config, events::Event};
//!
//! let text = r#"
//!     [global]
//!     cores = 1
//!
//!     [listener.web]
//!     bind = "127.0.0.1:0"
//!     pool = "app"
//!
//!     [pool.app]
//!     backends = ["127.0.0.1:3000", "127.0.0.1:3001"]
//! "#;
//! let loaded = config::parse("embedded.toml", text)?;
//! let balancer = ringway::start(loaded.plan)?;
//! for (listener, endpoint) in balancer.addresses() {
//!     println!("{listener} listens on {endpoint}");
//! }
//! let events = balancer.events();
//! std::thread::spawn(move || {
//!     for happened in events {
//!         match &happened.event {
//!             Event::BackendDown(it) => println!("{} is down: {}", it.backend, it.cause),
//!             other => println!("{}", other.sentence()),
//!         }
//!     }
//! });
//! balancer.stop(Stop::Graceful);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The modules are listed from the ground up. A module uses only those above it in this list, and
//! its own folder. `docs/ARCHITECTURE.md` has more about each.
//!
//! | module | what it is |
//! |---|---|
//! | `base` | General-purpose types: sets, tables by id, time, randomness, histograms. |
//! | `http` | HTTP messages as pure functions of bytes: strict in, canonical out. |
//! | `certs` | Certificates: from the bytes of files to what TLS signs with and trusts. |
//! | [`plan`] | The checked configuration as immutable data, with ids in place of names. |
//! | [`config`] | From files that people write to a plan, or to everything wrong in them. |
//! | `policy` | Decisions, one file each: values in, a verdict out. |
//! | `shared` | State that threads share; the only atomics. |
//! | `net` | Sockets, buffers, deadlines and clocks on io_uring or epoll. |
//! | `observe` | Events, access logs, the operational log, statistics. |
//! | `proto` | HTTP/1 over a stream, for clients and for backends. |
//! | `conns` | Connection pools: idle connections to backends, per core. |
//! | `worker` | The state of one core: its view of the plan, its buffers and counters. |
//! | `exchange` | One request and its answer, step by step; begin with `exchange/run.rs`. |
//! | `health` | The thread that probes backends and decides which are usable. |
//! | `admin` | The admin interface: HTTP for operators, on a thread of its own. |
//! | `server` | Starts and stops the threads; the public API. |
//! | `demo` | Three built-in origins and a balancer in front of them. |
//! | `cli` | The command line of the binary. |

mod base;

mod http;

mod certs;
pub mod plan;

pub mod config;
mod policy;
mod shared;

mod net;
mod observe;

mod proto;

mod conns;

mod worker;

mod exchange;

mod health;

mod admin;

mod server;

mod demo;

mod cli;

#[cfg(any(test, feature = "bench"))]
#[doc(hidden)]
pub mod bench;

#[cfg(test)]
mod testkit;

/// What happens in a running balancer, as typed values: [`Handle::events`].
pub mod events {
    pub use crate::observe::{
        event::{
            AccessLog, Attempt, Backend, Certificate, Change, Event, Named, Request, Transition,
            Usable,
        },
        events::{Events, Happened},
    };
    pub use crate::policy::{
        health::ProbeFault,
        standing::{Cause, Failed},
        suspicion::Silence,
    };
}

pub use observe::statistics;
pub use server::{
    ChangeError, DriverInUse, Endpoint, Handle, Holder, Options, StartError, Stop, UnixPath, start,
    start_with,
};

#[doc(hidden)]
pub use cli::main as command_line;
