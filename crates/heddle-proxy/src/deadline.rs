//! Limits on a request's time. What a limit runs from and what ends it, the request's outcome notes as it
//! happens ([`Progress`]); whoever carries the request out need not know of it.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use heddle_logic::route::RequestView;
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
    /// Nor does one run before this.
    from: Cell<Option<Instant>>,
}

/// Says in how many milliseconds whoever asked expects an answer (Envoy's).
pub(crate) const EXPECTED: &str = "x-envoy-expected-rq-timeout-ms";
/// The same in gRPC's words.
pub(crate) const GRPC_TIMEOUT: &str = "grpc-timeout";

/// A rule's limit, or the deadline that came with the request, where that is sooner.
pub(crate) fn within(limit: Duration, request: &dyn RequestView) -> Duration {
    let mut limit = limit;
    let mut sooner = |other: Option<Duration>| {
        limit = other.filter(|other| !other.is_zero()).map_or(limit, |other| other.min(limit));
        false
    };
    request.any_header(EXPECTED, &mut |text| sooner(expected(text)));
    request.any_header(GRPC_TIMEOUT, &mut |text| sooner(grpc_timeout(text)));
    limit
}

fn expected(text: &str) -> Option<Duration> {
    Some(Duration::from_millis(u64::from(text.trim().parse::<u32>().ok()?)))
}

/// A value of `grpc-timeout`: at most eight digits and a unit.
pub(crate) fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let valid = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| valid)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The same, written: milliseconds, or seconds where those are too many digits.
pub(crate) fn as_grpc_timeout(limit: Duration) -> String {
    match limit.as_millis() {
        millis @ ..=99_999_999 => format!("{}m", millis.max(1)),
        _ => format!("{}S", limit.as_secs().min(99_999_999)),
    }
}

/// Milliseconds for [`EXPECTED`].
pub(crate) fn as_expected(limit: Duration) -> u64 {
    u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).clamp(1, u64::from(u32::MAX))
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

    /// No limit runs before `moment`: what came until then is none of theirs.
    pub(crate) fn counts_from(&self, moment: Instant) {
        self.from.set(Some(moment));
    }

    /// When `limit` on the whole exchange is over: from the end of the request to that of its answer.
    pub(crate) fn deadline(&self, limit: Duration) -> Option<Instant> {
        let arrived = self.arrived.get().filter(|_| !self.over.get())?;
        self.from.get().map_or(arrived, |from| from.max(arrived)).checked_add(limit)
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

    #[test]
    fn a_deadline_of_grpc_is_read_and_written() {
        for (text, millis) in [("1S", 1_000), ("250m", 250), ("99999999u", 99_999), ("2M", 120_000)]
        {
            assert_eq!(grpc_timeout(text).unwrap().as_millis(), millis, "{text}");
        }
        for text in ["", "S", "1", "1s", "123456789m", "-1S", "1.5S", "é"] {
            assert_eq!(grpc_timeout(text), None, "{text}");
        }
        assert_eq!(as_grpc_timeout(Duration::from_millis(1_500)), "1500m");
        assert_eq!(as_grpc_timeout(Duration::from_secs(100_000)), "100000S");
        assert_eq!(as_grpc_timeout(Duration::ZERO), "1m");
    }

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
