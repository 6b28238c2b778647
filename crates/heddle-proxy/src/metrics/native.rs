//! Native histograms of Prometheus: buckets whose bounds grow by one factor, so that none has to be chosen.
//!
//! They are counted from when somebody first asks for them, and cost nothing before. What was counted until then is
//! known by classic buckets only, and goes to where those end.

use super::counter::Counter;

/// Each bound is the 2^(1/4)-fold of the one below: `schema` 2 in Prometheus' words. A quantile is right within 10 %.
pub(super) const SCHEMA: i32 = 2;
const PER_OCTAVE: f64 = 4.0;
/// Buckets: 32 octaves.
pub(super) const BUCKETS: usize = 128;

/// What is below all buckets, the buckets, and what is above them as the last one.
#[derive(Debug)]
pub(super) struct Native {
    /// Exponent of the lowest bound in steps of the schema: values of at most that are in `below`.
    pub(super) lowest: i32,
    pub(super) below: Counter,
    pub(super) buckets: [Counter; BUCKETS],
}

impl Native {
    /// Empty, with this lowest exponent.
    pub(super) fn new(lowest: i32) -> Self {
        Self {
            lowest,
            below: Counter::default(),
            buckets: std::array::from_fn(|_| Counter::default()),
        }
    }

    /// What classic buckets know, each bound with what it holds, and what is above them: each value counts as high as
    /// its bucket's bound.
    pub(super) fn seeded(
        lowest: i32,
        buckets: impl Iterator<Item = (u64, u64)>,
        above: u64,
    ) -> Self {
        let native = Self::new(lowest);
        let mut last: u64 = 0;
        for (bound, count) in buckets {
            native.bucket(bound).add(count);
            last = bound;
        }
        native.bucket(last.saturating_add(1)).add(above);
        native
    }

    /// Counts a value, in thousandths.
    pub(super) fn record(&self, thousandths: u64) {
        self.bucket(thousandths).add(1);
    }

    fn bucket(&self, thousandths: u64) -> &Counter {
        let value = thousandths as f64 / 1e3;
        // The bucket with the exponent n holds what is above the bound n-1 and at most the bound n.
        let exponent = (value.log2() * PER_OCTAVE).ceil();
        let place = exponent - f64::from(self.lowest) - 1.0;
        if place < 0.0 || thousandths == 0 {
            return &self.below;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 300"
        )]
        let place = (place as usize).min(BUCKETS - 1);
        &self.buckets[place]
    }

    /// What is at most this is in `below`.
    pub(super) fn threshold(&self) -> f64 {
        (f64::from(self.lowest) / PER_OCTAVE).exp2()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exponents of buckets that hold something.
    fn held(native: &Native) -> Vec<i32> {
        let all = native.buckets.iter().zip(native.lowest + 1..);
        all.filter(|(count, _)| count.get() > 0).map(|(_, exponent)| exponent).collect()
    }

    #[test]
    fn a_value_is_in_the_bucket_whose_bound_is_next_above_it() {
        for (thousandths, exponent) in
            [(1_000, 0), (1_001, 1), (2_000, 4), (2_001, 5), (1_024_000, 40), (500, -4), (16, -23)]
        {
            let native = Native::new(-24);
            native.record(thousandths);
            assert_eq!(held(&native), [exponent], "{thousandths}");
        }
    }

    #[test]
    fn what_is_too_small_or_too_large_for_the_buckets_is_counted_all_the_same() {
        let native = Native::new(-24);
        native.record(0);
        native.record(15);
        native.record(u64::MAX);
        assert_eq!(native.below.get(), 2);
        assert_eq!(held(&native), [native.lowest + 128]);
        assert!((native.threshold() - 0.015_625).abs() < 1e-9);
    }
}
