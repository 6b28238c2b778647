//! What one slow copy of eight costs the slowest answers: copies that serve one request after the other,
//! requests that come whether or not others are answered, and workers that know nothing of each other.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::*;

/// A copy serves 500 requests a second, …
const SERVICE: Duration = Duration::from_millis(2);
/// … the slow one 50.
const SLOW: Duration = Duration::from_millis(20);
const PER_SECOND: f64 = 1_750.0;
const WARM_UP: Duration = Duration::from_secs(10);
const COUNTED: Duration = Duration::from_secs(20);

/// Latencies of all requests that count, and how many of them the first copy got.
fn latencies(seed: u64, workers: usize, services: &[Duration]) -> (Vec<Duration>, usize) {
    let start = any_time();
    let mut random = Random(seed);
    let fresh = || services.iter().map(|_| LoadEstimate::neutral(start, [])).collect::<Vec<_>>();
    let mut known: Vec<Vec<LoadEstimate>> = (0..workers).map(|_| fresh()).collect();
    let mut free_at = vec![start; services.len()];
    let mut under_way: BinaryHeap<Reverse<(Instant, Instant, usize, usize)>> = BinaryHeap::new();
    let (mut all, mut of_first) = (Vec::new(), 0);
    let mut now = start;
    while now < start + WARM_UP + COUNTED {
        // Poisson's arrivals.
        let gap = -(1.0 - chance(random.next())).ln() / PER_SECOND;
        now += Duration::from_secs_f64(gap);
        while let Some(Reverse((end, begun, worker, copy))) = under_way.peek().copied()
            && end <= now
        {
            under_way.pop();
            let latency = end.saturating_duration_since(begun);
            known[worker][copy].finish(end, Completion::Success(latency));
        }
        let worker = scale(random.next() as u32, workers);
        let estimates = &mut known[worker];
        let copy = pick(services.len(), random.next(), |at| estimates[at].cost(now)).unwrap();
        estimates[copy].begin();
        let end = free_at[copy].max(now) + services[copy];
        free_at[copy] = end;
        under_way.push(Reverse((end, now, worker, copy)));
        if now >= start + WARM_UP {
            all.push(end.saturating_duration_since(now));
            of_first += usize::from(copy == 0);
        }
    }
    (all, of_first)
}

fn p99(mut latencies: Vec<Duration>) -> Duration {
    latencies.sort_unstable();
    latencies[latencies.len() * 99 / 100]
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn one_slow_copy_of_eight_costs_the_tail_no_more_than_a_fifth() {
    let mut services = [SERVICE; 8];
    services[0] = SLOW;
    for workers in [1, 4] {
        let round = |seed| {
            let (with, of_slow) = latencies(seed, workers, &services);
            let (without, _) = latencies(seed, workers, &services[1..]);
            let share = of_slow as f64 / with.len() as f64;
            (p99(with).as_secs_f64() / p99(without).as_secs_f64(), share)
        };
        let rounds: Vec<(f64, f64)> = (1..=3).map(round).collect();
        let ratio = median(rounds.iter().map(|(ratio, _)| *ratio).collect());
        assert!(ratio <= 1.2, "{workers} workers: {rounds:?}");
    }
}

#[test]
fn three_equal_copies_under_light_load_get_equal_shares() {
    for workers in [1, 4] {
        let start = any_time();
        let mut random = Random(7);
        let fresh = || (0..3).map(|_| LoadEstimate::neutral(start, [])).collect::<Vec<_>>();
        let mut known: Vec<Vec<LoadEstimate>> = (0..workers).map(|_| fresh()).collect();
        let mut served = [0u32; 3];
        for at in 0..6_000 {
            let now = start + 20 * MS * at;
            let estimates = &mut known[scale(random.next() as u32, workers)];
            let copy = pick(3, random.next(), |at| estimates[at].cost(now)).unwrap();
            estimates[copy].begin();
            // From 1 to 3 ms, and every fiftieth late.
            let late = if random.next().is_multiple_of(50) { 30.0 } else { 0.0 };
            let latency = Duration::from_secs_f64((1.0 + 2.0 * chance(random.next()) + late) / 1e3);
            estimates[copy].finish(now + latency, Completion::Success(latency));
            served[copy] += 1;
        }
        assert!(served.iter().all(|count| count.abs_diff(2_000) < 400), "{workers}: {served:?}");
    }
}
