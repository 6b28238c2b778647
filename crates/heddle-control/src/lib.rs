//! The control plane of one mesh: sources and members in, discovery out.
//!
//! | question | module |
//! |---|---|
//! | who is in the mesh, with which addresses | `population`: `registry`, `pool`, `journal`, or `kubernetes` |
//! | which rules are in force, and whose they are | `rules`, `files`, `store` |
//! | what a client is told | `views`, `verify` (the rules themselves: `heddle-compile`) |
//! | what one proxy asked for, holds and has acknowledged | `session` |
//! | what becomes of a pod, and of an object before a cluster takes it | [`injection`], [`webhook`] |
//! | all of it at one moment | `mesh`, `generations` |
//! | the mesh's own objects in a cluster, for whoever installs it | `installation`, [`revision`] |
//! | that mesh, for the tools of a person | `reach` |
//! | a call or a message, done | `control`, `api`, `server` |
//! | who a proxy is | [`ca`], `caller`; over TLS: [`secure`] |
//!
//! Everything runs on one thread. The mesh is behind one lock that is never held while waiting;
//! files and the store are read and written off that thread.
#![forbid(unsafe_code)]

mod api;
pub mod ca;
mod caller;
mod causes;
mod config;
mod control;
mod credentials;
mod documents;
mod error;
mod files;
mod generations;
pub mod injection;
pub mod installation;
mod journal;
pub mod kubernetes;
mod limits;
mod mesh;
mod pool;
mod population;
pub mod reach;
mod registry;
pub mod revision;
mod rules;
pub mod secure;
mod server;
mod session;
mod signals;
mod start;
mod store;
mod verify;
mod views;
pub mod webhook;

pub use heddle_compile::TelemetryDefault;

pub use config::{AddressRanges, ControlConfig};
pub use error::ControlError;
pub use start::{run, run_until};
pub use store::StoreError;
