//! An API server as the control plane sees one: lists by page, watches, and a table of whatever is written.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt::Write as _,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use heddle_runtime::task;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc};

use crate::cluster::Cluster;

/// Kinds of rules that it serves.
const RULES: (&str, &str) = ("/apis/networking.istio.io/v1", "virtualservices");
/// Largest object that is written to it, bytes.
const BODY_MAX: usize = 1 << 20;

/// It, on a port of loopback.
#[derive(Debug)]
pub(crate) struct ApiServer {
    address: SocketAddr,
    world: Arc<World>,
}

#[derive(Debug)]
struct World {
    cluster: Arc<Cluster>,
    written: Mutex<BTreeMap<String, Value>>,
    watches: Mutex<Vec<(String, mpsc::UnboundedSender<Bytes>)>>,
}

impl ApiServer {
    /// Starts it.
    pub(crate) async fn start(cluster: Arc<Cluster>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let world = World { cluster, written: Mutex::default(), watches: Mutex::default() };
        let world = Arc::new(world);
        let answering = world.clone();
        let answer = move |request: Request| {
            let world = answering.clone();
            async move { world.answer(request).await }
        };
        let routes = Router::new().fallback(answer);
        task::spawn_contained("api", async move {
            axum::serve(listener, routes).await.unwrap();
        });
        Self { address, world }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The roots of the authority that the control plane has made, PEM.
    pub(crate) fn roots(&self) -> String {
        let written = self.world.written.lock().unwrap();
        let secret = &written["/api/v1/namespaces/heddle-system/secrets/heddle-ca"];
        let root: k8s_openapi::ByteString =
            serde_json::from_value(secret["data"]["root.crt"].clone()).unwrap();
        String::from_utf8(root.0).unwrap()
    }

    /// Tells all who watch a kind.
    pub(crate) fn tell(&self, plural: &str, event: &str) {
        let line = Bytes::from(format!("{event}\n"));
        let mut watches = self.world.watches.lock().unwrap();
        watches.retain(|(kind, watch)| kind != plural || watch.send(line.clone()).is_ok());
    }
}

impl World {
    async fn answer(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let plural = path.rsplit('/').next().unwrap_or_default().to_owned();
        if query.contains("watch=true") {
            return self.watch(plural);
        }
        let is_list = query.contains("limit=");
        match parts.method {
            Method::GET if is_list => self.list(&plural, &query),
            Method::GET => self.get(&path),
            Method::POST if plural == "tokenreviews" => review(&read(body).await),
            Method::POST => {
                let object = read(body).await;
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                self.put(&format!("{path}/{name}"), object.clone())
            }
            _ => self.put(&path, read(body).await),
        }
    }

    fn watch(&self, plural: String) -> Response {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.watches.lock().unwrap().push((plural, sender));
        let lines = stream::unfold(receiver, async |mut receiver| {
            let line = receiver.recv().await?;
            Some((Ok::<_, Infallible>(line), receiver))
        });
        Body::from_stream(lines).into_response()
    }

    fn list(&self, plural: &str, query: &str) -> Response {
        let said =
            |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        let number = |key: &str| said(key).and_then(|text| text.parse().ok());
        let first: usize = number("continue").unwrap_or(0);
        let all = self.cluster.count(plural);
        let end = all.min(first + number("limit").unwrap_or(500));
        let next = if end < all { end.to_string() } else { String::new() };
        let mut text = json!({"metadata": {"resourceVersion": "9", "continue": next}}).to_string();
        text.truncate(text.len() - 1);
        text.push_str(",\"items\":[");
        for i in first..end {
            let comma = if i > first { "," } else { "" };
            // Writing to a String cannot fail.
            let _ = write!(text, "{comma}{}", self.cluster.object(plural, i));
        }
        text.push_str("]}");
        ([("content-type", "application/json")], text).into_response()
    }

    fn get(&self, path: &str) -> Response {
        let (rules, kind) = RULES;
        if path == "/apis" {
            let group = json!({"name": "networking.istio.io", "versions": [{"version": "v1"}]});
            return answer(StatusCode::OK, &json!({"groups": [group]}));
        }
        if path == rules {
            return answer(StatusCode::OK, &json!({"resources": [{"name": kind}]}));
        }
        match self.written.lock().unwrap().get(path) {
            Some(object) => answer(StatusCode::OK, object),
            None => answer(StatusCode::NOT_FOUND, &failure(404, "NotFound")),
        }
    }

    /// As a Secret's `stringData` is, that is told back as `data`.
    fn put(&self, path: &str, mut object: Value) -> Response {
        if let Some(text) = object.as_object_mut().and_then(|all| all.remove("stringData")) {
            let encoded = text.as_object().unwrap().iter().map(|(key, value)| {
                let bytes = value.as_str().unwrap().as_bytes().to_vec();
                (key.clone(), serde_json::to_value(k8s_openapi::ByteString(bytes)).unwrap())
            });
            object["data"] = Value::Object(encoded.collect());
        }
        object["metadata"]["resourceVersion"] = json!("1");
        self.written.lock().unwrap().insert(path.to_owned(), object.clone());
        answer(StatusCode::CREATED, &object)
    }
}

/// A token is a pod's namespace and name.
fn review(review: &Value) -> Response {
    let token = review["spec"]["token"].as_str().unwrap_or_default();
    let (namespace, pod) = token.split_once('/').unwrap();
    let extra = json!({
        "authentication.kubernetes.io/pod-name": [pod],
        "authentication.kubernetes.io/pod-uid": [token],
    });
    let user =
        json!({"username": format!("system:serviceaccount:{namespace}:default"), "extra": extra});
    let status =
        json!({"authenticated": true, "audiences": review["spec"]["audiences"], "user": user});
    answer(StatusCode::CREATED, &json!({"status": status}))
}

async fn read(body: Body) -> Value {
    let bytes = to_bytes(body, BODY_MAX).await.unwrap();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

fn failure(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason})
}

fn answer(status: StatusCode, value: &Value) -> Response {
    (status, [("content-type", "application/json")], value.to_string()).into_response()
}
