//! The processes of a cluster: how each is started, and how it is told that it works.

use std::{
    fs::{self, File},
    process::Stdio,
    time::Duration,
};

use super::{
    folder::{Folder, INSIDE},
    namespaces::Namespaces,
    node::{Families, NODE_ADDRESS, NODE_NAME},
};
use crate::{
    command::program,
    time::{now, pause},
};

/// How long a component may take until it works; on a busy machine the API server is the slowest.
const PATIENCE: Duration = Duration::from_secs(120);
/// How much of a component's log is shown where it does not work, lines.
const LOG_LINES: usize = 15;
/// Puts its number, as its own namespace counts, into `$0` before it becomes the component.
const RECORDED: &str = r#"echo $$ > "$0"; exec "$@""#;
/// Debian has `runc` and the CNI plugins where an ordinary user's path does not lead.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One process.
#[derive(Debug)]
pub(super) struct Component {
    /// Its name, which is that of its log and, but for containerd's, of its program.
    pub(super) name: &'static str,
    /// Arguments, separated by blanks; `@` is the cluster's folder.
    arguments: &'static str,
    /// A command that succeeds once it works.
    ready: &'static [&'static str],
}

/// Curl: quietly, an error status is a failure, any certificate.
macro_rules! answers {
    ($url:expr) => {
        &["curl", "-sfk", "--max-time", "2", "-o", "/dev/null", $url]
    };
}

/// What nothing else is needed for.
pub(super) const FIRST: [Component; 2] = [
    Component {
        name: "containerd",
        arguments: "--config @/containerd.toml",
        ready: &["ctr", "version"],
    },
    Component {
        name: "etcd",
        arguments: "--data-dir @/etcd --unsafe-no-fsync --log-level warn
            --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379
            --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380
            --initial-cluster default=http://127.0.0.1:2380",
        ready: answers!("http://127.0.0.1:2379/health"),
    },
];

/// What all others talk to.
pub(super) const API_SERVER: Component = Component {
    name: "kube-apiserver",
    arguments: "--etcd-servers=http://127.0.0.1:2379 --advertise-address={node} --secure-port=6443
        --service-cluster-ip-range={services} --allow-privileged=true --authorization-mode=RBAC
        --token-auth-file=@/tokens.csv --client-ca-file=@/pki/ca.crt
        --tls-cert-file=@/pki/server.crt --tls-private-key-file=@/pki/server.key --cert-dir=@/pki
        --service-account-issuer=https://kubernetes.default.svc.cluster.local
        --service-account-key-file=@/pki/tokens.key --service-account-signing-key-file=@/pki/tokens.key
        --kubelet-preferred-address-types=InternalIP",
    ready: answers!("https://127.0.0.1:6443/readyz"),
};

/// What needs it.
pub(super) const OTHERS: [Component; 5] = [
    Component {
        name: "kube-controller-manager",
        arguments: "--kubeconfig=@/kubeconfig --leader-elect=false --use-service-account-credentials
            --service-account-private-key-file=@/pki/tokens.key --root-ca-file=@/pki/ca.crt
            --cluster-signing-cert-file=@/pki/ca.crt --cluster-signing-key-file=@/pki/ca.key
            --bind-address=127.0.0.1 --cert-dir=@/pki/controllers",
        ready: answers!("https://127.0.0.1:10257/healthz"),
    },
    Component {
        name: "kube-scheduler",
        arguments: "--kubeconfig=@/kubeconfig --leader-elect=false --bind-address=127.0.0.1
            --cert-dir=@/pki/scheduler",
        ready: answers!("https://127.0.0.1:10259/healthz"),
    },
    Component {
        name: "kube-proxy",
        arguments: "--config=@/kube-proxy.yaml",
        ready: answers!("http://127.0.0.1:10256/livez"),
    },
    Component {
        name: "coredns",
        arguments: "-conf @/Corefile",
        ready: answers!("http://127.0.0.1:8181/ready"),
    },
    Component {
        name: "kubelet",
        arguments: "--config=@/kubelet.yaml --kubeconfig=@/kubeconfig --root-dir=@/kubelet --cert-dir=@/pki/kubelet
            --hostname-override={name} --node-ip={nodes}",
        ready: answers!("http://127.0.0.1:10248/healthz"),
    },
];

/// Every component, in the order in which they start.
pub(super) fn all() -> impl Iterator<Item = &'static Component> {
    FIRST.iter().chain([&API_SERVER]).chain(&OTHERS)
}

