//! Pods that end, and containers that start before the application.

use heddle_testkit::wait::wait_until;

use crate::{
    apps::{SHELL, server, service},
    cluster::in_mesh,
    tools::document,
};

#[test]
fn a_job_that_calls_a_service_completes() {
    let Some(namespace) = in_mesh("job") else { return };
    namespace.apply(&(server("web-v1", "web", "v1").yaml() + &service("web")));
    namespace.rolled_out("deployment/web-v1");
    namespace.apply(&format!(
        "apiVersion: batch/v1
kind: Job
metadata: {{name: once}}
spec:
  backoffLimit: 0
  template:
    metadata: {{labels: {{app: once}}}}
    spec:
      restartPolicy: Never
      containers:
      - {{name: app, image: {SHELL}, imagePullPolicy: Never, command: [timeout, \"10\", wget, -q, -O, \"-\", \"http://web/\"]}}
"
    ));
    namespace.comes_to_be("condition=Complete", "job/once");
    assert_eq!(namespace.asked(&["logs", "job/once", "-c", "app"]), "v1\n");
    // It has lived shorter than an interval; its sidecar has been scraped at its end.
    let name = namespace.name();
    wait_until("the observer knows who has called", || {
        let graph = document(&["graph", "-n", name, "--window", "5m"]);
        let edges = graph["edges"].as_array().into_iter().flatten();
        let mut from_job = edges.filter(|edge| edge["source"]["name"] == "once");
        from_job.any(|edge| edge["client"]["per_second"].as_f64() > Some(0.0))
    });
}

#[test]
fn a_cron_job_runs_and_completes() {
    let Some(namespace) = in_mesh("cron") else { return };
    namespace.apply(&format!(
        "apiVersion: batch/v1
kind: CronJob
metadata: {{name: often}}
spec:
  schedule: \"0 0 1 1 *\"
  jobTemplate:
    spec:
      backoffLimit: 0
      template:
        metadata: {{labels: {{app: often}}}}
        spec:
          restartPolicy: Never
          containers: [{{name: app, image: {SHELL}, imagePullPolicy: Never, command: [\"true\"]}}]
"
    ));
    // Its time need not be waited for.
    namespace.asked(&["create", "job", "now", "--from=cronjob/often"]);
    namespace.comes_to_be("condition=Complete", "job/now");
}

#[test]
fn init_containers_use_the_network() {
    let Some(namespace) = in_mesh("init") else { return };
    namespace.apply(&(server("web-v1", "web", "v1").yaml() + &service("web")));
    namespace.rolled_out("deployment/web-v1");
    namespace.apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: late, labels: {{app: late}}}}
spec:
  terminationGracePeriodSeconds: 0
  restartPolicy: Never
  initContainers:
  - {{name: first, image: {SHELL}, imagePullPolicy: Never, command: [timeout, \"10\", wget, -q, -O, \"-\", \"http://web/\"]}}
  containers:
  - {{name: app, image: {SHELL}, imagePullPolicy: Never, command: [sleep, \"3600\"]}}
"
    ));
    namespace.comes_to_be("condition=Ready", "pod/late");
    assert_eq!(namespace.asked(&["logs", "late", "-c", "first"]), "v1\n");
}
