//! Attaches to the sidecars that are concerned, and makes one stream of theirs.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::{Duration, Instant},
};

use heddle_runtime::{clock, task};
use heddle_wire::local::{
    control_api::WorkloadView,
    tap_api::{Side, TapFilter, TapLine, TappedCall},
};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

use super::{
    stream::{self, End, Event},
    ways::{Asked, Sides, Ways},
    who::{self, Who},
};

/// Pause before a sidecar that gave nothing is asked again; it doubles up to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Sidecars that are listened to at one time; each has a connection.
const SIDECARS_MAX: usize = 200;
/// Lines on their way from all sidecars; more wait in the sidecars.
const LINES_WAITING: usize = 256;
/// How long it is waited for the first answers of sidecars before it is said who is listened to.
const BEGINNING: Duration = Duration::from_secs(10);

/// A sidecar that has left the list is heard for so long: who has just ended has told of its last calls, and they are on
/// their way.
const LAST_LINES: Duration = Duration::from_secs(3);

/// Lines as they come. Dropped, it lets go of all sidecars.
#[derive(Debug)]
pub struct Tapped {
    /// Calls, what was lost, and what is to be known.
    pub lines: mpsc::Receiver<TapLine>,
    _listening: JoinSet<()>,
}

/// Begins to listen. Panics outside of [`heddle_runtime::task::run_local`].
pub fn follow(ways: impl Ways, asked: Asked) -> Tapped {
    let (out, lines) = mpsc::channel(LINES_WAITING);
    let mut listening = JoinSet::new();
    listening.spawn_local(task::contained("tap", async move {
        Follower::new(ways, asked, out).run().await;
    }));
    Tapped { lines, _listening: listening }
}

/// A sidecar that is listened to, or was tried.
struct Attached {
    /// Ends its task; `None` while there is none.
    task: Option<AbortHandle>,
    /// Has it answered, one way or another?
    settled: bool,
    /// Does it send lines now?
    listens: bool,
    /// Since when it is not listed any more.
    left: Option<Instant>,
    /// It is asked again then.
    again: Instant,
    pause: Duration,
    /// How often it has failed in a row. Once is told to nobody: who has just come is listed before its sidecar
    /// serves.
    failures: u32,
    /// A stream of it broke off, with what was under way.
    lost: bool,
}

struct Follower<W> {
    ways: Rc<W>,
    asked: Asked,
    out: mpsc::Sender<TapLine>,
    events: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    streams: JoinSet<()>,
    attached: BTreeMap<String, Attached>,
    who: Who,
    /// When it is said who is listened to, at the latest; `None`: it was said.
    begins: Option<Instant>,
    trouble_told: bool,
    left_out_told: bool,
}

impl<W: Ways> Follower<W> {
    fn new(ways: W, asked: Asked, out: mpsc::Sender<TapLine>) -> Self {
        Self {
            ways: Rc::new(ways),
            asked,
            out,
            events: mpsc::channel(LINES_WAITING),
            streams: JoinSet::new(),
            attached: BTreeMap::new(),
            who: Who::default(),
            begins: Some(clock::now() + BEGINNING),
            trouble_told: false,
            left_out_told: false,
        }
    }

    /// Until nobody reads any more.
    async fn run(mut self) {
        loop {
            if self.look().await.is_none() {
                return;
            }
            let until = clock::now() + self.ways.pause();
            loop {
                let event = tokio::select! {
                    event = self.events.1.recv() => event,
                    () = clock::sleep_until(until) => break,
                    () = self.out.closed() => return,
                };
                let Some(event) = event else { return };
                if self.heard(event).await.is_none() {
                    return;
                }
            }
            while self.streams.try_join_next().is_some() {}
        }
    }

    /// Who is there; `None` where nobody reads any more.
    async fn look(&mut self) -> Option<()> {
        let listed = tokio::select! {
            listed = self.ways.workloads() => listed,
            () = self.out.closed() => return None,
        };
        match listed {
            Ok(workloads) => {
                self.trouble_told = false;
                self.who = Who::of(&workloads);
                self.attach(workloads).await?;
            }
            Err(reason) if !self.trouble_told => {
                self.trouble_told = true;
                self.notice(format!("who comes and goes is not known: {reason}")).await?;
            }
            Err(_) => {}
        }
        self.begin_if_settled().await
    }

