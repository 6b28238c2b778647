//! Traffic policies: which rule says them, and what of them holds for a subset and a port.

use heddle_model::discovery::ClusterPolicy;

use super::*;

/// The policies of `service` as `loadgen` is told them, by cluster.
fn policies(mesh: &Mesh, rules: &str, service: &str) -> BTreeMap<String, ClusterPolicy> {
    let told = mesh.told(&super::rules(rules), "loadgen", service).policies;
    let named = |one: ClusterPolicy| {
        let ClusterKey { service, subset, port } = &one.cluster;
        let subset = subset.as_ref().map_or("*", |subset| &subset.name);
        (format!("{}/{subset}:{port}", service.name), one)
    };
    told.into_iter().map(named).collect()
}

fn max_connections(policy: &ClusterPolicy) -> Option<u32> {
    policy.pool.as_ref().and_then(|pool| pool.max_connections)
}

#[test]
fn a_host_without_a_policy_costs_nothing_on_the_wire() {
    assert!(policies(&Mesh::demo(), &destination_rule("r", VERSIONS), "reviews").is_empty());
    let other = "{host: reviews, trafficPolicy: {loadBalancer: {simple: LEAST_REQUEST}}}";
    assert!(policies(&Mesh::demo(), &destination_rule("r", other), "reviews").is_empty());
}

#[test]
fn a_subset_says_it_part_by_part_and_a_port_for_all_parts() {
    let rule = "
  host: reviews
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 3}
    connectionPool: {tcp: {maxConnections: 10}}
  subsets:
  - {name: v1, labels: {version: v1}}
  - name: v2
    labels: {version: v2}
    trafficPolicy: {connectionPool: {tcp: {maxConnections: 2}}}
  - name: v3
    labels: {version: v3}
    trafficPolicy:
      portLevelSettings: [{port: {number: 80}, connectionPool: {tcp: {maxConnections: 3}}}]";
    let routes = virtual_service(
        "r",
        "{hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v1}, weight: 1}, {destination: {host: reviews, subset: v2}, weight: 1}, {destination: {host: reviews, subset: v3}, weight: 1}]}]}",
    );
    let rules = format!("{}{routes}", destination_rule("limits", rule));
    let told = policies(&Mesh::demo(), &rules, "reviews");
    let shown: Vec<_> = told
        .iter()
        .map(|(cluster, policy)| {
            (cluster.as_str(), max_connections(policy), policy.outlier.is_some())
        })
        .collect();
    let wanted = [
        ("reviews/*:80", Some(10), true),
        ("reviews/v1:80", Some(10), true),
        ("reviews/v2:80", Some(2), true),
        ("reviews/v3:80", Some(3), false),
    ];
    assert_eq!(shown, wanted);
    assert_eq!(told["reviews/*:80"].provenance.0, "DestinationRule/default/limits");
}

#[test]
fn settings_of_a_port_take_the_place_of_the_hosts_for_that_port_only() {
    let mesh = Mesh::default().joins("loadgen", "v1", &[]).joins(
        "shop",
        "v1",
        &[(80, Protocol::Http), (81, Protocol::Http)],
    );
    let rule = "{host: shop, trafficPolicy: {connectionPool: {tcp: {maxConnections: 10}}, outlierDetection: {}, portLevelSettings: [{port: {number: 81}, outlierDetection: {consecutive5xxErrors: 1}}]}}";
    let told = policies(&mesh, &destination_rule("r", rule), "shop");
    let (general, port) = (&told["shop/*:80"], &told["shop/*:81"]);
    assert_eq!((max_connections(general), max_connections(port)), (Some(10), None));
    let after = |policy: &ClusterPolicy| policy.outlier.as_ref().unwrap().consecutive_5xx;
    assert_eq!((after(general), after(port)), (5, 1));
}

#[test]
fn a_cluster_of_another_service_comes_with_that_services_policy() {
    let routes = virtual_service(
        "r",
        "{hosts: [ratings], http: [{route: [{destination: {host: reviews}}]}]}",
    );
    let rule = "{host: reviews, trafficPolicy: {outlierDetection: {}}}";
    let told =
        policies(&Mesh::demo(), &format!("{}{routes}", destination_rule("r", rule)), "ratings");
    assert_eq!(told.keys().collect::<Vec<_>>(), ["reviews/*:80"]);
}

#[test]
fn of_two_rules_for_one_host_the_older_with_a_policy_counts() {
    let first = destination_rule("a", VERSIONS);
    let second = destination_rule(
        "b",
        "{host: reviews, trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}}}",
    );
    let third = destination_rule(
        "c",
        "{host: reviews, trafficPolicy: {connectionPool: {tcp: {maxConnections: 2}}}}",
    );
    let told = policies(&Mesh::demo(), &format!("{first}{second}{third}"), "reviews");
    assert_eq!(max_connections(&told["reviews/*:80"]), Some(1));
}

#[test]
fn how_an_endpoint_is_chosen_is_said_part_by_part_and_a_budget_holds_for_every_port() {
    let rule = "
  host: reviews
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 30s}}
    retryBudget: {percent: 50}
    portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]
  subsets:
  - name: v1
    labels: {version: v1}
    trafficPolicy: {loadBalancer: {simple: LEAST_REQUEST}}
  - name: v2
    labels: {version: v2}
    trafficPolicy: {outlierDetection: {}}";
    let routes = virtual_service(
        "r",
        "{hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v1}, weight: 1}, {destination: {host: reviews, subset: v2}, weight: 1}]}]}",
    );
    let told = |rule: &str| {
        let rules = format!("{}{routes}", destination_rule("r", rule));
        policies(&Mesh::demo(), &rules, "reviews")
    };
    let shown = |told: BTreeMap<String, ClusterPolicy>| -> Vec<(String, Option<String>, bool)> {
        let method =
            |policy: &ClusterPolicy| Some(format!("{:?}", policy.balancing.as_ref()?.method));
        let shown = told.iter();
        shown.map(|(name, one)| (name.clone(), method(one), one.retry_budget.is_some())).collect()
    };
    let named =
        |name: &str, method: Option<&str>| (name.to_owned(), method.map(str::to_owned), true);
    let wanted = [
        named("reviews/*:80", Some("Random")),
        named("reviews/v1:80", None),
        named("reviews/v2:80", Some("Random")),
    ];
    assert_eq!(shown(told(rule)), wanted);
    let without_port = rule.replace(
        "portLevelSettings: [{port: {number: 80}",
        "portLevelSettings: [{port: {number: 81}",
    );
    let wanted = [
        named("reviews/*:80", Some("RoundRobin")),
        named("reviews/v1:80", None),
        named("reviews/v2:80", Some("RoundRobin")),
    ];
    assert_eq!(shown(told(&without_port)), wanted);
}
