//! `MeshConfig`: what holds for the whole mesh, in the words of Istio's. Of its fields those about logs, spans
//! and metrics are carried out; the others are known, and noted.

use std::collections::BTreeMap;

use super::{
    log_format::{self, DEFAULT_JSON, DEFAULT_TEXT},
    node::{Node, Value},
    report::Report,
    schema::{Kind, NAME, Object, PORT, TEXT, join, not_yet, optional, required},
    telemetry::{CUSTOM_TAGS, custom_tags},
    value,
};
use crate::{
    discovery::{CollectorAddress, LogLayout, OtlpHttpSink, SpanSink, ZipkinSink},
    resource::{MeshConfig, Named, Provider, ProviderKind},
};

/// The namespace of what holds for all.
const ROOT_NAMESPACE: &str = "istio-system";
/// Where Zipkin takes spans.
const ZIPKIN_PATH: &str = "/api/v2/spans";
/// Where OTLP over HTTP takes them.
const OTLP_PATH: &str = "/v1/traces";
/// Port of Zipkin where an address names none.
const ZIPKIN_PORT: u16 = 9411;

/// `spec` of a MeshConfig.
pub(super) static SPEC: Object = Object {
    fields: &[
        optional("accessLogFile", Kind::Text(log_path)),
        optional("accessLogFormat", TEXT),
        optional("accessLogEncoding", Kind::Choice(&["TEXT", "JSON"])),
        optional("extensionProviders", Kind::List { of: &Kind::Object(&PROVIDER), least: 0 }),
        optional("defaultProviders", Kind::Object(&DEFAULTS)),
        optional("enableTracing", Kind::Bool),
        optional("defaultConfig", Kind::Object(&PROXY)),
        not_yet("caCertificates", Kind::Any),
        not_yet("certificates", Kind::Any),
        not_yet("configSources", Kind::Any),
        not_yet("connectTimeout", Kind::Any),
        not_yet("defaultDestinationRuleExportTo", Kind::Any),
        not_yet("defaultHttpRetryPolicy", Kind::Any),
        not_yet("defaultServiceExportTo", Kind::Any),
        not_yet("defaultTrafficPolicy", Kind::Any),
        not_yet("defaultVirtualServiceExportTo", Kind::Any),
        not_yet("discoverySelectors", Kind::Any),
        not_yet("dnsRefreshRate", Kind::Any),
        not_yet("enableAutoMtls", Kind::Any),
        not_yet("enableEnvoyAccessLogService", Kind::Any),
        not_yet("enablePrometheusMerge", Kind::Any),
        not_yet("h2UpgradePolicy", Kind::Any),
        not_yet("inboundTrafficPolicy", Kind::Any),
        not_yet("ingressClass", Kind::Any),
        not_yet("ingressControllerMode", Kind::Any),
        not_yet("ingressSelector", Kind::Any),
        not_yet("ingressService", Kind::Any),
        not_yet("localityLbSetting", Kind::Any),
        not_yet("meshMTLS", Kind::Any),
        not_yet("outboundTrafficPolicy", Kind::Any),
        not_yet("pathNormalization", Kind::Any),
        not_yet("protocolDetectionTimeout", Kind::Any),
        not_yet("proxyInboundListenPort", Kind::Any),
        not_yet("proxyListenPort", Kind::Any),
        not_yet("rootNamespace", Kind::Any),
        not_yet("serviceSettings", Kind::Any),
        not_yet("tcpKeepalive", Kind::Any),
        not_yet("tlsDefaults", Kind::Any),
        not_yet("trustDomain", Kind::Any),
        not_yet("trustDomainAliases", Kind::Any),
        not_yet("verifyCertificateAtClient", Kind::Any),
    ],
    rules: &[is_of_the_root, format_is_read, names_differ],
};

static DEFAULTS: Object = Object {
    fields: &[
        optional("tracing", Kind::List { of: &NAME, least: 0 }),
        optional("accessLogging", Kind::List { of: &NAME, least: 0 }),
        optional("metrics", Kind::List { of: &NAME, least: 0 }),
    ],
    rules: &[],
};

static PROXY: Object = Object {
    fields: &[
        optional("tracing", Kind::Object(&PROXY_TRACING)),
        not_yet("concurrency", Kind::Any),
        not_yet("drainDuration", Kind::Any),
        not_yet("holdApplicationUntilProxyStarts", Kind::Any),
        not_yet("proxyMetadata", Kind::Any),
        not_yet("proxyStatsMatcher", Kind::Any),
        not_yet("proxyHeaders", Kind::Any),
        not_yet("discoveryAddress", Kind::Any),
        not_yet("terminationDrainDuration", Kind::Any),
        not_yet("image", Kind::Any),
        not_yet("gatewayTopology", Kind::Any),
    ],
    rules: &[],
};

