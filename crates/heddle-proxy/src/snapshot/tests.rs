//! Snapshots built by hand.

use std::net::Ipv4Addr;

use heddle_model::{
    Address, Destination, Endpoint, EndpointState, Endpoints, Owner, WorkloadId,
    discovery::{RuleAction, WeightedTarget},
};

use super::*;
use crate::testing::resources::{self, PORT, dangling, service, target};

fn reviews(endpoints: Vec<Endpoint>) -> Endpoints {
    Endpoints { service: service("reviews"), endpoints }
}

fn endpoint(id: &str, last: u8, version: &str, state: EndpointState) -> Endpoint {
    let mut endpoint = resources::endpoint(id, "reviews", last, version);
    endpoint.ports.insert(PORT, state);
    endpoint
}

fn destination(targets: Vec<WeightedTarget>) -> Destination {
    resources::destination("reviews", targets)
}

fn builder() -> SnapshotBuilder {
    SnapshotBuilder::new(WorkloadId("client".into()))
}

fn port(snapshot: &Snapshot) -> Arc<PortPlan> {
    Arc::clone(snapshot.destination(&service("reviews")).unwrap().port(9080).unwrap())
}

fn rule(port: &PortPlan) -> &HttpRulePlan {
    &port.http.rules()[0]
}

/// A target of the port's one rule.
fn target_of(port: &PortPlan, index: usize) -> Picked<'_> {
    rule(port).targets()[index].to.get()
}

#[test]
fn targets_resolve_to_ready_endpoints_of_their_subset() {
    let mut set = ResourceSet::default();
    set.insert_endpoints(reviews(vec![
        endpoint("a", 1, "v1", EndpointState::Ready),
        endpoint("b", 2, "v2", EndpointState::Ready),
        endpoint("c", 3, "v2", EndpointState::Pending),
        endpoint("d", 4, "v2", EndpointState::Terminating),
    ]));
    let targets = vec![target("reviews", Some("v2")), dangling("no subset v9")];
    set.insert_destination(destination(targets)).unwrap();
    let built = builder().build(&set, 7);
    assert_eq!(built.snapshot.generation, 7);
    let port = port(&built.snapshot);
    let ids = |cluster: &Cluster| -> Vec<String> {
        cluster.endpoints.iter().map(|one| one.id().to_string()).collect()
    };
    assert_eq!(ids(&port.default), ["a", "b"]);
    assert_eq!(ids(target_of(&port, 0).unwrap()), ["b"]);
    assert_eq!(target_of(&port, 1), Err("no subset v9"));
    assert_eq!(port.http.rules().len(), 1);
}

#[test]
fn a_rule_that_refuses_has_no_target_and_needs_no_backend() {
    let mut destination = destination(vec![target("canary", None)]);
    destination.ports[0].http[0].action = RuleAction::Refuse("`redirect` is no more".into());
    let mut set = ResourceSet::default();
    set.insert_endpoints(reviews(vec![endpoint("a", 1, "v1", EndpointState::Ready)]));
    set.insert_destination(destination).unwrap();
    let built = builder().build(&set, 1);
    assert!(built.held_back.is_empty());
    let port = port(&built.snapshot);
    assert!(rule(&port).targets().is_empty());
    assert_eq!(rule(&port).pick(7), Err("`redirect` is no more"));
}

