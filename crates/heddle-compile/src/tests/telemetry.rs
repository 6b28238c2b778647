//! Telemetries: which hold for whom, what a later one leaves of an earlier one, and what is said about them.

use std::time::Duration;

use heddle_model::discovery::{
    Collector, LogLayout, LogSink, Metric, SideTelemetry, SpanSink, TagChange, WorkloadTelemetry,
};

use super::*;
use crate::TelemetryDefault;

fn telemetry(place: &str, spec: &str) -> String {
    let (namespace, name) = place.split_once('/').unwrap();
    format!(
        "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n"
    )
}

fn mesh_config(spec: &str) -> String {
    format!(
        "apiVersion: heddle.dev/v1alpha1\nkind: MeshConfig\nmetadata: {{name: mesh, namespace: istio-system}}\nspec: {spec}\n---\n"
    )
}

/// What the first workload of a service is told.
fn told(text: &str, service: &str) -> Option<WorkloadTelemetry> {
    let mesh = Mesh::demo();
    let mut workloads = mesh.0.workloads.values();
    let workload = workloads.find(|one| one.services.contains(&name(service))).unwrap();
    rules(text).inbound(&mesh.0, workload).telemetry.map(|told| *told)
}

fn logs(side: &SideTelemetry) -> Vec<(&str, Option<&str>)> {
    side.access_logs.iter().map(|log| (log.provider.as_str(), log.filter.as_deref())).collect()
}

#[test]
fn without_a_word_about_it_nothing_is_told() {
    assert_eq!(told("", "reviews"), None);
    let nothing = telemetry("istio-system/all", "{}") + &mesh_config("{enableTracing: false}");
    assert_eq!(told(&nothing, "reviews"), None);
}

#[test]
fn the_meshs_own_log_is_everybodys_until_a_telemetry_says_otherwise() {
    let mesh = mesh_config("{accessLogFile: /dev/stdout}");
    let all = told(&mesh, "reviews").unwrap();
    for side in [&all.client, &all.server] {
        assert_eq!(logs(side), [("accessLogFile", None)]);
        assert_eq!(side.access_logs[0].to, LogSink::File("/dev/stdout".to_owned()));
        assert_eq!(side.access_logs[0].provenance.0, "MeshConfig/istio-system/mesh");
    }
    let off = mesh.clone() + &telemetry("default/quiet", "{accessLogging: [{disabled: true}]}");
    assert_eq!(told(&off, "reviews"), None);
    let half = mesh
        + &telemetry(
            "default/errors",
            "{accessLogging: [{match: {mode: SERVER}, disabled: true}, {match: {mode: CLIENT}, filter: {expression: response.code >= 500}}]}",
        );
    let half = told(&half, "reviews").unwrap();
    assert_eq!(logs(&half.client), [("accessLogFile", Some("response.code >= 500"))]);
    assert_eq!(logs(&half.server), []);
}

#[test]
fn a_closer_telemetry_takes_the_place_of_one_further_away() {
    let providers = mesh_config(
        "{extensionProviders: [{name: file, envoyFileAccessLog: {path: /var/log/a}}, {name: als, envoyOtelAls: {service: c.example.com, port: 4317}}]}",
    );
    let of = |name: &str| format!("{{accessLogging: [{{providers: [{{name: {name}}}]}}]}}");
    let own = "{selector: {matchLabels: {app: reviews}}, accessLogging: [{filter: {expression: response.code == 503}}]}";
    let text = providers
        + &telemetry("istio-system/all", &of("envoy"))
        + &telemetry("default/all", &of("file"))
        + &telemetry("default/second", &of("als"))
        + &telemetry("default/own", own);
    assert_eq!(logs(&told(&text, "photos").unwrap().client), [("file", None)]);
    let reviews = told(&text, "reviews").unwrap();
    assert_eq!(logs(&reviews.client), [("file", Some("response.code == 503"))]);
    let said = Mesh::demo().said(&rules(&text));
    let second = "Telemetry/default/all is for the same workloads";
    assert_eq!(said.iter().filter(|one| one.contains(second)).count(), 1, "{said:?}");
}

