//! What would become of a call, and why: asked by a person, answered from the rules in force by the code that calls
//! go through. Shares are told, no dice are rolled; nothing is sent, counted or changed.
//!
//! [`explain`] needs no live sidecar: with a [`Shared`] whose snapshot holds what the control plane would send, it
//! says the same, but for what only a live one knows (who is out for errors).

mod imagined;
mod in_force;
mod target;
mod view;
mod words;

use std::net::{IpAddr, SocketAddr};

use heddle_logic::{Rule as _, Selected, Selection, route::RequestView};
use heddle_model::{
    Protocol, ServiceName,
    discovery::{PortFault, Provenance, Weighted},
};
use heddle_wire::local::sidecar_api::{
    Callee, ExplainRequest, Explanation, InjectedFault, MetRule, OwnReply, TRIED_MAX, ToldTarget,
    TriedRule,
};

use self::imagined::Imagined;
pub use self::{
    in_force::{in_force, policies},
    view::as_told,
};
use crate::{
    Shared, deadline,
    limits::HOST_LABEL_BYTES,
    lookup::LookupError,
    outside::{self, Called, OutsideCall, host_label, port_plan},
    refusal::{Refusal, Refused},
    snapshot::{ABSENT_STATUS, Cluster, CompiledRule, HttpRulePlan, PortPlan, TargetPlan, now},
};

/// An address for what has none that is known here.
const NO_ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

/// What host and port mean.
enum Means {
    Called(Called, SocketAddr),
    /// A service without an address of its own: its name stands for those of its endpoints.
    Headless(ServiceName),
    /// A name that nobody in the mesh has.
    NotOurs,
    Nowhere(Refusal),
}

/// What would become of a call of this workload's.
pub async fn explain(shared: &Shared, asked: &ExplainRequest) -> Explanation {
    let generation = shared.snapshot.load().generation;
    let mut told = Explanation::by(shared.config.workload.clone(), generation);
    told.connected = !shared.lookup.is_down();
    told.callee.port = asked.port;
    let host = asked.host.trim_end_matches('.').to_ascii_lowercase();
    let means = means(shared, &host, asked.port).await;
    let at = match &means {
        Means::Called(_, at) => *at,
        _ => SocketAddr::new(NO_ADDRESS, asked.port),
    };
    let telling = Telling { shared, asked, host: &host, at, told };
    telling.of(means).await
}

/// Can a client have sent that?
///
/// # Errors
/// What is no part of a request, and what would be.
pub fn check(asked: &ExplainRequest) -> Result<(), String> {
    let is_token = |text: &str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        !text.is_empty() && text.bytes().all(fits)
    };
    let is_host = |text: &str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.:*".contains(&b);
        !text.is_empty() && text.len() <= HOST_LABEL_BYTES && text.bytes().all(fits)
    };
    if !is_host(&asked.host) {
        return Err(format!("{:?} is neither a name nor an address", asked.host));
    }
    if let Some(method) = asked.method.as_deref().filter(|method| !is_token(method)) {
        return Err(format!("{method:?} is no method: use a word such as GET"));
    }
    if let Some(path) = asked.path.as_deref()
        && (!path.starts_with('/') || path.bytes().any(|b| b <= b' ' || b == 0x7f))
    {
        return Err(format!("{path:?} is no path: it begins with a slash, and blanks are %20"));
    }
    let header = |name: &str| is_token(name.strip_prefix(':').unwrap_or(name));
    if let Some((name, _)) = asked.headers.iter().find(|(name, _)| !header(name)) {
        return Err(format!("{name:?} is no name of a header"));
    }
    let broken = |value: &str| value.bytes().any(|b| b < b' ' && b != b'\t' || b == 0x7f);
    if let Some((name, _)) = asked.headers.iter().find(|(_, value)| broken(value)) {
        return Err(format!("the value of header {name} has characters that no header has"));
    }
    match asked.sni.as_deref() {
        Some(name) if !is_host(name) => Err(format!("{name:?} is no name of a server")),
        _ => Ok(()),
    }
}

