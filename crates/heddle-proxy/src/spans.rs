//! Finished spans on their way from the workers to thread 0: one bounded queue, which costs a worker no lock. What
//! does not fit is counted. What is done with them there is `export`'s.

use std::sync::Arc;

use heddle_model::discovery::SpanSink;
use heddle_wire::trace::span::Span;
use tokio::sync::mpsc;

use crate::{
    limits::SPANS_HANDED_OVER,
    metrics::{Metrics, SpanResult},
};

/// A span, and whom it goes to.
#[derive(Debug)]
pub struct Finished {
    /// The span.
    pub span: Span,
    /// Whom it goes to.
    pub to: Arc<SpanSink>,
}

/// The workers' end of the queue.
#[derive(Debug, Clone)]
pub struct Spans {
    queue: mpsc::Sender<Finished>,
    metrics: Arc<Metrics>,
}

impl Spans {
    /// Both ends of a queue.
    pub(crate) fn new(metrics: Arc<Metrics>) -> (Self, mpsc::Receiver<Finished>) {
        let (queue, receiver) = mpsc::channel(SPANS_HANDED_OVER);
        (Self { queue, metrics }, receiver)
    }

    /// Hands one over, or drops it.
    pub(crate) fn hand_over(&self, finished: Finished) {
        if self.queue.try_send(finished).is_err() {
            self.metrics.traces.spans(SpanResult::QueueFull, 1);
        }
    }
}
