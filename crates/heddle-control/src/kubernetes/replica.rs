//! What one replica tells of itself, beside what every control plane tells: on the loopback address of its pod only,
//! where the tools of a person come in by the API server's port-forward.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    routing::{get, post},
};
use heddle_model::ResourceKey;
use heddle_runtime::clock;
use heddle_wire::local::control_api::{
    ApplyRequest, ApplyResponse, DeleteRequest, Replica, Seen, SeenRequest,
};

use super::{config::KubernetesConfig, registry::Cluster, rules::RuleBook, serve::Pages};
use crate::{
    error::Refused,
    limits::{BODY_BYTES_MAX, WAIT_MAX},
};

/// Time between two looks at what has been seen.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What it is asked of.
#[derive(Debug)]
pub(crate) struct Itself {
    /// What every page tells of.
    pub(crate) pages: Arc<Pages>,
    /// What it was started with.
    pub(crate) config: KubernetesConfig,
    /// Which version of each rule it has taken in.
    pub(crate) book: RuleBook,
}

/// The calls of one replica.
pub(crate) fn router(itself: Arc<Itself>) -> Router {
    Router::new()
        .route("/v1/replica", get(replica))
        .route("/v1/seen", post(seen))
        .route("/v1/check/apply", post(check_apply))
        .route("/v1/check/delete", post(check_delete))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(itself)
}

async fn replica(State(itself): State<Arc<Itself>>) -> Json<Replica> {
    let Itself { pages, config, .. } = &*itself;
    let without = pages.control.with_cluster(Cluster::without_sidecar).unwrap_or_default();
    let named = without.into_iter().map(|(namespace, pod)| format!("{namespace}/{pod}"));
    Json(Replica {
        name: config.identity.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: config.revision.clone(),
        leads: *pages.leads.borrow(),
        unread: pages.health.missing(),
        troubles: pages.health.troubles(),
        without_sidecar: named.collect(),
    })
}

async fn seen(State(itself): State<Arc<Itself>>, Json(request): Json<SeenRequest>) -> Json<Seen> {
    let limit = Duration::from_millis(request.wait_ms).min(WAIT_MAX);
    let deadline = clock::now() + limit;
    loop {
        let objects = request.objects.iter();
        let unseen = objects.filter(|one| !itself.book.has_seen(&one.key, one.version.as_deref()));
        let missing: Vec<ResourceKey> = unseen.map(|one| one.key.clone()).collect();
        if missing.is_empty() || clock::now() >= deadline {
            let carried = request.objects.iter().map(|one| itself.book.carried(&one.key));
            let generation = carried.max().unwrap_or(0);
            return Json(Seen { generation, missing });
        }
        clock::sleep(LOOK_EVERY).await;
    }
}

/// What would be said of these documents, beside all that is in force. The API server takes them one by one, and cannot
/// know.
async fn check_apply(
    State(itself): State<Arc<Itself>>,
    Json(request): Json<ApplyRequest>,
) -> Result<Json<ApplyResponse>, Refused> {
    let request = ApplyRequest { dry_run: true, ..request };
    Ok(Json(itself.pages.control.apply(request).await?))
}

/// The same of what is to go.
async fn check_delete(
    State(itself): State<Arc<Itself>>,
    Json(request): Json<DeleteRequest>,
) -> Result<Json<ApplyResponse>, Refused> {
    Ok(Json(itself.pages.control.check_delete(request).await?))
}
