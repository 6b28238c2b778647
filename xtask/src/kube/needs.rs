//! What a cluster needs of the machine, asked for all at once before anything is started.

use std::{os::unix::fs::MetadataExt as _, process::Stdio};

use crate::command::{exists, output, program};

/// Programs, or files by their path, with the Debian package that brings each.
const PROGRAMS: [(&str, &str); 12] = [
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/ptp", "containernetworking-plugins"),
    ("/usr/lib/cni/host-local", "containernetworking-plugins"),
    ("/bin/busybox", "busybox-static"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("openssl", "openssl"),
    ("curl", "curl"),
];
/// Oldest Go that builds the components, as `go env GOVERSION` counts: 1.26.
const GO_MINOR_MIN: u32 = 26;

/// What a running cluster needs.
///
/// # Errors
/// All that is missing, and how to get it.
pub(super) fn check() -> Result<(), String> {
    let mut missing = Vec::new();
    if !is_root() {
        missing.push(
            "root: namespaces, containers and control groups are made; use `sudo`".to_owned(),
        );
    }
    let lacking: Vec<_> = PROGRAMS.iter().filter(|(name, _)| !exists(name)).collect();
    if !lacking.is_empty() {
        let mut packages: Vec<_> = lacking.iter().map(|(_, package)| *package).collect();
        packages.dedup();
        let names: Vec<_> = lacking.iter().map(|(name, _)| *name).collect();
        missing.push(format!("{}: apt-get install {}", names.join(", "), packages.join(" ")));
    }
    if exists("/bin/busybox") && is_dynamic("/bin/busybox") {
        missing.push("a busybox that needs no library: apt-get install busybox-static".to_owned());
    }
    say(&missing)
}

/// What building the components needs.
///
/// # Errors
/// That Go is missing or too old, and where it is to be had.
pub(super) fn check_go() -> Result<(), String> {
    let how = "a Go of 1.26 or newer on the PATH (https://go.dev/dl, or the package golang-go where it is new enough)";
    let version = match exists("go") {
        true => output(&mut program("go", &["env", "GOVERSION"]))?,
        false => return say(&[format!("go: {how}")]),
    };
    if minor(version.trim()).is_none_or(|minor| minor < GO_MINOR_MIN) {
        return say(&[format!("go is {}: {how}", version.trim())]);
    }
    Ok(())
}

/// The `26` of `go1.26.8`.
fn minor(version: &str) -> Option<u32> {
    version.strip_prefix("go1.")?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn say(missing: &[String]) -> Result<(), String> {
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("a cluster needs what this machine lacks:\n  {}", missing.join("\n  ")))
}

/// `ldd` fails for a program that needs no library.
fn is_dynamic(path: &str) -> bool {
    let asked = program("ldd", &[path]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
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
