//! Two installations side by side. The second one comes and goes within the one test.

use heddle_testkit::wait::wait_until;
use serde_json::Value;

use crate::{
    apps::{calls, client, server, service},
    cluster::{
        IMAGE_FLAGS, Namespace, SYSTEM, asked, heddle, in_mesh, in_namespace, install, is_there,
        told,
    },
};

const REVISION: &str = "canary";
const NAMESPACE: &str = "heddle-canary";
/// The second one believes that the cluster has its names below this, and so do its sidecars.
const DOMAIN: &str = "corp.test";

/// Takes the second one out again, however the test ends.
struct Second;

impl Second {
    fn install() -> Self {
        let which = ["install", "--revision", REVISION, "--namespace", NAMESPACE];
        let which = [&which[..], &["--cluster-domain", DOMAIN]].concat();
        let output = heddle(&[&which[..], &IMAGE_FLAGS[..]].concat());
        let second = Self;
        assert!(output.status.success(), "{}", told(&output));
        second
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        drop(heddle(&["uninstall", "--revision", REVISION]));
    }
}

/// Which revision the sidecars of a namespace's pods are of.
fn revision_of(namespace: &Namespace) -> String {
    let path = "jsonpath={.items[0].metadata.annotations.heddle\\.dev/status}";
    let status = namespace.asked(&["get", "pods", "-l", "app=web", "-o", path]);
    let status: Value = serde_json::from_str(&status).unwrap();
    status["revision"].as_str().unwrap().to_owned()
}

fn refused(arguments: &[&str], says: &str) {
    let output = heddle(arguments);
    assert!(!output.status.success(), "{arguments:?}");
    assert!(told(&output).contains(says), "{}", told(&output));
}

/// Takes the tag away again, however the test ends.
struct Tags;

/// The second revision goes by `prod`.
fn tagged() -> Tags {
    let output = heddle(&["tag", "set", "prod", "--revision", REVISION]);
    assert!(output.status.success(), "{}", told(&output));
    refused(&["tag", "set", "prod", "--revision", "default"], "means the revision canary");
    refused(&["tag", "set", REVISION, "--revision", "default"], "is the name of a revision");
    refused(&["tag", "set", "other", "--revision", "gone"], "no revision gone is installed");
    refused(&["tag", "remove", "other"], "there is no tag other");
    Tags
}

impl Tags {
    /// The tag goes to the first revision, and with it what starts in a namespace that names it.
    fn move_to_default(&self, theirs: &Namespace) {
        refused(&["tag", "remove", "prod"], theirs.name());
        let output = heddle(&["tag", "set", "prod", "--revision", "default", "--overwrite"]);
        assert!(output.status.success(), "{}", told(&output));
        assert!(told(&output).contains(&format!("restart what runs in {}", theirs.name())));
        let listed = heddle(&["tag", "list", "-o", "json"]);
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
        let expected = serde_json::json!([
            {"tag": "prod", "revision": "default", "namespaces": [theirs.name()]}
        ]);
        assert_eq!(listed, expected);
        // Installing again keeps it.
        let output = heddle(&[&["install"], &IMAGE_FLAGS[..]].concat());
        assert!(output.status.success(), "{}", told(&output));
        theirs.asked(&["rollout", "restart", "deployment/web-v1"]);
        theirs.rolled_out("deployment/web-v1");
        wait_until("the pod is of the first revision", || revision_of(theirs) == "default");
        let output = heddle(&["tag", "remove", "prod", "--force"]);
        assert!(output.status.success(), "{}", told(&output));
    }
}

impl Drop for Tags {
    fn drop(&mut self) {
        drop(heddle(&["tag", "remove", "prod", "--force"]));
    }
}

