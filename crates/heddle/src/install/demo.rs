//! The example application as manifests: the restaurant-review site of `heddle demo`, in a namespace of its own
//! whose pods are in the mesh.

use super::manifests::Values;

/// Its namespace.
pub(crate) const NAMESPACE: &str = "heddle-demo";

/// One Deployment: role, version, and the port it serves.
pub(crate) const MEMBERS: [(&str, &str, Option<Port>); 12] = [
    ("ratings", "v1", Some(HTTP)),
    ("photos", "v1", Some(HTTP)),
    ("reviews", "v1", Some(HTTP)),
    ("reviews", "v2", Some(HTTP)),
    ("reviews", "v3", Some(HTTP)),
    ("store", "v1", Some(REDIS)),
    ("restaurants", "v1", Some(HTTP)),
    ("tables", "v1", Some(GRPC)),
    ("specials", "v1", Some(HTTP)),
    ("specials", "v2", Some(HTTP)),
    ("frontend", "v1", Some(HTTP)),
    ("loadgen", "v1", None),
];
const HTTP: Port = Port { name: "http", service: 80, pod: 8080 };
const GRPC: Port = Port { name: "grpc", service: 50051, pod: 50051 };
/// It declares nothing: what it speaks shows in its bytes.
const REDIS: Port = Port { name: "store", service: 6379, pod: 6379 };

/// One copy of `specials` is broken: callers take it out.
const RULES: &str = include_str!("../demo/rules.yaml");

#[derive(Debug, Clone, Copy)]
pub(crate) struct Port {
    name: &'static str,
    service: u16,
    /// Above 1024, so that no capability is needed.
    pod: u16,
}

/// The namespace, then its rules, Services and Deployments, as documents of YAML.
pub(crate) fn objects(values: &Values) -> Vec<String> {
    let mut documents = vec![format!(
        "apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    app.kubernetes.io/part-of: heddle
    app.kubernetes.io/instance: \"{}\"
    {}
",
        values.revision,
        values.namespace_label().replacen('=', ": \"", 1) + "\""
    )];
    documents.push(rules(values));
    for (role, version, port) in MEMBERS {
        // Versions of a service share one.
        if let Some(port) = port.filter(|_| version == "v1") {
            documents.push(service(values, role, port));
        }
        documents.push(deployment(values, role, version, port));
    }
    documents
}

/// Those of `heddle demo`, in this namespace.
fn rules(values: &Values) -> String {
    let revision = &values.revision;
    let labels = format!(
        "  namespace: {NAMESPACE}
  labels:
    app.kubernetes.io/part-of: heddle
    app.kubernetes.io/instance: \"{revision}\""
    );
    RULES.replace("  namespace: default", &labels)
}

fn service(values: &Values, role: &str, port: Port) -> String {
    let Port { name, service, pod } = port;
    let revision = &values.revision;
    format!(
        "apiVersion: v1
kind: Service
metadata:
  name: {role}
  namespace: {NAMESPACE}
  labels:
    app.kubernetes.io/part-of: heddle
    app.kubernetes.io/instance: \"{revision}\"
spec:
  selector:
    app: {role}
  ports:
  - name: {name}
    port: {service}
    targetPort: {pod}
"
    )
}

fn deployment(values: &Values, role: &str, version: &str, port: Option<Port>) -> String {
    let Values { image, image_pull_policy, revision, .. } = values;
    let number = port.map_or(0, |port| port.pod);
    let listens = port.map_or_else(String::new, |port| {
        format!(
            "        ports:
        - containerPort: {0}
        readinessProbe:
          tcpSocket:
            port: {0}
          periodSeconds: 2
",
            port.pod
        )
    });
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata:
  name: {role}-{version}
  namespace: {NAMESPACE}
  labels:
    app.kubernetes.io/part-of: heddle
    app.kubernetes.io/instance: \"{revision}\"
spec:
  selector:
    matchLabels:
      app: {role}
      version: {version}
  template:
    metadata:
      labels:
        app: {role}
        version: {version}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: {role}
        image: \"{image}\"
        imagePullPolicy: \"{image_pull_policy}\"
        args: [app, {role}, --version, {version}, --port, \"{number}\", --counts, /tmp/counts.sock]
{listens}        resources:
          requests:
            cpu: 10m
            memory: 16Mi
        securityContext:
          runAsNonRoot: true
          runAsUser: 65532
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities:
            drop: [ALL]
        volumeMounts:
        - name: tmp
          mountPath: /tmp
      volumes:
      - name: tmp
        emptyDir: {{}}
"
    )
}
