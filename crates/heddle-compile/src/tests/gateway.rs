//! Routes of the Gateway API: to whom they apply, in which order, and what is said of them.

use super::*;
use heddle_model::discovery::{Answer, HttpRule, PathRewrite, RedirectPath, SniRule, StringMatch};

/// A route of `kind` on the Services that `parents` names; `named` is `name` or `name.namespace`.
pub(super) fn route(kind: &str, named: &str, parents: &str, rules: &str) -> String {
    let (name, namespace) = named.split_once('.').unwrap_or((named, "default"));
    let parents: Vec<_> =
        parents.split('|').map(|one| format!("{{kind: Service, group: '', {one}}}")).collect();
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{parentRefs: [{}], rules: {rules}}}\n",
        parents.join(", ")
    )
}

/// A rule without a condition that goes to `service`.
fn to(service: &str) -> String {
    format!("[{{backendRefs: [{{name: {service}, namespace: default, port: 80}}]}}]")
}

fn http(mesh: &Mesh, rules: &RuleIndex, client: &str, service: &str) -> Vec<HttpRule> {
    mesh.told(rules, client, service).ports[0].http.clone()
}

/// Where the first rule sends requests.
fn sent(mesh: &Mesh, rules: &RuleIndex, client: &str) -> Vec<String> {
    http(mesh, rules, client, "reviews").first().map_or_else(Vec::new, |rule| shown(rule.targets()))
}

fn conditions(mesh: &Mesh, rules: &RuleIndex, route: &str) -> Vec<String> {
    let key = |kind: &str| ResourceKey {
        kind: kind.into(),
        namespace: "default".into(),
        name: route.into(),
    };
    let kinds = ["HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute"];
    let all = kinds.iter().flat_map(|kind| rules.route_status(&mesh.0, &key(kind)));
    let show = |one: &Condition| format!("{}={}/{}", one.kind, one.holds, one.reason);
    all.flat_map(|parent| parent.conditions.iter().map(show).collect::<Vec<_>>()).collect()
}

#[test]
fn a_route_sends_calls_of_its_service_and_names_itself() {
    let text = route("HTTPRoute", "r", "name: reviews", &to("ratings"));
    let (demo, index) = (Mesh::demo(), rules(&text));
    let told = http(&demo, &index, "frontend", "reviews");
    assert_eq!(told[0].provenance, Provenance("HTTPRoute/default/r#rules[0]".into()));
    assert_eq!(shown(told[0].targets()), ["ratings/*:80=1"]);
    assert!(told[0].matches.is_empty());
    assert_eq!(told[0].traffic.absent_status, Some(500));
    assert_eq!(
        conditions(&demo, &index, "r"),
        ["Accepted=true/Accepted", "ResolvedRefs=true/ResolvedRefs"]
    );
    assert_eq!(demo.said(&index), Vec::<String>::new());
}

#[test]
fn routes_of_the_clients_namespace_replace_those_of_the_services() {
    let mesh = Mesh::demo().joins("batch.other", "v1", &[]).joins("third.third", "v1", &[]);
    let two = "[{matches: [{path: {value: /a}}], backendRefs: [{name: photos, namespace: default, port: 80}]}]";
    let text = route("HTTPRoute", "p", "name: reviews", &to("ratings"))
        + &route("HTTPRoute", "c.other", "name: reviews,namespace: default", two);
    let index = rules(&text);
    assert_eq!(sent(&mesh, &index, "frontend"), ["ratings/*:80=1"]);
    assert_eq!(sent(&mesh, &index, "third.third"), ["ratings/*:80=1"]);
    let consumer = http(&mesh, &index, "batch.other", "reviews");
    assert_eq!(consumer.len(), 1, "the producer's rule is not merged in");
    assert_eq!(shown(consumer[0].targets()), ["photos/*:80=1"]);
}

