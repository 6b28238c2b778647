//! `heddle uninstall`. It runs alone, after all others: `cargo xtask kube test` sees to it.

use heddle_testkit::wait::wait_until;

use crate::cluster::{asked, heddle, install, is_there, told};

/// Where anything of the mesh could be.
const KINDS: &str = "namespaces,serviceaccounts,services,deployments,configmaps,secrets,leases,\
    clusterroles,clusterrolebindings,roles,rolebindings,\
    mutatingwebhookconfigurations,validatingwebhookconfigurations,customresourcedefinitions";

#[test]
fn nothing_of_the_mesh_is_left() {
    if !is_there() {
        return;
    }
    install();
    // Namespaces of earlier tests hold objects of its kinds until they are gone.
    wait_until("namespaces of other tests have gone", || {
        let phases = "jsonpath={.items[*].status.phase}";
        !asked(&["get", "namespaces", "-o", phases]).contains("Terminating")
    });
    let output = heddle(&["uninstall"]);
    assert!(output.status.success(), "{}", told(&output));
    let ours = ["get", KINDS, "-A", "-l", "app.kubernetes.io/part-of=heddle", "-o", "name"];
    assert_eq!(asked(&ours), "");
    for kind in KINDS.split(',').map(str::trim) {
        let names = asked(&["get", kind, "-A", "-o", "name"]);
        let left: Vec<_> = names.lines().filter(|name| name.contains("heddle")).collect();
        assert_eq!(left, Vec::<&str>::new(), "{kind}");
    }
}
