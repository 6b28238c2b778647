//! Near before far: in which order localities are used, and how much spills over from one to the next.
//! Priorities are Istio's, shares and spilling are Envoy's.

use std::collections::BTreeMap;

use heddle_model::{Locality, discovery::LocalityRules};

/// A locality is given more than its share of the whole before anything spills: while less than
/// 1 / 1.4 of it is in, the rest goes to the next one (Envoy's overprovisioning factor).
pub const OVERPROVISIONING: f64 = 1.4;

/// Labels that mean a part of a locality, the widest first.
const TOPOLOGY: [&str; 3] =
    ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"];

/// Where somebody is, by locality and labels.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// Its locality.
    pub locality: &'a Locality,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
}

impl<'a> Site<'a> {
    /// What a label is there; empty where there is none. A locality's labels are its parts.
    fn label(self, name: &str) -> &'a str {
        if let Some(value) = self.labels.get(name) {
            return value;
        }
        let part = TOPOLOGY.iter().position(|one| *one == name);
        part.map_or("", |part| self.locality.parts()[part])
    }
}

/// When endpoints at `there` are used by a caller at `here`: those of a lower number first.
#[must_use]
pub fn priority(rules: &LocalityRules, here: Site<'_>, there: Site<'_>) -> u32 {
    let by_labels = by_labels(&rules.failover_priority, here, there);
    if rules.zones.is_some() {
        // Zones are parts of one priority: only regions are told apart.
        let away = here.locality.region != there.locality.region;
        let further = !takes_over(rules, here.locality, there.locality);
        return by_labels * 3 + u32::from(away) + u32::from(away && further);
    }
    if !rules.failover_priority.is_empty() && rules.failover.is_empty() {
        return by_labels;
    }
    let same = here.locality.parts().into_iter().zip(there.locality.parts());
    let shared = same.take_while(|(one, other)| one == other).count() as u32;
    let by_place = match 3 - shared {
        3 => 3 + u32::from(!takes_over(rules, here.locality, there.locality)),
        near => near,
    };
    by_labels * 5 + by_place
}

/// Does a rule name the region there for the one here? Where none names any, all do.
fn takes_over(rules: &LocalityRules, here: &Locality, there: &Locality) -> bool {
    let rule = rules.failover.iter().find(|(from, _)| *from == here.region);
    rule.is_none_or(|(_, to)| *to == there.region)
}

/// How many of these labels, counted from the last, are beyond the first that differs.
fn by_labels(labels: &[String], here: Site<'_>, there: Site<'_>) -> u32 {
    let same = |label: &&String| match label.split_once('=') {
        Some((name, value)) => there.label(name) == value,
        None => here.label(label) == there.label(label),
    };
    (labels.len() - labels.iter().take_while(same).count()) as u32
}

/// Is a locality within `region/zone/subzone`, which may end early or in `*`?
#[must_use]
pub fn within(locality: &Locality, pattern: &str) -> bool {
    let parts = locality.parts();
    let mut asked = pattern.splitn(3, '/').enumerate();
    asked.all(|(at, part)| part == "*" || part == parts[at])
}

/// The shares of callers at `here`, by pattern; `None` where no rule is about them.
#[must_use]
pub fn shares<'a>(rules: &'a LocalityRules, here: &Locality) -> Option<&'a BTreeMap<String, u32>> {
    rules.distribute.iter().find(|one| within(here, &one.from)).map(|one| &one.to)
}

/// The pattern that a locality's share is under: a place by name before the rest (`*`).
#[must_use]
pub fn share_of<'a>(shares: &'a BTreeMap<String, u32>, there: &Locality) -> Option<(&'a str, u32)> {
    let fit = shares.iter().filter(|(pattern, _)| within(there, pattern));
    let longest = fit.max_by_key(|(pattern, _)| (pattern.len(), !pattern.contains('*')));
    longest.map(|(pattern, share)| (pattern.as_str(), *share))
}

/// Endpoints of one priority, or one share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strength {
    /// How many take requests.
    pub well: usize,
    /// Of how many.
    pub all: usize,
}

