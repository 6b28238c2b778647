//! Who is in the mesh, with which addresses, before and after a restart.

use std::collections::BTreeMap;

use heddle_model::{EndpointPort, EndpointState, Owner, Protocol, ServiceVips};
use heddle_runtime::local_http::Method;
use heddle_wire::{
    discovery::{Resource, ResourceType as Kind},
    local::control_api::{Acknowledgement, JoinedWorkload, Member, ServiceView},
};

use crate::{
    plane::{Folder, Plane, http, request},
    proxy::{Follower, Proxy, report},
};

#[tokio::test]
async fn a_name_keeps_its_address_over_restarts() {
    let folder = Folder::new();
    let plane = Plane::start(&folder).await;
    let reviews = plane.join_http("reviews", "v1").await;
    let ratings = plane.join_http("ratings", "").await;
    assert_ne!(reviews.service.clone().unwrap().vips, ratings.service.clone().unwrap().vips);
    let newest = plane.status().await.generation;
    plane.stop();
    // Another life of the mesh: its members are gone, its names are not.
    std::fs::remove_file(folder.path("run/members.json")).unwrap();
    let plane = Plane::start(&folder).await;
    assert!(plane.workloads().await.is_empty());
    let again = plane.join_http("ratings", "v9").await;
    assert_eq!(again.service.unwrap().vips, ratings.service.unwrap().vips);
    let fresh = plane.join_http("photos", "").await;
    assert_ne!(fresh.service.unwrap().vips, reviews.service.unwrap().vips);
    assert!(plane.status().await.generation > newest, "generations never go back");
}

#[tokio::test]
async fn a_restarted_control_plane_has_its_members_at_once_and_as_adopted() {
    let folder = Folder::new();
    let plane = Plane::start(&folder).await;
    let requests = [http("reviews", "v1"), http("reviews", "v2"), request("loadgen", "", &[])];
    let mut members = Vec::new();
    for request in requests {
        let joined = plane.join(&request).await.unwrap();
        members.push(Member { request, joined });
    }
    let first = members[0].joined.workload.clone();
    report(&plane, &first.id, &[("127.0.0.1", 9080)]).await;
    // The journal is written beside; it has the report when a later reader sees it.
    let journal = folder.path("run/members.json");
    while !std::fs::read_to_string(&journal).unwrap_or_default().contains("ready") {
        tokio::task::yield_now().await;
    }
    plane.stop();
    let plane = Plane::start(&folder).await;
    let before = plane.workloads().await;
    assert_eq!(before.len(), 3);
    assert_eq!(before[&first.id].workload.ports[&9080].state, EndpointState::Ready);
    let left = members.pop().unwrap();
    let _: serde_json::Value = plane.post("/v1/adopt", &members).await.unwrap();
    let after = plane.workloads().await;
    assert!(!after.contains_key(&left.joined.workload.id), "the holder knows it no more");
    for member in &members {
        let view = &after[&member.joined.workload.id];
        assert_eq!(view.workload.addresses, member.joined.workload.addresses);
    }
    assert_eq!(after[&first.id].workload.ports[&9080].state, EndpointState::Ready);
    let services: Vec<ServiceView> = plane.get("/v1/services").await;
    assert_eq!(
        Some(&services[0].service.vips),
        members[0].joined.service.as_ref().map(|s| &s.vips)
    );
    assert_eq!(services[0].workloads.len(), 2);
}

#[tokio::test]
async fn an_address_is_in_the_journal_before_it_is_told_and_rests_there_when_freed() {
    let folder = Folder::new();
    let plane = Plane::start(&folder).await;
    let left = plane.join_http("reviews", "v1").await.workload;
    let journal = std::fs::read_to_string(folder.path("run/members.json")).unwrap();
    assert!(journal.contains(&left.id.0), "{journal}");
    plane.leave(&left.id).await;
    plane.stop();
    let plane = Plane::start(&folder).await;
    let next = plane.join_http("reviews", "v1").await.workload;
    assert_ne!(next.addresses, left.addresses);
}

#[tokio::test]
async fn without_a_journal_adopted_members_keep_their_traffic() {
    let folder = Folder::new();
    let plane = Plane::start(&folder).await;
    let request = http("reviews", "v1");
    let joined = plane.join(&request).await.unwrap();
    plane.stop();
    std::fs::remove_dir_all(folder.path("run")).unwrap();
    std::fs::create_dir_all(folder.path("run")).unwrap();
    let plane = Plane::start(&folder).await;
    let id = joined.workload.id.clone();
    // Its sidecar is faster than its holder, and is told nothing wrong meanwhile.
    let mut proxy = Proxy::connect(&plane, &id).await;
    proxy.start(&id, &["reviews"]).await;
    let members = vec![Member { request, joined: joined.clone() }];
    let _: serde_json::Value = plane.post("/v1/adopt", &members).await.unwrap();
    let group = proxy.take().await;
    assert!(group.removed.is_empty(), "{group:?}");
    let endpoint = &group.endpoints("reviews").endpoints[0];
    assert_eq!(endpoint.addresses, joined.workload.addresses);
    assert_eq!(endpoint.ports[&9080], EndpointPort { number: 9080, state: EndpointState::Ready });
}

