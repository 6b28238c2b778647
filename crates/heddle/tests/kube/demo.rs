//! `heddle install --demo` and `--dry-run`.

use heddle_testkit::wait::wait_until;

use crate::cluster::{
    IMAGE_FLAGS, asked, count, heddle, install, is_there, kubectl, logs, metrics_of, told,
};

const NAMESPACE: &str = "heddle-demo";

/// Takes the demo away, however the test ends.
struct Demo;

impl Drop for Demo {
    fn drop(&mut self) {
        drop(kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"]));
    }
}

#[test]
fn the_demos_pods_become_ready_and_call_each_other() {
    if !is_there() {
        return;
    }
    install();
    let output = heddle(&[&["install", "--demo"], &IMAGE_FLAGS[..]].concat());
    let _demo = Demo;
    assert!(output.status.success(), "{}", told(&output));
    let output = kubectl(&[
        "wait",
        "--for=condition=Available",
        "deployment",
        "--all",
        "-n",
        NAMESPACE,
        "--timeout=180s",
    ]);
    let pods = || told(&kubectl(&["get", "pods", "-n", NAMESPACE]));
    assert!(output.status.success(), "{}\n{}", told(&output), pods());
    // Each edge of the site, by what its caller's sidecar counts.
    for (from, to) in [
        ("loadgen", "frontend"),
        ("frontend", "restaurants"),
        ("frontend", "reviews"),
        ("frontend", "photos"),
        ("frontend", "specials"),
        ("frontend", "tables"),
        ("reviews", "ratings"),
    ] {
        let host = format!("{to}.{NAMESPACE}.svc.cluster.local");
        let labels =
            [("reporter", "source"), ("response_code", "200"), ("destination_service", &*host)];
        wait_until(&format!("{from} calls {to}"), || {
            let page = metrics_of(NAMESPACE, &format!("app={from}"));
            count(&page, "istio_requests_total", &labels) > 0.0
        });
    }
    let said = logs(NAMESPACE, "deployment/frontend-v1");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_dry_run_asks_the_cluster_for_everything_and_changes_nothing() {
    if !is_there() {
        return;
    }
    install();
    let version = || {
        let path = "jsonpath={.metadata.resourceVersion}";
        let of = |what: &str| asked(&["get", what, "-n", "heddle-system", "-o", path]);
        of("configmap/heddle-injector") + &of("serviceaccount/heddle-control")
    };
    let before = version();
    let output = heddle(&["install", "--dry-run", "--demo", "--image", "example.org/other:9"]);
    assert!(output.status.success(), "{}", told(&output));
    let said = told(&output);
    assert!(said.contains("Deployment heddle-control would be applied"), "{said}");
    assert!(said.contains("nothing was changed"), "{said}");
    assert_eq!(version(), before);
    // The same told by what would differ.
    let output = heddle(&["upgrade", "--dry-run", "--image", "example.org/other:9"]);
    let said = told(&output);
    let image =
        "spec.template.spec.containers[0].image: heddle.dev/heddle:dev → example.org/other:9";
    assert!(said.contains(image), "{said}");
    assert!(!said.contains("ClusterRole"), "what stays is not told: {said}");
    assert_eq!(version(), before);
}
