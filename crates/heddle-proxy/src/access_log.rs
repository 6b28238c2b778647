//! Access logs: a line for each finished request or connection, written by a thread of its own, or a record that
//! `export` sends to a collector. A worker makes it and hands it over; it never waits for either. What finds no room is
//! dropped and counted.

mod render;
mod writer;

use std::{
    cell::RefCell,
    sync::{Arc, OnceLock, atomic::Ordering},
    time::Duration,
};

use heddle_logic::expression;
use heddle_runtime::clock;
use tokio::sync::mpsc;

use self::writer::Waiting;
use crate::{
    facts::Facts,
    metrics::{ExportResult, Metrics},
    snapshot::{LogPlan, LogTo},
    spans::{Finished, FinishedRecord},
};

/// Most records that wait to be taken by thread 0.
const RECORDS_WAITING_MAX: usize = 8_192;
/// Bytes that a worker keeps to make a line in; a longer one takes more for itself.
const LINE_BYTES: usize = 16 << 10;
/// How long a sidecar that ends waits for a file to take its last lines.
const FINISH: Duration = Duration::from_secs(1);

thread_local! {
    /// Where a worker makes a line.
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The lines of all workers, on their way.
#[derive(Debug)]
pub(crate) struct AccessLogs {
    /// To the thread that writes.
    lines: Arc<Waiting>,
    /// Does that run? It is started by the first line.
    started: OnceLock<bool>,
    /// Records on their way to collectors.
    records: mpsc::Sender<FinishedRecord>,
    metrics: Arc<Metrics>,
}

impl AccessLogs {
    /// None so far; those that are dropped are counted there. Records for collectors come out at the other end.
    pub(crate) fn new(metrics: Arc<Metrics>) -> (Self, mpsc::Receiver<FinishedRecord>) {
        let (records, receiver) = mpsc::channel(RECORDS_WAITING_MAX);
        let (lines, started) = (Arc::default(), OnceLock::new());
        (Self { lines, started, records, metrics }, receiver)
    }

    /// Writes what the rules of the call ask for.
    pub(crate) fn write(&self, logs: &[LogPlan], facts: &Facts, host: &str) {
        for log in logs {
            let met = log.filter.as_ref().is_none_or(|filter| expression::holds(filter, facts));
            if !met {
                continue;
            }
            match &log.to {
                LogTo::File(path) => {
                    LINE.with_borrow_mut(|line| {
                        line.clear();
                        render::write(&log.line, facts, host, line);
                        self.hand_over(path, line);
                        line.shrink_to(LINE_BYTES);
                    });
                }
                LogTo::Collector(to) => {
                    let what = render::record(log, facts, host);
                    if self.records.try_send(Finished { what, to: Arc::clone(to) }).is_err() {
                        self.dropped();
                        self.metrics.log_records.add(ExportResult::QueueFull, 1);
                    }
                }
            }
        }
    }

    /// Waits until the lines so far are written, but no longer than [`FINISH`].
    pub(crate) async fn finish(&self) {
        if self.started.get() == Some(&true) {
            let _late_or_gone = clock::within(FINISH, self.lines.written()).await;
        }
    }

    fn hand_over(&self, path: &str, line: &str) {
        let started = *self.started.get_or_init(|| {
            let dropped = Arc::clone(&self.metrics.log_lines_dropped);
            let started = writer::start(Arc::clone(&self.lines), dropped);
            if let Err(error) = &started {
                tracing::error!(%error, "no access log is written: its thread cannot be started");
            }
            started.is_ok()
        });
        if !started || !self.lines.add(path, line) {
            self.dropped();
        }
    }

    /// One found no room.
    fn dropped(&self) {
        self.metrics.log_lines_dropped.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for AccessLogs {
    fn drop(&mut self) {
        self.lines.close();
    }
}
