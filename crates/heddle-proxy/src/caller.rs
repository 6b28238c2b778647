//! Who calls this workload: found by address beside the request, never in its way.
//!
//! The look-up starts at accept. Requests that end before it does, and what connections moved until
//! then, leave their records here; they are counted when the answer comes, or as from an unknown
//! caller when it does not.

use std::{
    cell::RefCell,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use hashbrown::HashMap;
use heddle_model::discovery::{Metric, WorkloadInfo};
use heddle_runtime::{clock, task};

use crate::{
    Shared,
    direction::Direction,
    limits::{PEER_WAIT, PEERS_CACHED, RECORDS_WAITING},
    metrics::{Bits, Edge, Grpc, Metrics, Reporter, ServiceLabels, Tagged},
    refusal::Flags,
    series::SeriesSet,
    snapshot::AddressOwner,
};

/// What is recorded about a finished request.
#[derive(Debug, Clone)]
pub(crate) struct HttpRecord {
    pub(crate) direction: Direction,
    pub(crate) status: u16,
    pub(crate) flags: Flags,
    pub(crate) grpc: Grpc,
    pub(crate) duration: Duration,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    /// Messages of gRPC that are not counted yet, from the client and to it.
    pub(crate) messages: (u64, u64),
    /// Values of tags, where rules change some.
    pub(crate) tagged: Option<Rc<Tagged>>,
}

impl HttpRecord {
    /// Counts it; the request has ended then.
    pub(crate) fn count(&self, metrics: &Metrics, worker: usize, set: &SeriesSet) {
        let key = (self.status, self.grpc, self.flags);
        match &self.tagged {
            None => set.http(metrics, key, |series| {
                series.record(self.duration, self.request_bytes, self.response_bytes);
                if self.messages != (0, 0) {
                    series.messages(Bits::GRPC, self.messages);
                }
            }),
            Some(tagged) => set.http_tagged(metrics, (key, tagged), |series, of| {
                let bytes = (self.request_bytes, self.response_bytes);
                series.record_some(of, self.duration, bytes);
                series.messages(of, self.messages);
            }),
        }
        metrics.request_ended(worker, self.direction);
    }
}

/// What is recorded about a connection, in one go or piece by piece.
#[derive(Debug, Clone, Default)]
pub(crate) struct TcpRecord {
    pub(crate) opened: u64,
    pub(crate) closed: u64,
    /// Of the closing.
    pub(crate) flags: Flags,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Values of tags, where rules change some.
    pub(crate) tagged: Option<Rc<Tagged>>,
}

impl TcpRecord {
    pub(crate) fn count(&self, metrics: &Metrics, set: &SeriesSet) {
        if let Some(tagged) = &self.tagged {
            return self.count_tagged(metrics, set, tagged);
        }
        let series = set.tcp(metrics, Flags::default());
        series.opened.add(self.opened);
        series.sent.add(self.sent);
        series.received.add(self.received);
        series.ended.add(self.closed);
        if self.closed > 0 {
            set.tcp(metrics, self.flags).closed.add(self.closed);
        }
    }

    fn count_tagged(&self, metrics: &Metrics, set: &SeriesSet, tagged: &Rc<Tagged>) {
        let is = |of: Bits, metric| of.has(Bits::of(metric));
        set.tcp_tagged(metrics, (Flags::default(), tagged), |series, of| {
            if is(of, Metric::TcpOpened) {
                series.opened.add(self.opened);
                series.ended.add(self.closed);
            }
            if is(of, Metric::TcpSent) {
                series.sent.add(self.sent);
            }
            if is(of, Metric::TcpReceived) {
                series.received.add(self.received);
            }
        });
        if self.closed > 0 {
            set.tcp_tagged(metrics, (self.flags, tagged), |series, of| {
                if is(of, Metric::TcpClosed) {
                    series.closed.add(self.closed);
                }
            });
        }
    }

    /// Adds what happened on the same edge; false if the two closed in different ways, or have different tags.
    fn add(&mut self, other: &Self) -> bool {
        if self.flags != other.flags || self.tagged != other.tagged {
            return false;
        }
        self.opened += other.opened;
        self.closed += other.closed;
        self.sent += other.sent;
        self.received += other.received;
        true
    }
}

/// Somebody who calls this workload. Told once who it is: what a connection opened and closed is
/// counted on one edge.
#[derive(Debug)]
pub(crate) struct Caller {
    ip: IpAddr,
    /// When the snapshot, and if need be the control plane, was asked who it is.
    asked: Instant,
    peer: RefCell<PeerLookup>,
    sets: RefCell<Vec<(Rc<ServiceLabels>, Rc<SeriesSet>)>>,
    requests: RefCell<Vec<(Rc<ServiceLabels>, HttpRecord)>>,
    /// Added up, so that a busy connection waits in one place: one for each service, way to close and
    /// values of tags.
    connections: RefCell<Vec<(Rc<ServiceLabels>, TcpRecord)>>,
}

#[derive(Debug, Clone)]
enum PeerLookup {
    Pending,
    Known(Option<Arc<WorkloadInfo>>),
}

impl Caller {
    fn new(ip: IpAddr, peer: PeerLookup) -> Rc<Self> {
        Rc::new(Self {
            ip,
            asked: clock::now(),
            peer: RefCell::new(peer),
            sets: RefCell::default(),
            requests: RefCell::default(),
            connections: RefCell::default(),
        })
    }

    /// Where it calls from.
    pub(crate) fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Is it nobody known, as far as it was told?
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(&*self.peer.borrow(), PeerLookup::Known(None))
    }

    /// Who it is; `None` within where nobody knows, `None` while that is on its way.
    pub(crate) fn who(&self) -> Option<Option<Arc<WorkloadInfo>>> {
        match &*self.peer.borrow() {
            PeerLookup::Pending => None,
            PeerLookup::Known(peer) => Some(peer.clone()),
        }
    }

    /// The series of calls to `service`; `None` while the identity is on its way.
    pub(crate) fn series(
        &self,
        callers: &Callers,
        service: &Rc<ServiceLabels>,
    ) -> Option<Rc<SeriesSet>> {
        match &*self.peer.borrow() {
            PeerLookup::Pending => None,
            PeerLookup::Known(peer) => Some(self.series_of(callers.worker, service, peer.as_ref())),
        }
    }

    pub(crate) fn http(&self, callers: &Callers, service: &Rc<ServiceLabels>, record: HttpRecord) {
        if let Some(set) = self.series(callers, service) {
            return callers.count(&record, &set);
        }
        let mut requests = self.requests.borrow_mut();
        if requests.len() < RECORDS_WAITING {
            requests.push((Rc::clone(service), record));
        } else {
            callers.count(&record, &unknown(callers.worker, service));
        }
    }

    pub(crate) fn tcp(&self, callers: &Callers, service: &Rc<ServiceLabels>, record: TcpRecord) {
        if let Some(set) = self.series(callers, service) {
            return record.count(&callers.shared.metrics, &set);
        }
        let mut connections = self.connections.borrow_mut();
        let mut same = connections.iter_mut().filter(|(one, _)| one == service);
        if same.any(|(_, waiting)| waiting.add(&record)) {
            return;
        }
        if connections.len() < RECORDS_WAITING {
            connections.push((Rc::clone(service), record));
        } else {
            record.count(&callers.shared.metrics, &unknown(callers.worker, service));
        }
    }

    /// The answer came, or will not come.
    fn resolve(&self, callers: &Callers, peer: Option<Arc<WorkloadInfo>>) {
        *self.peer.borrow_mut() = PeerLookup::Known(peer.clone());
        let set =
            |service: &Rc<ServiceLabels>| self.series_of(callers.worker, service, peer.as_ref());
        for (service, record) in self.requests.take() {
            callers.count(&record, &set(&service));
        }
        for (service, record) in self.connections.take() {
            record.count(&callers.shared.metrics, &set(&service));
        }
    }

    fn series_of(
        &self,
        worker: usize,
        service: &Rc<ServiceLabels>,
        peer: Option<&Arc<WorkloadInfo>>,
    ) -> Rc<SeriesSet> {
        let mut sets = self.sets.borrow_mut();
        let found = sets.iter().find(|(one, _)| Rc::ptr_eq(one, service) || one == service);
        if let Some((_, set)) = found {
            return Rc::clone(set);
        }
        let edge = Edge {
            reporter: Reporter::Destination,
            peer: peer.cloned(),
            service: ServiceLabels::clone(service),
        };
        let set = Rc::new(SeriesSet::new(edge, worker));
        sets.push((Rc::clone(service), Rc::clone(&set)));
        set
    }
}

