//! What the one connection loop asks of whoever it serves: connections from the workload
//! (`outbound`), to it (`inbound`), and later through a gateway. A side answers; it reads and writes
//! nothing of the client's.

use std::{rc::Rc, sync::Arc, time::Duration};

use heddle_logic::{
    ConnectionFault, FaultPlan, retry::RetryPolicy, route::RequestView, rule::Changes,
};
use heddle_model::discovery::Provenance;

use crate::{
    compared::Mirrored,
    dial::Early,
    direction::Direction,
    facts::Ends,
    metrics::VerdictCounters,
    protocol::PortHints,
    record::MetricSeries,
    refusal::{Refusal, Refused},
    reply::Reply,
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

    /// Both ends of the client's connection.
    fn ends(&self) -> Ends;

    /// Where the verdict about its protocol is counted.
    fn verdicts(&self) -> &VerdictCounters;

    /// What is known about its protocol before the first byte, under the rules of now.
    async fn hints(&self) -> PortHints;

    /// The fault that a connection to there has, decided now and once; what is known by then is what
    /// [`Side::hints`] has found out.
    fn connection_fault(&self) -> Option<ConnectionFault>;

    /// Connects where bytes go that are no requests.
    ///
    /// # Errors
    /// The refusal, if nobody accepts.
    async fn dial(&self) -> Result<Early, Refused>;

    /// Where a connection of TLS goes, by the `name` that its client asks for.
    ///
    /// # Errors
    /// The refusal, with the rule it follows from.
    async fn by_name(&self, name: Option<&str>) -> Result<ByName, Refused> {
        let _ = name;
        Ok(ByName::Anywhere)
    }

    /// Under which labels it is counted, to `upstream` if one was reached.
    fn named_series(&self, upstream: Option<&Rc<Upstream>>, name: Option<&str>) -> MetricSeries {
        let _ = name;
        self.connection_series(upstream)
    }

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

    /// What a request calls, as Istio names its spans.
    fn operation(&self, request: &dyn RequestView) -> String {
        let _ = request;
        format!("{}/*", self.default_host())
    }

    /// Host for requests that came without one.
    fn default_host(&self) -> String;

    /// An HTTP response has come from there.
    fn spoke_http(&self);
}

/// What the name that a client of TLS asks for says about where its connection goes.
#[derive(Debug)]
pub(crate) enum ByName {
    /// Nothing: where other bytes go.
    Anywhere,
    /// To one of these, chosen by this hash if a rule chooses by one.
    To(Backend, Option<u64>),
    /// Nowhere: rules for HTTP hold, and this cannot be read.
    Foreign,
}

/// Where a request goes, and what happens to it on the way.
#[derive(Debug)]
pub(crate) struct Route {
    /// Where it may go, or why the rule's target is nowhere; known only after the fault.
    pub(crate) onward: Result<Onward, Refusal>,
    /// What to inject first.
    pub(crate) fault: Option<FaultPlan>,
    /// The rule that decided.
    pub(crate) rule: Option<Arc<CompiledRule>>,
    /// The path to send on in place of the one that came: the one by which the rules decided, where
    /// an upstream could take the other for another.
    pub(crate) path: Option<Box<str>>,
    /// What else the rule changes; `None` for nothing.
    pub(crate) changes: Option<Box<Changes>>,
    /// Most time from the end of the request to that of its answer: the rule's, or the deadline that came
    /// with the request, where that is sooner.
    pub(crate) limit: Option<Duration>,
    /// Is it a gRPC call? Told only where the rule says something about sending it again.
    pub(crate) grpc: bool,
    /// Who gets a copy of it.
    pub(crate) mirrors: Vec<Mirrored>,
    /// The hash of what a rule tells requests to this backend apart by.
    pub(crate) hash: Option<u64>,
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Onward {
    /// It goes to one of these.
    To(Backend),
    /// The rule answers it.
    Answer(Reply),
}

impl Route {
    /// A route that no rule decided.
    pub(crate) fn to(backend: Backend) -> Self {
        let onward = Ok(Onward::To(backend));
        Self {
            onward,
            fault: None,
            rule: None,
            path: None,
            changes: None,
            limit: None,
            grpc: false,
            mirrors: Vec::new(),
            hash: None,
        }
    }

    /// What the rule that decided says about sending it again.
    pub(crate) fn retries(&self) -> Option<&RetryPolicy> {
        self.rule.as_ref()?.does.retries.as_ref()
    }

    /// Is whoever gets the request another sidecar?
    pub(crate) fn leads_to_a_hop(&self) -> bool {
        matches!(&self.onward, Ok(Onward::To(backend)) if backend.is_a_hop())
    }

    /// The rule that decided, for a refusal's text.
    pub(crate) fn rule(&self) -> Option<Provenance> {
        Some(self.rule.as_ref()?.rule.provenance.clone())
    }
}
