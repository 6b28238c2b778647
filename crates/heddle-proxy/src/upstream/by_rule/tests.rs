//! Choices among endpoints at several localities, of which some were tried.

use std::{sync::Arc, time::Duration};

use heddle_logic::LoadEstimate;
use heddle_model::{
    Locality, Protocol, WorkloadId,
    discovery::{
        ClusterKey, ClusterPolicy, Distribute, Inbound, LoadBalancing, LocalityRules,
        OutlierDetection, Provenance,
    },
};
use heddle_runtime::clock;
use heddle_testkit::resources::{self, PORT, service};

use super::*;
use crate::snapshot::{CompiledDestination, ResourceSet, SnapshotBuilder};

/// Where the endpoints are, in order.
const PLACES: [&str; 4] = ["eu/a", "eu/a", "eu/b", "us/a"];

fn policy(locality: LocalityRules) -> ClusterPolicy {
    ClusterPolicy {
        tls: None,
        cluster: ClusterKey { service: service("reviews"), subset: None, port: PORT },
        provenance: Provenance::default(),
        outlier: Some(OutlierDetection::default()),
        pool: None,
        balancing: Some(LoadBalancing { locality: Some(locality), ..LoadBalancing::default() }),
        retry_budget: None,
    }
}

/// What a sidecar at `here` is told.
fn told(here: &str, policy: &ClusterPolicy) -> ResourceSet {
    let place = |text: &str| Locality::parse(text).unwrap_or_default();
    let mut set = ResourceSet::default();
    let mut inbound = resources::inbound_of("client-1", "client", PORT);
    inbound.locality = Box::new(place(here));
    set.inbound = Some(Arc::new(inbound));
    let mut endpoints = resources::endpoints("reviews", &[20, 21, 22, 23]);
    for (endpoint, at) in endpoints.endpoints.iter_mut().zip(PLACES) {
        endpoint.locality = place(at);
    }
    set.insert_endpoints(endpoints);
    let mut destination = resources::destination("reviews", Vec::new());
    destination.ports.iter_mut().for_each(|port| port.protocol = Protocol::Http);
    destination.policies = vec![policy.clone()];
    set.insert_destination(CompiledDestination::new(destination).unwrap());
    set
}

fn cluster(builder: &mut SnapshotBuilder, set: &ResourceSet) -> Arc<Cluster> {
    let snapshot = builder.build(set, 1).snapshot;
    let plan = snapshot.destination(&service("reviews")).unwrap();
    Arc::clone(&plan.port(PORT).unwrap().default)
}

fn groups(cluster: &Cluster) -> Option<Vec<Vec<usize>>> {
    let balancer = cluster.balancer.as_ref()?;
    Some(balancer.groups().iter().map(|group| group.members.clone()).collect())
}

