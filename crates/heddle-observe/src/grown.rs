//! Counters of a sidecar of which only matters whether they have grown lately: connections on which no TLS came
//! about, calls that lost their trace.
//!
//! A scrape shows how many there were so far, by reason; what is told is when the last was, to the scrape. As
//! with all of a scrape, it counts only when it was read to its end.

use std::collections::BTreeMap;

use crate::{
    exposition::{self, LineError},
    limits,
    measure::cut,
};

/// Connections on which no TLS came about, by reason.
pub(crate) const TLS_FAILURES: &str = "heddle_tls_failures_total";
/// Calls that a workload made without a trace context while it served one that had one.
pub(crate) const LOST_CONTEXTS: &str = "heddle_trace_context_lost_total";

/// How many there are so far, by reason.
pub(crate) type Counts = BTreeMap<String, f64>;

/// Takes a line of such a metric.
///
/// # Errors
/// What is wrong with the line.
pub(crate) fn line(counts: &mut Counts, line: &str) -> Result<(), LineError> {
    let Some(sample) = exposition::parse_line(line)? else { return Ok(()) };
    let reason = cut(sample.label("reason"));
    if counts.contains_key(reason) || counts.len() < limits::TLS_REASONS_MAX {
        counts.insert(reason.to_owned(), sample.value);
    }
    Ok(())
}

/// One that has grown.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Recent<'s> {
    pub(crate) reason: &'s str,
    /// So many so far.
    pub(crate) total: f64,
    /// When it was last seen to have grown, Unix time in seconds.
    pub(crate) last: f64,
}

/// What one sidecar has told so far.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Grown {
    counts: Counts,
    /// When each was last seen to have grown, Unix time in seconds.
    last: BTreeMap<String, f64>,
}

impl Grown {
    /// Takes what a scrape at `now`, Unix time in seconds, brought. What was there before the first one is
    /// not known to be of now where the sidecar `had_past`.
    pub(crate) fn take(&mut self, counts: Counts, now: f64, had_past: bool) {
        let first = self.counts.is_empty() && had_past;
        for (reason, count) in &counts {
            let before = self.counts.get(reason).copied().unwrap_or(0.0);
            // A sidecar that began anew counts from 0.
            if !first && *count > 0.0 && *count != before {
                self.last.insert(reason.clone(), now);
            }
        }
        self.counts = counts;
    }

    /// Those that have grown in the last `window` seconds before `now`.
    pub(crate) fn within(&self, now: f64, window: f64) -> impl Iterator<Item = Recent<'_>> {
        let recent = self.last.iter().filter(move |(_, last)| now - **last <= window);
        recent.map(|(reason, last)| Recent {
            reason,
            total: self.counts.get(reason).copied().unwrap_or(0.0),
            last: *last,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(lines: &[(&str, f64)]) -> Counts {
        let mut all = Counts::new();
        for (reason, value) in lines {
            line(&mut all, &format!("{TLS_FAILURES}{{reason=\"{reason}\"}} {value}")).unwrap();
        }
        all
    }

    fn told(seen: &Grown, now: f64) -> Vec<(String, f64, f64)> {
        let recent = seen.within(now, 60.0);
        recent.map(|one| (one.reason.to_owned(), one.total, one.last)).collect()
    }

    #[test]
    fn what_has_grown_is_told_for_a_while() {
        let mut seen = Grown::default();
        seen.take(counts(&[("alert", 0.0), ("expired", 2.0)]), 100.0, false);
        assert_eq!(told(&seen, 100.0), [("expired".to_owned(), 2.0, 100.0)]);
        seen.take(counts(&[("alert", 1.0), ("expired", 2.0)]), 140.0, false);
        assert_eq!(
            told(&seen, 150.0),
            [("alert".to_owned(), 1.0, 140.0), ("expired".to_owned(), 2.0, 100.0)]
        );
        assert_eq!(told(&seen, 190.0), [("alert".to_owned(), 1.0, 140.0)]);
        seen.take(counts(&[("alert", 1.0)]), 200.0, false);
        assert_eq!(told(&seen, 210.0), []);
    }

    #[test]
    fn what_was_there_before_is_not_of_now() {
        let mut seen = Grown::default();
        seen.take(counts(&[("expired", 9.0)]), 100.0, true);
        assert_eq!(told(&seen, 100.0), []);
        seen.take(counts(&[("expired", 10.0)]), 101.0, true);
        assert_eq!(told(&seen, 101.0), [("expired".to_owned(), 10.0, 101.0)]);
    }
}
