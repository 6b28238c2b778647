//! A cluster with both address families: a Service has an address of each, and so has a pod.

use heddle_testkit::wait::wait_until;

use crate::{
    apps::{calls, client, server, service},
    callers::{TELL, keeping, told_by},
    cluster::{count, in_mesh},
};

/// A Service of both families.
fn of_both(service: &str) -> String {
    service.replace("spec:\n", "spec:\n  ipFamilyPolicy: RequireDualStack\n")
}

/// Has the cluster both families?
fn has_both() -> bool {
    let both = std::env::var_os("HEDDLE_KUBE_DUAL_STACK").is_some();
    if !both {
        eprintln!(
            "SKIPPED: this needs a cluster of both address families; run `cargo xtask kube test dual_stack`"
        );
    }
    both
}

#[test]
fn an_application_sees_callers_of_either_family_by_their_own_addresses() {
    if !has_both() {
        return;
    }
    let Some(namespace) = in_mesh("dual-callers") else { return };
    let kept = keeping(&server("kept-v1", "kept", "v1").running(TELL).yaml());
    namespace.apply(&(kept + &client().yaml()));
    namespace.rolled_out("deployment/kept-v1");
    namespace.rolled_out("deployment/client");
    let addresses = |app: &str| -> Vec<String> {
        let path = "jsonpath={.items[0].status.podIPs[*].ip}";
        let all = namespace.asked(&["get", "pods", "-l", &format!("app={app}"), "-o", path]);
        all.split_whitespace().map(str::to_owned).collect()
    };
    let (own, callers) = (addresses("kept"), addresses("client"));
    assert_eq!((own.len(), callers.len()), (2, 2));
    for (own, caller) in own.iter().zip(&callers) {
        let host = if own.contains(':') { format!("[{own}]") } else { own.clone() };
        let script = calls(5, &format!("http://{host}:8080/cgi-bin/who"));
        let said = namespace.run("deployment/client", &script);
        assert_eq!(said.lines().count(), 5, "{said}");
        assert!(
            said.lines().all(|line| told_by(line) == Some(caller.as_str())),
            "{said}, not {caller}"
        );
    }
}

#[test]
fn calls_of_one_service_by_either_family_are_counted_as_its_own_on_both_sides() {
    if !has_both() {
        return;
    }
    let Some(namespace) = in_mesh("dual") else { return };
    let web = server("web-v1", "web", "v1").yaml() + &of_both(&service("web"));
    namespace.apply(&(web + &client().yaml()));
    namespace.rolled_out("deployment/web-v1");
    namespace.rolled_out("deployment/client");
    let addresses = namespace.field("service/web", ".spec.clusterIPs");
    let addresses: Vec<String> = serde_json::from_str(&addresses).unwrap();
    let [v4, v6] = addresses.as_slice() else { panic!("{addresses:?}") };
    assert!(v4.contains('.') && v6.contains(':'), "{addresses:?}");
    let host = format!("web.{}.svc.cluster.local", namespace.name());
    for (url, so_far) in [(format!("http://{v4}/"), 5.0), (format!("http://[{v6}]/"), 10.0)] {
        let said = namespace.run("deployment/client", &calls(5, &url));
        assert_eq!(said, "v1\n".repeat(5), "{url}: {}", namespace.picture());
        for (app, reporter) in [("client", "source"), ("web", "destination")] {
            let labels = [
                ("reporter", reporter),
                ("response_code", "200"),
                ("destination_service", host.as_str()),
                ("source_workload", "client"),
                ("destination_workload", "web-v1"),
            ];
            wait_until(&format!("{app} counts {so_far} calls as {reporter}"), || {
                let page = namespace.metrics(&format!("app={app}"));
                count(&page, "istio_requests_total", &labels) >= so_far
            });
        }
    }
    // Whichever of a pod's own addresses is called, the call is that pod's.
    let pod = namespace.asked(&[
        "get",
        "pods",
        "-l",
        "app=web",
        "-o",
        "jsonpath={.items[0].status.podIPs[1].ip}",
    ]);
    let said = namespace.run("deployment/client", &calls(5, &format!("http://[{pod}]:8080/")));
    assert_eq!(said, "v1\n".repeat(5), "{pod}: {}", namespace.picture());
    let labels =
        [("reporter", "source"), ("response_code", "200"), ("destination_workload", "web-v1")];
    wait_until("calls by the pod's own address are counted", || {
        count(&namespace.metrics("app=client"), "istio_requests_total", &labels) >= 15.0
    });
}
