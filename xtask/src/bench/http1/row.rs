//! A row of the table.

use super::{peers::Proxy, sample::Sample};

/// One proxy on one path, and what its rounds gave.
#[derive(Debug)]
pub(super) struct Row {
    /// Which.
    pub(super) proxy: Proxy,
    /// On the client's side, or on the server's.
    pub(super) outbound: bool,
    /// One per round.
    pub(super) samples: Vec<Sample>,
}

/// The path's name.
pub(super) fn path(outbound: bool) -> &'static str {
    if outbound { "outbound" } else { "inbound" }
}
