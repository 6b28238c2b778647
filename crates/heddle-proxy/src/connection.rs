//! The way of a connection, and of each request on it, whichever side it belongs to.
//!
//! [`serve`] is the connection's way, [`serve_request`] the request's; both read from top to bottom.
//! What differs between sides, a [`Side`] answers; what an upstream does is `forward`'s.

use std::pin::pin;

use heddle_logic::FaultPlan;
use heddle_runtime::{clock, transport::Transport};

use crate::{
    dial::Early,
    exchange::Http1Exchange,
    foreign::{self, Foreign},
    forward::forward,
    http1::{Client, IncomingRequest, Persistence},
    outgoing::{OutgoingRequest, RequestEdits},
    protocol::{Decided, decide},
    record::{RequestOutcome, TcpOutcome},
    refusal::{Failure, Flag, Refusal, Refused},
    relay::Preread,
    side::{Route, Side},
    verdict::{Reason, Verdict},
};

/// Serves one connection to its end.
pub(crate) async fn serve<S: Side>(mut client: Transport, side: &S) {
    let worker = side.worker();
    // 1. What is declared about where it goes, under the rules of now.
    let hints = side.hints().await;
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
            serve_requests(side, Client::new(client, held, S::IDLE_TIMEOUT, S::DIRECTION)).await;
        }
        Decided::Relay { verdict, reason, held, to } => {
            side.verdicts().count(verdict, reason);
            let preread = Preread { from_client: held, from_upstream: None };
            relay(side, client, preread, to, reason).await;
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
            relay(side, client, Preread::default(), Err(refused), Reason::Declared).await;
        }
        Decided::Gone => {}
    }
}

async fn serve_requests<S: Side>(side: &S, mut client: Client) {
    loop {
        let request = match client.read_request().await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(refusal) => return refuse_head(side, client, refusal).await,
        };
        match serve_request(side, &mut client, request).await {
            Persistence::KeepAlive => {}
            ended => return client.end(ended).await,
        }
    }
}

/// The way of one request, from decoded head to recorded outcome.
async fn serve_request<S: Side>(
    side: &S,
    client: &mut Client,
    request: IncomingRequest,
) -> Persistence {
    let worker = side.worker();
    // 1. From here on it is counted, whatever happens.
    let series = side.request_series(Some(&request.seen(client)));
    let mut outcome = RequestOutcome::begin(worker, S::DIRECTION, series, request.begun);
    // 2. Where it goes.
    let route = side.route(&request.seen(client)).await;
    // 3. Made ready to be sent, perhaps more than once.
    let edits = RequestEdits {
        path: route.as_ref().map_or(None, |route| route.path.as_deref()),
        default_host: &|| side.default_host(),
    };
    let mut outgoing = client.prepare(worker, &request, &edits, &outcome);
    drop(request);
    // 4. Faults, the endpoint, the connection, the exchange.
    let result = carry_out(side, client, route, &mut outgoing, &mut outcome).await;
    // 5. One exit: the mesh's own reply if there is to be one, and the record.
    client.conclude(worker, result, Some(&outgoing), outcome).await
}

async fn carry_out<S: Side>(
    side: &S,
    client: &mut Client,
    route: Result<Route, Refused>,
    outgoing: &mut OutgoingRequest,
    outcome: &mut RequestOutcome,
) -> Result<Persistence, Failure> {
    client.take_body(outgoing, outcome)?;
    let route = route?;
    if let Some(fault) = &route.fault {
        inject(client, fault, outcome).await.map_err(|failure| failure.by(route.rule()))?;
    }
    let forwarded = match &route.backend {
        Err(refusal) => Err(refusal.clone().into()),
        Ok(backend) => {
            let mut exchange = Http1Exchange { client, outgoing };
            forward(side.worker(), &mut exchange, backend, outcome).await
        }
    };
    match forwarded {
        Ok(persistence) => {
            side.spoke_http();
            Ok(persistence)
        }
        Err(failure) => Err(failure.by(route.rule())),
    }
}

/// Delays for real, then aborts; what of it was decided with the route.
///
/// # Errors
/// The abort, or a client that did not wait for the end of the delay.
async fn inject(
    client: &Client,
    fault: &FaultPlan,
    outcome: &RequestOutcome,
) -> Result<(), Failure> {
    if let Some(delay) = fault.delay {
        outcome.flag(Flag::DI);
        // Polled together: a client that resets its connection ends the delay.
        tokio::select! {
            () = clock::sleep(delay) => {}
            () = client.transport.reset_by_peer() => return Err(Failure::ClientGone),
        }
    }
    match fault.abort {
        Some(status) => Err(Refusal::FaultAbort(status).into()),
        None => Ok(()),
    }
}

/// Bytes both ways; `to` says to whom, or why to nobody.
async fn relay<S: Side>(
    side: &S,
    mut client: Transport,
    preread: Preread,
    to: Result<Early, Refused>,
    reason: Reason,
) {
    let worker = side.worker();
    let begin = if preread.is_silent(reason) { TcpOutcome::silent } else { TcpOutcome::begin };
    match to {
        Ok(Early { attempt, mut transport }) => {
            let outcome = begin(worker, side.connection_series(Some(attempt.upstream())));
            outcome.relay(&mut client, &mut transport, preread).await;
        }
        Err(refused) => {
            let outcome = begin(worker, side.connection_series(None));
            outcome.refuse(S::DIRECTION, &refused.refusal);
            client.reset();
        }
    }
}

/// A request without a readable head: answered, counted, and the end of its connection.
async fn refuse_head<S: Side>(side: &S, mut client: Client, refusal: Refusal) {
    let worker = side.worker();
    let series = side.request_series(None);
    let outcome = RequestOutcome::begin(worker, S::DIRECTION, series, clock::now());
    let ended = client.conclude(worker, Err(refusal.into()), None, outcome).await;
    client.end(ended).await;
}

/// A connection that carries no HTTP/1 where rules for it hold: told so, counted, and its end.
async fn refuse_foreign<S: Side>(side: &S, client: Transport, foreign: Foreign) {
    let worker = side.worker();
    let refusal = foreign.refusal();
    TcpOutcome::begin(worker, side.connection_series(None)).refuse(S::DIRECTION, &refusal);
    let to = side.default_host();
    if worker.may_warn() {
        tracing::warn!(%to, %refusal, "{}", foreign::ADVICE);
    }
    Client::new(client, None, S::IDLE_TIMEOUT, S::DIRECTION).dismiss(&foreign.farewell()).await;
}
