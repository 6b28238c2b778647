//! What happens to calls while pods come and go; the load is that of `outages` as well.

use heddle_testkit::wait::wait_until;

use crate::{
    apps::{client, server, service},
    cluster::{Namespace, in_mesh},
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

/// Two servers and a client that calls them until [`no_call_failed`].
pub(crate) fn under_load(test: &str) -> Option<Namespace> {
    let namespace = in_mesh(test)?;
    let probe = "readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}";
    let web = server("web-v1", "web", "v1").replicas(2).with(probe);
    namespace.apply(&(web.yaml() + &service("web")));
    namespace.rolled_out("deployment/web-v1");
    namespace.apply(&client().running(LOAD).yaml());
    namespace.rolled_out("deployment/client");
    Some(namespace)
}

/// Ends the load: enough calls were made, and none failed.
pub(crate) fn no_call_failed(namespace: &Namespace) {
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