#[test]
fn of_the_kinds_on_one_port_the_most_specific_applies_and_the_others_are_told() {
    let text = route("TCPRoute", "t", "name: reviews", &to("store").replace("80", "6379"))
        + &route("HTTPRoute", "h", "name: reviews", &to("ratings"))
        + &route("GRPCRoute", "g", "name: reviews", &to("photos"));
    let (demo, index) = (Mesh::demo(), rules(&text));
    assert_eq!(sent(&demo, &index, "frontend"), ["photos/*:80=1"]);
    assert_eq!(conditions(&demo, &index, "g")[0], "Accepted=true/Accepted");
    assert_eq!(conditions(&demo, &index, "h")[0], "Accepted=false/Conflicted");
    assert_eq!(conditions(&demo, &index, "t")[0], "Accepted=false/Conflicted");
    let findings = index.findings(&demo.0);
    assert_eq!(findings.len(), 2);
    assert!(findings[0].text.starts_with("GRPCRoute/default/g is attached to port 80"));
    let states = index.resources().iter().map(|one| {
        let own = findings.iter().filter(|finding| finding.key == one.key);
        ResourceState::of(one, own)
    });
    let states: Vec<_> = states.collect();
    use ResourceState::{Conflicted, Programmed};
    assert_eq!(states, [Conflicted, Conflicted, Programmed]);
}

#[test]
fn a_parents_port_or_name_restricts_a_route_to_that_port() {
    let mesh = Mesh::demo().joins(
        "shop",
        "v1",
        &[(80, Protocol::Http), (81, Protocol::Http), (90, Protocol::Tcp)],
    );
    let told = |parents: &str| {
        let index = rules(&route("HTTPRoute", "r", parents, &to("ratings")));
        let told = mesh.told(&index, "frontend", "shop");
        let ports = told.ports.iter().filter(|port| !port.http.is_empty());
        let ports: Vec<u16> = ports.map(|port| port.number).collect();
        (ports, conditions(&mesh, &index, "r"))
    };
    assert_eq!(told("name: shop").0, [80, 81]);
    assert_eq!(told("name: shop,port: 81").0, [81]);
    assert_eq!(told("name: shop,port: 80|name: shop,port: 81").0, [80, 81]);
    let (ports, said) = told("name: shop,port: 7");
    assert_eq!((ports.len(), &*said[0]), (0, "Accepted=false/NoMatchingParent"));
    assert_eq!(told("name: shop,sectionName: web").1[0], "Accepted=false/NoMatchingParent");
    assert_eq!(told("name: shop,port: 90").1[0], "Accepted=false/NotAllowedByListeners");
    assert_eq!(told("name: nobody").1[0], "Accepted=false/NoMatchingParent");
}

#[test]
fn what_leads_nowhere_keeps_its_share_and_is_told_by_its_reason() {
    let share = "[{backendRefs: [{name: reviews, port: 80, weight: 3}, {name: nobody, port: 80}, {name: ratings, port: 81}, {name: photos, port: 80, weight: 0}, {kind: Bucket, group: x.y, name: b}]}]";
    let (demo, index) = (Mesh::demo(), rules(&route("HTTPRoute", "r", "name: reviews", share)));
    assert_eq!(
        sent(&demo, &index, "frontend"),
        [
            "reviews/*:80=3",
            "!there is no service `nobody.default.svc.cluster.local`=1",
            "!`ratings.default.svc.cluster.local` has no port 81=1",
            "!a Bucket.x.y is no backend here: name a Service=1",
        ]
    );
    assert_eq!(conditions(&demo, &index, "r")[1], "ResolvedRefs=false/InvalidKind");
    assert_eq!(
        demo.said(&index),
        [
            "Dangling spec.rules[0].backendRefs[1]: there is no service `nobody.default.svc.cluster.local`: this share is refused with 500 until it is there",
            "Dangling spec.rules[0].backendRefs[2]: `ratings.default.svc.cluster.local` has no port 81: this share is refused with 500 until it is there",
            "Dangling spec.rules[0].backendRefs[4]: a Bucket.x.y is no backend here: name a Service: this share is refused with 500",
        ]
    );
    for (rule, reason) in [
        ("[{}]", "!the rule names no backend=1"),
        ("[]", "!the rule names no backend=1"),
        (
            "[{backendRefs: [{name: photos, port: 80, weight: 0}]}]",
            "!no backend of the rule has a weight=1",
        ),
        (
            "[{filters: [{type: ExtensionRef, extensionRef: {group: a.b, kind: Limit, name: l}}], backendRefs: [{name: photos, port: 80}]}]",
            "!the filter Limit/l is not carried out=1",
        ),
    ] {
        let index = rules(&route("HTTPRoute", "r", "name: reviews", rule));
        assert_eq!(sent(&demo, &index, "frontend"), [reason], "{rule}");
        assert_eq!(index.findings(&demo.0).len(), 1, "{rule}");
    }
    let absent = rules(&route("HTTPRoute", "r", "name: reviews", &to("nobody")));
    assert_eq!(conditions(&demo, &absent, "r")[1], "ResolvedRefs=false/BackendNotFound");
}

