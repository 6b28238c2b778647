//! The components as one program, built once per `go.sum` and kept outside the work tree.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
};

use super::{
    folder::{cache, make},
    needs,
};
use crate::command::{program, root, run};

/// The module whose program it is.
const MODULE: &str = "tests/kube/cluster";
/// The release the components are of: they tell it, and clients decide by it.
const VERSION: (&str, &str, &str) = ("v1.37.2", "1", "37");

/// The built program; it is built first where no earlier build was of the same sources.
///
/// # Errors
/// Go is missing, or the build failed.
pub(super) fn build() -> Result<PathBuf, String> {
    let module = root().join(MODULE);
    let folder = cache()?.join(key(&module)?);
    let built = folder.join("kube");
    if built.is_file() {
        return Ok(built);
    }
    needs::check_go()?;
    make(&folder)?;
    println!(
        "building Kubernetes {} into {} (once; 15 to 30 minutes on two cores)",
        VERSION.0,
        folder.display()
    );
    // Two builds at a time each make their own file; whoever is last takes the place.
    let being_built = folder.join(format!("kube.{}", std::process::id()));
    let arguments = ["build", "-trimpath", "-ldflags", &linked(), "-o"];
    let mut go = program("go", &arguments);
    go.arg(&being_built).arg(".").current_dir(&module);
    // Without cgo it needs no library, so that it runs in a container too.
    run(go.env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=readonly -buildvcs=false"))?;
    fs::rename(&being_built, &built).map_err(|e| format!("{}: {e}", built.display()))?;
    Ok(built)
}

/// What the linker is told: no symbols, and the version.
fn linked() -> String {
    let package = "k8s.io/component-base/version";
    let (version, major, minor) = VERSION;
    format!(
        "-s -w -X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
    )
}

/// Changes with whatever the program is built of. It names a folder of this machine only, so it need not
/// be the same for every version of Rust.
fn key(module: &Path) -> Result<String, String> {
    let mut hasher = DefaultHasher::new();
    for file in ["go.mod", "go.sum", "main.go"] {
        let path = module.join(file);
        fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?.hash(&mut hasher);
    }
    (linked(), std::env::consts::ARCH).hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}
