//! What holds for any rules.

use proptest::prelude::*;

use super::*;

const SERVICES: [&str; 4] = ["reviews", "ratings", "store", "nobody"];

/// One resource's document, by kind and content; names are given by position.
fn rule() -> impl Strategy<Value = (bool, String)> {
    let host = prop::sample::select(vec!["reviews", "ratings", "store", "nobody", "'*.local'"]);
    let to = (
        prop::sample::select(SERVICES.to_vec()),
        prop::option::of(1..4u8),
        prop::option::of(80..82u16),
        1..9u8,
    );
    let destination = to.prop_map(|(host, subset, port, weight)| {
        let subset = subset.map_or(String::new(), |v| format!(", subset: v{v}"));
        let port = port.map_or(String::new(), |p| format!(", port: {{number: {p}}}"));
        format!("{{destination: {{host: {host}{subset}{port}}}, weight: {weight}}}")
    });
    let condition = prop::sample::select(vec![
        "",
        "match: [{port: 80}], ",
        "match: [{uri: {prefix: /a}}], ",
        "match: [{sourceLabels: {app: frontend}}], ",
        "match: [{headers: {x: {regex: 'a+'}}}], ",
        "match: [{sourceNamespace: other}], ",
    ]);
    let route = (condition, prop::collection::vec(destination, 1..3))
        .prop_map(|(condition, to)| format!("{{{condition}route: [{}]}}", to.join(", ")));
    let export = prop::sample::select(vec!["", "exportTo: ['.'], ", "exportTo: [other], "]);
    let service = (export, host.clone(), prop::collection::vec(route, 1..4)).prop_map(
        |(export, host, routes)| {
            (true, format!("{{{export}hosts: [{host}], http: [{}]}}", routes.join(", ")))
        },
    );
    let subsets = prop::collection::btree_map(1..4u8, 1..4u8, 0..3).prop_map(|subsets| {
        let one =
            |(name, label): (u8, u8)| format!("{{name: v{name}, labels: {{version: v{label}}}}}");
        subsets.into_iter().map(one).collect::<Vec<_>>().join(", ")
    });
    let subsetting = (host, subsets)
        .prop_map(|(host, subsets)| (false, format!("{{host: {host}, subsets: [{subsets}]}}")));
    prop_oneof![service, subsetting]
}

fn written(rules: &[(bool, String)]) -> String {
    let one = |(i, (routing, spec)): (usize, &(bool, String))| {
        let named = format!("r{i}.{}", if i % 3 == 2 { "other" } else { "default" });
        if *routing { virtual_service(&named, spec) } else { destination_rule(&named, spec) }
    };
    rules.iter().enumerate().map(one).collect()
}

fn mesh() -> Mesh {
    Mesh::demo().joins("batch.other", "v1", &[])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn clients_of_one_view_are_told_the_same(rules_of in prop::collection::vec(rule(), 0..6)) {
        let (mesh, index) = (mesh(), rules(&written(&rules_of)));
        let mut told: BTreeMap<View, Vec<Option<Destination>>> = BTreeMap::new();
        for workload in mesh.0.workloads.values() {
            let all: Vec<_> = mesh.0.services.keys()
                .map(|service| index.destination(&mesh.0, workload.into(), service))
                .collect();
            let first = told.entry(index.view(workload.into())).or_insert_with(|| all.clone());
            prop_assert_eq!(&*first, &all);
        }
    }

    #[test]
    fn the_same_input_gives_the_same_output(rules_of in prop::collection::vec(rule(), 0..6)) {
        let (mesh, text) = (mesh(), written(&rules_of));
        let (one, two) = (rules(&text), rules(&text));
        prop_assert_eq!(one.findings(&mesh.0), two.findings(&mesh.0));
        for service in mesh.0.services.keys() {
            let client = mesh.client("frontend");
            prop_assert_eq!(
                one.destination(&mesh.0, client, service),
                two.destination(&mesh.0, client, service)
            );
        }
    }

    #[test]
    fn targets_resolve_or_say_why_and_findings_say_so_too(
        rules_of in prop::collection::vec(rule(), 0..6),
    ) {
        let (mesh, index) = (mesh(), rules(&written(&rules_of)));
        let findings = index.findings(&mesh.0);
        for workload in mesh.0.workloads.values() {
            for service in mesh.0.services.keys() {
                let told = index.destination(&mesh.0, workload.into(), service).unwrap();
                for rule in told.ports.iter().flat_map(|port| &port.http) {
                    prop_assert!(!rule.targets().is_empty());
                    for target in rule.targets() {
                        check(&mesh, target, &findings)?;
                    }
                }
                prop_assert!(told.backends().iter().all(|name| mesh.0.services.contains_key(name)));
            }
        }
    }

    #[test]
    fn an_edit_that_changes_nothing_breaks_nothing(rules_of in prop::collection::vec(rule(), 0..6)) {
        let (mesh, text) = (mesh(), written(&rules_of));
        let (now, after) = (rules(&text), rules(&text));
        prop_assert_eq!(now.dangles_after(&after, &mesh.0), []);
        prop_assert_eq!(now.dangles_after(&rules(""), &mesh.0), []);
    }

    #[test]
    fn what_an_edit_breaks_was_whole_and_dangles_afterwards(
        rules_of in prop::collection::vec(rule(), 1..6), at: prop::sample::Index,
    ) {
        let (mesh, all) = (mesh(), resources(&written(&rules_of)));
        let mut fewer = all.clone();
        fewer.remove(at.index(all.len()));
        let (now, then) = (RuleIndex::new(&all), RuleIndex::new(&fewer));
        let dangling = then.findings(&mesh.0);
        for broken in now.dangles_after(&then, &mesh.0) {
            let same = |one: &Finding| {
                one.kind == FindingKind::Dangling && one.key == broken.key && one.field == broken.field
            };
            prop_assert!(dangling.iter().any(same), "{broken:?}");
        }
    }
}

/// A target has endpoints to be found, or a reason that the findings give too.
fn check(mesh: &Mesh, target: &WeightedTarget, findings: &[Finding]) -> Result<(), TestCaseError> {
    let reason = match &target.to {
        Target::Dangling(reason) => reason,
        Target::Cluster(key) => {
            let service = mesh.0.services.get(&key.service);
            prop_assert!(service.is_some_and(|service| service.ports.contains_key(&key.port)));
            return Ok(());
        }
    };
    prop_assert!(findings.iter().any(|one| one.text.starts_with(reason.as_str())), "{}", reason);
    Ok(())
}
