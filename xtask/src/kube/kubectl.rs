//! Asking the cluster, with its own `kubectl` in its own network.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use super::{folder::Folder, namespaces::Namespaces};
use crate::time::{now, pause};

/// A `kubectl` with these arguments.
pub(super) fn kubectl(folder: &Folder, namespaces: &Namespaces, arguments: &[&str]) -> Command {
    let mut command = namespaces.in_network(&folder.at("bin/kubectl").to_string_lossy(), arguments);
    command.env("KUBECONFIG", folder.kubeconfig());
    command
}

/// Waits until `kubectl` with these arguments succeeds; what is missing is `what`.
///
/// # Errors
/// It did not within `patience`: what it said last.
pub(super) fn wait_for(
    what: &str,
    patience: Duration,
    mut command: impl FnMut() -> Command,
) -> Result<(), String> {
    let deadline = now() + patience;
    loop {
        let said = command().output().map_err(|e| format!("{what}: {e}"))?;
        if said.status.success() {
            return Ok(());
        }
        if now() > deadline {
            let said = String::from_utf8_lossy(&said.stderr).trim().to_owned();
            return Err(format!("{what}: not within {} s: {said}", patience.as_secs()));
        }
        pause(Duration::from_millis(100));
    }
}

/// Puts objects in force, as their only author.
pub(super) fn apply(folder: &Folder, namespaces: &Namespaces, yaml: &str) -> Result<(), String> {
    let mut command = kubectl(folder, namespaces, &["apply", "--server-side", "-f", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().map_err(|e| format!("kubectl apply: {e}"))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(yaml.as_bytes()).map_err(|e| format!("kubectl apply: {e}"))?;
    }
    let status = child.wait().map_err(|e| format!("kubectl apply: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("kubectl apply: {status}")) }
}
