//! What must hold of a resource that came over the wire. After it nothing about a resource is left to
//! doubt but the compiling of its regular expressions.

use super::{
    AbortWith, AccessLog, Address, Answer, ClientTls, ClusterKey, ClusterPolicy, Collector,
    CorsPolicy, DefaultEndpoint, Destination, DestinationPort, Endpoint, Endpoints, Fault,
    FaultAbort, FaultDelay, GRPC_STATUSES, HeaderMatch, HeaderOperations, HeaderRules, HttpMatch,
    HttpRule, Inbound, InboundPort, Injection, LogSink, MeshSettings, Mirror, NameAnswer,
    OutlierDetection, OutsideAddress, OutsideEndpoint, Owner, PathRewrite, PortFault, RuleAction,
    SentField, ServicePortRef, SideTelemetry, SniRule, SpanSink, StringMatch, Subset, Target,
    TcpFault, Tracing, Traffic, WeightedTarget, WorkloadInfo, WorkloadTelemetry,
};
use crate::{
    Identity, ServiceName,
    field_name::{delimits_messages, is_authority, is_lower_case_token},
    name::check_label,
    pattern::PATTERN_BYTES_MAX,
    wire::{Check, FieldError, distinct, each, entries, field, not_empty, percent, port, prefix},
};

/// Most changes to fields in one place of a rule: those of a target, of its rule and a sidecar's own are
/// carried out together (`heddle_wire::http1` takes 256).
const HEADER_OPERATIONS_MAX: usize = 120;

type Checked = Result<(), FieldError>;

fn label(field: &str, text: &str) -> Checked {
    check_label(text).map_err(|error| FieldError::new(field, error))
}

impl Check for ServiceName {
    fn check(&self) -> Checked {
        label("namespace", &self.namespace)?;
        if self.is_host() {
            let host = Self::of_host(&self.name, &self.namespace);
            return host.map(|_| ()).map_err(|error| FieldError::new("name", error));
        }
        label("name", &self.name)
    }
}

impl Check for WorkloadInfo {
    fn check(&self) -> Checked {
        not_empty("id", &self.id.0)?;
        not_empty("name", &self.name)?;
        label("namespace", &self.namespace)?;
        field("identity", &self.identity)?;
        each("services", &self.services)?;
        entries("ports", &self.ports, |number, _| port("", **number))
    }
}

impl Check for Identity {
    fn check(&self) -> Checked {
        not_empty("trust_domain", &self.trust_domain)?;
        label("namespace", &self.namespace)?;
        not_empty("service_account", &self.service_account)
    }
}

impl Check for Address {
    fn check(&self) -> Checked {
        match &self.owner {
            Owner::Service(service) => field("service", service),
            Owner::Workload(workload) => field("workload", &**workload),
            Owner::NotKnown => Ok(()),
        }
    }
}

impl Check for NameAnswer {
    fn check(&self) -> Checked {
        not_empty("host", &self.host)?;
        label("namespace", &self.namespace)?;
        field("service.name", self.service.as_ref().map(|service| &service.name))
    }
}

impl Check for Endpoints {
    fn check(&self) -> Checked {
        field("service", &self.service)?;
        each("endpoints", &self.endpoints)?;
        each("outside", &self.outside)?;
        entries("by_name", &self.by_name, |number, led_to| {
            port("", **number)?;
            port("number", *led_to)
        })
    }
}

impl Check for OutsideEndpoint {
    fn check(&self) -> Checked {
        field("workload", &self.workload)?;
        if let OutsideAddress::Host(host) = &self.at {
            not_empty("at", host)?;
        }
        entries("ports", &self.ports, |number, led_to| {
            port("", **number)?;
            port("number", *led_to)
        })
    }
}

impl Check for Endpoint {
    fn check(&self) -> Checked {
        field("workload", &self.workload)?;
        entries("ports", &self.ports, |number, led_to| {
            port("", **number)?;
            port("number", led_to.number)
        })
    }
}

impl Check for Inbound {
    fn check(&self) -> Checked {
        field("workload", &self.workload)?;
        each("ports", &self.ports)?;
        distinct("ports", self.ports.iter().map(|port| port.number))?;
        field("telemetry", self.telemetry.as_deref())
    }
}

impl Check for WorkloadTelemetry {
    fn check(&self) -> Checked {
        field("client", &self.client)?;
        field("server", &self.server)
    }
}

impl Check for SideTelemetry {
    fn check(&self) -> Checked {
        each("access_logs", &self.access_logs)?;
        field("tracing", self.tracing.as_deref())
    }
}

impl Check for AccessLog {
    fn check(&self) -> Checked {
        match &self.to {
            LogSink::File(path) => not_empty("to", path),
            LogSink::Otlp(to) => field("to", to),
        }
    }
}

impl Check for Collector {
    fn check(&self) -> Checked {
        not_empty("host", &self.host)?;
        port("port", self.port)?;
        field("tls", self.tls.as_deref())?;
        each("headers", &self.headers)
    }
}

impl Check for SentField {
    fn check(&self) -> Checked {
        not_empty("name", &self.name)
    }
}

