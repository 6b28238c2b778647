//! Files as people have them: kinds that are not served yet, objects of others, thousands of files,
//! links.

use std::fs;

use heddle_wire::local::control_api::{
    Action, ApplyRequest, ResourceView, RouteCondition, ServiceView,
};

use crate::plane::{Folder, Plane, documents, route, split, subsets};

const CLUSTER: &str = "---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews}
---
apiVersion: v1
kind: Secret
metadata: {name: reviews}
---
apiVersion: v1
kind: Secret
metadata: {name: ratings}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
---
";

/// A DestinationRule of this name.
fn rule(name: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}}}\nspec: {{host: {name}}}\n"
    )
}

#[tokio::test]
async fn a_clusters_file_applies_and_what_is_not_in_force_is_named() {
    let folder = Folder::new();
    let plane = Plane::start(&folder).await;
    plane.join_http("reviews", "v1").await;
    let text = format!("{}{CLUSTER}", split("reviews", &[("v1", 1)]));
    let answer = plane.apply(&text).await.unwrap();
    let changes: Vec<_> = answer
        .changes
        .iter()
        .map(|change| (change.key.kind.as_str(), change.state.as_str()))
        .collect();
    assert_eq!(
        changes,
        [
            ("DestinationRule", "Programmed"),
            ("VirtualService", "Programmed"),
            ("PeerAuthentication", "NotEnforced")
        ]
    );
    assert_eq!(answer.skipped, [("Deployment".to_owned(), 1), ("Secret".to_owned(), 2)].into());
    assert!(answer.notes.iter().any(|note| note.reason.contains("PeerAuthentication is kept")));
    let kept: Vec<ResourceView> = plane.get("/v1/resources?kind=peerauthentication").await;
    assert_eq!((kept.len(), kept[0].state.as_str()), (1, "NotEnforced"));
    assert!(kept[0].text.contains("STRICT"), "it is kept as it is");
    plane.delete("PeerAuthentication", "default", false).await.unwrap();

    let strict = ApplyRequest { strict: true, ..documents(&text) };
    let refused = plane.post::<serde_json::Value>("/v1/apply", &strict).await.unwrap_err();
    let told = refused.text();
    assert!(told.contains("PeerAuthentication is kept") && told.contains("2 Secret"), "{told}");
    let strict = ApplyRequest { strict: true, ..documents(&split("reviews", &[("v1", 2)])) };
    plane.post::<serde_json::Value>("/v1/apply", &strict).await.unwrap();
    let others = plane.apply(&CLUSTER.replace("security.istio.io", "security.example")).await;
    assert!(others.unwrap_err().text().contains("nothing to apply (4 objects skipped"));
}

