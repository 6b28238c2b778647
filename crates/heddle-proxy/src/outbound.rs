//! The side of connections from the workload: whose address was dialled, which rules hold there, and
//! under whose name it is counted. The original destination decides, once, at accept.

use std::{cell::RefCell, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use heddle_logic::{FaultPlan, Selected, Selection, fault, route::RequestView, rule};
use heddle_model::{Protocol, ServiceName};

use crate::{
    dial::Early,
    direction::Direction,
    limits::{HOST_LABEL_BYTES, OUTBOUND_IDLE_TIMEOUT},
    lookup::LookupError,
    metrics::{Edge, Reporter, ServiceLabels, VerdictCounters},
    named::service_named,
    ports::PortState,
    protocol::{HelloUse, PortHints},
    ranges::AddressKind,
    record::MetricSeries,
    refusal::{Refusal, Refused},
    reply::Reply,
    series::SeriesSet,
    side::{ByName, Onward, Route, Side},
    snapshot::{AddressOwner, Cluster, CompiledRule, PortPlan},
    upstream::{Backend, DialTarget, Upstream},
    worker::Worker,
};

/// Where a connection of the workload goes.
#[derive(Debug)]
pub(crate) struct Outbound {
    worker: Rc<Worker>,
    kind: Kind,
    /// What was dialled.
    address: SocketAddr,
    /// What is kept about the port it goes to.
    port: Rc<PortState>,
    /// Outside: series of the host named last on this connection.
    by_host: RefCell<Option<(String, Rc<SeriesSet>)>>,
}

#[derive(Debug)]
enum Kind {
    /// A service's virtual address: its rules hold, whatever Host says.
    Service(Arc<ServiceName>, u16),
    /// A workload's own address: the call goes to that workload, under its service's name.
    Workload(Rc<Upstream>, Protocol),
    /// Outside the mesh: passed on as it is, and measured.
    Outside(Rc<Upstream>),
    /// A virtual address that leads nowhere.
    Nowhere(Refusal),
}

impl Outbound {
    /// Finds out whose address `to` is.
    pub(crate) async fn of(worker: &Rc<Worker>, to: SocketAddr) -> Self {
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        let kind = kind_of(worker, to).await;
        let service = match &kind {
            Kind::Service(service, _) => Some(ServiceName::clone(service)),
            Kind::Workload(upstream, _) => {
                upstream.workload().and_then(|one| one.first_service().cloned())
            }
            Kind::Outside(_) | Kind::Nowhere(_) => None,
        };
        let port = worker.ports.of(Direction::Outbound, service.as_ref(), to.port());
        Self { worker: Rc::clone(worker), kind, address: to, port, by_host: RefCell::default() }
    }

    /// Has an HTTP response come from here?
    fn speaks_http(&self) -> bool {
        match self.is_by_address() {
            true => self.worker.http_seen.at(self.address),
            false => self.port.speaks_http.get(),
        }
    }

    /// A service's port is one thing; where there is no service, a port number says nothing about
    /// another address.
    fn is_by_address(&self) -> bool {
        match &self.kind {
            Kind::Outside(_) => true,
            Kind::Workload(upstream, _) => {
                upstream.workload().is_none_or(|one| one.first_service().is_none())
            }
            Kind::Service(..) | Kind::Nowhere(_) => false,
        }
    }

    /// Is it an address that nothing in this mesh explains?
    fn address_is_foreign(&self) -> bool {
        self.worker.shared.ranges.kind(self.address.ip()) == AddressKind::Outside
    }

    /// Where a client goes that asks for `name` at an address that nobody knows.
    async fn named(&self, name: &str) -> Result<ByName, Refused> {
        let found = service_named(&self.worker, name, self.address.port()).await;
        let Some((_, plan)) = found else { return Ok(ByName::Anywhere) };
        let backend = match by_sni(&self.worker, &plan, Some(name))? {
            Some(backend) => backend,
            None => tcp_backend(&self.worker, &plan)?,
        };
        Ok(ByName::To(backend))
    }

    /// Outside nobody waits behind a client that has left.
    pub(crate) fn client_left(&self) {
        if let Kind::Outside(upstream) = &self.kind
            && upstream.is_held_up()
        {
            upstream.make_room();
        }
    }

    /// Outside, `destination_service` is the host that was named.
    fn by_host(&self, authority: &str) -> MetricSeries {
        let host = host_label(authority);
        let mut by_host = self.by_host.borrow_mut();
        let known = by_host.as_ref().filter(|(one, _)| *one == host);
        let set = known.map_or_else(
            || {
                let service = ServiceLabels::passthrough(Some(&host));
                let edge = Edge { reporter: Reporter::Source, peer: None, service };
                Rc::new(SeriesSet::new(edge, self.worker.index))
            },
            |(_, set)| Rc::clone(set),
        );
        *by_host = Some((host, Rc::clone(&set)));
        MetricSeries::Edge(set)
    }
}

impl Side for Outbound {
    const DIRECTION: Direction = Direction::Outbound;
    const IDLE_TIMEOUT: Duration = OUTBOUND_IDLE_TIMEOUT;

    fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    fn verdicts(&self) -> &VerdictCounters {
        &self.port.verdicts
    }

    async fn hints(&self) -> PortHints {
        let by_address = (Protocol::Undeclared, false, HelloUse::Nothing);
        let (declared, http_rules, hello) = match &self.kind {
            Kind::Service(service, port) => match port_plan(&self.worker, service, *port).await {
                Ok(plan) if plan.sni.is_empty() => {
                    (plan.protocol, plan.is_http_only(), HelloUse::Nothing)
                }
                Ok(plan) => (plan.protocol, plan.is_http_only(), HelloUse::Rules),
                Err(_) => by_address,
            },
            Kind::Workload(_, declared) => (*declared, false, HelloUse::Nothing),
            Kind::Outside(_) => (Protocol::Undeclared, false, HelloUse::Names),
            Kind::Nowhere(_) => by_address,
        };
        PortHints::of(declared, self.speaks_http(), http_rules).with_hello(hello)
    }

    async fn by_name(&self, name: Option<&str>) -> Result<ByName, Refused> {
        match &self.kind {
            Kind::Service(service, port) => {
                let plan = port_plan(&self.worker, service, *port).await?;
                Ok(match by_sni(&self.worker, &plan, name)? {
                    Some(backend) => ByName::To(backend),
                    None if plan.is_http_only() => ByName::Foreign,
                    None => ByName::Anywhere,
                })
            }
            Kind::Outside(_) => match (self.address_is_foreign(), name) {
                (true, Some(name)) => self.named(name).await,
                _ => Ok(ByName::Anywhere),
            },
            Kind::Workload(..) | Kind::Nowhere(_) => Ok(ByName::Anywhere),
        }
    }

    async fn dial(&self) -> Result<Early, Refused> {
        let worker = &self.worker;
        let backend = match &self.kind {
            Kind::Service(service, port) => {
                tcp_backend(worker, &*port_plan(worker, service, *port).await?)?
            }
            Kind::Workload(upstream, _) | Kind::Outside(upstream) => {
                Backend::Upstream(Rc::clone(upstream))
            }
            Kind::Nowhere(refusal) => return Err(refusal.clone().into()),
        };
        worker.dial_any(&backend).await
    }

    async fn route(&self, request: &dyn RequestView) -> Result<Route, Refused> {
        let (service, port) = match &self.kind {
            Kind::Service(service, port) => (service, *port),
            Kind::Workload(upstream, _) | Kind::Outside(upstream) => {
                return Ok(Route::to(Backend::Upstream(Rc::clone(upstream))));
            }
            Kind::Nowhere(refusal) => return Err(refusal.clone().into()),
        };
        let plan = port_plan(&self.worker, service, port).await?;
        if plan.http.rules().is_empty() {
            return Ok(Route::to(Backend::Cluster(Arc::clone(&plan.default))));
        }
        by_rule(&self.worker, &plan, service, request).map_err(Refused::from)
    }

    fn request_series(&self, request: Option<&dyn RequestView>) -> MetricSeries {
        match (&self.kind, request) {
            (Kind::Outside(_), Some(request)) => self.by_host(request.authority()),
            _ => MetricSeries::Edge(Rc::clone(&self.port.unpicked)),
        }
    }

    fn connection_series(&self, upstream: Option<&Rc<Upstream>>) -> MetricSeries {
        let called = match &self.kind {
            Kind::Service(service, _) => Some(&**service),
            Kind::Workload(..) | Kind::Outside(_) | Kind::Nowhere(_) => None,
        };
        let own = upstream.and_then(|upstream| upstream.own_series(called, self.worker.index));
        MetricSeries::Edge(own.unwrap_or_else(|| Rc::clone(&self.port.unpicked)))
    }

    fn named_series(&self, upstream: Option<&Rc<Upstream>>, name: Option<&str>) -> MetricSeries {
        let is_outside = upstream.is_none_or(|upstream| upstream.workload().is_none());
        match (&self.kind, name) {
            (Kind::Outside(_), Some(name)) if is_outside => self.by_host(name),
            _ => self.connection_series(upstream),
        }
    }

    /// What the client dialled.
    fn default_host(&self) -> String {
        match &self.kind {
            Kind::Service(service, port) => format!("{service}:{port}"),
            Kind::Workload(upstream, _) | Kind::Outside(upstream) => upstream.target.to_string(),
            Kind::Nowhere(_) => String::new(),
        }
    }

    fn spoke_http(&self) {
        match self.is_by_address() {
            true => self.worker.http_seen.note(self.address),
            false => self.port.speaks_http.set(true),
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
            let target = if own { DialTarget::Own(to) } else { DialTarget::Workload(to) };
            Kind::Workload(worker.upstreams.of_target(target, Some(workload)), declared)
        }
        Ok(AddressOwner::NotKnown) => match worker.shared.ranges.kind(ip) {
            AddressKind::Vip => Kind::Nowhere(Refusal::UnknownAddress(ip)),
            AddressKind::Workload => direct(worker, to),
            AddressKind::HostGateway | AddressKind::Outside => {
                Kind::Outside(worker.upstreams.of_target(DialTarget::Outside(to), None))
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
    let here = worker.shared.config.addresses.contains(to.ip());
    let target = if here { DialTarget::Own(to) } else { DialTarget::Workload(to) };
    Kind::Outside(worker.upstreams.of_target(target, None))
}

/// One port of a service under the rules of now.
async fn port_plan(
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

fn tcp_backend(worker: &Worker, plan: &PortPlan) -> Result<Backend, Refused> {
    match plan.pick_tcp(worker.random()) {
        Ok(cluster) => Ok(Backend::Cluster(Arc::clone(cluster))),
        Err(reason) => Err(Refusal::DanglingTarget(reason.to_owned()).into()),
    }
}

/// Where the rule leads that a client of TLS meets by the name it asks for; `None` where it meets none.
fn by_sni(
    worker: &Worker,
    plan: &PortPlan,
    name: Option<&str>,
) -> Result<Option<Backend>, Refused> {
    match plan.pick_sni(name, worker.random()) {
        None => Ok(None),
        Some((_, Ok(cluster))) => Ok(Some(Backend::Cluster(Arc::clone(cluster)))),
        Some((met, Err(reason))) => Err(Refused {
            refusal: Refusal::DanglingTarget(reason.to_owned()),
            rule: Some(met.rule.provenance.clone()),
        }),
    }
}

/// What the first rule that matches says.
fn by_rule(
    worker: &Worker,
    plan: &PortPlan,
    service: &ServiceName,
    request: &dyn RequestView,
) -> Result<Route, Refusal> {
    let Selection { selected, path } = plan.http.select(request);
    let rule = match selected {
        Selected::Rule(rule) => rule,
        Selected::Default => return Ok(Route::to(Backend::Cluster(Arc::clone(&plan.default)))),
        Selected::NoRoute => return Err(Refusal::NoRoute(service.clone())),
        Selected::BadPath(fault) => return Err(Refusal::BadRequest(fault.as_str().into())),
    };
    let (compiled, copies) = (&rule.compiled, &rule.mirrors);
    let fault = (compiled.rule.fault.as_ref())
        .map(|fault| fault::decide(fault, worker.random_share(), worker.random_share()))
        .filter(|plan| *plan != FaultPlan::default());
    let (position, picked) = rule.pick(worker.random());
    let onward = match picked {
        Ok(cluster) => Ok(Onward::To(Backend::Cluster(Arc::clone(cluster)))),
        Err(reason) => Err(Refusal::DanglingTarget(reason.to_owned())),
    };
    let rule = Some(Arc::clone(compiled));
    let grpc = compiled.does.retries.is_some() && is_grpc(request);
    let mirrors = picked_mirrors(worker, copies);
    let route = Route { onward, fault, rule, path, changes: None, grpc, mirrors };
    Ok(match compiled.does.is_plain() {
        true => route,
        false => changed(route, compiled, request, position),
    })
}

/// Who of the rule's mirrors gets a copy of this request.
fn picked_mirrors(worker: &Worker, mirrors: &[(Arc<Cluster>, f64)]) -> Vec<Arc<Cluster>> {
    let hit = |percent: f64| worker.random_share() * 100.0 < percent;
    let picked = mirrors.iter().filter(|(_, percent)| hit(*percent));
    picked.map(|(cluster, _)| Arc::clone(cluster)).collect()
}

fn is_grpc(request: &dyn RequestView) -> bool {
    request.any_header("content-type", &mut |kind| kind.starts_with("application/grpc"))
}

/// The route with what the rule does besides choosing where the request goes.
fn changed(
    route: Route,
    compiled: &CompiledRule,
    request: &dyn RequestView,
    position: Option<usize>,
) -> Route {
    let (does, matcher) = (&compiled.does, &compiled.matcher);
    let path = rule::canonical_path(request);
    let (mut changes, preflight) = does.changes(matcher, request, &path, position);
    let own = does.answer(matcher, request, &path).or(preflight);
    Route {
        onward: own.map_or(route.onward, |answer| Ok(Onward::Answer(Reply::given(answer)))),
        path: changes.path.take().or(route.path),
        changes: Some(Box::new(changes)),
        ..route
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
