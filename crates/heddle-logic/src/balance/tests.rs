//! The balancer against a naive model and against small simulated services.

use proptest::prelude::*;

use super::*;

/// The tests begin at some time, and add to it.
#[expect(clippy::disallowed_methods, reason = "an `Instant` has no other source")]
fn any_time() -> Instant {
    Instant::now()
}

const MS: Duration = Duration::from_millis(1);

/// A small fixed generator (SplitMix64), so that a failing run can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// Sends `requests` requests, `gap` apart, to endpoints whose behaviour `serve` gives by endpoint
/// and a random number; returns how many each got. Requests overlap: each ends after its latency.
fn simulate(
    endpoints: usize,
    requests: u32,
    gap: Duration,
    serve: impl Fn(usize, u64) -> Completion,
) -> Vec<u32> {
    let start = any_time();
    let mut random = Random(42);
    let mut loads: Vec<LoadEstimate> =
        (0..endpoints).map(|_| LoadEstimate::neutral(start, [])).collect();
    let mut running: Vec<(Instant, usize, Completion)> = Vec::new();
    let mut served = vec![0; endpoints];
    for i in 0..requests {
        let now = start + gap * i;
        running.sort_by_key(|&(end, ..)| end);
        let ended = running.partition_point(|&(end, ..)| end <= now);
        for (end, endpoint, completion) in running.drain(..ended) {
            loads[endpoint].finish(end, completion);
        }
        let endpoint = pick(endpoints, random.next(), |i| loads[i].cost(now)).unwrap();
        loads[endpoint].begin();
        served[endpoint] += 1;
        let completion = serve(endpoint, random.next());
        let (Completion::Success(latency)
        | Completion::Failure(latency)
        | Completion::Cancelled(latency)) = completion;
        running.push((now + latency, endpoint, completion));
    }
    served
}

#[test]
fn equal_endpoints_share_evenly() {
    let served = simulate(3, 30_000, MS, |_, _| Completion::Success(10 * MS));
    for count in &served {
        assert!((8_500..11_500).contains(count), "{served:?}");
    }
}

#[test]
fn a_slow_endpoint_gets_little() {
    let served = simulate(3, 30_000, MS, |endpoint, _| {
        Completion::Success(if endpoint == 0 { 200 * MS } else { 10 * MS })
    });
    assert!(served[0] < 1_000, "{served:?}");
}

#[test]
fn fast_errors_attract_no_traffic() {
    // Healthy endpoints are slower than the failing one, also slower than the unknown estimate.
    for (healthy, gap) in [(2 * MS, MS), (20 * MS, MS), (200 * MS, MS), (5_000 * MS, 10 * MS)] {
        let served = simulate(3, 30_000, gap, |endpoint, _| match endpoint {
            0 => Completion::Failure(Duration::from_micros(100)),
            _ => Completion::Success(healthy),
        });
        assert!(served[0] < 3_000, "healthy {healthy:?}: {served:?}");
    }
}

#[test]
fn at_low_rates_a_failing_endpoint_never_gets_more_than_its_share() {
    for gap in [100 * MS, 1_000 * MS, 10_000 * MS, 60_000 * MS] {
        let served = simulate(3, 3_000, gap, |endpoint, _| match endpoint {
            0 => Completion::Failure(MS),
            _ => Completion::Success(50 * MS),
        });
        assert!(served[0] <= 1_100, "one every {gap:?}: {served:?}");
    }
}

#[test]
fn evenly_spread_failures_do_not_herd_traffic() {
    let served = simulate(4, 40_000, MS, |_, random| match random % 100 {
        0..5 => Completion::Failure(20 * MS),
        _ => Completion::Success(20 * MS),
    });
    for count in &served {
        assert!((8_500..11_500).contains(count), "{served:?}");
    }
}

#[test]
fn a_new_endpoint_starts_at_the_median_of_the_others() {
    let now = any_time();
    let load = |latency| {
        let mut load = LoadEstimate::neutral(now, []);
        load.begin();
        load.finish(now, Completion::Success(latency));
        load
    };
    let others = [load(400 * MS), load(80 * MS), load(4_000 * MS)];
    let new = LoadEstimate::neutral(now, &others);
    assert!((new.cost(now) - others[0].cost(now)).abs() < 1e-9);
    let alone = LoadEstimate::neutral(now, []);
    assert!((alone.cost(now) - LATENCY_UNKNOWN.as_secs_f64()).abs() < 1e-9);
}

#[test]
fn a_measurement_replaces_what_was_believed_and_keeps_what_is_in_flight() {
    let now = any_time();
    let mut load = LoadEstimate::neutral(now, []);
    load.begin();
    load.measured(now, 2 * MS);
    assert!((load.cost(now) - 0.004).abs() < 1e-9);
    assert_eq!(load.in_flight(), 1);
}

