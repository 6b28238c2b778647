//! ServiceEntries, WorkloadEntries and Sidecars: what they make, who sees it, and what is said of them.

use std::net::IpAddr;

use heddle_model::{
    Endpoints,
    discovery::{DefaultEndpoint, OutsideAddress, Resolution},
};

use super::*;

/// An entry of `default` unless its metadata say otherwise.
fn entry(metadata: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{{metadata}}}\nspec:\n{spec}\n---\n"
    )
}

fn object(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n"
    )
}

const HTTP: &str = "  ports: [{number: 80, name: http, protocol: HTTP}]\n";

fn api(extra: &str) -> String {
    format!("  hosts: [api.example.com]\n{HTTP}{extra}")
}

/// A mesh with the entries of `rules`, each host at an address of its own.
fn merged(mesh: Mesh, rules: &RuleIndex) -> Mesh {
    let vip = |name: &ServiceName| {
        let last = u8::try_from(name.name.len()).unwrap();
        vec![IpAddr::from([240, 240, 9, last])]
    };
    Mesh(rules.with_entries(&mesh.0, &vip).into_owned())
}

fn host(host: &str, namespace: &str) -> ServiceName {
    ServiceName::of_host(host, namespace).unwrap()
}

fn behind_api(text: &str) -> Endpoints {
    let rules = rules(text);
    let mesh = merged(Mesh::demo(), &rules);
    endpoints(&mesh.0, &host("api.example.com", "default")).unwrap()
}

fn places(of: &Endpoints) -> Vec<String> {
    let place = |at: &OutsideAddress| match at {
        OutsideAddress::Ip(ip) => ip.to_string(),
        OutsideAddress::Host(host) => host.clone(),
    };
    of.outside.iter().map(|one| place(&one.at)).collect()
}

#[test]
fn a_host_is_a_service_with_an_address_that_its_namespace_resolves() {
    let rules = rules(&entry("name: api", &api("  resolution: DNS")));
    let mesh = merged(Mesh::demo(), &rules);
    let answer = name_answer(&mesh.0, "default", "API.example.com.").service.unwrap();
    assert_eq!(answer.name, host("api.example.com", "default"));
    assert_eq!(answer.vips, [IpAddr::from([240, 240, 9, 15])]);
    assert_eq!(name_answer(&mesh.0, "shop", "api.example.com").service, None, "seen at home only");
    assert_eq!(name_answer(&mesh.0, "default", "other.example.com").service, None);
    let client = mesh.client("frontend");
    let told = rules.destination(&mesh.0, client, &answer.name).unwrap();
    assert_eq!((told.vips, told.ports.len()), (answer.vips, 1));
    let stranger = Client::any_of("shop");
    assert_eq!(rules.destination(&mesh.0, stranger, &answer.name), None);
    assert!(rules.outbound(&mesh.0, client).names_outside);
    assert!(!rules.outbound(&mesh.0, stranger).names_outside);
}

#[test]
fn without_entries_nothing_is_copied() {
    let rules = rules(&object("Sidecar", "s", "{egress: [{hosts: [\"./*\"]}]}"));
    let mesh = Mesh::demo();
    let merged = rules.with_entries(&mesh.0, &|_| Vec::new());
    assert!(matches!(merged, std::borrow::Cow::Borrowed(_)));
}

#[test]
fn endpoints_have_the_ports_that_are_theirs() {
    let ports = "  hosts: [api.example.com]\n  ports:\n  - {number: 80, name: http, protocol: HTTP, targetPort: 8080}\n  - {number: 443, name: tls, protocol: TLS}\n";
    let of = behind_api(&entry(
        "name: api",
        &format!(
            "{ports}  resolution: STATIC\n  endpoints:\n  - {{address: 192.0.2.1, ports: {{http: 8081}}, weight: 3, labels: {{version: v1}}}}\n  - {{address: 192.0.2.2}}\n  - {{address: \"unix:///run/a.sock\"}}"
        ),
    ));
    assert_eq!(
        (of.resolution, places(&of)),
        (Resolution::Static, vec!["192.0.2.1".into(), "192.0.2.2".into()])
    );
    assert_eq!(of.outside[0].ports, BTreeMap::from([(80, 8081), (443, 443)]));
    assert_eq!(of.outside[1].ports, BTreeMap::from([(80, 8080), (443, 443)]));
    assert_eq!((of.outside[0].weight, of.outside[1].weight), (3, 1));
    assert_eq!(of.outside[0].workload.version, "v1");
    assert_eq!(of.outside[0].workload.ports[&8081], Protocol::Http);
    assert_ne!(of.outside[0].workload.id, of.outside[1].workload.id);
    assert!(!of.outside[0].described);
}

