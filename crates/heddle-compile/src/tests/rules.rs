//! Which rules apply to whom, and where they send traffic.

use super::*;

#[test]
fn a_service_without_rules_is_told_bare() {
    let told = Mesh::demo().told(&rules(""), "frontend", "reviews");
    assert_eq!(told.service, name("reviews"));
    assert_eq!(told.vips.len(), 2);
    assert!(told.ports[0].http.is_empty() && told.ports[0].tcp.is_empty());
    assert!(told.subsets.is_empty());
    let absent = rules("").destination(&Mesh::demo().0, Client::any_of("default"), &name("nobody"));
    assert_eq!(absent, None);
}

#[test]
fn rules_carry_their_provenance_and_resolved_subsets() {
    let text = destination_rule("r", VERSIONS)
        + &virtual_service(
            "r",
            "{hosts: [reviews], http: [{match: [{uri: {exact: /a}}], route: [{destination: {host: reviews, subset: v3}}]}, {name: rest, route: [{destination: {host: reviews.default.svc.cluster.local}}]}, {name: 'not plain', route: [{destination: {host: ratings}}]}]}",
        );
    let told = Mesh::demo().told(&rules(&text), "frontend", "reviews");
    let http = &told.ports[0].http;
    assert_eq!(http[0].provenance, Provenance("VirtualService/default/r#http[0]".into()));
    let Target::Cluster(key) = &http[0].targets()[0].to else { panic!("dangling") };
    assert_eq!(key.subset.as_ref().unwrap().labels["version"], "v3");
    assert_eq!(http[1].provenance, Provenance("VirtualService/default/r#rest".into()));
    assert_eq!(shown(http[1].targets()), ["reviews/*:80=100"]);
    assert_eq!(http.len(), 2, "nothing after a rule that matches everything");
    assert_eq!(told.subsets["v2"]["version"], "v2");
}

#[test]
fn rules_with_conditions_on_the_caller_reach_only_that_caller() {
    let text = virtual_service(
        "r",
        "{hosts: [ratings], http: [{match: [{sourceLabels: {app: reviews, version: v2}}], route: [{destination: {host: reviews}}]}, {match: [{sourceNamespace: other}, {sourceLabels: {app: frontend}, uri: {prefix: /}}], route: [{destination: {host: photos}}]}]}",
    );
    let (mesh, rules) = (Mesh::demo().joins("batch.other", "v1", &[]), rules(&text));
    let told = |client: Client<'_>| {
        let told = rules.destination(&mesh.0, client, &name("ratings")).unwrap();
        let http = told.ports[0].http.iter();
        http.map(|rule| (rule.matches.len(), shown(rule.targets()).concat())).collect::<Vec<_>>()
    };
    let versions: Vec<_> =
        mesh.0.workloads.values().filter(|w| w.services.contains(&name("reviews"))).collect();
    assert_eq!(told(versions[0].into()), []);
    assert_eq!(told(versions[1].into()), [(0, "reviews/*:80=100".to_owned())]);
    assert_eq!(told(mesh.client("frontend")), [(1, "photos/*:80=100".to_owned())]);
    assert_eq!(told(mesh.client("batch.other")), [(0, "photos/*:80=100".to_owned())]);
    let view = |client: &str| rules.view(mesh.client(client));
    assert_eq!(view("photos"), view("loadgen"), "rules cannot tell them apart");
    assert_ne!(view("photos"), view("frontend"));
    assert_ne!(view("photos"), view("batch.other"));
}

#[test]
fn rules_with_a_port_apply_to_that_port_only() {
    let mesh = Mesh::demo().joins(
        "web",
        "v1",
        &[(80, Protocol::Http), (81, Protocol::Undeclared), (90, Protocol::Tcp)],
    );
    let text = virtual_service(
        "r",
        "{hosts: [web], http: [{match: [{port: 81}, {port: 90}], route: [{destination: {host: photos}}]}, {route: [{destination: {host: web}}]}], tcp: [{match: [{port: 80}, {port: 90}], route: [{destination: {host: store}}]}, {route: [{destination: {host: web, port: {number: 90}}}]}]}",
    );
    let told = mesh.told(&rules(&text), "frontend", "web");
    let http = |port: usize| told.ports[port].http.iter().map(|r| shown(r.targets()).concat());
    assert_eq!(http(0).collect::<Vec<_>>(), ["web/*:80=100"]);
    assert_eq!(http(1).collect::<Vec<_>>(), ["photos/*:80=100"]);
    assert_eq!(http(2).count(), 0, "a port declared tcp takes no HTTP rule");
    assert_eq!(shown(&told.ports[0].tcp), Vec::<String>::new(), "declared http: no TCP rule");
    assert_eq!(shown(&told.ports[1].tcp), ["web/*:90=100"]);
    assert_eq!(shown(&told.ports[2].tcp), ["store/*:6379=100"]);
}

#[test]
fn a_destination_without_port_means_the_only_one_or_the_one_called() {
    let mesh = Mesh::demo().joins("web", "v1", &[(80, Protocol::Http), (81, Protocol::Http)]);
    let mesh = mesh.joins("api", "v1", &[(81, Protocol::Http), (82, Protocol::Http)]);
    let text = virtual_service(
        "r",
        "{hosts: [web], http: [{route: [{destination: {host: store}, weight: 1}, {destination: {host: api}, weight: 1}]}]}",
    );
    let told = mesh.told(&rules(&text), "frontend", "web");
    let on = |port: usize| shown(told.ports[port].http[0].targets());
    assert_eq!(on(1), ["store/*:6379=1", "api/*:81=1"]);
    assert_eq!(
        on(0)[1],
        "!no port is given, and `api.default.svc.cluster.local` has several but not 80: say which of 81, 82=1"
    );
}