#[test]
fn a_slow_endpoint_is_tried_again_after_a_while() {
    let now = any_time();
    let mut slow = LoadEstimate::neutral(now, []);
    slow.begin();
    slow.finish(now, Completion::Success(Duration::from_secs(1)));
    assert!(slow.cost(now) > 0.9);
    assert!(slow.cost(now + Duration::from_secs(60)) < 0.01);
}

#[test]
fn a_vanished_client_says_only_that_it_took_at_least_so_long() {
    let now = any_time();
    let mut load = LoadEstimate::neutral(now, []);
    let before = load.cost(now);
    load.begin();
    load.finish(now, Completion::Cancelled(MS));
    assert!((load.cost(now) - before).abs() < 1e-12);
    load.begin();
    load.finish(now, Completion::Cancelled(3_000 * MS));
    assert!((load.cost(now) - 3.0).abs() < 1e-9);
}

fn completion() -> impl Strategy<Value = Completion> {
    (0u64..5_000, 0..3u8).prop_map(|(ms, kind)| {
        let latency = Duration::from_millis(ms);
        match kind {
            0 => Completion::Success(latency),
            1 => Completion::Failure(latency),
            _ => Completion::Cancelled(latency),
        }
    })
}

proptest! {
    #[test]
    fn the_pick_is_one_of_two_different_candidates_and_the_cheaper(
        costs in prop::collection::vec(0.0..9.0f64, 1..12), random: u64,
    ) {
        let mut asked = Vec::new();
        let picked = pick(costs.len(), random, |i| { asked.push(i); costs[i] }).unwrap();
        prop_assert!(picked < costs.len());
        if costs.len() > 1 {
            prop_assert_eq!(asked.len(), 2);
            prop_assert_ne!(asked[0], asked[1]);
            prop_assert!(asked.iter().all(|&i| costs[i] >= costs[picked]));
        }
    }

    #[test]
    fn every_candidate_is_drawn(count in 2usize..8) {
        let mut random = Random(count as u64);
        let mut seen = vec![false; count];
        for _ in 0..400 {
            let _ = pick(count, random.next(), |i| { seen[i] = true; 1.0 });
        }
        prop_assert!(seen.iter().all(|&s| s));
    }

    #[test]
    fn a_failure_never_makes_an_endpoint_cheaper(
        history in prop::collection::vec((completion(), 0u64..20_000), 0..20),
        wait in 0u64..60_000, latency in 0u64..10_000,
    ) {
        let mut now = any_time();
        let mut load = LoadEstimate::neutral(now, []);
        for (completion, gap) in history {
            now += Duration::from_millis(gap);
            load.begin();
            load.finish(now, completion);
        }
        now += Duration::from_millis(wait);
        let before = load.cost(now);
        load.begin();
        load.finish(now, Completion::Failure(Duration::from_millis(latency)));
        prop_assert!(load.cost(now) >= before);
    }

    #[test]
    fn estimates_follow_a_naive_model(
        history in prop::collection::vec((completion(), 0u64..20_000), 1..30),
    ) {
        // The model keeps what was last written and applies the definition in full each time.
        let start = any_time();
        let (mut value, mut failing, mut written, mut at) = (0.03f64, 0.0f64, 0.0f64, 0.0f64);
        let mut load = LoadEstimate::neutral(start, []);
        for (completion, gap) in history {
            at += gap as f64 / 1e3;
            let age = at - written;
            let rate = failing * (-age / 30.0).exp();
            match completion {
                Completion::Success(l) => {
                    let (l, w) = (l.as_secs_f64(), (-age / 10.0).exp());
                    value = if l > value { l } else { value * w + l * (1.0 - w) };
                    (failing, written) = (rate * 0.8, at);
                }
                Completion::Failure(l) => {
                    value = value.max(l.as_secs_f64());
                    (failing, written) = (rate + 0.2 * (1.0 - rate), at);
                }
                Completion::Cancelled(l) if l.as_secs_f64() > value * (-age / 10.0).exp() => {
                    value = l.as_secs_f64();
                    (failing, written) = (rate, at);
                }
                Completion::Cancelled(_) => {}
            }
            load.begin();
            load.finish(start + Duration::from_secs_f64(at), completion);
            let model = (value * (-(at - written) / 10.0).exp()).max(0.001)
                / (1.0 - failing * (-(at - written) / 30.0).exp()).max(0.01).powi(3);
            let real = load.cost(start + Duration::from_secs_f64(at));
            prop_assert!((real - model).abs() <= 1e-6 * model, "{} {}", real, model);
            prop_assert_eq!(load.in_flight(), 0);
        }
    }
}
