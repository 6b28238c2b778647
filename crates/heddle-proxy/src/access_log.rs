//! Access logs: a line for each finished request or connection, written by a thread of its own, or a record that
//! `export` sends to a collector. A worker makes it and hands it over; it never waits for either. What finds no room is
//! dropped and counted.

mod render;
mod writer;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::Ordering,
        mpsc::{SyncSender, sync_channel},
    },
    time::Duration,
};

use heddle_logic::expression;
use heddle_runtime::clock;
use tokio::sync::{mpsc, oneshot};

use self::writer::{Line, Order};
use crate::{
    facts::Facts,
    metrics::{ExportResult, Metrics},
    snapshot::{LogPlan, LogTo},
    spans::{Finished, FinishedRecord},
};

/// Most lines that wait to be written, and most records that wait to be taken by thread 0.
const LINES_WAITING_MAX: usize = 8_192;
/// How long a sidecar that ends waits for a file to take its last lines.
const FINISH: Duration = Duration::from_secs(1);

/// The lines of all workers, on their way.
#[derive(Debug)]
pub(crate) struct AccessLogs {
    /// To the thread that writes; started by the first line. `None` within: it could not be.
    lines: OnceLock<Option<SyncSender<Order>>>,
    /// Records on their way to collectors.
    records: mpsc::Sender<FinishedRecord>,
    metrics: Arc<Metrics>,
}

impl AccessLogs {
    /// None so far; those that are dropped are counted there. Records for collectors come out at the other end.
    pub(crate) fn new(metrics: Arc<Metrics>) -> (Self, mpsc::Receiver<FinishedRecord>) {
        let (records, receiver) = mpsc::channel(LINES_WAITING_MAX);
        (Self { lines: OnceLock::new(), records, metrics }, receiver)
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
                    let text = render::line(&log.line, facts, host);
                    self.hand_over(Line { path: path.clone(), text });
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
        let Some(Some(lines)) = self.lines.get() else { return };
        let (done, written) = oneshot::channel();
        if lines.try_send(Order::Finish(done)).is_ok() {
            let _late_or_gone = clock::within(FINISH, written).await;
        }
    }

    fn hand_over(&self, line: Line) {
        let lines = self.lines.get_or_init(|| {
            let (sender, receiver) = sync_channel(LINES_WAITING_MAX);
            match writer::start(receiver, Arc::clone(&self.metrics.log_lines_dropped)) {
                Ok(_handle) => Some(sender),
                Err(error) => {
                    tracing::error!(%error, "no access log is written: its thread cannot be started");
                    None
                }
            }
        });
        let taken = lines.as_ref().is_some_and(|lines| lines.try_send(Order::Write(line)).is_ok());
        if !taken {
            self.dropped();
        }
    }

    /// One found no room.
    fn dropped(&self) {
        self.metrics.log_lines_dropped.fetch_add(1, Ordering::Relaxed);
    }
}
