//! The one exit of every request and every connection: what is written down about it, exactly once.
//!
//! An outcome is begun with its request or connection and records when it is finished – or when it
//! is dropped unfinished, because the client went away. Metrics are its first reader; access log,
//! whoever looks, and spans join here. It decides nothing.

mod tcp;

pub(crate) use self::tcp::TcpOutcome;

use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use heddle_model::discovery::{Provenance, WorkloadInfo};
use heddle_runtime::clock;

use crate::{
    caller::{Caller, HttpRecord},
    deadline::Progress,
    direction::Direction,
    facts::{Facts, Finish},
    limits::REPORTING_INTERVAL,
    messages::CallMessages,
    metrics::{Edge, Grpc, Reporter, ServiceLabels, Tagged, Tagging},
    observers::Parties,
    paths::Path,
    refusal::{Flag, Flags, Refusal, RefusalRow},
    series::SeriesSet,
    snapshot::CompiledRule,
    tcp_fault::Shape,
    trace::{Ended, LiveSpan},
    worker::Worker,
};

/// Under which labels something is counted.
#[derive(Debug, Clone)]
pub(crate) enum MetricSeries {
    /// An edge known in full.
    Edge(Rc<SeriesSet>),
    /// A call by somebody whose identity may still be on its way, to this service.
    Caller(Rc<Caller>, Rc<ServiceLabels>),
}

impl MetricSeries {
    /// The series, where it is known whose they are.
    fn known(&self, worker: &Worker) -> Option<Rc<SeriesSet>> {
        match self {
            Self::Edge(set) => Some(Rc::clone(set)),
            Self::Caller(caller, service) => caller.series(&worker.callers, service),
        }
    }

    /// What is called.
    fn service(&self) -> &ServiceLabels {
        match self {
            Self::Edge(set) => &set.edge().service,
            Self::Caller(_, service) => service,
        }
    }

    /// Whose side of the call it is.
    fn direction(&self) -> Direction {
        match self {
            Self::Edge(set) if set.edge().reporter == Reporter::Source => Direction::Outbound,
            Self::Edge(_) | Self::Caller(..) => Direction::Inbound,
        }
    }

    /// Who calls this workload, as far as that is known.
    fn caller(&self, direction: Direction) -> Option<Arc<WorkloadInfo>> {
        match self {
            _ if direction == Direction::Outbound => None,
            Self::Edge(set) => set.edge().peer.clone(),
            Self::Caller(caller, _) => caller.who().flatten(),
        }
    }

    /// Values of tags, made of what is known of a call or connection, and of who calls as far as that is known by now.
    fn values(&self, plan: &Arc<Tagging>, facts: Option<&mut Facts>) -> Rc<Tagged> {
        match facts {
            None => plan.values(None),
            Some(facts) => {
                facts.caller = self.caller(facts.direction);
                plan.values(Some(&*facts))
            }
        }
    }

    /// What was counted here is over: those who want to know more of it are told.
    fn told(&self, worker: &Worker, facts: &Facts) {
        let (peer, service) = match self {
            Self::Edge(set) => (Some(set.edge().peer.clone()), &set.edge().service),
            Self::Caller(caller, service) => (caller.who(), &**service),
        };
        worker.shared.told(facts, &Parties { peer, service });
    }

    /// The service that is called, and who calls, where that is known.
    fn called(&self, direction: Direction) -> (String, Option<String>) {
        let name = |service: &ServiceLabels| service.known().unwrap_or_default().to_owned();
        match self {
            Self::Edge(set) => {
                let Edge { peer, service, .. } = set.edge();
                let caller = peer.as_ref().filter(|_| direction == Direction::Inbound);
                (name(service), caller.map(|peer| peer.id.to_string()))
            }
            Self::Caller(caller, service) => {
                (name(service), caller.who().flatten().map(|who| who.id.to_string()))
            }
        }
    }
}

