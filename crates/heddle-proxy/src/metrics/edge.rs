//! Label text: who calls whom, as Istio's 25 labels say it.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
};

use heddle_model::{ServiceName, discovery::WorkloadInfo};
use heddle_wire::local::proxy_config::ProxyConfig;

use super::tags::{OVERFLOW, UNKNOWN, Written};
use crate::refusal::{Flag, Flags};

/// Istio's `destination_service_name` for destinations outside the mesh.
const PASSTHROUGH: &str = "PassthroughCluster";
/// The same for what a Sidecar does not let through.
const BLACK_HOLE: &str = "BlackHoleCluster";
/// The same for undeclared ports of this workload.
const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";

/// Who reports: this workload, as its peers see it.
#[derive(Debug)]
pub(super) struct Own {
    mesh: String,
    pub(super) workload: WorkloadInfo,
}

impl Own {
    pub(super) fn of(config: &ProxyConfig) -> Self {
        let ProxyConfig { namespace, service, .. } = config;
        let workload = WorkloadInfo {
            id: config.workload.clone(),
            name: config.name.clone(),
            namespace: namespace.clone(),
            identity: config.identity(),
            // A workload of no service has no name here.
            services: (!service.is_empty())
                .then(|| ServiceName { namespace: namespace.clone(), name: service.clone() })
                .into_iter()
                .collect(),
            version: config.version.clone(),
            labels: config.labels.clone(),
            ports: config.ports.clone(),
        };
        Self { mesh: config.mesh.clone(), workload }
    }
}

/// Which side reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reporter {
    /// The client's sidecar.
    Source,
    /// The server's sidecar.
    Destination,
}

/// The destination service as three labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceLabels {
    service: String,
    name: String,
    namespace: String,
}

impl ServiceLabels {
    pub(crate) fn of(service: &ServiceName) -> Self {
        Self {
            service: service.fqdn(),
            name: service.name.clone(),
            namespace: service.namespace.clone(),
        }
    }

    /// A destination outside the mesh, with the host if HTTP told one.
    pub(crate) fn passthrough(host: Option<&str>) -> Self {
        Self {
            service: host.unwrap_or(UNKNOWN).to_owned(),
            name: PASSTHROUGH.to_owned(),
            namespace: UNKNOWN.to_owned(),
        }
    }

    /// The same where nothing of the kind may be called.
    pub(crate) fn black_hole(host: Option<&str>) -> Self {
        Self { name: BLACK_HOLE.to_owned(), ..Self::passthrough(host) }
    }

    /// A port of this workload that nothing declared.
    pub(crate) fn inbound_passthrough(own: &WorkloadInfo) -> Self {
        Self {
            service: own.first_service().map_or_else(|| UNKNOWN.to_owned(), ServiceName::fqdn),
            name: INBOUND_PASSTHROUGH.to_owned(),
            namespace: own.namespace.clone(),
        }
    }

    /// Its full name, or the host outside; `None` where nothing is known but an address.
    pub(crate) fn known(&self) -> Option<&str> {
        Some(self.service.as_str()).filter(|service| *service != UNKNOWN)
    }

    /// Its namespace; `None` for what is outside.
    pub(crate) fn namespace(&self) -> Option<&str> {
        Some(self.namespace.as_str()).filter(|namespace| *namespace != UNKNOWN)
    }

    /// Is it named by what some request said, so that there may be any number of them?
    pub(super) fn is_host_outside(&self) -> bool {
        [PASSTHROUGH, BLACK_HOLE].contains(&self.name.as_str()) && self.service != UNKNOWN
    }

    /// `destination_service`, or for what belongs to no service the name that says so.
    pub(super) fn verdict_label(&self) -> &str {
        if self.service == UNKNOWN { &self.name } else { &self.service }
    }
}

/// What a request was in gRPC's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Grpc {
    /// No call of gRPC.
    #[default]
    No,
    /// One that was not answered with a status.
    Unanswered,
    /// One with this status.
    Status(u8),
}

impl Grpc {
    /// A number of its own for each, below 2^16.
    pub(crate) fn code(self) -> u16 {
        match self {
            Self::No => 0,
            Self::Unanswered => 1,
            Self::Status(status) => 2 + u16::from(status),
        }
    }

    /// Istio's `request_protocol`.
    fn protocol(self) -> &'static str {
        if self == Self::No { "http" } else { "grpc" }
    }
}

