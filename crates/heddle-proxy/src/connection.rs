//! The way of a connection, and of each request on it, whichever side it belongs to.
//!
//! [`serve`] is the connection's way, [`serve_request`] the request's; both read from top to bottom.
//! What differs between sides, a [`Side`] answers; what an upstream does is `forward`'s.

use std::{future::poll_fn, pin::pin, rc::Rc, sync::Arc, time::Instant};

use futures_util::{StreamExt, stream::FuturesUnordered};
use heddle_logic::{ConnectionFault, FaultPlan, route::RequestView as _};
use heddle_model::{
    Protocol,
    discovery::{Provenance, TcpFault},
};
use heddle_runtime::{clock, task, transport::Transport};

use crate::{
    buffers::{Buffer, Lent},
    call::{Call, Http1Call, Http2Call},
    deadline::{Progress, until},
    dial::Early,
    direction::Direction,
    facts::{Facts, bounded},
    foreign::{self, Foreign},
    forward::Terms,
    http1::{Client, Idle, Persistence, Upgraded},
    http2::{self, upgrade::Joined},
    limits::{HEAD_READ_TIMEOUT, HTTP2_STREAMS, LINGER_SILENCE},
    outgoing::RequestEdits,
    pool::Tenant,
    protocol::{Decided, PortHints, decide},
    record::{RequestOutcome, TcpOutcome},
    refusal::{Cut, Failure, Flag, Refusal, Refused},
    relay::Preread,
    side::{ByName, Onward, Route, Side},
    snapshot::SidePlan,
    tcp_fault::{Shape, shaped, swallow},
    trace::{self, About, TraceEdits},
    upstream::Backend,
    verdict::{Reason, Verdict},
};

/// Requests of one connection of HTTP/2 in hand, those among them whose client has reset them.
const REQUESTS_MAX: usize = 2 * HTTP2_STREAMS as usize;

/// Serves one connection to its end.
pub(crate) async fn serve<S: Side>(client: Transport, side: &S) {
    // 1. What is declared about where it goes, under the rules of now; and what it has on purpose.
    let hints = side.hints().await;
    match side.connection_fault() {
        None => serve_as(side, client, hints, None).await,
        Some(fault) => Box::pin(serve_faulty(side, client, hints, fault)).await,
    }
}

/// A connection for which a fault holds.
async fn serve_faulty<S: Side>(
    side: &S,
    mut client: Transport,
    hints: PortHints,
    fault: ConnectionFault,
) {
    let worker = side.worker();
    let (what, rule) = (fault.does.as_str(), fault.by.0.as_str());
    worker.shared.metrics.injected(what, S::DIRECTION);
    tracing::debug!(fault = what, rule, direction = S::DIRECTION.as_str(), "fault injected");
    let injected = || {
        let mut facts = facts(side, clock::now())?;
        facts.injected(what, rule);
        Some(facts)
    };
    let outcome = || TcpOutcome::begin(worker, side.connection_series(None), injected());
    match fault.does {
        TcpFault::Refuse => {
            outcome().refuse(S::DIRECTION, &Refusal::FaultConnection(what));
            client.reset();
        }
        TcpFault::Blackhole => {
            let outcome = outcome();
            swallow(&mut client).await;
            outcome.held();
        }
        TcpFault::ResetAfterBytes(_) | TcpFault::BytesPerSecond(_) => {
            let shape = Shape::new(fault.does);
            let serving = |client| Box::pin(serve_as(side, client, hints, Some(&shape)));
            shaped(client, &shape, serving).await;
        }
    }
}

