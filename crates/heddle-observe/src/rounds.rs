//! The loops that fill the store: scraping the sidecars that are there, and asking for the rules.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use heddle_runtime::clock;
use heddle_wire::local::control_api::ResourceView;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::{JoinError, JoinSet},
};

use crate::{
    answers::View,
    config::ObserveConfig,
    ledger::{Ledger, Past},
    limits,
    roster::Member,
    scrape::{self, ScrapeError},
};

/// Asks the control plane for the rules, for ever: when a sidecar runs another generation, and once in a while.
pub(crate) async fn follow_rules(view: Rc<RefCell<View>>, config: Rc<ObserveConfig>) {
    let mut asked: Option<(u64, Instant)> = None;
    loop {
        let generation = view.borrow().roster.generation;
        let is_due = asked.is_none_or(|(known, at)| {
            known != generation || clock::now() - at >= limits::RULES_REFRESH
        });
        if is_due {
            let ask = config.control.get::<Vec<ResourceView>>("/v1/resources");
            match clock::within(config.control.limit(), ask).await {
                Some(Ok(told)) => {
                    let now = clock::unix_now().as_secs_f64();
                    view.borrow_mut().rulebook.update(told, now);
                    asked = Some((generation, clock::now()));
                }
                // That it does not answer is told by who follows the roster.
                Some(Err(error)) => tracing::debug!(%error, "the rules are not known"),
                None => tracing::debug!("the rules were not told in time"),
            }
        }
        clock::sleep(config.scrape_interval).await;
    }
}

/// Somebody who waits for a scrape that begins from now on.
#[derive(Debug)]
pub(crate) struct Ask {
    /// Of the sidecar of this workload, which the roster knows.
    pub(crate) id: String,
    /// Told whether it was read to its end; dropped if it cannot be.
    pub(crate) done: oneshot::Sender<bool>,
}

/// Scrapes all sidecars once per interval and whoever is asked for in between, for ever.
pub(crate) async fn keep_scraping(
    view: Rc<RefCell<View>>,
    config: Rc<ObserveConfig>,
    mut asks: mpsc::Receiver<Ask>,
) {
    let mut rounds = Rounds::new(view, config.scrape_interval);
    loop {
        let pause = until_next(clock::unix_now(), config.scrape_interval);
        rounds.between(clock::now() + pause, &mut asks).await;
        rounds.round(clock::unix_now().as_secs()).await;
    }
}

/// Time until the middle of the next interval of the wall clock: far from the edges of a slot, so
/// that no jitter of a timer puts two rounds into one second and none into the next.
fn until_next(wall: Duration, interval: Duration) -> Duration {
    let interval = interval.max(Duration::from_millis(1));
    let past = (wall + interval / 2).as_nanos() % interval.as_nanos();
    interval - Duration::from_nanos(u64::try_from(past).unwrap_or(0))
}

/// The state of the scraping loop.
struct Rounds {
    view: Rc<RefCell<View>>,
    interval: Duration,
    /// Unix time, seconds, of the first round at the earliest.
    began: u64,
    permits: Rc<Semaphore>,
    /// By workload id; absent while a scrape of it is under way.
    sidecars: BTreeMap<String, Sidecar>,
    /// Scrapes under way; one that takes longer than its round is taken over by a later one.
    under_way: JoinSet<Scraped>,
    away: BTreeMap<tokio::task::Id, String>,
    /// Who waits for the scrape of a workload that is under way.
    waiting: BTreeMap<String, Vec<oneshot::Sender<bool>>>,
    /// Asked for while one that had begun earlier was under way.
    later: Vec<Ask>,
    last: Option<Instant>,
}

/// One sidecar between two scrapes.
struct Sidecar {
    ledger: Ledger,
    /// The store's measured seconds up to which it has been counted.
    counted: f64,
    /// Not to be scraped before.
    due: Instant,
    /// When the control plane listed it last.
    listed: Instant,
}

/// What happens between two rounds.
#[expect(clippy::large_enum_variant, reason = "taken apart at once, on the stack")]
enum Next {
    Asked(Ask),
    Ended(Result<(tokio::task::Id, Scraped), JoinError>),
}

/// A scrape that has ended.
struct Scraped {
    id: String,
    sidecar: Sidecar,
    took: Duration,
    outcome: Result<(), ScrapeError>,
}