#[test]
fn a_name_stands_for_itself_where_no_endpoint_is_given() {
    let of = behind_api(&entry("name: api", &api("  resolution: DNS")));
    assert_eq!((of.resolution, places(&of)), (Resolution::Dns, vec!["api.example.com".into()]));
    let of = behind_api(&entry("name: api", &api("")));
    assert_eq!((of.resolution, of.outside.len()), (Resolution::None, 0));
}

#[test]
fn a_selector_finds_entries_and_workloads_of_its_namespace() {
    let text = entry(
        "name: api",
        &api("  resolution: STATIC\n  workloadSelector: {labels: {app: reviews}}"),
    ) + &object(
        "WorkloadEntry",
        "vm",
        "{address: 192.0.2.9, labels: {app: reviews}, serviceAccount: sa}",
    ) + &object("WorkloadEntry", "other", "{address: 192.0.2.8, labels: {app: other}}");
    let of = behind_api(&text);
    assert_eq!((of.endpoints.len(), places(&of)), (3, vec!["192.0.2.9".into()]));
    let vm = &of.outside[0];
    assert!(vm.described);
    assert_eq!((vm.workload.name.as_str(), vm.workload.id.0.as_str()), ("vm", "default/vm"));
    assert_eq!(vm.workload.identity.to_string(), "spiffe://cluster.local/ns/default/sa/sa");
    let rules = rules(&text);
    let said = Mesh::demo().said(&rules);
    assert!(
        said.len() == 1 && said[0].starts_with("NoEffect spec.labels: no ServiceEntry"),
        "{said:?}"
    );
}

#[test]
fn an_endpoint_in_the_mesh_is_reached_there() {
    let of = |address: &str| {
        let resolution = if address.ends_with("local") { "DNS" } else { "STATIC" };
        behind_api(&entry(
            "name: api",
            &api(&format!("  resolution: {resolution}\n  endpoints: [{{address: {address}}}]")),
        ))
    };
    for (address, members) in
        [("240.241.0.12", 1), ("240.240.0.12", 3), ("reviews.default.svc.cluster.local", 3)]
    {
        let of = of(address);
        assert_eq!((of.endpoints.len(), of.outside.len()), (members, 0), "{address}");
        assert_eq!(of.endpoints[0].ports[&80].number, 80);
    }
    assert_eq!(of("192.0.2.1").outside.len(), 1);
}

#[test]
fn rules_for_a_host_hold_as_for_a_service() {
    let text = entry(
        "name: api",
        &api("  resolution: STATIC\n  endpoints: [{address: 192.0.2.1, labels: {version: v1}}]"),
    ) + &object(
        "VirtualService",
        "api",
        "{hosts: [api.example.com], http: [{fault: {abort: {httpStatus: 503, percentage: {value: 10}}}, route: [{destination: {host: api.example.com, subset: v1}}]}]}",
    ) + &object(
        "DestinationRule",
        "api",
        "{host: api.example.com, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 2}}, subsets: [{name: v1, labels: {version: v1}}]}",
    ) + &object(
        "VirtualService",
        "reviews",
        "{hosts: [reviews], http: [{route: [{destination: {host: api.example.com}}]}]}",
    );
    let rules = rules(&text);
    let mesh = merged(Mesh::demo(), &rules);
    let api = host("api.example.com", "default");
    let told = rules.destination(&mesh.0, mesh.client("frontend"), &api).unwrap();
    assert!(told.ports[0].http[0].fault.is_some());
    let Target::Cluster(key) = &told.ports[0].http[0].targets()[0].to else { panic!() };
    assert_eq!((&key.service, key.subset.as_ref().unwrap().name.as_str()), (&api, "v1"));
    assert_eq!(told.policies.len(), 2);
    let reviews = mesh.told(&rules, "frontend", "reviews");
    assert!(reviews.backends().contains(&api));
    assert_eq!(mesh.said(&rules), Vec::<String>::new());
    let without = RuleIndex::new(&resources(&text)[1..]);
    assert_eq!(rules.dangles_after(&without, &mesh.0).len(), 2, "the entry may not go alone");
    let said = Mesh::demo().said(&without);
    assert!(
        said.iter().any(|line| line.contains("takes force when a ServiceEntry names it")),
        "{said:?}"
    );
}

