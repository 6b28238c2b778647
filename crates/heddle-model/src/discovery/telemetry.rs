//! What a sidecar is to tell about calls besides metrics, and which of those it leaves out: access logs,
//! spans, and changes of metrics, for calls that its workload makes and for those it receives.

use std::{collections::BTreeMap, time::Duration};

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use super::{parts::Provenance, tls::ClientTls};
use crate::wire::closed;

/// What holds for one workload.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Default)]
#[cbor(map)]
pub struct WorkloadTelemetry {
    /// For the calls it makes.
    #[cbor(n(145), default)]
    pub client: SideTelemetry,
    /// For those it receives.
    #[cbor(n(146), default)]
    pub server: SideTelemetry,
}

/// What holds for calls in one direction.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SideTelemetry {
    /// Each is written on its own.
    pub access_logs: Vec<AccessLog>,
    /// Where spans go; `None`: nowhere.
    pub tracing: Option<Box<Tracing>>,
    /// Changes of metrics in order: what a later one says of a metric holds.
    pub metrics: Vec<MetricChange>,
    /// How often bytes of connections that are open are counted (`reportingInterval`); `None`: as they move.
    pub reporting_interval: Option<Duration>,
}

/// The same as it is sent.
#[derive(Decode, Encode)]
#[cbor(map)]
struct SentSide {
    #[cbor(n(145), default)]
    access_logs: Vec<AccessLog>,
    #[n(146)]
    tracing: Option<Box<Tracing>>,
    /// Those that every reader knows: one of before would refuse all for a metric that it does not.
    #[cbor(n(147), default)]
    metrics: Vec<MetricChange>,
    #[n(137)]
    reporting_interval: Option<Duration>,
    /// All of them, in order, where [`Self::metrics`] has not all.
    #[cbor(n(180), default)]
    all_metrics: Vec<MetricChange>,
}

impl<C> Encode<C> for SideTelemetry {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        let Self { access_logs, tracing, metrics, reporting_interval } = self.clone();
        let known = metrics.iter().filter(|one| !one.metric.is_of_messages());
        let known: Vec<_> = known.cloned().collect();
        let all_metrics = if known.len() == metrics.len() { Vec::new() } else { metrics };
        SentSide { access_logs, tracing, metrics: known, reporting_interval, all_metrics }
            .encode(e, ctx)
    }
}

impl<'b, C> Decode<'b, C> for SideTelemetry {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, decode::Error> {
        let sent = SentSide::decode(d, ctx)?;
        let SentSide { access_logs, tracing, metrics, reporting_interval, all_metrics } = sent;
        let metrics = if all_metrics.is_empty() { metrics } else { all_metrics };
        Ok(Self { access_logs, tracing, metrics, reporting_interval })
    }
}

impl SideTelemetry {
    /// Is anything to be found out about a call for it?
    #[must_use]
    pub fn gathers(&self) -> bool {
        !self.access_logs.is_empty() || self.tracing.is_some()
    }
}

/// An access log.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct AccessLog {
    /// The rule that turns it on.
    #[cbor(n(145), default)]
    pub provenance: Provenance,
    /// Name of its provider.
    #[cbor(n(146), default)]
    pub provider: String,
    /// Where it goes.
    #[n(147)]
    pub to: LogSink,
    /// How a line looks.
    #[n(148)]
    pub layout: LogLayout,
    /// Only calls that meet this expression (`yaml::expression`).
    #[n(149)]
    pub filter: Option<String>,
    /// Of a collector's log: the log's name, told with every batch.
    #[cbor(n(143), default)]
    pub log_name: String,
    /// Of a collector's log: attributes of every record by name, each a text with operators. Its layout is the body.
    #[cbor(n(144), default)]
    pub attributes: BTreeMap<String, String>,
}

/// Where an access log goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogSink {
    /// Into this file; `/dev/stdout` and `/dev/stderr` are the sidecar's own.
    File(String),
    /// To a collector, as logs of OTLP over gRPC.
    Otlp(Collector),
}

closed!(LogSink { 1 => File(path), 2 => Otlp(to) });

/// How a line of an access log looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogLayout {
    /// A text with operators (`yaml::log_format`).
    Text(String),
    /// An object with such a text for each name.
    Json(BTreeMap<String, String>),
}

closed!(LogLayout { 1 => Text(format), 2 => Json(fields) });

/// Who takes logs or spans, and how it is spoken to.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq, PartialOrd, Ord)]
#[cbor(map)]
pub struct Collector {
    /// Its host, in lower case: a service's full name, a name outside, or an address.
    #[n(145)]
    pub host: String,
    /// Its port.
    #[n(146)]
    pub port: u16,
    /// The TLS that is begun towards it; `None`: none.
    #[n(140)]
    pub tls: Option<Box<ClientTls>>,
    /// Fields that go with every request, in order: of HTTP, or metadata of gRPC.
    #[cbor(n(141), default)]
    pub headers: Vec<SentField>,
    /// Most time for one request, connecting included.
    #[n(142)]
    pub timeout: Option<Duration>,
}

