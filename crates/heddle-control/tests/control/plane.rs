//! A control plane on a thread of its own, in a folder of its own, and calls to it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    thread::JoinHandle,
    time::Duration,
};

use heddle_control::{AddressRanges, ControlConfig, ControlError};
use heddle_model::{Locality, Protocol, ResourceKey, WorkloadId};
use heddle_runtime::{
    clock,
    local_http::{CallError, Method, call},
};
use heddle_testkit::folder;
// A hang is a failure; nothing is measured with it.
pub(crate) use heddle_testkit::wait::PATIENCE;
use heddle_wire::local::control_api::{
    ApiError, ApplyRequest, ApplyResponse, DeleteRequest, JoinPort, JoinRequest, JoinedWorkload,
    ResourceView, SourceFile, Status, WorkloadView,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::oneshot;

/// The folders of one control plane.
#[derive(Debug)]
pub(crate) struct Folder(folder::Folder);

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = folder::Folder::new("plane");
        std::fs::create_dir(folder.join("run")).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes the folder for rule files.
    pub(crate) fn with_rules(self) -> Self {
        std::fs::create_dir_all(self.path("rules")).unwrap();
        self
    }

    pub(crate) fn rule_file(&self, name: &str) -> PathBuf {
        self.path("rules").join(name)
    }

    pub(crate) fn config(&self) -> ControlConfig {
        let rules = self.path("rules");
        ControlConfig {
            mesh: "test".to_owned(),
            run_dir: self.path("run"),
            state_dir: self.path("state"),
            config_dir: rules.is_dir().then_some(rules),
            ranges: AddressRanges::default(),
            telemetry: None,
        }
    }
}

/// A running control plane.
#[derive(Debug)]
pub(crate) struct Plane {
    pub(crate) socket: PathBuf,
    pub(crate) discovery: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), ControlError>>>,
}

/// A call that was refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) error: ApiError,
}