#[test]
fn a_host_of_two_labels_is_one_all_the_same() {
    let text = entry(
        "name: e",
        "  hosts: [example.com]\n  resolution: DNS\n  ports: [{number: 80, name: http}]",
    ) + &object(
        "VirtualService",
        "e",
        "{hosts: [example.com], http: [{route: [{destination: {host: example.com}}]}]}",
    );
    let rules = rules(&text);
    let mesh = merged(Mesh::demo(), &rules);
    assert_eq!(mesh.said(&rules), Vec::<String>::new());
    let service = name_answer(&mesh.0, "default", "example.com").service.unwrap().name;
    let told = rules.destination(&mesh.0, mesh.client("frontend"), &service).unwrap();
    assert_eq!((service, told.ports[0].http.len()), (host("example.com", "default"), 1));
}

#[test]
fn the_closest_host_that_a_client_sees_is_meant() {
    let all = |name: &str, namespace: &str, hosts: &str, to: &str| {
        entry(
            &format!("name: {name}, namespace: {namespace}"),
            &format!(
                "  hosts: [{hosts}]\n{HTTP}  resolution: STATIC\n  endpoints: [{{address: 192.0.2.1}}]\n  exportTo: [\"{to}\"]"
            ),
        )
    };
    let text = all("wide", "infra", "\"*.example.com\"", "*")
        + &all("wider", "infra", "\"*.com\"", "*")
        + &all("one", "infra", "api.example.com", "*")
        + &all("named", "infra2", "api.example.com", "shop")
        + &all("own", "pay", "api.example.com", ".")
        + &all("nobody", "dark", "api.example.com", "~");
    let rules = rules(&text);
    let mesh = merged(Mesh::demo(), &rules);
    for (namespace, asked, expected) in [
        ("default", "api.example.com", Some(host("api.example.com", "infra"))),
        ("shop", "api.example.com", Some(host("api.example.com", "infra2"))),
        ("pay", "api.example.com", Some(host("api.example.com", "pay"))),
        ("dark", "api.example.com", Some(host("api.example.com", "infra"))),
        ("default", "www.example.com", Some(host("*.example.com", "infra"))),
        ("default", "example.com", Some(host("*.com", "infra"))),
        ("default", "example.org", None),
    ] {
        let found = named(&mesh.0, namespace, asked).map(|service| service.name.clone());
        assert_eq!(found, expected, "{asked} from {namespace}");
    }
}

#[test]
fn of_two_entries_for_one_host_the_first_wins_and_the_other_is_told() {
    let text = entry("name: first", &api("  resolution: DNS"))
        + &entry("name: second", &api("  resolution: STATIC\n  endpoints: [{address: 192.0.2.1}]"))
        + &entry("name: mesh", &format!("  hosts: [reviews.default.svc.cluster.local]\n{HTTP}"));
    let rules = rules(&text);
    let mesh = merged(Mesh::demo(), &rules);
    assert_eq!(mesh.0.outside[&host("api.example.com", "default")].key.name, "first");
    let said = mesh.said(&rules);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said.iter().any(|line| {
        line.starts_with("Conflict spec.hosts[0]: ServiceEntry/default/first also names")
    }));
    assert!(said.iter().any(|line| line.contains("the service `reviews.default.svc.cluster.local` also names")));
    assert_eq!(endpoints(&mesh.0, &name("reviews")).unwrap().endpoints.len(), 3);
}

#[test]
fn an_address_is_the_entrys_where_its_client_sees_it() {
    let text = entry(
        "name: a",
        "  hosts: [a.example.com]\n  addresses: [192.0.2.7, 198.51.100.0/24]\n  ports: [{number: 80, name: http}]",
    ) + &entry(
        "name: b, namespace: infra",
        "  hosts: [b.example.com]\n  addresses: [198.51.100.0/28]\n  ports: [{number: 80, name: http}]\n  exportTo: [\"*\"]",
    );
    let rules = rules(&text);
    let mesh = merged(Mesh::demo(), &rules);
    assert!(addresses_differ(&mesh.0));
    for (namespace, ip, expected) in [
        ("default", "192.0.2.7", Some("a.example.com")),
        ("shop", "192.0.2.7", None),
        ("default", "198.51.100.1", Some("b.example.com")),
        ("default", "198.51.100.200", Some("a.example.com")),
        ("shop", "198.51.100.200", None),
    ] {
        let found = outside_at(&mesh.0, namespace, ip.parse().unwrap());
        assert_eq!(found.map(|name| name.name.as_str()), expected, "{ip} from {namespace}");
    }
    let vips = |name: &str| mesh.0.services[&host(name, "default")].vips.clone();
    assert_eq!(vips("a.example.com"), ["192.0.2.7".parse::<IpAddr>().unwrap()]);
}

