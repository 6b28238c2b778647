//! Plain HTTP of the control plane itself: whether it lives and is ready, and its own numbers, for the kubelet and
//! Prometheus. What it knows is told on the loopback address only: who may forward a port of its pod may ask.

use std::{fmt::Write, sync::Arc};

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use heddle_runtime::figures;
use tokio::sync::watch;

use super::{
    health::Health,
    progress::{self, Page},
    rules::RuleBook,
};
use crate::control::Control;

/// Health and metrics, plain.
pub(crate) const PORT_MONITORING: u16 = 15014;

/// What the pages tell of.
#[derive(Debug)]
pub(crate) struct Pages {
    pub(crate) control: Arc<Control>,
    pub(crate) health: Arc<Health>,
    pub(crate) leads: watch::Receiver<bool>,
    pub(crate) book: RuleBook,
}

/// The pages for everybody.
pub(crate) fn router(pages: Arc<Pages>) -> Router {
    Router::new()
        .route("/healthz/live", get(|| async { "alive\n" }))
        .route("/healthz/ready", get(ready))
        .route("/metrics", get(metrics))
        .route(progress::PATH, get(rules))
        .with_state(pages)
}

async fn rules(State(pages): State<Arc<Pages>>) -> Json<Page> {
    Json(Page::of(&pages.control, &pages.book))
}

async fn ready(State(pages): State<Arc<Pages>>) -> impl IntoResponse {
    let missing = pages.health.missing();
    match missing.is_empty() {
        true => (StatusCode::OK, told(["ready".to_owned()], pages.health.troubles())),
        false => (StatusCode::SERVICE_UNAVAILABLE, told(missing, Vec::new())),
    }
}

fn told(first: impl IntoIterator<Item = String>, then: Vec<String>) -> String {
    first.into_iter().chain(then).map(|line| line + "\n").collect()
}

async fn metrics(State(pages): State<Arc<Pages>>) -> String {
    let numbers = pages.control.numbers();
    let leads = u64::from(*pages.leads.borrow());
    let troubles = pages.health.troubles().len();
    let mut text = String::new();
    let gauges = [
        ("heddle_control_services", "Services of the mesh.", numbers.services),
        ("heddle_control_workloads", "Pods of the mesh.", numbers.workloads),
        ("heddle_control_rules", "Rules in force or refused.", numbers.rules),
        (
            "heddle_control_rules_refused",
            "Rules whose newest version is not in force.",
            numbers.refused,
        ),
        ("heddle_control_proxies", "Connected proxies.", numbers.proxies),
        (
            "heddle_control_troubles",
            "What the API server does not answer as it should.",
            troubles as u64,
        ),
        ("heddle_control_leader", "Whether this replica writes.", leads),
        ("heddle_control_generation", "The newest generation.", numbers.generation),
    ];
    for (name, help, value) in gauges {
        // Writing to a String cannot fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n");
    }
    let counters = [
        (
            "heddle_control_pushes_total",
            "Groups of resources that were sent to proxies.",
            numbers.pushes,
        ),
        (
            "heddle_control_pushes_refused_total",
            "Answers of proxies that refused some of them.",
            numbers.pushes_refused,
        ),
    ];
    for (name, help, value) in counters {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}\n");
    }
    text + &figures::text()
}
