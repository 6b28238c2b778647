//! `apply` and `delete`: one transaction, one generation, and what is refused.

use heddle_model::{WorkloadId, discovery::Target};
use heddle_wire::{
    discovery::ResourceType as Kind,
    local::control_api::{
        Acknowledgement, Action, ApplyRequest, ApplyResponse, DeleteRequest, ResourceView,
    },
};

use crate::{
    plane::{Folder, Plane, documents, key, route, split, subsets},
    proxy::{Follower, Proxy},
};

/// A mesh with `reviews` v1 and v2, and a client's workload.
async fn mesh(folder: &Folder) -> (Plane, WorkloadId) {
    let plane = Plane::start(folder).await;
    plane.join_http("reviews", "v1").await;
    plane.join_http("reviews", "v2").await;
    let client = plane.join_http("frontend", "").await;
    (plane, client.workload.id)
}

#[tokio::test]
async fn apply_returns_when_it_is_in_force() {
    let folder = Folder::new();
    let (plane, client) = mesh(&folder).await;
    let proxy = Follower::start(&plane, &client, &["reviews"]).await;
    let answer = plane.apply(&split("reviews", &[("v1", 90), ("v2", 10)])).await.unwrap();
    assert_eq!(
        answer.changes.iter().map(|change| change.action).collect::<Vec<_>>(),
        [Action::Created; 2]
    );
    assert_eq!((answer.acknowledgement.acknowledged, answer.acknowledgement.pending.len()), (1, 0));
    assert_eq!(answer.acknowledgement.generation, answer.generation);
    let held = proxy.held();
    assert_eq!(held.weights("reviews"), [90, 10], "in force when the call returns");
    assert_eq!(held.generation, answer.generation);
    assert_eq!(plane.states().await, ["reviews Programmed", "reviews Programmed"]);
}

#[tokio::test]
async fn an_unchanged_apply_makes_no_generation() {
    let folder = Folder::new();
    let (plane, _) = mesh(&folder).await;
    let text = split("reviews", &[("v1", 1), ("v2", 1)]);
    let first = plane.apply(&text).await.unwrap();
    let second = plane.apply(&text).await.unwrap();
    assert_eq!(second.generation, first.generation);
    assert!(second.changes.iter().all(|change| change.action == Action::Unchanged));
    let third = plane.apply(&split("reviews", &[("v1", 2), ("v2", 1)])).await.unwrap();
    assert_eq!(third.generation, first.generation + 1, "one generation per change");
    let actions: Vec<Action> = third.changes.iter().map(|change| change.action).collect();
    assert_eq!(actions, [Action::Unchanged, Action::Configured]);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let folder = Folder::new();
    let (plane, _) = mesh(&folder).await;
    let before = plane.status().await.generation;
    let request = ApplyRequest { dry_run: true, ..documents(&split("reviews", &[("v1", 1)])) };
    let answer: ApplyResponse = plane.post("/v1/apply", &request).await.unwrap();
    assert_eq!(answer.changes.len(), 2);
    assert!(plane.states().await.is_empty());
    assert_eq!(plane.status().await.generation, before);
    let bad = ApplyRequest { dry_run: true, ..documents("kind: Nothing") };
    assert_eq!(plane.post::<serde_json::Value>("/v1/apply", &bad).await.unwrap_err().status, 400);
}

#[tokio::test]
async fn every_error_of_every_file_is_told_and_nothing_is_applied() {
    let folder = Folder::new();
    let (plane, client) = mesh(&folder).await;
    let proxy = Follower::start(&plane, &client, &["reviews"]).await;
    plane.apply(&split("reviews", &[("v1", 1), ("v2", 0)])).await.unwrap();
    let groups = proxy.held().groups;
    let mut request = documents(&split("reviews", &[("v1", 0), ("v2", 9)]));
    let mut bad = request.files[0].clone();
    bad.file = "bad.yaml".to_owned();
    bad.text = bad.text.replace("weight: 9", "weight: -9").replace("hosts:", "hots:");
    let mut regex = request.files[0].clone();
    regex.file = "regex.yaml".to_owned();
    regex.text =
        regex.text.replace("  - route:", "  - match:\n    - uri:\n        regex: 'a('\n    route:");
    request.files.extend([bad, regex]);
    let refusal = plane.post::<serde_json::Value>("/v1/apply", &request).await.unwrap_err();
    let text = refusal.text();
    assert_eq!(refusal.status, 400, "{text}");
    assert!(
        text.contains("bad.yaml:") && text.contains("hots") && text.contains("weight"),
        "{text}"
    );
    assert!(text.contains("regex.yaml:"), "{text}");
    assert_eq!(proxy.held().weights("reviews"), [1, 0], "the rules before stay in force");
    assert_eq!(proxy.held().groups, groups);
    let twins = subsets("a", &[]) + "---\n" + &subsets("a", &[("v1", 1)]);
    let twice = plane.apply(&twins).await.unwrap_err();
    assert!(twice.text().contains("also defined"), "{}", twice.text());
    assert!(plane.apply("# nothing\n").await.unwrap_err().text().contains("nothing to apply"));
}

