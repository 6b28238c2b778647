//! Finished spans on their way from the workers to thread 0: one bounded queue, which costs a worker no lock. What
//! does not fit is counted. What is done with them there is `export`'s.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use heddle_model::discovery::SpanSink;
use heddle_runtime::clock;
use heddle_wire::trace::{otlp_logs::Record, span::Span};
use tokio::sync::mpsc;

use crate::{
    limits::SPANS_HANDED_OVER,
    metrics::{ExportResult, Metrics},
    snapshot::LogCollector,
};

/// A span, or what else is told of a call, and whom it goes to.
#[derive(Debug)]
pub struct Finished<T = Span, S = SpanSink> {
    /// The span.
    pub what: T,
    /// Whom it goes to.
    pub to: Arc<S>,
}

/// A record of an access log, and whom it goes to.
pub type FinishedRecord = Finished<Record, LogCollector>;

/// The workers' end of the queue.
#[derive(Debug, Clone)]
pub struct Spans {
    queue: mpsc::Sender<Finished>,
    metrics: Arc<Metrics>,
    begun: Arc<Begun>,
}

/// How many traces began in the current second.
#[derive(Debug)]
struct Begun {
    start: Instant,
    /// The second, and below it the number.
    count: AtomicU64,
}

impl Begun {
    /// Once there have been so many it costs a look.
    fn is_among_the_first(&self, most: u32, now: Instant) -> bool {
        let second = now.saturating_duration_since(self.start).as_secs() + 1;
        let next = |count: u64| {
            let number = if count >> NUMBER == second { count & ((1 << NUMBER) - 1) } else { 0 };
            (number < u64::from(most)).then(|| second << NUMBER | (number + 1))
        };
        let order = Ordering::Relaxed;
        self.count.fetch_update(order, order, next).is_ok()
    }
}

/// Bits of the number.
const NUMBER: u32 = 24;

impl Spans {
    /// Both ends of a queue.
    pub(crate) fn new(metrics: Arc<Metrics>) -> (Self, mpsc::Receiver<Finished>) {
        let (queue, receiver) = mpsc::channel(SPANS_HANDED_OVER);
        let begun = Begun { start: clock::now(), count: AtomicU64::new(0) };
        (Self { queue, metrics, begun: Arc::new(begun) }, receiver)
    }

    /// Is a trace that begins now one of the first `most` of its second? It is counted then.
    pub(crate) fn is_among_the_first(&self, most: u32, now: Instant) -> bool {
        most > 0 && self.begun.is_among_the_first(most, now)
    }

    /// Hands one over, or drops it.
    pub(crate) fn hand_over(&self, finished: Finished) {
        if self.queue.try_send(finished).is_err() {
            self.metrics.traces.spans.add(ExportResult::QueueFull, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn of_each_second_the_first_traces_are_recorded() {
        let start = clock::now();
        let begun = Begun { start, count: AtomicU64::new(0) };
        let of =
            |at: Duration| (0..100).filter(|_| begun.is_among_the_first(3, start + at)).count();
        assert_eq!(of(Duration::from_millis(100)), 3);
        assert_eq!(of(Duration::from_millis(900)), 0);
        assert_eq!(of(Duration::from_secs(7)), 3);
    }
}
