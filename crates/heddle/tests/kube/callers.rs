//! Whose address an application sees: the sidecar's, or in interception mode TPROXY its caller's.

use crate::{
    apps::{calls, client, server, service},
    cluster::{Namespace, count, in_mesh, in_namespace, told},
    without_nftables::{WITH_IPTABLES, init_from},
};
use heddle_testkit::wait::wait_until;

/// A web server that answers with the address that it sees.
pub(crate) const TELL: &str = "mkdir -p /tmp/www/cgi-bin; \
    printf '#!/bin/sh\\necho; echo \"from $REMOTE_ADDR\"\\n' > /tmp/www/cgi-bin/who; \
    chmod +x /tmp/www/cgi-bin/who; httpd -p 8080 -h /tmp/www; \
    trap 'sleep 2; exit 0' TERM; while :; do sleep 60 & wait $!; done";

/// With an annotation of its pods.
pub(crate) fn keeping(yaml: &str) -> String {
    let pods = "    metadata: {labels:";
    assert!(yaml.contains(pods), "{yaml}");
    let annotations = "annotations: {sidecar.istio.io/interceptionMode: TPROXY}";
    yaml.replace(pods, &format!("    metadata: {{{annotations}, labels:"))
}

/// The address that an answer tells. Of a socket for both families an IPv4 address is written as one of IPv6.
pub(crate) fn told_by(line: &str) -> Option<&str> {
    let address = line.strip_prefix("from ")?.trim_matches(['[', ']']);
    Some(address.trim_start_matches("::ffff:"))
}

fn address_of(namespace: &Namespace, app: &str) -> String {
    let path = "jsonpath={.items[0].status.podIP}";
    namespace.asked(&["get", "pods", "-l", &format!("app={app}"), "-o", path])
}

#[test]
fn an_application_sees_its_callers_address_where_that_is_asked_for() {
    let Some(namespace) = in_mesh("callers") else { return };
    let plain = server("plain-v1", "plain", "v1").running(TELL);
    let kept = server("kept-v1", "kept", "v1").running(TELL);
    let by_iptables = server("legacy-v1", "legacy", "v1").running(TELL);
    let by_iptables = by_iptables.with_pod(&init_from(WITH_IPTABLES));
    let yaml = plain.yaml()
        + &keeping(&(kept.yaml() + &by_iptables.yaml()))
        + &service("plain")
        + &service("kept")
        + &service("legacy")
        + &client().yaml();
    namespace.apply(&yaml);
    for name in ["plain-v1", "kept-v1", "legacy-v1", "client"] {
        namespace.rolled_out(&format!("deployment/{name}"));
    }
    let caller = address_of(&namespace, "client");
    for (app, seen) in
        [("plain", address_of(&namespace, "plain")), ("kept", caller.clone()), ("legacy", caller)]
    {
        let url = format!("http://{app}/cgi-bin/who");
        let said = namespace.run("deployment/client", &calls(5, &url));
        assert_eq!(said.lines().count(), 5, "{said}");
        let is_seen = |line: &str| told_by(line) == Some(seen.as_str());
        assert!(said.lines().all(is_seen), "{app}: {said}, expected {seen}");
        let labels =
            [("reporter", "destination"), ("source_workload", "client"), ("response_code", "200")];
        wait_until(&format!("{app} counts 5 calls of the client's"), || {
            let page = namespace.metrics(&format!("app={app}"));
            count(&page, "istio_requests_total", &labels) >= 5.0
        });
    }
    let said = namespace.asked(&["logs", "deployment/kept-v1", "-c", "heddle-init"]);
    assert!(said.contains("sees its caller's address"), "{said}");
}

#[test]
fn where_pods_may_not_have_the_right_it_takes_that_is_said() {
    let label = "heddle.dev/inject: \"true\", pod-security.kubernetes.io/enforce: baseline";
    let Some(namespace) = in_namespace("no-right", label) else { return };
    let file = std::env::temp_dir().join(format!("{}.yaml", namespace.name()));
    let yaml = format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: kept
  namespace: {}
  annotations: {{sidecar.istio.io/interceptionMode: TPROXY}}
spec: {{containers: [{{name: app, image: x}}]}}
",
        namespace.name()
    );
    std::fs::write(&file, yaml).unwrap();
    // The webhook hears of a namespace's labels a moment after the namespace is there.
    wait_until("what PodSecurity refuses is said before it does", || {
        let file = file.to_string_lossy();
        let made = namespace.kubectl(&["create", "--dry-run=server", "-f", &file]);
        let said = told(&made);
        assert!(!made.status.success() && said.contains("NET_RAW"), "{said}");
        said.contains("interception mode TPROXY: container heddle-proxy runs as root")
    });
}
