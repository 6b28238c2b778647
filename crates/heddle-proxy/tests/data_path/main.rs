//! The data path over loopback: a real worker between raw sockets and backends that misbehave.
//!
//! Nothing is redirected: each listener of the harness stands for one original destination.
#![expect(clippy::unwrap_used, reason = "a test says best what it expected by failing there")]

mod codec;
mod edges;
mod ingress;
mod limits;
mod metrics;
mod protocol;
mod retries;
mod rules;
mod services;
mod support;
mod tcp;