impl Rounds {
    fn new(view: Rc<RefCell<View>>, interval: Duration) -> Self {
        Self {
            view,
            interval,
            began: clock::unix_now().as_secs(),
            permits: Rc::new(Semaphore::new(limits::SCRAPES_AT_ONCE)),
            sidecars: BTreeMap::new(),
            under_way: JoinSet::new(),
            away: BTreeMap::new(),
            waiting: BTreeMap::new(),
            later: Vec::new(),
            last: None,
        }
    }

    /// One round at Unix second `at`: start what is due, wait for most of an interval, store what came.
    async fn round(&mut self, at: u64) {
        let now = clock::now();
        self.start(now, at);
        let deadline = now + self.interval * 3 / 4;
        let mut done = Vec::new();
        while !self.under_way.is_empty() {
            let left = deadline.saturating_duration_since(clock::now());
            match clock::within(left, self.under_way.join_next_with_id()).await {
                Some(Some(Ok((task, scraped)))) => {
                    self.away.remove(&task);
                    done.push(scraped);
                }
                Some(Some(Err(panicked))) => self.lost(panicked.id()),
                Some(None) | None => break,
            }
        }
        let seconds = self.last.replace(now).map_or(0.0, |last| (now - last).as_secs_f64());
        self.view.borrow_mut().store.begin_round(at, seconds);
        for scraped in done {
            self.keep(scraped);
        }
    }

    /// Until the next round begins: scrapes whoever is asked for, and stores that at once.
    async fn between(&mut self, until: Instant, asks: &mut mpsc::Receiver<Ask>) {
        loop {
            self.ask_again();
            let next = async {
                tokio::select! {
                    Some(ask) = asks.recv() => Next::Asked(ask),
                    Some(ended) = self.under_way.join_next_with_id() => Next::Ended(ended),
                    else => std::future::pending().await,
                }
            };
            let left = until.saturating_duration_since(clock::now());
            match clock::within(left, next).await {
                Some(Next::Asked(ask)) => {
                    self.ask(ask);
                }
                Some(Next::Ended(Ok((task, scraped)))) => {
                    self.away.remove(&task);
                    self.keep(scraped);
                }
                Some(Next::Ended(Err(panicked))) => self.lost(panicked.id()),
                None => return,
            }
        }
    }

    /// Begins what had to wait for the end of an earlier scrape: one for all who ask for the same workload, or many of
    /// them would each have a scrape of its own.
    fn ask_again(&mut self) {
        let mut begun = BTreeSet::new();
        for ask in std::mem::take(&mut self.later) {
            let id = ask.id.clone();
            if begun.contains(&id) {
                self.waiting.entry(id).or_default().push(ask.done);
            } else if self.ask(ask) {
                begun.insert(id);
            }
        }
    }

    /// Scrapes the one that is asked for, or does so when its scrape that has begun already has ended. Did it begin?
    fn ask(&mut self, ask: Ask) -> bool {
        // Who does not wait any more has given its place to another, so there are no more than places.
        if ask.done.is_closed() {
            return false;
        }
        if self.away.values().any(|away| *away == ask.id) {
            self.later.retain(|earlier| !earlier.done.is_closed());
            self.later.push(ask);
            return false;
        }
        let known = self.view.borrow().roster.members.get(&ask.id).cloned();
        let Some(mut member) = known else { return false };
        // One that has left the list already before it was ever scraped: when it began tells what its past is.
        member.ran_before &= member.present;
        let sidecar = self.sidecars.remove(&ask.id);
        let (now, at) = (clock::now(), clock::unix_now().as_secs());
        let sidecar = sidecar.unwrap_or_else(|| self.found(&member, now, at));
        self.waiting.entry(ask.id).or_default().push(ask.done);
        self.begin(&member, sidecar);
        true
    }

    /// Stores a scrape, and tells those who waited for it.
    fn keep(&mut self, scraped: Scraped) {
        let was_read = scraped.outcome.is_ok();
        let view = &mut *self.view.borrow_mut();
        if view.store.newest().is_none() {
            view.store.begin_round(clock::unix_now().as_secs(), 0.0);
        }
        let (id, sidecar) = store(view, scraped);
        for done in self.waiting.remove(&id).into_iter().flatten() {
            let _gone_by_now = done.send(was_read);
        }
        self.sidecars.insert(id, sidecar);
    }

