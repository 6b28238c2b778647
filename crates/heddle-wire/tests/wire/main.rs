//! The crate's tests by its public interface: tables of rules, a smuggling corpus, properties.

mod bodies;
mod client_hello;
mod detection;
mod discovery_resources;
mod discovery_transport;
mod head_rules;
mod properties;
mod smuggling;
mod support;
mod writing;
