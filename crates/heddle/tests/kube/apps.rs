//! Applications that know nothing of a mesh, made of busybox. (The `-T` of its `wget` crashes in a static build.)

/// A shell and its tools.
pub(crate) const SHELL: &str = "heddle.dev/shell:test";
/// Kubernetes' components, etcd among them, which serves gRPC and its health.
pub(crate) const COMPONENTS: &str = "heddle.dev/components:test";

/// A web server that answers its version. It ends when it is told to, after the two seconds that every server
/// behind a Service gives others to hear of it.
const SERVE: &str = "mkdir -p /tmp/www; echo VERSION > /tmp/www/index.html; httpd -p 8080 -h /tmp/www; \
    trap 'sleep 2; exit 0' TERM; while :; do sleep 60 & wait $!; done";
/// Waits to be used by `kubectl exec`.
const IDLE: &str = "trap 'exit 0' TERM; while :; do sleep 60 & wait $!; done";

/// A Deployment of pods with the labels `app` and `version`, whose container is called `app`.
#[derive(Debug, Clone)]
pub(crate) struct App {
    name: &'static str,
    service: &'static str,
    version: &'static str,
    replicas: u32,
    script: String,
    /// Further lines of the container, at its indent.
    container: String,
    /// Further lines of the pod, at its indent.
    pod: String,
}

/// A server of a version, called `SERVICE-VERSION`.
pub(crate) fn server(name: &'static str, service: &'static str, version: &'static str) -> App {
    let script = SERVE.replace("VERSION", version);
    App {
        name,
        service,
        version,
        replicas: 1,
        script,
        container: String::new(),
        pod: String::new(),
    }
}

/// A pod to call from.
pub(crate) fn client() -> App {
    App {
        name: "client",
        service: "client",
        version: "v1",
        replicas: 1,
        script: IDLE.to_owned(),
        container: String::new(),
        pod: String::new(),
    }
}

impl App {
    pub(crate) fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    pub(crate) fn running(mut self, script: &str) -> Self {
        script.clone_into(&mut self.script);
        self
    }

    /// Adds YAML to the container, e.g. a probe.
    pub(crate) fn with(mut self, yaml: &str) -> Self {
        self.container = yaml.lines().map(|line| format!("        {line}\n")).collect();
        self
    }

    /// Adds YAML to the pod, e.g. an init container.
    pub(crate) fn with_pod(mut self, yaml: &str) -> Self {
        self.pod = yaml.lines().map(|line| format!("      {line}\n")).collect();
        self
    }

    pub(crate) fn yaml(&self) -> String {
        let Self { name, service, version, replicas, script, container, pod } = self;
        format!(
            "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {service}, version: {version}}}}}
  strategy: {{rollingUpdate: {{maxUnavailable: 0, maxSurge: 1}}}}
  template:
    metadata: {{labels: {{app: {service}, version: {version}}}}}
    spec:
      terminationGracePeriodSeconds: 20
{pod}      containers:
      - name: app
        image: {SHELL}
        imagePullPolicy: Never
        command: [sh, -c, {script:?}]
{container}---
"
        )
    }
}

/// A Service of the pods with this label, on port 80.
pub(crate) fn service(name: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: http, port: 80, targetPort: 8080}}]
---
"
    )
}

/// A script that calls `url` so many times and prints every answer, or `failed`.
pub(crate) fn calls(times: u32, url: &str) -> String {
    format!(
        "for i in $(seq {times}); do timeout 10 wget -q -O - {url} 2>/dev/null || echo failed; done"
    )
}
