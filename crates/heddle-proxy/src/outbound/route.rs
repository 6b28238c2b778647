//! Which rule takes a request, where it sends it, and which fault it gets: `heddle_logic` decides,
//! with the snapshot's rules and this worker's randomness.

use std::{borrow::Cow, sync::Arc};

use heddle_logic::{FaultPlan, Selected, Selection, fault, route::RequestView};
use heddle_model::discovery::Provenance;
use heddle_runtime::clock;
use heddle_wire::http1::Request;
use tokio::io::Interest;

use super::destination::{Destination, Kind, port_plan};
use crate::{
    balancers::Candidates,
    forward::Failure,
    http::Client,
    outcome::RequestOutcome,
    refusal::{Flag, Refusal, Refused},
    snapshot::{CompiledRule, PortPlan},
    worker::Worker,
};

/// Where a request goes.
#[derive(Debug)]
pub(super) struct Route {
    /// Where it may go, or why the rule's target is nowhere; known only after the fault.
    pub(super) candidates: Result<Candidates, Refusal>,
    /// What to inject first.
    pub(super) fault: Option<FaultPlan>,
    /// The rule that decided.
    rule: Option<Arc<CompiledRule>>,
    /// The path to send on in place of the one that came.
    path: Option<Box<str>>,
}

impl Route {
    fn to(candidates: Candidates) -> Self {
        Self { candidates: Ok(candidates), fault: None, rule: None, path: None }
    }

    /// The path by which the rules decided, where an upstream could take the one that came for
    /// another.
    pub(super) fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// The rule that decided, for a refusal's text.
    pub(super) fn rule(&self) -> Option<Provenance> {
        Some(self.rule.as_ref()?.rule.provenance.clone())
    }
}

/// Chooses where a request goes.
///
/// # Errors
/// The refusal, with the rule it follows from.
pub(super) async fn choose(
    worker: &Worker,
    destination: &Destination,
    request: Request<'_>,
) -> Result<Route, Refused> {
    let (service, port) = match &destination.kind {
        Kind::Service(service, port) => (service, *port),
        Kind::Workload(upstream, _) | Kind::Outside(upstream) => {
            return Ok(Route::to(Candidates::One(upstream.clone())));
        }
        Kind::Nowhere(refusal) => return Err(refusal.clone().into()),
    };
    let plan = port_plan(worker, service, port).await?;
    if plan.http.rules().is_empty() {
        return Ok(Route::to(Candidates::Cluster(Arc::clone(&plan.default))));
    }
    by_rule(worker, &plan, request).ok_or_else(|| Refusal::NoRoute((**service).clone()).into())
}

/// What the first rule that matches says; `None` if none does.
fn by_rule(worker: &Worker, plan: &PortPlan, request: Request<'_>) -> Option<Route> {
    let Selection { selected, path } =
        plan.http.select(&Matched { request, target: request.target() });
    let rule = match selected {
        Selected::Rule(rule) => rule,
        Selected::Default => {
            return Some(Route::to(Candidates::Cluster(Arc::clone(&plan.default))));
        }
        Selected::NoRoute => return None,
    };
    let compiled = &rule.compiled;
    let fault = (compiled.rule.fault.as_ref())
        .map(|fault| fault::decide(fault, worker.random_share(), worker.random_share()))
        .filter(|plan| *plan != FaultPlan::default());
    let candidates = match rule.pick(worker.random()) {
        Ok(cluster) => Ok(Candidates::Cluster(Arc::clone(cluster))),
        Err(reason) => Err(Refusal::DanglingTarget(reason.to_owned())),
    };
    Some(Route { candidates, fault, rule: Some(Arc::clone(compiled)), path })
}

/// Delays for real, then aborts; what of it was decided with the route.
///
/// # Errors
/// The abort, or a client that did not wait for the end of the delay.
pub(super) async fn inject_fault(
    client: &Client,
    fault: &FaultPlan,
    outcome: &RequestOutcome,
) -> Result<(), Failure> {
    if let Some(delay) = fault.delay {
        outcome.flag(Flag::DI);
        // Polled together: a client that resets its connection ends the delay.
        tokio::select! {
            () = clock::sleep(delay) => {}
            _reset = client.stream.ready(Interest::ERROR) => return Err(Failure::ClientGone),
        }
    }
    match fault.abort {
        Some(status) => Err(Refusal::FaultAbort(status).into()),
        None => Ok(()),
    }
}

/// A request as matchers see it.
struct Matched<'a> {
    request: Request<'a>,
    target: Cow<'a, str>,
}

impl RequestView for Matched<'_> {
    fn method(&self) -> &str {
        self.request.method()
    }

    fn target(&self) -> &str {
        &self.target
    }

    fn path(&self) -> &[u8] {
        self.request.path()
    }

    fn authority(&self) -> &str {
        self.request.authority()
    }

    fn scheme(&self) -> &str {
        self.request.scheme()
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.request.fields().joined(name)
    }
}
