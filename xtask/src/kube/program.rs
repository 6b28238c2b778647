//! The cluster's components as one program.

use std::path::PathBuf;

use super::module::{Manner, Module, Program, Unbuilt};

/// The release the components are of: they tell it, and clients decide by it.
const VERSION: (&str, &str, &str) = ("v1.37.2", "1", "37");
/// All components in one.
const COMPONENTS: Program = Program {
    name: "kube",
    made_by: &["build"],
    package: ".",
    what: "Kubernetes' components",
    takes: "once; 15 to 30 minutes on two cores",
};

/// The built program; it is built first where no earlier build was of the same sources.
///
/// # Errors
/// Go is missing, its modules cannot be fetched, or the build failed.
pub(super) fn build(manner: &Manner) -> Result<PathBuf, Unbuilt> {
    let module = Module { folder: "tests/kube/cluster", sources: &["main.go"], linked: linked() };
    module.build(&COMPONENTS, manner)
}

/// What the linker is told: no symbols, and the version.
fn linked() -> String {
    let package = "k8s.io/component-base/version";
    let (version, major, minor) = VERSION;
    format!(
        "-s -w -X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
    )
}
