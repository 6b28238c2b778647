//! The Service of the cluster's names: its server is a process of the node and no pod, so the endpoint is
//! written by hand.

use super::node::{DNS_SERVICE, NODE_ADDRESS};

/// The objects.
pub(super) fn manifest() -> String {
    let port = |protocol: &str| {
        format!("{{name: dns-{}, port: 53, protocol: {protocol}}}", protocol.to_lowercase())
    };
    let ports = [port("UDP"), port("TCP")].join(", ");
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: kube-dns, namespace: kube-system, labels: {{k8s-app: kube-dns}}}}
spec: {{clusterIP: {DNS_SERVICE}, ports: [{ports}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: kube-dns-node, namespace: kube-system, labels: {{kubernetes.io/service-name: kube-dns}}}}
addressType: IPv4
endpoints: [{{addresses: [{NODE_ADDRESS}], conditions: {{ready: true}}}}]
ports: [{ports}]
"
    )
}
