//! The same of a connection that carries no HTTP, or none that is looked at.

use std::{
    cell::{OnceCell, RefCell},
    pin::pin,
    rc::Rc,
    time::{Duration, Instant},
};

use heddle_runtime::{clock, transport::Transport};
use heddle_wire::local::sidecar_api::Refused;

use super::MetricSeries;
use crate::{
    caller::TcpRecord,
    direction::Direction,
    facts::{Facts, Finish},
    metrics::Tagged,
    refusal::{Flag, Flags, Refusal, RefusalRow},
    relay::{End, Preread, RelayLimits, relay},
    tcp_fault::Shape,
    worker::Worker,
};

/// One TCP connection.
#[derive(Debug)]
pub(crate) struct TcpOutcome {
    worker: Rc<Worker>,
    series: MetricSeries,
    flags: Flags,
    /// Not yet written to a series.
    open: TcpRecord,
    /// Nothing moved yet and perhaps never will: not counted so far.
    silent: bool,
    /// A fault of it.
    shape: Option<Rc<Shape>>,
    /// What is known of it, where somebody wants to know, and since when.
    facts: Option<Box<(Facts, Instant)>>,
    /// Bytes so far: to the client, and from it.
    moved: (u64, u64),
    /// Values of tags, where rules change some: found once, so that it opens and closes under the same ones.
    tagged: OnceCell<Option<Rc<Tagged>>>,
    /// Bytes are counted from time to time, not as they move.
    held_back: bool,
    finished: bool,
}

impl TcpOutcome {
    /// A connection that is being relayed, or was refused.
    ///
    /// `facts`: what is known of it, which its tags are made of at once, and which is told at its end.
    pub(crate) fn begin(worker: &Rc<Worker>, series: MetricSeries, facts: Option<Facts>) -> Self {
        let mut outcome = Self::silent(worker, series, facts);
        outcome.moves();
        outcome
    }

    /// A connection whose client closed before it said anything: counted only if bytes move after
    /// all. Most are connections that a caller's sidecar opened early and did not need, which no
    /// application made; they may not appear as calls on one side only.
    pub(crate) fn silent(worker: &Rc<Worker>, series: MetricSeries, facts: Option<Facts>) -> Self {
        Self {
            worker: Rc::clone(worker),
            series,
            flags: Flags::default(),
            open: TcpRecord { opened: 1, ..TcpRecord::default() },
            silent: true,
            shape: None,
            facts: facts.map(|facts| Box::new((facts, clock::now()))),
            moved: (0, 0),
            tagged: OnceCell::new(),
            held_back: false,
            finished: false,
        }
    }

    /// It has a fault that shapes what passes.
    pub(crate) fn shaped(mut self, shape: Option<&Rc<Shape>>) -> Self {
        self.shape = shape.cloned();
        self
    }

    /// It was held for a fault, to its end.
    pub(crate) fn held(mut self) {
        self.flags.set(Flag::FI);
        self.finished = true;
    }

    /// What is open is worth a record.
    fn moves(&mut self) {
        self.silent = false;
        // That it was opened is told at once.
        if !self.held_back || self.open.opened > 0 {
            self.flush();
        }
    }

    /// The values of its tags.
    fn tagged(&mut self) -> Option<Rc<Tagged>> {
        let (series, facts) = (&self.series, &mut self.facts);
        let (metrics, direction) = (&self.worker.shared.metrics, series.direction());
        let found = self.tagged.get_or_init(|| {
            let plan = metrics.tagging(direction)?;
            Some(series.values(&plan, facts.as_mut().map(|known| &mut known.0)))
        });
        found.clone()
    }

    /// Bytes went to the client. Written to the series at once, or as soon as it is known whose they
    /// are, so never later than every 5 s.
    fn sent(&mut self, bytes: u64) {
        self.open.sent += bytes;
        self.moved.0 += bytes;
        self.moves();
    }

    /// Bytes came from the client.
    fn received(&mut self, bytes: u64) {
        self.open.received += bytes;
        self.moved.1 += bytes;
        self.moves();
    }

