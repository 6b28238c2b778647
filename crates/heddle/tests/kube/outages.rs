//! What happens to calls while the control plane or the API server is away. No other test can go on meanwhile, so they
//! run alone, one by one: `cargo xtask kube test` sees to it.

use crate::{
    apps::{calls, server},
    cluster::{SYSTEM, asked, kubectl, restart, told},
    lifecycle::{no_call_failed, under_load},
};

#[test]
fn the_control_plane_dies_and_comes_back_under_load() {
    let Some(namespace) = under_load("control") else { return };
    let pod = "app.kubernetes.io/name=heddle-control";
    let before = asked(&["get", "pods", "-n", SYSTEM, "-l", pod, "-o", "name"]);
    asked(&["delete", "pods", "-n", SYSTEM, "-l", pod, "--grace-period=0", "--force"]);
    let output = kubectl(&[
        "rollout",
        "status",
        "-n",
        SYSTEM,
        "deployment/heddle-control",
        "--timeout=120s",
    ]);
    assert!(output.status.success(), "{}", told(&output));
    assert_ne!(asked(&["get", "pods", "-n", SYSTEM, "-l", pod, "-o", "name"]), before);
    no_call_failed(&namespace);
    // It takes pods again, and tells them who is there.
    namespace.apply(&server("late", "late", "v1").yaml());
    namespace.rolled_out("deployment/late");
}

#[test]
fn the_api_server_is_restarted_under_load() {
    let Some(namespace) = under_load("api") else { return };
    restart("kube-apiserver");
    no_call_failed(&namespace);
    // What changes afterwards is heard of: the new pods are called, the old ones are not.
    namespace.asked(&["rollout", "restart", "deployment/web-v1"]);
    namespace.rolled_out("deployment/web-v1");
    let said = namespace.run("deployment/client", &calls(20, "http://web/"));
    assert_eq!(said, "v1\n".repeat(20), "{}", namespace.picture());
}
