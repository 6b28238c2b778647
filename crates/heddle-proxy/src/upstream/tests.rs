//! How requests spread over endpoints, and that every attempt ends once.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use heddle_model::{Identity, Locality, WorkloadId};

use std::time::Duration;

use heddle_model::ServiceName;

use super::{endpoint::COLD_ANSWERS, *};
use crate::snapshot::{ClusterKey, ClusterOutside};

const MS: Duration = Duration::from_millis(1);

fn cluster(count: u8) -> Backend {
    let service = ServiceName::new("reviews", "default").unwrap();
    let endpoint = |n: u8| LbEndpoint {
        workload: Arc::new(WorkloadInfo {
            id: WorkloadId(format!("reviews-{n}")),
            name: format!("reviews-{n}"),
            namespace: "default".into(),
            identity: Identity::local("default", "reviews"),
            services: BTreeSet::from([service.clone()]),
            version: String::new(),
            labels: BTreeMap::new(),
            ports: BTreeMap::new(),
        }),
        ip: Ipv4Addr::new(127, 0, 0, n).into(),
        port: 80,
        weight: 1,
        locality: Locality::default(),
        is_self: false,
        outside: None,
        slot: EndpointSlot { index: u32::from(n), stamp: u64::from(n) + 1 },
        place: None,
        tls: None,
    };
    Backend::Cluster(Arc::new(Cluster {
        key: ClusterKey { service: service.clone(), subset: None, port: 80 },
        endpoints: (0..count).map(|n| Arc::new(endpoint(n))).collect(),
        retries: crate::state::RetryAccounts::default().of(&service),
        breaker: None,
        balancer: None,
        tls: None,
        outside: ClusterOutside::default(),
    }))
}

/// Sends `count` requests one after the other; `answer` gives latency and status by endpoint
/// and number of its requests so far. Returns how many each got.
fn simulate(count: u32, answer: impl Fn(usize, u32) -> (Duration, u16)) -> Vec<u32> {
    let (upstreams, backend) = (Upstreams::default(), cluster(3));
    let mut random = fastrand::Rng::with_seed(5);
    let mut now = clock::now();
    let mut served = vec![0; 3];
    for _ in 0..count {
        let picked = upstreams.pick(&backend, &[], Ask::new(now, random.u64(..))).unwrap();
        let index = usize::try_from(picked.stamp).unwrap() - 1;
        let (latency, status) = answer(index, served[index]);
        let mut attempt = picked.begin(now);
        now += latency;
        attempt.answered(now, status);
        served[index] += 1;
    }
    served
}

#[test]
fn a_cold_first_answer_costs_an_endpoint_nothing() {
    let served = simulate(300, |index, nth| {
        let cold = index == 2 && nth == 0;
        (if cold { 98 * MS } else { MS / 2 }, 200)
    });
    assert!(served.iter().all(|count| *count > 70), "{served:?}");
}

#[test]
fn equal_copies_get_equal_shares_also_where_an_answer_is_late_now_and_then() {
    let served = simulate(3_000, |index, nth| {
        let late = (nth + 7 * u32::try_from(index).unwrap()) % 60 == 59;
        (if late { 40 * MS } else { 2 * MS }, 200)
    });
    assert!(served.iter().all(|count| (900..1_100).contains(count)), "{served:?}");
}

#[test]
fn an_endpoint_that_stays_slow_gets_little() {
    let served = simulate(300, |index, _| (if index == 2 { 50 * MS } else { MS }, 200));
    assert!(served[2] < 20, "{served:?}");
}

#[test]
fn an_endpoint_that_fails_fast_attracts_nothing() {
    let served = simulate(300, |index, _| (MS, if index == 2 { 503 } else { 200 }));
    assert!(served[2] < 30, "{served:?}");
}

#[test]
fn what_was_tried_is_tried_again_only_when_nothing_else_is_left() {
    let (upstreams, backend) = (Upstreams::default(), cluster(3));
    let now = clock::now();
    let mut tried = Vec::new();
    for left in [2, 1, 0] {
        let next = upstreams.pick(&backend, &tried, Ask::new(now, 7)).unwrap();
        assert!(tried.iter().all(|one| !Rc::ptr_eq(one, &next)));
        assert_eq!(Upstreams::exhausted(&backend, &tried, &next), left == 0);
        tried.push(next);
    }
    assert!(upstreams.pick(&backend, &tried, Ask::new(now, 7)).is_ok());
    assert!(upstreams.pick(&cluster(0), &[], Ask::new(now, 7)).is_err());
}

#[test]
fn a_connection_opened_early_and_not_used_says_nothing_about_speed() {
    let upstreams = Upstreams::default();
    let upstream =
        upstreams.of_target(DialTarget::Application { port: 80, caller: None, at: None }, None);
    let begun = clock::now();
    for _ in 0..COLD_ANSWERS {
        upstream.begin(begun).answered(begun + 50 * MS, 200);
    }
    let later = begun + 5000 * MS;
    let before = upstream.cost(later);
    assert!(before.is_some(), "warm");
    let mut early = upstream.begin(later - MS);
    early.connected(later);
    early.unused();
    assert_eq!(upstream.cost(later), before);
}

#[test]
fn every_attempt_ends_once_also_when_it_is_dropped() {
    let upstreams = Upstreams::default();
    let upstream =
        upstreams.of_target(DialTarget::Application { port: 80, caller: None, at: None }, None);
    let attempt = upstream.begin(clock::now());
    assert_eq!(upstream.load.borrow().in_flight(), 1);
    drop(attempt);
    assert_eq!(upstream.load.borrow().in_flight(), 0);
}
