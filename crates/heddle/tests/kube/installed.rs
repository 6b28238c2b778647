//! What `heddle install` leaves in a cluster.

use heddle_testkit::wait::wait_for;

use crate::cluster::{IMAGE_FLAGS, SYSTEM, asked, heddle, install, is_there, logs, told};

#[test]
fn the_control_plane_becomes_ready_and_is_refused_nothing() {
    if !is_there() {
        return;
    }
    install();
    let available = asked(&[
        "get",
        "deployment/heddle-control",
        "-n",
        SYSTEM,
        "-o",
        "jsonpath={.status.availableReplicas}",
    ]);
    assert_eq!(available, "1", "{}", logs(SYSTEM, "deployment/heddle-control"));
    let said = asked(&["logs", "-n", SYSTEM, "deployment/heddle-control", "--tail=-1"]);
    assert!(!said.to_lowercase().contains("forbidden"), "{said}");
}

#[test]
fn webhooks_are_told_whom_to_believe_and_stay_so_after_a_second_install() {
    if !is_there() {
        return;
    }
    install();
    let bundles = || {
        let path = "jsonpath={.webhooks[*].clientConfig.caBundle}";
        asked(&["get", "mutatingwebhookconfiguration/heddle-injector", "-o", path])
    };
    let first = wait_for("the injector has its authority", || {
        let all = bundles();
        (all.split_whitespace().count() == 8).then_some(all)
    });
    let again = heddle(&[&["install"], &IMAGE_FLAGS[..]].concat());
    assert!(again.status.success(), "{}", told(&again));
    assert_eq!(bundles(), first);
}