const SHOP: &str = "---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: reviews-v2}
spec:
  selector: {app: reviews, version: v2}
  ports: [{name: http, port: 80, targetPort: 9080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: reviews}
spec:
  parentRefs: [{kind: Service, group: '', name: reviews}]
  rules: [{backendRefs: [{name: reviews-v2, port: 80}]}]
";

#[tokio::test]
async fn services_of_a_file_are_there_and_routes_say_what_became_of_them() {
    let folder = Folder::new();
    let plane = Plane::start(&folder).await;
    plane.join_http("reviews", "v2").await;
    let answer = plane.apply(SHOP).await.unwrap();
    let states: Vec<_> = answer.changes.iter().map(|change| change.state.as_str()).collect();
    assert_eq!(states, ["Programmed"; 3]);
    assert_eq!(answer.notes, []);
    let services: Vec<ServiceView> = plane.get("/v1/services").await;
    let declared = services.iter().find(|one| one.service.name.name == "reviews-v2").unwrap();
    assert_eq!((declared.workloads.len(), declared.service.vips.len()), (1, 2));
    let vips = declared.service.vips.clone();

    let told = plane.delete("Service", "reviews-v2", false).await.unwrap_err().text();
    assert!(told.contains("the edit would leave this without a target"), "{told}");
    plane.delete("Service", "reviews-v2", true).await.unwrap();
    let status = |conditions: &[RouteCondition]| {
        let show = |one: &RouteCondition| format!("{} {} {}", one.kind, one.status, one.reason);
        conditions.iter().map(show).collect::<Vec<_>>()
    };
    let routes: Vec<ResourceView> = plane.get("/v1/resources?kind=httproute").await;
    assert_eq!(routes[0].state, "Dangling");
    let parent = &routes[0].status.as_ref().unwrap().parents[0];
    assert_eq!(parent.parent_ref.name, "reviews");
    assert_eq!(
        status(&parent.conditions),
        ["Accepted True Accepted", "ResolvedRefs False BackendNotFound"]
    );

    // It has its address back, also from another control plane.
    plane.apply(SHOP).await.unwrap();
    drop(plane);
    let plane = Plane::start(&folder).await;
    let services: Vec<ServiceView> = plane.get("/v1/services").await;
    let again = services.iter().find(|one| one.service.name.name == "reviews-v2").unwrap();
    assert_eq!(again.service.vips, vips);
}

#[tokio::test]
async fn an_object_with_a_field_that_is_not_enforced_is_partial() {
    let folder = Folder::new();
    let plane = Plane::start(&folder).await;
    plane.join_http("reviews", "v1").await;
    let policy = "{host: reviews, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}";
    let text = rule("reviews").replace("{host: reviews}", policy);
    let answer = plane.apply(&text).await.unwrap();
    assert_eq!(answer.changes[0].state, "Partial");
    assert_eq!(plane.states().await, ["reviews Partial"]);
    // What is graver is told instead.
    let answer = plane.apply(&text.replace("reviews", "absent")).await.unwrap();
    assert_eq!(answer.changes[0].state, "Dangling");
}

#[tokio::test]
async fn thousands_of_objects_apply_and_a_second_time_change_nothing() {
    let folder = Folder::new();
    let plane = Plane::start(&folder).await;
    let all: String = (0..10_000).map(|n| rule(&format!("service-{n}"))).collect();
    let answer = plane.apply(&all).await.unwrap();
    assert_eq!(answer.changes.len(), 10_000);
    let again = plane.apply(&all).await.unwrap();
    assert!(again.changes.iter().all(|change| change.action == Action::Unchanged));
    assert_eq!(plane.states().await.len(), 10_000);
    let more: String = (0..10_001).map(|n| rule(&format!("other-{n}"))).collect();
    let told = plane.apply(&more).await.unwrap_err().text();
    assert!(told.contains("no more than 20000 objects"), "{told}");
}

#[tokio::test]
async fn a_folder_is_in_force_as_a_whole_or_as_it_was() {
    let folder = Folder::new().with_rules();
    for n in 0..2_500 {
        fs::write(folder.rule_file(&format!("{n}.yaml")), rule(&format!("service-{n}"))).unwrap();
    }
    fs::write(folder.rule_file("cluster.yaml"), CLUSTER).unwrap();
    let plane = Plane::start(&folder).await;
    let status = plane.until(|status| !status.skipped.is_empty()).await;
    assert_eq!(status.skipped["Secret"], 2);
    assert_eq!(plane.states().await.len(), 2_501);
    let too_many: String = (0..18_000).map(|n| rule(&format!("more-{n}"))).collect();
    fs::write(folder.rule_file("more.yaml"), too_many).unwrap();
    let status = plane.until(|status| !status.out_of_force.is_empty()).await;
    let told = &status.out_of_force[0].reason;
    assert!(told.contains("20501 objects") && told.contains("no more than 20000"), "{told}");
    // Another file alone is not taken in either.
    fs::write(folder.rule_file("one.yaml"), rule("one")).unwrap();
    plane.until(|status| status.out_of_force[0].reason.contains("20502 objects")).await;
    assert_eq!(plane.states().await.len(), 2_501, "what was in force stays");
    fs::remove_file(folder.rule_file("more.yaml")).unwrap();
    plane.until(|status| status.out_of_force.is_empty()).await;
    assert_eq!(plane.states().await.len(), 2_502);
}

#[tokio::test]
async fn a_link_is_read_again_when_its_target_changes_and_told_of_when_it_dangles() {
    let folder = Folder::new().with_rules();
    let target = folder.path("target");
    fs::write(&target, subsets("reviews", &[("v1", 1)])).unwrap();
    std::os::unix::fs::symlink(&target, folder.rule_file("link.yaml")).unwrap();
    let plane = Plane::start(&folder).await;
    plane.join_http("reviews", "v1").await;
    assert_eq!(plane.states().await, ["reviews Programmed"]);
    fs::write(
        &target,
        format!("{}---\n{}", subsets("reviews", &[("v1", 1)]), route("reviews", &[("v1", 1)])),
    )
    .unwrap();
    while plane.states().await.len() != 2 {
        tokio::task::yield_now().await;
    }
    fs::remove_file(&target).unwrap();
    let status = plane.until(|status| !status.out_of_force.is_empty()).await;
    assert!(status.out_of_force[0].reason.contains("a link to"), "{:?}", status.out_of_force);
    assert_eq!(plane.states().await.len(), 2, "its last good version stays");
}
