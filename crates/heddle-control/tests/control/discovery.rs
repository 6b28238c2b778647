//! Streams: groups that are whole generations, differences only, resumption, slow and rude proxies.

use std::collections::BTreeMap;

use heddle_model::{EndpointState, Owner, ServicePortRef};
use heddle_runtime::clock;
use heddle_wire::discovery::{Resource, ResourceType as Kind, proto::DeltaDiscoveryRequest};

use crate::{
    plane::{Folder, PATIENCE, Plane, request, route, split, subsets},
    proxy::{Follower, Proxy, ProxyState, fqdn, report},
};

#[tokio::test]
async fn a_destination_comes_with_the_endpoints_it_needs() {
    let folder = Folder::new();
    let plane = Plane::start(&folder).await;
    let me = plane.join_http("reviews", "v1").await.workload;
    let mut proxy = Proxy::connect(&plane, &me.id).await;
    proxy.start(&me.id, &["reviews", "absent"]).await;
    let mut held = BTreeMap::new();
    let mut removed = Vec::new();
    while !held.contains_key(&(Kind::Destination, fqdn("reviews"))) {
        let group = proxy.take().await;
        assert!(group.order.is_sorted(), "{:?}", group.order);
        held.extend(group.resources);
        removed.extend(group.removed);
    }
    assert!(held.contains_key(&(Kind::Endpoints, fqdn("reviews"))), "unasked");
    assert_eq!(removed, [(Kind::Destination, fqdn("absent"))]);
    let Resource::Inbound(inbound) = &held[&(Kind::Inbound, me.id.0.clone())] else { panic!() };
    let own = ServicePortRef {
        service: me.first_service().unwrap().clone(),
        port: inbound.ports[0].number,
    };
    assert_eq!(inbound.ports[0].services, [own]);
    let Resource::Mesh(mesh) = &held[&(Kind::Mesh, "mesh".to_owned())] else { panic!() };
    assert_eq!((mesh.mesh.as_str(), mesh.host_gateway_v4), ("test", [240, 240, 0, 1].into()));
}

#[tokio::test]
async fn one_apply_is_one_group_with_new_backends_before_the_rule() {
    let folder = Folder::new();
    let plane = Plane::start(&folder).await;
    plane.join_http("reviews", "v1").await;
    plane.join_http("ratings", "").await;
    let me = plane.join(&request("client", "", &[])).await.unwrap().workload;
    let mut proxy = Proxy::connect(&plane, &me.id).await;
    proxy.start(&me.id, &["reviews"]).await;
    while !proxy.take().await.order.contains(&Kind::Destination) {}
    let mirror = route("reviews", &[("v1", 1)])
        .replace("host: reviews\n        subset: v1", "host: ratings");
    let text = subsets("reviews", &[("v1", 1)]) + "---\n" + &mirror;
    let (answer, group) = tokio::join!(plane.apply(&text), proxy.take());
    let answer = answer.unwrap();
    assert_eq!(group.generation, answer.generation);
    assert_eq!(group.order, [Kind::Endpoints, Kind::Destination]);
    assert_eq!(group.names(Kind::Endpoints), [fqdn("ratings")], "those of reviews it has");
    assert_eq!(group.endpoints("ratings").endpoints.len(), 1);
    // The rule goes, and what only it needed.
    let (_, group) = tokio::join!(plane.delete("VirtualService", "reviews", true), proxy.take());
    assert_eq!(group.removed, [(Kind::Endpoints, fqdn("ratings"))]);
    assert_eq!(group.names(Kind::Destination), [fqdn("reviews")]);
}

#[tokio::test]
async fn endpoint_changes_reach_who_uses_them_each_as_its_own_generation() {
    let folder = Folder::new();
    let plane = Plane::start(&folder).await;
    let reviews = plane.join_http("reviews", "v1").await.workload;
    let me = plane.join_http("me", "").await.workload;
    let mut proxy = Proxy::connect(&plane, &me.id).await;
    proxy.start(&me.id, &["reviews"]).await;
    while !proxy.take().await.order.contains(&Kind::Destination) {}
    let mut last = 0;
    for (listening, state) in [
        (&[("127.0.0.1", 9080)][..], EndpointState::Ready),
        (&[][..], EndpointState::Pending),
        (&[("0.0.0.0", 9080)][..], EndpointState::Ready),
    ] {
        report(&plane, &reviews.id, listening).await;
        let group = proxy.take().await;
        assert_eq!(group.order, [Kind::Endpoints]);
        assert_eq!(group.endpoints("reviews").endpoints[0].ports[&9080].state, state);
        assert!(group.generation > last);
        last = group.generation;
    }
    // Its own readiness is no news to it: it does not call itself.
    report(&plane, &me.id, &[("127.0.0.1", 9080)]).await;
    plane.leave(&reviews.id).await;
    let group = proxy.take().await;
    assert_eq!(
        group.removed,
        [(Kind::Endpoints, fqdn("reviews")), (Kind::Destination, fqdn("reviews"))]
    );
}