#[tokio::test]
async fn a_member_that_cannot_be_taken_back_is_reported_and_the_others_are_in() {
    let folder = Folder::new();
    let plane = Plane::start(&folder).await;
    let request = http("reviews", "v1");
    let joined = plane.join(&request).await.unwrap();
    let mut twin = joined.clone();
    twin.workload.id.0 = "reviews-v1-twin".to_owned();
    plane.stop();
    std::fs::remove_file(folder.path("run/members.json")).unwrap();
    let plane = Plane::start(&folder).await;
    let members: Vec<Member> =
        [joined, twin].map(|joined| Member { request: request.clone(), joined }).into();
    let _: serde_json::Value = plane.post("/v1/adopt", &members).await.unwrap();
    assert_eq!(plane.workloads().await.len(), 1);
    let problems = plane.status().await.problems;
    assert!(problems[0].reason.contains("reviews-v1-twin cannot keep its address"), "{problems:?}");
    let _: serde_json::Value = plane.post("/v1/adopt", &members[..1].to_vec()).await.unwrap();
    assert!(plane.status().await.problems.is_empty());
}

#[tokio::test]
async fn bad_requests_are_refused_with_every_reason() {
    let folder = Folder::new();
    let plane = Plane::start(&folder).await;
    plane.join_http("reviews", "v1").await;
    let other = request("reviews", "v2", &[(9080, "", Protocol::Tcp)]);
    let refusal = plane.join(&other).await.unwrap_err();
    assert_eq!(refusal.status, 409);
    assert!(refusal.text().contains("is http by workload reviews-v1-"), "{}", refusal.text());
    let own = request("Mail_1", "", &[(15001, "", Protocol::Http), (15090, "", Protocol::Http)]);
    let text = plane.join(&own).await.unwrap_err().text();
    for expected in [
        "`Mail_1` is no DNS label",
        "15001 is the sidecar's outbound",
        "15090 is the sidecar's metrics",
    ] {
        assert!(text.contains(expected), "{text}");
    }
    assert_eq!(plane.workloads().await.len(), 1, "nothing half-joined");
    for (method, path, body) in [
        (Method::POST, "/v1/workloads", "{"),
        (Method::POST, "/v1/workloads/nobody/withdraw", ""),
        (Method::DELETE, "/v1/workloads/nobody", ""),
        (Method::GET, "/v1/nothing", ""),
        (Method::GET, "/v1/wait", ""),
        (Method::GET, "/v1/wait?generation=999999", ""),
        (Method::PUT, "/v1/apply", ""),
    ] {
        let refused = plane.ask::<JoinedWorkload>(method, path, Some(&body)).await.unwrap_err();
        assert!((400..500).contains(&refused.status), "{path}: {}", refused.status);
    }
}