#[tokio::test]
async fn a_dangling_rule_is_accepted_in_any_order_and_heals() {
    let folder = Folder::new();
    let (plane, client) = mesh(&folder).await;
    let mut proxy = Follower::start(&plane, &client, &["reviews"]).await;
    let versions = [("v1", 1), ("v2", 1)];
    let answer = plane.apply(&route("reviews", &versions)).await.unwrap();
    assert!(!answer.notes.is_empty(), "a note says that it dangles");
    assert_eq!(plane.states().await, ["reviews Dangling"]);
    assert!(!plane.status().await.problems.is_empty());
    let target =
        proxy.held().destination("reviews").unwrap().ports[0].http[0].targets()[0].to.clone();
    assert!(matches!(target, Target::Dangling(_)), "that share is refused by name: {target:?}");
    plane.apply(&subsets("reviews", &versions)).await.unwrap();
    assert_eq!(plane.states().await, ["reviews Programmed", "reviews Programmed"]);
    let held = proxy
        .until(|held| {
            held.destination("reviews")
                .is_some_and(|d| matches!(d.ports[0].http[0].targets()[0].to, Target::Cluster(_)))
        })
        .await;
    let target = &held.destination("reviews").unwrap().ports[0].http[0].targets()[0].to;
    assert!(matches!(target, Target::Cluster(key) if key.subset.is_some()), "{target:?}");
    assert!(plane.status().await.problems.is_empty());
}

#[tokio::test]
async fn an_edit_that_leaves_a_live_reference_to_nothing_needs_force() {
    let folder = Folder::new();
    let (plane, _) = mesh(&folder).await;
    plane.apply(&split("reviews", &[("v1", 1), ("v2", 1)])).await.unwrap();
    let refusal = plane.apply(&subsets("reviews", &[("v1", 1)])).await.unwrap_err();
    assert_eq!(refusal.status, 409);
    assert!(refusal.text().contains("VirtualService/default/reviews"), "{}", refusal.text());
    assert!(refusal.text().contains("v2"), "{}", refusal.text());
    let refusal = plane.delete("DestinationRule", "reviews", false).await.unwrap_err();
    assert_eq!(refusal.status, 409, "{}", refusal.text());
    assert_eq!(plane.states().await, ["reviews Programmed", "reviews Programmed"]);
    // Route and subset in one transaction leave nothing dangling.
    plane.apply(&split("reviews", &[("v1", 1)])).await.unwrap();
    let force = ApplyRequest { force: true, ..documents(&subsets("reviews", &[])) };
    plane.post::<serde_json::Value>("/v1/apply", &force).await.unwrap();
    assert!(plane.states().await.contains(&"reviews Dangling".to_owned()));
    let forced = plane.delete("DestinationRule", "reviews", true).await.unwrap();
    assert_eq!(forced.changes[0].action, Action::Deleted);
}

#[tokio::test]
async fn delete_names_what_is_absent_and_takes_all_or_nothing() {
    let folder = Folder::new();
    let (plane, client) = mesh(&folder).await;
    let proxy = Follower::start(&plane, &client, &["reviews"]).await;
    plane.apply(&split("reviews", &[("v1", 1), ("v2", 3)])).await.unwrap();
    let keys = vec![key("VirtualService", "reviews"), key("VirtualService", "absent")];
    let request = DeleteRequest { keys, force: false, wait_ms: 0 };
    let refusal = plane.post::<serde_json::Value>("/v1/delete", &request).await.unwrap_err();
    assert_eq!(refusal.status, 404);
    assert!(refusal.text().contains("there is no VirtualService/default/absent"));
    assert_eq!(proxy.held().weights("reviews"), [1, 3]);
    let keys = vec![key("VirtualService", "reviews"), key("DestinationRule", "reviews")];
    let request = DeleteRequest { keys, force: false, wait_ms: 10_000 };
    let answer: ApplyResponse = plane.post("/v1/delete", &request).await.unwrap();
    assert_eq!((answer.changes.len(), answer.acknowledgement.pending.len()), (2, 0));
    assert!(proxy.held().weights("reviews").is_empty(), "the service itself again");
    assert!(plane.states().await.is_empty());
}

