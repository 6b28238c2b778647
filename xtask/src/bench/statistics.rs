//! Medians, ranges and quantiles of a few samples.

/// The `q` quantile by nearest rank; 0 where there is no sample.
pub(super) fn quantile(samples: &[f64], q: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

/// Median, least and greatest.
pub(super) fn spread(samples: &[f64]) -> (f64, f64, f64) {
    (quantile(samples, 0.5), quantile(samples, 0.0), quantile(samples, 1.0))
}

/// Is a ratio within its limit? Where it is not, `floor` tells what no proxy can be below: the ratio
/// of a relay that looks at nothing.
pub(super) fn verdict(limit: Option<f64>, ratio: f64, floor: Option<f64>) -> String {
    match (limit, floor) {
        (None, _) => "no target".to_owned(),
        (Some(limit), _) if ratio <= limit => format!("met (at most {limit})"),
        (Some(limit), None) => format!("NOT met (at most {limit})"),
        (Some(limit), Some(floor)) => {
            format!("NOT met (at most {limit}; a relay that looks at nothing is at {floor:.3})")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let samples: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!((quantile(&samples, 0.99), quantile(&samples, 0.5)), (198.0, 100.0));
        assert_eq!(spread(&[3.0, 1.0, 2.0]), (2.0, 1.0, 3.0));
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
