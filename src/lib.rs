//! Ringway: a load balancer and reverse proxy for Linux, one pinned thread and one io_uring per
//! core.
//!
//! Most people run the binary. A program that embeds it makes a plan of a text, a running balancer
//! of the plan, and hears what happens.
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
//! The modules in reading order, from the ground up; a module uses only those above it in this
//! list, and its own folder. `docs/ARCHITECTURE.md` says more of each.
//!
//! | module | what it is |
//! |---|---|
//! | `base` | Things that have never heard of HTTP: sets, tables by id, time, chance, histograms. |
//! | `http` | What an HTTP message is: bytes in, bytes out, strict in and canonical out. |
//! | [`plan`] | A configuration that has been checked: immutable data, ids instead of names. |
//! | [`config`] | From the files that a person wrote to a plan, or to what is wrong with them. |
//! | `policy` | Every decision, a file each: values in, a verdict out. |
//! | `shared` | Everything that two threads can both see; the only atomics. |
//! | `net` | Sockets, buffers and deadlines: all that the data path knows of the ring. |
//! | `observe` | What is told of what happened: events, access logs, statistics. |
//! | `proto` | HTTP/1 over a stream, for clients and for backends. |
//! | `conns` | Connections to backends, kept warm by one core. |
//! | `worker` | All that one core owns: its view of the plan, its buffers and counters. |
//! | `exchange` | One request and its answer, step by step; begin with `exchange/run.rs`. |
//! | `health` | The thread that probes backends and decides which are usable. |
//! | `admin` | What operators ask of a running process, over HTTP on a thread of its own. |
//! | `server` | Starts the threads and stops them; the public door. |
//! | `demo` | Three built-in origins and a balancer in front of them. |
//! | `cli` | The command line of the binary. |

mod base;

mod http;

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

#[cfg_attr(not(test), expect(dead_code, reason = "reloads open it"))]
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
        event::{AccessLog, Attempt, Backend, Event, Named, Transition, Usable},
        events::{Events, Happened},
    };
    pub use crate::policy::{health::ProbeFault, standing::Cause};
}

pub use server::{
    DriverInUse, Endpoint, Handle, Holder, Options, StartError, Stop, start, start_with,
};

#[doc(hidden)]
pub use cli::main as command_line;
