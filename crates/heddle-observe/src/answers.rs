//! Answers to the questions of the JSON API, made from the store and the roster. Pure: no clock, no I/O.

use std::{cell::RefCell, collections::BTreeMap, net::IpAddr, rc::Rc, sync::Arc};

use heddle_model::ServiceName;
use heddle_wire::local::observe_api::{Edge, ServiceSummary, Version};
use tokio::sync::Semaphore;

use crate::{
    elsewhere::{Elsewhere, ElsewhereError, Figures},
    limits,
    measure::{Cell, Protocol, UNKNOWN},
    rates::{Sides, Sums, per},
    roster::{Roster, ServiceKind},
    rulebook::Rulebook,
    store::{Measured, Period, Store},
    tap::served::Readers,
    traces::Traces,
};

mod cause;
mod graph;
mod page;
mod rules;
mod verdict;

#[cfg(test)]
pub(crate) mod tests;

/// All that is known, as the server reads it.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) mesh: String,
    /// Whole seconds between scrapes: nothing finer can be told.
    pub(crate) interval: u64,
    pub(crate) store: Store,
    /// Who is asked for figures instead of the store.
    pub(crate) elsewhere: Option<Rc<Elsewhere>>,
    pub(crate) roster: Roster,
    /// Beside the rest: spans come in while nobody looks.
    pub(crate) traces: Rc<RefCell<Traces>>,
    pub(crate) rulebook: Rulebook,
    /// Scrapes of sidecars so far: those that were read to their end, and those that were not.
    pub(crate) scrapes: (u64, u64),
    /// Places for those who look at live calls.
    pub(crate) tap_readers: Readers,
    /// Places for queries of Prometheus' interface.
    pub(crate) queries: QueryPlaces,
}

/// Places for queries that are worked out at one time.
#[derive(Debug, Clone)]
pub(crate) struct QueryPlaces(pub(crate) Arc<Semaphore>);

impl Default for QueryPlaces {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(limits::QUERIES_AT_ONCE)))
    }
}

/// The period a question is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeRange {
    /// Seconds.
    pub(crate) window: u64,
    /// Unix time of its end; `None`: now.
    pub(crate) end: Option<u64>,
}

/// Seconds of the steps in which trouble is looked for.
const FAILING_STEP: u64 = 10;

/// Calls between two services with one protocol.
type EdgeKey = (ServiceName, ServiceName, Protocol);

/// Sums over a whole period by a key, the requests in flight apart.
struct Summed<K> {
    by: BTreeMap<K, Sides>,
    measured: Measured,
}

/// Answers a question about a period from whoever keeps the figures.
///
/// # Errors
/// They are kept elsewhere, and not to be had there.
pub(crate) async fn answered<T>(
    view: &RefCell<View>,
    asked: TimeRange,
    answer: impl FnOnce(&View, TimeRange) -> T,
) -> Result<T, ElsewhereError> {
    let Some(elsewhere) = view.borrow().elsewhere.clone() else {
        return Ok(answer(&view.borrow(), asked));
    };
    // Our own list of targets calls them by their ids, others by their addresses.
    let owner = |instance: &str| {
        let view = view.borrow();
        if let Some(member) = view.roster.members.get(instance) {
            return Some(member.owner.clone());
        }
        let host = instance.rsplit_once(':').map_or(instance, |(host, _)| host);
        let address: IpAddr = host.trim_matches(['[', ']']).parse().ok()?;
        let mut present = view.roster.present();
        present.find(|member| member.address == address).map(|member| member.owner.clone())
    };
    let Figures { store, step, window, end } =
        elsewhere.figures(asked.window, asked.end, owner).await?;
    let mut view = view.borrow_mut();
    let interval = std::mem::replace(&mut view.interval, step);
    std::mem::swap(&mut view.store, &mut store.borrow_mut());
    let told = answer(&view, TimeRange { window, end });
    std::mem::swap(&mut view.store, &mut store.borrow_mut());
    view.interval = interval;
    Ok(told)
}