#[test]
fn what_did_not_change_keeps_its_arc_and_slot() {
    let mut builder = builder();
    let mut set = ResourceSet::default();
    set.insert_endpoints(reviews(vec![
        endpoint("a", 1, "v1", EndpointState::Ready),
        endpoint("b", 2, "v2", EndpointState::Ready),
    ]));
    let targets = vec![target("reviews", Some("v1")), target("reviews", Some("v2"))];
    set.insert_destination(destination(targets)).unwrap();
    let first = port(&builder.build(&set, 1).snapshot);
    let again = port(&builder.build(&set, 2).snapshot);
    assert!(Arc::ptr_eq(&first, &again));

    set.insert_endpoints(reviews(vec![endpoint("a", 1, "v1", EndpointState::Ready)]));
    let third = port(&builder.build(&set, 3).snapshot);
    assert!(Arc::ptr_eq(&rule(&first).compiled, &rule(&third).compiled), "matchers stay");
    let (v1, v2) = (target_of(&third, 0).unwrap(), target_of(&third, 1).unwrap());
    assert!(Arc::ptr_eq(target_of(&first, 0).unwrap(), v1));
    assert!(v2.endpoints.is_empty());

    // A new endpoint takes the freed index with a stamp of its own.
    let freed = target_of(&first, 1).unwrap().endpoints[0].slot;
    set.insert_endpoints(reviews(vec![
        endpoint("a", 1, "v1", EndpointState::Ready),
        endpoint("e", 5, "v2", EndpointState::Ready),
    ]));
    let fourth = port(&builder.build(&set, 4).snapshot);
    let slot = target_of(&fourth, 1).unwrap().endpoints[0].slot;
    assert_eq!(slot.index, freed.index);
    assert_ne!(slot.stamp, freed.stamp);
}

#[test]
fn new_rules_wait_for_the_endpoints_of_every_backend_they_name() {
    let mut builder = builder();
    let mut set = ResourceSet::default();
    set.insert_endpoints(reviews(vec![endpoint("a", 1, "v1", EndpointState::Ready)]));
    set.insert_destination(destination(vec![target("reviews", None)])).unwrap();
    builder.build(&set, 1);

    set.insert_destination(destination(vec![target("canary", None)])).unwrap();
    let built = builder.build(&set, 2);
    assert_eq!(built.held_back[&service("reviews")], [service("canary")].into());
    let cluster = Arc::clone(target_of(&port(&built.snapshot), 0).unwrap());
    assert_eq!(cluster.key.service, service("reviews"), "the rules before stay in force");
    assert!(builder.backends(&set).contains(&service("canary")));

    // An empty list counts as present.
    set.insert_endpoints(Endpoints { service: service("canary"), endpoints: vec![] });
    let built = builder.build(&set, 3);
    assert!(built.held_back.is_empty());
    let cluster = Arc::clone(target_of(&port(&built.snapshot), 0).unwrap());
    assert_eq!(cluster.key.service, service("canary"));
}

#[test]
fn use_marks_survive_rebuilds_and_tell_use_once() {
    let mut builder = builder();
    let mut set = ResourceSet::default();
    set.insert_address(Address {
        ip: Ipv4Addr::new(240, 240, 0, 10).into(),
        owner: Owner::Service(service("reviews")),
    });
    set.insert_endpoints(reviews(vec![]));
    set.insert_destination(destination(vec![target("reviews", None)])).unwrap();
    let snapshot = builder.build(&set, 1).snapshot;
    assert!(builder.destination_marks().all(|(_, mark)| !mark.take()));
    assert!(snapshot.destination(&service("reviews")).is_some());
    assert!(snapshot.address(Ipv4Addr::new(240, 240, 0, 10).into()).is_some());
    set.insert_endpoints(reviews(vec![endpoint("a", 1, "v1", EndpointState::Ready)]));
    builder.build(&set, 2);
    assert!(builder.destination_marks().all(|(_, mark)| mark.take()));
    assert!(builder.address_marks().all(|(_, mark)| mark.take()));
    assert!(builder.destination_marks().all(|(_, mark)| !mark.take()));
}

#[test]
fn the_sidecars_own_workload_is_marked_among_endpoints() {
    let mut builder = SnapshotBuilder::new(WorkloadId("a".into()));
    let mut set = ResourceSet::default();
    set.insert_endpoints(reviews(vec![
        endpoint("a", 1, "v1", EndpointState::Ready),
        endpoint("b", 2, "v2", EndpointState::Ready),
    ]));
    set.insert_destination(destination(vec![target("reviews", None)])).unwrap();
    let port = port(&builder.build(&set, 1).snapshot);
    let own: Vec<bool> = port.default.endpoints.iter().map(|one| one.is_self).collect();
    assert_eq!(own, [true, false]);
}
