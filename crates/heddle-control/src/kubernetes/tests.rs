//! An API server made of a closure, and what becomes of a control plane before it.

use std::{
    collections::{BTreeSet, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use heddle_runtime::{clock, task};
use heddle_testkit::wait::PATIENCE;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{client::Api, health::Health, registry::Cluster, rules::RuleBook, source::Source};
use crate::{
    config::AddressRanges, control::Control, generations::Generations, mesh::Mesh, rules::Rules,
};

/// What the API server has, and how it behaves.
#[derive(Debug, Default)]
struct World {
    pods: Vec<Value>,
    rules: Vec<Value>,
    /// Lines of the watches of pods that are to come; after the last of each it stays open, or ends if the
    /// line says so.
    watches: VecDeque<Vec<String>>,
    /// Pods as they are once the first watch has begun.
    then: Option<Vec<Value>>,
    forbidden: bool,
    busy: u32,
    served: bool,
}

const END: &str = "end";

fn pod(name: &str, ip: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "resourceVersion": "5"},
        "spec": {"containers": []},
        "status": {"phase": "Running", "podIP": ip},
    })
}

fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason})
}

fn list(items: &[Value], after: &str) -> Value {
    json!({"metadata": {"resourceVersion": "7", "continue": after}, "items": items})
}

fn answer(code: u16, value: &Value) -> Response {
    let status = StatusCode::from_u16(code).unwrap();
    (status, [("content-type", "application/json")], value.to_string()).into_response()
}

fn streamed(lines: Vec<String>) -> Response {
    let ends = lines.last().is_some_and(|line| line == END);
    let lines = stream::iter(lines.into_iter().filter(|line| line != END))
        .map(|line| Ok::<_, Infallible>(line + "\n"));
    match ends {
        true => Body::from_stream(lines).into_response(),
        false => Body::from_stream(lines.chain(stream::pending())).into_response(),
    }
}

impl World {
    fn answer(&mut self, path: &str, query: &str) -> Response {
        let watch = query.contains("watch=true");
        match path {
            "/apis" => {
                let group =
                    json!({"name": "networking.istio.io", "versions": [{"version": "v1beta1"}]});
                let groups = if self.served { vec![group] } else { Vec::new() };
                answer(200, &json!({"groups": groups}))
            }
            "/apis/networking.istio.io/v1beta1" => {
                answer(200, &json!({"resources": [{"name": "virtualservices"}]}))
            }
            "/api/v1/pods" if watch => {
                if let Some(then) = self.then.take() {
                    self.pods = then;
                }
                streamed(self.watches.pop_front().unwrap_or_default())
            }
            "/api/v1/pods" if self.forbidden => answer(403, &status(403, "Forbidden")),
            "/api/v1/pods" if self.busy > 0 => {
                self.busy -= 1;
                answer(500, &json!("no status at all"))
            }
            "/api/v1/pods" => {
                let (first, rest) = self.pods.split_at(self.pods.len().min(1));
                match query.ends_with("continue=") {
                    true => answer(200, &list(first, "n/1")),
                    false => answer(200, &list(rest, "")),
                }
            }
            "/apis/networking.istio.io/v1beta1/virtualservices" if !watch => {
                answer(200, &list(&self.rules, ""))
            }
            _ if watch => streamed(Vec::new()),
            _ => answer(200, &list(&[], "")),
        }
    }
}

/// A control plane in front of it.
struct Plane {
    world: Arc<Mutex<World>>,
    control: Arc<Control>,
    health: Arc<Health>,
}

