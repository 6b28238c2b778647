//! Which way something goes.

/// Which way a connection goes, seen from the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the workload to others.
    Outbound,
    /// From others to the workload.
    Inbound,
}

impl Direction {
    /// Both, in the order of their indexes.
    pub const ALL: [Self; 2] = [Self::Outbound, Self::Inbound];

    /// The word used in labels and headers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}