impl fmt::Display for Grpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No | Self::Unanswered => Ok(()),
            Self::Status(status) => write!(f, "{status}"),
        }
    }
}

/// What was answered, by which requests of one edge are told apart.
pub(crate) type HttpKey = (u16, Grpc, Flags);

/// One edge: this workload, the other one, and the service called.
#[derive(Debug, Clone)]
pub(crate) struct Edge {
    pub(crate) reporter: Reporter,
    /// The other workload; `None`: not known, or none was picked.
    pub(crate) peer: Option<Arc<WorkloadInfo>>,
    pub(crate) service: ServiceLabels,
}

impl Edge {
    pub(super) fn http_labels(
        &self,
        own: &Own,
        (status, grpc, flags): HttpKey,
        written: Written<'_>,
    ) -> String {
        let mut labels = Labels::new(written);
        self.write(own, &mut labels);
        labels.put("request_protocol", grpc.protocol());
        labels.put("response_code", status);
        labels.put("grpc_response_status", grpc);
        labels.put("response_flags", flags);
        labels.end()
    }

    /// Keeps service and status class, and whether the answer was injected: a failure on purpose must
    /// not look like one of the service's.
    pub(super) fn http_overflow_labels(
        &self,
        own: &Own,
        (status, grpc, flags): HttpKey,
        written: Written<'_>,
    ) -> [String; 2] {
        let flags = if flags.has(Flag::FI) { Flag::FI.name() } else { "-" };
        self.overflow_labels(own, written).map(|mut labels| {
            labels.put("request_protocol", grpc.protocol());
            labels.put("response_code", format_args!("{}xx", status / 100));
            labels.put("grpc_response_status", "");
            labels.put("response_flags", flags);
            labels.end()
        })
    }

    pub(super) fn tcp_labels(&self, own: &Own, flags: Flags, written: Written<'_>) -> String {
        let mut labels = Labels::new(written);
        self.write(own, &mut labels);
        labels.put("request_protocol", "tcp");
        labels.put("response_flags", flags);
        labels.end()
    }

    pub(super) fn tcp_overflow_labels(&self, own: &Own, written: Written<'_>) -> [String; 2] {
        self.overflow_labels(own, written).map(|mut labels| {
            labels.put("request_protocol", "tcp");
            labels.put("response_flags", "-");
            labels.end()
        })
    }

    fn write(&self, own: &Own, labels: &mut Labels<'_>) {
        let other = self.peer.as_deref().map_or(Party::UNKNOWN, |peer| Party::of(peer, &own.mesh));
        self.parties(Party::of(&own.workload, &own.mesh), other, &self.service, labels);
    }

    /// Without the other workload; then without the service too. Of a host outside nothing is left but
    /// that it is outside: those that find no room are to take none from services.
    fn overflow_labels<'a>(&self, own: &Own, written: Written<'a>) -> [Labels<'a>; 2] {
        let own = Party::of(&own.workload, &own.mesh);
        let made = |other, service: &ServiceLabels| {
            let mut labels = Labels::new(written.folded());
            self.parties(own, other, service, &mut labels);
            labels
        };
        if self.service.is_host_outside() {
            let hosts = ServiceLabels::passthrough(Some(OVERFLOW));
            return [made(Party::UNKNOWN, &hosts), made(Party::UNKNOWN, &hosts)];
        }
        let nameless = ServiceLabels {
            service: OVERFLOW.to_owned(),
            name: OVERFLOW.to_owned(),
            namespace: OVERFLOW.to_owned(),
        };
        [made(Party::OVERFLOW, &self.service), made(Party::OVERFLOW, &nameless)]
    }

    fn parties(
        &self,
        own: Party<'_>,
        other: Party<'_>,
        service: &ServiceLabels,
        labels: &mut Labels<'_>,
    ) {
        let (reporter, source, destination) = match self.reporter {
            Reporter::Source => ("source", own, other),
            Reporter::Destination => ("destination", other, own),
        };
        labels.put("reporter", reporter);
        source.write(labels, &Party::OF_SOURCE);
        destination.write(labels, &Party::OF_DESTINATION);
        labels.put("destination_service", Escaped(&service.service));
        labels.put("destination_service_name", Escaped(&service.name));
        labels.put("destination_service_namespace", Escaped(&service.namespace));
        labels.put("connection_security_policy", "none");
    }
}