impl Check for Tracing {
    fn check(&self) -> Checked {
        percent(self.sampling).map_err(|error| error.within("sampling"))?;
        let all = [&self.to].into_iter().chain(&self.also);
        all.map(SpanSink::collector).try_for_each(|to| field("to", to))
    }
}

impl Check for InboundPort {
    fn check(&self) -> Checked {
        port("number", self.number)?;
        each("services", &self.services)?;
        each("faults", &self.faults)?;
        match &self.endpoint {
            Some(endpoint) => field("endpoint", endpoint),
            None => Ok(()),
        }
    }
}

impl Check for DefaultEndpoint {
    fn check(&self) -> Checked {
        match self {
            Self::Loopback(number) | Self::Own(number) => port("port", *number),
            Self::Socket(path) => not_empty("path", path),
        }
    }
}

impl Check for ServicePortRef {
    fn check(&self) -> Checked {
        field("service", &self.service)?;
        port("port", self.port)
    }
}

impl Check for MeshSettings {
    fn check(&self) -> Checked {
        not_empty("mesh", &self.mesh)?;
        prefix("vip_range_v4.prefix", self.vip_range_v4.1, 32)?;
        prefix("vip_range_v6.prefix", self.vip_range_v6.1, 128)
    }
}

impl Check for Destination {
    fn check(&self) -> Checked {
        field("service", &self.service)?;
        each("ports", &self.ports)?;
        distinct("ports", self.ports.iter().map(|port| port.number))?;
        entries("subsets", &self.subsets, |name, _| not_empty("name", name))?;
        if let Some(others) = &self.others {
            let wrong = |error: FieldError| error.within("others");
            others.rules_hold().map_err(wrong)?;
        }
        each("policies", &self.policies)
    }
}

impl Check for ClusterPolicy {
    fn check(&self) -> Checked {
        field("cluster", &self.cluster)?;
        field("outlier", self.outlier.as_ref())?;
        field("tls", self.tls.as_ref())?;
        field("balancing", self.balancing.as_ref())?;
        field("retry_budget", self.retry_budget.as_ref())
    }
}

impl Check for ClientTls {
    fn check(&self) -> Checked {
        not_empty("server_name", &self.server_name)
    }
}

impl Check for OutlierDetection {
    fn check(&self) -> Checked {
        percent(self.max_ejection_percent.into())?;
        percent(self.min_health_percent.into())?;
        if self.interval.is_zero() || self.base_ejection_time.is_zero() {
            return Err(FieldError::new("interval", "a duration of zero"));
        }
        Ok(())
    }
}

impl Check for DestinationPort {
    fn check(&self) -> Checked {
        port("number", self.number)?;
        self.rules_hold()
    }
}

impl DestinationPort {
    /// What must hold of its rules, whichever port they are for.
    fn rules_hold(&self) -> Checked {
        each("http", &self.http)?;
        each("tcp", &self.tcp)?;
        each("sni", &self.sni)?;
        each("faults", &self.faults)?;
        if self.tcp.is_empty() { Ok(()) } else { some_weight("tcp", &self.tcp) }
    }
}

impl Check for SniRule {
    fn check(&self) -> Checked {
        self.names.iter().try_for_each(|name| not_empty("names", name))?;
        each("targets", &self.targets)?;
        some_weight("targets", &self.targets)
    }
}

fn some_weight(field: &str, targets: &[WeightedTarget]) -> Checked {
    if targets.iter().all(|target| target.weight == 0) {
        return Err(FieldError::new(field, "the weights sum up to 0"));
    }
    Ok(())
}

impl Check for HttpRule {
    fn check(&self) -> Checked {
        each("matches", &self.matches)?;
        field("fault", self.fault.as_ref())?;
        field("traffic", &self.traffic)?;
        match &self.action {
            RuleAction::Forward(targets) => {
                each("targets", targets)?;
                some_weight("targets", targets)
            }
            RuleAction::Refuse(_) => Ok(()),
        }
    }
}

impl Check for HttpMatch {
    fn check(&self) -> Checked {
        field("uri", self.uri.as_ref())?;
        field("method", self.method.as_ref())?;
        field("authority", self.authority.as_ref())?;
        field("scheme", self.scheme.as_ref())?;
        entries("headers", &self.headers, |name, condition| header(name, condition))?;
        entries("without_headers", &self.without_headers, |name, condition| {
            header(name, condition)
        })?;
        entries("query_params", &self.query_params, |_, condition| condition.check())
    }
}

fn header(name: &str, condition: &HeaderMatch) -> Checked {
    not_empty("name", name)?;
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(FieldError::new("name", "not in lower case"));
    }
    match condition {
        HeaderMatch::Present => Ok(()),
        HeaderMatch::Value(value) => field("value", value),
    }
}

impl Check for StringMatch {
    fn check(&self) -> Checked {
        match self {
            Self::Regex(text) if text.len() > PATTERN_BYTES_MAX => {
                let reason = format_args!("{} bytes, at most {PATTERN_BYTES_MAX}", text.len());
                Err(FieldError::new("regex", reason))
            }
            Self::Exact(_) | Self::Prefix(_) | Self::Regex(_) => Ok(()),
        }
    }
}

