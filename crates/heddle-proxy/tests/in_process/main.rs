//! Two sidecars in one process, on one thread, without a socket, under a clock that stands: what
//! depends on time is tried here, in no time, and takes the same course in every run.
#![expect(clippy::unwrap_used, reason = "a test says best what it expected by failing there")]

mod answers;
mod balancing;
mod breaking;
mod drain;
mod early;
mod faults;
mod heads;
mod held_up;
mod http2;
mod http2_attacks;
mod http2_bridges;
mod idle;
mod lost;
mod mesh;
mod mirrors;
mod one_hop;
mod own_calls;
mod pools;
mod races;
mod retries;
mod servers;
mod sni;
mod strangers;
mod tags;
mod taps;
mod telling;
mod timeouts;
mod tls;
mod traces;
mod traffic;
mod tunnels;
mod unserved;
