//! Run-time decisions as pure state machines: match a route, pick a target and an endpoint, inject
//! a fault, rewrite, answer, retry.
//!
//! Nothing here does I/O, reads a clock or draws a random number: `now` and randomness are
//! arguments, so every decision can be tested against a naive model. The caller is the data path.

pub mod balance;
pub mod cors;
pub mod eject;
pub mod expression;
pub mod fault;
pub mod headers;
pub mod path;
pub mod retry;
pub mod rewrite;
pub mod route;
pub mod rule;
pub mod sampling;
pub mod sni;
pub mod sticky;

pub use balance::{Completion, LoadEstimate};
pub use fault::{ConnectionFault, FaultPlan, PortFaults};
pub use headers::HeaderEdit;
pub use retry::Replayable;
pub use route::{Matcher, RequestView, RouteError, RouteTable, Rule, Selected, Selection};
pub use rule::RulePlan;
