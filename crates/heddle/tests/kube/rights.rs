//! `heddle check` by somebody who may do little: each verb that is missing is named.

use std::path::PathBuf;

use serde_json::Value;

use crate::cluster::{Namespace, asked, heddle, in_namespace, kubectl, told};

/// May look at pods and namespaces, and half of what is done to ClusterRoles.
fn rights(namespace: &Namespace) -> String {
    let name = namespace.name();
    format!(
        "apiVersion: v1
kind: ServiceAccount
metadata: {{name: weak, namespace: {name}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: {name}}}
rules:
- {{apiGroups: [\"\"], resources: [pods, namespaces], verbs: [get, list]}}
- {{apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles], verbs: [get, patch]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {name}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {name}}}
subjects: [{{kind: ServiceAccount, name: weak, namespace: {name}}}]
"
    )
}

/// What belongs to the cluster does not go with the namespace.
struct Given<'n>(&'n Namespace);

impl Drop for Given<'_> {
    fn drop(&mut self) {
        drop(kubectl(&["delete", "clusterrole,clusterrolebinding", self.0.name()]));
        // It holds a token.
        drop(std::fs::remove_file(kubeconfig_path(self.0)));
    }
}

fn kubeconfig_path(namespace: &Namespace) -> PathBuf {
    std::env::temp_dir().join(format!("{}.kubeconfig", namespace.name()))
}

/// A kubeconfig of theirs.
fn kubeconfig(namespace: &Namespace) -> String {
    let mut config: Value =
        serde_json::from_str(&asked(&["config", "view", "--raw", "--flatten", "-o", "json"]))
            .unwrap();
    let token = namespace.asked(&["create", "token", "weak"]);
    config["users"][0]["user"] = serde_json::json!({"token": token.trim()});
    let file = kubeconfig_path(namespace);
    std::fs::write(&file, config.to_string()).unwrap();
    file.to_string_lossy().into_owned()
}

#[test]
fn each_verb_that_is_missing_is_named() {
    let Some(namespace) = in_namespace("rights", "a: b") else { return };
    let _given = Given(&namespace);
    namespace.apply(&rights(&namespace));
    let file = kubeconfig(&namespace);
    for flags in [&["check", "--before"][..], &["check"]] {
        let output = heddle(&[flags, &["-o", "json", "--kubeconfig", &file]].concat());
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        let check = |what: &str| -> (String, String) {
            let checks = said["checks"].as_array().unwrap();
            let found = checks.iter().find(|one| one["what"] == what);
            let found = found.unwrap_or_else(|| panic!("no `{what}`: {said:#}"));
            let text = |field: &str| found[field].as_str().unwrap().to_owned();
            (text("answer"), text("said"))
        };
        for (what, missing) in [
            ("right to namespaces", "create, patch, delete"),
            ("right to clusterroles.rbac.authorization.k8s.io", "create, delete, list"),
            ("right to secrets", "get, create, patch, delete, list (in all namespaces)"),
            ("right to leases.coordination.k8s.io", "delete, list (in all namespaces)"),
            ("right to nodes", "list"),
            ("right to pods", "create (in the namespace default)"),
        ] {
            let expected = format!("you may not {missing}: ask whoever administers the cluster");
            assert_eq!(check(what), ("failed".to_owned(), expected), "{what}");
        }
        // What could not be looked at is told by verb and kind, and the rest is asked all the same.
        for (what, verb) in
            [("nodes", "list"), ("network policies", "list"), ("kinds of istio", "get")]
        {
            let (answer, text) = check(what);
            assert_eq!(answer, "failed", "{what}: {text}");
            assert!(text.contains(&format!("cannot {verb} resource")), "{what}: {text}");
        }
        if flags.len() == 1 {
            let (answer, text) = check("installations");
            assert!(
                answer == "failed" && text.contains("cannot list resource \"configmaps\""),
                "{text}"
            );
        }
    }
}
