//! The data plane: accept, destination, protocol, route, pick, forward, record.
//!
//! Thread 0 talks to the control plane and answers DNS, metrics and health; the workers share
//! nothing but what is in [`Shared`].

pub mod accept;
mod access_log;
pub mod admin;
mod backlog;
pub mod breaker;
pub mod broker;
mod buffers;
mod call;
mod caller;
mod capture;
mod compared;
mod connection;
mod deadline;
pub mod dial;
pub mod direction;
pub mod discovery;
pub mod dns;
mod exchange;
pub mod explain;
mod export;
mod facts;
mod foreign;
mod forward;
mod frames;
mod heartbeat;
pub mod host_ports;
mod http1;
mod http2;
mod http_seen;
mod inbound;
pub mod limits;
pub mod listening;
pub mod lookup;
pub mod memory;
mod messages;
pub mod metrics;
mod mirror;
pub mod observers;
mod one_hop;
mod outbound;
mod outgoing;
mod outside;
pub mod outside_names;
mod path_template;
mod paths;
mod pool;
mod ports;
pub mod probe;
mod protocol;
pub mod ranges;
mod read_through;
pub mod recent;
mod record;
pub mod refusal;
mod relay;
mod reply;
mod request_id;
pub mod resolved;
pub mod saved;
mod series;
pub mod shared;
mod side;
pub mod sidecar;
pub mod snapshot;
pub mod spans;
pub mod state;
mod streams;
pub mod tap;
mod tcp_fault;
mod tee;
#[cfg(test)]
mod testing;
mod trace;
mod upstream;
pub mod verdict;
pub mod worker;

pub use self::{
    shared::Shared,
    sidecar::{ProxyError, run},
};
