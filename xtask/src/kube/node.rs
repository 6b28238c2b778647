//! The node: its addresses, and what containerd, the CNI plugins, the kubelet and kube-proxy are told.
//!
//! Paths are those of the cluster's mount namespace (`INSIDE`).

use serde_json::json;

use super::folder::{Folder, INSIDE};

/// The node's own address; the API server listens there.
pub(super) const NODE_ADDRESS: &str = "10.77.0.1";
/// Its name.
pub(super) const NODE_NAME: &str = "node-1";
/// The same where a cluster has both families.
const NODE_ADDRESS_V6: &str = "fd77::1";
/// Addresses of Services.
const SERVICES: &str = "10.96.0.0/16";
const SERVICES_V6: &str = "fd96::/112";
/// The API server's own Service.
pub(super) const API_SERVICE: &str = "10.96.0.1";
/// The Service of the cluster's names.
pub(super) const DNS_SERVICE: &str = "10.96.0.10";
/// Addresses of pods.
const PODS: &str = "10.244.0.0/24";
const PODS_V6: &str = "fd10:244::/64";
/// The file that says that a cluster has both families.
const BOTH_RECORD: &str = "dual-stack";
/// The image whose container holds a pod's namespaces.
pub(super) const PAUSE_IMAGE: &str = "heddle.dev/pause:test";
/// Who may do everything.
pub(super) const ADMIN_TOKEN: &str = "heddle-kube-admin";
/// Where containerd listens.
pub(super) const RUNTIME: &str = "/run/containerd/containerd.sock";

/// Linux's numbers of what is refused to a container whose node is to have no nftables, and of the refusal.
const AF_NETLINK: u32 = 16;
const NETLINK_NETFILTER: u32 = 12;
const EPROTONOSUPPORT: u32 = 93;

/// Which address families a cluster's pods and Services have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Families {
    /// IPv4 only: the kernel lets a pod wait a second or two for each address of IPv6.
    Ipv4,
    /// IPv4 first, and IPv6.
    Both,
}

impl Families {
    /// Those that were recorded.
    pub(super) fn of(folder: &Folder) -> Self {
        if folder.at(BOTH_RECORD).exists() { Self::Both } else { Self::Ipv4 }
    }

    /// For later commands about the same cluster.
    pub(super) fn record(self, folder: &Folder) -> Result<(), String> {
        match self {
            Self::Ipv4 => Ok(()),
            Self::Both => folder.write(BOTH_RECORD, ""),
        }
    }

    /// The node's addresses, those of Services, and those of pods, one a family.
    pub(super) fn node(self) -> Vec<&'static str> {
        self.these(NODE_ADDRESS, NODE_ADDRESS_V6)
    }

    pub(super) fn services(self) -> Vec<&'static str> {
        self.these(SERVICES, SERVICES_V6)
    }

    fn pods(self) -> Vec<&'static str> {
        self.these(PODS, PODS_V6)
    }

    fn these(self, v4: &'static str, v6: &'static str) -> Vec<&'static str> {
        match self {
            Self::Ipv4 => vec![v4],
            Self::Both => vec![v4, v6],
        }
    }
}

/// Writes every file that a component reads.
pub(super) fn write_all(folder: &Folder) -> Result<(), String> {
    let families = Families::of(folder);
    folder.write("kubeconfig", &kubeconfig("pki/ca.crt"))?;
    folder.write("tokens.csv", &format!("{ADMIN_TOKEN},admin,admin,system:masters\n"))?;
    folder.write("containerd.toml", &containerd())?;
    folder.write("cni/10-heddle.conflist", &network(families))?;
    folder.write("kubelet.yaml", &kubelet(folder))?;
    folder.write("kube-proxy.yaml", &kube_proxy(families))?;
    folder.write("kubelet/seccomp/no-nftables.json", &no_nftables())?;
    folder.write("Corefile", &corefile())
}

/// `authority` is relative to the file, so that it is right outside and inside.
fn kubeconfig(authority: &str) -> String {
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: heddle
  cluster: {{server: 'https://{NODE_ADDRESS}:6443', certificate-authority: {authority}}}
users:
- name: admin
  user: {{token: {ADMIN_TOKEN}}}
contexts:
- name: heddle
  context: {{cluster: heddle, user: admin}}
current-context: heddle
"
    )
}

/// `restrict_oom_score_adj`: where the capability to lower it is missing, containers would not start.
fn containerd() -> String {
    format!(
        r#"version = 2
root = "{INSIDE}/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = "{RUNTIME}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{INSIDE}/cni"
"#
    )
}

/// A cable per pod and routes between them: calls to a Service and their answers then take the same way,
/// which over a bridge needs a sysctl of the kernel.
fn network(families: Families) -> String {
    let ranges = families.pods().into_iter().map(|subnet| json!([{ "subnet": subnet }]));
    let ranges = json!(ranges.collect::<Vec<_>>());
    let all = match families {
        Families::Ipv4 => json!([{ "dst": "0.0.0.0/0" }]),
        Families::Both => json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]),
    };
    format!(
        r#"{{"cniVersion": "0.4.0", "name": "heddle", "plugins": [
  {{"type": "ptp", "mtu": 1500, "ipam": {{"type": "host-local", "dataDir": "/run/cni-addresses",
    "ranges": {ranges}, "routes": {all}}}}},
  {{"type": "portmap", "capabilities": {{"portMappings": true}}}}
]}}
"#
    )
}

/// A profile of system calls for containers: to them the kernel is one without nftables, which answers so to whoever
/// opens a socket of NETLINK_NETFILTER.
fn no_nftables() -> String {
    let refused = json!({
        "names": ["socket"],
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": EPROTONOSUPPORT,
        "args": [
            { "index": 0, "value": AF_NETLINK, "op": "SCMP_CMP_EQ" },
            { "index": 2, "value": NETLINK_NETFILTER, "op": "SCMP_CMP_EQ" },
        ],
    });
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [refused] }).to_string()
}

/// Image garbage collection goes by how full the host's disk is, and images here can be had nowhere else.
fn kubelet(folder: &Folder) -> String {
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {{enabled: true}}
  webhook: {{enabled: false}}
  x509: {{clientCAFile: {INSIDE}/pki/ca.crt}}
authorization: {{mode: AlwaysAllow}}
cgroupDriver: cgroupfs
cgroupRoot: /{}
cgroupsPerQOS: false
enforceNodeAllocatable: []
failSwapOn: false
failCgroupV1: false
resolvConf: /dev/null
clusterDNS: [{DNS_SERVICE}]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix://{RUNTIME}
podLogsDir: {INSIDE}/pods
evictionHard: {{}}
imageGCHighThresholdPercent: 100
maxPods: 200
registryPullQPS: 0
",
        folder.control_group()
    )
}

/// The API server reaches webhooks by their Services, so the node's own calls have to be translated too.
fn kube_proxy(families: Families) -> String {
    let pods = families.pods().join(",");
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: {NODE_NAME}
bindAddress: {NODE_ADDRESS}
clusterCIDR: {pods}
clientConnection: {{kubeconfig: {INSIDE}/kubeconfig}}
conntrack: {{maxPerNode: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
nftables: {{minSyncPeriod: 100ms}}
"
    )
}

/// Names of the cluster; all others do not exist, and are answered at once. In a block of their own: whatever the
/// order in a block, CoreDNS asks its template first.
fn corefile() -> String {
    format!(
        "cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {{
    errors
    ready 127.0.0.1:8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {INSIDE}/kubeconfig
        ttl 5
    }}
}}
.:53 {{
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"
    )
}
