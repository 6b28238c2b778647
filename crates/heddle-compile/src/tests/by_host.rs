//! VirtualServices for hosts that no service has: what a name means then, and what is told of it.

use super::*;
use heddle_model::{DestinationPort, discovery::ANY_PORT};

const RULE: &str = "{hosts: [www.example.org, '*.example.net', example.org], http: [{match: [{port: 8080}], route: [{destination: {host: photos}}]}, {route: [{destination: {host: shop}}]}], tls: [{match: [{sniHosts: [www.example.org]}], route: [{destination: {host: shop, port: {number: 90}}}]}]}";

fn mesh() -> Mesh {
    let ports = [(80, Protocol::Http), (90, Protocol::Tcp)];
    Mesh::demo().joins("shop", "v1", &ports).joins("batch.other", "v1", &[])
}

/// The service that a host means to clients of a namespace.
fn meant(mesh: &Mesh, rules: &RuleIndex, namespace: &str, host: &str) -> Option<String> {
    let answer = rules.name_answer(&mesh.0, namespace, host).service?;
    assert!(answer.vips.is_empty(), "it has no address");
    Some(answer.name.unique())
}

fn sent(port: &DestinationPort) -> Vec<Vec<String>> {
    port.http.iter().map(|rule| shown(rule.targets())).collect()
}

#[test]
fn a_host_of_rules_is_meant_by_who_sees_them_and_the_closest_is() {
    let text = virtual_service("r", RULE)
        + &virtual_service(
            "own",
            "{hosts: ['*.b.example.net'], exportTo: ['.'], http: [{route: [{destination: {host: shop}}]}]}",
        );
    let (mesh, rules) = (mesh(), rules(&text));
    for (host, service) in [
        ("WWW.example.org.", Some("default/www.example.org")),
        ("a.example.net", Some("default/*.example.net")),
        ("a.b.example.net", Some("default/*.b.example.net")),
        ("example.org", Some("default/example.org")),
        ("other.example.org", None),
        ("example.net", None),
        ("10.0.0.1", None),
        ("a.default.svc.cluster.local", None),
    ] {
        assert_eq!(meant(&mesh, &rules, "default", host).as_deref(), service, "{host}");
    }
    let elsewhere = meant(&mesh, &rules, "other", "a.b.example.net");
    assert_eq!(elsewhere.as_deref(), Some("default/*.example.net"), "it does not see the closest");
    assert!(rules.outbound(&mesh.0, mesh.client("frontend")).names_outside);
    let plain = super::rules(&virtual_service(
        "r",
        "{hosts: [reviews], http: [{route: [{destination: {host: shop}}]}]}",
    ));
    assert!(!plain.outbound(&mesh.0, mesh.client("frontend")).names_outside);
}

#[test]
fn its_rules_hold_on_every_port_and_on_some_say_more() {
    let (mesh, rules) = (mesh(), rules(&virtual_service("r", RULE)));
    let host = ServiceName::of_host("www.example.org", "default").unwrap();
    let told = rules.destination(&mesh.0, mesh.client("frontend"), &host).unwrap();
    let numbers: Vec<u16> = told.ports.iter().map(|port| port.number).collect();
    assert_eq!(numbers, [80, 90, 8080], "of conditions, and of services that are led to");
    assert_eq!(sent(&told.ports[0]), [["shop/*:80=100"]], "called on the same port");
    assert_eq!(sent(&told.ports[2]), [["photos/*:80=100"]], "that rule meets all on this port");
    let others = told.others.as_ref().unwrap();
    assert_eq!((others.number, others.http.len()), (ANY_PORT, 1));
    let several = "!no port is given, and `shop.default.svc.cluster.local` has several: say which of 80, 90=100";
    assert_eq!(sent(others), [[several]]);
    assert_eq!(shown(&others.sni[0].targets), ["shop/*:90=100"]);
    assert!(!told.backends().contains(&host), "it has no endpoints to wait for");
    let said = mesh.said(&rules);
    let notice = |i: usize, host: &str| {
        format!(
            "Notice spec.hosts[{i}]: `{host}` is no service of this mesh: the rule holds for requests, and connections of TLS, that name it at an address that the mesh does not know, and for no service's own address"
        )
    };
    assert!(said.contains(&notice(0, "www.example.org")), "{said:#?}");
    assert!(said.contains(&notice(1, "*.example.net")), "{said:#?}");
    let both = "Dangling spec.hosts[2]: there is no service `example.org.svc.cluster.local`: the rule takes force when one joins; until then it holds for requests that name `example.org` at an address that the mesh does not know";
    assert!(said.contains(&both.to_owned()), "{said:#?}");
}

#[test]
fn a_service_that_has_the_name_has_the_rules() {
    let entry = "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e}\nspec: {hosts: [www.example.org], ports: [{number: 80, name: http}], resolution: DNS}\n";
    let rules = rules(&(virtual_service("r", RULE) + entry));
    let mesh = Mesh(rules.with_entries(&mesh().0, &|_| vec![[240, 240, 9, 9].into()]).into_owned());
    let answer = rules.name_answer(&mesh.0, "default", "www.example.org").service.unwrap();
    assert_eq!(answer.vips.len(), 1);
    let told = rules.destination(&mesh.0, mesh.client("frontend"), &answer.name).unwrap();
    assert_eq!(told.others, None);
    assert_eq!(told.ports.len(), 1);
}
