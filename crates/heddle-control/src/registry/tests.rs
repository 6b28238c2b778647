//! Members and services: names, addresses, readiness.

use std::collections::{BTreeMap, BTreeSet};

use heddle_compile::endpoints;
use heddle_model::{EndpointState, Locality, Protocol, ServiceName};
use heddle_wire::{
    discovery::WireResource,
    local::control_api::{JoinPort, JoinRequest},
};

use super::*;
use crate::limits::ENDPOINTS_BYTES_MAX;

fn members() -> Members {
    Members::new(AddressRanges::default(), &BTreeMap::new(), 0)
}

fn request(service: &str, version: &str, ports: &[(u16, Protocol)]) -> JoinRequest {
    JoinRequest {
        service: service.to_owned(),
        namespace: "default".to_owned(),
        version: version.to_owned(),
        labels: BTreeMap::new(),
        locality: Locality::default(),
        ports: ports
            .iter()
            .map(|(number, protocol)| JoinPort {
                number: *number,
                name: String::new(),
                protocol: *protocol,
            })
            .collect(),
    }
}

fn counter() -> impl FnMut() -> u32 {
    let mut next = 0;
    move || {
        next += 1;
        next
    }
}

fn name(service: &str) -> ServiceName {
    ServiceName::new(service, "default").unwrap()
}

#[test]
fn a_workload_is_named_for_service_and_version_and_labelled() {
    let mut members = members();
    let joined = members.join(&request("reviews", "v1", &[(9080, Protocol::Http)]), 0, counter());
    let joined = joined.unwrap().workload;
    assert_eq!(joined.workload.name, "reviews-v1");
    assert_eq!(joined.workload.id.0, "reviews-v1-000001");
    assert_eq!(joined.workload.labels["app"], "reviews");
    assert_eq!(joined.workload.labels["version"], "v1");
    assert_eq!(joined.workload.ports[&9080].state, EndpointState::Pending);
    assert_eq!(joined.service.unwrap().vip_v4(), Some("240.240.0.10".parse().unwrap()));
    let client = members.join(&request("loadgen", "", &[]), 0, counter()).unwrap().workload;
    assert_eq!(client.workload.name, "loadgen");
    assert_eq!(client.service, None);
}

#[test]
fn ids_and_addresses_are_unique_even_if_the_suffix_repeats() {
    let mut members = members();
    let mut suffixes = [7, 7, 7, 8].into_iter();
    let mut suffix = || suffixes.next().unwrap_or(9);
    let first = members.join(&request("a", "", &[]), 0, &mut suffix).unwrap().workload.workload;
    let second = members.join(&request("a", "", &[]), 0, &mut suffix).unwrap().workload.workload;
    assert_ne!(first.id, second.id);
    assert_ne!(first.addresses, second.addresses);
}

#[test]
fn a_service_is_the_union_of_its_workloads_ports_and_goes_with_the_last() {
    let mut members = members();
    let v1 = members.join(&request("a", "v1", &[(80, Protocol::Http)]), 0, counter()).unwrap();
    let v2 = members.join(&request("a", "v2", &[(81, Protocol::Tcp)]), 0, counter()).unwrap();
    assert!(v2.vip.is_none(), "the service has its address already");
    let ports = |members: &Members| -> Vec<u16> {
        members
            .registry()
            .services
            .get(&name("a"))
            .map_or(vec![], |s| s.ports.keys().copied().collect())
    };
    assert_eq!(ports(&members), [80, 81]);
    members.delete(&v1.workload.workload.id, 1).unwrap();
    assert_eq!(ports(&members), [81]);
    let vip = members.registry().services[&name("a")].vips[0];
    assert_eq!(members.service_at(vip), Some(&name("a")));
    members.delete(&v2.workload.workload.id, 1).unwrap();
    assert!(ports(&members).is_empty());
    assert_eq!(members.service_at(vip), None);
    let other = members.join(&request("b", "", &[(80, Protocol::Http)]), 2, counter()).unwrap();
    assert_ne!(other.workload.service.unwrap().vips[0], vip, "a freed address rests");
    let again = members.join(&request("a", "", &[(80, Protocol::Http)]), 3, counter()).unwrap();
    assert_eq!(again.workload.service.unwrap().vips[0], vip, "the name has it back");
}

#[test]
fn one_port_of_a_service_has_one_protocol() {
    let mut members = members();
    members.join(&request("a", "v1", &[(80, Protocol::Http)]), 0, counter()).unwrap();
    let problems =
        members.join(&request("a", "v2", &[(80, Protocol::Tcp)]), 0, counter()).unwrap_err();
    let reason = &problems[0].reason;
    assert!(reason.contains("http by workload a-v1-000001"), "{reason}");
    assert!(reason.contains("tcp by this workload (version v2)"), "{reason}");
    let silent = members.join(&request("a", "v3", &[(80, Protocol::Undeclared)]), 0, counter());
    let silent = silent.unwrap().workload.workload;
    assert_eq!(silent.ports[&80].protocol, Protocol::Http, "who said nothing follows the service");
}