impl Collector {
    /// One that is spoken to in plain text, and with nothing besides.
    #[must_use]
    pub fn at(host: &str, port: u16) -> Self {
        Self { host: host.to_owned(), port, tls: None, headers: Vec::new(), timeout: None }
    }
}

/// A field that goes with requests to a collector.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq, PartialOrd, Ord)]
#[cbor(map)]
pub struct SentField {
    /// Its name.
    #[n(145)]
    pub name: String,
    /// Its value, or the variable that has it.
    #[n(146)]
    pub value: String,
    /// The value is that of a variable of the sidecar's environment (`envName`).
    #[cbor(n(147), default)]
    pub from_environment: bool,
}

/// How calls are traced. What is not said here is the sidecar's to know.
#[derive(Debug, Clone, Decode, Encode, PartialEq)]
#[cbor(map)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct Tracing {
    /// The rule that says so last.
    #[cbor(n(145), default)]
    pub provenance: Provenance,
    /// Name of the provider.
    #[cbor(n(146), default)]
    pub provider: String,
    /// Where spans go.
    #[n(147)]
    pub to: SpanSink,
    /// Share of traces that begin here and are kept, percent, 0 to 100.
    #[cbor(n(148), default)]
    pub sampling: f64,
    /// No span is told; context is passed on all the same (`disableSpanReporting`).
    #[cbor(n(149), default)]
    pub reports_nothing: bool,
    /// Tags by name.
    #[cbor(n(150), default)]
    pub custom_tags: BTreeMap<String, CustomTag>,
    /// The id of a request decides whether its trace is kept (`useRequestIdForTraceSampling`).
    #[cbor(n(151), default)]
    pub by_request_id: bool,
    /// Tags that say who the workload is (`enableIstioTags`).
    #[cbor(n(152), default)]
    pub istio_tags: bool,
    /// Context is read and not passed on (`disableContextPropagation`).
    #[cbor(n(153), default)]
    pub keeps_context: bool,
    /// Longest value of the tag that tells the URL, characters.
    #[cbor(n(154), default)]
    pub max_tag_length: u32,
    /// Traces that begin here and are kept whatever chance says, per second and sidecar, so that a call or two of a
    /// person's own are seen.
    #[cbor(n(135), default)]
    pub at_least: u32,
    /// Where spans go besides.
    #[cbor(n(155), default)]
    pub also: Vec<SpanSink>,
}

/// Where spans go, and as what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpanSink {
    /// As Zipkin's v2 JSON.
    Zipkin(ZipkinSink),
    /// As OTLP over gRPC.
    OtlpGrpc(Collector),
    /// As OTLP over HTTP.
    OtlpHttp(OtlpHttpSink),
}

impl SpanSink {
    /// Who takes them.
    #[must_use]
    pub fn collector(&self) -> &Collector {
        match self {
            Self::Zipkin(zipkin) => &zipkin.to,
            Self::OtlpGrpc(to) => to,
            Self::OtlpHttp(otlp) => &otlp.to,
        }
    }
}

closed!(SpanSink { 1 => Zipkin(to), 2 => OtlpGrpc(to), 3 => OtlpHttp(to) });

/// Zipkin.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct ZipkinSink {
    /// Who takes them.
    #[n(145)]
    pub to: Collector,
    /// Path they are sent to.
    #[n(146)]
    pub path: String,
    /// Ids of traces have 64 bits, not 128.
    #[cbor(n(147), default)]
    pub short_ids: bool,
}

/// OTLP over HTTP. The numbers 147 and 148 are used up: they were fields and a time that [`Collector`] has now.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct OtlpHttpSink {
    /// Who takes them.
    #[n(145)]
    pub to: Collector,
    /// Path they are sent to.
    #[n(146)]
    pub path: String,
}

/// A tag of spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CustomTag {
    /// This text.
    Literal(String),
    /// A variable of the sidecar's environment.
    Environment(TagSource),
    /// A field of the request.
    Header(TagSource),
}

closed!(CustomTag { 1 => Literal(text), 2 => Environment(source), 3 => Header(source) });

/// Where a tag's value comes from.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq, Default)]
#[cbor(map)]
pub struct TagSource {
    /// Name of the variable or field.
    #[n(145)]
    pub name: String,
    /// What stands for it where it is not there; empty: the tag is left out.
    #[cbor(n(146), default)]
    pub default: String,
}

