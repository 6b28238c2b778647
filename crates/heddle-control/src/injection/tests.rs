//! Facts about single wishes; whole pods are in `tests/injection`.

use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;

fn around() -> Surroundings<'static> {
    Surroundings { namespace: "shop", namespace_labels: None, workload: None }
}

fn labels(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split_whitespace().map(|pair| pair.split_once('=').expect("a pair"));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn pod() -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]},
    })
}

fn with(kind: &str, key: &str, value: &str) -> Value {
    let mut pod = pod();
    pod["metadata"][kind][key] = json!(value);
    pod
}

fn settings() -> InjectionSettings {
    InjectionSettings::default()
}

fn injected(pod: &Value) -> Value {
    inject(around(), pod, &settings()).expect("is injected").pod
}

fn rejected(pod: &Value) -> String {
    let decided = decide(around(), pod, &settings());
    let refused = inject(around(), pod, &settings()).expect_err("is refused").to_string();
    assert_eq!(decided, Decision::Reject(refused.clone()));
    refused
}

#[test]
fn namespace_and_pod_decide_as_in_istio() {
    // Namespace's labels, pod's labels, injected?
    for (namespace, own, expected) in [
        ("", "", false),
        ("", "sidecar.istio.io/inject=true", true),
        ("", "heddle.dev/inject=true", true),
        ("", "istio.io/rev=default", true),
        ("", "istio.io/rev=canary", false),
        ("", "istio.io/rev=default sidecar.istio.io/inject=false", false),
        ("istio-injection=enabled", "", true),
        ("istio-injection=enabled", "sidecar.istio.io/inject=false", false),
        ("istio-injection=enabled", "istio.io/rev=canary", true),
        ("istio-injection=disabled", "sidecar.istio.io/inject=true", false),
        ("istio-injection=disabled istio.io/rev=default", "", false),
        ("istio-injection=enabled istio.io/rev=canary", "", true),
        ("heddle.dev/inject=true", "", true),
        ("heddle.dev/inject=true istio-injection=enabled", "", true),
        ("heddle.dev/inject=disabled", "heddle.dev/inject=true", false),
        ("istio.io/rev=default", "", true),
        ("istio.io/rev=default", "sidecar.istio.io/inject=false", false),
        ("istio.io/rev=canary", "sidecar.istio.io/inject=true", false),
        ("heddle.dev/rev=default", "", true),
    ] {
        let mut pod = pod();
        for (key, value) in labels(own) {
            pod["metadata"]["labels"][key] = json!(value);
        }
        let namespace_labels = labels(namespace);
        let around = Surroundings { namespace_labels: Some(&namespace_labels), ..around() };
        let decided = decide(around, &pod, &settings());
        assert_eq!(decided == Decision::Inject, expected, "{namespace} / {own}: {decided:?}");
        let tagged = InjectionSettings { tags: vec!["canary".into()], ..settings() };
        if own.contains("canary") || namespace == "istio.io/rev=canary" {
            assert_eq!(decide(around, &pod, &tagged), Decision::Inject, "{namespace} / {own}");
        }
    }
}

#[test]
fn a_label_beats_the_annotation_of_the_same_name() {
    let mut pod = with("labels", "sidecar.istio.io/inject", "false");
    pod["metadata"]["annotations"]["sidecar.istio.io/inject"] = json!("true");
    assert!(matches!(decide(around(), &pod, &settings()), Decision::Skip(_)));
    let pod = with("annotations", "sidecar.istio.io/inject", "no");
    assert!(matches!(decide(around(), &pod, &settings()), Decision::Skip(_)));
}

#[test]
fn some_pods_are_never_injected() {
    let mut on_host = with("labels", "sidecar.istio.io/inject", "true");
    on_host["spec"]["hostNetwork"] = json!(true);
    let istio = with("annotations", "sidecar.istio.io/status", "{}");
    let mirror = with("annotations", "kubernetes.io/config.mirror", "x");
    let mut windows = pod();
    windows["spec"]["os"] = json!({"name": "windows"});
    for (pod, says) in [
        (on_host, "node's network"),
        (istio, "Istio"),
        (mirror, "file on its node"),
        (windows, "Windows"),
    ] {
        let Decision::Skip(reason) = decide(around(), &pod, &settings()) else { panic!("{pod}") };
        assert!(reason.contains(says), "{reason}");
    }
    for namespace in ["kube-system", "heddle-system"] {
        let around = Surroundings { namespace, ..around() };
        assert!(matches!(decide(around, &pod(), &settings()), Decision::Skip(_)), "{namespace}");
    }
}

