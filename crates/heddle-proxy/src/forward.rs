//! One request to an upstream: pick, connect, exchange; again if that is safe. It knows no version of
//! HTTP.
//!
//! What may be sent twice, `heddle_logic::retry` decides; [`again`] is the one place that says so.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use heddle_logic::retry::{Answered, Attempts, Ended, RetryPolicy, Standing, Verdict};
use heddle_runtime::{clock, tls::Asks};

use crate::{
    breaker::{Counted, Limit},
    compared::Mirrored,
    deadline::{Progress, as_expected, until},
    direction::Direction,
    exchange::{AnswerHead, Broke, Carrier, Exchange, Judged, Sent},
    facts::Facts,
    http1::Persistence,
    memory::Pressure,
    metrics::RetryReason,
    one_hop::{MARK, Mark},
    pool::Connected,
    record::{MetricSeries, RequestOutcome},
    refusal::{Failure, Flag, Refusal},
    streams::HttpVersion,
    upstream::{Ask, Attempt, Backend, Upstream, Upstreams},
    worker::Worker,
};

/// Attempts after which a connection that takes no request is the endpoint's failure.
const WRONG_CONNECTIONS_MAX: u32 = 3;

/// What a rule says about sending a request.
#[derive(Debug, Default)]
pub(crate) struct Terms<'a> {
    /// When it is sent again; `None` where the rule says nothing.
    pub(crate) retries: Option<&'a RetryPolicy>,
    /// Is it a gRPC call?
    pub(crate) grpc: bool,
    /// Most time for all of it.
    pub(crate) limit: Option<Duration>,
    /// How far it has come, where a limit on an attempt needs to know.
    pub(crate) progress: Option<Rc<Progress>>,
    /// Who gets a copy of it.
    pub(crate) mirrors: Vec<Mirrored>,
    /// The hash of what a rule tells requests apart by.
    pub(crate) hash: Option<u64>,
}

impl Terms<'_> {
    fn ask(&self, worker: &Worker, now: Instant) -> Ask {
        let elsewhere = self.retries.is_some_and(|policy| policy.other_localities);
        Ask { hash: self.hash, elsewhere, ..Ask::new(now, worker.random()) }
    }

    /// Milliseconds that are left of what limits the next attempt.
    fn left(&self, now: Instant) -> Option<u64> {
        let whole = self.limit.map(|limit| match &self.progress {
            Some(progress) => {
                let deadline = progress.deadline(limit);
                deadline.map_or(limit, |at| at.saturating_duration_since(now))
            }
            None => limit,
        });
        let attempt = self.retries.and_then(|policy| policy.per_try_timeout);
        whole.into_iter().chain(attempt).min().map(as_expected)
    }
}

/// Sends the request to one of the backend's endpoints and its response to the client.
///
/// # Errors
/// [`Failure`]; nothing of a response has gone to the client unless it is a [`Failure::Cut`].
pub(crate) async fn forward(
    worker: &Rc<Worker>,
    request: &mut impl Exchange,
    backend: &Backend,
    terms: Terms<'_>,
    outcome: &mut RequestOutcome,
) -> Result<Persistence, Failure> {
    outcome.noting(|facts| facts.id(request.id()));
    if worker.shared.memory.pressure() >= Pressure::RefuseRequests {
        return Err(Refusal::MemoryLimit.into());
    }
    let spent = &worker.shared.state.spent;
    if terms.retries.is_some() {
        spent.watch();
    }
    // To tell the caller's sidecar that there were attempts enough behind this.
    let inbound = outcome.direction() == Direction::Inbound && spent.is_watching();
    let id = inbound.then(|| request.id().map(|id| spent.key(id))).flatten();
    let in_vain = Cell::new(false);
    let result = attempts(worker, request, backend, (terms, id, &in_vain), outcome).await;
    // Before anybody has had the time to make something of the answer.
    if in_vain.get()
        && !outcome.is_copy()
        && let Some(id) = request.id()
    {
        spent.note(spent.key(id), clock::now());
    }
    result
}

