//! Limits on a request's time. What a limit runs from and what ends it, the request's outcome notes as it
//! happens ([`Progress`]); whoever carries the request out need not know of it.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use heddle_runtime::clock;

/// How far a request has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// When all of it had come from the client: no limit runs before.
    arrived: Cell<Option<Instant>>,
    /// Has its final answer begun to go to the client?
    answering: Cell<bool>,
    /// Has its answer ended, or become a tunnel? No limit holds after.
    over: Cell<bool>,
}

impl Progress {
    pub(crate) fn arrived(&self) {
        self.arrived.set(Some(self.arrived.get().unwrap_or_else(clock::now)));
    }

    pub(crate) fn answers(&self) {
        self.answering.set(true);
    }

    pub(crate) fn is_answering(&self) -> bool {
        self.answering.get()
    }

    pub(crate) fn ends(&self) {
        self.over.set(true);
    }

    /// When `limit` on the whole exchange is over: from the end of the request to that of its answer.
    pub(crate) fn deadline(&self, limit: Duration) -> Option<Instant> {
        self.arrived.get().filter(|_| !self.over.get())?.checked_add(limit)
    }

    /// When `limit` on an attempt is over that has its connection since `begun`: an answer that goes to
    /// the client already may take its time.
    pub(crate) fn attempt_deadline(&self, limit: Duration, begun: Instant) -> Option<Instant> {
        let since = self.arrived.get()?.max(begun);
        if self.is_answering() || self.over.get() { None } else { since.checked_add(limit) }
    }
}

/// Works until it is done, or until what `deadline` says has passed; `None` then. It is asked anew
/// whenever something may have changed, and may find that there is no limit (yet, or any more).
pub(crate) async fn until<T>(
    deadline: impl Fn() -> Option<Instant>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = pin!(work);
    let mut timer: Option<(Instant, clock::Timer)> = None;
    poll_fn(|context| {
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(Some(done));
        }
        let Some(at) = deadline() else { return Poll::Pending };
        let running = timer.take_if(|(running, _)| *running == at);
        let (_, timer) = timer.insert(running.unwrap_or_else(|| {
            let left = at.saturating_duration_since(clock::now());
            (at, clock::Timer::after(left))
        }));
        timer.poll_ended(context).map(|()| None)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::{future::pending, rc::Rc};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);

    #[tokio::test(start_paused = true)]
    async fn a_limit_runs_from_the_end_of_the_request() {
        let progress = Rc::new(Progress::default());
        let begun = clock::now();
        let upload = async {
            clock::sleep(Duration::from_secs(10)).await;
            progress.arrived();
            pending::<()>().await;
        };
        assert_eq!(until(|| progress.deadline(LIMIT), upload).await, None);
        assert_eq!((clock::now() - begun).as_secs(), 12);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_over_has_no_limit_and_an_attempt_none_once_it_answers() {
        let progress = Progress::default();
        progress.arrived();
        let tunnel = async {
            clock::sleep(Duration::from_secs(1)).await;
            progress.ends();
            clock::sleep(Duration::from_secs(60)).await;
        };
        assert_eq!(until(|| progress.deadline(LIMIT), tunnel).await, Some(()));
        let progress = Progress::default();
        progress.arrived();
        let begun = clock::now();
        let answers = async {
            clock::sleep(Duration::from_secs(1)).await;
            progress.answers();
            clock::sleep(Duration::from_secs(60)).await;
        };
        let attempt = until(|| progress.attempt_deadline(LIMIT, begun), answers).await;
        assert_eq!(attempt, Some(()));
        let stuck = until(|| progress.deadline(LIMIT), pending::<()>()).await;
        assert_eq!(stuck, None, "the whole has its limit all the same");
    }
}
