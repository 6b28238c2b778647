//! A port of this workload as callers see it: its protocol and the services that own it.

use std::rc::Rc;

use heddle_model::{Protocol, ServiceName, ServicePortRef};

use crate::{
    balancers::{Upstream, Via},
    metrics::{Direction, ServiceLabels},
    protocol::{Dial, Known},
    worker::{
        Worker,
        ports::{PortState, Ports},
    },
};

/// One port, under the rules at accept.
pub(super) struct Port {
    pub(super) number: u16,
    pub(super) application: Rc<Upstream>,
    /// State under the name of the first owner.
    pub(super) state: Rc<PortState>,
    declared: Protocol,
    /// Owners by name; empty for a port that nothing declared.
    owners: Vec<(ServicePortRef, Rc<ServiceLabels>)>,
    namespace: String,
}

impl Port {
    pub(super) fn of(worker: &Worker, number: u16) -> Self {
        let (declared, mut leading) = declared(worker, number);
        // Sorted: of several ports of one service that lead here the first stands for it.
        leading.dedup_by(|next, first| next.service == first.service);
        let labels = |service: &ServiceName| {
            let state = Ports::of(worker, Direction::Inbound, Some(service), number);
            Rc::clone(&state.service)
        };
        let first = leading.first().map(|owner| &owner.service);
        Self {
            number,
            application: worker.upstreams.of_way(Via::Application(number), None),
            state: Ports::of(worker, Direction::Inbound, first, number),
            declared,
            owners: leading.iter().map(|one| (one.clone(), labels(&one.service))).collect(),
            namespace: worker.shared.config.namespace.clone(),
        }
    }

    /// What is known about the protocol before the first byte.
    pub(super) fn known(&self) -> Known {
        let dial = match self.declared {
            Protocol::Undeclared if self.state.speaks_http.get() => Dial::AfterSilence,
            Protocol::Undeclared => Dial::Now,
            _ => Dial::Never,
        };
        Known { declared: self.declared, dial, http_rules: false }
    }

    /// `destination_service`: of several owners the one that `host` names, else the first by name.
    pub(super) fn service(&self, host: &str) -> &Rc<ServiceLabels> {
        let named = || {
            let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
            let service = ServiceName::resolve(host, &self.namespace).ok()?;
            self.owners.iter().find(|(owner, _)| owner.service == service)
        };
        let several = self.owners.len() > 1;
        let owner = several.then(named).flatten().or_else(|| self.owners.first());
        owner.map_or(&self.state.service, |(_, labels)| labels)
    }

    /// Host for requests that came without one.
    pub(super) fn default_host(&self) -> String {
        match self.owners.first() {
            Some((owner, _)) => format!("{}:{}", owner.service, owner.port),
            None => self.application.via.to_string(),
        }
    }
}

/// A port's protocol and the service ports that lead to it: as the control plane says, else as this
/// sidecar was started.
fn declared(worker: &Worker, number: u16) -> (Protocol, Vec<ServicePortRef>) {
    if let Some(plan) = &worker.shared.snapshot.load().inbound {
        return match plan.port(number) {
            Some(port) => (port.protocol, port.services.clone()),
            None => (Protocol::Undeclared, Vec::new()),
        };
    }
    match worker.shared.config.ports.get(&number) {
        Some(protocol) => {
            let own = worker.own.services.iter().cloned();
            (*protocol, own.map(|service| ServicePortRef { service, port: number }).collect())
        }
        None => (Protocol::Undeclared, Vec::new()),
    }
}
