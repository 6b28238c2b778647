//! HTTP on `control.sock`: reads a call, asks [`Control`], writes the answer. No decisions here.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Query, Request, State, rejection::JsonRejection},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::Listener,
};
use heddle_model::WorkloadId;
use heddle_runtime::path_socket::Peers;
use heddle_wire::local::control_api::{
    Acknowledgement, ApplyRequest, ApplyResponse, ClientView, DeleteRequest, JoinRequest,
    JoinedWorkload, Member, ResourceView, ServiceView, Status, WorkloadView,
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream, unix::SocketAddr};

use crate::{
    control::{Control, ResourceQuery, ViewQuery},
    error::Refused,
    limits::BODY_BYTES_MAX,
};

type Answer<T> = Result<Json<T>, Refused>;
type Body<T> = Result<Json<T>, JsonRejection>;

/// `{}`.
#[derive(Debug, Serialize)]
struct Nothing {}

#[derive(Debug, Deserialize)]
struct WaitQuery {
    generation: u64,
    #[serde(default)]
    timeout_ms: u64,
}

/// The routes of the control API.
pub(crate) fn router(control: Arc<Control>) -> Router {
    let changing = telling()
        .route("/v1/workloads", post(join))
        .route("/v1/workloads/{id}", axum::routing::delete(remove))
        .route("/v1/workloads/{id}/withdraw", post(withdraw))
        .route("/v1/adopt", post(adopt))
        .route("/v1/apply", post(apply))
        .route("/v1/delete", post(delete))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
    explained(changing, control)
}

/// Those of them that only tell: of a cluster, whose API server takes changes.
pub(crate) fn reader(control: Arc<Control>) -> Router {
    explained(telling(), control)
}

fn telling() -> Router<Arc<Control>> {
    Router::new()
        .route("/v1/workloads", get(workloads))
        .route("/v1/services", get(services))
        .route("/v1/resources", get(resources))
        .route("/v1/view", get(view))
        .route("/v1/wait", get(wait))
        .route("/v1/status", get(status))
}

/// What is refused says why.
fn explained(routes: Router<Arc<Control>>, control: Arc<Control>) -> Router {
    routes.fallback(unknown).layer(middleware::from_fn(explain)).with_state(control)
}

async fn join(
    State(control): State<Arc<Control>>,
    body: Body<JoinRequest>,
) -> Answer<JoinedWorkload> {
    let request = read(body)?;
    Ok(Json(control.join(request).await?))
}

async fn adopt(State(control): State<Arc<Control>>, body: Body<Vec<Member>>) -> Answer<Nothing> {
    let members = read(body)?;
    control.adopt(members).await?;
    Ok(Json(Nothing {}))
}

async fn withdraw(
    State(control): State<Arc<Control>>,
    Path(id): Path<String>,
) -> Answer<Acknowledgement> {
    Ok(Json(control.withdraw(WorkloadId(id)).await?))
}

async fn remove(State(control): State<Arc<Control>>, Path(id): Path<String>) -> Answer<Nothing> {
    control.remove(&WorkloadId(id))?;
    Ok(Json(Nothing {}))
}

async fn workloads(State(control): State<Arc<Control>>) -> Json<Vec<WorkloadView>> {
    Json(control.workloads())
}

async fn services(State(control): State<Arc<Control>>) -> Json<Vec<ServiceView>> {
    Json(control.services())
}

async fn apply(
    State(control): State<Arc<Control>>,
    body: Body<ApplyRequest>,
) -> Answer<ApplyResponse> {
    let request = read(body)?;
    Ok(Json(control.apply(request).await?))
}

async fn delete(
    State(control): State<Arc<Control>>,
    body: Body<DeleteRequest>,
) -> Answer<ApplyResponse> {
    let request = read(body)?;
    Ok(Json(control.delete(request).await?))
}

async fn resources(
    State(control): State<Arc<Control>>,
    Query(query): Query<ResourceQuery>,
) -> Json<Vec<ResourceView>> {
    Json(control.resources(&query))
}

async fn view(
    State(control): State<Arc<Control>>,
    Query(query): Query<ViewQuery>,
) -> Answer<ClientView> {
    Ok(Json(control.viewed(&query)?))
}

async fn wait(
    State(control): State<Arc<Control>>,
    Query(query): Query<WaitQuery>,
) -> Answer<Acknowledgement> {
    Ok(Json(control.wait(query.generation, query.timeout_ms).await?))
}

async fn status(State(control): State<Arc<Control>>) -> Json<Status> {
    Json(control.status())
}

async fn unknown(request: Request) -> Refused {
    let (method, path) = (request.method(), request.uri().path());
    Refused::new(StatusCode::NOT_FOUND, format!("no such call: {method} {path}"))
}

fn read<T>(body: Body<T>) -> Result<T, Refused> {
    body.map(|Json(value)| value)
        .map_err(|rejection| Refused::new(rejection.status(), rejection.body_text()))
}

/// Every refusal has an `ApiError` as its body, also those the framework makes itself.
async fn explain(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let is_json = response
        .headers()
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if response.status().is_success() || is_json {
        return response;
    }
    let status = response.status();
    let reason = match status {
        StatusCode::METHOD_NOT_ALLOWED => format!("{path} does not take {method}"),
        _ => format!(
            "{method} {path}: {status}; see the calls and their parameters in the API's documentation"
        ),
    };
    Refused::new(status, reason).into_response()
}

/// A listener that takes connections of our own user and root only.
#[derive(Debug)]
pub(crate) struct PeerListener {
    /// The path socket.
    pub(crate) listener: UnixListener,
    /// Who may speak.
    pub(crate) peers: Peers,
}

impl Listener for PeerListener {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        loop {
            // axum's own listener waits out a shortage of descriptors and logs it.
            let (stream, address) = Listener::accept(&mut self.listener).await;
            if self.peers.allow(&stream) {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Listener::local_addr(&self.listener)
    }
}