/// One HTTP request, from its first byte to its response's last.
#[derive(Debug)]
pub(crate) struct RequestOutcome {
    worker: Rc<Worker>,
    direction: Direction,
    series: MetricSeries,
    begun: Instant,
    /// When latency ended, if that was not just now: a tunnel's ends with its response head.
    ended: Cell<Option<Instant>>,
    status: Cell<u16>,
    flags: Cell<Flags>,
    grpc: Cell<Grpc>,
    request_bytes: Cell<u64>,
    response_bytes: Cell<u64>,
    /// How far it has come, where a limit on its time needs to know.
    progress: Option<Rc<Progress>>,
    /// A fault of its connection.
    shape: Option<Rc<Shape>>,
    /// What is known of it, where somebody wants to know.
    facts: Option<Box<RefCell<Facts>>>,
    finished: bool,
    is_copy: bool,
    /// Its span, if its trace is recorded.
    span: Option<Box<LiveSpan>>,
    /// The rule that decided where it goes.
    rule: Option<Arc<CompiledRule>>,
    /// The template of its path, if it comes to the workload.
    path: Option<Rc<Path>>,
    /// Its messages, if it is a call of gRPC.
    messages: OnceCell<Rc<CallMessages>>,
}

impl RequestOutcome {
    /// Is the proxy about to end, so that the client is to ask elsewhere from now on?
    pub(crate) fn is_draining(&self) -> bool {
        self.worker.shared.state.draining.is_begun(self.direction)
    }

    /// A request whose first byte came at `begun`.
    pub(crate) fn begin(
        worker: &Rc<Worker>,
        direction: Direction,
        series: MetricSeries,
        begun: Instant,
    ) -> Self {
        worker.shared.metrics.request_begun(worker.index, direction);
        Self::new(worker, direction, series, begun)
    }

    fn new(
        worker: &Rc<Worker>,
        direction: Direction,
        series: MetricSeries,
        begun: Instant,
    ) -> Self {
        Self {
            worker: Rc::clone(worker),
            direction,
            series,
            begun,
            ended: Cell::default(),
            status: Cell::default(),
            flags: Cell::default(),
            grpc: Cell::default(),
            request_bytes: Cell::default(),
            response_bytes: Cell::default(),
            progress: None,
            shape: None,
            facts: None,
            finished: false,
            is_copy: false,
            span: None,
            rule: None,
            path: None,
            messages: OnceCell::new(),
        }
    }

    /// From now on what is known of it is gathered.
    pub(crate) fn gathers(&mut self, facts: Facts) {
        self.facts = Some(Box::new(RefCell::new(facts)));
    }

    /// Notes something where that is gathered; else `note` is not called.
    #[inline]
    pub(crate) fn noting(&self, note: impl FnOnce(&mut Facts)) {
        if let Some(facts) = &self.facts {
            note(&mut facts.borrow_mut());
        }
    }

    /// Its connection has a fault.
    pub(crate) fn shaped(&mut self, shape: Option<&Rc<Shape>>) {
        self.shape = shape.cloned();
    }

    /// Its trace is recorded.
    pub(crate) fn traced(&mut self, span: Option<Box<LiveSpan>>) {
        self.span = span;
    }

    /// This rule decides where it goes.
    pub(crate) fn ruled(&mut self, rule: Arc<CompiledRule>) {
        self.rule = Some(rule);
    }

    /// It is a call of the workload, for this target.
    pub(crate) fn asks_for(&mut self, target: &str) {
        self.path = self.worker.paths.of(target);
    }

    /// Its span, for what only that has to know.
    #[inline]
    pub(crate) fn span(&self) -> Option<&LiveSpan> {
        self.span.as_deref()
    }

    /// A fault is injected into it.
    pub(crate) fn injected(&self, what: &'static str, flag: Flag, rule: Option<&Provenance>) {
        self.flag(flag);
        self.worker.shared.metrics.injected(what, self.direction);
        let rule = rule.map_or("-", |rule| rule.0.as_str());
        self.noting(|facts| facts.injected(what, rule));
        tracing::debug!(fault = what, rule, direction = self.direction.as_str(), "fault injected");
        if let Some(span) = &self.span {
            span.event(format!("fault injected: {what}, by {rule}"));
        }
    }

    /// Is it a copy, and nobody's call?
    pub(crate) fn is_copy(&self) -> bool {
        self.is_copy
    }

