//! Who is told what is known of finished requests and connections: access logs, and those who look.

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

    /// Does somebody look who wants to know of every call?
    #[inline]
    pub(crate) fn taps(&self) -> bool {
        false
    }

    /// A request or a connection of the workload `host` is over.
    pub(crate) fn told(&self, host: &str, facts: Facts) {
        let Some(plan) = &facts.plan else { return };
        self.logs.write(&plan.logs, &facts, host);
    }
}