async fn serve_as<S: Side>(
    side: &S,
    mut client: Transport,
    hints: PortHints,
    shape: Option<&Rc<Shape>>,
) {
    let worker = side.worker();
    // 2. What it speaks: declared, or told by the first bytes of either side.
    let decided = decide(&mut client, hints, pin!(side.dial())).await;
    // 3. Requests one after the other, or bytes both ways.
    match decided {
        Decided::Http { reason, held, early } => {
            side.verdicts().count(Verdict::Http, reason);
            if let Some(early) = early {
                worker.keep_unused(early);
            }
            let _by_request = worker.shared.state.connections.by_request();
            let client = Client::new(client, held, S::IDLE_TIMEOUT, S::DIRECTION);
            let http2 = matches!(hints.declared, Protocol::Http2 | Protocol::Grpc);
            serve_requests(side, client, http2, shape).await;
        }
        Decided::Http2 { reason, held, early } => {
            side.verdicts().count(Verdict::Http2, reason);
            if let Some(early) = early {
                worker.keep_unused(early);
            }
            let _by_request = worker.shared.state.connections.by_request();
            // Much larger than what most connections need.
            let beginning = (held.map(|held| held.bytes), None);
            Box::pin(serve_streams(side, client, beginning, shape)).await;
        }
        Decided::Relay { verdict, reason, held, to } => {
            side.verdicts().count(verdict, reason);
            let preread = Preread { from_client: held, from_upstream: None };
            relay(side, client, (preread, reason, None), to, shape).await;
        }
        Decided::Tls { name, reason, held, early } => {
            side.verdicts().count(Verdict::Tls, reason);
            let preread = Preread { from_client: held, from_upstream: None };
            let said = (preread, reason, name.as_deref());
            Box::pin(relay_tls(side, client, said, early, shape)).await;
        }
        Decided::HeadTimeout => {
            let client = Client::new(client, None, S::IDLE_TIMEOUT, S::DIRECTION);
            refuse_head(side, client, Refusal::HeadTimeout).await;
        }
        Decided::Foreign(foreign, reason) => {
            side.verdicts().count(foreign.verdict(), reason);
            refuse_foreign(side, client, foreign).await;
        }
        Decided::Unserved(refused) => {
            let nothing = (Preread::default(), Reason::Declared, None);
            relay(side, client, nothing, Err(refused), shape).await;
        }
        Decided::Gone => {}
    }
}

/// `http2`: the port is declared to speak HTTP/2, to which its clients may change.
async fn serve_requests<S: Side>(
    side: &S,
    mut client: Client,
    http2: bool,
    shape: Option<&Rc<Shape>>,
) {
    loop {
        let request = match client.read_request().await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(refusal) => return refuse_head(side, client, refusal).await,
        };
        if http2 {
            client = match client.upgrade(&request).await {
                Err(client) => client,
                Ok(Upgraded { transport, held, joined }) => {
                    let beginning = (held, Some(joined));
                    return Box::pin(serve_streams(side, transport, beginning, shape)).await;
                }
            };
        }
        match serve_request(side, Http1Call::new(&mut client, request), shape).await {
            Persistence::KeepAlive => {}
            ended => return client.end(ended).await,
        }
    }
}

/// The same for a connection of HTTP/2, whose requests do not wait for each other.
async fn serve_streams<S: Side>(
    side: &S,
    client: Transport,
    (held, joined): (Option<Lent<Buffer>>, Option<Joined>),
    shape: Option<&Rc<Shape>>,
) {
    let begun = clock::within(HEAD_READ_TIMEOUT, http2::accept(client, held, joined)).await;
    let Some(Ok(mut connection)) = begun else { return };
    let tenant = Tenant::default();
    let mut requests = FuturesUnordered::new();
    let mut idle = Idle::new(S::IDLE_TIMEOUT);
    let mut told = false;
    let mut drains = pin!(side.worker().shared.state.draining.begun(S::DIRECTION));
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    if requests.len() >= REQUESTS_MAX {
                        // All but a few were reset, and still cost something.
                        return calm_down(connection).await;
                    }
                    idle.restart();
                    let call = Http2Call::new(request, respond, &tenant);
                    let serving = async { let _stays = serve_request(side, call, shape).await; };
                    requests.push(task::contained("stream", serving));
                }
                // What the peer broke, the codec has told it. Requests still in flight have nobody
                // left to answer to.
                Some(Err(_)) | None => return,
            },
            Some(()) = requests.next(), if !requests.is_empty() => idle.restart(),
            () = poll_fn(|context| idle.poll(context)), if requests.is_empty() => {
                // Told once; who does not go by it is left.
                if std::mem::replace(&mut told, true) {
                    return;
                }
                idle = say_goodbye(&mut connection);
            }
            () = &mut drains, if !told => {
                told = true;
                idle = say_goodbye(&mut connection);
            }
        }
    }
}