fn unknown(worker: usize, service: &Rc<ServiceLabels>) -> SeriesSet {
    let edge = Edge {
        reporter: Reporter::Destination,
        peer: None,
        service: ServiceLabels::clone(service),
    };
    SeriesSet::new(edge, worker)
}

/// Callers by address, so that a new connection of a known caller finds its series.
#[derive(Debug)]
pub(crate) struct Callers {
    shared: Arc<Shared>,
    /// Whose shards are written.
    worker: usize,
    known: RefCell<HashMap<IpAddr, Rc<Caller>>>,
    /// The workload itself.
    own: Rc<Caller>,
}

impl Callers {
    /// None known yet.
    pub(crate) fn new(shared: Arc<Shared>, worker: usize) -> Rc<Self> {
        let workload = Arc::new(shared.metrics.own().clone());
        let ip = shared.config.addresses.first();
        let own = Caller::new(ip, PeerLookup::Known(Some(workload)));
        Rc::new(Self { shared, worker, known: RefCell::default(), own })
    }

    /// Who calls from `ip`. Starts a look-up if the snapshot does not know; never waits for it.
    pub(crate) fn at(self: &Rc<Self>, ip: IpAddr) -> Rc<Caller> {
        let known = self.known.borrow().get(&ip).cloned();
        let told = self.owner(ip);
        if let Some(caller) = known.filter(|caller| caller.still(told.as_ref())) {
            return caller;
        }
        let caller = match told {
            Some(peer) => Caller::new(ip, PeerLookup::Known(peer)),
            None => {
                let caller = Caller::new(ip, PeerLookup::Pending);
                let looked_up = Rc::clone(self).look_up(Rc::clone(&caller));
                task::spawn_contained("caller", looked_up);
                caller
            }
        };
        self.keep(ip, &caller);
        caller
    }

