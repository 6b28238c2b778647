//! Sends finished spans and records of access logs on to those who take them, from thread 0. For each receiver
//! ([`sink`]) there is a bounded queue ([`queue`]) and one connection that is used again ([`link`]); one that hangs,
//! refuses or lies costs what is its own and nothing else. Its connections are the sidecar's own: they escape the redirection, and nobody traces them.

mod link;
mod queue;
mod sink;
#[cfg(test)]
mod tests;

use std::{
    cell::Cell,
    future::Future,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use heddle_model::{
    ServiceName,
    discovery::{Collector, WorkloadInfo},
};
use heddle_runtime::{
    clock, net,
    task::spawn_contained,
    tls::{self, Asks},
};
use heddle_wire::{local::proxy_config::ProxyConfig, trace::span::Origin};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
};

use self::{
    link::{Link, SendError},
    queue::Queue,
    sink::Sink,
};
use crate::{
    Shared, dns,
    limits::{SPAN_RECEIVERS, SPANS_LAST, SPANS_RETRY, SPANS_TRIES},
    metrics::{ExportResult, Metrics},
    ranges::AddressKind,
    spans::Finished,
};

/// Whose namespace services of providers are named from.
const ROOT_NAMESPACE: &str = "istio-system";
/// How long workers hand over before it is looked what.
const HANDED_OVER: Duration = Duration::from_millis(10);
/// Pause between two warnings about one receiver.
const WARNINGS_APART: Duration = Duration::from_secs(60);

/// How receivers are connected to.
pub(crate) trait Reach: 'static {
    /// A connection to a receiver.
    fn connect(&self, to: &Collector) -> impl Future<Output = Result<TcpStream, String>>;
}

/// The ways that a sidecar has.
pub(crate) struct Ways(pub(crate) Arc<Shared>);

impl Reach for Ways {
    async fn connect(&self, to: &Collector) -> Result<TcpStream, String> {
        self.connect_to(&to.host, to.port).await
    }
}

impl Ways {
    /// A connection to this name or address, past the mesh's rules.
    pub(crate) async fn connect_to(&self, host: &str, port: u16) -> Result<TcpStream, String> {
        let shared = &self.0;
        let mut failed = format!("{host} has no address");
        for to in self.addresses(host, port).await? {
            let connected = match shared.ranges.kind(to.ip()) {
                AddressKind::Workload => {
                    net::connect_tcp(to, shared.mark()).await.map_err(|error| error.to_string())
                }
                AddressKind::Vip | AddressKind::HostGateway | AddressKind::Outside => {
                    shared.broker.connect(to).await.map_err(|error| error.to_string())
                }
            };
            match connected {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = format!("{to}: {error}"),
            }
        }
        Err(failed)
    }

    /// Where a receiver is: an address, a service, or a name outside.
    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        let shared = &self.0;
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        // A single label is the machine's own to explain.
        let service = ServiceName::resolve(host, ROOT_NAMESPACE).ok();
        let service = service.filter(|_| host.contains('.'));
        let known_outside = shared.config.is_named_outside();
        if let Some(service) = service.as_ref().filter(|_| !known_outside) {
            let plan = shared.lookup.destination(service).await.ok();
            let plan = plan.as_ref().and_then(|plan| plan.port(port));
            let endpoints = plan.map_or(&[][..], |plan| &plan.default.endpoints);
            if !endpoints.is_empty() {
                return Ok(endpoints.iter().map(|one| one.address()).collect());
            }
        }
        // The cluster's resolver knows whole names.
        let whole = service.filter(|_| known_outside).map(|service| service.to_string());
        let found = dns::addresses(shared, whole.as_deref().unwrap_or(host)).await?;
        Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }
}

/// Who the workload is to receivers of its spans.
pub(crate) fn origin(config: &ProxyConfig, own: &WorkloadInfo) -> Origin {
    let mut attributes = vec![
        ("service.version", own.version.clone()),
        ("service.namespace", own.namespace.clone()),
        ("k8s.namespace.name", own.namespace.clone()),
        ("service.instance.id", own.id.0.clone()),
        ("heddle.mesh", config.mesh.clone()),
        ("heddle.workload", own.name.clone()),
    ];
    attributes.retain(|(_, value)| !value.is_empty());
    Origin {
        service: format!("{}.{}", own.canonical_name(), own.namespace),
        address: Some(config.addresses.first()),
        attributes,
    }
}

/// Takes what the workers hand over, until `end` asks it to send what waits; whoever asked is told when that is
/// done, or has taken too long.
pub(crate) async fn run<R: Reach, S: Sink>(
    reach: R,
    (origin, metrics): (Origin, Arc<Metrics>),
    mut finished: mpsc::Receiver<Finished<S::Item, S>>,
    mut end: mpsc::Receiver<oneshot::Sender<()>>,
) {
    let common = Rc::new(Common { reach, origin, metrics, ending: Cell::new(false) });
    let mut outlets = Vec::new();
    loop {
        let told = tokio::select! {
            biased;
            // First: what is handed over may never cease.
            told = end.recv() => told,
            one = finished.recv() => match one {
                Some(one) => {
                    take(&common, &mut outlets, one);
                    take_waiting(&common, &mut outlets, &mut finished);
                    // Workers that hand over meanwhile have nobody to wake.
                    clock::sleep(HANDED_OVER).await;
                    continue;
                }
                None => return,
            },
        };
        let Some(told) = told else { return };
        take_waiting(&common, &mut outlets, &mut finished);
        common.ending.set(true);
        outlets.iter().for_each(|(_, queue): &Outlet<S>| queue.hurry());
        let emptied = async {
            for (_, queue) in &outlets {
                queue.emptied().await;
            }
        };
        let _in_time = clock::within(SPANS_LAST, emptied).await;
        // Whoever asked may be gone.
        let _told = told.send(());
    }
}

