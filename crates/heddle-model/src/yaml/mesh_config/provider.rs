//! Providers of a `MeshConfig`: who takes logs, spans and metrics, and how each is spoken to.

use std::collections::BTreeMap;

use super::log::{default_json, default_text, log_path};
use crate::{
    discovery::{Collector, LogLayout, OtlpHttpSink, SentField, SpanSink, ZipkinSink},
    resource::{Named, OtlpLog, ProviderKind},
    yaml::{
        log_format::{self, DEFAULT_TEXT},
        node::{Node, Value},
        report::Report,
        schema::{
            DURATION, Kind, NAME, Object, PORT, TEXT, at_most_one, join, not_yet, optional,
            required,
        },
        value,
    },
};

/// Where Zipkin takes spans.
pub(super) const ZIPKIN_PATH: &str = "/api/v2/spans";
/// Where OTLP over HTTP takes spans.
const OTLP_PATH: &str = "/v1/traces";
/// What Istio calls the log of a collector where nothing is said.
const LOG_NAME: &str = "otel_envoy_accesslog";

pub(super) static PROVIDER: Object = Object {
    fields: &[
        required("name", NAME),
        optional("envoyFileAccessLog", Kind::Object(&FILE_LOG)),
        optional("envoyOtelAls", Kind::Object(&OTEL_LOG)),
        optional("zipkin", Kind::Object(&ZIPKIN)),
        optional("opentelemetry", Kind::Object(&OTEL)),
        optional("prometheus", Kind::Any),
        not_yet("envoyExtAuthzHttp", Kind::Any),
        not_yet("envoyExtAuthzGrpc", Kind::Any),
        not_yet("envoyHttpAls", Kind::Any),
        not_yet("envoyTcpAls", Kind::Any),
        not_yet("lightstep", Kind::Any),
        not_yet("datadog", Kind::Any),
        not_yet("skywalking", Kind::Any),
        not_yet("opencensus", Kind::Any),
        not_yet("stackdriver", Kind::Any),
        not_yet("sds", Kind::Any),
    ],
    rules: &[],
};

static FILE_LOG: Object = Object {
    fields: &[
        optional("path", Kind::Text(log_path)),
        optional("logFormat", Kind::Object(&FORMAT)),
        not_yet("omitEmptyValues", Kind::Bool),
    ],
    rules: &[],
};

static OTEL_LOG: Object = Object {
    fields: &[
        required("service", Kind::Text(provider_service)),
        required("port", PORT),
        optional("logName", TEXT),
        optional("logFormat", Kind::Object(&OTEL_FORMAT)),
    ],
    rules: &[],
};

static FORMAT: Object = Object {
    fields: &[
        optional("text", Kind::Text(log_format::check)),
        optional("labels", Kind::Map { key: value::not_empty, of: &Kind::Text(log_format::check) }),
    ],
    rules: &[|node, path, report| at_most_one(node, &["text", "labels"], path, report)],
};

/// A body and attributes, of which a record has both.
static OTEL_FORMAT: Object = Object {
    fields: &[
        optional("text", Kind::Text(log_format::check)),
        optional("labels", Kind::Map { key: value::not_empty, of: &Kind::Text(log_format::check) }),
    ],
    rules: &[],
};

static ZIPKIN: Object = Object {
    fields: &[
        required("service", Kind::Text(provider_service)),
        required("port", PORT),
        optional("maxTagLength", Kind::Int { min: 1, max: 65_536 }),
        optional("enable64bitTraceId", Kind::Bool),
        optional("path", Kind::Text(http_path)),
        optional("timeout", DURATION),
        optional("headers", HEADERS),
        not_yet("traceContextOption", Kind::Any),
    ],
    rules: &[],
};

static OTEL: Object = Object {
    fields: &[
        required("service", Kind::Text(provider_service)),
        required("port", PORT),
        optional("maxTagLength", Kind::Int { min: 1, max: 65_536 }),
        optional("http", Kind::Object(&OTEL_HTTP)),
        optional("grpc", Kind::Object(&OTEL_GRPC)),
        not_yet("resourceDetectors", Kind::Any),
        not_yet("dynatraceSampler", Kind::Any),
        not_yet("serviceAttributeEnrichment", Kind::Any),
    ],
    rules: &[|node, path, report| at_most_one(node, &["http", "grpc"], path, report)],
};

static OTEL_GRPC: Object = Object {
    fields: &[optional("timeout", DURATION), optional("initialMetadata", HEADERS)],
    rules: &[metadata_is_text],
};

static OTEL_HTTP: Object = Object {
    fields: &[
        optional("path", Kind::Text(http_path)),
        optional("timeout", DURATION),
        optional("headers", HEADERS),
    ],
    rules: &[],
};

const HEADERS: Kind = Kind::List { of: &Kind::Object(&HEADER), least: 0 };

static HEADER: Object = Object {
    fields: &[
        required("name", Kind::Text(value::field_name)),
        optional("value", Kind::Text(sent_value)),
        optional("envName", NAME),
    ],
    rules: &[|node, path, report| at_most_one(node, &["value", "envName"], path, report)],
};

/// The value of a field that goes with requests: over gRPC it has to be ASCII.
fn sent_value(text: &str) -> Result<(), String> {
    value::field_value(text)?;
    if text.is_ascii() { Ok(()) } else { Err(format!("`{text}` is not all ASCII")) }
}