#[test]
fn every_reason_against_a_workload_is_told_at_once() {
    let mut bad = request(
        "Reviews",
        "v 1",
        &[
            (15001, Protocol::Http),
            (15042, Protocol::Http),
            (0, Protocol::Http),
            (80, Protocol::Http),
            (80, Protocol::Http),
        ],
    );
    bad.namespace = "a.b".to_owned();
    bad.labels.insert("app".to_owned(), "other".to_owned());
    bad.labels.insert("-x".to_owned(), "y".to_owned());
    let problems = members().join(&bad, 0, counter()).unwrap_err();
    let text: Vec<String> = problems
        .iter()
        .map(|p| format!("{}: {}", p.field.as_deref().unwrap_or(""), p.reason))
        .collect();
    for expected in [
        "service: `Reviews` is no DNS label",
        "namespace: `a.b`",
        "label `app=other` contradicts",
        "`-x` is no label key",
        "version: `v 1` is no value",
        "ports[0]: port 15001 is the sidecar's outbound listener",
        "ports[1]: port 15042 is kept for the sidecar",
        "ports[2]: port 0",
        "ports[4]: port 80 is declared twice",
    ] {
        assert!(text.iter().any(|line| line.contains(expected)), "{expected} in {text:#?}");
    }
}

#[test]
fn a_port_name_declares_its_protocol() {
    let mut members = members();
    let mut named = request("a", "", &[(80, Protocol::Undeclared)]);
    named.ports[0].name = "grpc-api".to_owned();
    let joined = members.join(&named, 0, counter()).unwrap().workload;
    assert_eq!(joined.workload.ports[&80].protocol, Protocol::Grpc);
    assert_eq!(joined.service.unwrap().ports[&80].name, "grpc-api");
}

#[test]
fn reports_move_ports_and_a_withdrawn_workload_stays_withdrawn() {
    let mut members = members();
    let joined =
        members.join(&request("a", "", &[(80, Protocol::Http), (81, Protocol::Tcp)]), 0, counter());
    let id = joined.unwrap().workload.workload.id;
    let state = |members: &Members, port| members.registry().workloads[&id].ports[&port].state;
    let touched = members.report(&id, &BTreeSet::from([80, 9999])).unwrap();
    assert_eq!(touched.endpoints, BTreeSet::from([name("a")]));
    assert!(!touched.topology);
    assert_eq!(
        (state(&members, 80), state(&members, 81)),
        (EndpointState::Ready, EndpointState::Pending)
    );
    assert!(!members.report(&id, &BTreeSet::from([80])).unwrap().anything(), "nothing new");
    members.report(&id, &BTreeSet::new()).unwrap();
    assert_eq!(state(&members, 80), EndpointState::Pending, "no longer in LISTEN");
    members.withdraw(&id).unwrap();
    members.report(&id, &BTreeSet::from([80, 81])).unwrap();
    assert_eq!(state(&members, 81), EndpointState::Terminating);
    assert!(members.withdraw(&WorkloadId("nobody".to_owned())).is_none());
}

#[test]
fn adopted_members_keep_their_addresses_and_stale_ones_are_dropped() {
    let mut before = members();
    before.join(&request("gone", "", &[]), 0, || 7).unwrap();
    let kept =
        before.join(&request("a", "", &[(80, Protocol::Http)]), 0, counter()).unwrap().workload;
    let mut after = Members::new(AddressRanges::default(), &BTreeMap::new(), 0);
    let mut gone = kept.workload.clone();
    gone.id = WorkloadId("z-1".to_owned());
    gone.services = BTreeSet::from([name("z")]);
    gone.addresses = Addresses::Both("240.241.0.77".parse().unwrap(), "fd68::77".parse().unwrap());
    assert!(
        after
            .recall(Noted { workloads: vec![gone.clone()], ..Noted::default() }, 0)
            .problems
            .is_empty()
    );
    let late = after.join(&request("y", "", &[]), 0, counter()).unwrap().workload.workload;
    let adopted = after.adopt(std::slice::from_ref(&kept), 0);
    assert!(adopted.problems.is_empty() && adopted.touched.topology, "{adopted:?}");
    assert!(!after.registry().workloads.contains_key(&gone.id), "the holder does not know it");
    assert!(after.registry().workloads.contains_key(&late.id), "joined while the list was made");
    let mine = after.registry().workloads[&kept.workload.id].clone();
    assert_eq!(mine.addresses, kept.workload.addresses);
    assert_eq!(mine.ports[&80].state, EndpointState::Ready, "it was running");
    assert_eq!(after.registry().services[&name("a")].vips, kept.service.clone().unwrap().vips);
    let next = after.join(&request("b", "", &[]), 0, counter()).unwrap().workload.workload;
    assert_ne!(next.addresses, mine.addresses);
}