#[tokio::test]
async fn a_resumed_stream_brings_only_what_changed() {
    let folder = Folder::new();
    let plane = Plane::start(&folder).await;
    let reviews = plane.join_http("reviews", "v1").await;
    plane.apply(&split("reviews", &[("v1", 1)])).await.unwrap();
    let me = plane.join_http("me", "").await.workload;
    let mut proxy = Proxy::connect(&plane, &me.id).await;
    proxy.start(&me.id, &["reviews"]).await;
    let vip = reviews.service.unwrap().vips[0].to_string();
    proxy.subscribe(Kind::Address, &[&vip]).await;
    let mut versions = BTreeMap::new();
    while versions.len() < 5 {
        versions.extend(proxy.take().await.versions);
    }
    drop(proxy);
    plane.stop();
    let plane = Plane::start(&folder).await;
    let mut proxy = Proxy::connect(&plane, &me.id).await;
    proxy.resume(&versions).await;
    // Nothing was sent for all of that: the first thing to come is the answer to something new.
    proxy.subscribe(Kind::Name, &["default/reviews"]).await;
    let group = proxy.take().await;
    assert_eq!(group.resources.len(), 1, "{group:?}");
    let status = plane.until(|status| {
        status.proxies.iter().any(|p| p.workload == me.id && p.generation == status.generation)
    });
    status.await;
    drop(proxy);
    report(&plane, &reviews.workload.id, &[("0.0.0.0", 9080)]).await;
    let mut proxy = Proxy::connect(&plane, &me.id).await;
    proxy.resume(&versions).await;
    let group = proxy.take().await;
    assert_eq!(group.names(Kind::Endpoints), [fqdn("reviews")]);
    assert_eq!(group.resources.len(), 1, "{group:?}");
}

#[tokio::test]
async fn a_newer_stream_takes_over_and_a_stranger_is_told_nothing() {
    let folder = Folder::new();
    let plane = Plane::start(&folder).await;
    let me = plane.join_http("me", "").await.workload;
    let mut older = Proxy::connect(&plane, &me.id).await;
    older.start(&me.id, &["me"]).await;
    while !older.take().await.order.contains(&Kind::Destination) {}
    let newer = Follower::start(&plane, &me.id, &["me"]).await;
    assert!(older.response().await.is_none(), "the older stream ends");
    assert!(newer.held().destination("me").is_some());
    // A workload nobody joined: silence, until it joins. Another's ports are nobody's business.
    let stranger = heddle_model::WorkloadId("stranger-1".to_owned());
    let mut proxy = Proxy::connect(&plane, &stranger).await;
    proxy.start(&stranger, &["me"]).await;
    assert!(clock::within(std::time::Duration::from_millis(50), proxy.response()).await.is_none());
    let mut curious = Proxy::connect(&plane, &me.id).await;
    let other = plane.join_http("other", "").await.workload;
    curious.subscribe(Kind::Inbound, &[&other.id.0]).await;
    assert_eq!(curious.take().await.removed, [(Kind::Inbound, other.id.0)]);
}

