//! What a cluster needs of the machine, asked for all at once before anything is started.

use std::{
    os::unix::fs::MetadataExt as _,
    process::{Command, Stdio},
};

use crate::command::{exists, program};

/// Programs, or files by their path, with the Debian package that brings each.
const PROGRAMS: [(&str, &str); 13] = [
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/ptp", "containernetworking-plugins"),
    ("/usr/lib/cni/host-local", "containernetworking-plugins"),
    ("/bin/busybox", "busybox-static"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("/usr/sbin/xtables-legacy-multi", "iptables"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("openssl", "openssl"),
    ("curl", "curl"),
];

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
    if let Some(why) = no_namespaces() {
        missing.push(format!("namespaces of its own, which this machine refuses: {why}"));
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

/// Debian's packages that are missing for it; for others than root nothing helps.
pub(super) fn packages() -> Vec<&'static str> {
    if !is_root() {
        return Vec::new();
    }
    let busybox = is_dynamic("/bin/busybox").then_some("busybox-static");
    let lacking = PROGRAMS.iter().filter(|(name, _)| !exists(name)).map(|(_, package)| *package);
    let mut packages: Vec<_> = lacking.chain(busybox).collect();
    packages.dedup();
    packages
}

/// Why the kernel gives this process no namespaces of its own, as it is in some containers.
fn no_namespaces() -> Option<String> {
    let asked =
        Command::new("unshare").args(["--mount", "--net", "--pid", "--fork", "true"]).output();
    match asked {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("unshare: {error}")),
    }
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