/// Tells the client to ask elsewhere, and gives it the time to have heard.
fn say_goodbye(connection: &mut http2::Connection) -> Idle {
    connection.graceful_shutdown();
    Idle::new(LINGER_SILENCE)
}

/// Ends a connection whose client resets what it asks for faster than that can be given up.
async fn calm_down(mut connection: http2::Connection) {
    connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
    let end = async { while connection.accept().await.is_some() {} };
    let _in_time = clock::within(LINGER_SILENCE, end).await;
}

/// The way of one request, from decoded head to recorded outcome.
async fn serve_request<S: Side>(
    side: &S,
    mut call: impl Call,
    shape: Option<&Rc<Shape>>,
) -> Persistence {
    let worker = side.worker();
    // 1. From here on it is counted, whatever happens.
    let series = side.request_series(Some(&call.seen()));
    let mut outcome = RequestOutcome::begin(worker, S::DIRECTION, series, call.begun());
    outcome.shaped(shape);
    if S::DIRECTION == Direction::Inbound {
        outcome.asks_for(call.seen().target());
    }
    let trace = told(side, &call, &mut outcome);
    // 2. Where it goes.
    let route = side.route(&call.seen()).await;
    if let Some(span) = outcome.span()
        && let Some(rule) = decided_by(&route)
    {
        span.by_rule(&rule);
    }
    outcome.noting(|facts| routed(facts, &route));
    if let Ok(Route { rule: Some(rule), .. }) = &route {
        outcome.ruled(Arc::clone(rule));
    }
    // 3. Made ready to be sent, perhaps more than once.
    let edits = RequestEdits {
        path: route.as_ref().map_or(None, |route| route.path.as_deref()),
        changes: route.as_ref().map_or(None, |route| route.changes.as_deref()),
        retries: route.as_ref().map_or(None, Route::retries),
        limit: route.as_ref().map_or(None, |route| route.limit),
        default_host: &|| side.default_host(),
        to_a_hop: route.as_ref().is_ok_and(Route::leads_to_a_hop),
        trace: trace.as_ref(),
    };
    call.prepare(worker, &edits, &outcome);
    // 4. Faults, the endpoint, the connection, the exchange.
    let result = carry_out(side, &mut call, route, &mut outcome).await;
    // 5. One exit: the mesh's own reply if there is to be one, and the record.
    call.conclude(worker, result, outcome).await
}

/// What rules want told of it is begun: what is known of it, and its place in its trace. They are looked at where
/// they are, since nothing waits here: what all workers share is counted by none.
#[inline]
fn told<S: Side>(side: &S, call: &impl Call, outcome: &mut RequestOutcome) -> Option<TraceEdits> {
    let worker = side.worker();
    let snapshot = worker.shared.snapshot.load();
    let told = snapshot.telemetry(S::DIRECTION);
    let trace = told.and_then(|told| trace(side, told, call, outcome));
    if let Some(wanted) = worker.watches(S::DIRECTION, told) {
        gather(outcome, Facts::of(wanted, S::DIRECTION, side.ends(), call.begun()), call);
    }
    trace
}

/// Its place in its trace: what goes on, and the span that is part of its outcome.
fn trace<S: Side>(
    side: &S,
    told: &SidePlan,
    call: &impl Call,
    outcome: &mut RequestOutcome,
) -> Option<TraceEdits> {
    let seen = call.seen();
    let operation = || side.operation(&seen);
    let peer = side.ends().remote.map(|at| at.ip());
    let about = About { protocol: call.protocol(), operation: &operation, peer };
    let (edits, span) = trace::begin(side.worker(), (told, S::DIRECTION), &seen, &about)?;
    outcome.traced(span);
    Some(edits)
}

/// The rule that decided where a request goes, or that it goes nowhere.
fn decided_by(route: &Result<Route, Refused>) -> Option<Provenance> {
    match route {
        Ok(route) => route.rule(),
        Err(refused) => refused.rule.clone(),
    }
}

