//! Live calls of many sidecars as one stream: attaches to those that are concerned, follows workloads that come and
//! go, and says what it lost. How a sidecar is reached, [`Ways`] knows; what a call is, the sidecar.
//!
//! Everything between a sidecar and the reader is bounded: a reader that takes nothing makes sidecars drop lines,
//! which they count and tell.

mod follow;
mod local;
pub(crate) mod served;
mod stream;
mod ways;
mod who;

pub use self::{
    follow::{Tapped, follow},
    local::LocalWays,
    ways::{Asked, Sides, Ways},
};