/// The text of a label set, label by label.
struct Labels<'a> {
    text: String,
    written: Written<'a>,
    /// Standard labels that a rule gave another value, so that they are not written once more.
    given: Vec<&'static str>,
}

impl<'a> Labels<'a> {
    fn new(written: Written<'a>) -> Self {
        Self { text: String::with_capacity(1024), written, given: Vec::new() }
    }

    fn put(&mut self, name: &'static str, value: impl fmt::Display) {
        match self.written.instead(name) {
            None => self.write(name, value),
            Some(None) => {}
            Some(Some(instead)) => {
                self.given.push(name);
                self.write(name, Escaped(instead));
            }
        }
    }

    fn write(&mut self, name: &str, value: impl fmt::Display) {
        let comma = if self.text.is_empty() { "" } else { "," };
        let _ = write!(self.text, "{comma}{name}=\"{value}\"");
    }

    /// The text, with the tags that are none of the standard ones.
    fn end(mut self) -> String {
        let given = std::mem::take(&mut self.given);
        for (name, value) in self.written.all().filter(|(name, _)| !given.contains(name)) {
            self.write(name, Escaped(value));
        }
        self.text
    }
}

/// One side of an edge as eight labels.
#[derive(Debug, Clone, Copy)]
struct Party<'a> {
    workload: &'a str,
    namespace: &'a str,
    app: &'a str,
    version: &'a str,
    canonical_service: &'a str,
    canonical_revision: &'a str,
    cluster: &'a str,
}

impl<'a> Party<'a> {
    const OF_SOURCE: [&'static str; 8] = [
        "source_workload",
        "source_workload_namespace",
        "source_principal",
        "source_app",
        "source_version",
        "source_canonical_service",
        "source_canonical_revision",
        "source_cluster",
    ];
    const OF_DESTINATION: [&'static str; 8] = [
        "destination_workload",
        "destination_workload_namespace",
        "destination_principal",
        "destination_app",
        "destination_version",
        "destination_canonical_service",
        "destination_canonical_revision",
        "destination_cluster",
    ];
    /// Istio says `latest` for the revision even of a peer it does not know.
    const UNKNOWN: Self = Self {
        workload: UNKNOWN,
        namespace: UNKNOWN,
        app: UNKNOWN,
        version: UNKNOWN,
        canonical_service: UNKNOWN,
        canonical_revision: "latest",
        cluster: UNKNOWN,
    };
    const OVERFLOW: Self = Self {
        workload: OVERFLOW,
        namespace: OVERFLOW,
        app: OVERFLOW,
        version: OVERFLOW,
        canonical_service: OVERFLOW,
        canonical_revision: OVERFLOW,
        cluster: OVERFLOW,
    };

    fn of(workload: &'a WorkloadInfo, mesh: &'a str) -> Self {
        let label = |name: &str| workload.labels.get(name).map(String::as_str);
        let version = Some(workload.version.as_str()).filter(|version| !version.is_empty());
        let app = label("app");
        let canonical = workload.canonical_name();
        Self {
            workload: &workload.name,
            namespace: &workload.namespace,
            app: app.unwrap_or(canonical),
            version: version.unwrap_or(UNKNOWN),
            canonical_service: canonical,
            canonical_revision: workload.canonical_revision(),
            cluster: mesh,
        }
    }

    fn write(&self, labels: &mut Labels<'_>, names: &[&'static str; 8]) {
        let values = [
            self.workload,
            self.namespace,
            // No mutual TLS yet, so nobody has proved a name.
            UNKNOWN,
            self.app,
            self.version,
            self.canonical_service,
            self.canonical_revision,
            self.cluster,
        ];
        for (name, value) in names.iter().zip(values) {
            labels.put(name, Escaped(value));
        }
    }
}

/// A label value as Prometheus' text format wants it.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.split_inclusive(['\\', '"', '\n']) {
            match part.as_bytes().last() {
                Some(b'\n') => write!(f, "{}\\n", &part[..part.len() - 1])?,
                Some(last @ (b'\\' | b'"')) => {
                    write!(f, "{}\\{}", &part[..part.len() - 1], char::from(*last))?;
                }
                _ => f.write_str(part)?,
            }
        }
        Ok(())
    }
}