#[test]
fn a_sidecar_says_who_is_seen_and_what_becomes_of_the_others() {
    let sidecar = |name: &str, spec: &str| object("Sidecar", name, spec);
    let rule = object(
        "VirtualService",
        "ratings",
        "{hosts: [ratings], http: [{route: [{destination: {host: ratings}}]}]}",
    );
    let text = rule
        + &sidecar("all", "{egress: [{hosts: [\"./reviews.default.svc.cluster.local\"]}]}")
        + &sidecar(
            "frontend",
            "{workloadSelector: {labels: {app: frontend}}, egress: [{hosts: [\"*/*\", \"~./ratings.default.svc.cluster.local\"]}], outboundTrafficPolicy: {mode: REGISTRY_ONLY}}",
        );
    let rules = rules(&text);
    let mesh = Mesh::demo();
    let ratings = mesh.told(&rules, "loadgen", "ratings");
    assert_eq!((ratings.refused, ratings.ports[0].http.len()), (None, 0), "called by no rule");
    let by = Provenance("Sidecar/default/frontend".into());
    assert_eq!(mesh.told(&rules, "frontend", "ratings").refused, Some(by.clone()));
    assert_eq!(mesh.told(&rules, "frontend", "reviews").refused, None);
    assert_eq!(rules.outbound(&mesh.0, mesh.client("frontend")).registry_only, Some(by));
    assert_eq!(rules.outbound(&mesh.0, mesh.client("loadgen")).registry_only, None);
    assert_ne!(rules.view(mesh.client("frontend")), rules.view(mesh.client("loadgen")));
}

#[test]
fn a_sidecar_says_where_programs_take_calls_of_a_port() {
    let listener = |port: &str, rest: &str| format!("{{port: {{{port}}}, {rest}}}");
    let ingress = [
        listener("number: 80, protocol: HTTP2, name: a", "defaultEndpoint: '127.0.0.1:9000'"),
        listener("number: 1111, name: tcp-b", "defaultEndpoint: 'unix:///run/app.sock'"),
        listener(
            "number: 1112, protocol: HTTP",
            "defaultEndpoint: '0.0.0.0:9001', captureMode: NONE",
        ),
        listener("number: 1113, protocol: TCP, name: c", "bind: 0.0.0.0"),
    ]
    .join(", ");
    let rules = rules(&object("Sidecar", "s", &format!("{{ingress: [{ingress}]}}")));
    let mesh = Mesh::demo();
    let workload = mesh.0.workloads.values().find(|one| one.ports.contains_key(&80)).unwrap();
    let told = rules.inbound(&mesh.0, workload);
    let of = |number: u16| {
        let port = told.ports.iter().find(|port| port.number == number).unwrap();
        (port.protocol, port.endpoint.clone(), port.services.is_empty())
    };
    assert_eq!(of(80), (Protocol::Http2, Some(DefaultEndpoint::Loopback(9000)), false));
    let socket = DefaultEndpoint::Socket("/run/app.sock".to_owned());
    assert_eq!(of(1111), (Protocol::Tcp, Some(socket), true));
    assert_eq!(of(1112), (Protocol::Http, Some(DefaultEndpoint::Own(9001)), true));
    assert_eq!(of(1113), (Protocol::Tcp, None, true));
}

#[test]
fn of_two_sidecars_for_all_the_first_wins_and_the_other_is_told() {
    let spec = "{egress: [{hosts: [\"./*\"]}]}";
    let rules = rules(&(object("Sidecar", "a", spec) + &object("Sidecar", "b", spec)));
    let said = Mesh::demo().said(&rules);
    assert!(said.len() == 1 && said[0].contains("Sidecar/default/a is for the same"), "{said:?}");
}