    /// Who `caller`, whom nobody knew, is by now: for later requests on a connection that may live
    /// for hours. It costs a look into the snapshot; one that has no answer is asked for again, but
    /// not by every request.
    pub(crate) fn again(self: &Rc<Self>, caller: &Rc<Caller>) -> Rc<Caller> {
        let still_unknown = match self.owner(caller.ip) {
            Some(peer) => peer.is_none(),
            None => clock::now() < caller.asked + PEER_WAIT,
        };
        if still_unknown { Rc::clone(caller) } else { self.at(caller.ip) }
    }

    /// The workload itself, calling itself.
    pub(crate) fn own(&self) -> Rc<Caller> {
        Rc::clone(&self.own)
    }

    fn keep(&self, ip: IpAddr, caller: &Rc<Caller>) {
        let mut callers = self.known.borrow_mut();
        if callers.len() >= PEERS_CACHED {
            // Connections keep what they hold; the rest is found again at their next accept.
            callers.clear();
        }
        callers.insert(ip, Rc::clone(caller));
    }

    fn count(&self, record: &HttpRecord, set: &SeriesSet) {
        record.count(&self.shared.metrics, self.worker, set);
    }

    /// What the snapshot says about an address; `None`: nothing.
    fn owner(&self, ip: IpAddr) -> Option<Option<Arc<WorkloadInfo>>> {
        let snapshot = self.shared.snapshot.load();
        snapshot.address(ip.to_canonical()).map(|owner| match owner {
            AddressOwner::Workload(workload) => Some(Arc::clone(workload)),
            AddressOwner::Service(_) | AddressOwner::NotKnown => None,
        })
    }

    async fn look_up(self: Rc<Self>, caller: Rc<Caller>) {
        let answer = clock::within(PEER_WAIT, self.shared.lookup.address(caller.ip)).await;
        let peer = match answer {
            Some(Ok(AddressOwner::Workload(workload))) => Some(workload),
            _ => None,
        };
        caller.resolve(&self, peer);
    }
}

impl Caller {
    /// Does the snapshot say the same as this caller was told? An address may change its owner.
    fn still(&self, told: Option<&Option<Arc<WorkloadInfo>>>) -> bool {
        match (&*self.peer.borrow(), told) {
            (PeerLookup::Pending, None) => true,
            (PeerLookup::Known(Some(a)), Some(Some(b))) => Arc::ptr_eq(a, b) || a == b,
            (PeerLookup::Known(None), Some(None)) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use heddle_model::ServiceName;

    use super::*;
    use crate::{metrics::scrape::Scrape, testing};

    #[test]
    fn what_waits_for_a_callers_name_is_bounded_and_nothing_of_it_is_lost() {
        task::run_local(async {
            let worker = testing::worker();
            let caller = Caller::new(Ipv4Addr::LOCALHOST.into(), PeerLookup::Pending);
            for number in 0..RECORDS_WAITING + 3 {
                let name = ServiceName::new(&format!("s{number}"), "default").unwrap();
                let service = Rc::new(ServiceLabels::of(&name));
                let record = TcpRecord { opened: 1, ..TcpRecord::default() };
                caller.tcp(&worker.callers, &service, record);
            }
            assert_eq!(caller.connections.borrow().len(), RECORDS_WAITING);
            let metrics = Arc::clone(&worker.shared.metrics);
            let text: String = Scrape::new(metrics).collect();
            let opened = |line: &&str| line.starts_with("istio_tcp_connections_opened_total{");
            assert_eq!(text.lines().filter(opened).count(), 3, "as from somebody unknown");
        })
        .unwrap();
    }
}