#[tokio::test]
async fn apply_names_the_proxies_that_have_not_acknowledged() {
    let folder = Folder::new();
    let (plane, client) = mesh(&folder).await;
    let slow = plane.join_http("slow", "").await.workload.id;
    let _quick = Follower::start(&plane, &client, &["reviews"]).await;
    let mut proxy = Proxy::connect(&plane, &slow).await;
    proxy.start(&slow, &["reviews"]).await;
    while !proxy.take().await.order.contains(&Kind::Destination) {}
    let request =
        ApplyRequest { wait_ms: 50, ..documents(&split("reviews", &[("v1", 1), ("v2", 1)])) };
    let answer: ApplyResponse = plane.post("/v1/apply", &request).await.unwrap();
    assert_eq!(answer.acknowledgement.acknowledged, 1);
    assert_eq!(answer.acknowledgement.pending.as_slice(), std::slice::from_ref(&slow));
    let status = plane.status().await;
    let lagging = status.proxies.iter().find(|proxy| proxy.workload == slow).unwrap();
    assert!(lagging.connected && lagging.generation < answer.generation);
    let group = proxy.take().await;
    assert_eq!(group.generation, answer.generation);
    let path = format!("/v1/wait?generation={}&timeout_ms=60000", answer.generation);
    let told: Acknowledgement = plane.get(&path).await;
    assert_eq!((told.acknowledged, told.pending.len()), (2, 0));
    drop(proxy);
    plane.until(|status| !status.proxies.iter().any(|p| p.workload == slow && p.connected)).await;
    let answer = plane.apply(&split("reviews", &[("v1", 2), ("v2", 1)])).await.unwrap();
    assert_eq!(answer.acknowledgement.acknowledged, 1, "who is not connected is not waited for");
}

#[tokio::test]
async fn a_dry_run_waits_for_nobody() {
    let folder = Folder::new();
    let (plane, client) = mesh(&folder).await;
    let mut proxy = Proxy::connect(&plane, &client).await;
    proxy.start(&client, &["reviews"]).await;
    while !proxy.take().await.order.contains(&Kind::Destination) {}
    let request = |weight| ApplyRequest {
        wait_ms: 50,
        ..documents(&split("reviews", &[("v1", weight), ("v2", 1)]))
    };
    // It never acknowledges this one.
    let answer: ApplyResponse = plane.post("/v1/apply", &request(1)).await.unwrap();
    assert_eq!(answer.acknowledgement.pending.len(), 1);
    let dry = ApplyRequest { dry_run: true, ..request(2) };
    let answer: ApplyResponse = plane.post("/v1/apply", &dry).await.unwrap();
    assert_eq!(answer.acknowledgement.pending.len(), 0, "there is nothing to acknowledge");
    assert_eq!(answer.changes.len(), 2);
}

#[tokio::test]
async fn a_refusal_is_told_and_not_waited_for() {
    let folder = Folder::new();
    let (plane, client) = mesh(&folder).await;
    let mut proxy = Proxy::connect(&plane, &client).await;
    proxy.start(&client, &["reviews"]).await;
    while !proxy.take().await.order.contains(&Kind::Destination) {}
    // Without end if it waited for a proxy that has said no.
    let request =
        ApplyRequest { wait_ms: 300_000, ..documents(&split("reviews", &[("v1", 1), ("v2", 1)])) };
    let (answer, ()) = tokio::join!(plane.post::<ApplyResponse>("/v1/apply", &request), async {
        let group = proxy.group().await;
        proxy.refuse(&group, "this proxy is picky").await;
    });
    let answer = answer.unwrap();
    assert_eq!(answer.acknowledgement.pending.as_slice(), std::slice::from_ref(&client));
    let status = plane.status().await;
    let picky = status.proxies.iter().find(|proxy| proxy.workload == client).unwrap();
    assert_eq!(picky.nack.as_deref(), Some("this proxy is picky"));
    let text = split("reviews", &[("v1", 5), ("v2", 1)]);
    let (answer, ()) = tokio::join!(plane.apply(&text), async {
        let group = proxy.take().await;
        assert_eq!(group.destination("reviews").ports[0].http[0].targets()[0].weight, 5);
    });
    assert!(answer.unwrap().acknowledgement.pending.is_empty());
    let status = plane.status().await;
    assert!(status.proxies.iter().all(|proxy| proxy.nack.is_none()));
}