    /// From now on what happens is noted for limits on its time.
    pub(crate) fn watched(&mut self) -> Rc<Progress> {
        Rc::clone(self.progress.get_or_insert_default())
    }

    /// All of the request has come from the client.
    pub(crate) fn arrived(&self) {
        if let Some(progress) = &self.progress {
            progress.arrived();
        }
    }

    /// A copy of a request: nobody's call, so that it is in no series.
    pub(crate) fn of_a_copy(worker: &Rc<Worker>, direction: Direction) -> Self {
        let edge = Edge {
            reporter: Reporter::Source,
            peer: None,
            service: ServiceLabels::passthrough(None),
        };
        let series = MetricSeries::Edge(Rc::new(SeriesSet::new(edge, worker.index)));
        let mut outcome = Self::new(worker, direction, series, clock::now());
        outcome.is_copy = true;
        outcome
    }

    /// Who is called is known now (better).
    pub(crate) fn count_as(&mut self, series: MetricSeries) {
        self.series = series;
    }

    pub(crate) fn flag(&self, flag: Flag) {
        let mut flags = self.flags.get();
        flags.set(flag);
        self.flags.set(flags);
    }

    /// The status the client gets: its final answer begins to go to it.
    pub(crate) fn status(&self, status: u16) {
        self.status.set(status);
        if let Some(progress) = &self.progress {
            progress.answers();
        }
    }

    /// Notes what a response's head or trailers say in gRPC's terms.
    pub(crate) fn grpc_fields(&self, fields: &http::HeaderMap) {
        let status = fields.get("grpc-status").and_then(|value| value.to_str().ok()?.parse().ok());
        if let (Grpc::Unanswered | Grpc::Status(_), Some(status)) = (self.grpc.get(), status) {
            self.grpc.set(Grpc::Status(status));
        }
    }

    /// The status of gRPC that the response has had so far; `None` within where it had none, and for what
    /// is no call of gRPC.
    pub(crate) fn grpc(&self) -> Option<Option<u32>> {
        match self.grpc.get() {
            Grpc::No => None,
            Grpc::Unanswered => Some(None),
            Grpc::Status(status) => Some(Some(status.into())),
        }
    }

    /// It is a call of gRPC.
    pub(crate) fn is_grpc(&self) {
        self.grpc.set(Grpc::Unanswered);
        self.messages.get_or_init(Rc::default);
    }

    /// Where its messages are counted, if it is a call of gRPC.
    pub(crate) fn messages(&self) -> Option<&Rc<CallMessages>> {
        self.messages.get()
    }

    /// A piece of its response's body passes.
    #[inline]
    pub(crate) fn passes(&self, data: &[u8]) {
        if let Some(messages) = self.messages.get() {
            let before = messages.sent.count();
            messages.sent.pass(data);
            // Most frames of a large message begin none: no look at the clock for those.
            if messages.sent.count() != before {
                self.tell_messages(messages);
            }
        }
    }

    /// A stream may go on for days: while the server sends messages, those of both sides are counted every so often,
    /// under what is known of it by then. Where it is not known who calls they wait.
    fn tell_messages(&self, messages: &CallMessages) {
        let now = clock::now();
        let due = messages.due.get();
        if due.is_some_and(|due| now < due) {
            return;
        }
        let metrics = &self.worker.shared.metrics;
        let interval = metrics.reporting_interval(self.direction).unwrap_or(REPORTING_INTERVAL);
        messages.due.set(now.checked_add(interval));
        let Some(set) = self.series.known(&self.worker).filter(|_| due.is_some()) else { return };
        let key = (self.status.get(), Grpc::Unanswered, Flags::default());
        let mut facts = self.facts.as_ref().map(|facts| facts.borrow_mut());
        let plan = metrics.tagging(self.direction);
        let tagged = plan.map(|plan| self.series.values(&plan, facts.as_deref_mut()));
        set.messages(metrics, (key, tagged.as_ref()), messages.take());
    }

    /// Bytes of the request came from the client.
    pub(crate) fn received(&self, bytes: u64) {
        self.request_bytes.set(self.request_bytes.get() + bytes);
    }

