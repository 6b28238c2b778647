//! The namespaces a cluster lives in, by their first process.
//!
//! That process does nothing but take in orphans. When it ends, however it ends, the kernel ends every process of
//! its process namespace, and with the last of them the network and all mounts are gone.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use super::folder::{Folder, INSIDE, make};
use crate::{
    command::{output, program, run},
    kube::node::Families,
    time::{now, pause},
};

/// What the first process does. Its line of `stat` still counts processes as the host does, and is there in
/// whole or not at all. `$1` is the cluster's folder, `$2` where it is seen inside, then come the node's addresses and those of
/// Services, of IPv6 only where the cluster has it. Calls of the node's own to a Service (the API server's to a webhook) are
/// translated only if there is a route for them.
const FIRST: &str = r#"
set -eu
read -r line < /proc/self/stat
mount --make-rshared /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p "$2" /run/lock
mount --bind "$1" "$2"
mount --bind "$2/var-lib" /var/lib
mount --bind "$2/var-log" /var/log
ip link set lo up
ip link add node0 type bridge
ip address add "$3/24" dev node0
ip link set node0 up
ip route add "$4" dev node0
if [ $# -gt 4 ]; then
  ip address add "$5/64" dev node0 nodad
  ip route add "$6" dev node0
  echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
fi
echo 1 > /proc/sys/net/ipv4/ip_forward
echo "$line" > "$2/first.new"
mv "$2/first.new" "$2/first"
sleep infinity &
wait
"#;
/// How long the namespaces may take to be made, and to be gone.
const PATIENCE: Duration = Duration::from_secs(20);
/// The file that says who the first process is.
const RECORD: &str = "first";

/// The first process of a cluster's namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Namespaces {
    pid: u32,
    /// When it started, in ticks since the machine did: a process with this number and another time is a stranger.
    started: String,
}

impl Namespaces {
    /// Makes them.
    pub(super) fn make(folder: &Folder) -> Result<Self, String> {
        for part in ["var-lib", "var-log", "logs", "pids"] {
            make(&folder.at(part))?;
        }
        let log = File::create(folder.log("first")).map_err(|e| format!("the first log: {e}"))?;
        let errors = log.try_clone().map_err(|e| format!("the first log: {e}"))?;
        let mut first = program("setsid", &["unshare", "--mount", "--net", "--pid", "--fork"]);
        first.args(["--propagation", "private", "--", "sh", "-c", FIRST, "sh"]);
        let families = Families::of(folder);
        first.arg(folder.path()).arg(INSIDE);
        for (node, services) in families.node().into_iter().zip(families.services()) {
            first.args([node, services]);
        }
        first.stdin(Stdio::null()).stdout(log).stderr(errors);
        let mut child = first.spawn().map_err(|e| format!("unshare: {e}"))?;
        let deadline = now() + PATIENCE;
        loop {
            if let Some(made) = Self::of(folder) {
                return Ok(made);
            }
            let ended = child.try_wait().map_err(|e| format!("unshare: {e}"))?;
            if ended.is_some() || now() > deadline {
                let said = fs::read_to_string(folder.log("first")).unwrap_or_default();
                return Err(format!("the cluster's namespaces could not be made: {}", said.trim()));
            }
            pause(Duration::from_millis(20));
        }
    }

    /// Those of a cluster that runs.
    pub(super) fn of(folder: &Folder) -> Option<Self> {
        let line = fs::read_to_string(folder.at(RECORD)).ok()?;
        let recorded =
            Self { pid: line.split(' ').next()?.parse().ok()?, started: started(&line)? };
        recorded.is_alive().then_some(recorded)
    }

    /// The same, where it has to run.
    ///
    /// # Errors
    /// It does not, and how it would.
    pub(super) fn running(folder: &Folder) -> Result<Self, String> {
        let name = folder.name();
        Self::of(folder)
            .ok_or_else(|| format!("no cluster `{name}` runs: cargo xtask kube up --name {name}"))
    }

    fn is_alive(&self) -> bool {
        let line = fs::read_to_string(format!("/proc/{}/stat", self.pid));
        line.ok().and_then(|line| started(&line)).is_some_and(|time| time == self.started)
    }

    /// Its number, as the host counts.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// A command in the cluster's network only: it sees the host's files and processes.
    pub(super) fn in_network(&self, command: &str, arguments: &[&str]) -> Command {
        self.enter(&["--net"], command, arguments)
    }

    /// A command among the cluster's own processes and mounts.
    pub(super) fn in_all(&self, command: &str, arguments: &[&str]) -> Command {
        self.enter(&["--net", "--mount", "--pid"], command, arguments)
    }

    fn enter(&self, which: &[&str], command: &str, arguments: &[&str]) -> Command {
        let mut entered = program("nsenter", &["--target", &self.pid.to_string()]);
        entered.args(which).arg("--").arg(command).args(arguments);
        entered
    }

    /// Ends all that lives in them, and waits until it has ended.
    pub(super) fn end(&self) -> Result<(), String> {
        run(&mut program("kill", &["-KILL", &self.pid.to_string()]))?;
        let deadline = now() + PATIENCE;
        while self.is_alive() {
            if now() > deadline {
                return Err(format!("process {} was killed and does not end", self.pid));
            }
            pause(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// The start time of a line of `/proc/PID/stat`; the name in parentheses may hold blanks. A process that has
/// ended and was not asked after yet has none.
fn started(line: &str) -> Option<String> {
    let mut fields = line.rsplit(')').next()?.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    // The 22nd of all, the state being the third.
    fields.nth(18).map(str::to_owned)
}

/// Removes the control groups of containers that have ended with the namespaces.
pub(super) fn remove_control_groups(folder: &Folder) -> Result<(), String> {
    let base = Path::new("/sys/fs/cgroup");
    // The old kind has a tree for each controller, the new one a single tree.
    let trees = fs::read_dir(base).into_iter().flatten().flatten().map(|entry| entry.path());
    for tree in trees.chain([base.to_owned()]) {
        let group = tree.join(folder.control_group());
        if group.is_dir() {
            // Folders only: files of a control group are no files.
            output(&mut program(
                "find",
                &[&group.to_string_lossy(), "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"],
            ))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::started;

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let fields = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        for name in ["sh", "a b", "x) S 1"] {
            assert_eq!(
                started(&format!("17 ({name}) {fields}")).as_deref(),
                Some("4711"),
                "{name}"
            );
        }
        assert_eq!(started("17 (sh) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711"), None);
        assert_eq!(started(""), None);
    }
}
