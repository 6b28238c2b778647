//! Can this machine run a mesh for this user? Found out by doing it; settings are read only after
//! something was refused, to name the one that would help.

use std::{fs, path::Path};

use crate::{
    mount::MountPlan,
    netns_op::{Failure, OpError, Part},
    ns::{Mode, Namespaces, NsError, Step},
    sys,
};

/// Something the mesh needs and does not get here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}\n{remedy}")]
pub struct Missing {
    /// What was refused, with the kernel's reason.
    pub problem: String,
    /// What the user can do.
    pub remedy: String,
}

/// What a refusal was about, which decides the remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Namespaces(Step),
    Links,
    Rules,
    Sockets,
}

/// Makes the mesh's namespaces on trial, enters them, and mounts a file in a mount namespace of its
/// own there; all of it is gone when this returns. Links and rules are tried when the hub is set up
/// ([`crate::netns_op::Hub::set_up`]; see [`Missing::of_operation`]). Blocks for some milliseconds.
///
/// # Errors
/// What is missing and what would help.
pub fn check() -> Result<(), Missing> {
    let mode = Mode::of_caller();
    let namespaces = Namespaces::create(mode).map_err(|error| Missing::of_namespaces(&error))?;
    let mut mounts = MountPlan::new();
    if Path::new("/etc/hosts").exists() {
        let null = Path::new("/dev/null");
        mounts.bind(null, Path::new("/etc/hosts")).expect("invariant: the paths hold no NUL");
    }
    namespaces.try_enter(&mounts).map_err(|error| Missing::of_namespaces(&error))
}

impl Missing {
    /// What a refused namespace means for the user.
    pub fn of_namespaces(error: &NsError) -> Self {
        let errno = error.source.raw_os_error().unwrap_or(0);
        let remedy = remedy(Need::Namespaces(error.step), errno, Mode::of_caller(), &read_setting);
        Self { problem: error.to_string(), remedy }
    }

    /// What a refused operation in the hub means for the user.
    pub fn of_operation(error: &OpError) -> Self {
        let (need, errno) = match error {
            OpError::Failed(Failure { part, errno, .. }) => {
                let need = match part {
                    Part::Namespaces => Need::Namespaces(Step::MakeNet),
                    Part::Links => Need::Links,
                    Part::Rules => Need::Rules,
                    Part::Sockets => Need::Sockets,
                };
                (need, *errno)
            }
            OpError::Start(_) | OpError::NoAnswer(_) => (Need::Namespaces(Step::EnterNet), 0),
        };
        let remedy = remedy(need, errno, Mode::of_caller(), &read_setting);
        Self { problem: error.to_string(), remedy }
    }
}

