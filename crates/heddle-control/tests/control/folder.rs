//! The `--config` folder: edits as editors make them, invalid files, two files with one object.

use std::fs;

use heddle_wire::local::control_api::{ApplyRequest, ResourceView, Status};

use crate::{
    plane::{Folder, Plane, documents, route, save, split, subsets},
    proxy::Follower,
};

#[tokio::test]
async fn files_are_in_force_from_the_start_and_edits_follow() {
    let folder = Folder::new().with_rules();
    let file = folder.rule_file("reviews.yaml");
    fs::write(&file, split("reviews", &[("v1", 1)])).unwrap();
    let plane = Plane::start(&folder).await;
    let me = plane.join_http("reviews", "v1").await.workload.id;
    let mut proxy = Follower::start(&plane, &me, &["reviews"]).await;
    assert_eq!(proxy.held().weights("reviews"), [1]);
    // Written in place.
    fs::write(&file, split("reviews", &[("v1", 2)])).unwrap();
    proxy.until(|held| held.weights("reviews") == [2]).await;
    // Written beside and renamed over.
    save(&file, &split("reviews", &[("v1", 3)]));
    proxy.until(|held| held.weights("reviews") == [3]).await;
    // vim: the old one is kept as a backup.
    fs::rename(&file, folder.rule_file("reviews.yaml~")).unwrap();
    fs::write(&file, split("reviews", &[("v1", 4)])).unwrap();
    let held = proxy.until(|held| held.weights("reviews") == [4]).await;
    assert!(held.removed.is_empty());
    // Renamed: the rules stay as they are.
    let groups = proxy.held().groups;
    fs::rename(&file, folder.rule_file("moved.yml")).unwrap();
    let views = until_sources(&plane, "moved.yml").await;
    assert_eq!(views.len(), 2);
    assert_eq!(proxy.held().groups, groups, "nothing changed for anybody");
    fs::remove_file(folder.rule_file("moved.yml")).unwrap();
    proxy.until(|held| held.weights("reviews").is_empty()).await;
    assert!(plane.states().await.is_empty());
}