impl Strength {
    /// The part of its load that it can take, 0 to 1.
    fn capacity(self) -> f64 {
        (OVERPROVISIONING * self.well as f64 / self.all.max(1) as f64).min(1.0)
    }
}

/// Which of several priorities, the first first, a request goes to, for a `chance` in `[0, 1)`. `None`
/// where nobody takes requests.
#[must_use]
pub fn spill(priorities: &[Strength], chance: f64) -> Option<usize> {
    let total: f64 = priorities.iter().map(|one| one.capacity()).sum();
    // Where all of them together cannot take all, each takes more.
    let scale = 1.0 / total.min(1.0);
    by_weight(priorities.iter().map(|one| one.capacity() * scale), chance)
}

/// The same where each has a share; who cannot take all of it leaves the rest to the others.
#[must_use]
pub fn distribute(shares: &[(u32, Strength)], chance: f64) -> Option<usize> {
    let weights = || shares.iter().map(|(share, one)| f64::from(*share) * one.capacity());
    let total: f64 = weights().sum();
    by_weight(weights().map(|weight| weight / total), chance)
}

/// The one in whose part of `[0, 1)` the chance falls; what is left over is the last one's that has any.
pub(super) fn by_weight(weights: impl Iterator<Item = f64>, chance: f64) -> Option<usize> {
    let (mut sum, mut last) = (0.0, None);
    for (at, weight) in weights.enumerate().filter(|(_, weight)| *weight > 0.0) {
        sum += weight;
        last = Some(at);
        if chance < sum {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use heddle_model::discovery::Distribute;
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Locality {
        Locality::parse(text).unwrap_or_default()
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    fn of(rules: &LocalityRules, here: &str, there: &str) -> u32 {
        let (here, there, none) = (at(here), at(there), BTreeMap::new());
        let site = |locality| Site { locality, labels: &none };
        priority(rules, site(&here), site(&there))
    }

    #[test]
    fn the_nearer_the_sooner() {
        let rules = LocalityRules::default();
        for (there, wanted) in
            [("eu/a/1", 0), ("eu/a/2", 1), ("eu/a", 1), ("eu/b/1", 2), ("us/a/1", 3), ("", 3)]
        {
            assert_eq!(of(&rules, "eu/a/1", there), wanted, "{there}");
        }
    }

    #[test]
    fn a_region_that_takes_over_goes_before_others() {
        let failover = vec![("eu".to_owned(), "us".to_owned())];
        let rules = LocalityRules { failover, ..LocalityRules::default() };
        assert_eq!((of(&rules, "eu/a", "us/b"), of(&rules, "eu/a", "asia/a")), (3, 4));
        assert_eq!((of(&rules, "us/a", "eu/b"), of(&rules, "us/a", "asia/a")), (3, 3));
    }

    #[test]
    fn labels_count_from_the_first_on() {
        let rules = LocalityRules {
            failover_priority: vec![
                "topology.kubernetes.io/region".into(),
                "tier".into(),
                "version=v2".into(),
            ],
            ..LocalityRules::default()
        };
        let here = (at("eu/a"), labels(&[("tier", "gold"), ("version", "v1")]));
        let of = |locality: &str, pairs: &[(&str, &str)]| {
            let there = (at(locality), labels(pairs));
            priority(
                &rules,
                Site { locality: &here.0, labels: &here.1 },
                Site { locality: &there.0, labels: &there.1 },
            )
        };
        assert_eq!(of("eu/b", &[("tier", "gold"), ("version", "v2")]), 0);
        assert_eq!(of("eu/b", &[("tier", "gold"), ("version", "v1")]), 1);
        assert_eq!(of("eu/b", &[("version", "v2")]), 2, "the first that differs ends it");
        assert_eq!(of("us", &[("tier", "gold"), ("version", "v2")]), 3);
    }

    #[test]
    fn shares_are_of_the_first_rule_about_the_caller_and_by_the_closest_pattern() {
        let to = |pairs: &[(&str, u32)]| -> BTreeMap<String, u32> {
            pairs.iter().map(|(pattern, share)| ((*pattern).into(), *share)).collect()
        };
        let rules = LocalityRules {
            distribute: vec![
                Distribute { from: "eu/a/*".into(), to: to(&[("eu/a/1", 70), ("eu/*", 30)]) },
                Distribute { from: "*".into(), to: to(&[("us", 100)]) },
            ],
            ..LocalityRules::default()
        };
        let found = shares(&rules, &at("eu/a/2")).unwrap();
        assert_eq!(share_of(found, &at("eu/a/1")), Some(("eu/a/1", 70)));
        assert_eq!(share_of(found, &at("eu/b")), Some(("eu/*", 30)));
        assert_eq!(share_of(found, &at("us/a")), None);
        assert!(shares(&rules, &at("asia")).unwrap().contains_key("us"));
        assert_eq!(shares(&LocalityRules::default(), &at("eu")), None);
    }

    /// The part of requests that each gets.
    fn parts(pick: impl Fn(f64) -> Option<usize>, count: usize) -> Vec<f64> {
        let mut parts = vec![0.0; count];
        let draws = (0..10_000).filter_map(|at| pick((f64::from(at) + 0.5) / 10_000.0));
        draws.for_each(|one| parts[one] += 0.0001);
        parts
    }

    fn close(one: &[f64], other: &[f64]) -> bool {
        one.iter().zip(other).all(|(one, other)| (one - other).abs() < 0.001)
    }

    #[test]
    fn nothing_spills_while_most_are_in_and_then_what_cannot_be_taken() {
        let of = |wells: &[usize]| -> Vec<f64> {
            let strengths: Vec<_> =
                wells.iter().map(|well| Strength { well: *well, all: 10 }).collect();
            parts(|chance| spill(&strengths, chance), wells.len())
        };
        for (wells, wanted) in [
            (&[10, 10][..], &[1.0, 0.0][..]),
            (&[8, 10], &[1.0, 0.0]),
            (&[5, 10], &[0.7, 0.3]),
            (&[0, 10], &[0.0, 1.0]),
            (&[5, 1, 10], &[0.7, 0.14, 0.16]),
            // Together they can take 56 %: each takes more.
            (&[1, 3], &[0.25, 0.75]),
            (&[0, 0], &[0.0, 0.0]),
        ] {
            assert!(close(&of(wells), wanted), "{wells:?}: {:?}", of(wells));
        }
    }

    #[test]
    fn who_cannot_take_its_share_leaves_the_rest_to_the_others() {
        let of = |shares: &[(u32, usize)]| -> Vec<f64> {
            let shares: Vec<_> =
                shares.iter().map(|(s, well)| (*s, Strength { well: *well, all: 10 })).collect();
            parts(|chance| distribute(&shares, chance), shares.len())
        };
        assert!(close(&of(&[(80, 10), (20, 8)]), &[0.8, 0.2]));
        assert!(close(&of(&[(80, 5), (20, 10)]), &[0.56 / 0.76, 0.2 / 0.76]));
        assert!(close(&of(&[(80, 0), (20, 10)]), &[0.0, 1.0]));
        assert!(close(&of(&[(80, 0), (20, 0)]), &[0.0, 0.0]));
    }

    proptest! {
        #[test]
        fn a_request_goes_to_somebody_who_takes_it(
            wells in prop::collection::vec((0usize..4, 1u32..100), 1..6), chance in 0.0..1.0,
        ) {
            let strengths: Vec<_> =
                wells.iter().map(|(well, _)| Strength { well: *well, all: 3.max(*well) }).collect();
            let shares: Vec<_> =
                wells.iter().zip(&strengths).map(|((_, share), one)| (*share, *one)).collect();
            let any = wells.iter().any(|(well, _)| *well > 0);
            for picked in [spill(&strengths, chance), distribute(&shares, chance)] {
                prop_assert_eq!(picked.is_some(), any);
                prop_assert!(picked.is_none_or(|at| wells[at].0 > 0));
            }
        }
    }
}