    /// Starts the scrapes that are due and forgets sidecars that have left.
    fn start(&mut self, now: Instant, at: u64) {
        let members: Vec<Member> = self.view.borrow().roster.present().cloned().collect();
        self.forget_departed(&members, now);
        for member in members {
            let id = member.owner.id.clone();
            if self.away.values().any(|away| *away == id) {
                continue;
            }
            let known = self.sidecars.remove(&id);
            let sidecar = known.unwrap_or_else(|| self.found(&member, now, at));
            if sidecar.due > now {
                self.sidecars.insert(id, sidecar);
                continue;
            }
            self.begin(&member, sidecar);
        }
    }

    /// Starts the scrape of a sidecar.
    fn begin(&mut self, member: &Member, sidecar: Sidecar) {
        let id = member.owner.id.clone();
        let address = SocketAddr::from((member.address, scrape::PORT));
        let (view, permits) = (Rc::clone(&self.view), Rc::clone(&self.permits));
        let task = self.under_way.spawn_local(one(id.clone(), address, sidecar, view, permits));
        self.away.insert(task.id(), id);
    }

    /// A sidecar that is scraped for the first time, or anew after its ledger was lost.
    fn found(&self, member: &Member, now: Instant, at: u64) -> Sidecar {
        let watched_from = at.saturating_sub(limits::FOUND_WITHIN.as_secs()).max(self.began);
        let past = Past { ran_before: member.ran_before, watched_from };
        Sidecar {
            ledger: Ledger::new(member.owner.clone(), past),
            counted: self.view.borrow().store.elapsed(),
            due: now,
            listed: now,
        }
    }

    /// Drops the counters of sidecars that have not been listed for a while.
    fn forget_departed(&mut self, members: &[Member], now: Instant) {
        let listed: BTreeSet<&str> =
            members.iter().map(|member| member.owner.id.as_str()).collect();
        self.sidecars.retain(|id, sidecar| {
            if listed.contains(id.as_str()) {
                sidecar.listed = now;
            }
            now.saturating_duration_since(sidecar.listed) < limits::LEDGER_KEPT
        });
    }

    /// A scrape panicked and took its ledger with it: what the sidecar counted so far is a past again.
    fn lost(&mut self, task: tokio::task::Id) {
        let Some(id) = self.away.remove(&task) else { return };
        self.waiting.remove(&id);
        tracing::error!(workload = %id, "a scrape panicked; its counters begin with a new baseline");
        let view = &mut *self.view.borrow_mut();
        if let Some(member) = view.roster.members.get_mut(&id) {
            member.scraped = false;
            member.ran_before = true;
        }
    }
}

/// One scrape, staged into its ledger.
async fn one(
    id: String,
    address: SocketAddr,
    mut sidecar: Sidecar,
    view: Rc<RefCell<View>>,
    permits: Rc<Semaphore>,
) -> Scraped {
    let _permit = permits.acquire().await;
    let began = clock::now();
    let ledger = &mut sidecar.ledger;
    ledger.begin();
    let outcome = scrape::read_lines(address, |line| {
        let store = &mut view.borrow_mut().store;
        ledger.line(line, &mut store.cells, &mut store.answers)
    })
    .await;
    Scraped { id, sidecar, took: clock::now() - began, outcome }
}

