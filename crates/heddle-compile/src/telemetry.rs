//! Telemetries: what a workload's sidecar tells about its calls. As in Istio the root namespace's holds for all,
//! then that of the workload's namespace, then the one that selects the workload; what a later one says holds,
//! field by field.

use std::{collections::BTreeMap, time::Duration};

use heddle_model::{
    Workload,
    discovery::{
        AccessLog, Collector, LogLayout, LogSink, MetricChange, OtlpHttpSink, Provenance,
        SideTelemetry, SpanSink, Tracing, WorkloadTelemetry, ZipkinSink,
    },
    registry::carries,
    resource::{
        LoggingRule, MeshConfig, MetricsRule, Named, OtlpLog, ProviderKind, Resource, Sides, Spec,
        Telemetry, TracingRule,
    },
    yaml::log_format::DEFAULT_TEXT,
};

use crate::{
    client::Client,
    rules::{ROOT_NAMESPACE, RuleIndex},
};

/// Share of traces that are kept where nothing is said, percent (Istio's).
const SAMPLING: f64 = 1.0;
/// Longest value of the URL's tag where nothing is said (Istio's).
const TAG_LENGTH: u32 = 256;
/// Providers that are there without being configured, as in Istio: a log on the standard output, and metrics.
const ENVOY: &str = "envoy";
/// The same for traces: what the dashboard shows.
pub(crate) const STORE: &str = "heddle";
pub(crate) const PROMETHEUS: &str = "prometheus";
/// What an access log is called that no provider is named for.
const MESH_LOG: &str = "accessLogFile";

/// What is told of calls if no MeshConfig says it: where spans go and of how many traces, and the access log. Whoever
/// started the mesh said so.
#[derive(Debug, Clone, PartialEq)]
pub struct TelemetryDefault {
    /// Where, each on its own; empty: nowhere.
    pub to: Vec<SpanSink>,
    /// Share of traces that begin here and are kept, percent, 0 to 100.
    pub sampling: f64,
    /// Traces per second and sidecar that are kept at the least, where no rule says of how many.
    pub at_least: u32,
    /// The mesh's own store of traces, the provider `heddle`, if it has one.
    pub store: Option<SpanSink>,
    /// The file of the access log for all, in Istio's default format, where no MeshConfig says another.
    pub access_log: Option<String>,
}

/// A Telemetry with its resource.
pub(crate) type Source<'a> = (&'a Resource, &'a Telemetry);

/// Calls in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

impl Side {
    fn is_meant(self, by: Sides) -> bool {
        match by {
            Sides::Both => true,
            Sides::Client => self == Self::Client,
            Sides::Server => self == Self::Server,
        }
    }
}

impl RuleIndex {
    /// All Telemetries, oldest first.
    pub(crate) fn telemetries(&self) -> impl Iterator<Item = Source<'_>> {
        self.telemetries_at().filter_map(|resource| match &resource.spec {
            Spec::Telemetry(telemetry) => Some((resource, telemetry)),
            _ => None,
        })
    }

    /// The MeshConfig in force, the oldest; and those that are not.
    pub(crate) fn mesh_configs(&self) -> impl Iterator<Item = (&Resource, &MeshConfig)> {
        self.telemetries_at().filter_map(|resource| match &resource.spec {
            Spec::MeshConfig(config) => Some((resource, &**config)),
            _ => None,
        })
    }

    /// The Telemetry for all of a namespace.
    fn general(&self, namespace: &str) -> Option<Source<'_>> {
        self.telemetries().find(|(resource, telemetry)| {
            resource.key.namespace == namespace
                && telemetry.selector.is_none()
                && !telemetry.for_targets
        })
    }

    /// Changes of metrics by this Telemetry and those that hold before it for the same workloads, of both sides.
    pub(crate) fn metrics_with(&self, of: Source<'_>) -> [Vec<MetricChange>; 2] {
        let (resource, _) = of;
        let before = [ROOT_NAMESPACE, &resource.key.namespace];
        let mut all: Vec<Source<'_>> =
            before.into_iter().filter_map(|namespace| self.general(namespace)).collect();
        all.dedup_by(|one, other| one.0.key == other.0.key);
        all.retain(|(one, _)| one.key != resource.key);
        all.push(of);
        [Side::Client, Side::Server].map(|side| metrics(&all, side))
    }

    /// The Telemetries that hold for a workload, the closest last.
    fn applicable(&self, workload: &Workload) -> Vec<Source<'_>> {
        let own = workload.namespace.as_str();
        let selecting = self.telemetries().find(|(resource, telemetry)| {
            let selector = telemetry.selector.as_ref();
            resource.key.namespace == own
                && selector.is_some_and(|labels| carries(&workload.labels, labels))
        });
        let of_namespace = if own == ROOT_NAMESPACE { None } else { self.general(own) };
        self.general(ROOT_NAMESPACE).into_iter().chain(of_namespace).chain(selecting).collect()
    }

    /// What a workload's sidecar tells about its calls; `None` where nothing is said of that.
    pub(crate) fn telemetry(
        &self,
        workload: &Workload,
        started_with: Option<&TelemetryDefault>,
    ) -> Option<Box<WorkloadTelemetry>> {
        let mut configs = self.mesh_configs();
        let mesh =
            Mesh { index: self, client: workload.into(), config: configs.next(), started_with };
        let all = self.applicable(workload);
        let side = |side| SideTelemetry {
            access_logs: mesh.access_logs(&all, side),
            tracing: mesh.tracing(&all, side).map(Box::new),
            metrics: metrics(&all, side),
            reporting_interval: reporting_interval(&all),
        };
        let told = WorkloadTelemetry { client: side(Side::Client), server: side(Side::Server) };
        (told != WorkloadTelemetry::default()).then(|| Box::new(told))
    }
}