/// Which endpoints a request goes to that was tried at these, by any chance.
fn chosen(cluster: &Cluster, tried: &[usize], elsewhere: bool) -> Vec<usize> {
    let balancer = cluster.balancer.as_ref().unwrap();
    let now = clock::now();
    let load = LoadEstimate::neutral(now, []);
    let mut random = fastrand::Rng::with_seed(3);
    let mut all: Vec<usize> = (0..200)
        .map(|_| {
            let ask = Ask { elsewhere, ..Ask::new(now, random.u64(..)) };
            let choice = Choice { cluster, balancer, ask, copy: false };
            let is_tried = |at: usize| tried.contains(&at);
            let tried = (!tried.is_empty()).then_some(&is_tried as &dyn Fn(usize) -> bool);
            match choice.make(tried, &|_| load.cost(now + Duration::from_secs(1))) {
                Ok(Chosen::One(at)) => at,
                other => panic!("{other:?}"),
            }
        })
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn builder() -> SnapshotBuilder {
    SnapshotBuilder::new(WorkloadId("client-1".into()))
}

#[test]
fn another_attempt_stays_near_while_there_is_somebody_unless_it_is_to_go_elsewhere() {
    let cluster = cluster(&mut builder(), &told("eu/a", &policy(LocalityRules::default())));
    assert_eq!(groups(&cluster), Some(vec![vec![0, 1], vec![2], vec![3]]));
    for (tried, elsewhere, wanted) in [
        (&[][..], false, &[0, 1][..]),
        (&[0], false, &[1]),
        (&[0, 1], false, &[2]),
        (&[0, 1, 2], false, &[3]),
        (&[0, 1, 2, 3], false, &[0, 1]),
        (&[0], true, &[2]),
        (&[0, 2], true, &[3]),
        (&[0, 2, 3], true, &[1]),
    ] {
        assert_eq!(chosen(&cluster, tried, elsewhere), wanted, "{tried:?} {elsewhere}");
    }
}

#[test]
fn groups_follow_the_rule_and_where_the_caller_is() {
    let near = policy(LocalityRules::default());
    let mut builder = builder();
    assert_eq!(groups(&cluster(&mut builder, &told("", &near))), None, "nowhere is near");
    let told_near = cluster(&mut builder, &told("us/a", &near));
    assert_eq!(groups(&told_near), Some(vec![vec![3], vec![0, 1, 2]]));
    let again = cluster(&mut builder, &told("us/a", &near));
    assert!(Arc::ptr_eq(&told_near, &again), "what did not change is not made anew");
    let off = policy(LocalityRules { off: true, ..LocalityRules::default() });
    assert_eq!(groups(&cluster(&mut builder, &told("us/a", &off))), None);
    let mut without = near;
    without.outlier = None;
    assert_eq!(groups(&cluster(&mut builder, &told("us/a", &without))), None);
    let to = [("eu/b".to_owned(), 90), ("us".to_owned(), 10)];
    let distribute = vec![Distribute { from: "us".into(), to: to.into() }];
    let shares = policy(LocalityRules { distribute, ..LocalityRules::default() });
    let shared = cluster(&mut builder, &told("us/a", &shares));
    assert_eq!(groups(&shared), Some(vec![vec![2], vec![3]]));
    assert_eq!(chosen(&shared, &[], false), [2, 3]);
}

/// A rule that goes by zones, and a caller in `eu/a` of whose like so many are in each zone.
fn zoned(least: u32, callers: &[(&str, u32)]) -> ResourceSet {
    let rules = LocalityRules { zones: Some(least), ..LocalityRules::default() };
    let without = ClusterPolicy { outlier: None, ..policy(rules) };
    let mut set = told("eu/a", &without);
    let mut inbound = Inbound::clone(set.inbound.as_deref().unwrap());
    let place = |text: &str| Locality::parse(text).unwrap().place();
    inbound.callers = callers.iter().map(|(at, count)| (place(at), *count)).collect();
    set.inbound = Some(Arc::new(inbound));
    set
}

#[test]
fn zones_are_told_apart_where_the_region_has_several_and_it_is_known_who_calls() {
    let all = Some(vec![vec![0, 1, 2], vec![3], vec![0, 1], vec![2]]);
    let mut builder = builder();
    let both = cluster(&mut builder, &zoned(3, &[("eu/a", 1), ("eu/b", 1)]));
    assert_eq!(groups(&both), all);
    let balancer = both.balancer.as_ref().unwrap();
    // Two of three endpoints are here, and half of the callers.
    assert_eq!((balancer.levels(), balancer.zone_shares()), (2, &[1.0, 0.0][..]));
    assert_eq!(chosen(&both, &[], false), [0, 1]);
    assert_eq!(chosen(&both, &[0], false), [1]);
    assert_eq!(chosen(&both, &[0, 1], false), [2], "another zone goes before another region");
    assert_eq!(chosen(&both, &[0, 1, 2], false), [3]);
    assert_eq!(chosen(&both, &[0], true), [2]);
    let crowded = cluster(&mut builder, &zoned(3, &[("eu/a", 3)]));
    assert_eq!(chosen(&crowded, &[], false), [0, 1, 2], "all callers are here");
    for (why, set) in [
        ("too few endpoints", zoned(4, &[("eu/a", 1), ("eu/b", 1)])),
        ("nobody is known here", zoned(3, &[("eu/b", 1)])),
    ] {
        let cluster = cluster(&mut builder, &set);
        assert_eq!(chosen(&cluster, &[], false), [0, 1, 2], "{why}: the region's, all alike");
    }
}
