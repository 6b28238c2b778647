//! Where an outbound connection goes: told by its original destination, once, at accept.

use std::{
    cell::RefCell,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use heddle_model::{Protocol, ServiceName};
use heddle_wire::http1::Request;

use crate::{
    balancers::{Candidates, Upstream, Via},
    limits::HOST_LABEL_BYTES,
    lookup::LookupError,
    metrics::{Direction, Edge, Reporter, SeriesSet, ServiceLabels},
    outcome::{Counted, RequestOutcome},
    protocol::{Dial, Early, Known},
    refusal::{Refusal, Refused},
    shared::Reach,
    snapshot::{AddressOwner, PortPlan},
    worker::{
        Worker,
        dial::dial_any,
        ports::{PortState, Ports},
    },
};

/// Where a connection goes.
#[derive(Debug)]
pub(super) struct Destination {
    pub(super) kind: Kind,
    /// What was dialled.
    address: SocketAddr,
    /// What is kept about the port it goes to.
    pub(super) port: Rc<PortState>,
    /// Outside: series of the host named last on this connection.
    by_host: RefCell<Option<(String, Rc<SeriesSet>)>>,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// A service's virtual address: its rules hold, whatever Host says.
    Service(Arc<ServiceName>, u16),
    /// A workload's own address: the call goes to that workload, under its service's name.
    Workload(Rc<Upstream>, Protocol),
    /// Outside the mesh: passed on as it is, and measured.
    Outside(Rc<Upstream>),
    /// A virtual address that leads nowhere.
    Nowhere(Refusal),
}

impl Destination {
    /// Finds out whose address `to` is.
    pub(super) async fn of(worker: &Rc<Worker>, to: SocketAddr) -> Self {
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        let kind = kind_of(worker, to).await;
        let service = match &kind {
            Kind::Service(service, _) => Some(ServiceName::clone(service)),
            Kind::Workload(upstream, _) => upstream.workload().map(|one| one.service.clone()),
            Kind::Outside(_) | Kind::Nowhere(_) => None,
        };
        let port = Ports::of(worker, Direction::Outbound, service.as_ref(), to.port());
        Self { kind, address: to, port, by_host: RefCell::default() }
    }

    /// What is known about its protocol before the first byte.
    pub(super) async fn known(&self, worker: &Worker) -> Known {
        let (declared, http_rules) = match &self.kind {
            Kind::Service(service, port) => match port_plan(worker, service, *port).await {
                Ok(plan) => (plan.protocol, !plan.http.rules().is_empty()),
                Err(_) => (Protocol::Undeclared, false),
            },
            Kind::Workload(_, declared) => (*declared, false),
            Kind::Outside(_) | Kind::Nowhere(_) => (Protocol::Undeclared, false),
        };
        let dial = match declared {
            Protocol::Undeclared if self.speaks_http(worker) => Dial::AfterSilence,
            Protocol::Undeclared => Dial::Now,
            _ => Dial::Never,
        };
        Known { declared, dial, http_rules }
    }

    /// Has an HTTP response come from here? A service's port is one thing; outside, a port number
    /// says nothing about another address.
    fn speaks_http(&self, worker: &Worker) -> bool {
        match &self.kind {
            Kind::Outside(_) => worker.http_seen.at(self.address),
            Kind::Service(..) | Kind::Workload(..) | Kind::Nowhere(_) => {
                self.port.speaks_http.get()
            }
        }
    }

    /// An HTTP response has.
    pub(super) fn spoke_http(&self, worker: &Worker) {
        match &self.kind {
            Kind::Outside(_) => worker.http_seen.note(self.address),
            Kind::Service(..) | Kind::Workload(..) | Kind::Nowhere(_) => {
                self.port.speaks_http.set(true);
            }
        }
    }

    /// Connects where TCP rules say.
    pub(super) async fn dial(&self, worker: &Rc<Worker>) -> Result<Early, Refused> {
        let candidates = match &self.kind {
            Kind::Service(service, port) => {
                tcp_candidates(worker, &*port_plan(worker, service, *port).await?)?
            }
            Kind::Workload(upstream, _) | Kind::Outside(upstream) => {
                Candidates::One(Rc::clone(upstream))
            }
            Kind::Nowhere(refusal) => return Err(refusal.clone().into()),
        };
        dial_any(worker, &candidates, Refusal::NoEndpoints(self.service(&candidates))).await
    }

    /// The service whose endpoints these are, for a refusal's text.
    pub(super) fn service(&self, candidates: &Candidates) -> ServiceName {
        match (candidates, &self.kind) {
            (Candidates::Cluster(cluster), _) => cluster.key.service.clone(),
            (_, Kind::Service(service, _)) => ServiceName::clone(service),
            _ => ServiceName { namespace: String::new(), name: String::new() },
        }
    }

    /// Labels while no endpoint is picked.
    pub(super) fn unpicked(&self) -> Counted {
        Counted::Edge(Rc::clone(&self.port.unpicked))
    }

    /// Labels of a request to `upstream`; `None` keeps those it has (outside: by host).
    pub(super) fn counted(
        &self,
        worker: &Worker,
        candidates: &Candidates,
        upstream: &Rc<Upstream>,
    ) -> Option<Counted> {
        let own_service = upstream.workload();
        let service = match candidates {
            Candidates::Cluster(cluster) => &cluster.key.service,
            Candidates::One(_) => &own_service.as_ref()?.service,
        };
        let set = upstream.series(service, || {
            let edge = Edge {
                reporter: Reporter::Source,
                peer: upstream.workload(),
                service: ServiceLabels::of(service),
            };
            SeriesSet::new(edge, worker.index)
        });
        Some(Counted::Edge(set))
    }

    /// Labels of a TCP connection to `upstream`.
    pub(super) fn counted_connection(&self, worker: &Worker, upstream: &Rc<Upstream>) -> Counted {
        let candidates = Candidates::One(Rc::clone(upstream));
        self.counted(worker, &candidates, upstream).unwrap_or_else(|| self.unpicked())
    }

    /// Outside, `destination_service` is the host that was named.
    pub(super) fn count_by_host(
        &self,
        worker: &Worker,
        request: Request<'_>,
        outcome: &mut RequestOutcome,
    ) {
        if !matches!(self.kind, Kind::Outside(_)) {
            return;
        }
        let host = host_label(request.authority());
        let mut by_host = self.by_host.borrow_mut();
        let known = by_host.as_ref().filter(|(one, _)| *one == host);
        let set = known.map_or_else(
            || {
                let service = ServiceLabels::passthrough(Some(&host));
                let edge = Edge { reporter: Reporter::Source, peer: None, service };
                Rc::new(SeriesSet::new(edge, worker.index))
            },
            |(_, set)| Rc::clone(set),
        );
        *by_host = Some((host, Rc::clone(&set)));
        outcome.count_as(Counted::Edge(set));
    }

    /// Host for requests that came without one: what the client dialled.
    pub(super) fn default_host(&self) -> String {
        match &self.kind {
            Kind::Service(service, port) => format!("{service}:{port}"),
            Kind::Workload(upstream, _) | Kind::Outside(upstream) => upstream.via.to_string(),
            Kind::Nowhere(_) => String::new(),
        }
    }
}

async fn kind_of(worker: &Rc<Worker>, to: SocketAddr) -> Kind {
    let ip = to.ip();
    match Box::pin(worker.shared.lookup.address(ip)).await {
        Ok(AddressOwner::Service(service)) => Kind::Service(service, to.port()),
        Ok(AddressOwner::Workload(workload)) => {
            let declared = workload.ports.get(&to.port()).copied().unwrap_or_default();
            let own = workload.id == worker.shared.config.workload;
            let via = if own { Via::Own(to) } else { Via::Direct(to) };
            Kind::Workload(worker.upstreams.of_way(via, Some(workload)), declared)
        }
        Ok(AddressOwner::NotKnown) => match worker.shared.ranges.reach(ip) {
            Reach::Vip => Kind::Nowhere(Refusal::UnknownAddress(ip)),
            Reach::Workload => direct(worker, to),
            Reach::HostGateway | Reach::Outside => {
                Kind::Outside(worker.upstreams.of_way(Via::Outside(to), None))
            }
        },
        Err(LookupError::NotKnown) => Kind::Nowhere(Refusal::UnknownAddress(ip)),
        Err(error @ (LookupError::Timeout | LookupError::Unreachable)) => {
            Kind::Nowhere(Refusal::DiscoveryTimeout(format!("{ip} ({error})")))
        }
    }
}

/// A workload's address that nobody explained: connected to as without a mesh, measured as outside.
fn direct(worker: &Worker, to: SocketAddr) -> Kind {
    let own = &worker.shared.config;
    let here = to.ip() == IpAddr::V4(own.ipv4) || to.ip() == IpAddr::V6(own.ipv6);
    let via = if here { Via::Own(to) } else { Via::Direct(to) };
    Kind::Outside(worker.upstreams.of_way(via, None))
}

/// One port of a service under the rules of now.
pub(super) async fn port_plan(
    worker: &Worker,
    service: &ServiceName,
    port: u16,
) -> Result<Arc<PortPlan>, Refusal> {
    let undeclared = || Refusal::PortNotDeclared(service.clone(), port);
    if let Some(plan) = worker.shared.snapshot.load().destination(service) {
        return plan.port(port).cloned().ok_or_else(undeclared);
    }
    // Only the first request to a service waits here.
    match Box::pin(worker.shared.lookup.destination(service)).await {
        Ok(plan) => plan.port(port).cloned().ok_or_else(undeclared),
        Err(LookupError::NotKnown) => Err(Refusal::NoEndpoints(service.clone())),
        Err(error) => Err(Refusal::DiscoveryTimeout(format!("{service} ({error})"))),
    }
}

fn tcp_candidates(worker: &Worker, plan: &PortPlan) -> Result<Candidates, Refused> {
    match plan.pick_tcp(worker.random()) {
        Ok(cluster) => Ok(Candidates::Cluster(Arc::clone(cluster))),
        Err(reason) => Err(Refusal::DanglingTarget(reason.to_owned()).into()),
    }
}

/// A host as a label's value: without port, in lower case, and nothing that is no host.
fn host_label(authority: &str) -> String {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte);
    if host.is_empty() || host.len() > HOST_LABEL_BYTES || !host.bytes().all(valid) {
        return "unknown".to_owned();
    }
    host.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_label_has_no_port_and_no_case() {
        for (authority, label) in [
            ("Example.com:8080", "example.com"),
            ("[2001:DB8::1]:80", "[2001:db8::1]"),
            ("", "unknown"),
            ("a b", "unknown"),
            ("10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(host_label(authority), label);
        }
        assert_eq!(host_label(&"x".repeat(300)), "unknown");
    }
}
