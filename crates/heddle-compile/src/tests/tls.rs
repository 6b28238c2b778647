//! TLS in rules: which names lead where, and which TLS a cluster's connections are of.

use heddle_model::{
    DestinationPort,
    discovery::{ClientTls, SniRule},
};

use super::*;

/// Ports declared TLS, HTTP, nothing and TCP.
fn web() -> Mesh {
    let ports = [
        (443, Protocol::Tls),
        (80, Protocol::Http),
        (444, Protocol::Undeclared),
        (445, Protocol::Tcp),
    ];
    Mesh::demo().joins("web", "v1", &ports)
}

/// The rules by name for `web` as `client` is told them.
fn by_name(client: &str, tls: &str) -> Vec<String> {
    let text = virtual_service("r", &format!("{{hosts: [web, '*.example.com'], tls: [{tls}]}}"));
    let told = web().told(&rules(&text), client, "web");
    let show = |port: &DestinationPort, rule: &SniRule| {
        let (names, to) = (rule.names.join(" "), shown(&rule.targets).join(" "));
        let place = rule.provenance.0.rsplit('#').next().unwrap().to_owned();
        format!("{} {place}: {names} -> {to}", port.number)
    };
    let all = told.ports.iter().flat_map(|port| port.sni.iter().map(move |rule| (port, rule)));
    all.map(|(port, rule)| show(port, rule)).collect()
}

#[test]
fn rules_by_name_hold_on_ports_that_may_carry_tls() {
    let rule = "{match: [{sniHosts: [A.example.com]}, {sniHosts: ['*.b.example.com']}], route: [{destination: {host: web, port: {number: 444}}}]}";
    assert_eq!(
        by_name("frontend", rule),
        [
            "443 tls[0]: a.example.com *.b.example.com -> web/*:444=100",
            "444 tls[0]: a.example.com *.b.example.com -> web/*:444=100",
        ]
    );
}

#[test]
fn of_a_rule_by_name_only_what_holds_for_the_client_and_the_port_is_told() {
    let rule = "{match: [{sniHosts: [a.example.com], port: 443}, {sniHosts: [b.example.com], sourceLabels: {app: frontend}}, {sniHosts: [c.example.com], destinationSubnets: [10.0.0.0/8]}, {sniHosts: [d.example.com], sourceNamespace: other}, {sniHosts: [web], destinationSubnets: [240.240.0.0/16]}], route: [{destination: {host: ratings}}]}";
    assert_eq!(
        by_name("frontend", rule),
        [
            "443 tls[0]: a.example.com b.example.com web -> ratings/*:80=100",
            "444 tls[0]: b.example.com web -> ratings/*:80=100",
        ]
    );
    assert_eq!(
        by_name("photos", rule),
        [
            "443 tls[0]: a.example.com web -> ratings/*:80=100",
            "444 tls[0]: web -> ratings/*:80=100",
        ]
    );
    let gateway =
        "{match: [{sniHosts: [web], gateways: [edge]}], route: [{destination: {host: web}}]}";
    assert_eq!(by_name("frontend", gateway), Vec::<String>::new());
}

#[test]
fn a_rule_by_name_that_names_nobody_dangles_and_one_without_a_port_says_so() {
    let rule = "{match: [{sniHosts: [web]}], route: [{destination: {host: nobody}}]}";
    let shown = by_name("frontend", rule);
    assert!(shown[0].contains("-> !there is no service `nobody"), "{shown:?}");
    let text = virtual_service("r", &format!("{{hosts: [web], tls: [{rule}]}}"));
    let said = web().said(&rules(&text));
    assert!(said.iter().any(|one| one.starts_with("Dangling spec.tls[0].route[0]")), "{said:?}");
    let text = virtual_service(
        "r",
        "{hosts: [ratings], tls: [{match: [{sniHosts: [ratings]}], route: [{destination: {host: ratings}}]}]}",
    );
    let said = Mesh::demo().said(&rules(&text));
    assert!(said.iter().any(|one| one.starts_with("NoEffect spec.tls: no port of")), "{said:?}");
}

/// The TLS of each cluster of `reviews` that has some.
fn originated(rules: &str) -> BTreeMap<String, ClientTls> {
    let told = Mesh::demo().told(&super::rules(rules), "loadgen", "reviews").policies;
    let named = told.into_iter().filter_map(|one| {
        let subset = one.cluster.subset.map_or_else(|| "*".to_owned(), |subset| subset.name);
        Some((subset, one.tls?))
    });
    named.collect()
}

const ROUTES: &str = "{hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v1}, weight: 1}, {destination: {host: reviews, subset: v2}, weight: 1}, {destination: {host: reviews, subset: v3}, weight: 1}]}]}";

#[test]
fn tls_of_a_subset_goes_before_the_hosts_and_that_of_a_port_before_both() {
    let rule = "
  host: reviews
  trafficPolicy: {tls: {mode: SIMPLE, caCertificates: system}}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}, trafficPolicy: {tls: {mode: DISABLE}}}
  - name: v3
    labels: {version: v3}
    trafficPolicy:
      portLevelSettings:
      - port: {number: 80}
        tls: {mode: MUTUAL, clientCertificate: /c.pem, privateKey: /k.pem, caCertificates: /ca.pem, sni: V3.example.com., subjectAltNames: [a, 'spiffe://b']}";
    let rules = format!("{}{}", destination_rule("d", rule), virtual_service("v", ROUTES));
    let found = originated(&rules);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["*", "v1", "v3"]);
    let host = "reviews.default.svc.cluster.local";
    let simple = ClientTls { server_name: host.to_owned(), ..ClientTls::default() };
    assert_eq!((&found["*"], &found["v1"]), (&simple, &simple));
    let mutual = ClientTls {
        mutual: true,
        certificate: Some("/c.pem".to_owned()),
        private_key: Some("/k.pem".to_owned()),
        authorities: Some("/ca.pem".to_owned()),
        server_name: "v3.example.com".to_owned(),
        subject_alt_names: vec!["a".to_owned(), "spiffe://b".to_owned()],
        unverified: false,
    };
    assert_eq!(found["v3"], mutual);
}

#[test]
fn what_is_not_in_force_is_said_and_is_no_tls() {
    for (tls, noted, begun) in [
        ("{mode: ISTIO_MUTUAL}", "spec.trafficPolicy.tls.mode", false),
        ("{mode: SIMPLE, credentialName: shop}", "spec.trafficPolicy.tls.credentialName", true),
        ("{mode: SIMPLE, caCrl: /crl.pem}", "spec.trafficPolicy.tls.caCrl", true),
        ("{sni: a.example}", "spec.trafficPolicy.tls.sni", false),
        ("{mode: DISABLE}", "", false),
    ] {
        let text =
            destination_rule("d", &format!("{{host: reviews, trafficPolicy: {{tls: {tls}}}}}"));
        let notes = &resources(&text)[0].not_enforced;
        let fields: Vec<_> = notes.iter().map(|note| note.field.as_str()).collect();
        assert_eq!(fields.concat(), noted, "{tls}");
        assert_eq!(!originated(&text).is_empty(), begun, "{tls}");
    }
}