impl View {
    /// The period asked about, at least one scrape long, with points at least one scrape apart.
    fn period(&self, asked: TimeRange, step: u64, twice: bool) -> Period {
        let window = asked.window.max(self.interval);
        self.store.period(window, asked.end, step.max(self.interval), twice)
    }

    /// Sums of the period by key; `None` leaves a place out.
    fn sum<K: Ord>(&self, period: &Period, key: impl Fn(&Cell) -> Option<K>) -> Summed<K> {
        let whole = period.whole();
        let mut by = BTreeMap::new();
        self.store.each(&whole, |_, cell, counts| {
            if let Some(key) = key(cell) {
                let sides: &mut Sides = by.entry(key).or_default();
                sides.side(cell.reporter).add(counts, &self.store.answers);
            }
        });
        Summed { by, measured: self.store.measured(&whole).first().copied().unwrap_or_default() }
    }

    /// Edges of the period that touch `about` (all without it).
    fn edges(&self, period: &Period, about: Option<&ServiceName>) -> Summed<EdgeKey> {
        self.sum(period, |cell| {
            let touches =
                about.is_none_or(|about| cell.source == *about || cell.destination == *about);
            (touches && cell.protocol.is_traffic())
                .then(|| (cell.source.clone(), cell.destination.clone(), cell.protocol))
        })
    }

    /// TCP bytes per second to and from each edge's callee, over a time long enough to be steady.
    fn bytes(
        &self,
        asked: TimeRange,
        about: Option<&ServiceName>,
    ) -> BTreeMap<EdgeKey, (f64, f64)> {
        let window = asked.window.max(limits::TCP_WINDOW_MIN);
        let period = self.period(TimeRange { window, ..asked }, 1, false);
        let summed = self.edges(&period, about);
        let measured = summed.measured;
        let tcp = summed.by.into_iter().filter(|((_, _, protocol), _)| *protocol == Protocol::Tcp);
        tcp.map(|(key, sides)| (key, sides.bytes(measured))).collect()
    }

    /// `http`, `tcp`, `client` or `outside`.
    fn kind(&self, service: &ServiceName, http: bool, tcp: bool) -> String {
        let word = match self.roster.services.get(service).map(|known| known.kind) {
            _ if service.namespace.is_empty() || service.is_host() => "outside",
            Some(ServiceKind::Http) => "http",
            Some(ServiceKind::Tcp) => "tcp",
            Some(ServiceKind::Undeclared) if tcp && !http => "tcp",
            Some(ServiceKind::Undeclared) => "http",
            None if http => "http",
            None if tcp => "tcp",
            None => "client",
        };
        word.to_owned()
    }

    /// A row: both sides of everything a service was asked.
    fn summary(
        &self,
        service: &ServiceName,
        received: &BTreeMap<Protocol, Sides>,
        measured: Measured,
        bytes: (f64, f64),
    ) -> ServiceSummary {
        let kind = self.kind_of(service, received);
        let sides = speaking(received, &kind);
        ServiceSummary {
            service: service.clone(),
            kind,
            client: sides.client.rates(measured),
            server: sides.server.rates(measured),
            sent_bytes_per_second: bytes.0,
            received_bytes_per_second: bytes.1,
            in_flight: None,
            versions: Vec::new(),
        }
    }

    fn kind_of(&self, service: &ServiceName, received: &BTreeMap<Protocol, Sides>) -> String {
        let tcp = received.contains_key(&Protocol::Tcp);
        let http = received.contains_key(&Protocol::Http) || received.contains_key(&Protocol::Grpc);
        self.kind(service, http, tcp)
    }