impl Check for Fault {
    fn check(&self) -> Checked {
        field("delay", self.delay.as_ref())?;
        field("abort", self.abort.as_ref())
    }
}

impl Check for FaultDelay {
    fn check(&self) -> Checked {
        percent(self.percent)
    }
}

impl Check for FaultAbort {
    fn check(&self) -> Checked {
        percent(self.percent)?;
        abort(self.status, self.grpc)
    }
}

/// What a request is aborted with.
fn abort(status: u16, grpc: Option<u8>) -> Checked {
    if !(200..=600).contains(&status) {
        let reason = format_args!("{status} is not within 200 to 600");
        return Err(FieldError::new("status", reason));
    }
    match grpc.filter(|code| usize::from(*code) >= GRPC_STATUSES.len()) {
        Some(code) => Err(FieldError::new("grpc", format_args!("{code} is no status of gRPC"))),
        None => Ok(()),
    }
}

impl Check for PortFault {
    fn check(&self) -> Checked {
        percent(self.percent)?;
        each("matches", &self.matches)?;
        match self.does {
            Injection::Abort(AbortWith { status, grpc }) => abort(status, grpc),
            Injection::Tcp(TcpFault::ResetAfterBytes(bytes) | TcpFault::BytesPerSecond(bytes))
                if bytes == 0 =>
            {
                Err(FieldError::new("does", "0 bytes"))
            }
            Injection::Delay(_) | Injection::Tcp(_) => Ok(()),
        }
    }
}

impl Check for WeightedTarget {
    fn check(&self) -> Checked {
        field("headers", self.headers.as_deref())?;
        self.to.check()
    }
}

impl Check for Target {
    fn check(&self) -> Checked {
        match self {
            Self::Cluster(key) => key.check(),
            Self::Dangling(_) => Ok(()),
        }
    }
}

impl Check for ClusterKey {
    fn check(&self) -> Checked {
        field("service", &self.service)?;
        field("subset", self.subset.as_ref())?;
        port("port", self.port)
    }
}

impl Check for Subset {
    fn check(&self) -> Checked {
        not_empty("name", &self.name)
    }
}

impl Check for Traffic {
    fn check(&self) -> Checked {
        field("answer", self.answer.as_ref())?;
        field("headers", self.headers.as_ref())?;
        field("cors", self.cors.as_ref())?;
        each("mirrors", &self.mirrors)?;
        if self.absent_status.is_some_and(|status| !(400..=599).contains(&status)) {
            return Err(FieldError::new("absent_status", "no status of an error"));
        }
        if let Some(rewrite) = &self.rewrite {
            rewrite.authority.as_deref().map_or(Ok(()), |text| authority("rewrite", text))?;
            if let Some(PathRewrite::Regex(regex)) = &rewrite.path {
                field("rewrite.path", &StringMatch::Regex(regex.pattern.clone()))?;
            }
        }
        Ok(())
    }
}

impl Check for Answer {
    fn check(&self) -> Checked {
        let (status, least, most) = match self {
            Self::Redirect(redirect) => (redirect.status, 300, 399),
            Self::Direct(response) => (response.status, 200, 600),
        };
        if (least..=most).contains(&status) {
            return Ok(());
        }
        let reason = format_args!("{status} is not within {least} to {most}");
        Err(FieldError::new("status", reason))
    }
}

impl Check for HeaderRules {
    fn check(&self) -> Checked {
        field("request", &self.request)?;
        field("response", &self.response)?;
        self.authority.as_deref().map_or(Ok(()), |text| authority("authority", text))
    }
}

impl Check for HeaderOperations {
    fn check(&self) -> Checked {
        if self.count() > HEADER_OPERATIONS_MAX {
            let reason = format_args!("{}, at most {HEADER_OPERATIONS_MAX}", self.count());
            return Err(FieldError::new("operations", reason));
        }
        self.remove.iter().try_for_each(|name| may_edit("remove", name))?;
        self.set.keys().try_for_each(|name| may_edit("set", name))?;
        self.add.keys().try_for_each(|name| may_edit("add", name))
    }
}

/// A field that a rule may change: a name in lower case, of none that delimits a message or routes it.
fn may_edit(operation: &str, name: &str) -> Checked {
    if !is_lower_case_token(name) {
        return Err(FieldError::new(operation, format_args!("`{name}` is no name in lower case")));
    }
    if delimits_messages(name) {
        return Err(FieldError::new(operation, format_args!("`{name}` belongs to one hop")));
    }
    Ok(())
}

/// What may stand as Host.
fn authority(name: &str, text: &str) -> Checked {
    if !is_authority(text) {
        return Err(FieldError::new(
            name,
            format_args!("`{}` is no authority", text.escape_debug()),
        ));
    }
    Ok(())
}

impl Check for CorsPolicy {
    fn check(&self) -> Checked {
        each("origins", &self.origins)
    }
}

impl Check for Mirror {
    fn check(&self) -> Checked {
        field("to", &self.to)?;
        percent(self.percent)
    }
}