/// Of gRPC's metadata what is called `-bin` is bytes in Base64, and no text.
fn metadata_is_text(grpc: &Node, path: &str, report: &mut Report<'_>) {
    for (i, field) in grpc.items_of("initialMetadata").iter().enumerate() {
        let name = field.text_of("name");
        if name.to_ascii_lowercase().ends_with("-bin") {
            let place = format!("{}[{i}].name", join(path, "initialMetadata"));
            report.at(
                field,
                &place,
                format!(
                    "`{name}` is the name of binary metadata: use one that does not end in `-bin`"
                ),
            );
        }
    }
}

fn http_path(text: &str) -> Result<(), String> {
    let fits = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(()) } else { Err(format!("`{text}` is no path: use e.g. `{ZIPKIN_PATH}`")) }
}

/// `[NAMESPACE/]HOST`, as Istio's providers name a service.
fn provider_service(text: &str) -> Result<(), String> {
    value::single_host(text.split_once('/').map_or(text, |(_, host)| host))
}

pub(super) fn names_differ(spec: &Node, path: &str, report: &mut Report<'_>) {
    let mut seen = BTreeMap::new();
    for (i, provider) in spec.items_of("extensionProviders").iter().enumerate() {
        let name = provider.text_of("name");
        if let Some(before) = seen.insert(name, i) {
            let place = format!("{}[{i}].name", join(path, "extensionProviders"));
            let reason = format!("`{name}` is item {before} already: name each once");
            report.at(provider, &place, reason);
        }
        let kinds = provider.entries().iter().filter(|entry| entry.key != "name").count();
        if kinds != 1 {
            let place = format!("{}[{i}]", join(path, "extensionProviders"));
            report.at(provider, &place, "a provider is of one kind, e.g. `envoyFileAccessLog`");
        }
    }
}

/// A checked provider into its noun.
pub(super) fn provider(node: &Node, path: &str) -> ProviderKind {
    if let Some(log) = node.get("envoyFileAccessLog") {
        let path = Some(log.text_of("path")).filter(|path| !path.is_empty());
        return ProviderKind::FileLog(path.unwrap_or("/dev/stdout").to_owned(), format_of(log));
    }
    if let Some(log) = node.get("envoyOtelAls") {
        return ProviderKind::OtlpLog(Box::new(otlp_log(log)));
    }
    let length = |of: &Node| of.text_of("maxTagLength").parse().ok();
    if let Some(zipkin) = node.get("zipkin") {
        let path = Some(zipkin.text_of("path")).filter(|path| !path.is_empty());
        let sink = ZipkinSink {
            to: collector(zipkin, zipkin, "headers"),
            path: path.unwrap_or(ZIPKIN_PATH).to_owned(),
            short_ids: zipkin.text_of("enable64bitTraceId") == "true",
        };
        return ProviderKind::Spans(SpanSink::Zipkin(sink), length(zipkin));
    }
    if let Some(otel) = node.get("opentelemetry") {
        let sink = match otel.get("http") {
            None => {
                let grpc = otel.get("grpc").unwrap_or(otel);
                SpanSink::OtlpGrpc(collector(otel, grpc, "initialMetadata"))
            }
            Some(http) => SpanSink::OtlpHttp(over_http(otel, http)),
        };
        return ProviderKind::Spans(sink, length(otel));
    }
    if node.has("prometheus") {
        return ProviderKind::Prometheus;
    }
    let kind = node.entries().iter().find(|entry| entry.key != "name");
    let field = kind.map_or_else(|| path.to_owned(), |entry| join(path, &entry.key));
    let line = kind.map_or(node.line, |entry| entry.line);
    ProviderKind::Other(Named { name: field, line })
}

fn otlp_log(log: &Node) -> OtlpLog {
    let or = |text: &str, usual: &str| if text.is_empty() { usual } else { text }.to_owned();
    let format = log.get("logFormat");
    OtlpLog {
        to: collector(log, log, ""),
        name: or(log.text_of("logName"), LOG_NAME),
        body: or(format.map_or("", |format| format.text_of("text")), DEFAULT_TEXT),
        attributes: format.map(|format| format.labels_of("labels")).unwrap_or_default(),
    }
}

fn over_http(otel: &Node, http: &Node) -> OtlpHttpSink {
    let path = Some(http.text_of("path")).filter(|path| !path.is_empty());
    let to = collector(otel, http, "headers");
    OtlpHttpSink { to, path: path.unwrap_or(OTLP_PATH).to_owned() }
}

/// Whom a provider names; how it is spoken to is said in `settings`, and fields that go with requests in its list
/// `headers`. TLS is not: as in Istio a DestinationRule says that.
fn collector(provider: &Node, settings: &Node, headers: &str) -> Collector {
    let written = provider.text_of("service");
    let host = written.split_once('/').map_or(written, |(_, host)| host);
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let sent = |one: &Node| {
        let from_environment = one.has("envName");
        let value = one.text_of(if from_environment { "envName" } else { "value" });
        SentField {
            name: one.text_of("name").to_ascii_lowercase(),
            value: value.to_owned(),
            from_environment,
        }
    };
    Collector {
        timeout: settings.get("timeout").and_then(|text| value::duration(text.text()).ok()),
        headers: settings.items_of(headers).iter().map(sent).collect(),
        ..Collector::at(&host, provider.text_of("port").parse().unwrap_or_default())
    }
}

/// `labels: {}` asks for the default in JSON, as in Istio.
fn format_of(log: &Node) -> LogLayout {
    let Some(format) = log.get("logFormat") else { return default_text() };
    if let Some(labels) = format.get("labels") {
        let empty = matches!(&labels.value, Value::Map(entries) if entries.is_empty());
        return if empty { default_json() } else { LogLayout::Json(format.labels_of("labels")) };
    }
    match format.text_of("text") {
        "" => default_text(),
        text => LogLayout::Text(text.to_owned()),
    }
}
