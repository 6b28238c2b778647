//! A mesh in a cluster, as a person reaches it who has a kubeconfig and nothing else: its pods by the API server's
//! port-forward, its rules in the API server itself.
//!
//! This is no part of a running control plane. Everything is done with the rights of the person who calls, and each
//! error says in one sentence what is missing and what to do about it.

mod access;
mod cluster;
mod error;
mod explain;
mod forward;
mod pods;
mod rules;

pub use access::current_context;
pub use cluster::Reach;
pub use error::ReachError;
pub use forward::{Forwarded, WhyNot};
pub use pods::{Part, PodAt};
pub use rules::{Object, Put, Written};
