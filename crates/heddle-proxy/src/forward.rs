//! One request to an upstream: pick, connect, exchange; again if that is safe. It knows no version of
//! HTTP.
//!
//! What may be sent twice, `heddle_logic::retry` decides; [`again`] is the one place that says so.

use std::{rc::Rc, time::Instant};

use heddle_logic::{
    Decision, Replayable,
    retry::{Broken, after_connect_failure, after_reset},
};
use heddle_runtime::clock;

use crate::{
    exchange::{AnswerHead, Broke, Carrier, Exchange, Sent},
    http1::Persistence,
    memory::Pressure,
    metrics::RetryReason,
    pool::Connected,
    record::{MetricSeries, RequestOutcome},
    refusal::{Failure, Flag, Refusal},
    upstream::{Backend, HttpVersion, Upstream, Upstreams},
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
        let fresh = repeated.is_some();
        let upstream = match repeated {
            Some(upstream) => upstream,
            None => choose(worker, request, backend, &tried, now)?,
        };
        if let Some(series) = upstream.series(backend, worker.index) {
            outcome.count_as(MetricSeries::Edge(series));
        }
        let others = !Upstreams::exhausted(backend, &tried, &upstream);
        let mut attempt = upstream.begin(now);
        let mut carrier = match connect(worker, request, &upstream, (now, fresh), others).await {
            Ok(carrier) => carrier,
            Err(refusal) => {
                attempt.failed(clock::now());
                may_try_another(backend, number, refusal, outcome)?;
                worker.shared.metrics.retried(RetryReason::ConnectFailure);
                tried.push(upstream);
                continue;
            }
        };
        let reused = carrier.is_reused();
        if let Carrier::Connection(Connected { unanswered, .. }) = &mut carrier
            && let Some(opening) = unanswered.take()
        {
            worker.queue(&mut attempt, opening);
        }
        let by_answer =
            |answer: AnswerHead| again(Ended::Answered(answer, number, others)) != Decision::GiveUp;
        match request.run(worker, &mut attempt, carrier, by_answer, outcome).await {
            Ok(persistence) => return Ok(persistence),
            Err(Broke::Failed(failure)) => {
                if !failure.is_the_clients() {
                    attempt.failed(clock::now());
                }
                return Err(failure);
            }
            Err(Broke::Again) => {
                worker.shared.metrics.retried(RetryReason::ConnectFailure);
                request.rewind();
                tried.push(upstream);
                continue;
            }
            Err(broke @ (Broke::Unanswered | Broke::Unprocessed)) => {
                attempt.failed(clock::now());
                let mut broken = broken(request, reused, number);
                if matches!(broke, Broke::Unprocessed) && request.sent().kept {
                    broken.request_bytes_written = 0;
                }
                if again(Ended::Unanswered(broken)) == Decision::GiveUp {
                    return Err(Refusal::UpstreamReset.into());
                }
                worker.shared.metrics.retried(RetryReason::ReuseRace);
            }
        }
        request.rewind();
        same = Some(upstream);
    }
}

/// The upstream for the next attempt: where the client is known by its connection, else the best one.
fn choose(
    worker: &Rc<Worker>,
    request: &impl Exchange,
    backend: &Backend,
    tried: &[Rc<Upstream>],
    now: Instant,
) -> Result<Rc<Upstream>, Refusal> {
    match request.bound_to() {
        Some(bound) if tried.is_empty() && backend.is_served_by(bound) => Ok(Rc::clone(bound)),
        _ => worker.upstreams.pick(backend, tried, now, worker.random()),
    }
}

/// What carries the request to `upstream`, in the version that is spoken there: something of what is kept
/// at hand, or a new connection; a `fresh` one if one at hand just broke.
async fn connect(
    worker: &Rc<Worker>,
    request: &impl Exchange,
    upstream: &Rc<Upstream>,
    (now, fresh): (Instant, bool),
    others: bool,
) -> Result<Carrier, Refusal> {
    match request.version(upstream) {
        HttpVersion::Http1 => {
            let (replayable, tenant) = (request.replayable(), request.tenant());
            if !fresh && let Some(pooled) = upstream.pool.take(now, replayable, tenant) {
                return Ok(Carrier::Connection(pooled));
            }
            let opening = upstream.opening();
            let dialled = Box::pin(worker.dial(upstream, others)).await;
            dialled.map(|transport| Carrier::Connection(Connected::new(transport, opening)))
        }
        HttpVersion::Http2 => {
            let dial = async || match upstream.pool.take_unused(now) {
                Some(transport) => Ok(transport),
                None => worker.dial(upstream, others).await,
            };
            let stream = Box::pin(upstream.streams.take(fresh, dial)).await?;
            worker.list(upstream);
            Ok(Carrier::Stream(stream))
        }
    }
}

/// How an attempt ended, before anything of a response went to the client.
enum Ended {
    /// Attempt so and so never reached a server.
    Unconnected(u32),
    /// Its connection broke.
    Unanswered(Broken),
    /// Attempt so and so got a response head; are there other endpoints?
    Answered(AnswerHead, u32, bool),
}

/// Is the request sent once more? Nobody else says so.
fn again(ended: Ended) -> Decision {
    match ended {
        Ended::Unconnected(attempt) => after_connect_failure(attempt),
        Ended::Unanswered(broken) => after_reset(broken),
        // The next hop reached nobody, which is a connect failure seen from further off.
        Ended::Answered(AnswerHead { undelivered: true, kept: true, .. }, attempt, true) => {
            after_connect_failure(attempt)
        }
        // No rule asks for another try by status yet: every other answer is the answer.
        Ended::Answered(..) => Decision::GiveUp,
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