#[test]
fn tracing_is_put_together_field_by_field() {
    let mesh = mesh_config(
        "{defaultProviders: {tracing: [zipkin]}, defaultConfig: {tracing: {sampling: 50}}, extensionProviders: [{name: zipkin, zipkin: {service: zipkin.istio-system.svc.cluster.local, port: 9411, maxTagLength: 64}}, {name: otel, opentelemetry: {service: c.example.com, port: 4317}}]}",
    );
    let first = told(&mesh, "reviews").unwrap().client.tracing.unwrap();
    assert!(matches!(&first.to, SpanSink::Zipkin(to) if to.to.port == 9411));
    assert_eq!((first.sampling, first.max_tag_length), (50.0, 64));
    assert!(first.by_request_id && first.istio_tags && !first.reports_nothing);
    let text = mesh
        + &telemetry(
            "istio-system/all",
            "{tracing: [{randomSamplingPercentage: 10, customTags: {team: {literal: {value: a}}}}]}",
        )
        + &telemetry(
            "default/all",
            "{tracing: [{match: {mode: SERVER}, providers: [{name: otel}], disableSpanReporting: true}]}",
        );
    let told = told(&text, "reviews").unwrap();
    let (client, server) = (told.client.tracing.unwrap(), told.server.tracing.unwrap());
    assert_eq!((client.provider.as_str(), server.provider.as_str()), ("zipkin", "otel"));
    assert_eq!((client.sampling, server.sampling), (10.0, 10.0));
    assert_eq!((client.reports_nothing, server.reports_nothing), (false, true));
    assert_eq!(server.custom_tags.len(), 1);
    assert_eq!(server.provenance.0, "Telemetry/default/all#tracing[0]");
}

#[test]
fn changes_of_metrics_keep_their_order_and_their_side() {
    let text = telemetry(
        "istio-system/all",
        "{metrics: [{reportingInterval: 10s, overrides: [{match: {metric: REQUEST_SIZE, mode: CLIENT}, disabled: true}, {disabled: false}, {match: {metric: TCP_SENT_BYTES}}, {match: {customMetric: requests_total, mode: SERVER}, tagOverrides: {method: {value: request.method}, source_app: {operation: REMOVE}}}]}]}",
    ) + &telemetry(
        "default/all",
        "{metrics: [{providers: [{name: other}], reportingInterval: 1s, overrides: [{disabled: true}]}]}",
    );
    let told = told(&text, "reviews").unwrap();
    let of = |side: &SideTelemetry| side.metrics.iter().map(|one| one.metric).collect::<Vec<_>>();
    assert_eq!(of(&told.client), [Metric::RequestSize, Metric::All]);
    assert_eq!(of(&told.server), [Metric::All, Metric::RequestCount]);
    assert_eq!(told.server.metrics[0].disabled, Some(false));
    let tags: Vec<_> = told.server.metrics[1].tags.iter().collect();
    let (method, app) = ("method".to_owned(), "source_app".to_owned());
    let value = TagChange::Value("request.method".to_owned());
    assert_eq!(tags, [(&method, &value), (&app, &TagChange::Removed)]);
    assert_eq!(told.client.reporting_interval, Some(Duration::from_secs(10)));
}