    /// Since when at least [`limits::FAILING_SHARE`] of the calls to a service have failed on either
    /// side, from the ten-second slots of the last hours. A calm mesh costs a look at the last minute.
    fn failing_since(&self, end: Option<u64>) -> BTreeMap<ServiceName, f64> {
        // Trouble of now is told on a page that reaches into the future too.
        let end = end.zip(self.store.newest()).map(|(end, newest)| end.min(newest));
        let recent = self.store.period(limits::FAILING_PAUSE, end, FAILING_STEP, false);
        let recent = self.failing_steps(&recent, |_| true);
        if recent.is_empty() {
            return BTreeMap::new();
        }
        // One slot less than are kept: the oldest one may begin within the time asked for.
        let reach = (limits::TEN_SECOND_SLOTS as u64 - 1) * FAILING_STEP;
        let period = self.store.period(reach, end, FAILING_STEP, false);
        let failing = self.failing_steps(&period, |service| recent.contains_key(service));
        let pause = limits::FAILING_PAUSE / period.step;
        failing
            .into_iter()
            .filter_map(|(service, steps)| {
                let mut backwards = steps.into_iter().rev();
                let mut earliest = backwards.next()?;
                for step in backwards {
                    if earliest - step > pause + 1 {
                        break;
                    }
                    earliest = step;
                }
                Some((service.clone(), (period.from + earliest * period.step) as f64))
            })
            .collect()
    }

    /// The steps of a period, ascending, in which each of the `wanted` services failed its callers.
    fn failing_steps(
        &self,
        period: &Period,
        wanted: impl Fn(&ServiceName) -> bool,
    ) -> BTreeMap<&ServiceName, Vec<u64>> {
        let mut all: BTreeMap<&ServiceName, BTreeMap<usize, Sides>> = BTreeMap::new();
        self.store.each(period, |step, cell, counts| {
            if cell.protocol.is_traffic() && wanted(&cell.destination) {
                let sides = all.entry(&cell.destination).or_default().entry(step).or_default();
                sides.side(cell.reporter).add(counts, &self.store.answers);
            }
        });
        all.into_iter()
            .map(|(service, steps)| {
                let failing = steps
                    .into_iter()
                    .filter(|(_, sides)| sides.failed_share() >= limits::FAILING_SHARE)
                    .map(|(step, _)| step as u64);
                (service, failing.collect::<Vec<_>>())
            })
            .filter(|(_, steps)| !steps.is_empty())
            .collect()
    }
}

impl Sides {
    /// The worse of both sides: a callee cannot count calls that never reached it.
    fn failed_share(&self) -> f64 {
        self.client.failed_share().max(self.server.failed_share())
    }
}

/// What counts as a request of a service: connections where it speaks only TCP, else requests, so that
/// an opaque side port does not blur its figures.
fn speaking(received: &BTreeMap<Protocol, Sides>, kind: &str) -> Sides {
    let mut sum = Sides::default();
    let opaque_only = !received.keys().any(|protocol| *protocol != Protocol::Tcp);
    for (protocol, sides) in received {
        if (*protocol == Protocol::Tcp) == (kind == "tcp" || opaque_only) {
            sum.merge(sides);
        }
    }
    sum
}

/// Versions with their share, by name.
fn versions(by: BTreeMap<&str, Sides>, measured: Measured) -> Vec<Version> {
    let servers = by.values().any(|sides| sides.server.any());
    let own = |sides: &Sides| if servers { sides.server.clone() } else { sides.client.clone() };
    // By requests; by bytes where connections were opened earlier and only live on.
    let asked = by.values().any(|sides| own(sides).requests > 0.0);
    let weight = |sums: &Sums| {
        if asked { sums.requests } else { sums.bytes_to_callee + sums.bytes_to_caller }
    };
    let total: f64 = by.values().map(|sides| weight(&own(sides))).sum();
    by.into_iter()
        .map(|(version, sides)| {
            let own = own(&sides);
            Version {
                version: if version.is_empty() { UNKNOWN.to_owned() } else { version.to_owned() },
                share: per(weight(&own), total),
                rates: own.rates(measured),
            }
        })
        .filter(|version| version.share > 0.0)
        .take(limits::ROWS_MAX)
        .collect()
}

/// One edge of the answer.
fn edge(key: EdgeKey, sides: &Sides, measured: Measured, bytes: (f64, f64)) -> Edge {
    let (source, destination, protocol) = key;
    Edge {
        source,
        destination,
        protocol: protocol.as_str().to_owned(),
        client: sides.client.rates(measured),
        server: sides.server.rates(measured),
        sent_bytes_per_second: bytes.0,
        received_bytes_per_second: bytes.1,
    }
}
