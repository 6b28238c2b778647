//! Local mode end to end: the built binary, real namespaces, unmodified programs (python3, nginx, node,
//! redis, curl, Prometheus, Chromium), as root and as an ordinary user. What cannot be tried on a machine is skipped, loudly.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test says best what it expected by failing there; skips are told"
)]

mod balancing;
mod breaking;
mod codec;
mod counting;
mod deaths;
mod demo;
mod entries;
mod explaining;
mod faults;
mod gateway;
mod grpc_interop;
mod hands;
mod host;
mod http2;
mod ingress;
mod memory;
mod meshes;
mod outside;
mod programs;
mod promql;
mod reach;
mod rules;
mod short_lived;
mod side_by_side;
mod talk;
mod taps;
mod target_ports;
mod telling;
mod tls;
mod together;
mod tools;
mod trace_store;
mod traces;
mod uploads;

/// Makes two tests of one function of a [`host::Machine`]: as root and as an ordinary user.
macro_rules! as_both_users {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => { $(
        $(#[$doc])*
        mod $name {
            #[test]
            fn as_root() {
                let user = crate::host::User::Root;
                if user.is_possible() {
                    super::$name(&crate::host::Machine::new(user));
                }
            }

            #[test]
            fn as_an_ordinary_user() {
                let user = crate::host::User::Ordinary;
                if user.is_possible() {
                    super::$name(&crate::host::Machine::new(user));
                }
            }
        }
    )+ };
}
pub(crate) use as_both_users;