/// What a name of a provider stands for.
enum Known<'a> {
    Log(LogSink, &'a LogLayout),
    Collected(&'a OtlpLog),
    Envoy,
    Spans(&'a SpanSink, Option<u32>),
}

/// What the MeshConfig says, if there is one.
#[derive(Clone, Copy)]
struct Mesh<'a> {
    index: &'a RuleIndex,
    /// Whose sidecar it is.
    client: Client<'a>,
    config: Option<(&'a Resource, &'a MeshConfig)>,
    /// What holds where it says nothing.
    started_with: Option<&'a TelemetryDefault>,
}

impl<'a> Mesh<'a> {
    fn provider(self, name: &str) -> Option<Known<'a>> {
        let providers = self.config.map_or(&[][..], |(_, config)| &config.providers);
        match providers.iter().find(|one| one.name == name).map(|one| &one.does) {
            Some(ProviderKind::FileLog(path, layout)) => {
                Some(Known::Log(LogSink::File(path.clone()), layout))
            }
            Some(ProviderKind::OtlpLog(log)) => Some(Known::Collected(log)),
            Some(ProviderKind::Spans(to, length)) => Some(Known::Spans(to, *length)),
            Some(ProviderKind::Prometheus | ProviderKind::Other(_)) => None,
            None if name == ENVOY => Some(Known::Envoy),
            None if name == STORE => {
                self.started_with?.store.as_ref().map(|store| Known::Spans(store, None))
            }
            None => None,
        }
    }

    fn log(self, name: &str, provenance: &Provenance, filter: Option<String>) -> Option<AccessLog> {
        let (mut log_name, mut attributes) = (String::new(), BTreeMap::new());
        let (to, layout) = match self.provider(name) {
            Some(Known::Log(to, layout)) => (to, layout.clone()),
            Some(Known::Collected(log)) => {
                log_name.clone_from(&log.name);
                attributes.clone_from(&log.attributes);
                let to = LogSink::Otlp(self.secured(log.to.clone()));
                (to, LogLayout::Text(log.body.clone()))
            }
            Some(Known::Envoy) => {
                (LogSink::File("/dev/stdout".to_owned()), LogLayout::Text(DEFAULT_TEXT.to_owned()))
            }
            Some(Known::Spans(..)) => return None,
            None if name == MESH_LOG => {
                let (path, layout) = self.mesh_log()?;
                (LogSink::File(path), layout)
            }
            None => return None,
        };
        let (provenance, provider) = (provenance.clone(), name.to_owned());
        Some(AccessLog { provenance, provider, to, layout, filter, log_name, attributes })
    }

    /// With the TLS that a DestinationRule asks for towards it, as in Istio; one that has its
    /// own keeps it.
    fn secured(self, to: Collector) -> Collector {
        let asked = || self.index.tls_towards(self.client, &to.host, to.port).map(Box::new);
        let tls = to.tls.clone().or_else(asked);
        Collector { tls, ..to }
    }

    fn secured_sink(self, to: &SpanSink) -> SpanSink {
        match to.clone() {
            SpanSink::Zipkin(sink) => {
                SpanSink::Zipkin(ZipkinSink { to: self.secured(sink.to), ..sink })
            }
            SpanSink::OtlpGrpc(to) => SpanSink::OtlpGrpc(self.secured(to)),
            SpanSink::OtlpHttp(sink) => {
                SpanSink::OtlpHttp(OtlpHttpSink { to: self.secured(sink.to), ..sink })
            }
        }
    }

    /// Whom an access log goes to where nobody is named: the default providers, else the mesh's file.
    fn default_logs(self) -> Vec<String> {
        let named = self.config.map_or(&[][..], |(_, config)| &config.default_logging);
        if named.is_empty() {
            return self.mesh_log().iter().map(|_| MESH_LOG.to_owned()).collect();
        }
        named.iter().map(|one| one.name.clone()).collect()
    }

    /// The access log for all: the file that the MeshConfig names, else the one that the mesh was started with.
    fn mesh_log(self) -> Option<(String, LogLayout)> {
        let said = self.config.and_then(|(_, config)| config.access_log.clone());
        let started = || {
            let path = self.started_with?.access_log.clone()?;
            Some((path, LogLayout::Text(DEFAULT_TEXT.to_owned())))
        };
        said.or_else(started)
    }

    fn access_logs(self, all: &[Source<'_>], side: Side) -> Vec<AccessLog> {
        let meant = |rules: &'_ [LoggingRule]| -> Vec<LoggingRule> {
            rules.iter().filter(|one| side.is_meant(one.sides)).cloned().collect()
        };
        let mut names = self.default_logs();
        let by = self.config.map(|(resource, _)| provenance(resource)).unwrap_or_default();
        let mut logs: BTreeMap<String, (Provenance, Option<String>)> =
            names.iter().map(|name| (name.clone(), (by.clone(), None))).collect();
        for (resource, telemetry) in all {
            let rules = meant(&telemetry.access_logging);
            if rules.iter().any(|one| !one.providers.is_empty() && !one.disabled) {
                // Those that this level names take the place of those before it.
                names.clear();
                logs.clear();
            }
            for (i, rule) in telemetry.access_logging.iter().enumerate() {
                if !side.is_meant(rule.sides) {
                    continue;
                }
                let given: Vec<String> = match &rule.providers[..] {
                    [] if names.is_empty() => self.fallback_logs(),
                    [] => names.clone(),
                    given => given.iter().map(|one| one.name.clone()).collect(),
                };
                for name in given {
                    if rule.disabled {
                        logs.remove(&name);
                        continue;
                    }
                    if !names.contains(&name) {
                        names.push(name.clone());
                    }
                    let by = Provenance(format!("{}#accessLogging[{i}]", resource.key));
                    logs.insert(name, (by, rule.filter.clone()));
                }
            }
        }
        let made = logs.into_iter();
        made.filter_map(|(name, (by, filter))| self.log(&name, &by, filter)).collect()
    }

    /// A rule that turns access logs on and names nobody, where the mesh names nobody either.
    fn fallback_logs(self) -> Vec<String> {
        match self.default_logs() {
            none if none.is_empty() => vec![ENVOY.to_owned()],
            names => names,
        }
    }

    fn tracing(self, all: &[Source<'_>], side: Side) -> Option<Tracing> {
        let config = self.config.map(|(_, config)| config);
        let mut by = self.config.map(|(resource, _)| provenance(resource)).unwrap_or_default();
        let mut merged = TracingRule::default();
        merged.providers.extend(config.iter().flat_map(|config| config.default_tracing.clone()));
        for (resource, telemetry) in all {
            for (i, rule) in telemetry.tracing.iter().enumerate() {
                if side.is_meant(rule.sides) {
                    put(&mut merged, rule);
                    by = Provenance(format!("{}#tracing[{i}]", resource.key));
                }
            }
        }
        let (name, mut sinks, length) = self.receivers(&merged.providers);
        if sinks.is_empty() {
            return None;
        }
        let to = sinks.remove(0);
        let told = config.and_then(|config| config.max_tag_length);
        let tags = config.map(|config| config.custom_tags.clone()).unwrap_or_default();
        let sampling = merged.sampling.or_else(|| config?.sampling);
        let at_least =
            self.started_with.filter(|_| sampling.is_none()).map_or(0, |told| told.at_least);
        let sampling = sampling.or_else(|| self.started_with.map(|told| told.sampling));
        Some(Tracing {
            provenance: by,
            provider: name,
            to,
            sampling: sampling.unwrap_or(SAMPLING),
            reports_nothing: merged.reports_nothing.unwrap_or(false),
            custom_tags: merged.custom_tags.unwrap_or(tags),
            by_request_id: merged.by_request_id.unwrap_or(true),
            istio_tags: merged.istio_tags.unwrap_or(true),
            keeps_context: merged.keeps_context.unwrap_or(false),
            max_tag_length: length.or(told).unwrap_or(TAG_LENGTH),
            at_least,
            also: sinks,
        })
    }

    /// Where spans go: to all providers that are named, or where the mesh sends those that nobody names a receiver
    /// for; the first one's name, and the longest value of the URL's tag that it asks for.
    fn receivers(self, named: &[Named]) -> (String, Vec<SpanSink>, Option<u32>) {
        if named.is_empty() {
            let said = self.config.and_then(|(_, config)| config.spans_to.as_ref());
            let of_start = || self.started_with.map(|told| told.to.clone()).unwrap_or_default();
            let to = said.map_or_else(of_start, |to| vec![self.secured_sink(to)]);
            return (String::new(), to, None);
        }
        let known = |one: &Named| match self.provider(&one.name) {
            Some(Known::Spans(to, length)) => {
                Some((one.name.clone(), self.secured_sink(to), length))
            }
            _ => None,
        };
        let mut all: Vec<_> = named.iter().filter_map(known).collect();
        let (name, length) = match all.first_mut() {
            Some((name, _, length)) => (std::mem::take(name), *length),
            None => Default::default(),
        };
        (name, all.into_iter().map(|(_, to, _)| to).collect(), length)
    }
}

fn provenance(resource: &Resource) -> Provenance {
    Provenance(resource.key.to_string())
}

/// What a later rule says of tracing, over what was said before.
fn put(merged: &mut TracingRule, rule: &TracingRule) {
    if !rule.providers.is_empty() {
        merged.providers.clone_from(&rule.providers);
    }
    merged.sampling = rule.sampling.or(merged.sampling);
    merged.reports_nothing = rule.reports_nothing.or(merged.reports_nothing);
    merged.by_request_id = rule.by_request_id.or(merged.by_request_id);
    merged.istio_tags = rule.istio_tags.or(merged.istio_tags);
    merged.keeps_context = rule.keeps_context.or(merged.keeps_context);
    if rule.custom_tags.is_some() {
        merged.custom_tags.clone_from(&rule.custom_tags);
    }
}

/// Is it about what sidecars are scraped for?
fn is_scraped(rule: &MetricsRule) -> bool {
    rule.providers.is_empty() || rule.providers.iter().any(|one| one.name == PROMETHEUS)
}

/// The closest that is said.
fn reporting_interval(all: &[Source<'_>]) -> Option<Duration> {
    let rules = all.iter().rev().flat_map(|(_, telemetry)| telemetry.metrics.iter().rev());
    rules.filter(|rule| is_scraped(rule)).find_map(|rule| rule.reporting_interval)
}

fn metrics(all: &[Source<'_>], side: Side) -> Vec<MetricChange> {
    let mut changes = Vec::new();
    for (resource, telemetry) in all {
        for (i, rule) in telemetry.metrics.iter().enumerate().filter(|(_, rule)| is_scraped(rule)) {
            for (j, one) in rule.overrides.iter().enumerate() {
                let says = one.disabled.is_some() || !one.tags.is_empty();
                if says && side.is_meant(one.sides) {
                    changes.push(MetricChange {
                        provenance: Provenance(format!(
                            "{}#metrics[{i}].overrides[{j}]",
                            resource.key
                        )),
                        metric: one.metric,
                        disabled: one.disabled,
                        tags: one.tags.clone(),
                    });
                }
            }
        }
    }
    changes
}
