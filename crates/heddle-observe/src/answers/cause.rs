//! Whose failures a service's failures are: the deepest callee that accounts for them.

use std::collections::{BTreeMap, BTreeSet};

use heddle_model::ServiceName;
use heddle_wire::local::observe_api::Cause;

use super::EdgeKey;
use crate::{
    limits,
    rates::{Sides, Sums, per},
};

/// What went wrong between two services.
#[derive(Debug, Clone, Copy, Default)]
struct Wrong {
    asked: f64,
    failed: f64,
    injected: f64,
}

impl Wrong {
    fn add(&mut self, sides: &Sides) {
        // What the caller saw counts; one without a sidecar saw nothing.
        let seen: &Sums = if sides.client.any() { &sides.client } else { &sides.server };
        self.asked += seen.requests.max(seen.failed);
        self.failed += seen.failed;
        self.injected += seen.injected;
    }

    /// Of all calls, whoever wanted them to fail.
    fn share(&self) -> f64 {
        per(self.failed + self.injected, self.asked)
    }
}

/// Where the failures of each failing service come from, if not from itself. A callee counts where it fails its caller
/// at least as often as [`limits::CAUSE_SHARE`] of the caller's own failures, an abort that a rule injects included.
pub(super) fn causes(edges: &BTreeMap<EdgeKey, Sides>) -> BTreeMap<ServiceName, Cause> {
    let mut onward: BTreeMap<&ServiceName, BTreeMap<&ServiceName, Wrong>> = BTreeMap::new();
    let mut received: BTreeMap<&ServiceName, Wrong> = BTreeMap::new();
    for ((source, destination, _), sides) in edges {
        onward.entry(source).or_default().entry(destination).or_default().add(sides);
        received.entry(destination).or_default().add(sides);
    }
    let failing = received.iter().filter(|(_, wrong)| {
        per(wrong.failed, wrong.asked - wrong.injected) >= limits::FAILING_SHARE
    });
    failing
        .filter_map(|(service, wrong)| {
            let cause = deepest(service, *wrong, &onward)?;
            Some(((*service).clone(), cause))
        })
        .collect()
}

fn deepest<'a>(
    service: &'a ServiceName,
    wrong: Wrong,
    onward: &BTreeMap<&'a ServiceName, BTreeMap<&'a ServiceName, Wrong>>,
) -> Option<Cause> {
    let mut path = vec![service];
    let mut seen = BTreeSet::from([service]);
    let mut now = wrong;
    while let Some(callees) = onward.get(path.last()?) {
        let least = now.failed * limits::CAUSE_SHARE;
        let accounts = callees.iter().filter(|(callee, wrong)| {
            !seen.contains(*callee)
                && wrong.share() >= limits::FAILING_SHARE
                && wrong.failed + wrong.injected >= least
        });
        let worst = accounts
            .max_by(|(_, a), (_, b)| (a.failed + a.injected).total_cmp(&(b.failed + b.injected)));
        let Some((callee, wrong)) = worst else { break };
        seen.insert(callee);
        path.push(callee);
        now = *wrong;
        // What a rule aborts never reaches the callee: nothing behind it can be the cause.
        if wrong.injected > wrong.failed {
            break;
        }
    }
    (path.len() > 1).then(|| Cause {
        failed: per(now.failed, now.asked),
        injected: per(now.injected, now.asked),
        path: path.into_iter().cloned().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Protocol;

    fn service(name: &str) -> ServiceName {
        ServiceName::new(name, "default").unwrap()
    }

    fn edges(all: &[(&str, &str, f64, f64)]) -> BTreeMap<EdgeKey, Sides> {
        let edge = |&(from, to, failed, injected): &(&str, &str, f64, f64)| {
            let mut client = Sums::default();
            (client.requests, client.failed, client.injected) = (100.0, failed, injected);
            let key = (service(from), service(to), Protocol::Http);
            (key, Sides { client, server: Sums::default() })
        };
        all.iter().map(edge).collect()
    }

    fn path(all: &[(&str, &str, f64, f64)], of: &str) -> Vec<String> {
        let cause = causes(&edges(all)).remove(&service(of));
        cause.map_or_else(Vec::new, |cause| cause.path.into_iter().map(|one| one.name).collect())
    }

    #[test]
    fn the_deepest_failing_callee_is_the_cause() {
        let all = [
            ("load", "front", 40.0, 0.0),
            ("front", "reviews", 40.0, 0.0),
            ("front", "photos", 2.0, 0.0),
            ("reviews", "ratings", 35.0, 0.0),
        ];
        assert_eq!(path(&all, "front"), ["front", "reviews", "ratings"]);
        assert_eq!(path(&all, "reviews"), ["reviews", "ratings"]);
        assert!(path(&all, "ratings").is_empty(), "it is its own cause");
    }

    #[test]
    fn an_injected_abort_is_a_cause_and_what_is_behind_it_is_not() {
        let all = [
            ("front", "reviews", 30.0, 0.0),
            ("reviews", "ratings", 0.0, 30.0),
            ("ratings", "store", 50.0, 0.0),
        ];
        let cause = causes(&edges(&all)).remove(&service("reviews")).unwrap();
        assert_eq!(cause.path, [service("reviews"), service("ratings")]);
        assert_eq!((cause.failed, cause.injected), (0.0, 0.3));
    }

    #[test]
    fn a_callee_that_fails_little_is_no_cause_and_a_circle_ends() {
        assert!(path(&[("a", "b", 50.0, 0.0), ("b", "c", 5.0, 0.0)], "b").is_empty());
        let circle = [("a", "b", 50.0, 0.0), ("b", "a", 50.0, 0.0)];
        assert_eq!(path(&circle, "a"), ["a", "b"]);
    }
}
