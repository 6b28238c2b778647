//! Does this request get a fault? Decided once per request, before an endpoint is picked.

use std::time::Duration;

use heddle_model::discovery::Fault;

/// What to inject. The delay comes first; an abort then answers without forwarding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultPlan {
    /// Wait this long before forwarding or aborting.
    pub delay: Option<Duration>,
    /// Answer with this HTTP status instead of forwarding.
    pub abort: Option<u16>,
}

/// Decides for one request. Delay and abort are drawn apart from each other, as in Istio; both
/// random numbers are uniform in `[0, 1)`.
#[must_use]
pub fn decide(fault: &Fault, random_delay: f64, random_abort: f64) -> FaultPlan {
    let delay = fault.delay.as_ref().filter(|delay| hit(delay.percent, random_delay));
    let abort = fault.abort.as_ref().filter(|abort| hit(abort.percent, random_abort));
    FaultPlan { delay: delay.map(|d| d.duration), abort: abort.map(|a| a.status) }
}

fn hit(percent: f64, random: f64) -> bool {
    percent >= 100.0 || random * 100.0 < percent
}

#[cfg(test)]
mod tests {
    use heddle_model::discovery::{FaultAbort, FaultDelay};
    use proptest::prelude::*;

    use super::*;

    fn fault(delay: f64, abort: f64) -> Fault {
        Fault {
            delay: Some(FaultDelay { duration: Duration::from_secs(5), percent: delay }),
            abort: Some(FaultAbort { status: 500, percent: abort }),
        }
    }

    #[test]
    fn eighty_percent_means_eighty_of_a_hundred_evenly_spread_draws() {
        let fault = fault(80.0, 0.0);
        let hits =
            (0..100).filter(|&i| decide(&fault, f64::from(i) / 100.0, 0.0).delay.is_some()).count();
        assert_eq!(hits, 80);
    }

    #[test]
    fn an_absent_fault_injects_nothing() {
        let none = Fault { delay: None, abort: None };
        assert_eq!(decide(&none, 0.0, 0.0), FaultPlan::default());
    }

    proptest! {
        #[test]
        fn nothing_at_zero_percent_and_everything_at_a_hundred(a in 0.0..1.0f64, b in 0.0..1.0f64) {
            prop_assert_eq!(decide(&fault(0.0, 0.0), a, b), FaultPlan::default());
            let all = decide(&fault(100.0, 100.0), a, b);
            prop_assert_eq!(all.delay, Some(Duration::from_secs(5)));
            prop_assert_eq!(all.abort, Some(500));
        }

        #[test]
        fn delay_and_abort_are_drawn_apart(p in 1.0..99.0f64, a in 0.0..1.0f64, b in 0.0..1.0f64) {
            let plan = decide(&fault(p, p), a, b);
            prop_assert_eq!(plan.delay.is_some(), a < p / 100.0);
            prop_assert_eq!(plan.abort.is_some(), b < p / 100.0);
        }
    }
}
