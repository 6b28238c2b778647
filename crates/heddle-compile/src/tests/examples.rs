//! The files in `examples/` work against the demo.

use std::{fs, path::Path};

use super::*;

fn examples() -> Vec<(String, RuleIndex)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let entries = fs::read_dir(folder).expect("the folder of examples");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
        .iter()
        .map(|file| {
            let text = fs::read_to_string(file).expect("readable");
            (file.file_name().unwrap().to_string_lossy().into_owned(), rules(&text))
        })
        .collect()
}

fn example(file: &str) -> RuleIndex {
    let found = examples().into_iter().find(|(name, _)| name == file);
    found.unwrap_or_else(|| panic!("no example {file}")).1
}

#[test]
fn every_example_is_in_force_in_the_demo_without_a_word() {
    let all = examples();
    assert!(all.len() >= 5);
    for (file, index) in all {
        let demo = Mesh::demo().declaring(&index);
        assert_eq!(demo.said(&index), Vec::<String>::new(), "{file}");
        for resource in index.resources() {
            assert_eq!(resource.not_enforced, [], "{file}");
        }
    }
}

#[test]
fn examples_for_one_service_replace_each_other() {
    let all = examples();
    let mut holders: BTreeMap<ServiceName, ResourceKey> = BTreeMap::new();
    for (file, index) in &all {
        for resource in index.resources().iter().filter(|r| r.key.kind == "VirtualService") {
            // Who has no hosts is a delegate, and replaces nobody.
            let alone = RuleIndex::new(std::slice::from_ref(resource));
            let Some(host) = alone.hosts().into_iter().next() else { continue };
            let holder = holders.entry(host).or_insert_with(|| resource.key.clone());
            assert_eq!(*holder, resource.key, "{file}");
        }
    }
}

#[test]
fn the_talks_faults_hit_eighty_percent() {
    let demo = Mesh::demo();
    let fault = |file: &str| {
        let told = demo.told(&example(file), "reviews", "ratings");
        let rule = told.ports[0].http[0].clone();
        assert_eq!(shown(rule.targets()), ["ratings/*:80=100"]);
        rule.fault.unwrap()
    };
    let delay = fault("delay-ratings-80-percent.yaml").delay.unwrap();
    assert_eq!((delay.duration.as_secs(), delay.percent), (5, 80.0));
    let abort = fault("abort-ratings-80-percent.yaml").abort.unwrap();
    assert_eq!((abort.status, abort.percent), (500, 80.0));
}

#[test]
fn the_talks_canary_gets_one_percent() {
    let told = Mesh::demo().told(&example("reviews-canary-1-percent.yaml"), "frontend", "reviews");
    assert_eq!(shown(told.ports[0].http[0].targets()), ["reviews/v2:80=99", "reviews/v3:80=1"]);
}

#[test]
fn the_store_is_steered_by_its_tcp_rule() {
    let told = Mesh::demo().told(&example("store-by-tcp.yaml"), "restaurants", "store");
    assert_eq!(shown(&told.ports[0].tcp), ["store/v1:6379=100"]);
    assert!(told.ports[0].http.is_empty());
}

#[test]
fn routes_of_the_gateway_api_send_where_they_say() {
    let told = |file: &str| {
        let index = example(file);
        Mesh::demo().declaring(&index).told(&index, "frontend", "reviews").ports[0].http.clone()
    };
    let by_path = told("gateway-reviews-by-path.yaml");
    assert_eq!(shown(by_path[0].targets()), ["reviews-v3/*:80=1"]);
    assert_eq!(shown(by_path[1].targets()), ["reviews-v1/*:80=1"]);
    assert_eq!(by_path[1].provenance.0, "HTTPRoute/default/reviews#old-for-the-rest");
    let canary = told("gateway-reviews-canary.yaml");
    assert_eq!(shown(canary[0].targets()), ["reviews-v1/*:80=9", "reviews-v2/*:80=1"]);
    assert_eq!(canary[0].traffic.timeout.unwrap().as_secs(), 1);
}
