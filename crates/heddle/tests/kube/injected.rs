//! Which pods get a sidecar, and that they run with it.

use crate::{
    apps::{SHELL, client, server, service},
    cluster::{Namespace, in_mesh, in_namespace},
};

/// The names of a pod's init containers, of all pods with a label.
fn added(namespace: &Namespace, label: &str) -> String {
    let path = "jsonpath={.items[*].spec.initContainers[*].name}";
    namespace.asked(&["get", "pods", "-l", label, "-o", path])
}

#[test]
fn pods_of_a_deployment_run_with_a_native_sidecar() {
    let Some(namespace) = in_mesh("deployment") else { return };
    namespace.apply(&(server("web-v1", "web", "v1").replicas(2).yaml() + &service("web")));
    namespace.rolled_out("deployment/web-v1");
    assert_eq!(added(&namespace, "app=web"), "heddle-init heddle-proxy heddle-init heddle-proxy");
    let ready =
        "jsonpath={.items[*].status.initContainerStatuses[?(@.name=='heddle-proxy')].ready}";
    assert_eq!(namespace.asked(&["get", "pods", "-l", "app=web", "-o", ready]), "true true");
}

#[test]
fn labels_of_istio_mean_the_same() {
    let Some(namespace) = in_namespace("istio", "istio-injection: enabled") else { return };
    namespace.apply(&client().yaml());
    namespace.rolled_out("deployment/client");
    assert_eq!(added(&namespace, "app=client"), "heddle-init heddle-proxy");
}

#[test]
fn a_namespace_without_a_label_is_left_alone_but_for_pods_that_ask() {
    let Some(namespace) = in_namespace("plain", "a: b") else { return };
    let asks = client().yaml().replace(
        "labels: {app: client, version: v1}}\n    spec",
        "labels: {app: client, version: v1, sidecar.istio.io/inject: \"true\"}}\n    spec",
    );
    namespace.apply(&(asks + &server("web-v1", "web", "v1").yaml()));
    namespace.rolled_out("deployment/client");
    namespace.rolled_out("deployment/web-v1");
    assert_eq!(added(&namespace, "app=client"), "heddle-init heddle-proxy");
    assert_eq!(added(&namespace, "app=web"), "");
}

#[test]
fn a_pod_that_says_no_is_left_alone() {
    let Some(namespace) = in_mesh("no") else { return };
    namespace.apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: out, labels: {{app: out, sidecar.istio.io/inject: \"false\"}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{{name: app, image: {SHELL}, imagePullPolicy: Never, command: [sleep, \"3600\"]}}]
"
    ));
    namespace.comes_to_be("condition=Ready", "pod/out");
    assert_eq!(added(&namespace, "app=out"), "");
}

#[test]
fn pods_of_a_stateful_set_and_pods_of_nobody_run_with_a_sidecar() {
    let Some(namespace) = in_mesh("others") else { return };
    let container = format!(
        "{{name: app, image: {SHELL}, imagePullPolicy: Never, command: [sleep, \"3600\"]}}"
    );
    namespace.apply(&format!(
        "apiVersion: v1
kind: Service
metadata: {{name: db}}
spec: {{clusterIP: None, selector: {{app: db}}, ports: [{{name: tcp, port: 5432}}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db}}
spec:
  serviceName: db
  selector: {{matchLabels: {{app: db}}}}
  template:
    metadata: {{labels: {{app: db}}}}
    spec: {{terminationGracePeriodSeconds: 0, containers: [{container}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: alone, labels: {{app: alone}}}}
spec: {{terminationGracePeriodSeconds: 0, containers: [{container}]}}
"
    ));
    namespace.rolled_out("statefulset/db");
    namespace.comes_to_be("condition=Ready", "pod/alone");
    assert_eq!(added(&namespace, "app=db"), "heddle-init heddle-proxy");
    assert_eq!(added(&namespace, "app=alone"), "heddle-init heddle-proxy");
}

#[test]
fn a_sidecar_fits_where_pods_are_restricted_and_only_the_init_container_does_not() {
    // What `restricted` refuses is told as a warning, and the pod comes to be.
    let labels = "heddle.dev/inject: \"true\", pod-security.kubernetes.io/warn: restricted";
    let Some(namespace) = in_namespace("restricted", labels) else { return };
    let made = namespace.kubectl(&["create", "--dry-run=server", "-f", &restricted(&namespace)]);
    let said = crate::cluster::told(&made);
    assert!(made.status.success(), "{said}");
    assert!(said.contains("heddle-init"), "{said}");
    for other in ["heddle-proxy", "\"app\""] {
        assert!(!said.contains(other), "{other}: {said}");
    }
    // Where it is enforced, it is the init container that is refused.
    namespace.asked(&[
        "label",
        "namespace",
        namespace.name(),
        "pod-security.kubernetes.io/enforce=restricted",
    ]);
    let made = namespace.kubectl(&["create", "--dry-run=server", "-f", &restricted(&namespace)]);
    let said = crate::cluster::told(&made);
    assert!(!made.status.success() && said.contains("heddle-init"), "{said}");
    assert!(!said.contains("heddle-proxy"), "{said}");
}

/// A file with a pod that `restricted` takes.
fn restricted(namespace: &Namespace) -> String {
    let file = std::env::temp_dir().join(format!("{}.yaml", namespace.name()));
    let pod = format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: strict, namespace: {}}}
spec:
  securityContext: {{runAsNonRoot: true, runAsUser: 1000, seccompProfile: {{type: RuntimeDefault}}}}
  containers:
  - name: app
    image: {SHELL}
    securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}
",
        namespace.name()
    );
    std::fs::write(&file, pod).unwrap();
    file.to_string_lossy().into_owned()
}