async fn means(shared: &Shared, host: &str, port: u16) -> Means {
    if let Ok(ip) = host.parse::<IpAddr>() {
        let to = SocketAddr::new(ip.to_canonical(), port);
        return Means::Called(outside::called(shared, to).await, to);
    }
    let answer = match shared.lookup.name(&shared.config.namespace, host).await {
        Ok(answer) => answer,
        Err(LookupError::NotKnown) => return Means::NotOurs,
        Err(error) => {
            return Means::Nowhere(Refusal::DiscoveryTimeout(format!("{host} ({error})")));
        }
    };
    let Some(service) = &answer.service else { return Means::NotOurs };
    match service.vips.first() {
        Some(ip) => {
            let to = SocketAddr::new(*ip, port);
            Means::Called(outside::called(shared, to).await, to)
        }
        None if service.name.is_host() => Means::NotOurs,
        None => Means::Headless(service.name.clone()),
    }
}

/// An explanation that is being put together.
struct Telling<'a> {
    shared: &'a Shared,
    asked: &'a ExplainRequest,
    host: &'a str,
    /// What is called, where that is known.
    at: SocketAddr,
    told: Explanation,
}

impl Telling<'_> {
    async fn of(mut self, means: Means) -> Explanation {
        match means {
            Means::Called(Called::Service(service), at) => self.service(&service, at).await,
            Means::Called(Called::Workload(workload), at) => {
                let declared = workload.ports.get(&at.port()).copied().unwrap_or_default();
                self.callee("workload", &format!("workload {}", workload.id), Some(at));
                self.told.callee.protocol = protocol(declared);
                self.taken_as(declared);
                let why = "it is the workload's own address: rules of services do not hold there, nor does load balancing";
                self.straight(why, &at.to_string());
            }
            Means::Called(Called::Unexplained, at) => {
                self.callee("workload", &format!("address {at}"), Some(at));
                let why = "it is an address of the mesh that the control plane has not explained: calls go there as without a mesh";
                self.straight(why, &at.to_string());
            }
            Means::Called(Called::Outside, at) => self.outside(Some(at)).await,
            Means::NotOurs => self.outside(None).await,
            Means::Headless(service) => self.headless(&service).await,
            Means::Called(Called::Nowhere(refusal), _) | Means::Nowhere(refusal) => {
                self.callee("nothing", self.host, None);
                self.refuse(&refusal.into());
            }
        }
        self.told
    }

    fn callee(&mut self, kind: &str, name: &str, at: Option<SocketAddr>) {
        self.told.callee = Callee {
            kind: kind.to_owned(),
            name: name.to_owned(),
            address: at.map(|at| at.ip().to_string()),
            ..std::mem::take(&mut self.told.callee)
        };
        self.told.callee.port = self.asked.port;
    }

    /// As what a call to a port of this protocol is taken.
    fn taken_as(&mut self, declared: Protocol) -> bool {
        let taken = match declared {
            _ if self.asked.sni.is_some() => "tls",
            Protocol::Tcp => "tcp",
            Protocol::Tls => "tls",
            Protocol::Undeclared | Protocol::Http | Protocol::Http2 | Protocol::Grpc => "http",
        };
        self.told.taken_as = taken.to_owned();
        let request = taken == "http";
        if request {
            if declared == Protocol::Undeclared {
                self.note("what the port speaks is not declared: its first bytes tell, and here they are taken for HTTP");
            }
            let request = Imagined::of(self.asked, self.host, declared);
            self.told.request = Some(request.told());
        } else if self.asked.method.is_some() || self.asked.path.is_some() {
            self.note("method, path and headers tell nothing here: no request is read on such a connection");
        }
        request
    }

    fn note(&mut self, text: &str) {
        self.told.notes.push(text.to_owned());
    }

    fn refuse(&mut self, refused: &Refused) {
        "refused".clone_into(&mut self.told.outcome);
        self.told.refusal = Some(words::refusal(refused));
        self.told.targets.clear();
    }

    /// To one address, with no rule.
    fn straight(&mut self, why: &str, to: &str) {
        if self.told.taken_as.is_empty() {
            self.taken_as(Protocol::Undeclared);
        }
        self.note(why);
        "forwarded".clone_into(&mut self.told.outcome);
        self.told.targets = vec![target::only(to, self.asked.port)];
    }

    async fn headless(&mut self, service: &ServiceName) {
        self.callee("workload", &format!("an endpoint of {}", service.fqdn()), None);
        self.told.callee.service = Some(service.clone());
        let plan = match port_plan(self.shared, service, self.asked.port).await {
            Ok(plan) => plan,
            Err(refusal) => return self.refuse(&refusal.into()),
        };
        self.told.callee.protocol = protocol(plan.protocol);
        self.taken_as(plan.protocol);
        self.note("the service is headless: its name stands for the addresses of its endpoints, the program chooses one, and rules of the service do not hold there");
        "forwarded".clone_into(&mut self.told.outcome);
        self.told.targets = vec![self.target(&plan.default, 100.0)];
    }

    async fn service(&mut self, service: &ServiceName, at: SocketAddr) {
        self.callee("service", &service.fqdn(), Some(at));
        self.told.callee.service = Some(service.clone());
        match port_plan(self.shared, service, self.asked.port).await {
            Ok(plan) => self.by_plan(service, &plan),
            Err(refusal) => {
                let rule = match &refusal {
                    Refusal::NotVisible(_, sidecar) => Some(sidecar.clone()),
                    _ => None,
                };
                self.refuse(&Refused { refusal, rule });
            }
        }
    }

    async fn outside(&mut self, at: Option<SocketAddr>) {
        let request = Imagined::of(self.asked, self.host, Protocol::Undeclared);
        let named = self.asked.sni.as_deref().unwrap_or_else(|| request.authority());
        self.callee("outside", &host_label(named), at);
        let called = match &self.asked.sni {
            Some(name) => self.by_server_name(&name.to_ascii_lowercase()).await,
            None => outside::to_outside(self.shared, named, self.asked.port).await,
        };
        match called {
            Ok(OutsideCall::Named(service, plan)) => {
                self.callee("service", &service.fqdn(), at);
                self.told.callee.service = Some(service.clone());
                self.note("the address tells nothing: which service it is, the host tells that the call names");
                self.by_plan(&service, &plan);
            }
            Ok(OutsideCall::Anywhere) => {
                let to = at.map_or_else(|| self.host.to_owned(), |at| at.to_string());
                let why =
                    "nobody in the mesh is called so: it goes outside, as it is, and no rule holds";
                self.straight(why, &to);
            }
            Ok(OutsideCall::Refused(rule)) => {
                self.taken_as(Protocol::Undeclared);
                let what = match at {
                    Some(at) => format!("{} ({at})", host_label(named)),
                    None => host_label(named),
                };
                self.refuse(&outside::not_in_registry(what, &rule));
            }
            Err(refusal) => self.refuse(&refusal.into()),
        }
    }

    /// Where a connection of TLS goes that asks for this name at an address outside.
    async fn by_server_name(&self, name: &str) -> Result<OutsideCall, Refusal> {
        let policy = self.shared.snapshot.load().outbound();
        let names = policy.is_some_and(|policy| policy.outbound.names_outside);
        if names
            && let Some((service, plan)) = outside::named(self.shared, name, self.asked.port).await
        {
            let plan = plan?;
            if !plan.only_ruled || plan.pick_sni(Some(name), 0).is_some() {
                return Ok(OutsideCall::Named(service, plan));
            }
        }
        let refused = outside::registry_only(self.shared).map(OutsideCall::Refused);
        Ok(refused.unwrap_or(OutsideCall::Anywhere))
    }

    fn by_plan(&mut self, service: &ServiceName, plan: &PortPlan) {
        self.told.callee.port_name.clone_from(&plan.name);
        self.told.callee.protocol = protocol(plan.protocol);
        "forwarded".clone_into(&mut self.told.outcome);
        if self.taken_as(plan.protocol) {
            let request = Imagined::of(self.asked, self.host, plan.protocol);
            self.request(service, plan, &request);
        } else {
            self.connection(plan);
        }
        self.all_refused();
    }

    /// A share that goes to one of a cluster's endpoints, or where it asked.
    fn target(&self, cluster: &Cluster, share: f64) -> ToldTarget {
        let mut told = target::cluster(cluster, share);
        match outside::goes_as_asked(self.shared, cluster, self.at) {
            Ok(false) => {}
            Ok(true) => {
                told.refusal = None;
                told.balancing = match cluster.outside.by_name {
                    Some(_) => "each call goes to the host that it names".to_owned(),
                    None => "each call goes to the address that it asked for".to_owned(),
                };
            }
            Err(refusal) => told.refusal = Some(words::refusal(&refusal.into())),
        }
        told
    }

    /// Shares with where each goes.
    fn targets(
        &self,
        all: &[Weighted<TargetPlan>],
        rule: Option<&Provenance>,
        absent: u16,
    ) -> Vec<ToldTarget> {
        let sum: u64 = all.iter().map(|one| u64::from(one.weight)).sum();
        let share = |weight: u32| match sum {
            0 => 0.0,
            sum => f64::from(weight) * 100.0 / sum as f64,
        };
        let told = |one: &Weighted<TargetPlan>| match one.to.get() {
            Ok(cluster) => self.target(cluster, share(one.weight)),
            Err(reason) => {
                let refusal = Refusal::DanglingTarget(reason.to_owned(), absent);
                let refused = Refused { refusal, rule: rule.cloned() };
                target::nowhere(reason, share(one.weight), &refused)
            }
        };
        let mut told: Vec<_> = all.iter().map(told).collect();
        // Who has no weight gets nothing, unless nobody has.
        if sum == 0
            && let Some(first) = told.first_mut()
        {
            first.share = 100.0;
        }
        told
    }

    fn request(&mut self, service: &ServiceName, plan: &PortPlan, request: &Imagined) {
        let own = plan.faults.met_by(request, now());
        self.told.faults = own.map(injected).collect();
        let Selection { selected, path } = plan.http.select(request);
        let rules = plan.http.rules();
        let decides = |one: &&HttpRulePlan| matches!(selected, Selected::Rule(rule) if std::ptr::eq(*one, rule));
        let before = rules.iter().position(|rule| decides(&rule)).unwrap_or(match selected {
            Selected::NoRoute => rules.len(),
            _ => 0,
        });
        let tried = rules[..before].iter().map(|rule| TriedRule {
            rule: rule.compiled.rule.provenance.0.clone(),
            because: rule.matcher().misses(request),
        });
        self.told.tried = tried.take(TRIED_MAX).collect();
        self.told.untold = before.saturating_sub(TRIED_MAX);
        let refused = |refusal: Refusal| Refused { refusal, rule: None };
        match selected {
            Selected::Default => self.told.targets = vec![self.target(&plan.default, 100.0)],
            Selected::NoRoute => self.refuse(&refused(Refusal::NoRoute(service.clone()))),
            Selected::BadPath(fault) => {
                self.refuse(&refused(Refusal::BadRequest(fault.as_str().into())));
            }
            Selected::Rule(rule) => self.by_rule(rule, request, path.as_deref()),
        }
    }

    fn by_rule(&mut self, rule: &HttpRulePlan, request: &Imagined, path: Option<&str>) {
        let compiled = &rule.compiled;
        let provenance = &compiled.rule.provenance;
        self.told.rule =
            Some(MetRule { rule: provenance.0.clone(), matches: compiled.matcher.words() });
        if let Some(fault) = compiled.fault_of_now() {
            self.told.faults.extend(words::faults(fault, provenance));
        }
        let (changes, answer) = compiled.effects(request, None);
        let sent = changes.path.as_deref().or(path);
        self.told.changes = words::changes(request, sent, &changes);
        self.told.answer_changes = changes.answer.iter().map(words::edit).collect();
        let traffic = &compiled.rule.traffic;
        let limit = traffic.timeout.map(|limit| deadline::within(limit, request));
        self.told.timeout_ms = limit.map(|limit| limit.as_secs_f64() * 1000.0);
        self.told.retries = traffic.retries.as_ref().map(words::retries);
        self.told.mirrors = rule.mirrors.iter().map(target::mirror).collect();
        if let Some(answer) = answer {
            let headers = answer.fields.iter();
            let headers = headers.map(|(name, value)| ((*name).to_owned(), value.clone()));
            "answered".clone_into(&mut self.told.outcome);
            self.told.answer = Some(OwnReply {
                status: answer.status,
                headers: headers.collect(),
                body_bytes: answer.body.len(),
            });
            return;
        }
        if let Err(reason) = rule.pick(0).1
            && rule.targets().is_empty()
        {
            let refusal = Refusal::DanglingTarget(reason.to_owned(), compiled.absent_status());
            return self.refuse(&Refused { refusal, rule: Some(provenance.clone()) });
        }
        self.told.targets =
            self.targets(rule.targets(), Some(provenance), compiled.absent_status());
        self.of_target_only(compiled, request);
    }

    /// What only some of a rule's targets change.
    fn of_target_only(&mut self, compiled: &CompiledRule, request: &Imagined) {
        if compiled.does.is_plain() {
            return;
        }
        let common = self.told.changes.clone();
        for (at, target) in self.told.targets.iter_mut().enumerate() {
            let (changes, _) = compiled.effects(request, Some(at));
            let sent = changes.path.as_deref();
            let own = words::changes(request, sent, &changes);
            target.changes = own.into_iter().filter(|one| !common.contains(one)).collect();
        }
    }

    /// Where every share is refused in the same way, the call is.
    fn all_refused(&mut self) {
        let with_share = || self.told.targets.iter().filter(|target| target.share > 0.0);
        let first = with_share().next().and_then(|target| target.refusal.clone());
        if let Some(first) = first
            && with_share().all(|target| target.refusal.as_ref() == Some(&first))
        {
            "refused".clone_into(&mut self.told.outcome);
            self.told.refusal = Some(first);
        }
    }

    fn connection(&mut self, plan: &PortPlan) {
        self.told.faults = plan.faults.of_connections(now()).map(injected).collect();
        let asked = self.asked.sni.as_deref();
        let name = asked.map(str::to_ascii_lowercase);
        let is_tls = self.told.taken_as == "tls";
        let met = is_tls.then(|| plan.pick_sni(name.as_deref(), 0)).flatten();
        if let Some((sni, _)) = met {
            let rule = &sni.rule.provenance;
            let names = sni.rule.names.iter().map(|name| vec![format!("server name is {name:?}")]);
            self.told.rule = Some(MetRule { rule: rule.0.clone(), matches: names.collect() });
            self.told.targets = self.targets(&sni.targets, Some(rule), ABSENT_STATUS);
            return;
        }
        if plan.is_http_only() {
            return self.refuse(
                &Refusal::BadRequest(
                    "rules for HTTP hold on this port, and bytes that are no HTTP meet none".into(),
                )
                .into(),
            );
        }
        if is_tls && asked.is_none() && !plan.sni.is_empty() {
            self.note("rules by the name in the ClientHello hold here: --sni says which name is asked for");
        }
        self.told.targets = match plan.tcp.is_empty() {
            true => vec![self.target(&plan.default, 100.0)],
            false => self.targets(&plan.tcp, None, ABSENT_STATUS),
        };
    }
}

/// What a protocol is called; nothing where none is declared.
fn protocol(declared: Protocol) -> String {
    match declared {
        Protocol::Undeclared => String::new(),
        declared => declared.as_str().to_owned(),
    }
}

fn injected(fault: &PortFault) -> InjectedFault {
    InjectedFault {
        rule: fault.provenance.0.clone(),
        what: words::injection(fault.does),
        percent: fault.percent,
        until: fault.expires,
    }
}

#[cfg(test)]
mod tests;
