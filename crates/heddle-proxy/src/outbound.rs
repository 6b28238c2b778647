//! The way of a connection from the workload, and of each request on it.
//!
//! [`serve_outbound`] is the connection's way, [`serve_request`] the request's; both read from top
//! to bottom. Where a connection goes, `outbound/destination.rs` finds out; which rule takes a
//! request, `outbound/route.rs`.

mod destination;
mod route;

use std::{net::SocketAddr, pin::pin, rc::Rc};

use heddle_runtime::clock;
use tokio::net::TcpStream;

use self::{
    destination::Destination,
    route::{Route, choose, inject_fault},
};
use crate::{
    forward::{Failure, Way, forward},
    http::{After, Client, Request, Sending},
    limits::OUTBOUND_IDLE_TIMEOUT,
    metrics::Direction,
    outcome::{RequestOutcome, TcpOutcome},
    protocol::{Decided, Early, Reason, Verdict, decide},
    refusal::{Refusal, Refused},
    tcp::{self, Held},
    worker::Worker,
};

/// Serves one connection of the workload to `original_dst`, to its end.
pub async fn serve_outbound(worker: Rc<Worker>, mut client: TcpStream, original_dst: SocketAddr) {
    // 1. The original destination decides the service; nothing the client says later does.
    let destination = Destination::of(&worker, original_dst).await;
    // 2. What is declared about its port, under the rules of now.
    let known = destination.known(&worker).await;
    // 3. Declared, or by the first bytes of either side.
    let decided = decide(&mut client, known, pin!(destination.dial(&worker))).await;
    // 4. Requests one after the other, or bytes both ways.
    match decided {
        Decided::Http { reason, held, early } => {
            destination.port.verdicts.count(Verdict::Http, reason);
            if let Some(early) = early {
                worker.keep_unused(early);
            }
            let _by_request = worker.shared.connections.by_request();
            let client = Client::new(client, held, OUTBOUND_IDLE_TIMEOUT);
            serve_requests(&worker, &destination, client).await;
        }
        Decided::Relay { verdict, reason, held, to } => {
            destination.port.verdicts.count(verdict, reason);
            let held = Held { from_client: held, from_upstream: None };
            relay(&worker, &destination, client, held, to, reason).await;
        }
        Decided::HeadTimeout => {
            let client = Client::new(client, None, OUTBOUND_IDLE_TIMEOUT);
            refuse_head(&worker, &destination, client, Refusal::HeadTimeout).await;
        }
        Decided::Unserved(refused) => {
            relay(&worker, &destination, client, Held::default(), Err(refused), Reason::Declared)
                .await;
        }
        Decided::Gone => {}
    }
}

async fn serve_requests(worker: &Rc<Worker>, destination: &Destination, mut client: Client) {
    loop {
        let request = match client.read_request().await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(refusal) => return refuse_head(worker, destination, client, refusal).await,
        };
        match serve_request(worker, destination, &mut client, request).await {
            After::Next => {}
            after => return client.end(after).await,
        }
    }
}

/// The way of one request, from decoded head to recorded outcome.
async fn serve_request(
    worker: &Rc<Worker>,
    destination: &Destination,
    client: &mut Client,
    request: Request,
) -> After {
    // 1. From here on it is counted, whatever happens.
    let mut outcome =
        RequestOutcome::begin(worker, Direction::Outbound, destination.unpicked(), request.begun);
    // 2. The rules are taken once, from one snapshot, and kept to the request's end.
    let chosen = choose(worker, destination, request.view(client)).await;
    destination.count_by_host(worker, request.view(client), &mut outcome);
    // 3. Made ready to be sent, perhaps more than once.
    let path = chosen.as_ref().map_or(None, Route::path);
    let host = || destination.default_host();
    let mut sending = Sending::prepare(worker, client, &request, host, path, &outcome);
    drop(request);
    // 4. Faults, the endpoint, the connection, the exchange.
    let result = carry_out(worker, destination, client, chosen, &mut sending, &mut outcome).await;
    // 5. One exit: the refusal's reply if it is one, and the record.
    client.conclude(worker, result, Some(&sending), outcome).await
}

async fn carry_out(
    worker: &Rc<Worker>,
    destination: &Destination,
    client: &mut Client,
    chosen: Result<Route, Refused>,
    sending: &mut Sending,
    outcome: &mut RequestOutcome,
) -> Result<After, Failure> {
    sending.take_body(client, outcome)?;
    let route = chosen?;
    if let Some(fault) = &route.fault {
        inject_fault(client, fault, outcome).await.map_err(|failure| failure.by(&route.rule()))?;
    }
    let forwarded = match &route.candidates {
        Err(refusal) => Err(refusal.clone().into()),
        Ok(candidates) => {
            let way = Way {
                candidates,
                none: &|| Refusal::NoEndpoints(destination.service(candidates)),
                counted: &|upstream| destination.counted(worker, candidates, upstream),
            };
            forward(worker, client, sending, way, outcome).await
        }
    };
    if forwarded.is_ok() {
        destination.spoke_http(worker);
    }
    forwarded.map_err(|failure| failure.by(&route.rule()))
}

/// Bytes both ways; `to` says to whom, or why to nobody.
async fn relay(
    worker: &Rc<Worker>,
    destination: &Destination,
    mut client: TcpStream,
    held: Held,
    to: Result<Early, Refused>,
    reason: Reason,
) {
    let Early { attempt, mut stream } = match to {
        Ok(early) => early,
        Err(refused) => {
            let outcome = TcpOutcome::begin(worker, destination.unpicked());
            outcome.refuse(Direction::Outbound, &refused.refusal);
            return tcp::reset(client);
        }
    };
    let counted = destination.counted_connection(worker, attempt.upstream());
    let begin = if held.is_silent(reason) { TcpOutcome::silent } else { TcpOutcome::begin };
    let outcome = begin(worker, counted);
    outcome.relay(&mut client, &mut stream, held).await;
}

/// A request without a readable head: answered, counted, and the end of its connection.
async fn refuse_head(
    worker: &Rc<Worker>,
    destination: &Destination,
    mut client: Client,
    refusal: Refusal,
) {
    let outcome =
        RequestOutcome::begin(worker, Direction::Outbound, destination.unpicked(), clock::now());
    let after = client.conclude(worker, Err(refusal.into()), None, outcome).await;
    client.end(after).await;
}
