//! The data plane: accept, destination, protocol, route, pick, forward, record.
//!
//! Thread 0 talks to the control plane and answers DNS, metrics and health; the workers share
//! nothing but what is in [`Shared`].

pub mod admin;
mod balancers;
pub mod broker;
pub mod discovery;
pub mod dns;
mod forward;
pub mod host_ports;
mod http;
pub mod inbound;
pub mod limits;
pub mod listening;
pub mod lookup;
pub mod memory;
pub mod metrics;
pub mod outbound;
mod outcome;
mod pool;
pub mod probe;
pub mod protocol;
pub mod refusal;
pub mod saved;
pub mod shared;
pub mod sidecar;
pub mod snapshot;
mod tcp;
#[cfg(test)]
mod testing;
pub mod worker;

pub use self::{
    shared::Shared,
    sidecar::{ProxyError, run},
};

/// Says an error on binding an IPv6 address that this machine has no IPv6?
pub(crate) fn lacks_ipv6(error: &std::io::Error) -> bool {
    /// Linux: no such address family; no such address.
    const EAFNOSUPPORT: i32 = 97;
    const EADDRNOTAVAIL: i32 = 99;
    matches!(error.raw_os_error(), Some(EAFNOSUPPORT | EADDRNOTAVAIL))
}