/// With `heddle install` and `upgrade` alike.
fn upgrade_keeps_what_a_user_has_set() {
    let settings = || {
        let path = "jsonpath={.data.settings\\.yaml}";
        asked(&["get", "configmap/heddle-injector", "-n", NAMESPACE, "-o", path])
    };
    let set = settings() + "logLevel: debug\n";
    let change = serde_json::json!({"data": {"settings.yaml": set}}).to_string();
    asked(&["patch", "configmap/heddle-injector", "-n", NAMESPACE, "--type=merge", "-p", &change]);
    let output = heddle(&["upgrade", "--revision", REVISION, "-o", "json"]);
    assert!(output.status.success(), "{}", told(&output));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["objects"], serde_json::json!([]), "{said}");
    assert_eq!(said["restart"], serde_json::json!([]), "{said}");
    assert_eq!(settings(), set);
}

#[test]
fn pods_of_two_revisions_call_each_other_and_either_goes_alone() {
    if !is_there() {
        return;
    }
    install();
    refused(&["install", "--revision", REVISION], "holds the revision default");
    refused(&["install", "--namespace", "elsewhere"], "is in the namespace heddle-system");
    let second = Second::install();
    refused(&["uninstall"], "there are several installations");
    refused(&["upgrade", "--dry-run"], "there are several installations");
    let roots = |namespace: &str, name: &str| {
        let path = "jsonpath={.data.root-cert\\.pem}";
        asked(&["get", "configmap", name, "-n", namespace, "-o", path])
    };
    wait_until("both have spread the same roots", || {
        let names = asked(&["get", "configmaps", "-n", NAMESPACE, "-o", "name"]);
        names.contains("heddle-ca-root-cert\n") && names.contains("heddle-ca-root-cert-canary")
    });
    assert_eq!(
        roots(NAMESPACE, "heddle-ca-root-cert-canary"),
        roots(NAMESPACE, "heddle-ca-root-cert")
    );
    let tags = tagged();
    let Some(ours) = in_mesh("ours") else { return };
    let Some(theirs) = in_namespace("theirs", "istio.io/rev: prod") else { return };
    let web = server("web-v1", "web", "v1").yaml() + &service("web") + &client().yaml();
    for namespace in [&ours, &theirs] {
        namespace.apply(&web);
    }
    for namespace in [&ours, &theirs] {
        namespace.rolled_out("deployment/web-v1");
        namespace.rolled_out("deployment/client");
    }
    assert_eq!((revision_of(&ours).as_str(), revision_of(&theirs).as_str()), ("default", REVISION));
    let called = |from: &Namespace, to: &Namespace| {
        from.run("deployment/client", &calls(5, &format!("http://web.{}/", to.name())))
    };
    assert_eq!(called(&ours, &theirs), "v1\n".repeat(5), "{}", theirs.picture());
    assert_eq!(called(&theirs, &ours), "v1\n".repeat(5), "{}", theirs.picture());
    // Nobody else in this cluster knows such a name: where the control plane takes its time about the first question,
    // there is no other answer.
    let url = format!("http://web.{}.svc.{DOMAIN}/", theirs.name());
    wait_until("the name is known", || theirs.run("deployment/client", &calls(1, &url)) == "v1\n");
    assert_eq!(theirs.run("deployment/client", &calls(3, &url)), "v1\n".repeat(3));
    let output = heddle(&["check"]);
    assert!(output.status.success(), "{}", told(&output));
    upgrade_keeps_what_a_user_has_set();
    tags.move_to_default(&theirs);
    drop(second);
    let left =
        asked(&["get", "namespaces,clusterroles,mutatingwebhookconfigurations", "-o", "name"]);
    assert!(!left.contains(REVISION), "{left}");
    let spread = asked(&["get", "configmaps", "-A", "-o", "name"]);
    assert!(!spread.contains("heddle-ca-root-cert-canary"), "{spread}");
    // The first one is whole: kinds, injection, calls.
    assert!(asked(&["get", "crds", "-o", "name"]).contains("virtualservices.networking.istio.io"));
    let output = heddle(&["check", "--revision", "default"]);
    assert!(output.status.success(), "{}", told(&output));
    ours.asked(&["rollout", "restart", "deployment/web-v1"]);
    ours.rolled_out("deployment/web-v1");
    assert_eq!(called(&ours, &ours), "v1\n".repeat(5));
    let secret = asked(&["get", "secret", "heddle-ca", "-n", SYSTEM, "-o", "name"]);
    assert_eq!(secret.trim(), "secret/heddle-ca");
}
