//! How answers of mirrors compare with those that clients got, by mirror: bounded, under a lock that only the
//! tasks of copies take.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use super::render::family;
use crate::limits::COMPARED_MIRRORS;

macro_rules! compared {
    ($($variant:ident = $what:literal, $result:literal;)+) => {
        /// What came of comparing one thing of two answers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Compared {
            $(#[doc = concat!($what, ": ", $result)] $variant,)+
        }

        impl Compared {
            const ALL: [(Self, &str, &str); [$($what),+].len()] =
                [$((Self::$variant, $what, $result)),+];
        }
    };
}

compared! {
    StatusSame = "status", "same";
    StatusDiffers = "status", "differs";
    StatusMissing = "status", "missing";
    BodySame = "body", "same";
    BodyDiffers = "body", "differs";
    BodyMissing = "body", "missing";
    LatencySame = "latency", "same";
    LatencySlower = "latency", "slower";
    LatencyFaster = "latency", "faster";
    LatencyMissing = "latency", "missing";
}

/// Counts of one mirror.
#[derive(Debug, Default, Clone)]
struct Counts {
    compared: [u64; Compared::ALL.len()],
    /// Of both answers: how many, and their times to the head in milliseconds, the live ones' first.
    latencies: (u64, f64, f64),
}

/// Of all mirrors, by their labels.
#[derive(Debug, Default)]
pub(super) struct Comparisons(BTreeMap<String, Counts>);

impl Comparisons {
    /// Counts for the mirror of these labels; beyond [`COMPARED_MIRRORS`] for all others together.
    pub(super) fn count(
        &mut self,
        mirror: &str,
        compared: impl Iterator<Item = Compared>,
        latencies: Option<(Duration, Duration)>,
    ) {
        let known = self.0.contains_key(mirror) || self.0.len() < COMPARED_MIRRORS;
        let mirror = if known { mirror } else { "destination_service=\"overflow\",subset=\"\"" };
        let counts = self.0.entry(mirror.to_owned()).or_default();
        for one in compared {
            counts.compared[one as usize] += 1;
        }
        if let Some((live, copy)) = latencies {
            counts.latencies.0 += 1;
            counts.latencies.1 += live.as_secs_f64() * 1e3;
            counts.latencies.2 += copy.as_secs_f64() * 1e3;
        }
    }

    /// Writes them as Prometheus reads them.
    pub(super) fn write(&self, text: &mut String) {
        let name = "heddle_mirror_comparisons_total";
        family(text, name, "counter", "Answers of mirrors compared with live ones, by result.");
        for (mirror, counts) in &self.0 {
            for (one, what, result) in Compared::ALL {
                let count = counts.compared[one as usize];
                if count > 0 {
                    let _ = writeln!(
                        text,
                        "{name}{{{mirror},compared=\"{what}\",result=\"{result}\"}} {count}"
                    );
                }
            }
        }
        let name = "heddle_mirror_compared_latency_milliseconds";
        let help =
            "Times to the head of answers that were compared, of live requests and of copies.";
        family(text, name, "summary", help);
        for (mirror, counts) in &self.0 {
            let (count, live, copy) = counts.latencies;
            for (of, sum) in [("live", live), ("copy", copy)].into_iter().filter(|_| count > 0) {
                let _ = writeln!(text, "{name}_sum{{{mirror},of=\"{of}\"}} {sum}");
                let _ = writeln!(text, "{name}_count{{{mirror},of=\"{of}\"}} {count}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_beyond_the_bound_are_counted_together() {
        let mut comparisons = Comparisons::default();
        for mirror in 0..3 * COMPARED_MIRRORS {
            comparisons.count(&mirror.to_string(), [Compared::StatusSame].into_iter(), None);
        }
        assert_eq!(comparisons.0.len(), COMPARED_MIRRORS + 1);
        let mut text = String::new();
        comparisons.write(&mut text);
        let count = 2 * COMPARED_MIRRORS;
        let line = format!(
            "heddle_mirror_comparisons_total{{destination_service=\"overflow\",subset=\"\",compared=\"status\",result=\"same\"}} {count}\n"
        );
        assert!(text.contains(&line), "{text}");
    }
}