/// One attempt after another.
async fn attempts(
    worker: &Rc<Worker>,
    request: &mut impl Exchange,
    backend: &Backend,
    (terms, id, in_vain): (Terms<'_>, Option<u64>, &Cell<bool>),
    outcome: &mut RequestOutcome,
) -> Result<Persistence, Failure> {
    let _counted = backend.enter(Limit::Requests)?;
    let retrying = RefCell::default();
    if let Backend::Cluster(cluster) = backend {
        cluster.retries.request(worker.index);
    }
    let mut attempts = Attempts::new(terms.retries, terms.grpc);
    let mut tried: Vec<Rc<Upstream>> = Vec::new();
    let mut same = None;
    loop {
        let now = clock::now();
        let fresh = same.is_some();
        let upstream = match same.take() {
            Some(upstream) => upstream,
            None => choose(worker, request, backend, &tried, terms.ask(worker, now))?,
        };
        if let Some(series) = upstream.series(backend.service(), worker.index) {
            outcome.count_as(MetricSeries::Edge(series));
        }
        if let Some(span) = outcome.span() {
            span.goes_to(backend, &upstream);
        }
        let others = !Upstreams::exhausted(backend, &tried, &upstream);
        let so_far = (&attempts, &retrying);
        let asking = Asking::of(worker, backend, so_far, (others, id, in_vain));
        outcome.noting(|facts| upstream.tell(facts));
        let mut attempt = upstream.begin(now);
        let more = match connect(worker, request, &upstream, (now, fresh), others).await? {
            Ok(carrier) => {
                outcome.noting(|facts| carried(facts, &carrier));
                let terms = (terms.retries, terms.progress.as_deref());
                match exchange(request, &mut attempt, carrier, &asking, terms, outcome).await? {
                    Next::Done(persistence) => return Ok(persistence),
                    Next::Again(more) => more,
                }
            }
            Err(refusal) => {
                attempt.refused(clock::now(), &refusal);
                undelivered(&asking, refusal, standing(request, false), outcome)?
            }
        };
        drop(attempt);
        worker.shared.metrics.retried(more.reason);
        if let Some(span) = outcome.span() {
            span.event(format!("sent again: {}", more.reason.as_str()));
        }
        attempts.next(more.verdict);
        match more.verdict {
            Verdict::Replay => same = Some(upstream),
            _ if terms.retries.is_some_and(|policy| policy.same_endpoint) => {}
            _ => tried.push(upstream),
        }
        if let Verdict::Again(most) = more.verdict
            && !most.is_zero()
        {
            let pause = clock::sleep(most.mul_f64(worker.random_share()));
            while_client_stays(request.client().1, pause).await?;
        }
        request.rewind(attempts.number(), terms.left(clock::now()));
    }
}

/// Both ends of what carries an attempt; a connection of HTTP/2 is shared, and its ends are not asked for.
fn carried(facts: &mut Facts, carrier: &Carrier) {
    if let Carrier::Connection(connected) = carrier {
        let (local, remote) = connected.transport.ends();
        facts.carried(local, remote);
    }
}

/// What follows an attempt that had no connection.
///
/// # Errors
/// Why it had none, if that is the end.
fn undelivered(
    asking: &Asking<'_>,
    refusal: Refusal,
    standing: Standing,
    outcome: &RequestOutcome,
) -> Result<More, Refusal> {
    // A limit of the cluster's is the same at each of its endpoints.
    if matches!(refusal, Refusal::Overflow(_)) {
        return Err(refusal);
    }
    again(asking, Ended::Undelivered, standing, outcome).ok_or(refusal)
}

/// What follows an attempt that had a connection.
enum Next {
    Done(Persistence),
    Again(More),
}

/// Why and how a request is sent once more.
#[derive(Debug, Clone, Copy)]
struct More {
    verdict: Verdict,
    reason: RetryReason,
}

/// One exchange with an upstream, within the time that the rule gives an attempt.
async fn exchange(
    request: &mut impl Exchange,
    attempt: &mut Attempt,
    mut carrier: Carrier,
    asking: &Asking<'_>,
    (policy, progress): (Option<&RetryPolicy>, Option<&Progress>),
    outcome: &RequestOutcome,
) -> Result<Next, Failure> {
    let reused = carrier.is_reused();
    queue(asking.worker, attempt, &mut carrier);
    let replayable = request.replayable();
    let wanted = Cell::new(None);
    let by_answer = |answer: AnswerHead<'_>| {
        let standing = Standing { replayable, kept: answer.kept, reused };
        judge(asking, &answer, standing, &wanted, outcome)
    };
    let limit = policy.and_then(|policy| policy.per_try_timeout);
    let result = match limit.zip(progress) {
        None => request.run(asking.worker, attempt, carrier, by_answer, outcome).await,
        Some((limit, progress)) => {
            let begun = clock::now();
            let run = request.run(asking.worker, attempt, carrier, by_answer, outcome);
            let within = until(|| progress.attempt_deadline(limit, begun), run);
            match Box::pin(within).await {
                Some(result) => result,
                None => {
                    attempt.failed(clock::now());
                    let standing = standing(request, reused);
                    let more = again(asking, Ended::TimedOut, standing, outcome);
                    return more.map(Next::Again).ok_or_else(|| Refusal::Timeout(limit).into());
                }
            }
        }
    };
    match result {
        Ok(persistence) => Ok(Next::Done(persistence)),
        Err(Broke::Failed(failure)) => {
            if !failure.is_the_clients() {
                attempt.failed(clock::now());
            }
            Err(failure)
        }
        // It said so itself.
        Err(Broke::Again) => {
            wanted.get().map(Next::Again).ok_or_else(|| Refusal::UpstreamReset.into())
        }
        Err(Broke::WrongConnection)
            if request.sent().kept && asking.attempts.number() <= WRONG_CONNECTIONS_MAX =>
        {
            let (verdict, reason) = (Verdict::Replay, RetryReason::Connection);
            Ok(Next::Again(More { verdict, reason }))
        }
        Err(Broke::Unprocessed | Broke::WrongConnection) => {
            attempt.failed(clock::now());
            let more = again(asking, Ended::Refused, standing(request, reused), outcome);
            more.map(Next::Again).ok_or_else(|| request.unprocessed())
        }
        Err(Broke::Unanswered) => {
            let begun = request.sent().bytes > 0;
            let more = again(asking, Ended::Broken { begun }, standing(request, reused), outcome);
            let there_again = more.is_some_and(|more| more.verdict == Verdict::Replay);
            attempt.broke(clock::now(), !there_again);
            more.map(Next::Again).ok_or_else(|| Refusal::UpstreamReset.into())
        }
    }
}