static PROXY_TRACING: Object = Object {
    fields: &[
        optional("sampling", Kind::Number { min: 0.0, max: 100.0 }),
        optional("zipkin", Kind::Object(&ADDRESS)),
        optional("customTags", CUSTOM_TAGS),
        optional("maxPathTagLength", Kind::Int { min: 1, max: 65_536 }),
        not_yet("tlsSettings", Kind::Any),
        not_yet("lightstep", Kind::Any),
        not_yet("datadog", Kind::Any),
        not_yet("stackdriver", Kind::Any),
        not_yet("openCensusAgent", Kind::Any),
    ],
    rules: &[],
};

static ADDRESS: Object = Object {
    fields: &[required("address", Kind::Text(|text| host_port(text).map(drop)))],
    rules: &[],
};

static PROVIDER: Object = Object {
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
        not_yet("logName", TEXT),
        optional("logFormat", Kind::Object(&FORMAT)),
    ],
    rules: &[],
};

static FORMAT: Object = Object {
    fields: &[
        optional("text", Kind::Text(log_format::check)),
        optional("labels", Kind::Map { key: value::not_empty, of: &Kind::Text(log_format::check) }),
    ],
    rules: &[|node, path, report| {
        super::schema::at_most_one(node, &["text", "labels"], path, report)
    }],
};

static ZIPKIN: Object = Object {
    fields: &[
        required("service", Kind::Text(provider_service)),
        required("port", PORT),
        optional("maxTagLength", Kind::Int { min: 1, max: 65_536 }),
        optional("enable64bitTraceId", Kind::Bool),
        optional("path", Kind::Text(http_path)),
        not_yet("timeout", Kind::Any),
        not_yet("headers", Kind::Any),
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
        not_yet("grpc", Kind::Any),
        not_yet("resourceDetectors", Kind::Any),
        not_yet("dynatraceSampler", Kind::Any),
        not_yet("serviceAttributeEnrichment", Kind::Any),
    ],
    rules: &[],
};

static OTEL_HTTP: Object = Object {
    fields: &[
        optional("path", Kind::Text(http_path)),
        optional("timeout", Kind::Duration { least_ms: 1 }),
        optional("headers", Kind::List { of: &Kind::Object(&HEADER), least: 0 }),
    ],
    rules: &[],
};

static HEADER: Object = Object {
    fields: &[
        required("name", Kind::Text(value::field_name)),
        optional("value", Kind::Text(value::field_value)),
        not_yet("envName", TEXT),
    ],
    rules: &[],
};

/// A file from the root on, or nothing.
fn log_path(text: &str) -> Result<(), String> {
    if text.is_empty() { Ok(()) } else { value::file_path(text) }
}

fn http_path(text: &str) -> Result<(), String> {
    let fits = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(()) } else { Err(format!("`{text}` is no path: use e.g. `{ZIPKIN_PATH}`")) }
}

/// `[NAMESPACE/]HOST`, as Istio's providers name a service.
fn provider_service(text: &str) -> Result<(), String> {
    value::single_host(text.split_once('/').map_or(text, |(_, host)| host))
}

fn host_port(text: &str) -> Result<CollectorAddress, String> {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let port = match port {
        "" => ZIPKIN_PORT,
        port => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
            format!("`{text}` is no HOST:PORT: use e.g. `zipkin.istio-system:{ZIPKIN_PORT}`")
        })?,
    };
    value::single_host(host)?;
    Ok(CollectorAddress { host: host.trim_end_matches('.').to_ascii_lowercase(), port })
}

fn is_of_the_root(spec: &Node, path: &str, report: &mut Report<'_>) {
    if report.namespace() != ROOT_NAMESPACE {
        let reason = format!(
            "a MeshConfig is of the root namespace: write `namespace: {ROOT_NAMESPACE}` into its metadata"
        );
        report.at(spec, path, reason);
    }
}

/// What `accessLogFormat` holds depends on the encoding.
fn format_is_read(spec: &Node, path: &str, report: &mut Report<'_>) {
    let Some(format) = spec.get("accessLogFormat") else { return };
    if let Err(reason) = layout_of(spec) {
        report.at(format, &join(path, "accessLogFormat"), reason);
    }
}