#[test]
fn what_is_malformed_or_contradicts_itself_is_refused_by_its_name() {
    for (key, value) in [
        ("sidecar.istio.io/inject", "maybe"),
        ("heddle.dev/inject", ""),
        ("sidecar.istio.io/proxyCPU", "a lot"),
        ("heddle.dev/proxy-memory-limit", "12 MB"),
        ("sidecar.istio.io/interceptionMode", "NONE"),
        ("heddle.dev/interception-mode", "tproxy"),
        ("proxy.istio.io/config", "interceptionMode: NONE"),
        ("sidecar.istio.io/rewriteAppHTTPProbers", "no"),
        ("sidecar.istio.io/logLevel", "loud"),
        ("sidecar.istio.io/proxyImage", "a b"),
        ("sidecar.istio.io/userVolume", "{"),
        ("sidecar.istio.io/userVolume", "[{\"emptyDir\":{}}]"),
        ("sidecar.istio.io/userVolumeMount", "1"),
        ("traffic.sidecar.istio.io/includeOutboundIPRanges", "10.0.0.0/33"),
        ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "*"),
        ("traffic.sidecar.istio.io/includeInboundPorts", "http"),
        ("traffic.sidecar.istio.io/excludeInboundPorts", "0"),
        ("traffic.sidecar.istio.io/excludeOutboundPorts", "70000"),
        ("traffic.sidecar.istio.io/includeInboundPorts", "*,80"),
        ("traffic.sidecar.istio.io/excludeInterfaces", "much-too-long-for-a-name"),
        ("readiness.status.sidecar.istio.io/periodSeconds", "-1"),
        ("proxy.istio.io/config", "concurrency: many"),
        ("proxy.istio.io/config", "concurrency: 1000"),
        ("proxy.istio.io/config", "terminationDrainDuration: 1.5"),
        ("proxy.istio.io/config", "{"),
        ("heddle.dev/status", "{}"),
    ] {
        let pod = with("annotations", key, value);
        if key.ends_with("/inject") {
            let Decision::Reject(reason) = decide(around(), &pod, &settings()) else { panic!() };
            assert!(reason.contains(key), "{reason}");
            continue;
        }
        let reason = rejected(&pod);
        assert!(reason.contains(key) && !reason.contains("contradict"), "{reason}");
    }
    let mut two = with("annotations", "sidecar.istio.io/proxyCPU", "1");
    two["metadata"]["annotations"]["heddle.dev/proxy-cpu"] = json!("2");
    let reason = rejected(&two);
    assert!(
        reason.contains("heddle.dev/proxy-cpu: 2") && reason.contains("proxyCPU: 1"),
        "{reason}"
    );
    let mut both = with("annotations", "traffic.sidecar.istio.io/includeInboundPorts", "80,81");
    both["metadata"]["annotations"]["heddle.dev/exclude-inbound-ports"] = json!("81");
    let reason = rejected(&both);
    assert!(reason.contains("`81`") && reason.contains("exclude-inbound-ports"), "{reason}");
}

#[test]
fn where_callers_keep_their_addresses_the_sidecar_has_the_right_it_takes_and_no_other() {
    let by_default = injected(&pod());
    let proxy = |pod: &Value| pod["spec"]["initContainers"][1].clone();
    assert_eq!(proxy(&by_default)["securityContext"]["capabilities"], json!({"drop": ["ALL"]}));
    assert!(!by_default.to_string().to_uppercase().contains("TPROXY"), "{by_default}");
    let by_setting =
        InjectionSettings { interception_mode: InterceptionMode::Tproxy, ..settings() };
    for (pod, settings) in [
        (with("annotations", "sidecar.istio.io/interceptionMode", "TPROXY"), settings()),
        (with("annotations", "heddle.dev/interception-mode", "TPROXY"), settings()),
        (with("annotations", "proxy.istio.io/config", "interceptionMode: TPROXY"), settings()),
        (pod(), by_setting.clone()),
    ] {
        let pod = inject(around(), &pod, &settings).expect("is injected").pod;
        let init = &pod["spec"]["initContainers"][0];
        let args = init["args"].as_array().unwrap();
        assert!(args.ends_with(&[json!("--mode"), json!("tproxy"), json!("--pod-ips=$(POD_IPS)")]));
        assert_eq!(init["env"][0]["valueFrom"]["fieldRef"]["fieldPath"], "status.podIPs");
        let context = &proxy(&pod)["securityContext"];
        let capabilities = json!({"add": ["NET_RAW"], "drop": ["ALL"]});
        assert_eq!(context["capabilities"], capabilities);
        assert_eq!((&context["runAsUser"], &context["runAsGroup"]), (&json!(0), &json!(1337)));
        assert_eq!(context["runAsNonRoot"], false);
        let variable = json!({"name": "HEDDLE_INTERCEPTION_MODE", "value": "TPROXY"});
        assert!(proxy(&pod)["env"].as_array().unwrap().contains(&variable));
    }
    // An annotation beats the setting, and where PodSecurity refuses such rights that is said.
    let back = with("annotations", "sidecar.istio.io/interceptionMode", "REDIRECT");
    assert_eq!(inject(around(), &back, &by_setting).unwrap().pod["spec"], injected(&back)["spec"]);
    for (labelled, told) in [("baseline", true), ("restricted", true), ("privileged", false)] {
        let text = format!("pod-security.kubernetes.io/enforce={labelled}");
        let namespace_labels = labels(&text);
        let around = Surroundings { namespace_labels: Some(&namespace_labels), ..around() };
        let warnings = inject(around, &pod(), &by_setting).unwrap().warnings;
        assert_eq!(warnings.iter().any(|one| one.contains("runs as root with NET_RAW")), told);
        assert!(inject(around, &pod(), &settings()).unwrap().warnings.is_empty());
    }
}

