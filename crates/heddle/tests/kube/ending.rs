//! What a pod's callers are told when it begins to end.

use std::process::Command;

use heddle_testkit::wait::wait_until;

use crate::{
    apps::{server, service},
    cluster::{in_mesh, told},
};

#[test]
fn callers_of_a_pod_that_ends_are_told_to_ask_elsewhere_while_its_application_still_serves() {
    let Some(namespace) = in_mesh("ending") else { return };
    // It serves for as long after it was told to end.
    let serve = "mkdir -p /tmp/www; echo v1 > /tmp/www/index.html; httpd -p 8080 -h /tmp/www; \
        trap 'while [ ! -e /tmp/stop ]; do sleep 1; done; exit 0' TERM; while :; do sleep 60 & wait $!; done";
    namespace.apply(&(server("web-v1", "web", "v1").running(serve).yaml() + &service("web")));
    namespace.rolled_out("deployment/web-v1");
    let url = format!("http://{}:8080/", namespace.address("app=web"));
    let answer = || {
        // HTTP/1.1 keeps a connection unless it is told.
        let output = Command::new("curl").args(["-si", "--max-time", "5", &url]).output().unwrap();
        assert!(output.status.success(), "{}", told(&output));
        String::from_utf8(output.stdout).unwrap().to_lowercase()
    };
    let name = namespace.asked(&["get", "pods", "-l", "app=web", "-o", "name"]);
    let name = name.trim();
    namespace.asked(&["delete", name, "--wait=false"]);
    wait_until("callers are told", || {
        let answer = answer();
        assert!(answer.starts_with("http/1.1 200"), "{answer}");
        answer.contains("connection: close") && {
            let said = namespace.asked(&["logs", name, "-c", "heddle-proxy"]);
            said.contains("its callers are told to ask elsewhere")
        }
    });
    namespace.run(name, "touch /tmp/stop");
}