/// What is made of the head of an answer; `wanted`: how it is sent again, where it is.
fn judge(
    asking: &Asking<'_>,
    answer: &AnswerHead<'_>,
    standing: Standing,
    wanted: &Cell<Option<More>>,
    outcome: &RequestOutcome,
) -> Judged {
    outcome.noting(|facts| facts.answered(answer.field));
    if let Some(judged) = by_mark(asking, answer, outcome) {
        return judged;
    }
    wanted.set(again_by_answer(asking, answer, standing, outcome));
    match wanted.get() {
        Some(_) => Judged::Again,
        None => marked(asking, answer, outcome),
    }
}

fn standing(request: &impl Exchange, reused: bool) -> Standing {
    let Sent { kept, .. } = request.sent();
    Standing { replayable: request.replayable(), kept, reused }
}

/// Who asks whether there is to be another attempt.
struct Asking<'a> {
    worker: &'a Rc<Worker>,
    backend: &'a Backend,
    attempts: &'a Attempts<'a>,
    /// The retry that a rule allowed, once there is one.
    retrying: &'a RefCell<Option<Counted>>,
    /// Are there endpoints that were not tried?
    others: bool,
    /// Under which id the workload may have tried something in vain for its caller.
    id: Option<u64>,
    /// Set where there were attempts enough, here or further on.
    in_vain: &'a Cell<bool>,
}