#[test]
fn a_route_takes_the_place_of_a_virtual_service_and_destination_rules_still_hold() {
    let text = virtual_service(
        "v",
        "{hosts: [reviews], http: [{route: [{destination: {host: photos}}]}]}",
    ) + &destination_rule(
        "d",
        "{host: ratings, trafficPolicy: {connectionPool: {http: {http2MaxRequests: 3}}}}",
    ) + &route("HTTPRoute", "r", "name: reviews", &to("ratings"));
    let (demo, index) = (Mesh::demo(), rules(&text));
    assert_eq!(sent(&demo, &index, "frontend"), ["ratings/*:80=1"]);
    let told = demo.told(&index, "frontend", "reviews");
    assert_eq!(told.policies[0].provenance, Provenance("DestinationRule/default/d".into()));
    assert_eq!(
        demo.said(&index),
        [
            "Conflict spec.hosts: HTTPRoute/default/r is attached to port 80 of `reviews.default.svc.cluster.local` and takes the place of this rule there"
        ]
    );
}

#[test]
fn a_tcp_route_sends_connections_and_requests() {
    let text = route(
        "TCPRoute",
        "t",
        "name: photos",
        "[{backendRefs: [{name: store, port: 6379, weight: 2}, {name: nobody, port: 1}]}]",
    );
    let (demo, index) = (Mesh::demo(), rules(&text));
    let told = demo.told(&index, "frontend", "photos");
    let expected = ["store/*:6379=2", "!there is no service `nobody.default.svc.cluster.local`=1"];
    assert_eq!(shown(&told.ports[0].tcp), expected);
    assert_eq!(shown(told.ports[0].http[0].targets()), expected);
}

/// Where a port's connections of TLS go by name.
fn by_name(mesh: &Mesh, rules: &RuleIndex, service: &str, port: u16) -> Vec<String> {
    let told = mesh.told(rules, "frontend", service);
    let port = told.ports.iter().find(|one| one.number == port).unwrap();
    let show = |rule: &SniRule| {
        let (names, to) = (rule.names.join(" "), shown(&rule.targets).join(" "));
        format!("{}: {names} -> {to}", rule.provenance.0)
    };
    port.sni.iter().map(show).collect()
}

/// A TLSRoute for these names.
fn tls_route(name: &str, parents: &str, hostnames: &str, to: &str) -> String {
    let rules = format!("[{{backendRefs: [{to}]}}], hostnames: [{hostnames}]");
    route("TLSRoute", name, parents, &rules)
}

const REFUSED: &str = "!no TLSRoute of this port is for the name that the client asks for=1";

