//! Snapshots built by hand.

mod outside;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use heddle_model::{
    Address, Addresses, Destination, Endpoint, EndpointPort, EndpointState, Endpoints, Owner,
    WorkloadId,
    discovery::{ClusterPolicy, ConnectionPool, Provenance, RuleAction, Target, WeightedTarget},
};

use super::*;
use crate::testing::resources::{self, PORT, dangling, service, target};

fn reviews(endpoints: Vec<Endpoint>) -> Endpoints {
    Endpoints::inside(service("reviews"), endpoints)
}

fn endpoint(id: &str, last: u8, version: &str, state: EndpointState) -> Endpoint {
    let mut endpoint = resources::endpoint(id, "reviews", last, version);
    endpoint.ports.insert(PORT, EndpointPort { number: PORT, state });
    endpoint
}

/// Who is behind the service's port, and where.
fn behind(snapshot: &Snapshot) -> Vec<(String, SocketAddr)> {
    let port = port(snapshot);
    port.default.endpoints.iter().map(|one| (one.id().to_string(), one.address())).collect()
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
    set.insert_destination(CompiledDestination::new(destination(targets)).unwrap());
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
fn a_service_of_the_own_node_leads_to_nobody_of_another() {
    let at = |id: &str, last: u8, node: &str| {
        let mut one = endpoint(id, last, "v1", EndpointState::Ready);
        one.locality.node = node.into();
        one
    };
    let mut set = ResourceSet::default();
    let all = reviews(vec![at("a", 1, "one"), at("b", 2, "two")]);
    set.insert_destination(CompiledDestination::new(destination(Vec::new())).unwrap());
    let mut led = |node_local: bool, node: &str| -> Vec<String> {
        let mut own = resources::inbound();
        own.locality.node = node.into();
        set.inbound = Some(Arc::new(own));
        set.insert_endpoints(Endpoints { node_local, ..all.clone() });
        behind(&builder().build(&set, 1).snapshot).into_iter().map(|(id, _)| id).collect()
    };
    assert_eq!(led(false, "one"), ["a", "b"]);
    assert_eq!(led(true, "one"), ["a"]);
    assert_eq!(led(true, "three"), Vec::<String>::new());
    assert_eq!(led(true, ""), ["a", "b"], "where it is, was not told");
}

#[test]
fn a_rule_that_refuses_has_no_target_and_needs_no_backend() {
    let mut destination = destination(vec![target("canary", None)]);
    destination.ports[0].http[0].action = RuleAction::Refuse("`redirect` is no more".into());
    let mut set = ResourceSet::default();
    set.insert_endpoints(reviews(vec![endpoint("a", 1, "v1", EndpointState::Ready)]));
    set.insert_destination(CompiledDestination::new(destination).unwrap());
    let built = builder().build(&set, 1);
    assert!(built.held_back.is_empty());
    let port = port(&built.snapshot);
    assert!(rule(&port).targets().is_empty());
    assert_eq!(rule(&port).pick(7), (None, Err("`redirect` is no more")));
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
    set.insert_destination(CompiledDestination::new(destination(targets)).unwrap());
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
    set.insert_destination(
        CompiledDestination::new(destination(vec![target("reviews", None)])).unwrap(),
    );
    builder.build(&set, 1);

    set.insert_destination(
        CompiledDestination::new(destination(vec![target("canary", None)])).unwrap(),
    );
    let built = builder.build(&set, 2);
    assert_eq!(built.held_back[&service("reviews")], [service("canary")].into());
    let cluster = Arc::clone(target_of(&port(&built.snapshot), 0).unwrap());
    assert_eq!(cluster.key.service, service("reviews"), "the rules before stay in force");
    assert!(builder.backends(&set).contains(&service("canary")));

    // An empty list counts as present.
    set.insert_endpoints(Endpoints::inside(service("canary"), vec![]));
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
    set.insert_destination(
        CompiledDestination::new(destination(vec![target("reviews", None)])).unwrap(),
    );
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
    set.insert_destination(
        CompiledDestination::new(destination(vec![target("reviews", None)])).unwrap(),
    );
    let port = port(&builder.build(&set, 1).snapshot);
    let own: Vec<bool> = port.default.endpoints.iter().map(|one| one.is_self).collect();
    assert_eq!(own, [true, false]);
}

#[test]
fn a_service_port_leads_to_each_endpoints_target_port() {
    let mut set = ResourceSet::default();
    let mut endpoints =
        ["a", "b", "c"].map(|id| endpoint(id, 1, "v1", EndpointState::Ready)).to_vec();
    endpoints[0].ports =
        [(PORT, EndpointPort { number: 8080, state: EndpointState::Ready })].into();
    endpoints[1].ports =
        [(PORT, EndpointPort { number: 8081, state: EndpointState::Ready })].into();
    // What the number of the service's port would be elsewhere says nothing here.
    endpoints[2].ports =
        [(8080, EndpointPort { number: PORT, state: EndpointState::Ready })].into();
    set.insert_endpoints(reviews(endpoints));
    set.insert_destination(CompiledDestination::new(destination(vec![])).unwrap());
    let found = behind(&builder().build(&set, 1).snapshot);
    let ports: Vec<_> = found.iter().map(|(id, address)| (id.as_str(), address.port())).collect();
    assert_eq!(ports, [("a", 8080), ("b", 8081)]);
}

#[test]
fn two_service_ports_that_lead_to_one_target_port_share_what_is_known_of_it() {
    let mut set = ResourceSet::default();
    let mut one = endpoint("a", 1, "v1", EndpointState::Ready);
    let target = EndpointPort { number: 8080, state: EndpointState::Ready };
    one.ports = [(PORT, target), (PORT + 1, target)].into();
    set.insert_endpoints(reviews(vec![one]));
    let mut told = destination(vec![]);
    told.ports.push(told.ports[0].clone());
    told.ports[1].number = PORT + 1;
    set.insert_destination(CompiledDestination::new(told).unwrap());
    let snapshot = builder().build(&set, 1).snapshot;
    let plan = snapshot.destination(&service("reviews")).unwrap();
    let slot = |number: u16| plan.port(number).unwrap().default.endpoints[0].slot;
    assert_eq!(slot(PORT), slot(PORT + 1));
}

#[test]
fn an_endpoint_is_reached_in_a_family_that_both_have() {
    let v4 = Ipv4Addr::new(240, 241, 0, 1);
    let v6: Ipv6Addr = "fd68::1".parse().unwrap();
    let own = [
        Addresses::V4(Ipv4Addr::new(240, 241, 0, 9)),
        Addresses::V6("fd68::9".parse().unwrap()),
        Addresses::Both(Ipv4Addr::new(240, 241, 0, 9), "fd68::9".parse().unwrap()),
    ];
    let reached = |own: Addresses, theirs: Addresses| {
        let mut set = ResourceSet::default();
        let mut one = endpoint("a", 1, "v1", EndpointState::Ready);
        one.addresses = theirs;
        set.insert_endpoints(reviews(vec![one]));
        set.insert_destination(CompiledDestination::new(destination(vec![])).unwrap());
        behind(&builder().with_addresses(own).build(&set, 1).snapshot)[0].1.ip()
    };
    assert_eq!(
        own.map(|own| reached(own, Addresses::Both(v4, v6))),
        [v4.into(), v6.into(), IpAddr::from(v4)]
    );
    assert_eq!(own.map(|own| reached(own, Addresses::V6(v6))), [IpAddr::from(v6); 3]);
    assert_eq!(own.map(|own| reached(own, Addresses::V4(v4))), [IpAddr::from(v4); 3]);
}

#[test]
fn endpoints_that_serve_until_they_end_are_used_only_where_none_is_ready() {
    let mut builder = builder();
    let mut set = ResourceSet::default();
    let ids = |set: &ResourceSet, builder: &mut SnapshotBuilder| -> Vec<String> {
        behind(&builder.build(set, 1).snapshot).into_iter().map(|(id, _)| id).collect()
    };
    set.insert_destination(CompiledDestination::new(destination(vec![])).unwrap());
    let ending = || {
        vec![
            endpoint("a", 1, "v1", EndpointState::ServingTerminating),
            endpoint("b", 2, "v1", EndpointState::Terminating),
            endpoint("c", 3, "v1", EndpointState::Pending),
        ]
    };
    set.insert_endpoints(reviews(ending()));
    assert_eq!(ids(&set, &mut builder), ["a"]);
    let fresh = endpoint("d", 4, "v1", EndpointState::Ready);
    set.insert_endpoints(reviews([ending(), vec![fresh]].concat()));
    assert_eq!(ids(&set, &mut builder), ["d"]);
}

#[test]
fn a_cluster_with_a_policy_has_its_endpoints_to_itself_and_keeps_its_counts() {
    let key = |subset: Option<&str>| match target("reviews", subset).to {
        Target::Cluster(key) => key,
        Target::Dangling(_) => unreachable!("it names a service"),
    };
    let policy = |most| ClusterPolicy {
        cluster: key(Some("v1")),
        provenance: Provenance::default(),
        outlier: None,
        pool: Some(ConnectionPool { max_connections: Some(most), ..ConnectionPool::default() }),
        tls: None,
        balancing: None,
        retry_budget: None,
    };
    let mut builder = builder();
    let mut set = ResourceSet::default();
    set.insert_endpoints(reviews(vec![endpoint("a", 1, "v1", EndpointState::Ready)]));
    let mut told = destination(vec![target("reviews", Some("v1"))]);
    set.insert_destination(CompiledDestination::new(told.clone()).unwrap());
    let without = port(&builder.build(&set, 1).snapshot);
    let slot = |cluster: &Cluster| cluster.endpoints[0].slot;
    assert_eq!(slot(&without.default), slot(target_of(&without, 0).unwrap()));

    told.policies = vec![policy(1)];
    set.insert_destination(CompiledDestination::new(told.clone()).unwrap());
    let with = port(&builder.build(&set, 2).snapshot);
    let limited = target_of(&with, 0).unwrap();
    assert!(Arc::ptr_eq(&with.default, &without.default), "nothing is asked of that one");
    assert_ne!(slot(limited), slot(&with.default));

    told.policies = vec![policy(2)];
    set.insert_destination(CompiledDestination::new(told).unwrap());
    let edited = port(&builder.build(&set, 3).snapshot);
    let edited = target_of(&edited, 0).unwrap();
    assert_eq!(slot(edited), slot(limited), "what is known of it outlives the edit");
    let most = edited.breaker.as_ref().and_then(|one| one.policy().pool.as_ref()?.max_connections);
    assert_eq!(most, Some(2));
}
