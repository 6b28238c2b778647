//! The crate table of the design, as a check: an arrow that is not listed is forbidden.

use serde_json::Value;

use crate::command::{output, program};

/// Crate and the crates it may depend on. `heddle-testkit` is a dev-dependency only.
const ARROWS: [(&str, &[&str]); 11] = [
    ("heddle-model", &[]),
    ("heddle-compile", &["heddle-model"]),
    ("heddle-logic", &["heddle-model"]),
    ("heddle-wire", &["heddle-model"]),
    ("heddle-runtime", &["heddle-model"]),
    ("heddle-proxy", &["heddle-model", "heddle-logic", "heddle-wire", "heddle-runtime"]),
    (
        "heddle-control",
        &["heddle-model", "heddle-compile", "heddle-logic", "heddle-wire", "heddle-runtime"],
    ),
    ("heddle-observe", &["heddle-model", "heddle-wire", "heddle-runtime"]),
    (
        "heddle",
        &[
            "heddle-model",
            "heddle-compile",
            "heddle-logic",
            "heddle-wire",
            "heddle-runtime",
            "heddle-proxy",
            "heddle-control",
            "heddle-observe",
        ],
    ),
    (
        "heddle-testkit",
        &[
            "heddle-model",
            "heddle-compile",
            "heddle-logic",
            "heddle-wire",
            "heddle-runtime",
            "heddle-proxy",
            "heddle-control",
            "heddle-observe",
        ],
    ),
    ("xtask", &[]),
];

/// Crates that must stay pure: no runtime, no Kubernetes.
const PURE: [&str; 3] = ["heddle-model", "heddle-compile", "heddle-logic"];
/// What a pure crate may not depend on.
const IMPURE: [&str; 6] = ["tokio", "kube", "hyper", "tonic", "libc", "socket2"];

/// Forbidden arrows in `cargo metadata`.
pub(super) fn check() -> Result<Vec<String>, String> {
    let arguments = ["metadata", "--format-version", "1", "--no-deps", "--locked"];
    let text = output(&mut program("cargo", &arguments))?;
    let metadata: Value =
        serde_json::from_str(&text).map_err(|e| format!("cargo metadata: {e}"))?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata names no packages")?;
    Ok(packages.iter().flat_map(check_package).collect())
}

fn check_package(package: &Value) -> Vec<String> {
    let name = package["name"].as_str().unwrap_or("?");
    let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == name) else {
        return vec![format!("{name}: not in the crate table of xtask/src/tidy/arrows.rs")];
    };
    let none = Vec::new();
    let dependencies = package["dependencies"].as_array().unwrap_or(&none);
    let forbidden = |dependency: &&Value| {
        let to = dependency["name"].as_str().unwrap_or("?");
        let dev = dependency["kind"].as_str() == Some("dev");
        let ours = to.starts_with("heddle") || to == "xtask";
        (ours && !dev && !allowed.contains(&to)) || (PURE.contains(&name) && IMPURE.contains(&to))
    };
    dependencies
        .iter()
        .filter(forbidden)
        .map(|to| format!("{name} -> {}: forbidden arrow", to["name"].as_str().unwrap_or("?")))
        .collect()
}
