//! `heddle tap` in a cluster: the same calls and flags as on one machine, through port-forwards of the pods.

use heddle_testkit::wait::wait_until;
use serde_json::Value;

use crate::{
    apps::{calls, client, server, service},
    cluster::{heddle, in_mesh, told},
};

#[test]
fn live_calls_between_pods_are_shown_through_port_forwards() {
    let Some(namespace) = in_mesh("taps") else { return };
    namespace.apply(&(server("web-v1", "web", "v1").yaml() + &service("web") + &client().yaml()));
    namespace.rolled_out("deployment/web-v1");
    namespace.rolled_out("deployment/client");
    let name = format!("web.{}", namespace.name());
    // Calls come while it looks, however long it takes to reach the pods.
    let url = "http://web/?token=t0psecret";
    let looked = std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            heddle(&["tap", &name, "--max", "2", "--for", "60s", "-o", "json", "--kubernetes"])
        });
        wait_until("it has seen what it was to see", || {
            namespace.run("deployment/client", &calls(1, url));
            looking.is_finished()
        });
        looking.join().unwrap()
    });
    assert!(looked.status.success(), "{}", told(&looked));
    let text = String::from_utf8(looked.stdout).unwrap();
    let seen: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(seen.len(), 2, "{text}");
    for call in &seen {
        assert_eq!(call["side"], "server", "{call}");
        assert_eq!(call["status"], 200, "{call}");
        assert_eq!(call["path"], "/?token=(hidden)", "{call}");
        assert_eq!(call["to"]["namespace"], namespace.name(), "{call}");
        let from = call["from"]["id"].as_str().unwrap();
        assert!(from.starts_with(&format!("{}.client-", namespace.name())), "{call}");
    }
    let refused = heddle(&["tap", "wbe", "--kubernetes"]);
    assert_eq!(refused.status.code(), Some(1), "{}", told(&refused));
}