#[test]
fn what_leads_nowhere_is_said() {
    let text = mesh_config(
        "{extensionProviders: [{name: dog, datadog: {}}, {name: als, envoyOtelAls: {service: c.example.com, port: 4317}}, {name: spans, zipkin: {service: z.example.com, port: 9411}}]}",
    ) + &telemetry(
        "default/all",
        "{accessLogging: [{providers: [{name: absent}]}, {providers: [{name: spans}]}], tracing: [{providers: [{name: dog}]}]}",
    ) + &telemetry("default/nobody", "{selector: {matchLabels: {app: nobody}}}")
        + &telemetry(
            "default/gateway",
            "{targetRefs: [{kind: Gateway, name: front, group: gateway.networking.k8s.io}]}",
        );
    let said = Mesh::demo().said(&rules(&text)).join("\n");
    for words in [
        "there is no provider `absent`",
        "the provider `spans` takes no accessLogging",
        "nothing is sent to `dog`",
        "no workload of namespace `default` carries these labels",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn more_tags_than_a_sidecar_changes_are_said_of_the_telemetry_that_adds_them() {
    let tags = |from: usize, to: usize| {
        let tags: Vec<_> =
            (from..to).map(|i| format!("t{i:02}: {{value: request.method}}")).collect();
        format!("{{metrics: [{{overrides: [{{tagOverrides: {{{}}}}}]}}]}}", tags.join(", "))
    };
    let said = |own: &str| {
        let text = telemetry("istio-system/all", &tags(0, 20)) + &telemetry("default/own", own);
        Mesh::demo().said(&rules(&text)).join("\n")
    };
    let many = said(&tags(20, 33));
    let words = "33 tags of istio_requests_total are changed";
    assert!(many.contains(words) && many.contains("`t32` and what comes after it"), "{many}");
    assert_eq!(many.lines().count(), 1, "{many}");
    for fits in [tags(20, 32), tags(0, 20), "{}".to_owned()] {
        assert!(!said(&fits).contains("are changed"), "{fits}");
    }
}

#[test]
fn where_no_rule_says_where_spans_go_they_go_where_the_mesh_was_started_to_send_them() {
    let to = |port| SpanSink::OtlpGrpc(Collector::at("127.0.0.1", port));
    let store = Some(to(3));
    let to_all = vec![to(1), to(5)];
    let default =
        TelemetryDefault { to: to_all, sampling: 7.0, at_least: 4, store, access_log: None };
    let traced = |text: &str| {
        let mesh = Mesh::demo();
        let mut workloads = mesh.0.workloads.values();
        let workload = workloads.find(|one| one.services.contains(&name("reviews"))).unwrap();
        let inbound = rules(text).inbound_with(&mesh.0, workload, Some(&default));
        let client = inbound.telemetry.unwrap().client.tracing.unwrap();
        let sinks: Vec<SpanSink> = [client.to].into_iter().chain(client.also).collect();
        (sinks, client.sampling, client.at_least)
    };
    assert_eq!(traced(""), (vec![to(1), to(5)], 7.0, 4));
    let half = telemetry("istio-system/all", "{tracing: [{randomSamplingPercentage: 50}]}");
    assert_eq!(traced(&half), (vec![to(1), to(5)], 50.0, 0), "a Telemetry may leave that open");
    let other = mesh_config(
        "{defaultProviders: {tracing: [o]}, extensionProviders: [{name: o, opentelemetry: {service: 127.0.0.1, port: 2}}]}",
    );
    assert_eq!(traced(&other), (vec![to(2)], 7.0, 4), "a MeshConfig is closer");
    let own = telemetry("istio-system/all", "{tracing: [{providers: [{name: heddle}]}]}");
    assert_eq!(traced(&own), (vec![to(3)], 7.0, 4), "the mesh's own store is a provider");
    let both = other
        + &telemetry("istio-system/all", "{tracing: [{providers: [{name: o}, {name: heddle}]}]}");
    assert_eq!(traced(&both), (vec![to(2), to(3)], 7.0, 4), "all that are named get them");
}

#[test]
fn the_log_that_a_mesh_was_started_with_holds_where_no_meshconfig_names_another() {
    let default = TelemetryDefault {
        to: Vec::new(),
        sampling: 1.0,
        at_least: 0,
        store: None,
        access_log: Some("/tmp/all.log".to_owned()),
    };
    let logs = |text: &str| {
        let mesh = Mesh::demo();
        let mut workloads = mesh.0.workloads.values();
        let workload = workloads.find(|one| one.services.contains(&name("reviews"))).unwrap();
        let told = rules(text).inbound_with(&mesh.0, workload, Some(&default)).telemetry;
        let logs = told.map(|told| told.server.access_logs).unwrap_or_default();
        logs.into_iter().map(|log| log.to).collect::<Vec<_>>()
    };
    let file = |path: &str| vec![LogSink::File(path.to_owned())];
    assert_eq!(logs(""), file("/tmp/all.log"));
    assert_eq!(logs(&mesh_config("{enableTracing: false}")), file("/tmp/all.log"));
    assert_eq!(logs(&mesh_config("{accessLogFile: /tmp/own.log}")), file("/tmp/own.log"));
    let off = telemetry("istio-system/all", "{accessLogging: [{disabled: true}]}");
    assert_eq!(logs(&off), []);
}

#[test]
fn a_collector_gets_a_body_attributes_and_the_tls_that_a_destination_rule_asks_for() {
    let text = mesh_config(
        "{defaultProviders: {accessLogging: [als], tracing: [otel]}, extensionProviders: [\
         {name: als, envoyOtelAls: {service: logs.example.com, port: 4317, logName: calls, logFormat: {text: \"%DURATION%\", labels: {code: \"%RESPONSE_CODE%\"}}}}, \
         {name: otel, opentelemetry: {service: tempo.observe.svc.cluster.local, port: 4317, grpc: {timeout: 3s, initialMetadata: [{name: X-Key, envName: KEY}]}}}]}",
    ) + "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: tls, namespace: istio-system}\nspec:\n  host: '*.example.com'\n  trafficPolicy: {tls: {mode: SIMPLE, caCertificates: /etc/ca.pem}}\n";
    let mesh = Mesh::demo();
    let workload = mesh.0.workloads.values().next().unwrap();
    let told = rules(&text).inbound_with(&mesh.0, workload, None).telemetry.unwrap();
    let log = &told.client.access_logs[0];
    assert_eq!(log.layout, LogLayout::Text("%DURATION%".to_owned()));
    assert_eq!(
        (log.log_name.as_str(), log.attributes["code"].as_str()),
        ("calls", "%RESPONSE_CODE%")
    );
    let LogSink::Otlp(to) = &log.to else { panic!("{log:?}") };
    let tls = to.tls.as_ref().unwrap();
    assert_eq!(
        (tls.server_name.as_str(), tls.authorities.as_deref()),
        ("logs.example.com", Some("/etc/ca.pem"))
    );
    let traced = told.client.tracing.unwrap();
    let SpanSink::OtlpGrpc(to) = &traced.to else { panic!("{traced:?}") };
    assert_eq!((&to.tls, to.timeout), (&None, Some(Duration::from_secs(3))));
    let sent = &to.headers[0];
    assert_eq!(
        (sent.name.as_str(), sent.value.as_str(), sent.from_environment),
        ("x-key", "KEY", true)
    );
}