fn read_setting(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

const USERNS_CLONE: &str = "/proc/sys/kernel/unprivileged_userns_clone";
const APPARMOR: &str = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";
const MAX_USER: &str = "/proc/sys/user/max_user_namespaces";
const MAX_NET: &str = "/proc/sys/user/max_net_namespaces";
const MAX_MOUNT: &str = "/proc/sys/user/max_mnt_namespaces";

/// One or two sentences: what to set, or `sudo`.
fn remedy(need: Need, errno: i32, mode: Mode, setting: &dyn Fn(&str) -> Option<String>) -> String {
    let is = |path: &str, value: &str| setting(path).is_some_and(|text| text == value);
    match (need, errno) {
        (Need::Namespaces(step), libc::ENOSPC) => limit_remedy(step, setting),
        (Need::Namespaces(Step::MakeUser), _) if is(USERNS_CLONE, "0") => {
            by_sysctl("kernel.unprivileged_userns_clone=1")
        }
        (Need::Namespaces(_) | Need::Links | Need::Rules, libc::EPERM | libc::EACCES)
            if mode == Mode::Rootless && is(APPARMOR, "1") =>
        {
            by_sysctl("kernel.apparmor_restrict_unprivileged_userns=0")
        }
        (Need::Namespaces(Step::MakeUser), libc::EINVAL | libc::ENOSYS) => {
            "This kernel has no user namespaces (CONFIG_USER_NS); run heddle with sudo.".to_owned()
        }
        (Need::Links, libc::EOPNOTSUPP) => {
            "The kernel lacks virtual links: `sudo modprobe -a bridge veth` (CONFIG_BRIDGE, \
             CONFIG_VETH) may add them."
                .to_owned()
        }
        (Need::Rules, libc::EOPNOTSUPP | libc::ENOENT | libc::EPROTONOSUPPORT) => {
            "The kernel lacks nftables with NAT: `sudo modprobe -a nf_tables nft_chain_nat \
             nft_redir` (CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT, CONFIG_NFT_REDIR) may add it."
                .to_owned()
        }
        (Need::Sockets, _) => {
            "The kernel cannot list sockets: `sudo modprobe -a inet_diag tcp_diag` \
             (CONFIG_INET_DIAG) may add that."
                .to_owned()
        }
        (_, libc::EPERM | libc::EACCES) => denied_remedy(mode),
        _ => "Please report this with the output of `uname -a`.".to_owned(),
    }
}

fn denied_remedy(mode: Mode) -> String {
    match mode {
        Mode::Root => "This root may not make namespaces; in a container, start it with \
             `--privileged` or with CAP_SYS_ADMIN, CAP_NET_ADMIN and a seccomp profile that allows \
             unshare and mount."
            .to_owned(),
        Mode::Rootless => {
            "User namespaces are denied here, by a security module or by a container's \
             seccomp profile: run heddle with sudo, or allow them for this user."
                .to_owned()
        }
    }
}

fn limit_remedy(step: Step, setting: &dyn Fn(&str) -> Option<String>) -> String {
    let (path, name) = match step {
        Step::MakeUser => (MAX_USER, "user.max_user_namespaces"),
        Step::MakeMount => (MAX_MOUNT, "user.max_mnt_namespaces"),
        _ => (MAX_NET, "user.max_net_namespaces"),
    };
    let now = setting(path).unwrap_or_else(|| "unknown".to_owned());
    format!(
        "The limit of namespaces is reached ({name} is {now}): {}",
        by_sysctl(&format!("{name}=10000"))
    )
}

fn by_sysctl(assignment: &str) -> String {
    let (uid, _) = sys::process::effective_ids();
    let sudo = if uid == 0 { "" } else { "sudo " };
    format!("`{sudo}sysctl -w {assignment}` would allow it; so would running heddle as root.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(need: Need, errno: i32, mode: Mode, settings: &[(&str, &str)]) -> String {
        remedy(need, errno, mode, &|path| {
            settings.iter().find(|(name, _)| *name == path).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_setting_that_refused_is_named() {
        let user = Need::Namespaces(Step::MakeUser);
        for (need, errno, settings, expected) in [
            (user, libc::EPERM, vec![(USERNS_CLONE, "0")], "kernel.unprivileged_userns_clone=1"),
            (user, libc::ENOSPC, vec![(MAX_USER, "0")], "user.max_user_namespaces is 0"),
            (
                Need::Namespaces(Step::Loopback),
                libc::EPERM,
                vec![(USERNS_CLONE, "1"), (APPARMOR, "1")],
                "kernel.apparmor_restrict_unprivileged_userns=0",
            ),
            (Need::Links, libc::EPERM, vec![(APPARMOR, "1")], "apparmor_restrict"),
            (user, libc::EPERM, vec![], "sudo"),
            (Need::Rules, libc::ENOENT, vec![], "modprobe"),
            (Need::Links, libc::EOPNOTSUPP, vec![], "veth"),
        ] {
            let advice = advice(need, errno, Mode::Rootless, &settings);
            assert!(advice.contains(expected), "{need:?} {errno}: {advice}");
        }
    }

    #[test]
    fn root_in_a_container_is_not_told_to_use_sudo() {
        let advice = advice(Need::Namespaces(Step::MakeNet), libc::EPERM, Mode::Root, &[]);
        assert!(advice.contains("--privileged") && !advice.contains("sudo"), "{advice}");
    }
}
