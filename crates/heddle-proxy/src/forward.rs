//! One request to an upstream: pick, connect, exchange; again if that is safe. It knows no version of
//! HTTP.
//!
//! What may be sent twice, `heddle_logic::retry` decides; [`again`] is the one place that says so.

use std::rc::Rc;

use heddle_logic::{
    Decision, Replayable,
    retry::{Broken, after_connect_failure, after_reset},
};
use heddle_runtime::clock;

use crate::{
    exchange::{Broke, Exchange, Sent},
    http1::Persistence,
    memory::Pressure,
    metrics::RetryReason,
    pool::Connected,
    record::{MetricSeries, RequestOutcome},
    refusal::{Failure, Flag, Refusal},
    upstream::{Backend, Upstream},
    worker::Worker,
};

/// Sends the request to one of the backend's endpoints and its response to the client.
///
/// # Errors
/// [`Failure`]; nothing of a response has gone to the client unless it is a [`Failure::Cut`].
pub(crate) async fn forward(
    worker: &Rc<Worker>,
    request: &mut impl Exchange,
    backend: &Backend,
    outcome: &mut RequestOutcome,
) -> Result<Persistence, Failure> {
    if worker.shared.memory.pressure() >= Pressure::RefuseRequests {
        return Err(Refusal::MemoryLimit.into());
    }
    let mut tried: Vec<Rc<Upstream>> = Vec::new();
    let mut same = None;
    let mut number = 0;
    loop {
        number += 1;
        let now = clock::now();
        let repeated = same.take();
        let new_connection = repeated.is_some();
        let upstream = match repeated {
            Some(upstream) => upstream,
            None => worker.upstreams.pick(backend, &tried, now, worker.random())?,
        };
        if let Some(series) = upstream.series(backend, worker.index) {
            outcome.count_as(MetricSeries::Edge(series));
        }
        let mut attempt = upstream.begin(now);
        let pooled =
            if new_connection { None } else { upstream.pool.take(now, request.replayable()) };
        let connected = match pooled {
            Some(connected) => connected,
            None => match Box::pin(worker.dialer.dial(&upstream)).await {
                Ok(transport) => Connected { transport, reused: false },
                Err(refusal) => {
                    attempt.failed(clock::now());
                    may_try_another(backend, number, refusal, outcome)?;
                    worker.shared.metrics.retried(RetryReason::ConnectFailure);
                    tried.push(upstream);
                    continue;
                }
            },
        };
        let reused = connected.reused;
        // Only what is whole at hand can go again.
        let kept = request.replayable() == Replayable::Yes;
        let by_status = |_status| kept && again(Ended::Answered) != Decision::GiveUp;
        match request.run(worker, &mut attempt, connected, by_status, outcome).await {
            Ok(persistence) => return Ok(persistence),
            Err(Broke::Failed(failure)) => {
                if !failure.is_the_clients() {
                    attempt.failed(clock::now());
                }
                return Err(failure);
            }
            Err(Broke::Again) => {
                request.rewind();
                tried.push(upstream);
                continue;
            }
            Err(Broke::Unanswered) => {
                attempt.failed(clock::now());
                if again(Ended::Unanswered(broken(request, reused, number))) == Decision::GiveUp {
                    return Err(Refusal::UpstreamReset.into());
                }
                worker.shared.metrics.retried(RetryReason::ReuseRace);
            }
        }
        request.rewind();
        same = Some(upstream);
    }
}

/// How an attempt ended, before anything of a response went to the client.
enum Ended {
    /// Attempt so and so never reached a server.
    Unconnected(u32),
    /// Its connection broke.
    Unanswered(Broken),
    /// A response head came, of a request that may be sent twice.
    Answered,
}

/// Is the request sent once more? Nobody else says so.
fn again(ended: Ended) -> Decision {
    match ended {
        Ended::Unconnected(attempt) => after_connect_failure(attempt),
        Ended::Unanswered(broken) => after_reset(broken),
        // No rule asks for another try by status yet: every answer is the answer.
        Ended::Answered => Decision::GiveUp,
    }
}

fn broken(request: &impl Exchange, reused: bool, attempt: u32) -> Broken {
    let Sent { bytes, kept } = request.sent();
    Broken {
        reused,
        response_bytes: 0,
        request_bytes_written: bytes,
        replayable: if kept { request.replayable() } else { Replayable::No },
        attempt,
    }
}

/// After a connection that failed with `refusal`: the next endpoint's turn, or the refusal.
fn may_try_another(
    backend: &Backend,
    attempt: u32,
    refusal: Refusal,
    outcome: &RequestOutcome,
) -> Result<(), Refusal> {
    // Where there is no other to go to, the failure is the answer.
    if matches!(backend, Backend::Upstream(_)) {
        return Err(refusal);
    }
    if again(Ended::Unconnected(attempt)) == Decision::GiveUp {
        outcome.flag(Flag::URX);
        return Err(refusal);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
