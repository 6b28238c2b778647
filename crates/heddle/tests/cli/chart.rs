//! The chart filled as Helm fills it, beside what `heddle install --print` makes of it.

use std::{collections::BTreeSet, path::Path, process::Command};

use crate::NoMeshes;

/// The documents of a text, but for those that a chart leaves to Helm: kinds, which it keeps elsewhere, and the
/// namespace.
fn documents(text: &str) -> BTreeSet<String> {
    let all = text.split("\n---\n").map(|document| document.trim().to_owned());
    let of_chart = |document: &String| {
        !document.is_empty()
            && !document.contains("\nkind: CustomResourceDefinition\n")
            && !document.contains("\nkind: Namespace\n")
    };
    all.filter(of_chart).collect()
}

#[test]
fn helms_template_engine_and_the_command_make_the_same_of_the_chart() {
    if Command::new("go").arg("version").output().is_err() {
        println!("SKIPPED: go is not installed");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (revision, namespace) in [("default", "heddle-system"), ("canary", "elsewhere")] {
        let filled = Command::new("go")
            .env("GO111MODULE", "off")
            .arg("run")
            .arg(root.join("tests/cli/chart.go"))
            .arg(root.join("../../charts/heddle"))
            .args([namespace, &format!("revision={revision}")])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&filled.stderr);
        assert!(filled.status.success(), "{said}");
        let printed = NoMeshes::new("chart").heddle(&[
            "install",
            "--print",
            "--revision",
            revision,
            "--namespace",
            namespace,
        ]);
        let (helm, own) = (String::from_utf8_lossy(&filled.stdout), printed.stdout);
        let own = String::from_utf8_lossy(&own);
        let (helm, own) = (documents(&helm), documents(&own));
        assert!(helm.len() >= 10, "{helm:?}");
        assert_eq!(helm, own);
    }
}
