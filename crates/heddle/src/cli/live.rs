//! What `heddle top` shows first: keys change it then.

use clap::ValueEnum;

/// What rows are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Sort {
    /// Name
    #[default]
    Name,
    /// Requests per second, the most first
    Rate,
    /// Failures per second, the most first
    Errors,
    /// P99, the slowest first
    Latency,
    /// What is in flight, the most first
    Busy,
}

/// Whose figures a row shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Side {
    /// The callers', or the service's own where they measure nothing
    #[default]
    Auto,
    /// The callers'
    Client,
    /// The service's own
    Server,
}
