//! What a worker keeps about each port of a destination: verdicts, whether it has answered HTTP, and
//! the series of requests that never got to an endpoint.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use hashbrown::HashMap;
use heddle_model::ServiceName;

use crate::{
    direction::Direction,
    limits::PORTS_KEPT,
    metrics::{Edge, Metrics, Reporter, ServiceLabels, VerdictCounters},
    series::SeriesSet,
};

/// One port of a destination, or of this workload.
#[derive(Debug)]
pub(crate) struct PortState {
    /// Its destination service.
    pub(crate) service: Rc<ServiceLabels>,
    /// Series without an endpoint: refused, aborted, or not picked yet.
    pub(crate) unpicked: Rc<SeriesSet>,
    pub(crate) verdicts: Arc<VerdictCounters>,
    /// Has it completed an HTTP response? Then dialling before the client speaks is waste. Outside
    /// the mesh, [`crate::http_seen`] says so.
    pub(crate) speaks_http: Cell<bool>,
}

/// Ports by direction, service and number.
#[derive(Debug)]
pub(crate) struct Ports {
    metrics: Arc<Metrics>,
    worker: usize,
    known: RefCell<HashMap<Key, Rc<PortState>>>,
}

type Key = (Direction, Option<ServiceName>, u16);

impl Ports {
    /// None known yet; counted in `worker`'s shards.
    pub(crate) fn new(metrics: Arc<Metrics>, worker: usize) -> Self {
        Self { metrics, worker, known: RefCell::default() }
    }

    /// The state of a port. `service` is `None` for what belongs to no service.
    pub(crate) fn of(
        &self,
        direction: Direction,
        service: Option<&ServiceName>,
        port: u16,
    ) -> Rc<PortState> {
        let key = (direction, service.cloned(), port);
        let mut ports = self.known.borrow_mut();
        if let Some(state) = ports.get(&key) {
            return Rc::clone(state);
        }
        if ports.len() >= PORTS_KEPT {
            // Connections keep what they hold; the rest is made again when needed.
            ports.clear();
        }
        let labels = match (service, direction) {
            (Some(service), _) => ServiceLabels::of(service),
            (None, Direction::Outbound) => ServiceLabels::passthrough(None),
            (None, Direction::Inbound) => ServiceLabels::inbound_passthrough(self.metrics.own()),
        };
        let reporter = match direction {
            Direction::Outbound => Reporter::Source,
            Direction::Inbound => Reporter::Destination,
        };
        let edge = Edge { reporter, peer: None, service: labels.clone() };
        let state = Rc::new(PortState {
            verdicts: self.metrics.verdicts(&labels, port),
            service: Rc::new(labels),
            unpicked: Rc::new(SeriesSet::new(edge, self.worker)),
            speaks_http: Cell::new(false),
        });
        ports.insert(key, Rc::clone(&state));
        state
    }
}
