//! Istio's latency buckets and quantiles by interpolation inside them.

/// Upper bounds of Istio's histogram buckets, milliseconds; the last is +Inf.
pub const BUCKETS: [f64; 20] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
    f64::INFINITY,
];

/// The bucket with this upper bound, as written in an `le` label; `None` for bounds that are not Istio's.
#[must_use]
pub fn bucket_of(le: &str) -> Option<usize> {
    place_among(&BUCKETS, le)
}

/// The same among any bounds.
pub(crate) fn place_among(bounds: &[f64], le: &str) -> Option<usize> {
    let bound: f64 = le.parse().ok()?;
    bounds.iter().position(|&known| known == bound)
}

/// The `q` quantile in milliseconds of observations counted per bucket (not cumulative): linear
/// between a bucket's bounds, as Prometheus does; the last finite bound for what lies above it.
/// `None` where nothing was counted.
#[must_use]
pub fn quantile(counts: &[f64; 20], q: f64) -> Option<f64> {
    interpolated(counts, q, bounds)
}

/// As [`quantile`], sharper by what the histogram's `_sum` says: calls that all take 5.001 s are
/// told as 5 s and not as anything up to 10 s. `sum` is in milliseconds.
///
/// The sum, less the middles of all other buckets, gives the mean of the bucket that can be wrong by
/// most; inside it the observations are taken to be spread evenly around that mean, up to the nearer
/// bound. So a quantile never leaves its bucket and never falls as `q` rises.
#[must_use]
pub fn quantile_with_sum(counts: &[f64; 20], sum: f64, q: f64) -> Option<f64> {
    let widest = |&(index, &count): &(usize, &f64)| {
        let (lower, upper) = bounds(index);
        count * (upper - lower)
    };
    let vaguest = counts
        .iter()
        .enumerate()
        .filter(|&(_, &count)| count > 0.0)
        .max_by(|a, b| widest(a).total_cmp(&widest(b)));
    let (vague, &count) = vaguest?;
    let (lower, upper) = bounds(vague);
    let others: f64 =
        counts.iter().enumerate().filter(|&(index, _)| index != vague).map(middle).sum();
    let mean = (sum - others) / count;
    if !mean.is_finite() {
        return quantile(counts, q);
    }
    let mean = mean.clamp(lower, upper);
    let reach = (mean - lower).min(upper - mean);
    interpolated(counts, q, |index| {
        if index == vague { (mean - reach, mean + reach) } else { bounds(index) }
    })
}

fn interpolated(counts: &[f64; 20], q: f64, bounds: impl Fn(usize) -> (f64, f64)) -> Option<f64> {
    let total: f64 = counts.iter().sum();
    if total <= 0.0 || !total.is_finite() {
        return None;
    }
    let within = |index, share: f64| {
        let (lower, upper) = bounds(index);
        lower + (upper - lower) * share.clamp(0.0, 1.0)
    };
    let wanted = q.clamp(0.0, 1.0) * total;
    let mut below = 0.0;
    let mut last = 0;
    for (index, &count) in counts.iter().enumerate().filter(|&(_, &count)| count > 0.0) {
        if below + count >= wanted {
            return Some(within(index, (wanted - below) / count));
        }
        below += count;
        last = index;
    }
    // Rounding can leave `wanted` a hair above the sum.
    Some(within(last, 1.0))
}

/// A bucket's bounds; what lies above the last finite one is told as that one.
fn bounds(index: usize) -> (f64, f64) {
    let lower = if index == 0 { 0.0 } else { BUCKETS[index - 1] };
    let upper = BUCKETS[index];
    (lower, if upper.is_finite() { upper } else { lower })
}

/// What a bucket adds to the sum if its observations are in the middle.
fn middle((index, count): (usize, &f64)) -> f64 {
    let (lower, upper) = bounds(index);
    count * (lower + upper) / 2.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counted(pairs: &[(usize, f64)]) -> [f64; 20] {
        let mut counts = [0.0; 20];
        for &(index, count) in pairs {
            counts[index] = count;
        }
        counts
    }

    #[test]
    fn quantiles_interpolate_between_the_bounds_of_a_bucket() {
        // 100 observations between 10 and 25 ms.
        let counts = counted(&[(4, 100.0)]);
        assert_eq!(quantile(&counts, 0.5), Some(17.5));
        assert_eq!(quantile(&counts, 1.0), Some(25.0));
        // 90 between 1 and 5 ms, 10 between 250 and 500 ms.
        let counts = counted(&[(2, 90.0), (8, 10.0)]);
        assert_eq!(quantile(&counts, 0.9), Some(5.0));
        assert_eq!(quantile(&counts, 0.95), Some(375.0));
    }

    #[test]
    fn what_lies_above_the_last_bound_is_told_as_that_bound() {
        assert_eq!(quantile(&counted(&[(19, 3.0)]), 0.5), Some(3_600_000.0));
    }

    #[test]
    fn the_sum_tells_where_in_a_wide_bucket_the_calls_are() {
        // 80 calls delayed by 5 s, 20 of about 3 ms.
        let counts = counted(&[(2, 20.0), (12, 80.0)]);
        let told = quantile_with_sum(&counts, 80.0 * 5_003.0 + 20.0 * 3.0, 0.99).unwrap();
        assert!((5_000.0..5_010.0).contains(&told), "{told}");
        assert!(quantile(&counts, 0.99).unwrap() > 9_000.0);
        let low = quantile_with_sum(&counts, 80.0 * 5_003.0 + 20.0 * 3.0, 0.1).unwrap();
        assert!((1.0..5.0).contains(&low), "{low}");
    }

    proptest! {
        #[test]
        fn no_sum_takes_a_quantile_out_of_its_bucket_or_out_of_order(
            counts in proptest::array::uniform20(prop_oneof![Just(0.0), 0.0..1e6]),
            sum in prop_oneof![any::<f64>(), 0.0..1e9],
        ) {
            let mut before = 0.0;
            for q in [0.0, 0.1, 0.5, 0.9, 0.99, 1.0] {
                let (plain, told) = (quantile(&counts, q), quantile_with_sum(&counts, sum, q));
                prop_assert_eq!(plain.is_some(), told.is_some());
                let Some((plain, told)) = plain.zip(told) else { continue };
                let bucket = |value: f64| BUCKETS.iter().position(|&bound| value <= bound);
                // A value on a bound belongs to either side of it.
                prop_assert!(bucket(plain).unwrap().abs_diff(bucket(told).unwrap()) <= 1, "{} {}", plain, told);
                prop_assert!(told >= before, "{} after {}", told, before);
                before = told;
            }
        }
    }

    #[test]
    fn nothing_counted_has_no_quantile() {
        assert_eq!(quantile(&[0.0; 20], 0.99), None);
    }

    #[test]
    fn bounds_are_known_in_every_spelling() {
        assert_eq!(bucket_of("0.5"), Some(0));
        assert_eq!(bucket_of("1000"), bucket_of("1000.0"));
        assert_eq!(bucket_of("1e+06"), None);
        assert_eq!(bucket_of("3.6e+06"), Some(18));
        assert_eq!(bucket_of("+Inf"), Some(19));
        assert_eq!(bucket_of("x"), None);
    }
}
