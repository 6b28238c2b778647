//! Calls between pods go through both sidecars, and are counted on both sides.

use heddle_testkit::wait::wait_until;

use crate::{
    apps::{calls, client, server, service},
    cluster::{count, in_mesh},
};

#[test]
fn a_call_is_counted_by_the_sidecar_of_either_side() {
    let Some(namespace) = in_mesh("calls") else { return };
    namespace.apply(&(server("web-v1", "web", "v1").yaml() + &service("web") + &client().yaml()));
    namespace.rolled_out("deployment/web-v1");
    namespace.rolled_out("deployment/client");
    let said = namespace.run("deployment/client", &calls(20, "http://web/"));
    assert_eq!(said, "v1\n".repeat(20), "{}", namespace.picture());
    let host = format!("web.{}.svc.cluster.local", namespace.name());
    for (app, reporter) in [("client", "source"), ("web", "destination")] {
        let counted = || {
            let page = namespace.metrics(&format!("app={app}"));
            let labels = [
                ("reporter", reporter),
                ("response_code", "200"),
                ("destination_service", host.as_str()),
                ("source_workload", "client"),
                ("destination_workload", "web-v1"),
                ("source_workload_namespace", namespace.name()),
            ];
            count(&page, "istio_requests_total", &labels)
        };
        wait_until(&format!("{app} counts 20 calls as {reporter}"), || counted() >= 20.0);
    }
}

#[test]
fn a_pod_reaches_itself_through_its_service_and_another_by_its_address() {
    let Some(namespace) = in_mesh("itself") else { return };
    namespace.apply(&(server("web-v1", "web", "v1").yaml() + &service("web") + &client().yaml()));
    namespace.rolled_out("deployment/web-v1");
    namespace.rolled_out("deployment/client");
    assert_eq!(namespace.run("deployment/web-v1", &calls(5, "http://web/")), "v1\n".repeat(5));
    let path = "jsonpath={.items[0].status.podIP}";
    let address = namespace.asked(&["get", "pods", "-l", "app=web", "-o", path]);
    let said = namespace.run("deployment/client", &calls(5, &format!("http://{address}:8080/")));
    assert_eq!(said, "v1\n".repeat(5));
}

#[test]
fn pods_outside_the_mesh_call_in_and_are_called() {
    let Some(inside) = in_mesh("inside") else { return };
    let Some(outside) = crate::cluster::in_namespace("outside", "a: b") else { return };
    for namespace in [&inside, &outside] {
        namespace
            .apply(&(server("web-v1", "web", "v1").yaml() + &service("web") + &client().yaml()));
    }
    for namespace in [&inside, &outside] {
        namespace.rolled_out("deployment/web-v1");
        namespace.rolled_out("deployment/client");
    }
    let called = |from: &crate::cluster::Namespace, to: &crate::cluster::Namespace| {
        from.run("deployment/client", &calls(5, &format!("http://web.{}/", to.name())))
    };
    assert_eq!(called(&outside, &inside), "v1\n".repeat(5));
    assert_eq!(called(&inside, &outside), "v1\n".repeat(5));
}
