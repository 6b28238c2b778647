//! Endpoints outside the mesh: by address, by names that are resolved, and none at all.

use std::collections::BTreeMap;

use heddle_model::discovery::{OutsideAddress, OutsideEndpoint, Resolution};

use super::*;
use crate::resolved::{ResolvedNames, Use};

const HOST: &str = "db.example.com";

fn outside(at: OutsideAddress, version: &str) -> OutsideEndpoint {
    let mut workload = resources::workload(&format!("{at:?}"), "unknown", version);
    workload.ports = BTreeMap::from([(8080, heddle_model::Protocol::Http)]);
    OutsideEndpoint {
        workload,
        described: false,
        at,
        ports: BTreeMap::from([(PORT, 8080)]),
        weight: 0,
        locality: heddle_model::Locality::default(),
    }
}

fn named() -> OutsideEndpoint {
    outside(OutsideAddress::Host(HOST.into()), "v1")
}

fn set_with(outside: Vec<OutsideEndpoint>, resolution: Resolution) -> ResourceSet {
    let mut set = ResourceSet::default();
    set.insert_endpoints(Endpoints { outside, resolution, ..reviews(Vec::new()) });
    set.insert_destination(CompiledDestination::new(destination(Vec::new())).unwrap());
    set
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn lasts(snapshot: &Snapshot) -> Vec<u8> {
    let port = port(snapshot);
    let last = |one: &Arc<LbEndpoint>| match one.ip {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(_) => 0,
    };
    port.default.endpoints.iter().map(last).collect()
}

#[test]
fn rules_that_lead_to_a_name_wait_until_it_has_been_asked_about() {
    let names = ResolvedNames::default();
    let mut builder = builder().with_resolved(names.clone());
    let set = set_with(vec![named()], Resolution::Dns);
    let wanted = SnapshotBuilder::names_outside(&set);
    assert_eq!(wanted, BTreeMap::from([(HOST.into(), Use::All)]));
    names.want(wanted);
    let built = builder.build(&set, 1);
    assert_eq!(built.held_back[&service("reviews")], [service("reviews")].into());
    assert!(built.snapshot.destination(&service("reviews")).is_none());

    names.answered(HOST, vec![ip(2), ip(1)]);
    let first = builder.build(&set, 1);
    assert!(first.held_back.is_empty());
    assert_eq!(lasts(&first.snapshot), [1, 2]);
    let one = &port(&first.snapshot).default.endpoints[0];
    assert_eq!(
        (one.port, one.weight, one.outside),
        (8080, 1, Some(EndpointOutside { described: false }))
    );
    assert!(one.who().is_none() && one.declared() == heddle_model::Protocol::Http);
    assert!(port(&first.snapshot).default.outside.leaves);

    names.answered(HOST, vec![ip(1), ip(3)]);
    let second = builder.build(&set, 1).snapshot;
    assert_eq!(lasts(&second), [1, 3]);
    let kept = (port(&first.snapshot), port(&second));
    assert!(Arc::ptr_eq(&kept.0.default.endpoints[0], &kept.1.default.endpoints[0]));
    names.failed(HOST, "NXDomain");
    assert_eq!(lasts(&builder.build(&set, 1).snapshot), [1, 3], "the last good answer");
}

#[test]
fn round_robin_has_one_endpoint_the_first_of_the_answer() {
    let names = ResolvedNames::default();
    let mut builder = builder().with_resolved(names.clone());
    let set = set_with(vec![named()], Resolution::DnsRoundRobin);
    names.want(SnapshotBuilder::names_outside(&set));
    for answer in [[2, 1], [1, 2]] {
        names.answered(HOST, answer.map(ip).to_vec());
        assert_eq!(lasts(&builder.build(&set, 1).snapshot), [answer[0]]);
    }
}

#[test]
fn a_name_that_leads_nowhere_is_told_unless_others_serve() {
    let names = ResolvedNames::default();
    let mut builder = builder().with_resolved(names.clone());
    let mut set = set_with(vec![named()], Resolution::Dns);
    names.want(SnapshotBuilder::names_outside(&set));
    names.failed(HOST, "NXDomain: no such name");
    let built = builder.build(&set, 1);
    assert!(built.held_back.is_empty(), "it has been asked about");
    let said = port(&built.snapshot).default.outside.unresolved.clone();
    assert_eq!(said.as_deref(), Some("db.example.com: NXDomain: no such name"));

    let by_address = outside(OutsideAddress::Ip(ip(9)), "v1");
    set = set_with(vec![named(), by_address], Resolution::Dns);
    let built = builder.build(&set, 2);
    assert_eq!(lasts(&built.snapshot), [9]);
    assert_eq!(port(&built.snapshot).default.outside.unresolved, None);
}

#[test]
fn another_name_takes_over_when_it_is_known_where_it_leads() {
    let names = ResolvedNames::default();
    let mut builder = builder().with_resolved(names.clone());
    let set = set_with(vec![named()], Resolution::Dns);
    names.want(SnapshotBuilder::names_outside(&set));
    names.answered(HOST, vec![ip(1)]);
    builder.build(&set, 1);
    let other = outside(OutsideAddress::Host("other.example.com".into()), "v1");
    let set = set_with(vec![other], Resolution::Dns);
    names.want(SnapshotBuilder::names_outside(&set));
    assert_eq!(lasts(&builder.build(&set, 2).snapshot), [1], "what was there serves until then");
    names.answered("other.example.com", vec![ip(2)]);
    assert_eq!(lasts(&builder.build(&set, 2).snapshot), [2]);
}

#[test]
fn without_endpoints_a_call_goes_as_it_was_asked() {
    let mut builder = builder();
    let built = builder.build(&set_with(Vec::new(), Resolution::None), 1);
    let cluster = Arc::clone(&port(&built.snapshot).default);
    assert!(cluster.outside.as_asked && cluster.endpoints.is_empty());
}
