//! The kernel does what this crate asks of it: real namespaces, rules, mounts and processes, as root
//! and as an ordinary user.
//!
//! Work inside a namespace is done by this very binary, started again for one test with a role (see
//! `world`), since a test harness has threads and must stay where it is.

mod callers;
mod children;
mod files;
mod leaks;
mod permissions;
mod pod;
mod redirection;
mod relay;
mod vanished;
mod world;
