//! `MeshConfig`: what holds for the whole mesh, in the words of Istio's. Of its fields those about logs, spans
//! and metrics are carried out; the others are known, and noted.

mod log;
mod provider;

use std::collections::BTreeMap;

use self::{
    log::{default_json, default_text, log_path},
    provider::{PROVIDER, ZIPKIN_PATH, names_differ},
};
use super::{
    destination_rule::tls,
    log_format,
    node::Node,
    report::Report,
    schema::{Kind, NAME, Object, TEXT, join, not_yet, optional, required},
    telemetry::{CUSTOM_TAGS, custom_tags},
    value,
};
use crate::{
    discovery::{ClientTls, Collector, LogLayout, SpanSink, ZipkinSink},
    resource::{MeshConfig, Named, Provider, TlsSettings},
};

/// The namespace of what holds for all.
const ROOT_NAMESPACE: &str = "istio-system";
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
        optional("tlsSettings", Kind::Object(&tls::TLS)),
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

fn host_port(text: &str) -> Result<Collector, String> {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let port = match port {
        "" => ZIPKIN_PORT,
        port => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
            format!("`{text}` is no HOST:PORT: use e.g. `zipkin.istio-system:{ZIPKIN_PORT}`")
        })?,
    };
    value::single_host(host)?;
    Ok(Collector::at(&host.trim_end_matches('.').to_ascii_lowercase(), port))
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
        let does = provider::provider(node, &format!("{}[{i}]", join(path, "extensionProviders")));
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
            .map(|to| Collector { tls: tls_to(&to.host, proxy), ..to })
            .map(|address| SpanSink::Zipkin(to(address))),
    }
}

/// The TLS that `defaultConfig.tracing.tlsSettings` asks for towards a host.
fn tls_to(host: &str, tracing: Option<&Node>) -> Option<Box<ClientTls>> {
    match tls::read(tracing?.get("tlsSettings")?) {
        TlsSettings::Plain => None,
        TlsSettings::Originate(mut tls) => {
            if tls.server_name.is_empty() {
                host.clone_into(&mut tls.server_name);
            }
            Some(tls)
        }
    }
}
