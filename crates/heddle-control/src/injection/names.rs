//! The names that are promised to users and to other parts: of containers, volumes, labels, annotations.

/// Writes the redirection rules, then ends.
pub(super) const INIT: &str = "heddle-init";
/// The sidecar.
pub(super) const PROXY: &str = "heddle-proxy";
/// Istio's names of the two: a container of a user's that has them is meant for ours.
pub(super) const ISTIO_INIT: &str = "istio-init";
/// As there.
pub(super) const ISTIO_PROXY: &str = "istio-proxy";
/// What Istio's own injector leaves: such a pod has a sidecar.
pub(super) const ISTIO_STATUS: &str = "sidecar.istio.io/status";
/// What was added, as JSON.
pub(super) const STATUS: &str = "heddle.dev/status";
/// The kubelet's mark of a pod that stands for a file on a node.
pub(super) const MIRROR_POD: &str = "kubernetes.io/config.mirror";

/// The projected token that a sidecar shows for its first certificate.
pub(super) const VOLUME_TOKEN: &str = "heddle-token";
/// The roots of the mesh.
pub(super) const VOLUME_CA: &str = "heddle-ca";
/// The last good set.
pub(super) const VOLUME_STATE: &str = "heddle-state";
/// The pod's labels and annotations.
pub(super) const VOLUME_PODINFO: &str = "heddle-podinfo";

/// What an annotation is called, ours and Istio's; both mean the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) ours: &'static str,
    pub(super) istio: &'static str,
}

macro_rules! names {
    ($($name:ident: $ours:literal, $istio:literal;)*) => {
        $(pub(super) const $name: Name = Name { ours: $ours, istio: $istio };)*

        /// Every annotation that is honoured.
        pub(super) const HONOURED: &[Name] = &[$($name),*];
    };
}

names! {
    INJECT: "heddle.dev/inject", "sidecar.istio.io/inject";
    REVISION: "heddle.dev/rev", "istio.io/rev";
    PROXY_IMAGE: "heddle.dev/proxy-image", "sidecar.istio.io/proxyImage";
    PROXY_CPU: "heddle.dev/proxy-cpu", "sidecar.istio.io/proxyCPU";
    PROXY_CPU_LIMIT: "heddle.dev/proxy-cpu-limit", "sidecar.istio.io/proxyCPULimit";
    PROXY_MEMORY: "heddle.dev/proxy-memory", "sidecar.istio.io/proxyMemory";
    PROXY_MEMORY_LIMIT: "heddle.dev/proxy-memory-limit", "sidecar.istio.io/proxyMemoryLimit";
    INTERCEPTION: "heddle.dev/interception-mode", "sidecar.istio.io/interceptionMode";
    REWRITE_PROBES: "heddle.dev/rewrite-probes", "sidecar.istio.io/rewriteAppHTTPProbers";
    NATIVE_SIDECAR: "heddle.dev/native-sidecar", "sidecar.istio.io/nativeSidecar";
    LOG_LEVEL: "heddle.dev/log-level", "sidecar.istio.io/logLevel";
    DISCOVERY: "heddle.dev/discovery-address", "sidecar.istio.io/discoveryAddress";
    USER_VOLUME: "heddle.dev/user-volume", "sidecar.istio.io/userVolume";
    USER_VOLUME_MOUNT: "heddle.dev/user-volume-mount", "sidecar.istio.io/userVolumeMount";
    INCLUDE_OUTBOUND_RANGES: "heddle.dev/include-outbound-ip-ranges", "traffic.sidecar.istio.io/includeOutboundIPRanges";
    EXCLUDE_OUTBOUND_RANGES: "heddle.dev/exclude-outbound-ip-ranges", "traffic.sidecar.istio.io/excludeOutboundIPRanges";
    INCLUDE_OUTBOUND_PORTS: "heddle.dev/include-outbound-ports", "traffic.sidecar.istio.io/includeOutboundPorts";
    EXCLUDE_OUTBOUND_PORTS: "heddle.dev/exclude-outbound-ports", "traffic.sidecar.istio.io/excludeOutboundPorts";
    INCLUDE_INBOUND_PORTS: "heddle.dev/include-inbound-ports", "traffic.sidecar.istio.io/includeInboundPorts";
    EXCLUDE_INBOUND_PORTS: "heddle.dev/exclude-inbound-ports", "traffic.sidecar.istio.io/excludeInboundPorts";
    EXCLUDE_INTERFACES: "heddle.dev/exclude-interfaces", "traffic.sidecar.istio.io/excludeInterfaces";
    READY_DELAY: "heddle.dev/readiness-initial-delay-seconds", "readiness.status.sidecar.istio.io/initialDelaySeconds";
    READY_PERIOD: "heddle.dev/readiness-period-seconds", "readiness.status.sidecar.istio.io/periodSeconds";
    READY_FAILURES: "heddle.dev/readiness-failure-threshold", "readiness.status.sidecar.istio.io/failureThreshold";
    MERGE_METRICS: "heddle.dev/scrape", "prometheus.istio.io/merge-metrics";
    PROXY_CONFIG: "heddle.dev/proxy-config", "proxy.istio.io/config";
}

/// Groups whose annotations are for an injector: one that is not honoured is told.
pub(super) const GROUPS: [&str; 6] = [
    "sidecar.istio.io/",
    "traffic.sidecar.istio.io/",
    "status.sidecar.istio.io/",
    "readiness.status.sidecar.istio.io/",
    "inject.istio.io/",
    "heddle.dev/",
];