#[test]
fn what_is_absent_keeps_its_share_and_says_what_it_is() {
    let text = destination_rule("r", VERSIONS)
        + &virtual_service(
            "r",
            "{hosts: [reviews], http: [{route: [{destination: {host: nobody}, weight: 1}, {destination: {host: reviews, subset: v9}, weight: 2}, {destination: {host: ratings, subset: v1}, weight: 3}, {destination: {host: reviews, port: {number: 81}}, weight: 4}, {destination: {host: www.example.com}, weight: 5}, {destination: {host: reviews, subset: v1}, weight: 6}]}]}",
        );
    let told = Mesh::demo().told(&rules(&text), "frontend", "reviews");
    let http = &told.ports[0].http[0];
    assert_eq!(
        shown(http.targets()),
        [
            "!there is no service `nobody.default.svc.cluster.local`=1",
            "!no DestinationRule defines the subset `v9` of `reviews.default.svc.cluster.local`; defined are `v1`, `v2`, `v3`=2",
            "!no DestinationRule defines the subset `v1` of `ratings.default.svc.cluster.local`=3",
            "!`reviews.default.svc.cluster.local` has no port 81, but 80=4",
            "!`www.example.com` is no service of this mesh=5",
            "reviews/v1:80=6",
        ]
    );
    assert_eq!(told.backends(), [name("reviews")].into());
}

#[test]
fn rules_for_gateways_only_do_not_reach_the_mesh() {
    let text = virtual_service(
        "g",
        "{hosts: ['*'], gateways: [gate], http: [{route: [{destination: {host: nobody}}]}]}",
    ) + &virtual_service(
        "r",
        "{hosts: [reviews], http: [{match: [{gateways: [gate]}], route: [{destination: {host: photos}}]}, {match: [{gateways: [gate, mesh], uri: {prefix: /a}}], route: [{destination: {host: ratings}}]}]}",
    );
    let (demo, rules) = (Mesh::demo(), rules(&text));
    let told = demo.told(&rules, "frontend", "reviews");
    assert_eq!(told.ports[0].http.len(), 1);
    assert_eq!(shown(told.ports[0].http[0].targets()), ["ratings/*:80=100"]);
    assert_eq!(demo.said(&rules), Vec::<String>::new());
}

#[test]
fn tcp_rules_see_the_service_address() {
    let text = |range: &str| {
        let match_ = format!("[{{destinationSubnets: [{range}]}}]");
        virtual_service(
            "s",
            &format!(
                "{{hosts: [store], tcp: [{{match: {match_}, route: [{{destination: {{host: ratings}}}}]}}]}}"
            ),
        )
    };
    let told = |range: &str| {
        shown(&Mesh::demo().told(&rules(&text(range)), "restaurants", "store").ports[0].tcp)
    };
    assert_eq!(told("240.240.0.0/16"), ["ratings/*:80=100"]);
    assert_eq!(told("10.0.0.0/8"), Vec::<String>::new());
}

#[test]
fn facts_about_members_need_no_rules() {
    let demo = Mesh::demo().0;
    let reviews = demo.services[&name("reviews")].clone();
    assert_eq!(address(&demo, reviews.vips[1]).owner, Owner::Service(name("reviews")));
    let workload = demo.workloads.values().next().unwrap();
    let Owner::Workload(owner) = address(&demo, workload.addresses.first()).owner else {
        panic!("whose?")
    };
    assert_eq!(owner.id, workload.id);
    assert_eq!(address(&demo, "8.8.8.8".parse().unwrap()).owner, Owner::NotKnown);

    let behind = endpoints(&demo, &name("reviews")).unwrap().endpoints;
    let versions: Vec<_> =
        behind.iter().map(|endpoint| endpoint.workload.version.as_str()).collect();
    assert_eq!(versions, ["v1", "v2", "v3"]);
    assert_eq!(behind[0].ports[&80], EndpointPort { number: 80, state: EndpointState::Ready });
    assert_eq!(endpoints(&demo, &name("nobody")), None);

    for host in ["reviews", "Reviews.default", "reviews.default.svc.cluster.local."] {
        assert_eq!(name_answer(&demo, "default", host).service.unwrap().name, name("reviews"));
    }
    assert_eq!(name_answer(&demo, "other", "reviews").service, None);

    let frontend =
        demo.workloads.values().find(|w| w.services.contains(&name("frontend"))).unwrap();
    let own = ServicePortRef { service: name("frontend"), port: 80 };
    assert_eq!(facts::inbound(&demo, frontend).ports[0].services, [own]);
}

#[test]
fn a_workload_is_told_how_many_of_its_like_call_from_where_only_if_a_rule_looks_at_it() {
    let mut mesh = Mesh::demo();
    for (version, at) in [("v1", "eu/a"), ("v2", "eu/b"), ("v3", "eu/b")] {
        let mut workloads = mesh.0.workloads.values_mut();
        let one = workloads.find(|one| one.name == format!("reviews-{version}")).unwrap();
        one.locality = Locality::parse(at).unwrap();
    }
    let told = |policy: &str| {
        let rules = rules(&format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: ratings}}\nspec: {{host: ratings, trafficPolicy: {{loadBalancer: {policy}}}}}\n"
        ));
        let reviews = mesh.0.workloads.values().find(|one| one.name == "reviews-v1").unwrap();
        rules.inbound(&mesh.0, reviews).callers.into_iter().collect::<Vec<_>>()
    };
    let both = [("eu/a/".to_owned(), 1), ("eu/b/".to_owned(), 2)];
    assert_eq!(told("{zoneAwareLbSetting: {}}"), both);
    for other in ["{zoneAwareLbSetting: {enabled: false}}", "{localityLbSetting: {}}"] {
        assert_eq!(told(other), [], "{other}");
    }
}
