//! The control plane of a cluster: what its objects say is the mesh.
//!
//! | question | module |
//! |---|---|
//! | what of an object is looked at | `objects` |
//! | what services and workloads they make up | `registry` |
//! | how they are read and followed | `client`, `watch`, `source`, `health` |
//! | which of them are rules, and what their status says | `served`, `rules`, `status`, `progress` |
//! | who writes | `leader` |
//! | what pods and the API server are told | `keeper`, `trust`, `tokens`, `admission` |
//! | what is told about us | `serve`, `replica` |
//! | what the mesh's observer is told | `observers` |
//!
//! The cluster's own store is the only one: nothing is kept on a disk. A replica serves from when it has read
//! everything once; after that it goes on from memory, whatever becomes of the API server.

mod admission;
pub(crate) mod client;
mod config;
pub(crate) mod health;
pub(crate) mod keeper;
pub(crate) mod leader;
pub(crate) mod objects;
mod observers;
pub(crate) mod progress;
pub(crate) mod registry;
mod replica;
pub(crate) mod rules;
pub(crate) mod serve;
pub(crate) mod served;
pub(crate) mod source;
mod start;
pub(crate) mod status;
#[cfg(test)]
mod tests;
pub(crate) mod tokens;
pub(crate) mod trust;
pub(crate) mod watch;

pub use config::KubernetesConfig;
pub use start::{KubernetesError, PORT_OBSERVERS, run};