#[test]
fn what_is_not_honoured_is_told() {
    let pod = with("annotations", "sidecar.istio.io/bootstrapOverride", "x");
    let told = inject(around(), &pod, &settings()).unwrap().warnings;
    assert_eq!(told, ["annotation sidecar.istio.io/bootstrapOverride is not honoured"]);
    let pod = with("annotations", "heddle.dev/proxy-cpus", "1");
    let told = inject(around(), &pod, &settings()).unwrap().warnings;
    assert!(told[0].ends_with("did you mean `heddle.dev/proxy-cpu`?"), "{told:?}");
    let pod = with("annotations", "proxy.istio.io/config", "tracing: {}\nconcurrency: 2\n");
    let told = inject(around(), &pod, &settings()).unwrap();
    assert_eq!(told.warnings, ["annotation proxy.istio.io/config: `tracing` is not honoured"]);
    assert!(told.pod.to_string().contains(r#"{"name":"HEDDLE_CONCURRENCY","value":"2"}"#));
    let mut pod = self::pod();
    pod["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": 1337});
    let told = inject(around(), &pod, &settings()).unwrap().warnings;
    assert!(told[0].contains("container web runs as user 1337"), "{told:?}");
}

#[test]
fn a_pod_of_another_version_is_done_anew_and_its_probes_are_kept() {
    let mut original = pod();
    original["spec"]["containers"][0]["livenessProbe"] =
        json!({"tcpSocket": {"port": 8080}, "periodSeconds": 3});
    let theirs = json!({"name": "heddle-proxy", "image": "auto", "tty": true});
    original["spec"]["containers"].as_array_mut().unwrap().push(theirs);
    let now = injected(&original);
    let older =
        InjectionSettings { image: "heddle:0".into(), revision: "old".into(), ..settings() };
    let before = inject(around(), &original, &older).unwrap().pod;
    assert_ne!(before, now);
    assert_eq!(injected(&before), now);
}

#[test]
fn annotations_for_a_scraper_come_back_when_a_pod_is_done_anew() {
    let mut original = pod();
    original["metadata"]["annotations"] =
        json!({"prometheus.io/scrape": "true", "prometheus.io/port": "8080"});
    let now = injected(&original);
    assert_eq!(now["metadata"]["annotations"]["prometheus.io/port"], "15020");
    let older = InjectionSettings { revision: "old".into(), ..settings() };
    let before = inject(around(), &original, &older).unwrap().pod;
    assert_eq!(injected(&before), now);
    let unmerged = InjectionSettings { scrape: false, ..settings() };
    let left = inject(around(), &before, &unmerged).unwrap().pod;
    assert_eq!(left["metadata"]["annotations"]["prometheus.io/port"], "8080");
    assert!(left["metadata"]["annotations"].get("prometheus.io/path").is_none());
}

#[test]
fn a_pod_without_its_sidecar_is_told_from_one_with_it() {
    assert!(!is_injected(&pod()));
    assert!(!is_injected(&Value::Null));
    for native_sidecars in [true, false] {
        let settings = InjectionSettings { native_sidecars, ..settings() };
        assert!(is_injected(&inject(around(), &pod(), &settings).unwrap().pod));
    }
}

#[test]
fn probes_that_come_later_are_rewritten_too() {
    let mut pod = injected(&pod());
    let late = json!({"name": "late", "image": "x", "readinessProbe": {"grpc": {"port": 9}}});
    pod["spec"]["containers"].as_array_mut().unwrap().push(late);
    let again = injected(&pod);
    let text = again.to_string();
    assert!(text.contains(r#"/app-health/late/readyz\":{\"grpc\":{\"port\":9}"#), "{text}");
    assert_eq!(injected(&again), again);
}

#[test]
fn workloads_are_named_by_what_made_them() {
    let named = |kind: &str, owner: &str, hash: &str| {
        let owner = json!([{"controller": true, "kind": kind, "name": owner}]);
        let labels = json!({"pod-template-hash": hash});
        let pod = json!({
            "metadata": {"ownerReferences": owner, "labels": labels},
            "spec": {"containers": [{"name": "a"}]},
        });
        identity::workload_name(&Pod::read(pod).unwrap(), around())
    };
    assert_eq!(named("ReplicaSet", "web-5d4f", "5d4f"), "web");
    assert_eq!(named("ReplicaSet", "web-5d4f", ""), "web-5d4f");
    assert_eq!(named("StatefulSet", "db-0", ""), "db-0");
    assert_eq!(named("Job", "nightly-28461900", ""), "nightly");
    assert_eq!(named("Job", "migrate-3", ""), "migrate-3");
    let bare = json!({"metadata": {"generateName": "x-"}, "spec": {"containers": [{"name": "a"}]}});
    assert_eq!(identity::workload_name(&Pod::read(bare).unwrap(), around()), "x");
}

const WORDS: &[&str] = &[
    "web",
    "heddle-proxy",
    "istio-proxy",
    "heddle-init",
    "Always",
    "http",
    "true",
    "*",
    "80",
    "10.0.0.0/8",
    "{}",
    "[]",
    "heddle-ca",
    "auto",
    "/app-health/web/livez",
    "HTTPS",
    "",
];
const KEYS: &[&str] = &[
    "metadata",
    "spec",
    "labels",
    "annotations",
    "containers",
    "initContainers",
    "volumes",
    "name",
    "livenessProbe",
    "readinessProbe",
    "httpGet",
    "tcpSocket",
    "grpc",
    "port",
    "ports",
    "containerPort",
    "env",
    "value",
    "restartPolicy",
    "securityContext",
    "runAsUser",
    "hostNetwork",
    "ownerReferences",
    "imagePullSecrets",
    "path",
    "heddle.dev/status",
    "sidecar.istio.io/inject",
    "proxy.istio.io/config",
    "sidecar.istio.io/userVolume",
    "traffic.sidecar.istio.io/includeInboundPorts",
    "resources",
    "limits",
    "memory",
];

/// JSON with the words that mean something here.
fn values() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(WORDS);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2_i64..70_000).prop_map(Value::from),
        word.prop_map(Value::from),
    ];
    let key = prop::sample::select(KEYS);
    leaf.prop_recursive(6, 96, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6).prop_map(|entries| {
                let entries = entries.into_iter().map(|(key, value)| (key.to_owned(), value));
                Value::Object(entries.collect::<Map<_, _>>())
            }),
        ]
    })
}