#[tokio::test]
async fn rude_streams_end_and_harm_nobody() {
    let folder = Folder::new();
    let plane = Plane::start(&folder).await;
    let me = plane.join_http("me", "").await.workload;
    let good = Follower::start(&plane, &me.id, &["me"]).await;
    let nobody = heddle_model::WorkloadId(String::new());
    let mut nameless = Proxy::connect(&plane, &nobody).await;
    nameless.subscribe(Kind::Mesh, &["mesh"]).await;
    assert!(nameless.response().await.is_none());
    let other = plane.join_http("other", "").await.workload;
    let mut rude = Proxy::connect(&plane, &other.id).await;
    let nonsense = DeltaDiscoveryRequest {
        response_nonce: "no number".to_owned(),
        resource_names_subscribe: vec!["x".repeat(100_000), "\u{0}".to_owned(), String::new()],
        ..Default::default()
    };
    for kind in Kind::ALL {
        rude.say(kind, nonsense.clone()).await;
    }
    let names: Vec<String> = (0..60_000).map(|number| format!("default/n{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    rude.subscribe(Kind::Name, &names).await;
    let mut answers = 0;
    while answers < 49_000 {
        let group = rude.take().await;
        answers += group.resources.len();
    }
    plane.apply(&split("me", &[("v1", 1)])).await.unwrap();
    assert_eq!(good.held().weights("me"), [1]);
}

#[tokio::test]
async fn a_proxy_that_does_not_read_delays_nobody_and_gets_the_newest_state() {
    let folder = Folder::new();
    let plane = Plane::start(&folder).await;
    plane.join_http("reviews", "v1").await;
    let stuck = plane.join_http("stuck", "").await.workload.id;
    let quick = plane.join_http("quick", "").await.workload.id;
    let mut silent = Proxy::connect(&plane, &stuck).await;
    silent.start(&stuck, &["reviews"]).await;
    let follower = Follower::start(&plane, &quick, &["reviews"]).await;
    plane.apply(&subsets("reviews", &[("v1", 1)])).await.unwrap();
    let edits = 300;
    for edit in 1..=edits {
        let mut request = crate::plane::documents(&route("reviews", &[("v1", edit)]));
        request.wait_ms = 0;
        plane.post::<serde_json::Value>("/v1/apply", &request).await.unwrap();
    }
    let mut follower = follower;
    follower.until(|held| held.weights("reviews") == [edits]).await;
    let mut groups = 0;
    let mut held = ProxyState::default();
    while held.weights("reviews") != [edits] {
        let group = silent.take().await;
        groups += 1;
        held.resources.extend(group.resources);
    }
    assert!(groups < edits as usize, "{groups} groups for {edits} edits: it skips what it missed");
    let path = format!("/v1/wait?generation={}&timeout_ms=60000", plane.status().await.generation);
    let told: heddle_wire::local::control_api::Acknowledgement = plane.get(&path).await;
    assert!(told.pending.is_empty(), "{told:?}");
}

#[tokio::test]
async fn generations_are_seen_whole_or_not_at_all() {
    let folder = Folder::new();
    let plane = Plane::start(&folder).await;
    for service in ["one", "two"] {
        plane.join_http(service, "v1").await;
    }
    let me = plane.join_http("me", "").await.workload.id;
    let mut follower = Follower::start(&plane, &me, &["one", "two"]).await;
    let seen = async {
        // A follower installs group by group: both services must always have the same weight.
        loop {
            let held = follower.until(|_| true).await;
            let (one, two) = (held.weights("one"), held.weights("two"));
            assert_eq!(one, two, "generation {}", held.generation);
            if one == [50] {
                return;
            }
            let groups = held.groups;
            follower.until(|held| held.groups > groups).await;
        }
    };
    let edit = async {
        for weight in 1..=50 {
            let both = split("one", &[("v1", weight)]) + "---\n" + &split("two", &[("v1", weight)]);
            plane.apply(&both).await.unwrap();
        }
    };
    let both = Box::pin(async { tokio::join!(seen, edit) });
    clock::within(PATIENCE, both).await.expect("in time");
}

#[tokio::test]
async fn two_clients_see_a_service_each_with_its_own_rules() {
    let folder = Folder::new();
    let plane = Plane::start(&folder).await;
    plane.join_http("reviews", "v1").await;
    let first = plane.join(&request("first", "", &[])).await.unwrap().workload.id;
    let second = plane.join(&request("second", "", &[])).await.unwrap().workload.id;
    let one = Follower::start(&plane, &first, &["reviews"]).await;
    let two = Follower::start(&plane, &second, &["reviews"]).await;
    let only_first = route("reviews", &[("v1", 7)])
        .replace("  - route:", "  - match:\n    - sourceLabels:\n        app: first\n    route:");
    let text = subsets("reviews", &[("v1", 1)]) + "---\n" + &only_first;
    plane.apply(&text).await.unwrap();
    assert_eq!(one.held().weights("reviews"), [7]);
    assert!(two.held().weights("reviews").is_empty());
    let owner = |held: &ProxyState| {
        held.resources
            .values()
            .any(|r| matches!(r, Resource::Address(a) if a.owner == Owner::NotKnown))
    };
    assert!(!owner(&one.held()), "nothing was sent that nobody asked for");
}
