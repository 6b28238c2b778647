//! Times, and what is said of them.

use std::time::{Duration, Instant};

use heddle_runtime::clock;
use serde_json::{Value, json};

/// Times of one sort.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<Duration>);

impl Figures {
    /// One more.
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// Those of another besides.
    pub(crate) fn join(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// How many, and by how long the given shares of them were not exceeded, ms.
    pub(crate) fn json(mut self) -> Value {
        self.0.sort_unstable();
        let quantile = |share: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a position within the list"
            )]
            let at = ((self.0.len() as f64 * share).ceil() as usize).saturating_sub(1);
            self.0.get(at).map(|time| (time.as_secs_f64() * 100_000.0).round() / 100.0)
        };
        json!({
            "count": self.0.len(), "p50": quantile(0.5), "p99": quantile(0.99), "max": quantile(1.0),
        })
    }
}

/// Waits until then, or not at all.
pub(crate) async fn pause_until(then: Instant) {
    if clock::now() < then {
        clock::sleep_until(then).await;
    }
}
