//! The side of connections from the workload: whose address was dialled, which rules hold there, and
//! under whose name it is counted. The original destination decides, once, at accept.

use std::{
    cell::RefCell,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use heddle_logic::{
    ConnectionFault, FaultPlan, HeaderEdit, Selected, Selection, fault,
    route::RequestView,
    sticky::{self, Key},
};
use heddle_model::{
    Protocol, ServiceName,
    discovery::{HashKey, Method},
};

use crate::{
    compared::Mirrored,
    deadline,
    dial::Early,
    direction::Direction,
    facts::Ends,
    limits::OUTBOUND_IDLE_TIMEOUT,
    metrics::{Edge, Reporter, ServiceLabels, VerdictCounters},
    outside::{self, Called, OutsideCall, host_label, port_plan},
    ports::PortState,
    protocol::{HelloUse, PortHints},
    ranges::AddressKind,
    record::MetricSeries,
    refusal::{Refusal, Refused},
    reply::Reply,
    series::SeriesSet,
    side::{ByName, Onward, Route, Side},
    snapshot::{ABSENT_STATUS, Cluster, CompiledRule, MirrorPlan, PortPlan, now},
    upstream::{Backend, DialTarget, Upstream},
    worker::Worker,
};

/// Where a connection goes, and the hash by which a rule chooses one of several endpoints.
type Balanced = (Backend, Option<u64>);

/// Where a connection of the workload goes.
#[derive(Debug)]
pub(crate) struct Outbound {
    worker: Rc<Worker>,
    kind: Kind,
    /// What was dialled.
    address: SocketAddr,
    /// Who connected, where somebody wants to know.
    remote: Option<SocketAddr>,
    /// What is kept about the port it goes to.
    port: Rc<PortState>,
    /// Outside: series of the host named last on this connection.
    by_host: RefCell<Option<(ServiceLabels, Rc<SeriesSet>)>>,
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
        let (worker, by_host) = (Rc::clone(worker), RefCell::default());
        Self { worker, kind, address: to, remote: None, port, by_host }
    }

    /// Who connected from here.
    pub(crate) fn by(self, remote: Option<SocketAddr>) -> Self {
        Self { remote, ..self }
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

    /// Is it an address that nobody but a mesh knows?
    fn address_is_virtual(&self) -> bool {
        self.worker.shared.ranges.kind(self.address.ip()) == AddressKind::Vip
    }

    /// Where a client goes that asks for `name` at an address that nobody knows.
    async fn named(&self, name: &str) -> Result<ByName, Refused> {
        let policy = self.worker.shared.snapshot.load().outbound();
        if !policy.is_some_and(|policy| policy.outbound.names_outside) {
            return Ok(ByName::Anywhere);
        }
        let found = Box::pin(outside::named(&self.worker.shared, name, self.address.port())).await;
        let Some((_, plan)) = found else { return Ok(ByName::Anywhere) };
        let plan = plan?;
        let (backend, hash) = match self.by_sni(&plan, Some(name))? {
            Some(balanced) => balanced,
            None if plan.only_ruled => return Ok(ByName::Anywhere),
            None => self.tcp_backend(&plan)?,
        };
        let backend = Box::pin(self.looked_up(backend, Some(name))).await?;
        Ok(ByName::To(backend, hash))
    }

    /// Where the rule leads that a client of TLS meets by the name it asks for; `None` where it meets none.
    fn by_sni(&self, plan: &PortPlan, name: Option<&str>) -> Result<Option<Balanced>, Refused> {
        let Some((met, picked)) = plan.pick_sni(name, self.worker.random()) else {
            return Ok(None);
        };
        let rule = Some(met.rule.provenance.clone());
        match picked {
            Ok(cluster) => Ok(Some(self.connected(self.backend(cluster)?))),
            Err(reason) => Err(Refused {
                refusal: Refusal::DanglingTarget(reason.to_owned(), ABSENT_STATUS),
                rule,
            }),
        }
    }

    /// Where the port's bytes go that are no requests.
    fn tcp_backend(&self, plan: &PortPlan) -> Result<Balanced, Refused> {
        match plan.pick_tcp(self.worker.random()) {
            Ok(cluster) => Ok(self.connected(self.backend(cluster)?)),
            Err(reason) => Err(Refusal::DanglingTarget(reason.to_owned(), ABSENT_STATUS).into()),
        }
    }

    /// The route, with what a rule wants to know to choose one of its endpoints.
    #[inline]
    fn balanced(&self, route: Route, request: &dyn RequestView) -> Route {
        match &route.onward {
            Ok(Onward::To(Backend::Cluster(cluster))) if cluster.balancer.is_some() => {
                let cluster = Arc::clone(cluster);
                self.by_balancer(route, &cluster, request)
            }
            _ => route,
        }
    }

    #[cold]
    fn by_balancer(&self, mut route: Route, cluster: &Cluster, request: &dyn RequestView) -> Route {
        let method = cluster.balancer.as_ref().map(|balancer| &balancer.rule().method);
        match method {
            Some(Method::Passthrough) => {
                if let Some(upstream) = self.as_asked(cluster) {
                    route.onward = Ok(Onward::To(Backend::Upstream(upstream)));
                }
            }
            Some(Method::Hash(policy)) => {
                let (source, random) = (self.source(), self.worker.random());
                let key = sticky::key(&policy.key, request, source, random);
                route.hash = key.hash();
                if let Key::New(_, cookie) = key {
                    let edit = HeaderEdit::Add("set-cookie".into(), cookie.into());
                    route.changes.get_or_insert_default().answer.push(edit);
                }
            }
            Some(Method::LeastRequest | Method::RoundRobin | Method::Random) | None => {}
        }
        route
    }

    /// Where a connection that carries bytes goes within a cluster.
    fn connected(&self, backend: Backend) -> Balanced {
        let Backend::Cluster(cluster) = backend else { return (backend, None) };
        let method = cluster.balancer.as_ref().map(|balancer| &balancer.rule().method);
        let hash = match method {
            Some(Method::Passthrough) => {
                if let Some(upstream) = self.as_asked(&cluster) {
                    return (Backend::Upstream(upstream), None);
                }
                None
            }
            Some(Method::Hash(policy)) if policy.key == HashKey::SourceIp => {
                Some(sticky::source_key(self.source()))
            }
            _ => None,
        };
        (Backend::Cluster(cluster), hash)
    }

    /// The very address that was asked for, as the cluster's endpoints are reached; `None` for one that nobody
    /// but a mesh knows.
    fn as_asked(&self, cluster: &Cluster) -> Option<Rc<Upstream>> {
        let (target, tls) = (DialTarget::Workload(self.address), cluster.tls.as_ref());
        let upstream = || self.worker.upstreams.of_target_by(target, None, tls);
        (!self.address_is_virtual()).then(upstream)
    }

    /// Who connects from here: this workload and nobody else.
    fn source(&self) -> IpAddr {
        self.worker.shared.config.addresses.first()
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
    fn by_host(&self, authority: Option<&str>) -> MetricSeries {
        let host = authority.map(host_label);
        let labels = match outside::registry_only(&self.worker.shared) {
            None => ServiceLabels::passthrough(host.as_deref()),
            Some(_) => ServiceLabels::black_hole(host.as_deref()),
        };
        let mut by_host = self.by_host.borrow_mut();
        let known = by_host.as_ref().filter(|(one, _)| *one == labels);
        let set = known.map_or_else(
            || {
                let service = labels.clone();
                let edge = Edge { reporter: Reporter::Source, peer: None, service };
                Rc::new(SeriesSet::new(edge, self.worker.index))
            },
            |(_, set)| Rc::clone(set),
        );
        *by_host = Some((labels, Rc::clone(&set)));
        MetricSeries::Edge(set)
    }

    /// Where a cluster's calls go: to an endpoint of it, or where it has none, as the client asked.
    ///
    /// # Errors
    /// [`Refusal::DanglingTarget`] for a virtual address, where nobody is.
    fn backend(&self, cluster: &Arc<Cluster>) -> Result<Backend, Refusal> {
        if !outside::goes_as_asked(&self.worker.shared, cluster, self.address)? {
            return Ok(Backend::Cluster(Arc::clone(cluster)));
        }
        Ok(Backend::AsAsked(self.at(self.address, cluster), Arc::clone(cluster)))
    }

    /// An address outside as the calls of a cluster reach it.
    fn at(&self, address: SocketAddr, cluster: &Cluster) -> Rc<Upstream> {
        match (&self.kind, &cluster.tls) {
            (Kind::Outside(upstream), None) if address == self.address => Rc::clone(upstream),
            (_, tls) => {
                let target = DialTarget::Outside(address);
                self.worker.upstreams.of_target_by(target, None, tls.as_ref())
            }
        }
    }

    /// Where calls go that are looked up by the host they name (`resolution: DYNAMIC_DNS`); others stay as they
    /// are.
    async fn looked_up(&self, backend: Backend, host: Option<&str>) -> Result<Backend, Refusal> {
        let Backend::AsAsked(_, cluster) = &backend else { return Ok(backend) };
        let address = match (cluster.outside.by_name, host) {
            (Some(port), Some(host)) => outside::at_host(&self.worker.shared, host, port).await?,
            (Some(_), None) if self.address_is_virtual() => {
                let who = format!("a call of {} that names no host", cluster.key.service);
                return Err(Refusal::NotResolved(who));
            }
            (Some(_), None) | (None, _) => return Ok(backend),
        };
        Ok(Backend::AsAsked(self.at(address, cluster), Arc::clone(cluster)))
    }

    /// The same of a request.
    async fn routed(&self, mut route: Route, request: &dyn RequestView) -> Route {
        if let Ok(Onward::To(backend @ Backend::AsAsked(_, cluster))) = &route.onward
            && cluster.outside.by_name.is_some()
        {
            let (backend, host) = (backend.clone(), host_label(request.authority()));
            let found = Box::pin(self.looked_up(backend, Some(&host))).await;
            route.onward = found.map(Onward::To);
        }
        route
    }

    /// Where a request to a service goes, by its rules.
    fn of_service(
        &self,
        plan: &PortPlan,
        service: &ServiceName,
        request: &dyn RequestView,
    ) -> Result<Route, Refusal> {
        let mut route = match plan.http.rules().is_empty() {
            true => Route::to(self.backend(&plan.default)?),
            false => self.by_rule(plan, service, request)?,
        };
        if plan.faults.are_for_requests() {
            let own = plan.faults.of_request(request, now(), || self.worker.random_share());
            route.fault = own.or(route.fault);
        }
        Ok(self.balanced(route, request))
    }

    /// What the first rule that matches says.
    fn by_rule(
        &self,
        plan: &PortPlan,
        service: &ServiceName,
        request: &dyn RequestView,
    ) -> Result<Route, Refusal> {
        let worker = &self.worker;
        let Selection { selected, path } = plan.http.select(request);
        let rule = match selected {
            Selected::Rule(rule) => rule,
            Selected::Default => return Ok(Route::to(self.backend(&plan.default)?)),
            Selected::NoRoute => return Err(Refusal::NoRoute(service.clone())),
            Selected::BadPath(fault) => return Err(Refusal::BadRequest(fault.as_str().into())),
        };
        let (compiled, copies) = (&rule.compiled, &rule.mirrors);
        let fault = compiled
            .fault_of_now()
            .map(|fault| fault::decide(fault, worker.random_share(), worker.random_share()))
            .filter(FaultPlan::does_anything);
        let (position, picked) = rule.pick(worker.random());
        let onward = match picked {
            Ok(cluster) => self.backend(cluster).map(Onward::To),
            Err(reason) => {
                Err(Refusal::DanglingTarget(reason.to_owned(), compiled.absent_status()))
            }
        };
        compiled
            .counts
            .get_or_init(|| worker.shared.metrics.rule(service, &compiled.rule.provenance.0));
        let rule = Some(Arc::clone(compiled));
        let grpc = compiled.does.retries.is_some() && is_grpc(request);
        let limit = compiled.rule.traffic.timeout.map(|limit| deadline::within(limit, request));
        let mirrors = picked_mirrors(worker, copies);
        let route =
            Route { onward, fault, rule, path, changes: None, limit, grpc, mirrors, hash: None };
        Ok(match compiled.does.is_plain() {
            true => route,
            false => changed(route, compiled, request, position),
        })
    }

    /// Where a request to an address outside goes: to the service that its host names, if that is one
    /// which has this port; else there, if that is allowed.
    async fn of_outside(
        &self,
        upstream: &Rc<Upstream>,
        request: &dyn RequestView,
    ) -> Result<Route, Refused> {
        let (authority, port) = (request.authority(), self.address.port());
        match outside::to_outside(&self.worker.shared, authority, port).await? {
            OutsideCall::Anywhere => Ok(Route::to(Backend::Upstream(Rc::clone(upstream)))),
            OutsideCall::Named(service, plan) => {
                let route = self.of_service(&plan, &service, request)?;
                Ok(self.routed(route, request).await)
            }
            OutsideCall::Refused(rule) => {
                let what = format!("{} ({})", host_label(authority), self.address);
                Err(outside::not_in_registry(what, &rule))
            }
        }
    }
}

impl Side for Outbound {
    const DIRECTION: Direction = Direction::Outbound;
    const IDLE_TIMEOUT: Duration = OUTBOUND_IDLE_TIMEOUT;

    fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    fn ends(&self) -> Ends {
        Ends { remote: self.remote, called: self.address }
    }

    fn verdicts(&self) -> &VerdictCounters {
        &self.port.verdicts
    }

    async fn hints(&self) -> PortHints {
        let by_address = (Protocol::Undeclared, false, HelloUse::Nothing);
        let (declared, http_rules, hello) = match &self.kind {
            Kind::Service(service, port) => {
                match port_plan(&self.worker.shared, service, *port).await {
                    Ok(plan) if plan.sni.is_empty() && !plan.leads_by_name() => {
                        (plan.protocol, plan.is_http_only(), HelloUse::Nothing)
                    }
                    Ok(plan) => (plan.protocol, plan.is_http_only(), HelloUse::Rules),
                    Err(_) => by_address,
                }
            }
            Kind::Workload(_, declared) => (*declared, false, HelloUse::Nothing),
            Kind::Outside(_) => (Protocol::Undeclared, false, HelloUse::Names),
            Kind::Nowhere(_) => by_address,
        };
        // Where the address alone is no reason to dial, its host may be.
        let by_host = matches!(self.kind, Kind::Outside(_))
            && outside::registry_only(&self.worker.shared).is_some();
        PortHints::of(declared, by_host || self.speaks_http(), http_rules).with_hello(hello)
    }

    async fn by_name(&self, name: Option<&str>) -> Result<ByName, Refused> {
        match &self.kind {
            Kind::Service(service, port) => {
                let plan = port_plan(&self.worker.shared, service, *port).await?;
                Ok(match self.by_sni(&plan, name)? {
                    Some((backend, hash)) => ByName::To(backend, hash),
                    None if plan.is_http_only() => ByName::Foreign,
                    None if plan.leads_by_name() => {
                        let (backend, hash) = self.tcp_backend(&plan)?;
                        ByName::To(Box::pin(self.looked_up(backend, name)).await?, hash)
                    }
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
                let (backend, hash) =
                    self.tcp_backend(&*port_plan(&worker.shared, service, *port).await?)?;
                let backend = self.looked_up(backend, None).await?;
                return worker.dial_any(&backend, hash).await;
            }
            Kind::Outside(upstream) => match outside::registry_only(&worker.shared) {
                None => Backend::Upstream(Rc::clone(upstream)),
                Some(rule) => return Err(outside::not_in_registry(self.address, &rule)),
            },
            Kind::Workload(upstream, _) => Backend::Upstream(Rc::clone(upstream)),
            Kind::Nowhere(refusal) => return Err(refusal.clone().into()),
        };
        worker.dial_any(&backend, None).await
    }

    fn connection_fault(&self) -> Option<ConnectionFault> {
        let Kind::Service(service, port) = &self.kind else { return None };
        let snapshot = self.worker.shared.snapshot.load();
        let plan = snapshot.destination(service)?.port(*port)?;
        let faults = Some(&plan.faults).filter(|faults| faults.are_for_connections())?;
        faults.of_connection(now(), || self.worker.random_share())
    }

    async fn route(&self, request: &dyn RequestView) -> Result<Route, Refused> {
        let (service, port) = match &self.kind {
            Kind::Service(service, port) => (service, *port),
            Kind::Workload(upstream, _) => {
                return Ok(Route::to(Backend::Upstream(Rc::clone(upstream))));
            }
            Kind::Outside(upstream) => return self.of_outside(upstream, request).await,
            Kind::Nowhere(refusal) => return Err(refusal.clone().into()),
        };
        let plan = port_plan(&self.worker.shared, service, port).await?;
        let route = self.of_service(&plan, service, request)?;
        Ok(self.routed(route, request).await)
    }

    fn request_series(&self, request: Option<&dyn RequestView>) -> MetricSeries {
        match (&self.kind, request) {
            (Kind::Outside(_), Some(request)) => self.by_host(Some(request.authority())),
            _ => MetricSeries::Edge(Rc::clone(&self.port.unpicked)),
        }
    }

    fn connection_series(&self, upstream: Option<&Rc<Upstream>>) -> MetricSeries {
        let called = match &self.kind {
            Kind::Service(service, _) => Some(&**service),
            Kind::Workload(..) | Kind::Outside(_) | Kind::Nowhere(_) => None,
        };
        let own = upstream.and_then(|upstream| upstream.own_series(called, self.worker.index));
        if matches!(self.kind, Kind::Outside(_))
            && outside::registry_only(&self.worker.shared).is_some()
        {
            return self.by_host(None);
        }
        MetricSeries::Edge(own.unwrap_or_else(|| Rc::clone(&self.port.unpicked)))
    }

    fn named_series(&self, upstream: Option<&Rc<Upstream>>, name: Option<&str>) -> MetricSeries {
        let is_outside = upstream.is_none_or(|upstream| upstream.workload().is_none());
        match (&self.kind, name) {
            (Kind::Outside(_), Some(name)) if is_outside => self.by_host(Some(name)),
            _ => self.connection_series(upstream),
        }
    }

    /// Outside it is the host that a request names.
    fn operation(&self, request: &dyn RequestView) -> String {
        match &self.kind {
            Kind::Outside(_) => {
                format!("{}:{}/*", host_label(request.authority()), self.address.port())
            }
            Kind::Service(..) | Kind::Workload(..) | Kind::Nowhere(_) => {
                format!("{}/*", self.default_host())
            }
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
    match outside::called(&worker.shared, to).await {
        Called::Service(service) => Kind::Service(service, to.port()),
        Called::Workload(workload) => {
            let declared = workload.ports.get(&to.port()).copied().unwrap_or_default();
            let own = workload.id == worker.shared.config.workload;
            let target = if own { DialTarget::Own(to) } else { DialTarget::Workload(to) };
            Kind::Workload(worker.upstreams.of_target(target, Some(workload)), declared)
        }
        Called::Unexplained => direct(worker, to),
        Called::Outside => Kind::Outside(worker.upstreams.of_target(DialTarget::Outside(to), None)),
        Called::Nowhere(refusal) => Kind::Nowhere(refusal),
    }
}

/// A workload's address that nobody explained: connected to as without a mesh, measured as outside.
fn direct(worker: &Worker, to: SocketAddr) -> Kind {
    let here = worker.shared.config.addresses.contains(to.ip());
    let target = if here { DialTarget::Own(to) } else { DialTarget::Workload(to) };
    Kind::Outside(worker.upstreams.of_target(target, None))
}

/// Who of the rule's mirrors gets a copy of this request.
fn picked_mirrors(worker: &Worker, mirrors: &[MirrorPlan]) -> Vec<Mirrored> {
    let hit = |percent: f64| worker.random_share() * 100.0 < percent;
    let picked = mirrors.iter().filter(|mirror| hit(mirror.percent));
    picked
        .map(|mirror| Mirrored { to: Arc::clone(&mirror.cluster), compare: mirror.compare })
        .collect()
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
    let (mut changes, own) = compiled.effects(request, position);
    Route {
        onward: own.map_or(route.onward, |answer| Ok(Onward::Answer(Reply::given(answer)))),
        path: changes.path.take().or(route.path),
        changes: Some(Box::new(changes)),
        ..route
    }
}