impl<'a> Asking<'a> {
    fn of(
        worker: &'a Rc<Worker>,
        backend: &'a Backend,
        (attempts, retrying): (&'a Attempts<'a>, &'a RefCell<Option<Counted>>),
        (others, id, in_vain): (bool, Option<u64>, &'a Cell<bool>),
    ) -> Self {
        Self { worker, backend, attempts, retrying, others, id, in_vain }
    }
}

/// Could somebody want to have this answered otherwise? Nothing is looked for in other answers.
fn is_trouble(answer: &AnswerHead<'_>, outcome: &RequestOutcome) -> bool {
    answer.status >= 400 || outcome.grpc().is_some()
}

/// What the sidecar of the one that was asked says about asking again.
fn by_mark(
    asking: &Asking<'_>,
    answer: &AnswerHead<'_>,
    outcome: &RequestOutcome,
) -> Option<Judged> {
    if !is_trouble(answer, outcome) {
        return None;
    }
    let said = (answer.field)(MARK)?;
    let of_a_hop = asking.backend.is_a_hop();
    let mark = Mark::read(&said).filter(|_| of_a_hop && outcome.direction() == Direction::Outbound);
    // No application, and nobody outside, is a sidecar.
    let Some(mark) = mark else { return Some(Judged::Cleaned) };
    match mark {
        Mark::Injected => outcome.flag(Flag::FI),
        Mark::Spent => {
            asking.in_vain.set(true);
            asking.worker.shared.metrics.left_to_others();
        }
    }
    Some(Judged::Obeyed(mark))
}

/// Is the caller's sidecar to be told that there were attempts enough?
fn marked(asking: &Asking<'_>, answer: &AnswerHead<'_>, outcome: &RequestOutcome) -> Judged {
    let spent = &asking.worker.shared.state.spent;
    match asking.id {
        Some(id) if is_trouble(answer, outcome) && spent.contains(id, clock::now()) => {
            Judged::Marked(Mark::Spent)
        }
        _ => Judged::Passes,
    }
}

/// Is the request sent once more, now that an attempt has ended so? Nobody else says so.
fn again(
    asking: &Asking<'_>,
    ended: Ended,
    standing: Standing,
    outcome: &RequestOutcome,
) -> Option<More> {
    // Where there is no other to go to, a failed connection is the answer.
    let Backend::Cluster(cluster) = asking.backend else {
        let verdict = asking.attempts.after(ended, standing);
        let reason = RetryReason::ReuseRace;
        return (verdict == Verdict::Replay).then_some(More { verdict, reason });
    };
    let verdict = asking.attempts.after(ended, standing);
    let reason = match (verdict, ended) {
        (Verdict::Replay, _) => RetryReason::ReuseRace,
        (_, Ended::Undelivered) => RetryReason::ConnectFailure,
        (_, Ended::Broken { .. } | Ended::Refused) => RetryReason::Reset,
        (_, Ended::TimedOut) => RetryReason::Timeout,
        (_, Ended::Answered(_)) => RetryReason::Status,
    };
    match verdict {
        Verdict::GiveUp => return None,
        Verdict::Spent => {
            outcome.flag(Flag::URX);
            asking.in_vain.set(true);
            return None;
        }
        Verdict::Replay => {}
        Verdict::Again(_) if !may_retry(asking.backend, asking.retrying, outcome) => {
            asking.in_vain.set(true);
            return None;
        }
        Verdict::Again(_) if cluster.has_retry_budget() => {}
        Verdict::Again(_) if cluster.retries.withdraw(clock::now()) => {}
        Verdict::Again(_) => {
            outcome.flag(Flag::UO);
            asking.in_vain.set(true);
            return None;
        }
    }
    Some(More { verdict, reason })
}

/// The same by the head of an answer. One of the next hop's that reached nobody is a connect failure
/// seen from further off, unless there is nobody else to go to.
fn again_by_answer(
    asking: &Asking<'_>,
    answer: &AnswerHead<'_>,
    standing: Standing,
    outcome: &RequestOutcome,
) -> Option<More> {
    let policy = asking.attempts.policy();
    let undelivered = answer.undelivered && (asking.others || policy.is_some());
    if undelivered && let Some(more) = again(asking, Ended::Undelivered, standing, outcome) {
        return Some(more);
    }
    policy?;
    let number = |name| (answer.field)(name)?.trim().parse().ok();
    let answered = Answered {
        status: answer.status,
        grpc_status: number("grpc-status"),
        overloaded: (answer.field)("x-envoy-overloaded").is_some(),
        rate_limited: (answer.field)("x-envoy-ratelimited").is_some(),
    };
    again(asking, Ended::Answered(answered), standing, outcome)
}

/// The upstream for the next attempt: where the client is known by its connection, else the best one.
fn choose(
    worker: &Rc<Worker>,
    request: &impl Exchange,
    backend: &Backend,
    tried: &[Rc<Upstream>],
    ask: Ask,
) -> Result<Rc<Upstream>, Refusal> {
    match request.bound_to() {
        Some(bound) if tried.is_empty() && backend.is_served_by(bound) => Ok(Rc::clone(bound)),
        _ => worker.upstreams.pick(backend, tried, ask),
    }
}

/// On a connection that never had an answer the request waits for its turn.
fn queue(worker: &Worker, attempt: &mut Attempt, carrier: &mut Carrier) {
    if let Carrier::Connection(Connected { unanswered, .. }) = carrier
        && let Some(opening) = unanswered.take()
    {
        worker.queue(attempt, opening);
    }
}

/// What carries the request to `upstream`, in the version that is spoken there: something of what is kept
/// at hand, or a new connection; a `fresh` one if one at hand just broke. Within: why there is none.
///
/// # Errors
/// [`Failure::ClientGone`], where it would have had to wait.
async fn connect(
    worker: &Rc<Worker>,
    request: &mut impl Exchange,
    upstream: &Rc<Upstream>,
    (now, fresh): (Instant, bool),
    others: bool,
) -> Result<Result<Carrier, Refusal>, Failure> {
    let (version, replayable) = (request.version(upstream), request.replayable());
    let (tenant, gone) = request.client();
    match version {
        HttpVersion::Http1 => {
            let idle =
                |now| (!fresh).then(|| upstream.pool.take(now, replayable, tenant)).flatten();
            if let Some(pooled) = idle(now) {
                return Ok(Ok(Carrier::Connection(pooled)));
            }
            let opening = worker.open(upstream, others, || idle(clock::now()));
            let opened = Box::pin(while_client_stays(gone, opening)).await?;
            Ok(opened.map(Carrier::Connection))
        }
        HttpVersion::Http2 => {
            // One of TLS that did not ask for HTTP/2 is none of HTTP/2.
            let unused = || upstream.pool.take_unused(now).filter(|one| !one.is_tls());
            let dial = async || match unused() {
                Some(transport) => Ok(transport),
                None => worker.dial(upstream, Asks::Http2, others).await,
            };
            let taking = upstream.streams.take(fresh, dial);
            let taken = Box::pin(while_client_stays(gone, taking)).await?;
            worker.list(upstream);
            Ok(taken.map(Carrier::Stream))
        }
    }
}

/// Waits for `what`, unless the client is `gone` before: a place that it waits in is for others then.
///
/// # Errors
/// [`Failure::ClientGone`].
async fn while_client_stays<T>(
    gone: impl Future<Output = ()>,
    what: impl Future<Output = T>,
) -> Result<T, Failure> {
    tokio::select! {
        biased;
        done = what => Ok(done),
        () = gone => Err(Failure::ClientGone),
    }
}

/// Does a rule allow another retry at this time? One that is under way is counted to the request's end.
fn may_retry(
    backend: &Backend,
    retrying: &RefCell<Option<Counted>>,
    outcome: &RequestOutcome,
) -> bool {
    if retrying.borrow().is_some() {
        return true;
    }
    match backend.enter(Limit::Retries) {
        Ok(counted) => {
            retrying.replace(counted);
            true
        }
        Err(_) => {
            outcome.flag(Flag::UO);
            false
        }
    }
}

#[cfg(test)]
mod tests;
