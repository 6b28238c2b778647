//! The discovery client: asks the control plane on first use, keeps what was used, gives back what
//! is idle, and puts each generation in force in one snapshot.
//!
//! [`state`] decides, [`client`] moves messages, [`report`] tells the control plane where the
//! application listens. Where the control plane knows a sidecar by its certificate, [`certifier`] keeps one
//! ([`certificate`]), and [`link`] shows it. All of it runs on thread 0; workers see snapshots and ask by `Lookup`.

mod certificate;
mod certifier;
mod client;
mod decode;
mod link;
mod report;
#[cfg(test)]
mod secure_tests;
mod staging;
mod state;
mod subscriptions;
#[cfg(test)]
mod tests;
mod waiters;

pub(crate) use self::{client::Discovery, link::channel, report::Reporter};
pub use self::{
    subscriptions::{ADDRESSES_MAX, DESTINATIONS_MAX, IDLE_MAX, NAMES_MAX},
    waiters::WAITERS_MAX,
};