/// A change of one metric, or of all.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct MetricChange {
    /// The rule it is from.
    #[cbor(n(145), default)]
    pub provenance: Provenance,
    /// Which metric.
    #[n(146)]
    pub metric: Metric,
    /// It is not told at all, or is again; `None`: nothing is said of that.
    #[n(147)]
    pub disabled: Option<bool>,
    /// What becomes of tags, by their names.
    #[cbor(n(136), default)]
    pub tags: BTreeMap<String, TagChange>,
}

impl MetricChange {
    /// Most tags of one metric that a sidecar changes; further ones stay as they are. A label set has to stay within a
    /// line that scrapers take.
    pub const TAGS_MAX: usize = 32;
}

/// What becomes of a tag of a metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagChange {
    /// The metric has none of this name.
    Removed,
    /// Its value is what this expression comes to (`yaml::expression`).
    Value(String),
}

closed!(TagChange { 1 => Removed, 2 => Value(expression) });

/// Istio's standard metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// All of them.
    All,
    /// `istio_requests_total`.
    RequestCount,
    /// `istio_request_duration_milliseconds`.
    RequestDuration,
    /// `istio_request_bytes`.
    RequestSize,
    /// `istio_response_bytes`.
    ResponseSize,
    /// `istio_tcp_connections_opened_total`.
    TcpOpened,
    /// `istio_tcp_connections_closed_total`.
    TcpClosed,
    /// `istio_tcp_sent_bytes_total`.
    TcpSent,
    /// `istio_tcp_received_bytes_total`.
    TcpReceived,
    /// `istio_request_messages_total`.
    GrpcRequestMessages,
    /// `istio_response_messages_total`.
    GrpcResponseMessages,
}

impl Metric {
    /// Each but [`Self::All`], with its name and what a `Telemetry` calls it.
    pub const EACH: [(Self, &'static str, &'static str); 10] = [
        (Self::RequestCount, "istio_requests_total", "REQUEST_COUNT"),
        (Self::RequestDuration, "istio_request_duration_milliseconds", "REQUEST_DURATION"),
        (Self::RequestSize, "istio_request_bytes", "REQUEST_SIZE"),
        (Self::ResponseSize, "istio_response_bytes", "RESPONSE_SIZE"),
        (Self::GrpcRequestMessages, "istio_request_messages_total", "GRPC_REQUEST_MESSAGES"),
        (Self::GrpcResponseMessages, "istio_response_messages_total", "GRPC_RESPONSE_MESSAGES"),
        (Self::TcpOpened, "istio_tcp_connections_opened_total", "TCP_OPENED_CONNECTIONS"),
        (Self::TcpClosed, "istio_tcp_connections_closed_total", "TCP_CLOSED_CONNECTIONS"),
        (Self::TcpSent, "istio_tcp_sent_bytes_total", "TCP_SENT_BYTES"),
        (Self::TcpReceived, "istio_tcp_received_bytes_total", "TCP_RECEIVED_BYTES"),
    ];

    /// One that readers of the version before do not know.
    fn is_of_messages(self) -> bool {
        matches!(self, Self::GrpcRequestMessages | Self::GrpcResponseMessages)
    }

    /// The metric of this name; Istio's configuration of statistics leaves `istio_` out, and so may who names it.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let bare = |name: &str| name.strip_prefix("istio_").unwrap_or(name).to_owned();
        Self::EACH.iter().find(|(_, known, _)| bare(known) == bare(name)).map(|(one, ..)| *one)
    }
}

closed!(Metric {
    0 => All, 1 => RequestCount, 2 => RequestDuration, 3 => RequestSize, 4 => ResponseSize,
    5 => TcpOpened, 6 => TcpClosed, 7 => TcpSent, 8 => TcpReceived, 9 => GrpcRequestMessages,
    10 => GrpcResponseMessages,
});

#[cfg(test)]
mod tests {
    use super::*;

    /// A side as the version before reads it.
    #[derive(Decode)]
    #[cbor(map)]
    struct Before {
        #[cbor(n(147), default)]
        metrics: Vec<MetricChange>,
    }

    #[test]
    fn changes_of_metrics_that_a_reader_does_not_know_keep_nothing_from_it() {
        let change = |metric| MetricChange {
            provenance: Provenance::default(),
            metric,
            disabled: Some(true),
            tags: BTreeMap::new(),
        };
        let [count, messages, all] =
            [Metric::RequestCount, Metric::GrpcRequestMessages, Metric::All].map(change);
        for (metrics, before) in [
            (vec![count.clone(), messages, all.clone()], vec![count.clone(), all.clone()]),
            (vec![all.clone(), count.clone()], vec![all, count]),
        ] {
            let side = SideTelemetry { metrics, ..SideTelemetry::default() };
            let sent = minicbor::to_vec(&side).unwrap();
            assert_eq!(decode::<SideTelemetry>(&sent).unwrap(), side);
            assert_eq!(decode::<Before>(&sent).unwrap().metrics, before);
        }
    }
}