/// Pods that are likely to be taken.
fn pods() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec!["web", "heddle-proxy", "istio-proxy", "heddle-init", "b"]);
    let container =
        (name, values(), values(), any::<bool>()).prop_map(|(name, probe, rest, native)| {
            let mut container = json!({
                "name": name,
                "ports": [{"name": "http", "containerPort": 80}],
                "livenessProbe": {"httpGet": {"port": "http", "path": "/x"}},
                "readinessProbe": probe,
            });
            if let Value::Object(rest) = rest {
                let rest = rest.into_iter().filter(|(key, _)| key != "name");
                container.as_object_mut().unwrap().extend(rest);
            }
            if native {
                container["restartPolicy"] = json!("Always");
            }
            container
        });
    let container = container.boxed();
    let list = |least| prop::collection::vec(container.clone(), least..4);
    (list(1), list(0), values()).prop_map(|(containers, init, metadata)| {
        let metadata = if metadata.is_object() { metadata } else { json!({}) };
        json!({"metadata": metadata, "spec": {"containers": containers, "initContainers": init}})
    })
}

proptest! {
    #[test]
    fn any_json_is_decided_without_a_panic(value in values()) {
        let _any = decide(around(), &value, &settings());
        let _any = inject(around(), &value, &settings());
    }

    #[test]
    fn twice_is_once(pod in pods(), native in any::<bool>(), hold in any::<bool>()) {
        let settings = InjectionSettings {
            native_sidecars: native,
            hold_application_until_proxy_starts: hold,
            ..settings()
        };
        if let Ok(once) = inject(around(), &pod, &settings) {
            let twice = inject(around(), &once.pod, &settings).expect("is taken again");
            prop_assert_eq!(&twice.pod, &once.pod);
            // What another revision makes of it is what it makes of the original.
            let other = InjectionSettings { revision: "other".into(), ..settings.clone() };
            let from_original = inject(around(), &pod, &other).expect("is taken").pod;
            let from_injected = inject(around(), &once.pod, &other).expect("is taken").pod;
            let count = |pod: &Value| {
                let lists = ["containers", "initContainers", "volumes"];
                lists.map(|list| pod["spec"][list].as_array().map_or(0, Vec::len))
            };
            prop_assert_eq!(count(&from_injected), count(&from_original));
        }
    }
}