/// What is known of a call, begun where somebody wants to know it.
#[inline]
fn facts<S: Side>(side: &S, begun: Instant) -> Option<Facts> {
    let wanted = side.worker().watched(S::DIRECTION)?;
    Some(Facts::of(wanted, S::DIRECTION, side.ends(), begun))
}

#[cold]
fn gather(outcome: &mut RequestOutcome, mut facts: Facts, call: &impl Call) {
    facts.came(&call.seen(), call.protocol());
    outcome.gathers(facts);
}

fn routed(facts: &mut Facts, route: &Result<Route, Refused>) {
    match route {
        Ok(route) => {
            facts.rule = route.rule().map(|rule| rule.0);
            facts.sent_path(route.path.as_deref());
            match &route.onward {
                Ok(Onward::To(backend)) => facts.goes_to(backend.cluster_name()),
                Ok(Onward::Answer(_)) => facts.answered_by_rule(),
                Err(_) => {}
            }
        }
        Err(refused) => facts.rule = refused.rule.as_ref().map(|rule| rule.0.clone()),
    }
}

async fn carry_out<S: Side>(
    side: &S,
    call: &mut impl Call,
    route: Result<Route, Refused>,
    outcome: &mut RequestOutcome,
) -> Result<Persistence, Failure> {
    let limit = route.as_ref().map_or(None, |route| route.limit);
    let limits_attempts =
        |route: &Route| route.retries().is_some_and(|one| one.per_try_timeout.is_some());
    let watched = limit.is_some() || route.as_ref().is_ok_and(limits_attempts);
    let progress = watched.then(|| outcome.watched());
    call.take_body(outcome)?;
    let mut route = route?;
    let rule = route.rule();
    if let Some(fault) = route.fault.take_if(|fault| fault.before_limits) {
        let injected = inject(call, &fault, outcome).await;
        injected.map_err(|failure| failure.by(rule.clone()))?;
        if let Some(progress) = &progress {
            progress.counts_from(clock::now());
        }
    }
    let result = match limit.zip(progress.as_deref()) {
        None => go_on(side, call, route, progress.clone(), outcome).await,
        Some((limit, watched)) => {
            let work = go_on(side, call, route, progress.clone(), outcome);
            match Box::pin(until(|| watched.deadline(limit), work)).await {
                Some(result) => result,
                None if watched.is_answering() => Err(Failure::Cut(Cut::Late)),
                None => Err(Refusal::Timeout(limit).into()),
            }
        }
    };
    result.map_err(|failure| failure.by(rule))
}

/// Faults, and then wherever the route leads. What a limit on the request's time holds for.
async fn go_on<S: Side>(
    side: &S,
    call: &mut impl Call,
    mut route: Route,
    progress: Option<Rc<Progress>>,
    outcome: &mut RequestOutcome,
) -> Result<Persistence, Failure> {
    if let Some(fault) = &route.fault {
        inject(call, fault, outcome).await?;
    }
    let mirrors = std::mem::take(&mut route.mirrors);
    if let Some(span) = outcome.span() {
        let copies = mirrors.iter().map(|mirror| Backend::Cluster(Arc::clone(&mirror.to)));
        copies.for_each(|to| span.mirrored(&to));
    }
    let (retries, limit) = (route.retries(), route.limit);
    let (grpc, hash) = (route.grpc, route.hash);
    let terms = Terms { retries, grpc, limit, progress, mirrors, hash };
    match route.onward {
        Err(refusal) => Err(refusal.into()),
        Ok(Onward::Answer(ref reply)) => Ok(call.answer(reply.clone(), outcome).await),
        Ok(Onward::To(ref backend)) => {
            let persistence = call.forward(side.worker(), backend, terms, outcome).await?;
            side.spoke_http();
            Ok(persistence)
        }
    }
}

/// Delays for real, then aborts; what of it was decided with the route.
///
/// # Errors
/// The abort, or a client that did not wait for the end of the delay.
async fn inject(
    call: &mut impl Call,
    fault: &FaultPlan,
    outcome: &RequestOutcome,
) -> Result<(), Failure> {
    if let Some(delay) = fault.delay {
        outcome.injected("delay", Flag::DI, fault.by.as_ref());
        // Polled together: a client that resets its connection ends the delay.
        tokio::select! {
            () = clock::sleep(delay) => {}
            () = call.gone() => return Err(Failure::ClientGone),
        }
    }
    let Some(with) = fault.abort else { return Ok(()) };
    outcome.injected("abort", Flag::FI, fault.by.as_ref());
    Err(Refused { refusal: Refusal::FaultAbort(with), rule: fault.by.clone() }.into())
}