#[test]
fn a_tls_route_sends_connections_by_name_and_others_are_refused() {
    let ports = [(443, Protocol::Tls), (444, Protocol::Undeclared), (80, Protocol::Http)];
    let mesh = Mesh::demo().joins("web", "v1", &ports);
    let text = tls_route(
        "s",
        "name: web",
        "A.example.com, '*.example.com'",
        "{name: store, port: 6379, weight: 2}, {name: nobody, port: 1}",
    );
    let index = rules(&text);
    let own = "TLSRoute/default/s#rules[0]: a.example.com *.example.com -> store/*:6379=2 !there is no service `nobody.default.svc.cluster.local`=1";
    let rest = format!("TLSRoute/default/s:  -> {REFUSED}");
    assert_eq!(by_name(&mesh, &index, "web", 443), [own, &rest]);
    assert_eq!(by_name(&mesh, &index, "web", 444), [own, &rest], "bytes tell what is TLS");
    assert_eq!(by_name(&mesh, &index, "web", 80), Vec::<String>::new());
    let said = conditions(&mesh, &index, "s");
    assert_eq!(said, ["Accepted=true/Accepted", "ResolvedRefs=false/BackendNotFound"]);
    assert_eq!(
        mesh.said(&index),
        [
            "Dangling spec.rules[0].backendRefs[1]: there is no service `nobody.default.svc.cluster.local`: this share is refused until it is there"
        ]
    );
    let all = rules(&tls_route("s", "name: web", "", "{name: store, port: 6379}"));
    let all = by_name(&mesh, &all, "web", 443);
    assert_eq!(all, ["TLSRoute/default/s#rules[0]:  -> store/*:6379=1"], "no name is every name");
}

#[test]
fn of_two_tls_routes_the_older_has_a_name_that_both_have() {
    let mesh = Mesh::demo().joins("web", "v1", &[(443, Protocol::Tls)]);
    let to = "{name: store, port: 6379}";
    let text = tls_route("old", "name: web", "a.x, b.x", to)
        + &tls_route("new", "name: web", "b.x, c.x", to);
    let index = rules(&text);
    let told = by_name(&mesh, &index, "web", 443);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with("TLSRoute/default/old#rules[0]: a.x b.x"), "{told:?}");
    assert!(told[2].ends_with(REFUSED), "{told:?}");
    assert_eq!(
        mesh.said(&index),
        [
            "Conflict spec.parentRefs[0]: TLSRoute/default/old also names `b.x` on port 443 of `web.default.svc.cluster.local` and wins: the older route first"
        ]
    );
}

#[test]
fn a_tls_route_goes_before_a_tcp_route_and_behind_one_of_requests() {
    let ports = [(443, Protocol::Tls), (444, Protocol::Undeclared)];
    let mesh = Mesh::demo().joins("web", "v1", &ports);
    let store = "{name: store, port: 6379}";
    let text = tls_route("s", "name: web", "a.x", store)
        + &route("TCPRoute", "t", "name: web", &format!("[{{backendRefs: [{store}]}}]"))
        + &route("HTTPRoute", "h", "name: web,port: 444", &to("ratings"))
        + &virtual_service(
            "v",
            "{hosts: [web, b.x], tls: [{match: [{sniHosts: [b.x]}], route: [{destination: {host: store}}]}]}",
        );
    let index = rules(&text);
    assert_eq!(by_name(&mesh, &index, "web", 443).len(), 2);
    assert_eq!(by_name(&mesh, &index, "web", 444), Vec::<String>::new());
    assert_eq!(conditions(&mesh, &index, "t")[0], "Accepted=false/Conflicted");
    assert_eq!(conditions(&mesh, &index, "s")[0], "Accepted=true/Accepted", "on one port");
    let said = mesh.said(&index);
    let takes = "TLSRoute/default/s is attached to port 443 of `web.default.svc.cluster.local` and takes the place of this rule there";
    assert!(said.iter().any(|one| one.ends_with(takes)), "{said:?}");
    let only_http = rules(&tls_route("s", "name: reviews", "a.x", store));
    let said = conditions(&Mesh::demo(), &only_http, "s");
    assert_eq!(said[0], "Accepted=false/UnsupportedValue");
}

