//! What is counted about traces: spans and what became of them, contexts that nobody can read, and calls of the
//! workload that lost theirs.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
};

use heddle_wire::trace::Formats;

use super::render::family;

/// What became of a span, for each of those whom it goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum SpanResult {
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

impl SpanResult {
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

/// The counts.
#[derive(Debug, Default)]
pub(crate) struct TraceCounts {
    spans: [AtomicU64; SpanResult::ALL.len()],
    malformed: [AtomicU64; Formats::ALL.len()],
    lost: AtomicU64,
}

impl TraceCounts {
    /// So many spans ended so.
    pub(crate) fn spans(&self, result: SpanResult, count: usize) {
        self.spans[result as usize].fetch_add(count as u64, Ordering::Relaxed);
    }

    /// So many have so far.
    #[cfg(test)]
    pub(crate) fn of(&self, result: SpanResult) -> u64 {
        self.spans[result as usize].load(Ordering::Relaxed)
    }

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
        let name = "heddle_spans_total";
        family(
            text,
            name,
            "counter",
            "Spans, for each of their receivers, by what became of them.",
        );
        for result in SpanResult::ALL {
            let count = self.spans[result as usize].load(Ordering::Relaxed);
            let _ = writeln!(text, "{name}{{result=\"{}\"}} {count}", result.as_str());
        }
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
