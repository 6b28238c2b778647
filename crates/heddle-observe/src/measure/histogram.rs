//! The histograms of a place, and which dimensions they take.

use super::dimension::{Dimension, LATENCY, LATENCY_SUM};
use crate::quantile::{BUCKETS, place_among};

/// Most buckets that any of them has.
pub(crate) const BUCKETS_MAX: usize = 20;
/// Upper bounds of the buckets of sizes, bytes: those of Istio's that sidecars have.
const BYTES: [f64; 7] = [100.0, 1_000.0, 10_000.0, 60_000.0, 600_000.0, 3_600_000.0, f64::INFINITY];
/// Dimensions of all but [`Histogram::Latency`] begin here: further than kinds of answers reach.
const HIGH: Dimension = 0x8000;

/// One histogram of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Histogram {
    /// How long calls took, milliseconds; calls with an injected abort are left out.
    Latency,
    /// How long calls with an injected abort took, milliseconds.
    InjectedLatency,
    /// Bytes of requests.
    RequestBytes,
    /// Bytes of responses.
    ResponseBytes,
}

impl Histogram {
    /// Upper bounds of its buckets, ascending; the last is +Inf.
    pub(crate) fn bounds(self) -> &'static [f64] {
        match self {
            Self::Latency | Self::InjectedLatency => &BUCKETS,
            Self::RequestBytes | Self::ResponseBytes => &BYTES,
        }
    }

    /// The bucket with this upper bound, as an `le` label has it.
    pub(crate) fn bucket(self, le: &str) -> Option<usize> {
        place_among(self.bounds(), le)
    }

    /// The dimension of its first bucket; the others follow.
    pub(crate) fn first(self) -> Dimension {
        match self {
            Self::Latency => LATENCY,
            Self::InjectedLatency => HIGH,
            Self::RequestBytes => HIGH + 0x40,
            Self::ResponseBytes => HIGH + 0x80,
        }
    }

    /// The dimension of all observed values added up.
    pub(crate) fn sum(self) -> Dimension {
        match self {
            Self::Latency => LATENCY_SUM,
            other => other.first() + 0x20,
        }
    }
}
