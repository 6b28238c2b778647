//! The control plane by its two sockets: an HTTP client, and proxies that speak discovery.
#![expect(clippy::unwrap_used, reason = "a test's helper fails its test by panicking")]

mod plane;
mod proxy;

mod any_file;
mod discovery;
mod entries;
mod folder;
mod members;
mod routes;
mod rules;
mod store;
