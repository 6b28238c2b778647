//! The load generator: calls `frontend` at a constant rate, bounded in time, until told to stop.

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{args::AppArgs, counts::Counts, http::Client};

/// Threads that call; a slow answer holds up one of them only.
const CALLERS: u64 = 8;
/// Lower bound of the rate, calls per second.
pub(crate) const RATE_MIN: f64 = 0.1;
/// Upper bound of the rate, calls per second.
pub(crate) const RATE_MAX: f64 = 2_000.0;

/// Stops all callers and tells when the last one has ended.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<(bool, u64)>,
    changed: Condvar,
}

impl Gate {
    fn stop(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = true;
        self.changed.notify_all();
        while state.1 > 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until `at` or until stopped; true while the load goes on.
    fn wait_until(&self, at: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.0 {
            let left = at.saturating_duration_since(now());
            if left.is_zero() {
                return true;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    fn leave(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 -= 1;
        self.changed.notify_all();
    }
}

#[expect(clippy::disallowed_methods, reason = "an application knows nothing of the mesh")]
fn now() -> Instant {
    Instant::now()
}

/// Runs the load; returns when its time is over, then stays to tell its counts.
pub(super) fn run(args: &AppArgs) -> std::io::Result<()> {
    let counts = Counts::default();
    let gate = Arc::new(Gate::default());
    gate.state.lock().unwrap_or_else(PoisonError::into_inner).1 = CALLERS;
    let at_stop = Arc::clone(&gate);
    counts.serve(&args.counts, move || at_stop.stop())?;

    let interval = Duration::from_secs_f64(1.0 / args.rate.clamp(RATE_MIN, RATE_MAX));
    let total = (args.seconds as f64 * args.rate.clamp(RATE_MIN, RATE_MAX)) as u64;
    let ticket = Arc::new(AtomicU64::new(0));
    let start = now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (gate, ticket, counts) = (Arc::clone(&gate), Arc::clone(&ticket), counts.clone());
            thread::spawn(move || {
                call_until_stopped(&gate, &ticket, &counts, start, interval, total);
                gate.leave();
            })
        })
        .collect();
    for caller in callers {
        let _ = caller.join();
    }
    loop {
        thread::park();
    }
}

fn call_until_stopped(
    gate: &Gate,
    ticket: &AtomicU64,
    counts: &Counts,
    start: Instant,
    interval: Duration,
    total: u64,
) {
    let mut client = Client::new("frontend");
    loop {
        let number = ticket.fetch_add(1, Ordering::Relaxed);
        let at = start + interval.mul_f64(number as f64);
        if number >= total || !gate.wait_until(at) {
            return;
        }
        let path = format!("/restaurants/{}", number % 12);
        let answer =
            client.get(&path, &[("x-demo-caller", "loadgen"), ("accept", "application/json")]);
        counts.sent("frontend", matches!(answer, Ok((status, _)) if status < 500));
    }
}
