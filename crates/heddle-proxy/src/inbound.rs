//! The side of connections to the workload: a port of it as callers see it, with its protocol, the
//! services that own it, and who calls. Authentication and authorization will stand in
//! [`Side::route`].

use std::{cell::RefCell, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use heddle_logic::{ConnectionFault, PortFaults, route::RequestView};
use heddle_model::{Protocol, ServiceName, ServicePortRef, discovery::DefaultEndpoint};

use crate::{
    caller::Caller,
    dial::Early,
    direction::Direction,
    facts::Ends,
    limits::INBOUND_IDLE_TIMEOUT,
    metrics::{ServiceLabels, VerdictCounters},
    ports::PortState,
    protocol::PortHints,
    record::MetricSeries,
    refusal::Refused,
    side::{Route, Side},
    snapshot::now,
    upstream::{Backend, DialTarget, Upstream},
    worker::Worker,
};

/// One port of this workload, under the rules at accept, and one caller.
#[derive(Debug)]
pub(crate) struct Inbound {
    worker: Rc<Worker>,
    application: Rc<Upstream>,
    /// State under the name of the first owner.
    state: Rc<PortState>,
    declared: Protocol,
    /// Owners by name; empty for a port that nothing declared.
    owners: Vec<(ServicePortRef, Rc<ServiceLabels>)>,
    caller: RefCell<Rc<Caller>>,
    ends: Ends,
}

impl Inbound {
    /// The port the client meant, and the services that own it.
    pub(crate) fn of(worker: &Rc<Worker>, number: u16, caller: Rc<Caller>) -> Self {
        let (declared, mut leading, at) = declared(worker, number);
        // Sorted: of several ports of one service that lead here the first stands for it.
        leading.dedup_by(|next, first| next.service == first.service);
        let state =
            |service: Option<&ServiceName>| worker.ports.of(Direction::Inbound, service, number);
        let labels = |service: &ServiceName| Rc::clone(&state(Some(service)).service);
        let caller_kept = worker.shared.config.keeps_callers().then(|| caller.ip());
        let target = DialTarget::Application { port: number, caller: caller_kept, at };
        let application = worker.upstreams.of_target(target, None);
        application.declare(declared);
        Self {
            worker: Rc::clone(worker),
            application,
            state: state(leading.first().map(|owner| &owner.service)),
            declared,
            owners: leading.iter().map(|one| (one.clone(), labels(&one.service))).collect(),
            caller: RefCell::new(caller),
            ends: Ends {
                remote: None,
                called: SocketAddr::new(worker.shared.config.addresses.first(), number),
            },
        }
    }

    /// Who connected to what.
    pub(crate) fn between(self, ends: Ends) -> Self {
        Self { ends, ..self }
    }

    /// The application sees its clients leave as it would without a mesh: nobody else is to have what
    /// this one used last.
    pub(crate) fn client_left(&self) {
        self.application.pool.close_left();
    }

    /// What rules of now have this sidecar inject here.
    fn faults(&self) -> Option<Arc<PortFaults>> {
        let snapshot = self.worker.shared.snapshot.load();
        let DialTarget::Application { port, .. } = self.application.target else { return None };
        snapshot.inbound.as_ref()?.faults(port).cloned()
    }

    fn application(&self) -> Backend {
        Backend::Upstream(Rc::clone(&self.application))
    }

    /// `destination_service`: of several owners the one that `host` names, else the first by name.
    fn service(&self, host: &str) -> &Rc<ServiceLabels> {
        let named = || {
            let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
            let namespace = &self.worker.shared.config.namespace;
            let service = ServiceName::resolve(host, namespace).ok()?;
            self.owners.iter().find(|(owner, _)| owner.service == service)
        };
        let several = self.owners.len() > 1;
        let owner = several.then(named).flatten().or_else(|| self.owners.first());
        owner.map_or(&self.state.service, |(_, labels)| labels)
    }

    /// Who calls: found out at accept, and anew only while it is nobody known.
    fn caller(&self) -> Rc<Caller> {
        let mut caller = self.caller.borrow_mut();
        if caller.is_unknown() {
            *caller = self.worker.callers.again(&caller);
        }
        Rc::clone(&caller)
    }
}

impl Side for Inbound {
    const DIRECTION: Direction = Direction::Inbound;
    const IDLE_TIMEOUT: Duration = INBOUND_IDLE_TIMEOUT;

    fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    fn ends(&self) -> Ends {
        self.ends
    }

    fn verdicts(&self) -> &VerdictCounters {
        &self.state.verdicts
    }

    async fn hints(&self) -> PortHints {
        PortHints::of(self.declared, self.state.speaks_http.get(), false)
    }

    async fn dial(&self) -> Result<Early, Refused> {
        self.worker.dial_any(&self.application(), None).await
    }

    fn connection_fault(&self) -> Option<ConnectionFault> {
        let faults = self.faults().filter(|faults| faults.are_for_connections())?;
        faults.of_connection(now(), || self.worker.random_share())
    }

    async fn route(&self, request: &dyn RequestView) -> Result<Route, Refused> {
        let fault = self
            .faults()
            .filter(|faults| faults.are_for_requests())
            .and_then(|faults| faults.of_request(request, now(), || self.worker.random_share()));
        Ok(Route { fault, ..Route::to(self.application()) })
    }

    fn request_series(&self, request: Option<&dyn RequestView>) -> MetricSeries {
        let host = request.map_or("", |request| request.authority());
        MetricSeries::Caller(self.caller(), Rc::clone(self.service(host)))
    }

    fn connection_series(&self, _: Option<&Rc<Upstream>>) -> MetricSeries {
        self.request_series(None)
    }

    fn default_host(&self) -> String {
        match self.owners.first() {
            Some((owner, _)) => format!("{}:{}", owner.service, owner.port),
            None => self.application.target.to_string(),
        }
    }

    fn spoke_http(&self) {
        self.state.speaks_http.set(true);
    }
}

/// A port's protocol, the service ports that lead to it and where it is served: as the control plane says, else as
/// this sidecar was started.
fn declared(
    worker: &Worker,
    number: u16,
) -> (Protocol, Vec<ServicePortRef>, Option<DefaultEndpoint>) {
    if let Some(plan) = &worker.shared.snapshot.load().inbound {
        return match plan.port(number) {
            Some(port) => (port.protocol, port.services.clone(), port.endpoint.clone()),
            None => (Protocol::Undeclared, Vec::new(), None),
        };
    }
    match worker.shared.config.ports.get(&number) {
        Some(protocol) => {
            let own = worker.shared.metrics.own().services.iter().cloned();
            let own = own.map(|service| ServicePortRef { service, port: number }).collect();
            (*protocol, own, None)
        }
        None => (Protocol::Undeclared, Vec::new(), None),
    }
}