impl Component {
    /// Starts it; it outlives this process and ends with the namespaces.
    pub(super) fn start(&self, folder: &Folder, namespaces: &Namespaces) -> Result<(), String> {
        let log = File::options().create(true).append(true).open(folder.log(self.name));
        let log = log.map_err(|e| format!("{}: {e}", folder.log(self.name).display()))?;
        let errors = log.try_clone().map_err(|e| format!("{}: {e}", self.name))?;
        let own = format!("{INSIDE}/bin/{}", self.name);
        let path = if self.name == "containerd" { self.name } else { &own };
        let record = format!("{INSIDE}/pids/{}", self.name);
        let arguments = self.arguments(Families::of(folder));
        let words: Vec<&str> = ["-c", RECORDED, &record, path]
            .into_iter()
            .chain(arguments.split_whitespace())
            .collect();
        let inner = namespaces.in_all("sh", &words);
        // A session of its own: Ctrl-C at the terminal is not meant for it.
        let mut command = program("setsid", &[]);
        command.arg(inner.get_program()).args(inner.get_args()).env("PATH", PATH);
        command.env_remove("KUBECONFIG").env("HOME", INSIDE);
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        command.spawn().map(drop).map_err(|e| format!("{}: {e}", self.name))
    }

    /// Waits until it works.
    ///
    /// # Errors
    /// That it does not, with the end of its log.
    pub(super) fn wait(&self, folder: &Folder, namespaces: &Namespaces) -> Result<(), String> {
        let [command, arguments @ ..] = self.ready else { return Ok(()) };
        let works = || {
            let mut command = namespaces.in_all(command, arguments);
            command.env("PATH", PATH).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let deadline = now() + PATIENCE;
        while !works() {
            if now() > deadline || !self.runs(folder, namespaces) {
                let end = tail(&fs::read_to_string(folder.log(self.name)).unwrap_or_default());
                let log = folder.log(self.name);
                return Err(format!("{} does not work; {} ends:\n{end}", self.name, log.display()));
            }
            pause(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Is its process there? One that has not written its number yet counts as there.
    pub(super) fn runs(&self, folder: &Folder, namespaces: &Namespaces) -> bool {
        let Some(pid) = self.pid(folder) else { return true };
        let arguments = ["-0", pid.as_str()];
        let mut asked = namespaces.in_all("kill", &arguments);
        asked.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    /// Its number, as its own namespace counts.
    pub(super) fn pid(&self, folder: &Folder) -> Option<String> {
        let text = fs::read_to_string(folder.at("pids").join(self.name)).ok()?;
        Some(text.trim().to_owned()).filter(|pid| !pid.is_empty())
    }

    fn arguments(&self, families: Families) -> String {
        let (nodes, services) = (families.node().join(","), families.services().join(","));
        let placed = self.arguments.replace('@', INSIDE).replace("{node}", NODE_ADDRESS);
        let placed = placed.replace("{name}", NODE_NAME).replace("{nodes}", &nodes);
        placed.replace("{services}", &services)
    }
}

/// Ends a component at once, as a crash would, starts it again and waits until it works.
///
/// # Errors
/// No such component, no such cluster, or it does not work any more.
pub(super) fn restart(folder: &Folder, name: &str) -> Result<(), String> {
    let namespaces = Namespaces::running(folder)?;
    let component = all().find(|component| component.name == name).ok_or_else(|| {
        let names: Vec<_> = all().map(|component| component.name).collect();
        format!("`{name}` is no component: {}", names.join(", "))
    })?;
    if let Some(pid) = component.pid(folder) {
        drop(namespaces.in_all("kill", &["-KILL", &pid]).stderr(Stdio::null()).status());
        let deadline = now() + PATIENCE;
        while component.runs(folder, &namespaces) && now() < deadline {
            pause(Duration::from_millis(20));
        }
        drop(fs::remove_file(folder.at("pids").join(name)));
    }
    component.start(folder, &namespaces)?;
    component.wait(folder, &namespaces)
}

/// The last lines of a log.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::{Families, all, tail};

    #[test]
    fn no_argument_is_left_to_be_filled_in() {
        for component in all() {
            for families in [Families::Ipv4, Families::Both] {
                let arguments = component.arguments(families);
                assert!(!arguments.contains(['@', '{', '}']), "{arguments}");
            }
        }
    }

    #[test]
    fn the_end_of_a_log_is_shown_and_a_short_one_whole() {
        assert_eq!(tail("a\nb"), "a\nb");
        let long: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        assert!(tail(&long.join("\n")).starts_with("85\n86"));
    }
}
