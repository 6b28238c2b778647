//! Where time is read and waited for; clippy lets nobody else. Logic never reads it: it is told `now`.
//!
//! Reads go through tokio, so a test with a paused runtime sees its own time.
#![expect(clippy::disallowed_methods, reason = "the one door to the clock")]

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The monotonic time, for measuring and for deadlines.
#[inline]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The wall-clock time since the Unix epoch; zero if the machine's clock is set before it.
pub fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Pauses the task.
pub async fn sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Pauses the whole thread: one that runs no tasks. It sees no paused time.
pub fn block(duration: Duration) {
    std::thread::sleep(duration);
}

/// Pauses the task until `deadline`; returns at once if that has passed.
pub async fn sleep_until(deadline: Instant) {
    tokio::time::sleep_until(deadline.into()).await;
}

/// The future's output, or `None` if it took longer than `limit`; the future is dropped then.
pub async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    tokio::time::timeout(limit, future).await.ok()
}

/// A pause that can be started again without a new registration for each start.
#[derive(Debug)]
pub struct Timer(Pin<Box<tokio::time::Sleep>>);

impl Timer {
    /// Ends after `duration`.
    pub fn after(duration: Duration) -> Self {
        Self(Box::pin(tokio::time::sleep(duration)))
    }

    /// Starts again: ends `duration` from now.
    pub fn restart(&mut self, duration: Duration) {
        self.0.as_mut().reset(tokio::time::Instant::now() + duration);
    }

    /// Ready once the time has passed; else wakes the task then.
    pub fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_follows_a_paused_runtime() {
        let start = now();
        sleep(Duration::from_secs(3600)).await;
        assert_eq!(now() - start, Duration::from_secs(3600));
        sleep_until(start).await;
        assert_eq!(now() - start, Duration::from_secs(3600));
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_ends_after_its_last_start() {
        let start = now();
        let mut timer = Timer::after(Duration::from_secs(10));
        sleep(Duration::from_secs(8)).await;
        timer.restart(Duration::from_secs(10));
        std::future::poll_fn(|context| timer.poll_ended(context)).await;
        assert_eq!(now() - start, Duration::from_secs(18));
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_ends_a_future_that_never_does() {
        assert_eq!(within(Duration::from_secs(1), std::future::pending::<()>()).await, None);
        assert_eq!(within(Duration::from_secs(1), async { 7 }).await, Some(7));
    }
}
