//! Connections on which no TLS came about, from the counters a sidecar shows them by.
//!
//! A scrape shows how many there were so far, by reason; what is told is when the last was, to the scrape. As
//! with all of a scrape, it counts only when it was read to its end.

use std::collections::BTreeMap;

use heddle_model::WorkloadId;
use heddle_wire::local::observe_api::TlsFailure;

use crate::{
    exposition::{self, LineError},
    limits,
    measure::cut,
};

/// The metric that is read here.
pub(crate) const METRIC: &str = "heddle_tls_failures_total";

/// How many there are so far, by reason.
pub(crate) type Counts = BTreeMap<String, f64>;

/// Takes a line of that metric.
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

/// What one sidecar has told so far.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct TlsSeen {
    counts: Counts,
    /// When each was last seen to have grown, Unix time in seconds.
    last: BTreeMap<String, f64>,
}

impl TlsSeen {
    /// Takes what a scrape at `now`, Unix time in seconds, brought. What was there before the first one is
    /// not known to be of now (`ran_before`).
    pub(crate) fn take(&mut self, counts: Counts, now: f64, ran_before: bool) {
        let first = self.counts.is_empty() && ran_before;
        for (reason, count) in &counts {
            let before = self.counts.get(reason).copied().unwrap_or(0.0);
            // A sidecar that began anew counts from 0.
            if !first && *count > 0.0 && *count != before {
                self.last.insert(reason.clone(), now);
            }
        }
        self.counts = counts;
    }

    /// Those of the last `window` seconds before `now`, by the sidecar of `by`.
    pub(crate) fn within<'s>(
        &'s self,
        by: &'s str,
        now: f64,
        window: f64,
    ) -> impl Iterator<Item = TlsFailure> + 's {
        let recent = self.last.iter().filter(move |(_, last)| now - **last <= window);
        recent.map(|(reason, last)| TlsFailure {
            by: WorkloadId(by.to_owned()),
            reason: reason.clone(),
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
            line(&mut all, &format!("{METRIC}{{reason=\"{reason}\"}} {value}")).unwrap();
        }
        all
    }

    fn told(seen: &TlsSeen, now: f64) -> Vec<(String, f64, f64)> {
        seen.within("a", now, 60.0).map(|one| (one.reason, one.total, one.last)).collect()
    }

    #[test]
    fn what_has_grown_is_told_for_a_while() {
        let mut seen = TlsSeen::default();
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
        let mut seen = TlsSeen::default();
        seen.take(counts(&[("expired", 9.0)]), 100.0, true);
        assert_eq!(told(&seen, 100.0), []);
        seen.take(counts(&[("expired", 10.0)]), 101.0, true);
        assert_eq!(told(&seen, 101.0), [("expired".to_owned(), 10.0, 101.0)]);
    }
}
