//! What was measured: rows of the table, and what a run gave.

use crate::bench::http1::peers::Proxy;

/// One proxy on one path, and what its rounds gave.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) proxy: Proxy,
    pub(super) outbound: bool,
    /// One per round.
    pub(super) samples: Vec<Sample>,
}

/// What one run of one proxy gave.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    /// One per shape.
    pub(super) costs: Vec<Cost>,
    pub(super) rss_mb: f64,
    pub(super) rss_loaded_mb: f64,
}

/// What one load took of the proxy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    /// User and system time.
    pub(super) cpu_us: f64,
    pub(super) user_us: f64,
    pub(super) requests_per_second: f64,
}

/// The path's name.
pub(super) fn path(outbound: bool) -> &'static str {
    if outbound { "outbound" } else { "inbound" }
}