/// The application's own TLS, to where the name it asks for leads. What was dialled before that was known is
/// used if it leads there too.
async fn relay_tls<S: Side>(
    side: &S,
    client: Transport,
    (preread, reason, name): (Preread, Reason, Option<&str>),
    early: Option<Result<Early, Refused>>,
    shape: Option<&Rc<Shape>>,
) {
    let worker = side.worker();
    let to = match (side.by_name(name).await, early) {
        (Ok(ByName::Foreign), _) => return refuse_foreign(side, client, Foreign::Tls).await,
        (Ok(ByName::Anywhere), Some(early)) => early,
        (Ok(ByName::Anywhere), None) => side.dial().await,
        (Ok(ByName::To(backend, None)), Some(Ok(early)))
            if backend.has(early.attempt.upstream()) =>
        {
            Ok(early)
        }
        (Ok(ByName::To(backend, hash)), early) => {
            if let Some(Ok(early)) = early {
                worker.keep_unused(early);
            }
            worker.dial_any(&backend, hash).await
        }
        (Err(refused), _) => Err(refused),
    };
    relay(side, client, (preread, reason, name), to, shape).await;
}

/// Bytes both ways; `to` says to whom, or why to nobody. `name` is who the client asked for.
async fn relay<S: Side>(
    side: &S,
    mut client: Transport,
    (preread, reason, name): (Preread, Reason, Option<&str>),
    to: Result<Early, Refused>,
    shape: Option<&Rc<Shape>>,
) {
    let worker = side.worker();
    let mut known = facts(side, clock::now());
    if let Some(facts) = &mut known {
        facts.server_name = name.map(bounded);
    }
    let begin = if preread.is_silent(reason) { TcpOutcome::silent } else { TcpOutcome::begin };
    match to {
        Ok(Early { mut attempt, mut transport }) => {
            attempt.carries_bytes(clock::now());
            if let Some(facts) = &mut known {
                attempt.upstream().tell(facts);
                let (local, remote) = transport.ends();
                facts.carried(local, remote);
            }
            let preread = (preread, attempt.upstream().relay_limits());
            let outcome = begin(worker, side.named_series(Some(attempt.upstream()), name), known);
            outcome.shaped(shape).relay(&mut client, &mut transport, preread).await;
        }
        Err(refused) => {
            if let (Some(facts), Some(rule)) = (&mut known, &refused.rule) {
                facts.rule = Some(rule.0.clone());
            }
            let outcome = begin(worker, side.named_series(None, name), known);
            outcome.refuse(S::DIRECTION, &refused.refusal);
            client.reset();
        }
    }
}

/// A request without a readable head: answered, counted, and the end of its connection.
async fn refuse_head<S: Side>(side: &S, mut client: Client, refusal: Refusal) {
    let worker = side.worker();
    let series = side.request_series(None);
    let mut outcome = RequestOutcome::begin(worker, S::DIRECTION, series, clock::now());
    if let Some(facts) = facts(side, clock::now()) {
        outcome.gathers(facts);
    }
    let ended = client.conclude(worker, Err(refusal.into()), None, outcome).await;
    client.end(ended).await;
}

/// A connection that carries no HTTP where rules for it hold: told so, counted, and its end.
async fn refuse_foreign<S: Side>(side: &S, client: Transport, foreign: Foreign) {
    let worker = side.worker();
    let refusal = foreign.refusal();
    TcpOutcome::begin(worker, side.connection_series(None), facts(side, clock::now()))
        .refuse(S::DIRECTION, &refusal);
    let to = side.default_host();
    if worker.may_warn() {
        tracing::warn!(%to, %refusal, "{}", foreign::ADVICE);
    }
    Client::new(client, None, S::IDLE_TIMEOUT, S::DIRECTION).dismiss(&foreign.farewell()).await;
}