/// What all receivers have in common.
struct Common<R> {
    reach: R,
    origin: Origin,
    metrics: Arc<Metrics>,
    /// Nobody waits any more for what may still come.
    ending: Cell<bool>,
}

/// A receiver, and what waits for it.
type Outlet<S> = (Arc<S>, Rc<Queue<<S as Sink>::Item>>);

impl<R> Common<R> {
    /// So many ended so.
    fn count<S: Sink>(&self, result: ExportResult, count: usize) {
        S::counts(&self.metrics).add(result, count);
        if result != ExportResult::Sent {
            S::lost(&self.metrics, count);
        }
    }
}

/// Takes what has been handed over, and not what is handed over meanwhile.
fn take_waiting<R: Reach, S: Sink>(
    common: &Rc<Common<R>>,
    outlets: &mut Vec<Outlet<S>>,
    finished: &mut mpsc::Receiver<Finished<S::Item, S>>,
) {
    for _ in 0..finished.len() {
        let Ok(one) = finished.try_recv() else { return };
        take(common, outlets, one);
    }
}

fn take<R: Reach, S: Sink>(
    common: &Rc<Common<R>>,
    outlets: &mut Vec<Outlet<S>>,
    finished: Finished<S::Item, S>,
) {
    let Finished { what, to } = finished;
    let known =
        |(one, queue): &&Outlet<S>| !queue.is_left() && (Arc::ptr_eq(one, &to) || *one == to);
    if let Some((_, queue)) = outlets.iter().find(known) {
        if !queue.push(what) {
            common.count::<S>(ExportResult::QueueFull, 1);
        }
        return;
    }
    // Receivers are what the rules of now say; those of before leave when they have nothing to do.
    outlets.retain(|(_, queue)| !queue.is_left());
    if outlets.len() >= SPAN_RECEIVERS {
        return common.count::<S>(ExportResult::QueueFull, 1);
    }
    let queue = Rc::new(Queue::new(S::weight));
    queue.push(what);
    drop(spawn_contained(S::WHAT, deliver(Rc::clone(common), Arc::clone(&to), Rc::clone(&queue))));
    outlets.push((to, queue));
}

/// Sends what comes for one receiver, batch after batch, until nothing has come for a long time.
async fn deliver<R: Reach, S: Sink>(
    common: Rc<Common<R>>,
    sink: Arc<S>,
    queue: Rc<Queue<S::Item>>,
) {
    link::warn_of_lost(sink.collector());
    // With what its files hold.
    let tls = sink.collector().tls.as_deref().cloned().map(tls::Origin::new);
    let mut link = None;
    let mut warned = None;
    let (shortest, longest) = (SPANS_RETRY[0], SPANS_RETRY[1]);
    let mut pause = shortest;
    while let Some(batch) = queue.batch().await {
        let mut tries = 0;
        loop {
            tries += 1;
            let failed = match send(&common, (&*sink, tls.as_ref()), &mut link, &batch).await {
                Ok(rejected) => {
                    let taken = batch.len().saturating_sub(rejected);
                    common.count::<S>(ExportResult::Sent, taken);
                    common.count::<S>(ExportResult::Refused, batch.len() - taken);
                    pause = shortest;
                    break;
                }
                Err(failed) => failed,
            };
            link = None;
            let now = clock::now();
            if warned.is_none_or(|at| now >= at + WARNINGS_APART) {
                let Collector { host, port, .. } = sink.collector();
                let to = format_args!("{host}:{port}");
                tracing::warn!(%to, error = %failed, "{} are not delivered", S::WHAT);
                warned = Some(now);
            }
            let last = common.ending.get() || !failed.is_worth_another() || tries >= SPANS_TRIES;
            if last {
                common.count::<S>(failed.result(), batch.len());
            }
            if !common.ending.get() {
                queue.pause(pause).await;
                pause = (pause * 2).min(longest);
            }
            if last {
                break;
            }
        }
        queue.delivered();
    }
}

/// One attempt to deliver a batch; how many of its items the receiver did not want.
async fn send<R: Reach, S: Sink>(
    common: &Common<R>,
    (sink, tls): (&S, Option<&tls::Origin>),
    link: &mut Option<Link>,
    batch: &[S::Item],
) -> Result<usize, SendError> {
    let limit = sink.time();
    let work = async {
        if let Some(used) = link.as_mut().filter(|used| used.is_open()) {
            match used.send(sink, &common.origin, batch).await {
                // It closed what it had not used for a while.
                Err(SendError::Broken(_)) => {}
                result => return result,
            }
        }
        let connected = common.reach.connect(sink.collector()).await;
        let stream = connected.map_err(SendError::Unreachable)?;
        // Small messages, and nobody waits for more.
        let _kept = net::set_nodelay(&stream);
        let begun = match tls {
            None => Link::begin(sink, stream).await?,
            Some(tls) => {
                let asks = if sink.is_grpc() { Asks::Http2 } else { Asks::Nothing };
                let secured = tls.over(stream, asks, limit).await;
                Link::begin(sink, secured.map_err(|e| SendError::Unreachable(e.to_string()))?)
                    .await?
            }
        };
        let fresh = link.insert(begun);
        fresh.send(sink, &common.origin, batch).await
    };
    clock::within(limit, work).await.unwrap_or(Err(SendError::Late(limit)))
}
