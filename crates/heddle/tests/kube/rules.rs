//! Rules of a cluster are in force in the sidecars of its pods.

use heddle_testkit::wait::wait_until;

use crate::{
    apps::{calls, client, server, service},
    cluster::{Namespace, in_mesh},
};

fn two_versions(test: &str) -> Option<Namespace> {
    let namespace = in_mesh(test)?;
    let (v1, v2) = (server("web-v1", "web", "v1"), server("web-v2", "web", "v2"));
    namespace.apply(&(v1.yaml() + &v2.yaml() + &service("web") + &client().yaml()));
    for deployment in ["deployment/web-v1", "deployment/web-v2", "deployment/client"] {
        namespace.rolled_out(deployment);
    }
    Some(namespace)
}

#[test]
fn calls_are_divided_as_a_virtual_service_says() {
    let Some(namespace) = two_versions("split") else { return };
    namespace.apply(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
  - route:
    - {destination: {host: web, subset: v1}, weight: 90}
    - {destination: {host: web, subset: v2}, weight: 10}
",
    );
    // Before the rule is in force, half of them go to v2.
    wait_until("nine of ten calls go to v1", || {
        let said = namespace.run("deployment/client", &calls(200, "http://web/"));
        let of = |version: &str| said.lines().filter(|line| *line == version).count();
        assert_eq!(of("v1") + of("v2"), 200, "{said}");
        // Four deviations on either side of 20.
        (3..=37).contains(&of("v2"))
    });
}

#[test]
fn a_fault_of_a_virtual_service_is_what_callers_get() {
    let Some(namespace) = two_versions("fault") else { return };
    let ask = "timeout 10 wget -q -O - http://web/ 2>&1; true";
    assert!(namespace.run("deployment/client", ask).starts_with('v'));
    namespace.apply(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
  - fault: {abort: {percentage: {value: 100}, httpStatus: 500}}
    route: [{destination: {host: web}}]
",
    );
    // When the rule says that its proxies have it, they have.
    namespace.comes_to_be("condition=heddle.dev/Reconciled", "virtualservice/web");
    let said = namespace.run("deployment/client", ask);
    assert!(said.contains("HTTP/1.1 500"), "{said}");
    namespace.comes_to_be("condition=heddle.dev/Accepted", "virtualservice/web");
    namespace.asked(&["delete", "virtualservice/web"]);
    wait_until("calls are answered again", || {
        namespace.run("deployment/client", ask).starts_with('v')
    });
}

#[test]
fn a_rule_that_cannot_be_is_refused_with_its_field() {
    let Some(namespace) = in_mesh("refused") else { return };
    let file = std::env::temp_dir().join(format!("{}.yaml", namespace.name()));
    std::fs::write(
        &file,
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
  - fault: {abort: {percentage: {value: 100}, httpStatus: 5000}}
    route: [{destination: {host: web}}]
",
    )
    .unwrap();
    let path = file.to_str().unwrap();
    let said = crate::cluster::told(&namespace.kubectl(&["apply", "-f", path]));
    drop(std::fs::remove_file(&file));
    assert!(said.contains("httpStatus"), "{said}");
}
