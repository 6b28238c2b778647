//! A node whose kernel has no nftables: to the init containers here it looks like one, by a profile of system calls that
//! the cluster's node has.

use heddle_testkit::wait::{wait_for, wait_until};

use crate::{
    apps::{calls, client, server, service},
    cluster::{count, in_mesh},
};

/// The mesh's image with legacy iptables.
pub(crate) const WITH_IPTABLES: &str = "heddle.dev/heddle-iptables:dev";

/// The mesh's init container from an image, on such a node; `auto` is the mesh's own image.
pub(crate) fn init_from(image: &str) -> String {
    format!(
        "initContainers:
- name: heddle-init
  image: {image}
  imagePullPolicy: Never
  securityContext:
    capabilities: {{add: [NET_ADMIN, NET_RAW]}}
    seccompProfile: {{type: Localhost, localhostProfile: no-nftables.json}}"
    )
}

#[test]
fn an_init_container_with_iptables_captures_by_them_and_calls_are_counted_on_both_sides() {
    let Some(namespace) = in_mesh("iptables") else { return };
    let init = init_from(WITH_IPTABLES);
    let (web, client) = (server("web-v1", "web", "v1").with_pod(&init), client().with_pod(&init));
    namespace.apply(&(web.yaml() + &service("web") + &client.yaml()));
    namespace.rolled_out("deployment/web-v1");
    namespace.rolled_out("deployment/client");
    for what in ["deployment/web-v1", "deployment/client"] {
        let said = namespace.asked(&["logs", what, "-c", "heddle-init"]);
        let expected = "is nf_tables in this kernel?): Protocol not supported (os error 93); \
            the rules were written by /usr/bin/iptables-legacy-restore";
        assert!(said.contains(expected) && said.contains("proven: a call to "), "{said}");
    }
    let said = namespace.run("deployment/client", &calls(5, "http://web/"));
    assert_eq!(said, "v1\n".repeat(5), "{}", namespace.picture());
    for (app, reporter) in [("client", "source"), ("web", "destination")] {
        let labels = [("reporter", reporter), ("response_code", "200")];
        wait_until(&format!("{app} counts 5 calls as {reporter}"), || {
            let page = namespace.metrics(&format!("app={app}"));
            count(&page, "istio_requests_total", &labels) >= 5.0
        });
    }
}

#[test]
fn an_init_container_without_iptables_fails_and_says_what_would_help() {
    let Some(namespace) = in_mesh("no-iptables") else { return };
    namespace.apply(&client().with_pod(&init_from("auto")).yaml());
    let said = wait_for("the init container has said why", || {
        let output = namespace.kubectl(&["logs", "deployment/client", "-c", "heddle-init"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.contains("heddle: ").then_some(said)
    });
    let expected = "without nftables, no iptables-legacy-restore or iptables-restore is in the PATH: \
        load the kernel's modules nf_tables, nft_chain_nat and nft_redir on the node, or use an image with iptables";
    assert!(said.contains(expected), "{said}");
}
