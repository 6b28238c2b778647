//! A counter over time, made of what was counted in stretches of time: it rises evenly within a stretch.
//!
//! So a rate over any time is told exactly as far as the stretches are fine, and nothing is to be extrapolated, as
//! Prometheus must do with its samples. The last stretch ends with the newest scrape; who asks for the time up to now
//! is told of the same time up to that scrape.

use std::sync::Arc;

use super::labels::Labels;
use crate::limits::{GAUGE_SEEN, SERIES_IDLE_MAX, STALE_AFTER};

/// What is no number because there is none; as Prometheus marks it.
pub(crate) const ABSENT: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// Seconds after a scrape within which the next one is to be seen, with this many between them.
pub(crate) fn awaited(interval: f64) -> f64 {
    2.0 * interval + 1.0
}

/// Is there no number? A calculation that came to NaN is one.
pub(crate) fn is_absent(value: f64) -> bool {
    value.to_bits() == ABSENT.to_bits()
}

/// Time that was measured, Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Stretch {
    pub(crate) from: f64,
    pub(crate) to: f64,
}

/// Stretches that follow one another.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measured {
    stretches: Arc<[Stretch]>,
    /// Seconds between scrapes.
    interval: f64,
}

/// One series over them.
#[derive(Debug, Clone)]
pub(crate) struct Curve {
    pub(crate) labels: Labels,
    /// It has a value of its own in each stretch, and does not add up.
    pub(crate) is_gauge: bool,
    /// The first stretch in which it was.
    pub(crate) first: usize,
    /// What was counted up to the end of a stretch, for stretches in which something was.
    pub(crate) points: Vec<(u32, f64)>,
}

impl Measured {
    /// Ascending stretches without overlaps.
    pub(crate) fn new(stretches: Vec<Stretch>, interval: f64) -> Self {
        Self { stretches: stretches.into(), interval }
    }

    /// The last stretch that begins before `at`.
    fn stretch(&self, at: f64) -> Option<usize> {
        self.stretches.partition_point(|stretch| stretch.from < at).checked_sub(1)
    }

    /// The end of a period that is said to end at `at`: the newest scrape, if that is what is meant.
    fn end(&self, at: f64) -> f64 {
        let newest = self.stretches.last().map_or(at, |stretch| stretch.to);
        // A scrape is under way for most of an interval, and the next one is awaited.
        if at > newest && at - newest <= awaited(self.interval) { newest } else { at }
    }

    /// Was anything measured between these?
    fn any(&self, from: f64, to: f64) -> bool {
        self.stretch(to).is_some_and(|at| self.stretches[at].to > from)
    }

    /// Its value at `at`.
    pub(crate) fn value(&self, curve: &Curve, at: f64) -> f64 {
        let Some(last) = self.stretch(at).filter(|_| self.lives(curve, at)) else { return ABSENT };
        if at - self.stretches[last].to > STALE_AFTER {
            return ABSENT;
        }
        if !curve.is_gauge {
            return self.counted(curve, at);
        }
        let known = curve.points.partition_point(|(stretch, _)| *stretch as usize <= last);
        let (stretch, value) = known.checked_sub(1).map_or((0, 0.0), |index| curve.points[index]);
        // Not every round has scraped every sidecar; and what is 0 for all of its gauges is not stored.
        let seen = self.stretches.get(stretch as usize).map_or(at, |stretch| stretch.to);
        let fresh = GAUGE_SEEN.max(awaited(self.interval));
        if at - seen <= fresh { value } else { 0.0 }
    }

    /// What was counted in the `range` seconds before `at`.
    pub(crate) fn increase(&self, curve: &Curve, at: f64, range: f64) -> f64 {
        let end = self.end(at);
        let from = end - range;
        if curve.is_gauge || !self.lives(curve, end) || !self.any(from, end) {
            return ABSENT;
        }
        (self.counted(curve, end) - self.counted(curve, from)).max(0.0)
    }

    /// What was counted per second in the last whole stretch of the `range` seconds before `at`.
    pub(crate) fn latest_rate(&self, curve: &Curve, at: f64, range: f64) -> f64 {
        let end = self.end(at);
        let whole = self.stretches.partition_point(|stretch| stretch.to <= end).checked_sub(1);
        let stretch = whole.map(|whole| self.stretches[whole]);
        let stretch =
            stretch.filter(|stretch| stretch.to > end - range && stretch.to > stretch.from);
        let Some(Stretch { from, to }) = stretch else { return ABSENT };
        if curve.is_gauge || !self.lives(curve, end) {
            return ABSENT;
        }
        (self.counted(curve, to) - self.counted(curve, from)).max(0.0) / (to - from)
    }

