//! Who is told what is known of finished requests and connections: access logs.

use std::sync::Arc;

use crate::{access_log::AccessLogs, facts::Facts, metrics::Metrics};

/// All of them.
#[derive(Debug)]
pub struct Observers {
    logs: AccessLogs,
}

impl Observers {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self { logs: AccessLogs::new(Arc::clone(&metrics.log_lines_dropped)) }
    }

    /// A request or a connection of the workload `host` is over.
    pub(crate) fn told(&self, host: &str, facts: &Facts) {
        self.logs.write(&facts.plan.logs, facts, host);
    }
}
