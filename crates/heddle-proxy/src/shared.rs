//! What every thread of a sidecar shares: configuration, rules in force, and handles to thread 0.
//!
//! Everything here is read without locks on the way of a request. What a worker owns alone (pools,
//! balancers, counters) is not here.

use std::sync::{Arc, atomic::AtomicBool};

use arc_swap::{ArcSwap, ArcSwapOption};
use heddle_wire::local::proxy_config::{ControlPlane, ProxyConfig};
use tokio::sync::mpsc;

use crate::{
    broker::{Broker, BrokerRequest},
    capture::CaptureProbe,
    facts::Facts,
    heartbeat::Heartbeat,
    listening::Listening,
    lookup::{Ask, Lookup},
    memory::Memory,
    metrics::Metrics,
    observers::{Observers, Of, Parties},
    outside_names::OutsideNames,
    ranges::Ranges,
    snapshot::Snapshot,
    spans::{Finished, FinishedRecord, Spans},
    state::ProxyState,
    tap::Taps,
};

/// Shared by all threads of one sidecar.
#[derive(Debug)]
pub struct Shared {
    /// Start-up configuration.
    pub config: ProxyConfig,
    /// Rules in force. A request loads it once and keeps what it loaded.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Asks thread 0 for what the snapshot does not have.
    pub lookup: Lookup,
    /// Opens sockets on the host's side.
    pub broker: Broker,
    /// Takes finished spans.
    pub spans: Spans,
    /// Counters, rendered at :15090.
    pub metrics: Arc<Metrics>,
    /// Who is told of finished calls.
    pub observers: Observers,
    /// Who looks at live calls.
    pub taps: Arc<Taps>,
    /// Where the application listens.
    pub listening: ArcSwap<Listening>,
    /// Which addresses are whose, before any look-up.
    pub ranges: Ranges,
    /// What is counted for the whole proxy.
    pub state: ProxyState,
    /// How close this process is to its memory limit.
    pub memory: Arc<Memory>,
    /// Which addresses outside belong together.
    pub outside_names: OutsideNames,
    /// Whether every worker still does its work.
    pub heartbeat: Heartbeat,
    /// What the workers tell the prober of the redirection.
    pub probe: CaptureProbe,
    /// Has the sidecar shown that it captures and escapes, and does it know its workload?
    pub ready: AtomicBool,
    /// Does the control plane know who this sidecar is: by a certificate, where it takes one?
    pub identified: AtomicBool,
    /// Why the control plane's last update was refused, if nothing was accepted since.
    pub last_refusal: ArcSwapOption<String>,
}

/// Receiving ends of [`Shared`]'s handles: served by thread 0. Dropped, look-ups and outside
/// connections fail at once as unreachable.
#[derive(Debug)]
pub struct Receivers {
    /// Questions for the discovery client.
    pub asks: mpsc::Receiver<Ask>,
    /// Requests for the holder.
    pub broker: mpsc::Receiver<BrokerRequest>,
    /// Finished spans.
    pub spans: mpsc::Receiver<Finished>,
    /// Records of access logs for collectors.
    pub records: mpsc::Receiver<FinishedRecord>,
}

impl Shared {
    /// Everything shared, with an empty snapshot.
    #[must_use]
    pub fn new(config: ProxyConfig, metrics: Arc<Metrics>) -> (Self, Receivers) {
        let ranges = Ranges::of(&config);
        let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
        let (lookup, asks) = Lookup::new(Arc::clone(&snapshot), ranges);
        let (broker, broker_requests) = Broker::new(ranges, config.outside());
        let listening = Listening::unknown(config.addresses);
        let heartbeat = Heartbeat::new(config.workers.max(1));
        let breakers = metrics.breakers.clone();
        let (observers, records) = Observers::new(Arc::clone(&metrics));
        let identified =
            AtomicBool::new(matches!(config.control_plane(), ControlPlane::PathSocket(_)));
        let (spans, finished_spans) = Spans::new(Arc::clone(&metrics));
        let shared = Self {
            spans,
            config,
            heartbeat,
            snapshot,
            lookup,
            broker,
            metrics,
            observers,
            taps: Arc::default(),
            listening: ArcSwap::from_pointee(listening),
            ranges,
            state: ProxyState { breakers, ..ProxyState::default() },
            memory: Arc::default(),
            outside_names: OutsideNames::default(),
            probe: CaptureProbe::default(),
            ready: AtomicBool::new(false),
            identified,
            last_refusal: ArcSwapOption::empty(),
        };
        let receivers = Receivers { asks, broker: broker_requests, spans: finished_spans, records };
        (shared, receivers)
    }

    /// Is a port of this workload meant to be called: declared, as the control plane says or else as
    /// this sidecar was started, or published? Only such a one is looked for on the loopback too.
    #[must_use]
    pub fn is_declared(&self, port: u16) -> bool {
        let published = self.config.inherited().published;
        if published.values().any(|target| *target == port) {
            return true;
        }
        match &self.snapshot.load().inbound {
            Some(plan) => plan.port(port).is_some(),
            None => self.config.ports.contains_key(&port),
        }
    }

    /// A request or a connection is over: those who want to know are told what is known of it.
    pub(crate) fn told(&self, facts: &Facts, parties: &Parties<'_>) {
        let of = Of { own: self.metrics.own(), parties, pressed: self.memory.pressure() };
        self.observers.told(facts, &of);
    }

    /// The mark every socket of the sidecar gets, where it needs one.
    #[must_use]
    pub fn mark(&self) -> Option<u32> {
        self.config.escape_mark()
    }
}
