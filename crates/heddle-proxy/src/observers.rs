//! Who is told what is known of finished requests and connections: access logs, and those who look.

mod tapped;

use std::sync::Arc;

use tokio::sync::mpsc;

pub(crate) use self::tapped::{Of, Parties};
use crate::{access_log::AccessLogs, facts::Facts, metrics::Metrics, spans::FinishedRecord};

/// All of them.
#[derive(Debug)]
pub struct Observers {
    logs: AccessLogs,
}

impl Observers {
    /// All of them, and the records that are to be sent to collectors.
    pub(crate) fn new(metrics: Arc<Metrics>) -> (Self, mpsc::Receiver<FinishedRecord>) {
        let (logs, records) = AccessLogs::new(metrics);
        (Self { logs }, records)
    }

    /// The process ends: what was told so far is written first.
    pub(crate) async fn finish(&self) {
        self.logs.finish().await;
    }

    /// A request or a connection is over.
    pub(crate) fn told(&self, facts: &Facts, of: &Of<'_>) {
        if let Some(plan) = &facts.wanted.plan {
            self.logs.write(&plan.logs, facts, &of.own.name);
        }
        if let Some(taps) = &facts.wanted.taps {
            tapped::told(taps, facts, of);
        }
    }
}
