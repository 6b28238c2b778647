//! The kubelet's probes of the application keep their meaning behind the sidecar.

use heddle_testkit::wait::wait_until;

use crate::{
    apps::{COMPONENTS, client, server, service},
    cluster::in_mesh,
};

#[test]
fn an_http_probe_makes_a_pod_ready_and_unready() {
    let Some(namespace) = in_mesh("http-probe") else { return };
    let probe = "readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1, failureThreshold: 1}
livenessProbe: {httpGet: {path: /index.html, port: 8080}, periodSeconds: 1}
ports: [{containerPort: 8080}]";
    let web = server("web-v1", "web", "v1").with(probe).yaml();
    namespace.apply(&(web + &service("web") + &client().yaml()));
    let ready = || namespace.field("deployment/web-v1", ".status.readyReplicas") == "1";
    namespace.rolled_out("deployment/client");
    namespace.runs("app=web");
    assert!(!ready(), "nobody serves /ready yet");
    namespace.run("deployment/web-v1", "touch /tmp/www/ready");
    wait_until("the pod is ready", ready);
    namespace.run("deployment/web-v1", "rm /tmp/www/ready");
    wait_until("the pod is not ready", || !ready());
    let restarts = namespace.asked(&[
        "get",
        "pods",
        "-l",
        "app=web",
        "-o",
        "jsonpath={.items[0].status.containerStatuses[0].restartCount}",
    ]);
    assert_eq!(restarts, "0", "{}", namespace.picture());
}

#[test]
fn a_tcp_probe_is_of_the_application_and_not_of_its_sidecar() {
    let Some(namespace) = in_mesh("tcp-probe") else { return };
    let probe =
        |port: u16| format!("readinessProbe: {{tcpSocket: {{port: {port}}}, periodSeconds: 1}}");
    let open = server("open", "open", "v1").with(&probe(8080)).yaml();
    let closed = server("closed", "closed", "v1").with(&probe(8081)).yaml();
    namespace.apply(&(open + &closed));
    namespace.rolled_out("deployment/open");
    namespace.runs("app=closed");
    // Its sidecar is there, and takes connections to any port.
    let sidecar =
        "jsonpath={.items[0].status.initContainerStatuses[?(@.name=='heddle-proxy')].ready}";
    wait_until("its sidecar is ready", || {
        namespace.asked(&["get", "pods", "-l", "app=closed", "-o", sidecar]) == "true"
    });
    assert_eq!(namespace.field("deployment/closed", ".status.readyReplicas"), "");
}

#[test]
fn a_grpc_probe_reaches_the_application() {
    let Some(namespace) = in_mesh("grpc-probe") else { return };
    namespace.apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: store, labels: {{app: store}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: app
    image: {COMPONENTS}
    imagePullPolicy: Never
    command: [/bin/kube, etcd, --data-dir, /tmp/etcd, --unsafe-no-fsync, --listen-client-urls, \"http://0.0.0.0:2379\", --advertise-client-urls, \"http://127.0.0.1:2379\"]
    readinessProbe: {{grpc: {{port: 2379}}, periodSeconds: 1}}
"
    ));
    namespace.comes_to_be("condition=Ready", "pod/store");
}
