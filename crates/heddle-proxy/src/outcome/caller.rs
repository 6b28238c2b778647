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
use heddle_model::discovery::WorkloadInfo;
use heddle_runtime::{clock, task};

use crate::{
    limits::{PEER_WAIT, PEERS_CACHED, RECORDS_WAITING},
    metrics::{Direction, Edge, Reporter, SeriesSet, ServiceLabels},
    refusal::Flags,
    snapshot::AddressOwner,
    worker::Worker,
};

/// What is recorded about a finished request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HttpRecord {
    pub(crate) direction: Direction,
    pub(crate) status: u16,
    pub(crate) flags: Flags,
    pub(crate) duration: Duration,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
}

impl HttpRecord {
    /// Counts it; the request has ended then.
    pub(super) fn count(&self, worker: &Worker, set: &SeriesSet) {
        set.http(&worker.shared.metrics, (self.status, self.flags), |series| {
            series.record(self.duration, self.request_bytes, self.response_bytes);
        });
        worker.shared.metrics.request_ended(worker.index, self.direction);
    }
}

/// What is recorded about a connection, in one go or piece by piece.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TcpRecord {
    pub(crate) opened: u64,
    pub(crate) closed: u64,
    /// Of the closing.
    pub(crate) flags: Flags,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl TcpRecord {
    pub(super) fn count(&self, worker: &Worker, set: &SeriesSet) {
        let series = set.tcp(&worker.shared.metrics, Flags::default());
        series.opened.add(self.opened);
        series.sent.add(self.sent);
        series.received.add(self.received);
        if self.closed > 0 {
            set.tcp(&worker.shared.metrics, self.flags).closed.add(self.closed);
        }
    }

    /// Adds what happened on the same edge; false if the two closed in different ways.
    fn add(&mut self, other: Self) -> bool {
        if self.flags != other.flags {
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
    identity: RefCell<Identity>,
    sets: RefCell<Vec<(Rc<ServiceLabels>, Rc<SeriesSet>)>>,
    requests: RefCell<Vec<(Rc<ServiceLabels>, HttpRecord)>>,
    /// Added up, so that a busy connection waits in one place: no more of them than services and
    /// ways to close.
    connections: RefCell<Vec<(Rc<ServiceLabels>, TcpRecord)>>,
}

#[derive(Debug, Clone)]
enum Identity {
    Pending,
    Known(Option<Arc<WorkloadInfo>>),
}

impl Caller {
    fn new(ip: IpAddr, identity: Identity) -> Rc<Self> {
        Rc::new(Self {
            ip,
            asked: clock::now(),
            identity: RefCell::new(identity),
            sets: RefCell::default(),
            requests: RefCell::default(),
            connections: RefCell::default(),
        })
    }

    /// Is it nobody known, as far as it was told?
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(&*self.identity.borrow(), Identity::Known(None))
    }

    /// The series of calls to `service`; `None` while the identity is on its way.
    pub(super) fn set(
        &self,
        worker: &Worker,
        service: &Rc<ServiceLabels>,
    ) -> Option<Rc<SeriesSet>> {
        match &*self.identity.borrow() {
            Identity::Pending => None,
            Identity::Known(peer) => Some(self.set_of(worker, service, peer.as_ref())),
        }
    }

    pub(super) fn http(&self, worker: &Worker, service: &Rc<ServiceLabels>, record: HttpRecord) {
        if let Some(set) = self.set(worker, service) {
            return record.count(worker, &set);
        }
        let mut requests = self.requests.borrow_mut();
        if requests.len() < RECORDS_WAITING {
            requests.push((Rc::clone(service), record));
        } else {
            record.count(worker, &unknown(worker, service));
        }
    }

    pub(super) fn tcp(&self, worker: &Worker, service: &Rc<ServiceLabels>, record: TcpRecord) {
        if let Some(set) = self.set(worker, service) {
            return record.count(worker, &set);
        }
        let mut connections = self.connections.borrow_mut();
        let mut same = connections.iter_mut().filter(|(one, _)| one == service);
        if !same.any(|(_, waiting)| waiting.add(record)) {
            connections.push((Rc::clone(service), record));
        }
    }

    /// The answer came, or will not come.
    fn resolve(&self, worker: &Worker, peer: Option<Arc<WorkloadInfo>>) {
        *self.identity.borrow_mut() = Identity::Known(peer.clone());
        for (service, record) in self.requests.take() {
            record.count(worker, &self.set_of(worker, &service, peer.as_ref()));
        }
        for (service, record) in self.connections.take() {
            record.count(worker, &self.set_of(worker, &service, peer.as_ref()));
        }
    }

    fn set_of(
        &self,
        worker: &Worker,
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
        let set = Rc::new(SeriesSet::new(edge, worker.index));
        sets.push((Rc::clone(service), Rc::clone(&set)));
        set
    }
}

fn unknown(worker: &Worker, service: &Rc<ServiceLabels>) -> SeriesSet {
    let edge = Edge {
        reporter: Reporter::Destination,
        peer: None,
        service: ServiceLabels::clone(service),
    };
    SeriesSet::new(edge, worker.index)
}

/// Callers by address, so that a new connection of a known caller finds its series.
#[derive(Debug, Default)]
pub(crate) struct Callers(RefCell<HashMap<IpAddr, Rc<Caller>>>);

impl Callers {
    /// Who calls from `ip`. Starts a look-up if the snapshot does not know; never waits for it.
    pub(crate) fn at(worker: &Rc<Worker>, ip: IpAddr) -> Rc<Caller> {
        let known = worker.callers.0.borrow().get(&ip).cloned();
        let told = told(worker, ip);
        if let Some(caller) = known.filter(|caller| caller.still(told.as_ref())) {
            return caller;
        }
        let caller = match told {
            Some(peer) => Caller::new(ip, Identity::Known(peer)),
            None => {
                let caller = Caller::new(ip, Identity::Pending);
                task::spawn_contained("caller", look_up(Rc::clone(worker), Rc::clone(&caller), ip));
                caller
            }
        };
        worker.callers.keep(ip, &caller);
        caller
    }

    /// Who `caller`, whom nobody knew, is by now: for later requests on a connection that may live
    /// for hours. It costs a look into the snapshot; one that has no answer is asked for again, but
    /// not by every request.
    pub(crate) fn again(worker: &Rc<Worker>, caller: &Rc<Caller>) -> Rc<Caller> {
        let still_unknown = match told(worker, caller.ip) {
            Some(peer) => peer.is_none(),
            None => clock::now() < caller.asked + PEER_WAIT,
        };
        if still_unknown { Rc::clone(caller) } else { Self::at(worker, caller.ip) }
    }

    /// The workload itself, calling itself.
    pub(crate) fn own(worker: &Worker) -> Rc<Caller> {
        let ip = worker.shared.config.addresses.first();
        Caller::new(ip, Identity::Known(Some(Arc::clone(&worker.own))))
    }

    fn keep(&self, ip: IpAddr, caller: &Rc<Caller>) {
        let mut callers = self.0.borrow_mut();
        if callers.len() >= PEERS_CACHED {
            // Connections keep what they hold; the rest is found again at their next accept.
            callers.clear();
        }
        callers.insert(ip, Rc::clone(caller));
    }
}

impl Caller {
    /// Does the snapshot say the same as this caller was told? An address may change its owner.
    fn still(&self, told: Option<&Option<Arc<WorkloadInfo>>>) -> bool {
        match (&*self.identity.borrow(), told) {
            (Identity::Pending, None) => true,
            (Identity::Known(Some(a)), Some(Some(b))) => Arc::ptr_eq(a, b) || a == b,
            (Identity::Known(None), Some(None)) => true,
            _ => false,
        }
    }
}

/// What the snapshot says about an address; `None`: nothing.
fn told(worker: &Worker, ip: IpAddr) -> Option<Option<Arc<WorkloadInfo>>> {
    let snapshot = worker.shared.snapshot.load();
    snapshot.address(ip.to_canonical()).map(|owner| match owner {
        AddressOwner::Workload(workload) => Some(Arc::clone(workload)),
        AddressOwner::Service(_) | AddressOwner::NotKnown => None,
    })
}

async fn look_up(worker: Rc<Worker>, caller: Rc<Caller>, ip: IpAddr) {
    let answer = clock::within(PEER_WAIT, worker.shared.lookup.address(ip)).await;
    let peer = match answer {
        Some(Ok(AddressOwner::Workload(workload))) => Some(workload),
        _ => None,
    };
    caller.resolve(&worker, peer);
}
