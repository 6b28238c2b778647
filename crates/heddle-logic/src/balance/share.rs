//! What part of its share a new endpoint gets, and in which order endpoints take their turn.

use std::time::Duration;

use heddle_model::discovery::Warmup;

/// Turns in one round of endpoints whose weights differ, at most.
pub const TURNS_MAX: u32 = 4096;

/// The part of its share that an endpoint gets so long after it came, above 0 and at most 1: as in
/// Envoy, time / duration to the power of 1 / aggression, and the minimum from the beginning.
#[must_use]
pub fn warmth(warmup: &Warmup, since: Duration) -> f64 {
    if since >= warmup.duration {
        return 1.0;
    }
    let passed = since.as_secs_f64() / warmup.duration.as_secs_f64();
    let grown = passed.powf(warmup.aggression.recip());
    // Never nothing: there would be no way out of it for a cluster of only new ones.
    grown.max(warmup.minimum_percent / 100.0).clamp(0.001, 1.0)
}

/// One round of turns: each endpoint as often as its weight says, as far apart as may be. Where the
/// weights come to more than [`TURNS_MAX`], they are rounded.
#[must_use]
pub fn turns(weights: &[u32]) -> Vec<u16> {
    let least = weights.iter().copied().fold(0, gcd).max(1);
    let sum: u64 = weights.iter().map(|weight| u64::from(weight / least)).sum();
    let scaled = |weight: &u32| -> u32 {
        let weight = u64::from(weight / least);
        match sum > u64::from(TURNS_MAX) {
            true => (weight * u64::from(TURNS_MAX) / sum).max(1) as u32,
            false => weight as u32,
        }
    };
    let weights: Vec<i64> = weights.iter().map(|weight| i64::from(scaled(weight))).collect();
    let total: i64 = weights.iter().sum();
    if weights.iter().all(|weight| *weight == 1) {
        return (0..=u16::MAX).take(weights.len()).collect();
    }
    let mut credit = vec![0i64; weights.len()];
    let next = |_| {
        credit.iter_mut().zip(&weights).for_each(|(credit, weight)| *credit += weight);
        let richest = (0..credit.len()).max_by_key(|at| (credit[*at], std::cmp::Reverse(*at)))?;
        credit[richest] -= total;
        u16::try_from(richest).ok()
    };
    (0..total).filter_map(next).collect()
}

fn gcd(one: u32, other: u32) -> u32 {
    if other == 0 { one } else { gcd(other, one % other) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_endpoint_gets_its_share_little_by_little() {
        let warmup = Warmup::lasting(100 * SECOND);
        for (seconds, wanted) in [(0, 0.1), (5, 0.1), (10, 0.1), (50, 0.5), (100, 1.0), (999, 1.0)]
        {
            let part = warmth(&warmup, seconds * SECOND);
            assert!((part - wanted).abs() < 1e-9, "{seconds}: {part}");
        }
        let at_half = |aggression| warmth(&Warmup { aggression, ..warmup }, 50 * SECOND);
        assert!((at_half(2.0) - 0.5f64.sqrt()).abs() < 1e-9, "sooner at first");
        assert!((at_half(0.5) - 0.25).abs() < 1e-9, "later at first");
        assert!((at_half(0.0) - 0.1).abs() < 1e-9);
        let none = Warmup { minimum_percent: 0.0, ..warmup };
        assert!(warmth(&none, Duration::ZERO) > 0.0);
    }

    #[test]
    fn turns_go_by_weight_and_are_spread() {
        assert_eq!(turns(&[]), [0u16; 0]);
        assert_eq!(turns(&[7, 7, 7]), [0, 1, 2]);
        assert_eq!(turns(&[2, 1]), [0, 1, 0]);
        assert_eq!(turns(&[50, 10, 10]), [0, 0, 1, 0, 2, 0, 0]);
        let many = turns(&[1_000_000, 1, 1_000_000]);
        assert!(many.len() <= TURNS_MAX as usize + 3 && many.contains(&1));
    }
}
