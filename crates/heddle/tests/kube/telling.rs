//! What sidecars of a cluster tell about calls: access logs in their container's output, and spans.

use heddle_testkit::wait::wait_until;

use crate::{
    apps::{calls, client, server, service},
    cluster::{asked, in_mesh, in_namespace, kubectl, logs},
};

/// Takes what is sent to it into a file, and answers that it is well.
const RECEIVER: &str = "while :; do printf 'HTTP/1.1 202 Accepted\\r\\ncontent-length: 0\\r\\n\\r\\n' | nc -l -p 8080 >> /tmp/got; done";

#[test]
fn access_logs_and_spans_go_where_a_telemetry_says() {
    let Some(namespace) = in_mesh("telling") else { return };
    let Some(outside) = in_namespace("spans", "a: b") else { return };
    let receiver = server("spans", "spans", "v1").running(RECEIVER);
    outside.apply(&(receiver.yaml() + &service("spans")));
    namespace.apply(&(server("web-v1", "web", "v1").yaml() + &service("web") + &client().yaml()));
    outside.rolled_out("deployment/spans");
    for deployment in ["deployment/web-v1", "deployment/client"] {
        namespace.rolled_out(deployment);
    }
    // It may be there from an earlier run.
    drop(kubectl(&["create", "namespace", "istio-system"]));
    let file = std::env::temp_dir().join(format!("{}.yaml", namespace.name()));
    let settings = format!(
        "apiVersion: heddle.dev/v1alpha1
kind: MeshConfig
metadata: {{name: mesh, namespace: istio-system}}
spec:
  extensionProviders:
  - name: spans
    zipkin: {{service: spans.{}.svc.cluster.local, port: 80}}
",
        outside.name()
    );
    std::fs::write(&file, settings).unwrap();
    asked(&["apply", "-f", file.to_str().unwrap()]);
    drop(std::fs::remove_file(&file));
    namespace.apply(
        "apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: all}
spec:
  accessLogging:
  - providers: [{name: envoy}]
  tracing:
  - providers: [{name: spans}]
    randomSamplingPercentage: 100
",
    );
    for app in ["client", "web-v1"] {
        wait_until(&format!("the sidecar of {app} logs calls"), || {
            namespace.run("deployment/client", &calls(1, "http://web/"));
            logs(namespace.name(), &format!("deployment/{app}")).contains("\"GET / HTTP/1.1\" 200")
        });
    }
    wait_until("spans of both sides have come", || {
        namespace.run("deployment/client", &calls(1, "http://web/"));
        let got = outside.run("deployment/spans", "cat /tmp/got; true");
        got.contains("\"kind\":\"CLIENT\"") && got.contains("\"kind\":\"SERVER\"")
    });
    // What installing leaves behind is looked at by another test.
    asked(&["delete", "meshconfig/mesh", "-n", "istio-system"]);
}