#[tokio::test]
async fn names_and_addresses_turn_from_unknown_to_known_and_back() {
    let folder = Folder::new();
    let plane = Plane::start(&folder).await;
    let me = plane.join(&request("client", "", &[])).await.unwrap().workload;
    let mut proxy = Proxy::connect(&plane, &me.id).await;
    let name = "default/reviews";
    proxy.subscribe(Kind::Name, &[name]).await;
    let group = proxy.take().await;
    let Resource::Name(answer) = &group.resources[&(Kind::Name, name.to_owned())] else { panic!() };
    assert_eq!(answer.service, None, "not known is an answer");
    let ip = "240.240.0.10";
    proxy.subscribe(Kind::Address, &[ip, &me.addresses.first().to_string(), "8.8.8.8"]).await;
    let group = proxy.take().await;
    let owner = |group: &crate::proxy::Group, ip: &str| match &group.resources
        [&(Kind::Address, ip.to_owned())]
    {
        Resource::Address(address) => address.owner.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(owner(&group, ip), Owner::NotKnown);
    assert_eq!(owner(&group, "8.8.8.8"), Owner::NotKnown);
    assert!(
        matches!(owner(&group, &me.addresses.first().to_string()), Owner::Workload(w) if w.id == me.id)
    );
    let reviews = plane.join_http("reviews", "v1").await;
    let service = reviews.service.unwrap();
    assert_eq!(service.vips[0].to_string(), ip);
    let group = proxy.take().await;
    assert_eq!(group.names(Kind::Address), [ip], "only what changed");
    assert_eq!(owner(&group, ip), Owner::Service(service.name.clone()));
    let Resource::Name(answer) = &group.resources[&(Kind::Name, name.to_owned())] else { panic!() };
    assert_eq!(answer.service, Some(ServiceVips { name: service.name, vips: service.vips }));
    plane.leave(&reviews.workload.id).await;
    let group = proxy.take().await;
    assert_eq!(owner(&group, ip), Owner::NotKnown);
}

#[tokio::test]
async fn every_spelling_of_a_name_is_answered_from_its_namespace() {
    let folder = Folder::new();
    let plane = Plane::start(&folder).await;
    let me = plane.join_http("reviews", "v1").await.workload;
    let mut proxy = Proxy::connect(&plane, &me.id).await;
    let known = [
        "default/reviews",
        "default/reviews.default",
        "other/reviews.default",
        "other/reviews.default.svc",
        "other/reviews.default.svc.cluster.local",
    ];
    let unknown =
        ["other/reviews", "default/www.example.com", "default/reviews.default.svc.cluster"];
    proxy.subscribe(Kind::Name, &known).await;
    proxy.subscribe(Kind::Name, &unknown).await;
    let mut answers = BTreeMap::new();
    while answers.len() < known.len() + unknown.len() {
        for ((_, name), resource) in proxy.take().await.resources {
            let Resource::Name(answer) = resource else { panic!() };
            answers.insert(name, answer.service.is_some());
        }
    }
    assert!(known.iter().all(|name| answers[*name]), "{answers:?}");
    assert!(unknown.iter().all(|name| !answers[*name]), "{answers:?}");
}

#[tokio::test]
async fn a_withdrawal_returns_when_every_proxy_that_uses_it_knows() {
    let folder = Folder::new();
    let plane = Plane::start(&folder).await;
    let reviews = plane.join_http("reviews", "v1").await.workload;
    report(&plane, &reviews.id, &[("0.0.0.0", 9080)]).await;
    let user = plane.join(&request("user", "", &[])).await.unwrap().workload;
    let idle = plane.join(&request("idle", "", &[])).await.unwrap().workload;
    let mut using = Follower::start(&plane, &user.id, &["reviews"]).await;
    let _idle = Follower::start(&plane, &idle.id, &["absent"]).await;
    let path = format!("/v1/workloads/{}/withdraw", reviews.id);
    let told: Acknowledgement = plane.post(&path, &()).await.unwrap();
    assert_eq!(
        (told.acknowledged, told.pending.as_slice()),
        (1, &[][..]),
        "only those that use it"
    );
    let held = using.until(|held| held.generation >= told.generation).await;
    let Resource::Endpoints(endpoints) =
        &held.resources[&(Kind::Endpoints, crate::proxy::fqdn("reviews"))]
    else {
        panic!()
    };
    assert_eq!(endpoints.endpoints[0].ports[&9080].state, EndpointState::Terminating);
    let mut silent = Proxy::connect(&plane, &idle.id).await;
    silent.start(&idle.id, &["reviews"]).await;
    let first = silent.take().await;
    assert_eq!(first.endpoints("reviews").endpoints.len(), 1);
    // Withdrawn already: nothing changes for anybody, and nothing is waited for.
    let again: Acknowledgement = plane.post(&path, &()).await.unwrap();
    assert!(again.pending.is_empty(), "{again:?}");
}

#[tokio::test]
async fn readiness_follows_reports_on_any_address_the_sidecar_can_reach() {
    let folder = Folder::new();
    let plane = Plane::start(&folder).await;
    let ports = [
        (80, "http", Protocol::Undeclared),
        (81, "", Protocol::Tcp),
        (82, "", Protocol::Tcp),
        (83, "", Protocol::Tcp),
        (84, "", Protocol::Tcp),
    ];
    let me = plane.join(&request("many", "", &ports)).await.unwrap().workload;
    let own = me.addresses.first().to_string();
    let listening = [("0.0.0.0", 80), ("::1", 81), (own.as_str(), 82), ("10.9.8.7", 83)];
    report(&plane, &me.id, &listening).await;
    let ready = |ports: &BTreeMap<u16, heddle_model::WorkloadPort>| -> Vec<u16> {
        let ready = ports.values().filter(|port| port.state == EndpointState::Ready);
        ready.map(|port| port.number).collect()
    };
    assert_eq!(ready(&plane.workloads().await[&me.id].workload.ports), [80, 81, 82]);
    report(&plane, &me.id, &[("127.0.0.1", 84)]).await;
    assert_eq!(ready(&plane.workloads().await[&me.id].workload.ports), [84]);
}
