//! Istio's `Telemetry`, and what the mesh says about it for all (`MeshConfig`), as users write them.

use std::{collections::BTreeMap, time::Duration};

use crate::discovery::{Collector, CustomTag, LogLayout, Metric, SpanSink, TagChange};

/// Istio `Telemetry`: what sidecars tell about calls.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Telemetry {
    /// Labels of the workloads it is for; `None` for all of its namespace, or of the mesh.
    pub selector: Option<BTreeMap<String, String>>,
    /// It is for gateways and waypoints that it names, and for no sidecar (`targetRefs`).
    pub for_targets: bool,
    /// 1-based line of the selector or of `spec`.
    pub line: usize,
    /// Tracing, in order.
    pub tracing: Vec<TracingRule>,
    /// Access logs, in order.
    pub access_logging: Vec<LoggingRule>,
    /// Changes of metrics, in order.
    pub metrics: Vec<MetricsRule>,
}

/// For which calls of a workload something holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sides {
    /// All of them.
    #[default]
    Both,
    /// Those it makes.
    Client,
    /// Those it receives.
    Server,
}

/// A name with its place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Named {
    /// As written.
    pub name: String,
    /// 1-based line in the file.
    pub line: usize,
}

/// One entry of `tracing`. What is `None` is left as it is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TracingRule {
    /// For which calls.
    pub sides: Sides,
    /// To whom; the first counts.
    pub providers: Vec<Named>,
    /// Percent, 0 to 100.
    pub sampling: Option<f64>,
    /// `disableSpanReporting`.
    pub reports_nothing: Option<bool>,
    /// Tags by name, in place of others.
    pub custom_tags: Option<BTreeMap<String, CustomTag>>,
    /// `useRequestIdForTraceSampling`.
    pub by_request_id: Option<bool>,
    /// `enableIstioTags`.
    pub istio_tags: Option<bool>,
    /// `disableContextPropagation`.
    pub keeps_context: Option<bool>,
}

/// One entry of `accessLogging`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LoggingRule {
    /// For which calls.
    pub sides: Sides,
    /// To whom; none: to whom it went before.
    pub providers: Vec<Named>,
    /// Not to these.
    pub disabled: bool,
    /// Only calls that meet this expression.
    pub filter: Option<String>,
}

/// One entry of `metrics`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetricsRule {
    /// For whom; none: for all.
    pub providers: Vec<Named>,
    /// In order.
    pub overrides: Vec<MetricOverride>,
    /// How often bytes of connections that are open are counted.
    pub reporting_interval: Option<Duration>,
}

/// One entry of `metrics[].overrides`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricOverride {
    /// For which calls.
    pub sides: Sides,
    /// Which metric.
    pub metric: Metric,
    /// It is not told, or is again.
    pub disabled: Option<bool>,
    /// What becomes of its tags, by their names.
    pub tags: BTreeMap<String, TagChange>,
}

/// What holds for the whole mesh, in the words of Istio's `MeshConfig`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MeshConfig {
    /// An access log for all, where no Telemetry says another (`accessLogFile`): path and layout.
    pub access_log: Option<(String, LogLayout)>,
    /// Whom Telemetries may name.
    pub providers: Vec<Provider>,
    /// Whom they mean where they name nobody.
    pub default_tracing: Vec<Named>,
    /// The same for access logs.
    pub default_logging: Vec<Named>,
    /// Share of traces that are kept, percent (`defaultConfig.tracing.sampling`).
    pub sampling: Option<f64>,
    /// Tags of all spans (`defaultConfig.tracing.customTags`).
    pub custom_tags: BTreeMap<String, CustomTag>,
    /// `defaultConfig.tracing.maxPathTagLength`.
    pub max_tag_length: Option<u32>,
    /// Where spans go without a provider (`defaultConfig.tracing.zipkin.address`).
    pub spans_to: Option<SpanSink>,
}

/// Somebody who takes logs, spans or metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Provider {
    /// As Telemetries name it.
    pub name: String,
    /// 1-based line in the file.
    pub line: usize,
    /// What it takes.
    pub does: ProviderKind,
}

/// What a provider takes.
#[derive(Debug, Clone, PartialEq)]
pub enum ProviderKind {
    /// Access logs, into a file (`envoyFileAccessLog`).
    FileLog(String, LogLayout),
    /// Access logs, to a collector (`envoyOtelAls`).
    OtlpLog(Box<OtlpLog>),
    /// Spans (`zipkin`, `opentelemetry`), with the longest value of the URL's tag.
    Spans(SpanSink, Option<u32>),
    /// Metrics, by being scraped (`prometheus`).
    Prometheus,
    /// Something that is not carried out: the field that says what.
    Other(Named),
}

/// An access log for a collector: each record has a body and attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpLog {
    /// Who takes it.
    pub to: Collector,
    /// What the log is called (`logName`).
    pub name: String,
    /// The body of a record, a text with operators.
    pub body: String,
    /// Its attributes by name, each such a text.
    pub attributes: BTreeMap<String, String>,
}
