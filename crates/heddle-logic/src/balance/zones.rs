//! The own zone first, as far as it can take what its callers send: Envoy's zone aware routing. Each zone has
//! a share of the endpoints and a share of the callers; who has more callers than endpoints sends the
//! difference to those with fewer, so that all endpoints get alike and as little as can be leaves its zone.

use super::locality::by_weight;

/// Which part of a caller's requests goes to each zone; 1 in all. `None` where nobody takes requests, or it is
/// not known what is left over elsewhere.
///
/// `callers` are each zone's share of all callers, which may be in other zones too, and `well` how many of its
/// endpoints take requests; `own` is the caller's, where that has endpoints.
#[must_use]
pub fn shares(callers: &[f64], well: &[usize], own: Option<usize>) -> Option<Vec<f64>> {
    let all: usize = well.iter().sum();
    if all == 0 {
        return None;
    }
    let capacity = |zone: usize| well[zone] as f64 / all as f64;
    let mut shares = vec![0.0; well.len()];
    let mut stays = 0.0;
    if let Some(own) = own.filter(|own| well[*own] > 0) {
        stays = (capacity(own) / callers[own]).min(1.0);
        shares[own] = stays;
    }
    if stays < 1.0 {
        let left = |zone: usize| match Some(zone) == own {
            true => 0.0,
            false => (capacity(zone) - callers[zone]).max(0.0),
        };
        let left_in_all: f64 = (0..well.len()).map(left).sum();
        if left_in_all <= 0.0 {
            return None;
        }
        for (zone, share) in shares.iter_mut().enumerate() {
            *share += left(zone) / left_in_all * (1.0 - stays);
        }
    }
    Some(shares)
}

/// The zone a request goes to, for a `chance` in `[0, 1)`.
#[must_use]
pub fn pick(shares: &[f64], chance: f64) -> Option<usize> {
    by_weight(shares.iter().copied(), chance)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(one: &[f64], other: &[f64]) -> bool {
        one.len() == other.len() && one.iter().zip(other).all(|(a, b)| (a - b).abs() < 1e-9)
    }

    #[test]
    fn a_zone_keeps_what_it_can_take_and_the_rest_goes_where_something_is_left() {
        for (callers, well, own, wanted) in [
            // As many endpoints as callers: nothing leaves.
            (&[0.5, 0.5][..], &[3, 3][..], Some(0), &[1.0, 0.0][..]),
            // More than its callers need.
            (&[0.2, 0.8], &[5, 5], Some(0), &[1.0, 0.0]),
            // Envoy's own example: 40 % of the callers, 25 % of the endpoints; the others have 10 and 5 left.
            (&[0.4, 0.4, 0.2], &[25, 50, 25], Some(0), &[0.625, 0.25, 0.125]),
            // All callers in one zone: as if there were no zones.
            (&[1.0, 0.0], &[3, 3], Some(0), &[0.5, 0.5]),
            // No endpoint in the own zone, or none that takes requests.
            (&[0.25, 0.25], &[2, 2], None, &[0.5, 0.5]),
            (&[0.5, 0.25], &[0, 4], Some(0), &[0.0, 1.0]),
        ] {
            let shares = shares(callers, well, own).unwrap();
            assert!(close(&shares, wanted), "{callers:?} {well:?} {own:?}: {shares:?}");
        }
        assert_eq!(shares(&[0.5, 0.5], &[0, 0], Some(0)), None);
    }

    proptest! {
        #[test]
        fn all_endpoints_get_alike_whatever_zones_callers_and_endpoints_are_in(
            zones in prop::collection::vec((0u32..9, 0usize..9), 2..6), elsewhere in 0u32..5,
        ) {
            let callers: u32 = zones.iter().map(|(callers, _)| callers).sum::<u32>() + elsewhere;
            let all: usize = zones.iter().map(|(_, well)| well).sum();
            prop_assume!(callers > 0 && all > 0);
            let of = |count: u32| f64::from(count) / f64::from(callers);
            let shares_of: Vec<f64> = zones.iter().map(|(callers, _)| of(*callers)).collect();
            let well: Vec<usize> = zones.iter().map(|(_, well)| *well).collect();
            let mut sent = vec![0.0; zones.len()];
            let own = (0..zones.len()).map(|zone| (Some(zone), shares_of[zone]));
            for (own, callers) in own.chain([(None, of(elsewhere))]).filter(|(_, part)| *part > 0.0) {
                // Floats may leave nothing over where it is a hair.
                let Some(parts) = shares(&shares_of, &well, own) else { continue };
                prop_assert!((parts.iter().sum::<f64>() - 1.0).abs() < 1e-9);
                sent.iter_mut().zip(&parts).for_each(|(sent, part)| *sent += callers * part);
            }
            for (zone, sent) in sent.iter().enumerate() {
                let wanted = well[zone] as f64 / all as f64;
                prop_assert!((sent - wanted).abs() < 1e-6, "{zone}: {sent} of {wanted}");
            }
        }
    }
}
