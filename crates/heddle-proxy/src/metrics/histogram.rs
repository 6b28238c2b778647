//! Counters with one writer each, and histograms with Istio's buckets.

use std::sync::atomic::{AtomicU64, Ordering};

/// Istio's buckets, for milliseconds and bytes alike, in thousandths; `+Inf` is implied.
pub(super) const BOUNDS_THOUSANDTHS: [u64; 19] = [
    500,
    1_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    600_000_000,
    1_800_000_000,
    3_600_000_000,
];

/// A counter that one thread writes and any thread reads.
///
/// Adding is a plain load and store: no locked instruction, and no lost update, since nobody else
/// writes.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Adds so that who sees the new value also sees everything written before.
    pub(super) fn add_release(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Release);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn get_acquire(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// A histogram; values and sum in thousandths of the unit (µs for ms).
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [Counter; 20],
    sum_thousandths: Counter,
}

impl Histogram {
    pub(super) fn record(&self, thousandths: u64) {
        // From below: nearly all values are in the first few buckets.
        let bucket = BOUNDS_THOUSANDTHS.iter().position(|bound| thousandths <= *bound);
        self.buckets[bucket.unwrap_or(BOUNDS_THOUSANDTHS.len())].add(1);
        self.sum_thousandths.add(thousandths);
    }

    /// Adds this shard to `total`.
    pub(super) fn add_to(&self, total: &mut HistogramTotal) {
        for (sum, bucket) in total.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.get();
        }
        total.sum_thousandths += self.sum_thousandths.get();
    }
}

/// A histogram over all shards.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct HistogramTotal {
    /// Per bucket, not cumulative.
    pub(super) buckets: [u64; 20],
    pub(super) sum_thousandths: u64,
}