    /// Its values at the ends of all stretches in the `range` seconds before `at`.
    pub(crate) fn samples(&self, curve: &Curve, at: f64, range: f64) -> Vec<(f64, f64)> {
        let first = self.stretches.partition_point(|stretch| stretch.to <= at - range);
        let within = self.stretches[first..].iter().take_while(|stretch| stretch.to <= at);
        let samples = within.map(|stretch| (stretch.to, self.value(curve, stretch.to)));
        samples.filter(|(_, value)| !is_absent(*value)).collect()
    }

    /// A series is there from the first count on, and for some time after the last.
    fn lives(&self, curve: &Curve, at: f64) -> bool {
        let first = self.stretches.get(curve.first);
        let last = curve.points.last().and_then(|(last, _)| self.stretches.get(*last as usize));
        first.is_some_and(|first| first.from < at)
            && last.is_some_and(|last| at <= last.to + SERIES_IDLE_MAX)
    }

    fn counted(&self, curve: &Curve, at: f64) -> f64 {
        let Some(stretch) = self.stretch(at) else { return 0.0 };
        let index = curve.points.partition_point(|(known, _)| (*known as usize) < stretch);
        let before = index.checked_sub(1).map_or(0.0, |index| curve.points[index].1);
        let here = curve.points.get(index).filter(|(known, _)| *known as usize == stretch);
        let Some((_, after)) = here else { return before };
        let Stretch { from, to } = self.stretches[stretch];
        let part = if to > from { ((at - from) / (to - from)).clamp(0.0, 1.0) } else { 1.0 };
        before + (after - before) * part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2 counts in each of the first five of ten seconds, none later.
    fn curve() -> (Measured, Curve) {
        let second = |n: u32| Stretch { from: f64::from(n), to: f64::from(n + 1) };
        let points = (0..5).map(|n| (n, 2.0 * f64::from(n + 1))).collect();
        let curve = Curve { labels: Labels::default(), is_gauge: false, first: 0, points };
        (Measured::new((0..10).map(second).collect(), 1.0), curve)
    }

    #[test]
    fn a_counter_rises_evenly_and_stays() {
        let (measured, curve) = curve();
        assert_eq!(measured.value(&curve, 2.5), 5.0);
        assert_eq!(measured.value(&curve, 9.0), 10.0);
        assert!(is_absent(measured.value(&curve, 0.0)), "it was not there yet");
        assert!(is_absent(measured.value(&curve, 10.0 + STALE_AFTER + 1.0)), "nobody scrapes");
    }

    #[test]
    fn a_gauge_is_what_the_last_scrape_of_its_sidecar_said() {
        let (measured, mut curve) = curve();
        curve.is_gauge = true;
        curve.points = vec![(0, 3.0), (2, 7.0)];
        assert_eq!(measured.value(&curve, 1.0), 3.0);
        assert_eq!(measured.value(&curve, 1.5), 3.0, "the second round did not reach it");
        assert_eq!(measured.value(&curve, 9.5), 7.0);
        assert_eq!(measured.value(&curve, 10.0 + GAUGE_SEEN), 0.0);
        let seldom = Measured { interval: 30.0, ..measured };
        assert_eq!(seldom.value(&curve, 60.0), 7.0, "the next scrape is not due yet");
        assert_eq!(seldom.value(&curve, 65.0), 0.0);
    }

    #[test]
    fn a_rate_over_the_last_seconds_is_one_up_to_the_last_scrape() {
        let (measured, curve) = curve();
        assert_eq!(measured.increase(&curve, 6.0, 4.0), 6.0);
        assert_eq!(measured.increase(&curve, 11.0, 6.0), 2.0, "from 4 to 10");
        assert_eq!(measured.latest_rate(&curve, 4.5, 5.0), 2.0);
        assert_eq!(measured.latest_rate(&curve, 8.5, 5.0), 0.0);
        assert!(is_absent(measured.increase(&curve, 100.0, 10.0)), "nothing was measured");
    }
}