    /// Bytes of the response went to the client.
    pub(crate) fn sent(&self, bytes: u64) {
        self.response_bytes.set(self.response_bytes.get() + bytes);
    }

    /// Has anything gone to the client?
    pub(crate) fn has_sent(&self) -> bool {
        self.response_bytes.get() > 0
    }

    /// Latency ends here: the response is complete, or its head is out and what follows is no HTTP.
    pub(crate) fn ended(&self) -> Instant {
        let now = clock::now();
        self.ended.set(Some(now));
        if let Some(progress) = &self.progress {
            progress.ends();
        }
        now
    }

    /// The service that is called, and who calls, where that is known.
    pub(crate) fn called(&self) -> (String, Option<String>) {
        self.series.called(self.direction)
    }

    /// Which way the request goes.
    pub(crate) fn direction(&self) -> Direction {
        self.direction
    }

    /// The mesh answers itself. Gives the row to answer with.
    pub(crate) fn refuse(&self, refusal: &Refusal) -> RefusalRow {
        let row = refusal.row();
        self.worker.shared.metrics.refused(&row, self.direction);
        if let Some(span) = &self.span {
            span.refused(&row);
        }
        self.flag(row.flag);
        self.status.set(row.status);
        self.noting(|facts| facts.refused(&row));
        if self.grpc.get() != Grpc::No {
            self.grpc.set(Grpc::Status(row.grpc));
        }
        row
    }

    /// The response is complete, or as complete as it will be.
    pub(crate) fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for RequestOutcome {
    fn drop(&mut self) {
        if self.is_copy {
            return;
        }
        if !self.finished {
            self.flag(Flag::DC);
        }
        let (received, sent) = (self.request_bytes.get(), self.response_bytes.get());
        if let Some(flag) = self.shape.as_ref().and_then(|shape| shape.flag_of(received, sent)) {
            self.flag(flag);
        }
        let ended = self.ended.get().unwrap_or_else(clock::now);
        let duration = ended.saturating_duration_since(self.begun);
        if let Some(span) = self.span.take() {
            self.noting(|facts| facts.trace = Some(span.ids()));
            let (begun, status, grpc) = (self.begun, self.status.get(), self.grpc());
            let (flags, bytes) = (self.flags.get(), (received, sent));
            span.finish(&self.worker, &Ended { begun, ended, status, grpc, flags, bytes });
        }
        let facts = self.facts.take().map(|facts| {
            let finish = Finish {
                status: self.status.get(),
                flags: self.flags.get(),
                grpc: self.grpc.get(),
                duration,
                received,
                sent,
            };
            let caller = self.series.caller(self.direction);
            Facts { finish, caller, ..facts.into_inner() }
        });
        let tagged = self.worker.shared.metrics.tagging(self.direction);
        let record = HttpRecord {
            tagged: tagged.map(|plan| plan.values(facts.as_ref().map(|facts| facts as _))),
            messages: self.messages.get().map_or((0, 0), |messages| messages.take()),
            direction: self.direction,
            status: self.status.get(),
            flags: self.flags.get(),
            grpc: self.grpc.get(),
            duration,
            request_bytes: self.request_bytes.get(),
            response_bytes: self.response_bytes.get(),
        };
        if let Some(counts) = self.rule.as_ref().and_then(|rule| rule.counts.get()) {
            let came = (record.status, self.grpc().flatten());
            counts.record(self.worker.index, came, record.flags, record.duration);
        }
        if let Some(path) = &self.path {
            let came = (record.status, self.grpc().flatten());
            let service = self.series.service();
            let Worker { shared, paths, index, .. } = &*self.worker;
            paths.count(&shared.metrics, path, service, came, |counts| {
                counts.record(*index, came, record.flags, record.duration);
            });
        }
        if let Some(facts) = facts {
            self.series.told(&self.worker, &facts);
        }
        match &self.series {
            MetricSeries::Edge(set) => {
                record.count(&self.worker.shared.metrics, self.worker.index, set)
            }
            MetricSeries::Caller(caller, service) => {
                caller.http(&self.worker.callers, service, record);
            }
        }
    }
}
