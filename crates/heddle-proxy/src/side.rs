//! What the one connection loop asks of whoever it serves: connections from the workload
//! (`outbound`), to it (`inbound`), and later through a gateway. A side answers; it reads and writes
//! nothing of the client's.

use std::{rc::Rc, sync::Arc, time::Duration};

use heddle_logic::{FaultPlan, route::RequestView};
use heddle_model::discovery::Provenance;

use crate::{
    dial::Early,
    direction::Direction,
    metrics::VerdictCounters,
    protocol::PortHints,
    record::MetricSeries,
    refusal::{Refusal, Refused},
    snapshot::CompiledRule,
    upstream::{Backend, Upstream},
    worker::Worker,
};

/// One connection's destination, as far as its address tells.
pub(crate) trait Side {
    /// Which way its calls go.
    const DIRECTION: Direction;
    /// A client that asks nothing for so long is closed.
    const IDLE_TIMEOUT: Duration;

    fn worker(&self) -> &Rc<Worker>;

    /// Where the verdict about its protocol is counted.
    fn verdicts(&self) -> &VerdictCounters;

    /// What is known about its protocol before the first byte, under the rules of now.
    async fn hints(&self) -> PortHints;

    /// Connects where bytes go that are no requests.
    ///
    /// # Errors
    /// The refusal, if nobody accepts.
    async fn dial(&self) -> Result<Early, Refused>;

    /// Where *this* request goes. Rules are taken once, from one snapshot.
    ///
    /// # Errors
    /// The refusal, with the rule it follows from.
    async fn route(&self, request: &dyn RequestView) -> Result<Route, Refused>;

    /// Under which labels a request is counted while no endpoint is picked; `None` if it cannot be
    /// read.
    fn request_series(&self, request: Option<&dyn RequestView>) -> MetricSeries;

    /// The same for a connection, to `upstream` if one was reached.
    fn connection_series(&self, upstream: Option<&Rc<Upstream>>) -> MetricSeries;

    /// Host for requests that came without one.
    fn default_host(&self) -> String;

    /// An HTTP response has come from there.
    fn spoke_http(&self);
}

/// Where a request goes, and what happens to it on the way.
#[derive(Debug)]
pub(crate) struct Route {
    /// Where it may go, or why the rule's target is nowhere; known only after the fault.
    pub(crate) backend: Result<Backend, Refusal>,
    /// What to inject first.
    pub(crate) fault: Option<FaultPlan>,
    /// The rule that decided.
    pub(crate) rule: Option<Arc<CompiledRule>>,
    /// The path to send on in place of the one that came: the one by which the rules decided, where
    /// an upstream could take the other for another.
    pub(crate) path: Option<Box<str>>,
}

impl Route {
    /// A route that no rule decided.
    pub(crate) fn to(backend: Backend) -> Self {
        Self { backend: Ok(backend), fault: None, rule: None, path: None }
    }

    /// Is whoever gets the request another sidecar? On one machine every workload has one.
    pub(crate) fn leads_to_a_hop(&self) -> bool {
        match &self.backend {
            Ok(Backend::Cluster(_)) => true,
            Ok(Backend::Upstream(upstream)) => upstream.workload().is_some(),
            Err(_) => false,
        }
    }

    /// The rule that decided, for a refusal's text.
    pub(crate) fn rule(&self) -> Option<Provenance> {
        Some(self.rule.as_ref()?.rule.provenance.clone())
    }
}
