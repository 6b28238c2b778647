//! The balancer against a naive model and against small simulated services.

mod tail;

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
    simulate_seeded(42, endpoints, requests, gap, serve)
}

fn simulate_seeded(
    seed: u64,
    endpoints: usize,
    requests: u32,
    gap: Duration,
    serve: impl Fn(usize, u64) -> Completion,
) -> Vec<u32> {
    let start = any_time();
    let mut random = Random(seed);
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
    assert!((new.cost(now).total() - others[0].cost(now).total()).abs() < 1e-9);
    let alone = LoadEstimate::neutral(now, []);
    assert!((alone.cost(now).total() - LATENCY_UNKNOWN.as_secs_f64()).abs() < 1e-9);
}

#[test]
fn a_measurement_replaces_what_was_believed_and_keeps_what_is_in_flight() {
    let now = any_time();
    let mut load = LoadEstimate::neutral(now, []);
    load.begin();
    load.measured(now, 2 * MS);
    assert!((load.cost(now).total() - 0.004).abs() < 1e-9);
    assert_eq!(load.in_flight(), 1);
}

#[test]
fn a_slow_endpoint_is_tried_again_after_a_while() {
    let now = any_time();
    let mut slow = LoadEstimate::neutral(now, []);
    slow.begin();
    slow.finish(now, Completion::Success(Duration::from_secs(1)));
    let before = LATENCY_UNKNOWN.as_secs_f64();
    assert!(slow.cost(now).total() > 5.0 * before, "avoided after one answer");
    assert!(slow.cost(now + Duration::from_secs(60)).total() < 0.01);
}

#[test]
fn a_vanished_client_says_only_that_it_took_at_least_so_long() {
    let now = any_time();
    let mut load = LoadEstimate::neutral(now, []);
    let before = load.cost(now).total();
    load.begin();
    load.finish(now, Completion::Cancelled(MS));
    assert!((load.cost(now).total() - before).abs() < 1e-12);
    load.begin();
    load.finish(now, Completion::Cancelled(3_000 * MS));
    assert!((load.cost(now).total() - 3.0).abs() < 1e-9);
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

fn cost_of(ms: u32, in_flight: u32) -> Cost {
    let load = f64::from(in_flight) + 1.0;
    let latency = f64::from(ms) / 1e3;
    Cost { latency, best: latency, penalty: 1.0, load }
}

/// The share of requests that go to the dearer one of two.
fn share_of_the_dearer(ms: u32) -> f64 {
    let mut random = Random(7);
    let costs = [cost_of(ms, 0), cost_of(10, 0)];
    let dearer = (0..20_000).filter(|_| pick(2, random.next(), |i| costs[i]) == Some(0)).count();
    dearer as f64 / 20_000.0
}

#[test]
fn the_dearer_of_two_gets_the_less_the_dearer_it_is() {
    for (ms, share) in [(10, 0.5), (18, 0.5), (40, 0.017), (200, 0.000), (1_000, 0.000)] {
        let got = share_of_the_dearer(ms);
        assert!((got - share).abs() < 0.01, "{ms} ms: {got}");
    }
}

/// A request that takes about `base`; one in a hundred takes many times as long.
fn uneven(base: Duration, random: u64) -> Completion {
    let times = match random % 100 {
        0 => 5 + (random >> 8) % 30,
        _ => 1,
    };
    let jitter = 0.6 + 0.8 * ((random >> 32) as f64 / f64::from(u32::MAX));
    Completion::Success(base.mul_f64(jitter * times as f64))
}

#[test]
fn equal_copies_whose_answers_are_uneven_get_equal_shares() {
    for (base, gap) in [(2 * MS, 10 * MS), (2 * MS, 50 * MS), (2 * MS, MS), (20 * MS, 5 * MS)] {
        for seed in 0..8 {
            let served = simulate_seeded(seed, 3, 3_000, gap, |_, random| uneven(base, random));
            for count in &served {
                // Within five of a hundred; chance alone makes three.
                assert!((850..=1_150).contains(count), "{base:?} every {gap:?}: {served:?}");
            }
        }
    }
}

#[test]
fn a_failure_does_not_bring_back_a_latency_that_has_decayed() {
    let start = any_time();
    let mut load = LoadEstimate::neutral(start, []);
    load.measured(start, Duration::from_secs(5));
    let later = start + Duration::from_secs(60);
    load.begin();
    load.finish(later, Completion::Failure(MS));
    let cost = load.cost(later).total();
    assert!(cost < 0.1, "{cost}: it is not slow, it has failed once");
    let healthy = LoadEstimate::neutral(later, []).cost(later).total();
    assert!(cost > healthy, "and it does not seem the better for it");
}

proptest! {
    #[test]
    fn the_pick_is_one_of_different_candidates_and_of_alike_ones_the_less_loaded(
        costs in prop::collection::vec((1u32..4_000, 0u32..9), 1..12), random: u64,
    ) {
        let costs: Vec<Cost> = costs.into_iter().map(|(ms, load)| cost_of(ms, load)).collect();
        let mut asked = Vec::new();
        let picked = pick(costs.len(), random, |i| { asked.push(i); costs[i] }).unwrap();
        prop_assert!(picked < costs.len());
        if costs.len() > 1 {
            prop_assert!(asked.len() == 2 || asked.len() == 3 && costs.len() > 2);
            prop_assert_ne!(asked[0], asked[1]);
            prop_assert!(asked.len() < 3 || asked[2] != asked[0] && asked[2] != asked[1]);
            prop_assert!(asked.contains(&picked));
            let (one, other) = (costs[asked[0]], costs[asked[1]]);
            if one.is_alike(other) {
                prop_assert_eq!(asked.len(), 2);
                prop_assert!(costs[picked].load <= one.load.min(other.load));
            }
        }
    }

    #[test]
    fn every_candidate_is_drawn(count in 2usize..8) {
        let mut random = Random(count as u64);
        let mut seen = vec![false; count];
        for _ in 0..400 {
            let _ = pick(count, random.next(), |i| { seen[i] = true; cost_of(1, 0) });
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
        let before = load.cost(now).total();
        load.begin();
        load.finish(now, Completion::Failure(Duration::from_millis(latency)));
        prop_assert!(load.cost(now).total() >= before);
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
                    let (l, w) = (l.as_secs_f64(), (-age / 10.0).exp().min(0.7));
                    value = if l > value {
                        (value.max(0.001) * l).sqrt()
                    } else {
                        value * w + l * (1.0 - w)
                    };
                    (failing, written) = (rate * 0.8, at);
                }
                Completion::Failure(l) => {
                    let decayed = value * (-age / 10.0).exp();
                    value = decayed.max(value.min(0.03)).max(l.as_secs_f64());
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
            let real = load.cost(start + Duration::from_secs_f64(at)).total();
            prop_assert!((real - model).abs() <= 1e-6 * model, "{} {}", real, model);
            prop_assert_eq!(load.in_flight(), 0);
        }
    }
}
