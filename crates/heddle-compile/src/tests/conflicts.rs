//! Two rules for one thing: who wins, and what the loser is told.

use super::*;

/// A VirtualService that sends all calls for `host` to `to`.
fn sends(named: &str, host: &str, to: &str) -> String {
    let route = format!("[{{destination: {{host: {to}.default}}}}]");
    virtual_service(named, &format!("{{hosts: ['{host}'], http: [{{route: {route}}}]}}"))
}

fn sent(mesh: &Mesh, rules: &RuleIndex, client: &str, service: &str) -> String {
    let told = mesh.told(rules, client, service);
    told.ports[0].http.first().map_or_else(
        || "*".to_owned(),
        |rule| match &rule.targets()[0].to {
            Target::Cluster(key) => key.service.name.clone(),
            Target::Dangling(reason) => panic!("{reason}"),
        },
    )
}

#[test]
fn of_two_rules_for_one_host_the_older_wins_and_the_other_is_told() {
    let text = sends("b", "reviews", "ratings") + &sends("a", "reviews.default", "photos");
    let (demo, index) = (Mesh::demo(), rules(&text));
    assert_eq!(sent(&demo, &index, "frontend", "reviews"), "ratings");
    let loser = ResourceKey {
        kind: "VirtualService".into(),
        namespace: "default".into(),
        name: "a".into(),
    };
    let findings = index.findings(&demo.0);
    assert_eq!(ResourceState::of(&index.resources()[0], &findings), ResourceState::Conflicted);
    assert_eq!(findings[0].key, loser);
    assert!(findings[0].text.starts_with("VirtualService/default/b also names `reviews.default`"));
    assert_eq!(findings.len(), 1, "the winner is told nothing");

    let mut turned = resources(&text);
    turned.reverse();
    assert_eq!(sent(&demo, &RuleIndex::new(&turned), "frontend", "reviews"), "photos");
}

#[test]
fn the_closest_host_wins_whatever_its_age() {
    let text = sends("all", "*.local", "photos")
        + &sends("most", "*.default.svc.cluster.local", "store")
        + &sends("one", "reviews", "ratings");
    let (demo, index) = (Mesh::demo(), rules(&text));
    assert_eq!(sent(&demo, &index, "frontend", "reviews"), "ratings");
    assert_eq!(sent(&demo, &index, "frontend", "restaurants"), "store");
    assert_eq!(demo.said(&index), Vec::<String>::new(), "different hosts are no conflict");
}

#[test]
fn export_to_decides_who_sees_a_rule() {
    let export =
        |to: &str, text: String| text.replace("{hosts:", &format!("{{exportTo: {to}, hosts:"));
    let mesh = Mesh::demo().joins("batch.other", "v1", &[]);
    let seen = |to: &str| {
        let index = rules(&export(to, sends("r", "reviews", "ratings")));
        [sent(&mesh, &index, "frontend", "reviews"), sent(&mesh, &index, "batch.other", "reviews")]
    };
    assert_eq!(seen("['.']"), ["ratings", "*"]);
    assert_eq!(seen("[other]"), ["*", "ratings"]);
    assert_eq!(seen("['*']"), ["ratings", "ratings"]);
    assert_eq!(seen("[nobody]"), ["*", "*"]);

    let own = export("['.']", sends("own.other", "reviews.default", "photos"));
    let index = rules(&(sends("old", "reviews", "ratings") + &own));
    assert_eq!(sent(&mesh, &index, "batch.other", "reviews"), "photos", "one's own rule first");
    assert_eq!(sent(&mesh, &index, "frontend", "reviews"), "ratings");
}

#[test]
fn a_rule_private_to_the_callers_namespace_goes_before_one_exported_to_it_and_that_before_public() {
    let exported = |named: &str, to: &str, target: &str| {
        sends(named, "reviews.default", target)
            .replace("{hosts:", &format!("{{exportTo: {to}, hosts:"))
    };
    let mesh = Mesh::demo().joins("batch.other", "v1", &[]);
    let public = exported("public.third", "['*']", "ratings");
    let named = exported("named.third", "[other]", "photos");
    let private = exported("private.other", "[other]", "store");
    let sent = |text: &str| sent(&mesh, &rules(text), "batch.other", "reviews");
    assert_eq!(sent(&format!("{public}{named}")), "photos");
    assert_eq!(
        sent(&format!("{public}{named}{private}")),
        "store",
        "its own name is as good as `.`"
    );
    assert_eq!(sent(&format!("{public}{}", exported("open.other", "['*']", "store"))), "ratings");
}

#[test]
fn subsets_of_one_host_are_merged_and_the_older_definition_wins() {
    let text = destination_rule(
        "a",
        "{host: reviews, subsets: [{name: old, labels: {version: v1}}]}",
    ) + &destination_rule(
        "b",
        "{host: reviews.default.svc.cluster.local, subsets: [{name: old, labels: {version: v3}}, {name: new, labels: {version: v3}}]}",
    );
    let (demo, index) = (Mesh::demo(), rules(&text));
    let told = demo.told(&index, "frontend", "reviews");
    assert_eq!(told.subsets["old"]["version"], "v1");
    assert_eq!(told.subsets["new"]["version"], "v3");
    assert_eq!(
        demo.said(&index),
        [
            "Conflict spec.subsets[0]: DestinationRule/default/a already defines the subset `old` of `reviews.default.svc.cluster.local`: the older one wins"
        ]
    );
}

#[test]
fn destination_rules_are_looked_up_in_the_clients_the_services_and_the_root_namespace() {
    let subset = |named: &str, version: &str| {
        destination_rule(
            named,
            &format!(
                "{{host: reviews.default, subsets: [{{name: s, labels: {{version: {version}}}}}]}}"
            ),
        )
    };
    let mesh = Mesh::demo().joins("batch.other", "v1", &[]).joins("third.third", "v1", &[]);
    let text =
        subset("r.other", "v1") + &subset("r.default", "v2") + &subset("r.istio-system", "v3");
    let seen = |text: &str, client: &str| {
        let told = mesh.told(&rules(text), client, "reviews");
        told.subsets.get("s").map_or_else(|| "none".to_owned(), |labels| labels["version"].clone())
    };
    assert_eq!(seen(&text, "batch.other"), "v1");
    assert_eq!(seen(&text, "frontend"), "v2");
    assert_eq!(seen(&text, "third.third"), "v2");
    assert_eq!(seen(&subset("r.istio-system", "v3"), "frontend"), "v3");
    assert_eq!(seen(&subset("r.other", "v1"), "frontend"), "none", "a stranger's rule is not seen");
}

#[test]
fn a_workload_selector_chooses_the_clients_a_rule_holds_for() {
    let text = destination_rule("a", VERSIONS)
        + &destination_rule(
            "b",
            "{host: reviews, workloadSelector: {matchLabels: {app: frontend}}, subsets: [{name: mine, labels: {version: v2}}]}",
        );
    let (demo, index) = (Mesh::demo(), rules(&text));
    let subsets = |client: &str| -> Vec<String> {
        demo.told(&index, client, "reviews").subsets.into_keys().collect()
    };
    assert_eq!(subsets("frontend"), ["mine"]);
    assert_eq!(subsets("photos"), ["v1", "v2", "v3"]);
    let view = |client: &str| index.view(demo.client(client));
    assert_ne!(view("frontend"), view("photos"));
}