#[test]
fn a_servers_certificate_holds_a_name_of_its_entry_where_the_rule_names_none() {
    let names = |tls: &str| {
        let entry = entry(
            "name: api",
            &api("  resolution: DNS\n  subjectAltNames: [a.example, 'spiffe://b/c']"),
        );
        let rule = destination_rule(
            "d",
            &format!("{{host: api.example.com, trafficPolicy: {{tls: {tls}}}}}"),
        );
        let text = format!("{entry}{rule}");
        assert!(resources(&text).iter().all(|one| one.not_enforced.is_empty()), "{text}");
        let rules = rules(&text);
        let mesh = merged(Mesh::demo(), &rules);
        let service = host("api.example.com", "default");
        let told = rules.destination(&mesh.0, mesh.client("frontend"), &service).unwrap();
        told.policies[0].tls.clone().unwrap().subject_alt_names
    };
    assert_eq!(names("{mode: SIMPLE}"), ["a.example", "spiffe://b/c"]);
    assert_eq!(names("{mode: SIMPLE, subjectAltNames: [own.example]}"), ["own.example"]);
}

#[test]
fn what_is_looked_up_for_each_call_has_ports_and_no_endpoint() {
    let spec = "  hosts: [\"*.example.com\"]\n  ports: [{number: 80, name: http, targetPort: 8080}, {number: 443, name: tls}]\n  resolution: DYNAMIC_DNS";
    let rules = rules(&entry("name: e", spec));
    let mesh = merged(Mesh::demo(), &rules);
    let name = host("*.example.com", "default");
    let told = endpoints(&mesh.0, &name).unwrap();
    assert_eq!((told.resolution, told.outside.len()), (Resolution::None, 0));
    assert_eq!(told.by_name, BTreeMap::from([(80, 8080), (443, 443)]));
    assert!(mesh.0.services[&name].vips.is_empty(), "the client's resolver is asked as ever");
    assert_eq!(mesh.said(&rules), Vec::<String>::new());
}

#[test]
fn a_sidecar_may_list_services_for_one_port_alone() {
    let ports = [(80, Protocol::Http), (90, Protocol::Http), (91, Protocol::Http)];
    let mesh = Mesh::demo().joins("shop", "v1", &ports);
    let text = |mode: &str| {
        let on = |port: u16, name: &str, service: &str| {
            format!(
                "{{port: {{number: {port}, protocol: HTTP, name: {name}}}, hosts: [\"./{service}.default.svc.cluster.local\"]}}"
            )
        };
        let all = "{hosts: [\"./shop.default.svc.cluster.local\"]}";
        let egress = format!("{}, {}, {all}", on(90, "a", "reviews"), on(91, "b", "shop"));
        object("Sidecar", "s", &format!("{{egress: [{egress}]{mode}}}"))
            + &virtual_service(
                "r",
                "{hosts: [shop], http: [{route: [{destination: {host: shop, port: {number: 80}}}]}]}",
            )
    };
    let told = |mode: &str, service: &str| {
        let rules = rules(&text(mode));
        let told = mesh.told(&rules, "frontend", service);
        let ruled = told.ports.iter().map(|port| (port.number, !port.http.is_empty()));
        (ruled.collect::<Vec<_>>(), told.refused)
    };
    assert_eq!(told("", "shop"), (vec![(80, true), (90, false), (91, true)], None));
    let strict = ", outboundTrafficPolicy: {mode: REGISTRY_ONLY}";
    assert_eq!(told(strict, "shop"), (vec![(80, true), (91, true)], None), "as if it had no 90");
    let by = Some(Provenance("Sidecar/default/s".into()));
    assert_eq!(told(strict, "reviews"), (vec![(80, false)], by), "of its ports none is listed");
}

#[test]
fn tls_to_a_wildcard_needs_a_name_to_ask_for() {
    let spec = "  hosts: [\"*.example.com\"]\n  ports: [{number: 80, name: http, targetPort: 443}]\n  resolution: DYNAMIC_DNS";
    let said = |tls: &str| {
        let text = entry("name: e", spec)
            + &object(
                "DestinationRule",
                "d",
                &format!("{{host: \"*.example.com\", trafficPolicy: {{tls: {tls}}}}}"),
            );
        let rules = rules(&text);
        merged(Mesh::demo(), &rules).said(&rules)
    };
    assert_eq!(
        said("{mode: SIMPLE}"),
        [
            "Notice spec.trafficPolicy.tls.sni: no server is called `*.example.com`: over TLS its calls are refused until `sni` says whom to ask for"
        ]
    );
    assert_eq!(said("{mode: SIMPLE, sni: a.example.com}"), Vec::<String>::new());
}
