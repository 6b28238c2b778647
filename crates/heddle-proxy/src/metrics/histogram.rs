//! Histograms with one writer each, whose bounds are Istio's or some of them; native ones beside them
//! where somebody asks for those.

use std::{
    array,
    fmt::Write as _,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{counter::Counter, native::Native};

/// Istio's bounds for milliseconds, in thousandths; `+Inf` is implied. All of them: dashboards and
/// objectives name single ones, and what is summed by `le` over proxies has to have the same.
pub(super) const MILLISECONDS: [u64; 19] = [
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

/// Those of Istio's bounds that tell sizes apart, in thousandths of a byte. Istio takes all of the
/// above for bytes too; of those no head is below 50, and the rest stand as close as times do. Each
/// bound is a line of 800 bytes per label set and histogram.
///
/// No bucket is left out for being empty, or as full as the one below it: `sum by (le)` over label
/// sets with different bounds is wrong, and a bucket that appears later loses its first increase.
pub(super) const BYTES: [u64; 6] =
    [100_000, 1_000_000, 10_000_000, 60_000_000, 600_000_000, 3_600_000_000];

/// A histogram; bounds, values and sum in thousandths of the unit (µs for ms).
#[derive(Debug)]
pub(crate) struct Histogram<const N: usize> {
    bounds: &'static [u64; N],
    buckets: [Counter; N],
    above: Counter,
    sum_thousandths: Counter,
    /// Has somebody asked for a native one?
    native_wanted: AtomicBool,
    /// Made by the writer at its first value after that, so that it misses none and has none twice.
    native: OnceLock<Box<Native>>,
}

impl<const N: usize> Histogram<N> {
    pub(super) fn new(bounds: &'static [u64; N]) -> Self {
        Self {
            bounds,
            buckets: array::from_fn(|_| Counter::default()),
            above: Counter::default(),
            sum_thousandths: Counter::default(),
            native_wanted: AtomicBool::new(false),
            native: OnceLock::new(),
        }
    }

    pub(super) fn record(&self, thousandths: u64) {
        if self.native_wanted.load(Ordering::Relaxed) {
            self.record_native(thousandths);
        }
        // From below: nearly all values are in the first few buckets.
        let bucket = self.bounds.iter().position(|bound| thousandths <= *bound);
        bucket.map_or(&self.above, |bucket| &self.buckets[bucket]).add(1);
        self.sum_thousandths.add(thousandths);
    }

    /// Before the classic buckets have the value, since those begin it.
    fn record_native(&self, thousandths: u64) {
        let native = self.native.get_or_init(|| Box::new(self.shard().seeded()));
        native.record(thousandths);
    }

    /// How many values there were.
    pub(super) fn count(&self) -> u64 {
        let all = self.buckets.iter().chain([&self.above]);
        all.fold(0, |sum: u64, bucket| sum.wrapping_add(bucket.get()))
    }

    /// What a scrape reads, whatever the number of bounds.
    pub(super) fn shard(&self) -> HistogramShard<'_> {
        HistogramShard {
            bounds: self.bounds,
            buckets: &self.buckets,
            above: &self.above,
            sum_thousandths: &self.sum_thousandths,
            native_wanted: &self.native_wanted,
            native: &self.native,
        }
    }
}

/// One worker's share of a histogram.
#[derive(Debug, Clone, Copy)]
pub(super) struct HistogramShard<'a> {
    pub(super) bounds: &'static [u64],
    /// Not cumulative, one for each bound.
    pub(super) buckets: &'a [Counter],
    pub(super) above: &'a Counter,
    pub(super) sum_thousandths: &'a Counter,
    native_wanted: &'a AtomicBool,
    native: &'a OnceLock<Box<Native>>,
}

impl HistogramShard<'_> {
    /// Reads the native one, which is counted from the first time that this is asked. Until its writer has made it,
    /// it is what that would begin with.
    pub(super) fn read_native<R>(&self, read: impl FnOnce(&Native) -> R) -> R {
        self.native_wanted.store(true, Ordering::Relaxed);
        match self.native.get() {
            Some(native) => read(native),
            None => read(&self.seeded()),
        }
    }

    /// What the classic buckets know.
    fn seeded(&self) -> Native {
        // Times reach from 16 µs on, sizes from 32 bytes on.
        let lowest = if self.bounds.len() == MILLISECONDS.len() { -24 } else { 20 };
        let buckets = self.bounds.iter().zip(self.buckets);
        let buckets = buckets.map(|(bound, count)| (*bound, count.get()));
        Native::seeded(lowest, buckets, self.above.get())
    }
}

/// Thousandths as a decimal number without trailing zeros.
pub(super) fn decimal(text: &mut String, thousandths: u64) {
    let (whole, rest) = (thousandths / 1000, thousandths % 1000);
    let _ = write!(text, "{whole}");
    if rest > 0 {
        let _ = write!(text, ".{rest:03}");
        while text.ends_with('0') {
            text.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values<const N: usize>(histogram: &Histogram<N>) -> u64 {
        histogram.shard().read_native(|native| {
            let buckets = native.buckets.iter().map(Counter::get).sum::<u64>();
            native.below.get() + buckets
        })
    }

    #[test]
    fn each_value_is_once_in_the_native_one_which_its_writer_makes() {
        let (used, idle) = (Histogram::new(&BYTES), Histogram::new(&BYTES));
        used.record(50_000);
        used.record(u64::MAX);
        assert_eq!((values(&used), values(&idle)), (2, 0));
        assert!(used.native.get().is_none(), "reading makes none");
        used.record(2_000_000);
        assert!(used.native.get().is_some());
        used.record(2_000_000);
        assert_eq!((values(&used), values(&idle)), (4, 0));
        assert!(idle.native.get().is_none(), "it costs nothing where nothing is counted");
    }
}
