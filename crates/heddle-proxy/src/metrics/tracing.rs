//! What is counted about traces and logs that are sent: spans, records and what became of them, contexts that nobody
//! can read, and calls of the workload that lost theirs.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
};

use heddle_wire::trace::Formats;

use super::render::family;

/// What became of a span or a record of a log, for each of those whom it goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ExportResult {
    /// Its receiver has it.
    Sent,
    /// Too many wait for a receiver.
    QueueFull,
    /// There is no connection to the receiver.
    Unreachable,
    /// The receiver did not answer in time.
    Timeout,
    /// The receiver does not want it, or answers what nobody understands.
    Refused,
}

impl ExportResult {
    const ALL: [Self; 5] =
        [Self::Sent, Self::QueueFull, Self::Unreachable, Self::Timeout, Self::Refused];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::QueueFull => "queue-full",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
        }
    }
}

/// What became of all of a sort.
#[derive(Debug, Default)]
pub(crate) struct Exported([AtomicU64; ExportResult::ALL.len()]);

impl Exported {
    /// So many ended so.
    pub(crate) fn add(&self, result: ExportResult, count: usize) {
        self.0[result as usize].fetch_add(count as u64, Ordering::Relaxed);
    }

    /// So many have so far.
    pub(crate) fn of(&self, result: ExportResult) -> u64 {
        self.0[result as usize].load(Ordering::Relaxed)
    }

    pub(super) fn write(&self, text: &mut String, name: &str, help: &str) {
        family(text, name, "counter", help);
        for result in ExportResult::ALL {
            let count = self.of(result);
            let _ = writeln!(text, "{name}{{result=\"{}\"}} {count}", result.as_str());
        }
    }
}

/// The counts.
#[derive(Debug, Default)]
pub(crate) struct TraceCounts {
    pub(crate) spans: Exported,
    malformed: [AtomicU64; Formats::ALL.len()],
    lost: AtomicU64,
}

impl TraceCounts {
    /// A request said in these forms what nobody can read.
    #[cold]
    pub(crate) fn malformed(&self, formats: Formats) {
        for (count, (format, _)) in self.malformed.iter().zip(Formats::ALL) {
            if formats.has(format) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// The workload made a call without a context while it served one that had one.
    pub(crate) fn lost(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn write(&self, text: &mut String) {
        let help = "Spans, for each of their receivers, by what became of them.";
        self.spans.write(text, "heddle_spans_total", help);
        let name = "heddle_trace_context_malformed_total";
        family(text, name, "counter", "Trace contexts of requests that nobody can read, by form.");
        for (count, (_, format)) in self.malformed.iter().zip(Formats::ALL) {
            let count = count.load(Ordering::Relaxed);
            let _ = writeln!(text, "{name}{{format=\"{format}\"}} {count}");
        }
        let name = "heddle_trace_context_lost_total";
        let help =
            "Calls that the workload made without a trace context while it served a call with one.";
        family(text, name, "counter", help);
        let _ = writeln!(text, "{name} {}", self.lost.load(Ordering::Relaxed));
    }
}
