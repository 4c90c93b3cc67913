//! The plays: the whole proxy on loopback, between scripted clients and scripted backends.
//!
//! Every play of the wire runs on both drivers. A play reads like what a user would see: it sets a
//! stage (`stage.rs`), sends raw bytes through a client of its own (`client.rs`) and looks at what
//! the backends received (`backend.rs`). Nothing here shares code with the crate, so that a mistake
//! in it cannot excuse itself; only the library's public API is used (`ringway::start`).
//!
//! Those whose subject does not depend on it are also played over TLS (`secure.rs`) and over each
//! pair of versions of HTTP (`translated.rs`).
//!
//! Every socket has a deadline, so a hang is a failure with a message; nothing sleeps for luck.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a play that cannot go on has failed")]
#![allow(clippy::result_large_err, reason = "what was read of a broken answer is told with it")]

mod addresses;
mod backend;
mod chance;
mod client;
mod frames;
mod instance;
mod kernel;
mod mortal;
mod name_server;
mod pace;
mod scripts;
mod secure;
#[macro_use]
mod stage;
mod streams;
mod translated;
mod wire;

mod rehearsal;

mod certificates;
mod http2;
mod http2_behind;
mod keep_alive;
mod peers;
mod tls;
mod tls_behind;
mod tls_records;
mod versions;

mod bodies;
mod bulk;
mod early;
mod interim;
mod introduced;
mod mutations;
mod peek;
mod pieces;
mod proxied;
mod random;
mod tcp;
mod tunnel;
mod uploads;
mod websocket;

mod floods;
mod forwarded;
mod hygiene;
mod ids;
mod smuggling;
mod targets;

mod again;
mod attempts;
mod balance;
mod changes;
mod cores;
mod databases;
mod descriptors;
mod health;
mod hedging;
mod level;
mod misbehaviour;
mod names;
mod places;
mod poison;
mod queue;
mod rescue;
mod reuse;
mod sticky;
mod suspicion;
mod trials;

mod aborts;
mod blame;
mod chaos;
mod duplex;
mod endings;
mod evicted;
mod failure;
mod faults;
mod late;
mod limits;
mod lingering;
mod timeouts;
mod turns;

mod events;
mod explain;
mod history;
mod injected;
mod logs;
mod manual;
mod metrics;
mod webhooks;

mod kept;
mod observing;
mod operations;
mod process;
mod reload;
mod reloads;
mod run_time;
mod stop;
mod supervised;
mod told;
mod units;
mod unix;
mod upgrade;
mod user;