#[test]
fn prefixes_are_replaced_so_that_they_end_as_they_did() {
    let rule = "[{matches: [{path: {value: /a}}], filters: [{type: URLRewrite, urlRewrite: {hostname: b.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /x/}}}], backendRefs: [{name: ratings, port: 80}]}, {matches: [{path: {value: /old/}}], filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: ''}, scheme: https}}]}]";
    let (demo, index) = (Mesh::demo(), rules(&route("HTTPRoute", "r", "name: reviews", rule)));
    let told = http(&demo, &index, "frontend", "reviews");
    let uri = |rule: &HttpRule| rule.matches[0].uri.clone().unwrap();
    let paths: Vec<_> = told.iter().map(uri).collect();
    assert_eq!(
        paths,
        [
            StringMatch::Exact("/old".into()),
            StringMatch::Prefix("/old/".into()),
            StringMatch::Exact("/a".into()),
            StringMatch::Prefix("/a/".into()),
        ]
    );
    let redirect = |rule: &HttpRule| match rule.traffic.answer.clone() {
        Some(Answer::Redirect(redirect)) => redirect,
        other => panic!("{other:?}"),
    };
    assert_eq!(redirect(&told[0]).path, Some(RedirectPath::Prefix("/".into())));
    assert_eq!(redirect(&told[1]).path, Some(RedirectPath::Prefix("/".into())));
    assert_eq!((redirect(&told[0]).port, redirect(&told[0]).status), (None, 302));
    assert!(redirect(&told[0]).drops_port);
    let rewrite = |rule: &HttpRule| rule.traffic.rewrite.clone().unwrap();
    assert_eq!(rewrite(&told[2]).path, Some(PathRewrite::Prefix("/x".into())));
    assert_eq!(rewrite(&told[3]).path, Some(PathRewrite::Prefix("/x/".into())));
    assert_eq!(rewrite(&told[3]).authority.as_deref(), Some("b.example"));
}

#[test]
fn a_backends_changes_come_behind_those_of_its_rule() {
    let rule = "[{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-A, value: rule}, {name: x-a, value: later}, {name: x-b, value: rule}], add: [{name: x-c, value: '1'}]}}], backendRefs: [{name: ratings, port: 80, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-a, value: backend}], remove: [x-b], add: [{name: x-c, value: '2'}]}}]}, {name: photos, port: 80}]}]";
    let (demo, index) = (Mesh::demo(), rules(&route("HTTPRoute", "r", "name: reviews", rule)));
    let told = http(&demo, &index, "frontend", "reviews");
    assert_eq!(told[0].traffic.headers, None);
    let of = |at: usize| told[0].targets()[at].headers.clone().unwrap().request;
    let (first, second) = (of(0), of(1));
    assert_eq!(first.set, BTreeMap::from([("x-a".into(), "backend".into())]));
    assert_eq!((first.remove, first.add["x-c"].as_str()), (vec!["x-b".to_owned()], "1, 2"));
    assert_eq!(second.set["x-a"], "rule", "of equal names the first counts");
    assert_eq!(second.set["x-b"], "rule");
}

#[test]
fn calls_of_grpc_are_matched_by_service_and_method() {
    let rule = "[{matches: [{method: {service: a.B}}], backendRefs: [{name: photos, port: 80}]}, {matches: [{method: {service: a.B, method: Get}}], backendRefs: [{name: ratings, port: 80}]}, {matches: [{method: {method: Get}}], backendRefs: [{name: reviews, port: 80}]}, {matches: [{method: {type: RegularExpression, service: '[a-c]\\..*', method: 'G.*'}}]}]";
    let (demo, index) = (Mesh::demo(), rules(&route("GRPCRoute", "r", "name: reviews", rule)));
    let told = http(&demo, &index, "frontend", "reviews");
    let uris: Vec<_> = told.iter().map(|rule| rule.matches[0].uri.clone().unwrap()).collect();
    assert_eq!(
        uris,
        [
            StringMatch::Regex("/(?:[a-c]\\..*)/(?:G.*)".into()),
            StringMatch::Exact("/a.B/Get".into()),
            StringMatch::Prefix("/a.B/".into()),
            StringMatch::Regex("/[^/]+/Get".into()),
        ]
    );
}