/// Stores what a scrape brought; gives the sidecar back for the next one.
fn store(view: &mut View, scraped: Scraped) -> (String, Sidecar) {
    let Scraped { id, mut sidecar, took, outcome } = scraped;
    let succeeded = outcome.is_ok();
    view.scrapes.0 += u64::from(succeeded);
    view.scrapes.1 += u64::from(!succeeded);
    if succeeded {
        let spread = view.store.spread(sidecar.counted);
        for (cell, increase) in sidecar.ledger.commit() {
            view.store.add(&cell, &increase, &spread);
        }
        sidecar.counted = view.store.elapsed();
    }
    if let Some(member) = view.roster.members.get_mut(&id) {
        if let Err(error) = &outcome
            && member.scraped
        {
            tracing::warn!(workload = %id, %error, "cannot scrape the sidecar; its numbers pause");
        }
        member.scraped = succeeded;
        member.ejected = sidecar.ledger.ejected.take();
        member.names = sidecar.ledger.names.take();
        if succeeded {
            let counts = std::mem::take(&mut sidecar.ledger.tls);
            let now = clock::unix_now().as_secs_f64();
            let had_past = sidecar.ledger.had_past;
            member.tls.take(counts, now, had_past);
            member.lost.take(std::mem::take(&mut sidecar.ledger.lost), now, had_past);
        }
        if sidecar.ledger.take_overflow() {
            tracing::warn!(
                workload = %id,
                limit = limits::SERIES_PER_SIDECAR_MAX,
                "the sidecar has more counters than are followed; the rest is ignored"
            );
        }
    }
    let rest = if succeeded { took * limits::SCRAPE_REST } else { Duration::ZERO };
    sidecar.due = clock::now() + rest;
    (id, sidecar)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use heddle_model::ServiceName;

    use super::*;
    use crate::measure::Owner;

    fn member() -> Member {
        let owner = Owner {
            id: "api-v1-1".to_owned(),
            service: ServiceName::new("api", "default").unwrap(),
            version: "v1".to_owned(),
        };
        let member = Member::new(owner, "api-v1".to_owned(), Ipv4Addr::LOCALHOST.into());
        Member { present: true, scraped: true, ..member }
    }

    /// A scrape that found this many calls answered.
    fn scraped(view: &mut View, mut sidecar: Sidecar, calls: u64) -> Scraped {
        let line =
            format!("istio_requests_total{{reporter=\"source\",response_code=\"200\"}} {calls}");
        let store = &mut view.store;
        sidecar.ledger.begin();
        sidecar.ledger.line(line.as_bytes(), &mut store.cells, &mut store.answers).unwrap();
        Scraped { id: "api-v1-1".to_owned(), sidecar, took: Duration::ZERO, outcome: Ok(()) }
    }

    #[test]
    fn a_sidecar_that_missed_scrapes_catches_up_without_a_burst() {
        const START: u64 = 1_700_000_000;
        let view = Rc::new(RefCell::new(View::default()));
        let rounds = Rounds::new(Rc::clone(&view), Duration::from_secs(1));
        let mut sidecar = Some(rounds.found(&member(), clock::now(), START));
        let view = &mut *view.borrow_mut();
        for second in 0..=20 {
            view.store.begin_round(START + second, 1.0);
            // Seconds 6 to 15 bring no scrape.
            if (6..=15).contains(&second) {
                continue;
            }
            let scraped = scraped(view, sidecar.take().unwrap(), 7 * (second + 1));
            sidecar = Some(store(view, scraped).1);
        }
        let period = view.store.period(21, None, 1, false);
        let mut calls = vec![0.0; period.steps()];
        view.store.each(&period, |step, _, counts| calls[step] += counts[0].1);
        assert!(calls.iter().all(|count| (count - 7.0_f32).abs() < 1e-3), "{calls:?}");
    }

    #[test]
    fn a_sidecar_missing_from_the_list_for_a_moment_keeps_its_counters() {
        let view = Rc::new(RefCell::new(View::default()));
        let mut rounds = Rounds::new(view, Duration::from_secs(1));
        let now = clock::now();
        let sidecar = rounds.found(&member(), now, 1_700_000_000);
        rounds.sidecars.insert("api-v1-1".to_owned(), sidecar);
        rounds.forget_departed(&[], now + limits::LEDGER_KEPT / 2);
        assert_eq!(rounds.sidecars.len(), 1);
        rounds.forget_departed(&[member()], now + limits::LEDGER_KEPT);
        rounds.forget_departed(&[], now + limits::LEDGER_KEPT * 3 / 2);
        assert_eq!(rounds.sidecars.len(), 1, "it was listed in between");
        rounds.forget_departed(&[], now + limits::LEDGER_KEPT * 2);
        assert!(rounds.sidecars.is_empty());
    }

    #[test]
    fn rounds_fall_into_the_middle_of_a_slot() {
        let second = Duration::from_secs(1);
        for (wall, wait) in
            [(10_000, 500), (10_499, 1), (10_500, 1_000), (10_501, 999), (10_900, 600)]
        {
            let left = until_next(Duration::from_millis(wall), second);
            assert_eq!(left, Duration::from_millis(wait), "at {wall} ms");
        }
        assert!(until_next(Duration::ZERO, Duration::ZERO) <= Duration::from_millis(1));
    }
}

#[cfg(test)]
mod six_hours;
