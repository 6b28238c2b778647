//! What the analyzers say, and which edits would break a live reference.

use super::*;

const CANARY: &str = "{hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v1}, weight: 99}, {destination: {host: reviews, subset: v3}, weight: 1}]}]}";

#[test]
fn dangling_references_are_told_with_their_place() {
    let text = virtual_service("r", CANARY);
    let (demo, index) = (Mesh::demo(), rules(&text));
    let findings = index.findings(&demo.0);
    assert_eq!(findings.len(), 2);
    assert_eq!((findings[0].file.as_str(), findings[0].line), ("f.yaml", 5));
    assert_eq!(findings[0].field, "spec.http[0].route[0].destination");
    assert_eq!(
        findings[0].text,
        "no DestinationRule defines the subset `v1` of `reviews.default.svc.cluster.local`: this share is refused with 503 until it is there"
    );
    assert_eq!(ResourceState::of(&index.resources()[0], &findings), ResourceState::Dangling);
    let complete = rules(&(text + &destination_rule("r", VERSIONS)));
    assert_eq!(demo.said(&complete), Vec::<String>::new(), "in any order");
}

#[test]
fn a_reference_that_dangles_for_some_clients_says_for_whom() {
    let mesh = Mesh::demo().joins("batch.other", "v1", &[]);
    let own = destination_rule("r", VERSIONS).replace("{host:", "{exportTo: ['.'], host:");
    let said = mesh.said(&rules(&(virtual_service("r", CANARY) + &own)));
    assert!(said[0].ends_with("until it is there (for clients in other)"), "{said:#?}");
}

#[test]
fn absent_hosts_are_told_and_take_force_when_they_join() {
    let text = virtual_service(
        "r",
        "{hosts: [nobody, '*.none', www.example.com], http: [{route: [{destination: {host: photos}}]}]}",
    ) + &destination_rule("d", "{host: nobody}");
    let index = rules(&text);
    let said = Mesh::demo().said(&index);
    assert_eq!(
        said,
        [
            "Dangling spec.host: there is no service `nobody.default.svc.cluster.local`: the rule takes force when one joins",
            "Dangling spec.hosts[0]: there is no service `nobody.default.svc.cluster.local`: the rule takes force when one joins",
            "Notice spec.hosts[1]: `*.none` is no service of this mesh: the rule holds for requests, and connections of TLS, that name it at an address that the mesh does not know, and for no service's own address",
            "Notice spec.hosts[2]: `www.example.com` is no service of this mesh: the rule holds for requests, and connections of TLS, that name it at an address that the mesh does not know, and for no service's own address",
        ]
    );
    let joined = Mesh::demo().joins("nobody", "v1", &[(80, Protocol::Http)]);
    assert_eq!(joined.said(&index).len(), 2, "the same rules, index once");
}

#[test]
fn rules_without_effect_are_told() {
    let mesh = Mesh::demo().joins("cache", "v1", &[(6379, Protocol::Tcp)]).joins(
        "api",
        "v1",
        &[(50051, Protocol::Grpc)],
    );
    let http = |host: &str, rule: &str| {
        virtual_service(
            "r",
            &format!(
                "{{hosts: [{host}], http: [{{{rule}, route: [{{destination: {{host: {host}}}}}]}}]}}"
            ),
        )
    };
    let said = |text: String| mesh.said(&rules(&text)).concat();
    assert_eq!(
        said(http("cache", "name: a")),
        "NoEffect spec.http[0]: port 6379 of `cache.default.svc.cluster.local` is declared tcp: an HTTP rule has no effect there; declare it http, or write a `tcp` rule"
    );
    assert_eq!(said(http("api", "name: a")), "", "of HTTP/2 each request is looked at");
    assert!(
        said(http("reviews", "match: [{port: 81}]"))
            .contains("none of the ports this rule asks for")
    );
    assert!(
        said(http("reviews", "fault: {delay: {fixedDelay: 1s}}"))
            .starts_with("Notice spec.http[0].fault.delay: 0 %")
    );
    let twice = virtual_service(
        "r",
        "{hosts: [reviews], http: [{route: [{destination: {host: reviews}}]}, {route: [{destination: {host: photos}}]}]}",
    );
    assert_eq!(
        said(twice),
        "NoEffect spec.http[1]: never reached: spec.http[0] matches every request"
    );
    let tcp = virtual_service(
        "r",
        "{hosts: [reviews], tcp: [{route: [{destination: {host: reviews}}]}]}",
    );
    assert!(said(tcp).starts_with("NoEffect spec.tcp: no port of"));
    let nobody =
        destination_rule("r", "{host: reviews, subsets: [{name: v9, labels: {version: v9}}]}");
    assert!(said(nobody).starts_with("Notice spec.subsets[0]: no workload of"));
}

#[test]
fn references_are_what_a_resource_names() {
    let canary = resources(&virtual_service("r", CANARY));
    let fields: Vec<_> = references(&canary[0]).into_iter().map(|one| one.field).collect();
    assert_eq!(fields, ["spec.http[0].route[0].destination", "spec.http[0].route[1].destination"]);
    assert_eq!(references(&resources(&destination_rule("r", VERSIONS))[0]), []);
}

#[test]
fn an_edit_that_leaves_a_live_reference_dangling_is_found() {
    let (demo, canary, versions) =
        (Mesh::demo().0, virtual_service("r", CANARY), destination_rule("r", VERSIONS));
    let now = rules(&(canary.clone() + &versions));
    let breaks = |after: &str| now.dangles_after(&rules(after), &demo).len();
    assert_eq!(breaks(&canary), 2, "the DestinationRule is deleted");
    let fewer = versions.replace("name: v3", "name: v4");
    let found = now.dangles_after(&rules(&(canary.clone() + &fewer)), &demo);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].key.kind, "VirtualService");
    assert!(
        found[0].text.starts_with("no DestinationRule defines the subset `v3`"),
        "{}",
        found[0].text
    );

    assert_eq!(breaks(""), 0, "both go together");
    assert_eq!(breaks(&versions), 0);
    let moved = canary.replace("subset: v3", "subset: v9");
    assert_eq!(breaks(&(moved + &versions)), 0, "a new reference may dangle");
    let retargeted = canary.replace(", subset: v3", "").replace(", subset: v1", "");
    assert_eq!(breaks(&retargeted), 0, "the reference goes with the subsets");
    let was_dangling = rules(&canary);
    assert_eq!(was_dangling.dangles_after(&rules(&canary), &demo), []);
}

#[test]
fn a_reference_of_a_rule_without_force_is_not_live() {
    let demo = Mesh::demo().0;
    let first = virtual_service(
        "first",
        "{hosts: [reviews], http: [{route: [{destination: {host: reviews}}]}]}",
    );
    let canary = virtual_service("second", CANARY);
    let now = rules(&(first.clone() + &canary + &destination_rule("r", VERSIONS)));
    assert_eq!(now.dangles_after(&rules(&(first + &canary)), &demo), []);
}