#[test]
fn an_address_freed_before_a_restart_rests_after_it() {
    let mut before = members();
    let mut join = |at: u64| before.join(&request("a", "", &[]), at, || at as u32).unwrap();
    let [left, kept] = [join(1), join(2)].map(|joined| joined.workload.workload);
    before.delete(&left.id, 100).unwrap();
    let mut after = members();
    assert!(after.recall(before.noted(110), 110).problems.is_empty());
    assert!(after.adopt(&[], 110).touched.topology, "who left meanwhile frees an address too");
    let next = after.join(&request("b", "", &[]), 111, counter()).unwrap().workload.workload;
    assert!(![left.addresses, kept.addresses].contains(&next.addresses), "{next:?}");
    // A clock that was set back: nothing rests for longer than its time.
    let mut after = members();
    after.recall(before.noted(110), 50);
    assert_eq!(after.noted(50 + 599).freed.len(), 1);
    assert!(after.noted(50 + 600).freed.is_empty());
}

#[test]
fn a_member_with_anothers_address_is_refused_by_name() {
    let mut before = members();
    let one =
        before.join(&request("a", "", &[(80, Protocol::Http)]), 0, counter()).unwrap().workload;
    let mut two = one.clone();
    two.workload.id = WorkloadId("b-1".to_owned());
    let mut bad_id = one.clone();
    bad_id.workload.id = WorkloadId("../../etc".to_owned());
    let adopted = members().adopt(&[one, two, bad_id], 0);
    assert_eq!(adopted.problems.len(), 2, "{adopted:?}");
    assert!(adopted.problems[0].reason.contains("b-1 cannot keep its address"));
}

#[test]
fn recalled_services_keep_their_addresses_without_the_store() {
    let mut before = members();
    // In this order, so that going by name would swap them.
    for (service, suffix) in [("b", 1), ("a", 2)] {
        before.join(&request(service, "", &[(80, Protocol::Http)]), 0, || suffix).unwrap();
    }
    let mut after = members();
    let recalled = after.recall(before.noted(0), 0);
    assert!(recalled.problems.is_empty(), "{recalled:?}");
    assert_eq!(after.registry().services, before.registry().services);
    let stored: BTreeMap<_, _> = recalled.vips.into_iter().collect();
    assert_eq!(stored, BTreeMap::from([(name("a"), 11), (name("b"), 10)]));
}

#[test]
fn a_workload_whose_service_could_not_be_told_in_one_message_is_refused() {
    let mut members = members();
    let long = |n: usize| {
        (format!("{}/{n}", [&"p".repeat(62); 4].map(|p| &**p).join(".")), "v".repeat(63))
    };
    let labels: BTreeMap<_, _> = (0..60).map(long).collect();
    let large = |service| JoinRequest {
        labels: labels.clone(),
        ..request(service, "", &[(9080, Protocol::Http)])
    };
    let first = members.join(&large("reviews"), 0, counter()).unwrap().workload.workload;
    let fits = ENDPOINTS_BYTES_MAX / endpoints_bytes(&members);
    for n in 1..fits {
        let index = members.ranges.workload_index(first.addresses.v4().unwrap()).unwrap()
            + u32::try_from(n).unwrap();
        let (v4, v6) = members.ranges.workload(index);
        let addresses = Addresses::Both(v4, v6);
        let id = WorkloadId(format!("copy-{n}"));
        members.restore(Workload { id, addresses, ..first.clone() }, None, 0).unwrap();
    }
    assert!(endpoints_bytes(&members) <= ENDPOINTS_BYTES_MAX);
    let mut next = counter();
    let problems = (0..fits).find_map(|_| members.join(&large("reviews"), 0, &mut next).err());
    let reason = &problems.expect("some time it is too much")[0].reason;
    assert!(reason.contains("service reviews") && reason.contains("8388608"), "{reason}");
    assert!(endpoints_bytes(&members) <= ENDPOINTS_BYTES_MAX);
    // Others are not concerned, nor is one that only calls.
    members.join(&large("ratings"), 0, counter()).unwrap();
    members.join(&JoinRequest { ports: Vec::new(), ..large("reviews") }, 0, &mut next).unwrap();
}

fn endpoints_bytes(members: &Members) -> usize {
    endpoints(members.registry(), &name("reviews")).unwrap().encode().len()
}