impl Refusal {
    /// All problems as `file:line: field: reason`, one per line.
    pub(crate) fn text(&self) -> String {
        let lines = self.error.errors.iter().map(|problem| {
            let place =
                problem.file.iter().map(|file| format!("{file}:{}: ", problem.line.unwrap_or(0)));
            let field = problem.field.iter().map(|field| format!("{field}: "));
            place.chain(field).collect::<String>() + &problem.reason
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

impl Plane {
    /// Starts one and waits until it serves.
    pub(crate) async fn start(folder: &Folder) -> Self {
        Self::start_with(folder.config()).await
    }

    pub(crate) async fn start_with(config: ControlConfig) -> Self {
        let (stop, stopped) = oneshot::channel();
        let socket = config.run_dir.join("control.sock");
        let discovery = config.run_dir.join("discovery.sock");
        let thread = std::thread::spawn(move || {
            heddle_control::run_until(config, async {
                drop(stopped.await);
            })
        });
        let plane = Self { socket, discovery, stop: Some(stop), thread: Some(thread) };
        let up = async {
            while plane.call::<Status>(Method::GET, "/v1/status", None::<&()>).await.is_err() {
                assert!(
                    !plane.thread.as_ref().is_some_and(JoinHandle::is_finished),
                    "it ended at start"
                );
                tokio::task::yield_now().await;
            }
        };
        clock::within(PATIENCE, up).await.expect("it serves");
        plane
    }

    /// Ends it and waits until it has ended.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.expect("no panic").expect("no error");
            }
        }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, CallError> {
        clock::within(PATIENCE, call(&self.socket, method, path, body))
            .await
            .expect("answered in time")
    }

    /// Calls and expects an answer or a refusal with problems.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, Refusal> {
        self.call(method, path, body).await.map_err(|error| match error {
            CallError::Refused { status, body, .. } => {
                let error: ApiError = serde_json::from_slice(&body).expect("a refusal says why");
                assert!(!error.errors.is_empty());
                Refusal { status, error }
            }
            other => panic!("{other}"),
        })
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        self.ask(Method::GET, path, None::<&()>).await.unwrap()
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Refusal> {
        self.ask(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn status(&self) -> Status {
        self.get("/v1/status").await
    }

    pub(crate) async fn workloads(&self) -> BTreeMap<WorkloadId, WorkloadView> {
        let views: Vec<WorkloadView> = self.get("/v1/workloads").await;
        views.into_iter().map(|view| (view.workload.id.clone(), view)).collect()
    }

    pub(crate) async fn join(&self, request: &JoinRequest) -> Result<JoinedWorkload, Refusal> {
        self.post("/v1/workloads", request).await
    }

    /// Joins `SERVICE VERSION` with HTTP on 9080.
    pub(crate) async fn join_http(&self, service: &str, version: &str) -> JoinedWorkload {
        self.join(&http(service, version)).await.unwrap()
    }

    pub(crate) async fn leave(&self, id: &WorkloadId) {
        let path = format!("/v1/workloads/{id}");
        let _: serde_json::Value = self.ask(Method::DELETE, &path, None::<&()>).await.unwrap();
    }

    pub(crate) async fn apply(&self, text: &str) -> Result<ApplyResponse, Refusal> {
        self.post("/v1/apply", &documents(text)).await
    }

    pub(crate) async fn delete(
        &self,
        kind: &str,
        name: &str,
        force: bool,
    ) -> Result<ApplyResponse, Refusal> {
        let request = DeleteRequest { keys: vec![key(kind, name)], force, wait_ms: 10_000 };
        self.post("/v1/delete", &request).await
    }

    /// Names of objects with their state.
    pub(crate) async fn states(&self) -> Vec<String> {
        let views: Vec<ResourceView> = self.get("/v1/resources").await;
        views.iter().map(|view| format!("{} {}", view.key.name, view.state)).collect()
    }

    /// Looks at status until it is as wanted.
    pub(crate) async fn until(&self, wanted: impl Fn(&Status) -> bool) -> Status {
        let look = async {
            loop {
                let status = self.status().await;
                if wanted(&status) {
                    return status;
                }
                clock::sleep(Duration::from_millis(2)).await;
            }
        };
        match clock::within(PATIENCE, look).await {
            Some(status) => status,
            None => panic!("never as wanted: {:#?}", self.status().await),
        }
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.end();
    }
}

pub(crate) fn http(service: &str, version: &str) -> JoinRequest {
    request(service, version, &[(9080, "http", Protocol::Undeclared)])
}

pub(crate) fn request(
    service: &str,
    version: &str,
    ports: &[(u16, &str, Protocol)],
) -> JoinRequest {
    let port = |(number, name, protocol): &(u16, &str, Protocol)| JoinPort {
        number: *number,
        name: (*name).to_owned(),
        protocol: *protocol,
    };
    JoinRequest {
        service: service.to_owned(),
        namespace: "default".to_owned(),
        version: version.to_owned(),
        labels: BTreeMap::new(),
        locality: Locality::default(),
        ports: ports.iter().map(port).collect(),
    }
}

pub(crate) fn documents(text: &str) -> ApplyRequest {
    ApplyRequest {
        files: vec![SourceFile { file: "rules.yaml".to_owned(), text: text.to_owned() }],
        namespace: "default".to_owned(),
        dry_run: false,
        force: false,
        strict: false,
        wait_ms: 10_000,
    }
}

pub(crate) fn key(kind: &str, name: &str) -> ResourceKey {
    ResourceKey { kind: kind.to_owned(), namespace: "default".to_owned(), name: name.to_owned() }
}

/// Subsets by version, and a route over them by weight.
pub(crate) fn split(service: &str, weights: &[(&str, u32)]) -> String {
    format!("{}---\n{}", subsets(service, weights), route(service, weights))
}

pub(crate) fn subsets(service: &str, versions: &[(&str, u32)]) -> String {
    let mut text = format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: {service}\nspec:\n  host: {service}\n  subsets:\n"
    );
    for (version, _) in versions {
        text += &format!("  - name: {version}\n    labels:\n      version: {version}\n");
    }
    text
}

pub(crate) fn route(service: &str, weights: &[(&str, u32)]) -> String {
    let mut text = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: {service}\nspec:\n  hosts:\n  - {service}\n  http:\n  - route:\n"
    );
    for (version, weight) in weights {
        text += &format!(
            "    - destination:\n        host: {service}\n        subset: {version}\n      weight: {weight}\n"
        );
    }
    text
}

/// Replaces a file as editors do: written beside it and renamed over it.
pub(crate) fn save(path: &Path, text: &str) {
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(&fresh, path).unwrap();
}
