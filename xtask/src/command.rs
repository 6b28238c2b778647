//! Running other programs and saying which one failed.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The workspace's root folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// A program with arguments, run in the workspace's root, and without what cargo tells this program of its own
/// package: a build script that looks at it (`ring`'s does) would be run again, and all above it be built anew,
/// whenever `cargo xtask` and plain `cargo` take turns.
pub(crate) fn program(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(arguments).current_dir(root());
    for (variable, _) in std::env::vars_os() {
        if variable.to_str().is_some_and(is_of_package) {
            command.env_remove(variable);
        }
    }
    command
}

/// Is this a variable that cargo sets for the package it runs, and nobody for cargo?
fn is_of_package(variable: &str) -> bool {
    let begins = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_CFG_"];
    variable == "CARGO_PRIMARY_PACKAGE" || begins.iter().any(|start| variable.starts_with(start))
}

/// Runs a command whose output goes to the terminal.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|e| format!("{}: {e}", describe(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{}: {status}", describe(command))) }
}

/// Runs a command and returns what it printed; its errors go to the terminal.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("{}: {e}", describe(command)))?;
    if !output.status.success() {
        return Err(format!("{}: {}", describe(command), output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Is a program of this name on the PATH?
pub(crate) fn exists(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_is_told_nothing_of_the_package_that_calls_it() {
        assert!(is_of_package("CARGO_PKG_VERSION_MAJOR"));
        assert!(is_of_package("CARGO_MANIFEST_DIR"));
        assert!(!is_of_package("CARGO_TARGET_DIR"));
        assert!(!is_of_package("CARGO_PROFILE_DEV_DEBUG"));
    }
}
