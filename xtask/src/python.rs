//! A package of Python that tests use and Debian does not have: from PyPI, into a folder of its own that is put in
//! the way of the tests' programs.

use std::path::PathBuf;

use crate::{
    command::{program, run},
    kube::cache,
};

/// The messages of OpenTelemetry: the newest that Debian's protobuf reads.
const MESSAGES: &str = "opentelemetry-proto==1.24.0";
/// Where they are within the folder.
const WITHIN: &str = "opentelemetry/proto";

/// Fetches it unless it is there. Without it, its tests are skipped, and say so.
pub(crate) fn fetch() {
    let Ok(folder) = folder() else { return };
    if folder.join(WITHIN).is_dir() {
        return;
    }
    let target = folder.to_string_lossy();
    let arguments = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--upgrade",
        "--target",
        &target,
        MESSAGES,
    ];
    if let Err(error) = run(&mut program("python3", &arguments)) {
        println!("missing: {MESSAGES} ({error}); the tests that use it will be skipped");
    }
}

/// Where it is, once it was fetched.
pub(crate) fn packages() -> Option<PathBuf> {
    folder().ok().filter(|folder| folder.join(WITHIN).is_dir())
}

fn folder() -> Result<PathBuf, String> {
    Ok(cache()?.join("python"))
}