    async fn attach(&mut self, workloads: Vec<WorkloadView>) -> Option<()> {
        let concerned = |view: &WorkloadView| {
            let sides = who::sides(view, &self.asked);
            (view.sidecar && sides.is_some()).then_some(sides).flatten()
        };
        let wanted: Vec<_> = workloads
            .into_iter()
            .filter_map(|view| concerned(&view).map(|sides| (view, sides)))
            .collect();
        let there: BTreeSet<&str> = wanted.iter().map(|(view, _)| &*view.workload.id.0).collect();
        let now = clock::now();
        self.attached.retain(|id, one| {
            let is_there = there.contains(id.as_str());
            let left = (!is_there).then(|| one.left.unwrap_or(now));
            one.left = left;
            let stays = left.is_none_or(|left| one.task.is_some() && now - left < LAST_LINES);
            if let Some(task) = one.task.take_if(|_| !stays) {
                task.abort();
            }
            stays
        });
        let left_out = wanted.len().saturating_sub(SIDECARS_MAX);
        if left_out > 0 && !std::mem::replace(&mut self.left_out_told, true) {
            let all = wanted.len();
            let text = format!(
                "only {SIDECARS_MAX} of {all} sidecars are listened to: name a service or a workload"
            );
            self.notice(text).await?;
        }
        for (view, side) in wanted.into_iter().take(SIDECARS_MAX) {
            let one = self.attached.entry(view.workload.id.0.clone()).or_insert(Attached {
                task: None,
                settled: false,
                listens: false,
                left: None,
                again: now,
                pause: RETRY.0,
                failures: 0,
                lost: false,
            });
            if one.task.is_none() && now >= one.again {
                let unseen = self.asked.sides == Sides::Once && self.who.all_have_sidecars;
                let filter = TapFilter { side, unseen, ..self.asked.filter.clone() };
                let (ways, events) = (Rc::clone(&self.ways), self.events.0.clone());
                let listening = stream::listen(ways, view, filter, events);
                one.task = Some(self.streams.spawn_local(task::contained("tap", listening)));
            }
        }
        Some(())
    }

    /// What a stream tells; `None` where nobody reads any more.
    async fn heard(&mut self, event: Event) -> Option<()> {
        match event {
            Event::Listens(id) => {
                let Some(one) = self.attached.get_mut(&id) else { return Some(()) };
                let is_first = !std::mem::replace(&mut one.settled, true);
                (one.listens, one.pause) = (true, RETRY.0);
                let failures = std::mem::take(&mut one.failures);
                if std::mem::take(&mut one.lost) {
                    let text = format!("{id} is listened to again; calls in between are missing");
                    self.notice(text).await?;
                } else if failures > 1 {
                    self.notice(format!("{id} is listened to again")).await?;
                } else if is_first && self.begins.is_none() {
                    self.notice(format!("{id} is listened to, too")).await?;
                }
                self.begin_if_settled().await
            }
            Event::Line(TapLine::Call(mut call)) => {
                if self.is_wanted(&mut call) {
                    self.out.send(TapLine::Call(call)).await.ok()?;
                }
                Some(())
            }
            Event::Line(line) => self.out.send(line).await.ok(),
            Event::Ended(id, end) => {
                self.ended(&id, end).await?;
                self.begin_if_settled().await
            }
        }
    }

    /// Is it this one that is to be shown, with what is known here of its ends?
    fn is_wanted(&self, call: &mut TappedCall) -> bool {
        if call.side == Side::Server && call.from.id.is_none() {
            self.who.complete(&mut call.from);
            if self.asked.filter.from.as_ref().is_some_and(|from| !call.from.is(from)) {
                return false;
            }
        }
        let told_there = || {
            let id = call.to.id.as_deref();
            id.and_then(|id| self.attached.get(id)).is_some_and(|one| one.listens)
        };
        !(self.asked.sides == Sides::Once && call.seen_by_callee && told_there())
    }

    async fn ended(&mut self, id: &str, end: End) -> Option<()> {
        // It may have left while its end was waiting here.
        let Some(one) = self.attached.get_mut(id) else { return Some(()) };
        let listened = std::mem::take(&mut one.listens);
        one.task = None;
        let now = clock::now();
        let reason = match end {
            // It is as old as a stream may be, or the sidecar ends.
            End::Over => {
                one.again = now;
                return Some(());
            }
            End::Failed(reason) => reason,
        };
        // Told when it is listened to again: of one that has left nothing is missing.
        one.lost |= listened;
        one.again = now + one.pause;
        one.pause = (one.pause * 2).min(RETRY.1);
        one.failures = one.failures.saturating_add(1);
        if one.failures != 2 {
            return Some(());
        }
        one.settled = true;
        self.notice(format!("the calls that {id} sees are missing for now: {reason}")).await
    }

    /// Says once who is listened to.
    async fn begin_if_settled(&mut self) -> Option<()> {
        let Some(latest) = self.begins else { return Some(()) };
        let all = !self.attached.is_empty() && self.attached.values().all(|one| one.settled);
        if !all && clock::now() < latest && !self.attached.is_empty() {
            return Some(());
        }
        self.begins = None;
        let listening = self.attached.values().filter(|one| one.listens).count();
        let text = match (listening, self.attached.len()) {
            (0, 0) => "no workload that is meant has a sidecar; those that come are listened to"
                .to_owned(),
            (1, 1) => "listening to 1 sidecar".to_owned(),
            (some, all) if some == all => format!("listening to {all} sidecars"),
            (some, all) => format!("listening to {some} of {all} sidecars"),
        };
        self.notice(text).await
    }

    async fn notice(&self, text: String) -> Option<()> {
        self.out.send(TapLine::Notice(text)).await.ok()
    }
}

#[cfg(test)]
mod tests;
