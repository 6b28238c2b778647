//! What happens to calls while pods and the control plane come and go.

use heddle_testkit::wait::wait_until;

use crate::{
    apps::{client, server, service},
    cluster::{Namespace, SYSTEM, asked, in_mesh, kubectl, restart, told},
};

/// Calls at a fixed rate until `/tmp/stop` is there, each on a connection of its own; then says how many were made
/// and what went wrong with each that failed.
const LOAD: &str = "trap 'exit 0' TERM; made=0
while [ ! -e /tmp/stop ]; do
  made=$((made + 1)); said=$(timeout 10 wget -q -O - http://web/ 2>&1) || echo \"call $made failed: $said\"
  sleep 0.02
done
echo \"made $made\"; while :; do sleep 60 & wait $!; done";
/// Fewest calls that say anything.
const CALLS_MIN: u32 = 50;

fn under_load(test: &str) -> Option<Namespace> {
    let namespace = in_mesh(test)?;
    let probe = "readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}";
    let web = server("web-v1", "web", "v1").replicas(2).with(probe);
    namespace.apply(&(web.yaml() + &service("web")));
    namespace.rolled_out("deployment/web-v1");
    namespace.apply(&client().running(LOAD).yaml());
    namespace.rolled_out("deployment/client");
    Some(namespace)
}

/// Ends the load: how many calls were made.
fn no_call_failed(namespace: &Namespace) {
    namespace.run("deployment/client", "touch /tmp/stop");
    let said = || namespace.asked(&["logs", "deployment/client", "-c", "app"]);
    wait_until("the load has ended", || said().contains("made "));
    let said = said();
    assert!(!said.contains("failed"), "{said}\n{}", namespace.picture());
    let made = said.lines().find_map(|line| line.strip_prefix("made ")?.parse::<u32>().ok());
    assert!(made.is_some_and(|made| made >= CALLS_MIN), "{said}");
}

#[test]
fn a_rolling_restart_fails_no_call() {
    let Some(namespace) = under_load("rolling") else { return };
    namespace.asked(&["rollout", "restart", "deployment/web-v1"]);
    namespace.rolled_out("deployment/web-v1");
    // Until the old ones have gone as well.
    wait_until("only new pods are there", || {
        namespace.asked(&["get", "pods", "-l", "app=web", "-o", "name"]).lines().count() == 2
    });
    no_call_failed(&namespace);
}

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
    let said = namespace.run("deployment/client", &crate::apps::calls(20, "http://web/"));
    assert_eq!(said, "v1\n".repeat(20), "{}", namespace.picture());
}
