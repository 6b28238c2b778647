//! Faults: those of a kind of their own, by client and service or by the workload that is called; and when
//! a VirtualService's end.

use heddle_model::{
    Inbound, InboundPort, Registry, ServiceName, ServicePortRef, Workload,
    discovery::{Fault, HttpMatch, PortFault, Provenance},
    registry::carries,
    resource::{FaultRule, FaultSide, FaultTarget, ISTIO_FAULT_SEMANTICS, Resource, Spec},
    timestamp,
};

use crate::{
    client::Client,
    delegate::InForce,
    facts,
    finding::{Finding, FindingKind},
    matching,
    rules::RuleIndex,
    telemetry::TelemetryDefault,
};

/// A `Fault` with its resource.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FaultSource<'a> {
    pub(crate) resource: &'a Resource,
    pub(crate) rule: &'a FaultRule,
}

impl FaultSource<'_> {
    /// The service whose calls it is for; `None` where it is for workloads.
    pub(crate) fn service(&self) -> Option<ServiceName> {
        let FaultTarget::Service { name, namespace } = &self.rule.target else { return None };
        let namespace = namespace.as_ref().unwrap_or(&self.resource.key.namespace);
        ServiceName::new(name, namespace).ok()
    }

    /// Is it for this workload by its labels?
    pub(crate) fn selects(&self, workload: &Workload) -> bool {
        let FaultTarget::Workloads(labels) = &self.rule.target else { return false };
        workload.namespace == self.resource.key.namespace && carries(&workload.labels, labels)
    }

    fn on_port(&self, matches: Vec<HttpMatch>) -> PortFault {
        PortFault {
            provenance: Provenance(self.resource.key.to_string()),
            matches,
            percent: self.rule.percent,
            does: self.rule.does,
            expires: self.rule.expires,
        }
    }

    /// As the port of a workload has it; `None` where it is not for that.
    fn on_inbound(&self, workload: &Workload, port: &InboundPort) -> Option<PortFault> {
        let anybody = Client::any_of(&workload.namespace);
        let left = |on: &dyn Fn(u16) -> bool| matching::left(&self.rule.matches, anybody, on);
        let matches = match &self.rule.target {
            FaultTarget::Service { .. } => {
                let service = self.service()?;
                let of_it = |one: &&ServicePortRef| one.service == service;
                let mut leading = port.services.iter().filter(of_it);
                leading.find_map(|one| left(&|number| number == one.port))
            }
            FaultTarget::Workloads(_) => {
                self.selects(workload).then(|| left(&|number| number == port.number)).flatten()
            }
        };
        Some(self.on_port(matches?))
    }
}

impl RuleIndex {
    /// All faults of a kind of their own, oldest first.
    pub(crate) fn faults(&self) -> impl Iterator<Item = FaultSource<'_>> {
        self.faults_at().filter_map(|resource| match &resource.spec {
            Spec::Fault(rule) => Some(FaultSource { resource, rule }),
            _ => None,
        })
    }

    /// What the sidecar of `client` injects into calls of a service's port, oldest first.
    pub(crate) fn client_faults(
        &self,
        client: Client<'_>,
        service: &ServiceName,
        port: u16,
    ) -> Vec<PortFault> {
        let on_client = |one: &FaultSource<'_>| one.rule.side == FaultSide::Client;
        let of_service = |one: &FaultSource<'_>| one.service().as_ref() == Some(service);
        let faults = self.faults().filter(on_client).filter(of_service);
        let left = |one: FaultSource<'_>| {
            let matches = matching::left(&one.rule.matches, client, |number| number == port)?;
            Some(one.on_port(matches))
        };
        faults.filter_map(left).collect()
    }

    /// Every fault that a sidecar may inject into the calls its workload receives, whoever that is.
    pub fn server_faults(&self) -> impl Iterator<Item = PortFault> + '_ {
        let on_server = self.faults().filter(|one| one.rule.side == FaultSide::Server);
        on_server.filter_map(|one| {
            let anybody = Client::any_of(&one.resource.key.namespace);
            Some(one.on_port(matching::left(&one.rule.matches, anybody, |_| true)?))
        })
    }

    /// A workload's own ports, each with the service ports that lead to it and the faults that its sidecar
    /// injects; what its Sidecar says of its calls of the outside; and what is told about all of them.
    #[must_use]
    pub fn inbound(&self, registry: &Registry, workload: &Workload) -> Inbound {
        self.inbound_with(registry, workload, None)
    }

    /// The same where spans go somewhere even if no rule says so.
    #[must_use]
    pub fn inbound_with(
        &self,
        registry: &Registry,
        workload: &Workload,
        spans: Option<&TelemetryDefault>,
    ) -> Inbound {
        let mut inbound = facts::inbound(registry, workload);
        inbound.outbound = self.outbound(registry, workload.into());
        inbound.telemetry = self.telemetry(workload, spans);
        inbound.callers = self.callers(registry, workload);
        self.ingress(workload, &mut inbound.ports);
        for port in &mut inbound.ports {
            let on_server = self.faults().filter(|one| one.rule.side == FaultSide::Server);
            port.faults = on_server.filter_map(|one| one.on_inbound(workload, port)).collect();
        }
        inbound
    }

    /// Faults that are over at `now`, seconds since the Unix epoch.
    #[must_use]
    pub fn expired(&self, now: u64) -> Vec<Finding> {
        let over = self.resources().iter().filter_map(|resource| {
            let (at, place) = resource.faults_expire().filter(|(at, _)| *at <= now)?;
            let what = match &resource.spec {
                Spec::Fault(_) => "nothing is injected any more",
                _ => "its faults are off",
            };
            let text = format!(
                "expired at {}: {what}; remove it, or set a later moment",
                timestamp::format(at)
            );
            let place = (place.line, place.field);
            Some(Finding::new(resource, place, FindingKind::NoEffect, text))
        });
        over.collect()
    }
}

/// A rule's fault, with what annotations of its VirtualService, or of the one that has its hosts, say of it.
pub(crate) fn of_rule(rule: &InForce<'_>, root: &Resource) -> Option<Fault> {
    let fault = rule.route.fault.clone()?;
    let both = [root, rule.resource];
    let expires = both.iter().filter_map(|one| one.faults_expire()).map(|(at, _)| at).min();
    let before_limits = both
        .iter()
        .any(|one| one.annotations.get(ISTIO_FAULT_SEMANTICS).is_some_and(|value| value == "true"));
    Some(Fault { expires, before_limits, ..fault })
}
