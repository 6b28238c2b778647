//! Faults of a kind of their own: whom they reach, and on whose side; and when they are over.

use heddle_model::discovery::{Injection, PortFault};

use super::*;

fn fault(named: &str, spec: &str) -> String {
    format!(
        "apiVersion: heddle.dev/v1alpha1\nkind: Fault\nmetadata: {{name: {named}}}\nspec: {spec}\n---\n"
    )
}

fn names(faults: &[PortFault]) -> Vec<&str> {
    faults.iter().map(|fault| fault.provenance.0.as_str()).collect()
}

#[test]
fn a_client_is_told_of_faults_of_what_it_calls_oldest_first() {
    let text = fault("b", "{targetRef: {name: ratings}, delay: 5s}")
        + &fault("a", "{targetRef: {name: ratings}, percentage: 10, abort: {httpStatus: 500}}")
        + &fault("server", "{targetRef: {name: ratings}, side: server, delay: 1s}")
        + &fault("other", "{targetRef: {name: photos}, delay: 1s}");
    let told = Mesh::demo().told(&rules(&text), "reviews", "ratings");
    let faults = &told.ports[0].faults;
    assert_eq!(names(faults), ["Fault/default/b", "Fault/default/a"]);
    assert_eq!((faults[0].percent, faults[1].percent), (100.0, 10.0), "all where none is given");
    assert!(matches!(faults[0].does, Injection::Delay(delay) if delay.as_secs() == 5));
}

#[test]
fn a_fault_is_for_the_callers_and_ports_that_it_matches() {
    let match_of = "match: [{sourceLabels: {app: reviews, version: v2}, port: 80}]";
    let text = fault("f", &format!("{{targetRef: {{name: ratings}}, {match_of}, delay: 5s}}"));
    let (mesh, rules) = (Mesh::demo(), rules(&text));
    let told = |client: Client<'_>| {
        let told = rules.destination(&mesh.0, client, &name("ratings")).unwrap();
        told.ports[0].faults.len()
    };
    let versions = mesh.0.workloads.values().filter(|w| w.services.contains(&name("reviews")));
    assert_eq!(versions.map(|one| told(one.into())).collect::<Vec<_>>(), [0, 1, 0]);
    assert_eq!(told(mesh.client("frontend")), 0);
    let view = |client: &str| rules.view(mesh.client(client));
    assert_eq!(view("photos"), view("frontend"), "they are told the same");
}

#[test]
fn a_workload_is_told_of_faults_of_its_own_side() {
    let text = fault("service", "{targetRef: {name: reviews}, side: server, delay: 1s}")
        + &fault("labels", "{selector: {version: v2}, side: server, tcp: refuse}")
        + &fault(
            "port",
            "{targetRef: {name: reviews}, side: server, match: [{port: 81}], delay: 1s}",
        )
        + &fault("client", "{targetRef: {name: reviews}, delay: 1s}");
    let (mesh, rules) = (Mesh::demo(), rules(&text));
    let of = |version: &str| {
        let here =
            |one: &&Workload| one.services.contains(&name("reviews")) && one.version == version;
        let workload = mesh.0.workloads.values().find(here).unwrap();
        let inbound = rules.inbound(&mesh.0, workload);
        names(&inbound.ports[0].faults).join(" ")
    };
    assert_eq!(of("v1"), "Fault/default/service");
    assert_eq!(of("v2"), "Fault/default/service Fault/default/labels");
}

#[test]
fn annotations_say_when_a_rules_faults_end_and_how_they_count() {
    let spec = "{hosts: [ratings], http: [{fault: {delay: {fixedDelay: 5s, percentage: {value: 80}}}, route: [{destination: {host: ratings}}]}]}";
    let plain = virtual_service("r", spec);
    let annotated = plain.replace(
        "{name: r,",
        "{name: r, annotations: {heddle.dev/fault-expires: '2026-01-01T00:00:00Z', heddle.dev/istio-fault-semantics: 'true'},",
    );
    assert_ne!(plain, annotated);
    let told = |text: &str| {
        let told = Mesh::demo().told(&rules(text), "reviews", "ratings");
        let fault = told.ports[0].http[0].fault.clone().unwrap();
        (fault.expires, fault.before_limits)
    };
    assert_eq!(told(&plain), (None, false));
    assert_eq!(told(&annotated), (Some(1_767_225_600), true));
    let index = rules(&annotated);
    assert_eq!(index.expired(1_767_225_599), []);
    let over = index.expired(1_767_225_600);
    assert_eq!(over[0].field, "metadata.annotations[\"heddle.dev/fault-expires\"]");
    assert!(over[0].text.starts_with("expired at 2026-01-01T00:00:00Z: its faults are off"));
}

#[test]
fn faults_for_nobody_or_for_nothing_are_told() {
    let text = fault("a", "{targetRef: {name: nobody}, delay: 1s}")
        + &fault("b", "{selector: {app: nobody}, side: server, delay: 1s}")
        + &fault("c", "{targetRef: {name: ratings}, percentage: 0, delay: 1s}")
        + &fault("d", "{targetRef: {name: ratings}, match: [{port: 81}], delay: 1s}")
        + &fault("e", "{targetRef: {name: cache}, delay: 1s}")
        + &fault("f", "{targetRef: {name: cache}, tcp: refuse, expires: '2020-01-01T00:00:00Z'}");
    let mesh = Mesh::demo().joins("cache", "v1", &[(6379, Protocol::Tcp)]);
    let index = rules(&text);
    let said = mesh.said(&index);
    for (words, said) in [
        "Dangling spec.targetRef: there is no service",
        "Notice spec.selector: no workload",
        "Notice spec.percentage: 0 %",
        "NoEffect spec.match: ",
        "NoEffect spec.targetRef: port 6379",
    ]
    .into_iter()
    .zip(&said)
    {
        assert!(said.starts_with(words), "{words}: {said}");
    }
    assert_eq!(said.len(), 5, "{said:#?}");
    let over = index.findings_at(&mesh.0, 2_000_000_000);
    assert_eq!(over.len(), 6);
    assert!(over.iter().any(|one| one.field == "spec.expires"), "{over:#?}");
}
