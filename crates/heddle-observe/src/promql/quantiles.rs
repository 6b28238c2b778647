//! `histogram_quantile`, as Prometheus interpolates it.

use std::collections::HashMap;

use super::{
    QueryError,
    curve::{ABSENT, is_absent},
    labels::Labels,
    value::{Series, Work},
};

/// Buckets of one histogram: upper bound, and which series; ascending.
type Buckets = Vec<(f64, usize)>;

pub(super) fn histogram_quantile(
    work: &Work<'_>,
    q: &[f64],
    vector: Vec<Series>,
) -> Result<Vec<Series>, QueryError> {
    let mut histograms: Vec<(Labels, Buckets)> = Vec::new();
    let mut known = HashMap::new();
    for (number, series) in vector.iter().enumerate() {
        let Ok(bound) = series.labels.get("le").parse::<f64>() else { continue };
        let labels = series.labels.without(&["le".to_owned()]);
        let index = *known.entry(labels).or_insert_with_key(|labels| {
            histograms.push((labels.clone(), Vec::new()));
            histograms.len() - 1
        });
        histograms[index].1.push((bound, number));
    }
    let mut all = Vec::new();
    for (labels, mut buckets) in histograms {
        work.takes(1)?;
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let at = |moment: usize| {
            let counts = buckets.iter().map(|(bound, of)| (*bound, vector[*of].values[moment]));
            let counts = counts.filter(|(_, count)| !is_absent(*count)).collect();
            quantile(q[moment], counts)
        };
        let values: Vec<f64> = (0..work.times.len()).map(at).collect();
        all.push(Series { labels, values });
    }
    Ok(all)
}

/// Of cumulative counts by ascending upper bound.
fn quantile(q: f64, mut buckets: Vec<(f64, f64)>) -> f64 {
    let Some(&(highest, _)) = buckets.last() else { return ABSENT };
    if q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    if highest != f64::INFINITY {
        return f64::NAN;
    }
    // Sidecars are not scraped at one moment: a count may seem to fall.
    let mut most: f64 = 0.0;
    for (_, count) in &mut buckets {
        most = most.max(*count);
        *count = most;
    }
    if buckets.len() < 2 || most == 0.0 || most.is_nan() {
        return f64::NAN;
    }
    let rank = q * most;
    let last = buckets.len() - 1;
    let bucket = buckets[..last].iter().position(|(_, count)| *count >= rank).unwrap_or(last);
    if bucket == last {
        return buckets[last - 1].0;
    }
    let (upper, count) = buckets[bucket];
    if bucket == 0 && upper <= 0.0 {
        return upper;
    }
    let (lower, before) = bucket.checked_sub(1).map_or((0.0, 0.0), |below| buckets[below]);
    // Of an empty first bucket the 0-quantile is NaN, as Prometheus has it.
    lower + (upper - lower) * ((rank - before) / (count - before))
}