impl Plane {
    async fn new(world: World) -> Self {
        let world = Arc::new(Mutex::new(world));
        let of_handler = world.clone();
        let handler = move |request: Request| {
            let uri = request.uri().clone();
            let answer = of_handler.lock().unwrap().answer(uri.path(), uri.query().unwrap_or(""));
            async move { answer }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = axum::serve(listener, Router::new().fallback(handler));
        tokio::spawn(async move { server.await.unwrap() });
        let config = kube::Config::new(format!("http://{address}").parse().unwrap());
        let api = Api::new(kube::Client::try_from(config).unwrap());
        let ranges = AddressRanges::default();
        let settings = ranges.settings("test".to_owned());
        let cluster = Cluster::new("cluster.local".to_owned(), ranges);
        let mesh = Mesh::new(settings, cluster.into(), Rules::default(), Generations::after(0));
        let control = Arc::new(Control::without_store(mesh));
        let health = Arc::new(Health::default());
        let source = Source {
            api,
            control: control.clone(),
            health: health.clone(),
            book: RuleBook::default(),
        };
        task::spawn_contained("source", source.run());
        Self { world, control, health }
    }

    fn pods(&self) -> BTreeSet<String> {
        let names = |cluster: &Cluster| {
            let all = cluster.registry().workloads.keys();
            all.map(|id| id.0.replace("shop.", "")).collect()
        };
        self.control.with_cluster(names).unwrap()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = clock::now() + PATIENCE;
        while !holds(self) {
            assert!(clock::now() < deadline, "never: {what}; {:?}", self.health.missing());
            clock::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn named(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn all_is_read_by_page_and_again_after_what_is_gone_and_after_garbage() {
    task::run_local(async {
        let gone = json!({"type": "ERROR", "object": status(410, "Expired")}).to_string();
        let more = json!({"type": "ADDED", "object": pod("d", "10.1.0.4")}).to_string();
        let mark = json!({"type": "BOOKMARK", "object": {"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": "9"}}}).to_string();
        let odd = json!({"type": "ADDED", "object": {"metadata": {"name": "odd", "namespace": "shop"}, "spec": 7}}).to_string();
        let less = json!({"type": "DELETED", "object": pod("c", "10.1.0.3")}).to_string();
        let plane = Plane::new(World {
            pods: vec![pod("a", "10.1.0.1"), pod("b", "10.1.0.2")],
            then: Some(vec![pod("b", "10.1.0.2"), pod("c", "10.1.0.3")]),
            watches: [
                vec![gone],
                vec![mark, "no{json".to_owned()],
                vec![END.to_owned()],
                vec![odd, more, less],
            ]
            .into(),
            ..World::default()
        })
        .await;
        plane.until("the last watch is heard", |one| one.pods() == named(&["b", "d"])).await;
        plane.until("everything was read", |one| one.health.missing().is_empty()).await;
        assert!(plane.world.lock().unwrap().watches.is_empty());
    })
    .unwrap();
}

#[test]
fn a_missing_permission_is_named_and_all_is_well_once_it_is_there() {
    task::run_local(async {
        let plane = Plane::new(World {
            pods: vec![pod("a", "10.1.0.1")],
            forbidden: true,
            busy: 2,
            ..World::default()
        })
        .await;
        let told = |one: &Plane| {
            one.health.missing().iter().any(|line| line.contains("may not list pods"))
        };
        plane.until("the verb is named", told).await;
        plane.world.lock().unwrap().forbidden = false;
        plane.until("pods were read", |one| one.pods() == named(&["a"])).await;
        plane.until("nothing is missing", |one| one.health.missing().is_empty()).await;
    })
    .unwrap();
}

#[test]
fn rules_are_read_in_the_version_that_is_served_and_a_bad_one_holds_up_no_other() {
    task::run_local(async {
        let rule = |name: &str, weight: i64| {
            json!({
                "metadata": {"name": name, "namespace": "shop", "creationTimestamp": "2026-01-02T03:04:05Z"},
                "spec": {"hosts": [name], "http": [{"route": [
                    {"destination": {"host": name}, "weight": weight}]}]},
            })
        };
        let plane = Plane::new(World {
            served: true,
            rules: vec![rule("good", 1), rule("bad", -1)],
            ..World::default()
        })
        .await;
        plane.until("both are known", |one| one.control.rule_states().len() == 2).await;
        let states = plane.control.rule_states();
        let of = |name: &str| &states.iter().find(|(key, _)| key.name == name).unwrap().1;
        assert!(of("good").resource.is_some() && of("good").problems.is_empty());
        assert!(of("bad").resource.is_none() && !of("bad").problems.is_empty());
    })
    .unwrap();
}
