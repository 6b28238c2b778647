//! Reviews as the API server sends them, and as nobody should.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::*;

#[derive(Debug)]
struct Labelled(BTreeMap<String, String>);

impl Namespaces for Labelled {
    fn labels(&self, namespace: &str) -> Option<Arc<BTreeMap<String, String>>> {
        (namespace == "shop").then(|| Arc::new(self.0.clone()))
    }
}

fn webhook() -> Webhook {
    let labels = BTreeMap::from([("istio-injection".to_owned(), "enabled".to_owned())]);
    Webhook::new(InjectionSettings::default(), Arc::new(Labelled(labels)))
}

fn review(kind: &str, object: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": kind},
            "namespace": "shop",
            "operation": "CREATE",
            "dryRun": true,
            "object": object,
        },
    })
}

fn asked(path: &str, review: &Value) -> Value {
    let reply = webhook().answer("POST", path, review.to_string().as_bytes());
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    let answer: Value = serde_json::from_slice(&reply.body).expect("JSON");
    assert_eq!(answer["kind"], "AdmissionReview");
    assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
    answer["response"].clone()
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "web-", "annotations": {"a/b": "c"}},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]},
    })
}

/// Applies the operations that are used here.
fn patched(object: &Value, response: &Value) -> Value {
    let patch = STANDARD.decode(response["patch"].as_str().expect("a patch")).expect("base64");
    let operations: Vec<Value> = serde_json::from_slice(&patch).expect("a list");
    let mut object = object.clone();
    for operation in operations {
        let path = operation["path"].as_str().expect("a path");
        let (parent, key) = path.rsplit_once('/').expect("a place");
        let key = key.replace("~1", "/").replace("~0", "~");
        let parent = object.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
        match operation["op"].as_str() {
            Some("remove") => parent.remove(&key),
            _ => parent.insert(key, operation["value"].clone()),
        };
    }
    object
}

#[test]
fn a_pod_is_patched_into_what_injection_makes_of_it() {
    let response = asked("/inject", &review("Pod", &pod()));
    assert_eq!((&response["allowed"], &response["patchType"]), (&json!(true), &json!("JSONPatch")));
    let around = Surroundings { namespace: "shop", namespace_labels: None, workload: None };
    let injected = injection::inject(around, &pod(), &InjectionSettings::default()).unwrap();
    assert_eq!(patched(&pod(), &response), injected.pod);
    // Once more changes nothing, and says so by no patch.
    let again = asked("/inject", &review("Pod", &injected.pod));
    assert_eq!((&again["allowed"], again.get("patch")), (&json!(true), None));
}

#[test]
fn what_is_not_to_be_injected_is_allowed_as_it_is() {
    let mut on_host = pod();
    on_host["spec"]["hostNetwork"] = json!(true);
    let mut updated = review("Pod", &pod());
    updated["request"]["operation"] = json!("UPDATE");
    let mut part = review("Pod", &pod());
    part["request"]["subResource"] = json!("ephemeralcontainers");
    for review in [review("Pod", &on_host), updated, part, review("Deployment", &json!({}))] {
        let response = asked("/inject", &review);
        assert_eq!((&response["allowed"], response.get("patch")), (&json!(true), None));
    }
}

#[test]
fn a_pod_that_asks_for_what_cannot_be_is_refused_by_name() {
    let mut pod = pod();
    pod["metadata"]["annotations"]["sidecar.istio.io/proxyCPU"] = json!("lots");
    let response = asked("/inject", &review("Pod", &pod));
    assert_eq!(response["allowed"], false);
    let message = response["status"]["message"].as_str().expect("a message");
    assert!(message.starts_with("annotation sidecar.istio.io/proxyCPU: `lots`"), "{message}");
}

#[test]
fn warnings_are_as_long_as_kubernetes_takes_them() {
    let mut pod = pod();
    pod["metadata"]["annotations"][format!("heddle.dev/{}", "ä".repeat(200))] = json!("x");
    let response = asked("/inject", &review("Pod", &pod));
    let warning = response["warnings"][0].as_str().expect("a warning");
    assert!(warning.len() <= 256 && warning.ends_with('…'), "{warning}");
}

#[test]
fn rules_are_judged_as_apply_does() {
    let rule = |spec: Value| {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"generateName": "r-", "managedFields": [], "uid": "x"}, "spec": spec,
        })
    };
    let good =
        rule(json!({"hosts": ["web"], "http": [{"route": [{"destination": {"host": "web"}}]}]}));
    assert_eq!(asked("/validate", &review("VirtualService", &good))["allowed"], true);
    let bad =
        rule(json!({"hosts": ["web"], "http": [{"route": [{"destination": {"hst": "web"}}]}]}));
    let response = asked("/validate", &review("VirtualService", &bad));
    assert_eq!(response["allowed"], false);
    let message = response["status"]["message"].as_str().expect("a message");
    assert!(message.contains("spec.http[0].route[0].destination.hst"), "{message}");
    let regex = json!({"hosts": ["web"], "http": [{
        "match": [{"uri": {"regex": "("}}], "route": [{"destination": {"host": "web"}}],
    }]});
    assert_eq!(asked("/validate", &review("VirtualService", &rule(regex)))["allowed"], false);
    let mut deleted = review("VirtualService", &Value::Null);
    deleted["request"]["operation"] = json!("DELETE");
    assert_eq!(asked("/validate", &deleted)["allowed"], true);
    let kept = json!({
        "apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
        "metadata": {"name": "x"}, "spec": {},
    });
    let response = asked("/validate", &review("EnvoyFilter", &kept));
    assert_eq!(response["allowed"], true);
    let warning = response["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("not enforced by this version"), "{warning}");
}

#[test]
fn what_is_no_review_gets_one_clear_answer() {
    let ask = |method: &str, path: &str, body: &str| {
        let reply = webhook().answer(method, path, body.as_bytes());
        (reply.status, String::from_utf8(reply.body).expect("text"))
    };
    let old = r#"{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview"}"#;
    let bare = r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{}}"#;
    for (body, says) in [
        ("", "no JSON"),
        ("[1]", "kind is absent"),
        ("{\"kind\":\"Pod\"}", "kind is \"Pod\""),
        (old, "apiVersion is \"admission.k8s.io/v1beta1\""),
        (bare, "request.uid is absent"),
    ] {
        let (status, text) = ask("POST", "/inject", body);
        assert_eq!(status, 400, "{body}");
        assert!(text.starts_with("no AdmissionReview: ") && text.contains(says), "{text}");
    }
    assert_eq!(ask("GET", "/inject", "").0, 405);
    assert_eq!(ask("POST", "/", "").0, 404);
    assert_eq!(ask("POST", "/inject", &" ".repeat(REVIEW_BYTES_MAX + 1)).0, 413);
    // As deep as it likes.
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(ask("POST", "/inject", &deep).0, 400);
}

#[test]
fn other_settings_hold_from_the_next_review_on() {
    let webhook = webhook();
    let asked = |webhook: &Webhook| {
        let body = review("Pod", &pod()).to_string();
        let answer: Value =
            serde_json::from_slice(&webhook.answer("POST", "/inject", body.as_bytes()).body)
                .unwrap();
        patched(&pod(), &answer["response"])["spec"]["initContainers"][0]["image"].clone()
    };
    let settings = InjectionSettings { image: "other:2".into(), ..InjectionSettings::default() };
    webhook.set_settings(settings);
    assert_eq!(asked(&webhook), "other:2");
}