#[tokio::test]
async fn applied_rules_outlive_a_restart_with_their_places() {
    let folder = Folder::new();
    let (plane, _) = mesh(&folder).await;
    plane.apply(&split("reviews", &[("v1", 1), ("v2", 1)])).await.unwrap();
    let before: Vec<ResourceView> = plane.get("/v1/resources?kind=vs&name=reviews").await;
    assert_eq!(before.len(), 1);
    assert_eq!(before[0].source, "apply");
    assert!(before[0].text.contains("kind: VirtualService"));
    let newest = plane.status().await.generation;
    plane.stop();
    let plane = Plane::start(&folder).await;
    let after: Vec<ResourceView> =
        plane.get("/v1/resources?kind=virtualservices&namespace=default").await;
    assert_eq!(after, before);
    assert!(plane.status().await.generation > newest);
    let none: Vec<ResourceView> = plane.get("/v1/resources?namespace=other").await;
    assert!(none.is_empty());
}

#[tokio::test]
async fn fields_not_enforced_are_named() {
    let folder = Folder::new();
    let (plane, _) = mesh(&folder).await;
    let text = route("reviews", &[]).replace(
        "  - route:\n",
        "  - match:\n    - statPrefix: x\n    route:\n    - destination:\n        host: reviews\n",
    );
    let answer = plane.apply(&text).await.unwrap();
    let note = answer
        .notes
        .iter()
        .find(|note| note.field.as_deref() == Some("spec.http[0].match[0].statPrefix"));
    assert_eq!(note.and_then(|note| note.line), Some(10), "{:?}", answer.notes);
    let problems = plane.status().await.problems;
    assert!(
        problems
            .iter()
            .any(|problem| problem.field.as_deref() == Some("spec.http[0].match[0].statPrefix"))
    );
}

#[tokio::test]
async fn two_hundred_edits_in_a_row_are_each_in_force_when_told() {
    let folder = Folder::new();
    let (plane, client) = mesh(&folder).await;
    let mut proxies = Vec::new();
    proxies.push(Follower::start(&plane, &client, &["reviews"]).await);
    for number in 0..11 {
        let id = plane.join_http(&format!("user{number}"), "").await.workload.id;
        proxies.push(Follower::start(&plane, &id, &["reviews", "frontend"]).await);
    }
    let mut last = plane.status().await.generation;
    for edit in 1..=200 {
        let answer = plane.apply(&split("reviews", &[("v1", edit), ("v2", 1)])).await.unwrap();
        assert_eq!(answer.generation, last + 1, "one generation per edit");
        last = answer.generation;
        assert_eq!(
            (answer.acknowledgement.acknowledged, answer.acknowledgement.pending.len()),
            (12, 0)
        );
        assert!(proxies.iter().all(|proxy| proxy.held().weights("reviews") == [edit, 1]));
    }
}

#[tokio::test]
async fn a_generation_that_is_still_to_come_is_waited_for() {
    let folder = Folder::new();
    let (plane, client) = mesh(&folder).await;
    let _proxy = Follower::start(&plane, &client, &["reviews"]).await;
    let next = plane.status().await.generation + 1;
    let path = format!("/v1/wait?generation={next}&timeout_ms=20000");
    let text = split("reviews", &[("v1", 1)]);
    let (waited, applied) = tokio::join!(plane.get::<Acknowledgement>(&path), plane.apply(&text));
    assert_eq!((waited.generation, applied.unwrap().generation), (next, next));
    assert_eq!(waited.pending.len(), 0);
}

#[tokio::test]
async fn an_edit_right_after_a_restart_waits_for_sidecars_to_come_back() {
    let folder = Folder::new();
    let (plane, client) = mesh(&folder).await;
    drop(Follower::start(&plane, &client, &["reviews"]).await);
    plane.stop();
    let plane = Plane::start(&folder).await;
    let text = split("reviews", &[("v1", 3), ("v2", 1)]);
    let (answer, proxy) =
        tokio::join!(plane.apply(&text), Follower::start(&plane, &client, &["reviews"]));
    let acknowledgement = answer.unwrap().acknowledgement;
    // Two sidecars never come back, and are not waited for longer than it takes.
    assert_eq!((acknowledgement.acknowledged, acknowledgement.pending.len()), (1, 0));
    assert_eq!(proxy.held().weights("reviews"), [3, 1]);
}