fn names_differ(spec: &Node, path: &str, report: &mut Report<'_>) {
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

/// How lines of the access log for all look.
fn layout_of(spec: &Node) -> Result<LogLayout, String> {
    let format = spec.text_of("accessLogFormat");
    match (spec.text_of("accessLogEncoding"), format) {
        ("JSON", "") => Ok(default_json()),
        ("JSON", format) => {
            let fields: BTreeMap<String, String> = serde_json::from_str(format).map_err(|error| {
                format!("with `accessLogEncoding: JSON` this is an object of names and texts: {error}")
            })?;
            fields.values().try_for_each(|format| log_format::check(format))?;
            Ok(LogLayout::Json(fields))
        }
        (_, "") => Ok(default_text()),
        (_, format) => log_format::check(format).map(|()| LogLayout::Text(format.to_owned())),
    }
}

fn default_text() -> LogLayout {
    LogLayout::Text(DEFAULT_TEXT.to_owned())
}

fn default_json() -> LogLayout {
    let owned = |(name, format): &(&str, &str)| ((*name).to_owned(), (*format).to_owned());
    LogLayout::Json(DEFAULT_JSON.iter().map(owned).collect())
}

/// A checked MeshConfig into its noun.
pub(super) fn read(spec: &Node, path: &str) -> MeshConfig {
    let file = Some(spec.text_of("accessLogFile")).filter(|path| !path.is_empty());
    let proxy = spec.get("defaultConfig").and_then(|proxy| proxy.get("tracing"));
    let defaults = spec.get("defaultProviders");
    let named = |kind: &str| {
        let all = defaults.map_or(&[][..], |all| all.items_of(kind)).iter();
        all.map(|name| Named { name: name.text().to_owned(), line: name.line }).collect()
    };
    let traces = spec.text_of("enableTracing") == "true";
    let zipkin = proxy.and_then(|tracing| tracing.get("zipkin")).filter(|_| traces);
    let to = |to| ZipkinSink { to, path: ZIPKIN_PATH.to_owned(), short_ids: false };
    let providers = spec.items_of("extensionProviders").iter().enumerate();
    let providers = providers.map(|(i, node)| {
        let does = provider(node, &format!("{}[{i}]", join(path, "extensionProviders")));
        Provider { name: node.text_of("name").to_owned(), line: node.line, does }
    });
    MeshConfig {
        access_log: file.and_then(|path| Some((path.to_owned(), layout_of(spec).ok()?))),
        providers: providers.collect(),
        default_tracing: named("tracing"),
        default_logging: named("accessLogging"),
        sampling: proxy.and_then(|tracing| tracing.text_of("sampling").parse().ok()),
        custom_tags: proxy.map(custom_tags).unwrap_or_default(),
        max_tag_length: proxy.and_then(|tracing| tracing.text_of("maxPathTagLength").parse().ok()),
        spans_to: zipkin
            .and_then(|zipkin| host_port(zipkin.text_of("address")).ok())
            .map(|address| SpanSink::Zipkin(to(address))),
    }
}

fn provider(node: &Node, path: &str) -> ProviderKind {
    if let Some(log) = node.get("envoyFileAccessLog") {
        let path = Some(log.text_of("path")).filter(|path| !path.is_empty());
        return ProviderKind::FileLog(path.unwrap_or("/dev/stdout").to_owned(), format_of(log));
    }
    if let Some(log) = node.get("envoyOtelAls") {
        return ProviderKind::OtlpLog(collector(log), format_of(log));
    }
    let length = |of: &Node| of.text_of("maxTagLength").parse().ok();
    if let Some(zipkin) = node.get("zipkin") {
        let path = Some(zipkin.text_of("path")).filter(|path| !path.is_empty());
        let sink = ZipkinSink {
            to: collector(zipkin),
            path: path.unwrap_or(ZIPKIN_PATH).to_owned(),
            short_ids: zipkin.text_of("enable64bitTraceId") == "true",
        };
        return ProviderKind::Spans(SpanSink::Zipkin(sink), length(zipkin));
    }
    if let Some(otel) = node.get("opentelemetry") {
        let sink = match otel.get("http") {
            None => SpanSink::OtlpGrpc(collector(otel)),
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

fn over_http(otel: &Node, http: &Node) -> OtlpHttpSink {
    let path = Some(http.text_of("path")).filter(|path| !path.is_empty());
    let headers = http.items_of("headers").iter();
    OtlpHttpSink {
        to: collector(otel),
        path: path.unwrap_or(OTLP_PATH).to_owned(),
        timeout: http.get("timeout").and_then(|text| value::duration(text.text()).ok()),
        headers: headers
            .map(|one| (one.text_of("name").to_owned(), one.text_of("value").to_owned()))
            .collect(),
    }
}

fn collector(node: &Node) -> CollectorAddress {
    let written = node.text_of("service");
    let host = written.split_once('/').map_or(written, |(_, host)| host);
    CollectorAddress {
        host: host.trim_end_matches('.').to_ascii_lowercase(),
        port: node.text_of("port").parse().unwrap_or_default(),
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