/// Looks at resources until all come from a file of this name.
async fn until_sources(plane: &Plane, name: &str) -> Vec<ResourceView> {
    loop {
        let views: Vec<ResourceView> = plane.get("/v1/resources").await;
        if !views.is_empty() && views.iter().all(|view| view.source.ends_with(name)) {
            return views;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_invalid_file_is_reported_and_its_last_good_version_stays() {
    let folder = Folder::new().with_rules();
    let file = folder.rule_file("reviews.yaml");
    let good = split("reviews", &[("v1", 1)]);
    fs::write(&file, &good).unwrap();
    let plane = Plane::start(&folder).await;
    let me = plane.join_http("reviews", "v1").await.workload.id;
    let mut proxy = Follower::start(&plane, &me, &["reviews"]).await;
    save(&file, &good.replace("weight: 1", "weight: much"));
    let status = plane.until(|status| !status.problems.is_empty()).await;
    let problem = &status.problems[0];
    assert_eq!(problem.file.as_deref(), file.to_str());
    assert!(problem.line.is_some(), "{problem:?}");
    assert_eq!(&status.out_of_force[0], problem);
    assert_eq!(problem.field.as_deref(), Some("spec.http[0].route[0].weight"));
    assert_eq!(plane.states().await, ["reviews Invalid", "reviews Invalid"]);
    assert_eq!(proxy.held().weights("reviews"), [1]);
    plane.stop();
    // The file is still invalid: what was good last comes from the store.
    let plane = Plane::start(&folder).await;
    let mut proxy2 = Follower::start(&plane, &me, &["reviews"]).await;
    assert_eq!(proxy2.held().weights("reviews"), [1]);
    assert_eq!(plane.states().await, ["reviews Invalid", "reviews Invalid"]);
    save(&file, &split("reviews", &[("v1", 5)]));
    proxy2.until(|held| held.weights("reviews") == [5]).await;
    plane.until(|status| status.problems.is_empty()).await;
    drop(proxy.held());
    proxy = proxy2;
    plane.stop();
    // A file invalid from the start with nothing good before: skipped, and the others count.
    fs::write(folder.rule_file("broken.json"), "{").unwrap();
    fs::remove_file(&file).unwrap();
    let plane = Plane::start(&folder).await;
    assert!(plane.states().await.is_empty(), "a file gone meanwhile takes its objects with it");
    let problems = plane.status().await.problems;
    assert!(
        problems[0].file.as_deref().is_some_and(|file| file.ends_with("broken.json")),
        "{problems:?}"
    );
    drop(proxy);
}

#[tokio::test]
async fn two_files_holding_one_object_are_a_conflict_the_first_by_path_wins() {
    let folder = Folder::new().with_rules();
    fs::write(folder.rule_file("b.yaml"), split("reviews", &[("v1", 2)])).unwrap();
    let plane = Plane::start(&folder).await;
    let me = plane.join_http("reviews", "v1").await.workload.id;
    let mut proxy = Follower::start(&plane, &me, &["reviews"]).await;
    assert_eq!(proxy.held().weights("reviews"), [2]);
    save(&folder.rule_file("a.yaml"), &route("reviews", &[("v1", 1)]));
    proxy.until(|held| held.weights("reviews") == [1]).await;
    let problems = plane.status().await.problems;
    let reason = &problems[0].reason;
    assert!(reason.contains("a.yaml") && reason.contains("b.yaml"), "{reason}");
    let states = plane.states().await;
    assert!(states.contains(&"reviews Conflicted".to_owned()), "{states:?}");
    fs::remove_file(folder.rule_file("a.yaml")).unwrap();
    proxy.until(|held| held.weights("reviews") == [2]).await;
    plane.until(|status| status.problems.is_empty()).await;
}

#[tokio::test]
async fn what_a_file_holds_is_not_for_apply_and_the_other_way_round() {
    let folder = Folder::new().with_rules();
    fs::write(folder.rule_file("reviews.yaml"), split("reviews", &[("v1", 1)])).unwrap();
    let plane = Plane::start(&folder).await;
    let me = plane.join_http("reviews", "v1").await.workload.id;
    let refusal = plane.apply(&route("reviews", &[("v1", 9)])).await.unwrap_err();
    assert_eq!(refusal.status, 409);
    assert!(refusal.text().contains("reviews.yaml: edit it there"), "{}", refusal.text());
    let force = ApplyRequest { force: true, ..documents(&route("reviews", &[("v1", 9)])) };
    assert!(plane.post::<serde_json::Value>("/v1/apply", &force).await.is_err());
    let refusal = plane.delete("VirtualService", "reviews", true).await.unwrap_err();
    assert!(refusal.text().contains("reviews.yaml"), "{}", refusal.text());
    plane.apply(&subsets("ratings", &[("v1", 1)])).await.unwrap();
    save(&folder.rule_file("ratings.yaml"), &subsets("ratings", &[("v2", 1)]));
    let told =
        |status: &Status| status.problems.iter().any(|p| p.reason.contains("made with `apply`"));
    plane.until(told).await;
    let proxy = Follower::start(&plane, &me, &["reviews"]).await;
    assert_eq!(proxy.held().weights("reviews"), [1]);
    plane.delete("DestinationRule", "ratings", false).await.unwrap();
    plane.until(|status| !told(status)).await;
}

#[tokio::test]
async fn files_saved_together_are_one_generation() {
    let folder = Folder::new().with_rules();
    let plane = Plane::start(&folder).await;
    let before = plane.status().await.generation;
    // Renamed into place one after the other, in far less than the settling time.
    let names: Vec<String> = (0..10).map(|number| format!("s{number}")).collect();
    for name in &names {
        fs::write(folder.rule_file(&format!("{name}.new")), subsets(name, &[("v1", 1)])).unwrap();
    }
    for name in &names {
        fs::rename(
            folder.rule_file(&format!("{name}.new")),
            folder.rule_file(&format!("{name}.yaml")),
        )
        .unwrap();
    }
    let status = plane.until(|status| status.generation > before).await;
    assert_eq!(plane.states().await.len(), 10);
    assert_eq!(status.generation, before + 1);
}

#[tokio::test]
async fn the_folder_itself_may_go_and_come_back() {
    let folder = Folder::new().with_rules();
    fs::write(folder.rule_file("reviews.yaml"), split("reviews", &[("v1", 1)])).unwrap();
    let plane = Plane::start(&folder).await;
    let me = plane.join_http("reviews", "v1").await.workload.id;
    let mut proxy = Follower::start(&plane, &me, &["reviews"]).await;
    fs::rename(folder.path("rules"), folder.path("away")).unwrap();
    let status = plane.until(|status| !status.problems.is_empty()).await;
    assert!(
        status
            .problems
            .iter()
            .any(|p| p.reason.contains("stays in force") || p.reason.contains("stay in force")),
        "{status:?}"
    );
    assert_eq!(proxy.held().weights("reviews"), [1]);
    fs::create_dir(folder.path("rules")).unwrap();
    fs::write(folder.rule_file("reviews.yaml"), split("reviews", &[("v1", 6)])).unwrap();
    proxy.until(|held| held.weights("reviews") == [6]).await;
    plane.until(|status| status.problems.is_empty()).await;
}

#[tokio::test]
async fn what_is_no_rule_file_is_left_alone() {
    let folder = Folder::new().with_rules();
    fs::write(folder.rule_file("notes.txt"), "not: [yaml").unwrap();
    fs::write(folder.rule_file(".hidden.yaml"), "not: [yaml").unwrap();
    fs::create_dir(folder.rule_file("deeper")).unwrap();
    fs::write(folder.rule_file("deeper/bad.yaml"), "not: [yaml").unwrap();
    let plane = Plane::start(&folder).await;
    let status = plane.status().await;
    assert!(status.problems.is_empty(), "{status:?}");
    fs::create_dir(folder.rule_file("folder.yaml")).unwrap();
    fs::write(folder.rule_file("latin.yaml"), b"a: \xe4").unwrap();
    let status = plane.until(|status| !status.problems.is_empty()).await;
    assert!(status.problems[0].reason.contains("UTF-8"), "{status:?}");
}

/// Subset `v1` of `reviews` with so many labels that rules naming it often are too large to send.
fn long_subset() -> String {
    let labels: Vec<String> =
        (0..300).map(|n| format!("{}{n}: {}", "k".repeat(50), "v".repeat(60))).collect();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: long}}\nspec: {{host: reviews, subsets: [{{name: v1, labels: {{{}}}}}]}}\n",
        labels.join(", ")
    )
}