    /// Relays until both sides are done, counting as it goes, and records.
    pub(crate) async fn relay(
        self,
        client: &mut Transport,
        upstream: &mut Transport,
        (preread, limits): (Preread, RelayLimits),
    ) {
        let outcome = RefCell::new(self);
        let received = |bytes| outcome.borrow_mut().received(bytes);
        let sent = |bytes| outcome.borrow_mut().sent(bytes);
        let interval = {
            let outcome = outcome.borrow();
            outcome.worker.shared.metrics.reporting_interval(outcome.series.direction())
        };
        let relaying = async {
            match limits.is_any() {
                false => relay(client, upstream, preread, &received, &sent).await,
                true => Box::pin(limits.relay(client, upstream, preread, &received, &sent)).await,
            }
        };
        let end = match interval {
            None => relaying.await,
            Some(interval) => Box::pin(told_every(interval, &outcome, relaying)).await,
        };
        let mut outcome = outcome.into_inner();
        match end {
            End::Closed => {}
            End::ClientReset => outcome.flags.set(Flag::DC),
            End::UpstreamReset => outcome.flags.set(Flag::UC),
            End::Idle => outcome.flags.set(Flag::SI),
            End::TooOld => outcome.flags.set(Flag::DT),
        }
        outcome.finished = true;
    }

    /// The mesh refuses the connection.
    pub(crate) fn refuse(mut self, direction: Direction, refusal: &Refusal) {
        let row = refusal.row();
        self.worker.shared.metrics.refused(&row, direction);
        self.flags.set(row.flag);
        let id = self.worker.request_id().as_str().to_owned();
        self.remember(direction, &row, &id);
        if let Some(facts) = &mut self.facts {
            facts.0.refused(&row);
            facts.0.kept_as = Some(id);
        }
        self.moves();
        self.finished = true;
    }

    /// Keeps it for whoever asks why. The client was not told the id: lists, live calls and access logs have it.
    #[cold]
    fn remember(&self, direction: Direction, row: &RefusalRow, id: &str) {
        let (service, peer) = self.series.called(direction);
        self.worker.shared.state.recent.note(Refused {
            id: id.to_owned(),
            at_ms: u64::try_from(clock::unix_now().as_millis()).unwrap_or(u64::MAX),
            direction: direction.as_str().to_owned(),
            service,
            peer,
            flag: row.flag.name().to_owned(),
            code: row.code.to_string(),
            text: row.text.clone().into_owned(),
            ..Refused::default()
        });
    }

    /// Writes what is known if the series is; else leaves it with the caller, who writes it when it
    /// has a name: this connection may not move another byte for hours.
    fn flush(&mut self) {
        let open = TcpRecord { tagged: self.tagged(), ..std::mem::take(&mut self.open) };
        let set = match &self.series {
            MetricSeries::Edge(set) => Rc::clone(set),
            MetricSeries::Caller(caller, service) => {
                match caller.series(&self.worker.callers, service) {
                    Some(set) => set,
                    None => return caller.tcp(&self.worker.callers, service, open),
                }
            }
        };
        open.count(&self.worker.shared.metrics, &set);
        self.series = MetricSeries::Edge(set);
    }
}

impl Drop for TcpOutcome {
    fn drop(&mut self) {
        if self.silent {
            return;
        }
        if !self.finished {
            self.flags.set(Flag::DC);
        }
        if let Some(flag) = self.shape.as_ref().and_then(|shape| shape.flag()) {
            self.flags.set(flag);
        }
        let tagged = self.tagged();
        if let Some(facts) = self.facts.take() {
            let (facts, since) = *facts;
            let caller = self.series.caller(facts.direction);
            let finish = Finish {
                flags: self.flags,
                duration: clock::now().saturating_duration_since(since),
                sent: self.moved.0,
                received: self.moved.1,
                ..Finish::default()
            };
            self.series.told(&self.worker, &Facts { finish, caller, ..facts });
        }
        // Bytes and opening are counted without flags, since those are known only now.
        let open = std::mem::take(&mut self.open);
        let record = TcpRecord { closed: 1, flags: self.flags, tagged, ..open };
        match &self.series {
            MetricSeries::Edge(set) => record.count(&self.worker.shared.metrics, set),
            MetricSeries::Caller(caller, service) => {
                caller.tcp(&self.worker.callers, service, record);
            }
        }
    }
}

/// Relays, and counts every so often what moved meanwhile.
async fn told_every(
    interval: Duration,
    outcome: &RefCell<TcpOutcome>,
    relaying: impl Future<Output = End>,
) -> End {
    outcome.borrow_mut().held_back = true;
    let mut relaying = pin!(relaying);
    loop {
        if let Some(end) = clock::within(interval, relaying.as_mut()).await {
            return end;
        }
        let mut outcome = outcome.borrow_mut();
        if !outcome.silent {
            outcome.flush();
        }
    }
}