/// Rules for `reviews` that name its subset `v1` this often.
fn naming(times: usize) -> String {
    let route = "  - match: [{uri: {prefix: /a}}]\n    route: [{destination: {host: reviews, subset: v1}}]\n";
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews}}\nspec:\n  hosts: [reviews]\n  http:\n{}",
        route.repeat(times)
    )
}

#[tokio::test]
async fn a_file_that_would_not_load_keeps_no_other_out_and_is_tried_again_with_each_batch() {
    let folder = Folder::new().with_rules();
    fs::write(folder.rule_file("a.yaml"), subsets("ratings", &[("v1", 1)])).unwrap();
    fs::write(folder.rule_file("b.yaml"), naming(300)).unwrap();
    fs::write(folder.rule_file("long.yaml"), long_subset()).unwrap();
    fs::write(folder.rule_file("z.yaml"), subsets("photos", &[("v1", 1)])).unwrap();
    let plane = Plane::start(&folder).await;
    let names = |views: Vec<ResourceView>| {
        let mut names: Vec<String> = views.into_iter().map(|view| view.key.name).collect();
        names.sort();
        names
    };
    assert_eq!(names(plane.get("/v1/resources").await), ["photos", "ratings", "reviews"]);
    let problems = plane.status().await.problems;
    let rejected: Vec<_> = problems.iter().filter(|p| p.reason.contains("would refuse")).collect();
    assert_eq!(rejected.len(), 1, "{problems:?}");
    assert!(rejected[0].reason.contains("more than the 8388608"), "{rejected:?}");
    save(&folder.rule_file("b.yaml"), &naming(1));
    plane.until(|status| status.problems.iter().all(|p| !p.reason.contains("would refuse"))).await;
    assert_eq!(names(plane.get("/v1/resources").await), ["long", "photos", "ratings", "reviews"]);
}
