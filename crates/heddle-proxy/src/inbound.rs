//! The way of a connection to the workload, and of each request on it.
//!
//! [`serve_inbound`] is the connection's way, [`serve_request`] the request's; both read from top
//! to bottom. Authentication and authorization will stand between steps 2 and 3 of each.

mod port;

use std::{
    cell::RefCell,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::pin,
    rc::Rc,
};

use heddle_runtime::clock;
use tokio::net::TcpStream;

use self::port::Port;
use crate::{
    balancers::Candidates,
    forward::{Failure, Way, forward},
    http::{After, Client, Request, Sending},
    limits::INBOUND_IDLE_TIMEOUT,
    metrics::Direction,
    outcome::{Caller, Callers, Counted, RequestOutcome, TcpOutcome},
    protocol::{Decided, Early, Reason, Verdict, decide},
    refusal::{Refusal, Refused},
    tcp::{self, Held},
    worker::{Worker, dial::dial_any},
};

/// Serves one connection to this workload, meant for the port of `original_dst`, to its end.
pub async fn serve_inbound(worker: Rc<Worker>, client: TcpStream, original_dst: SocketAddr) {
    // Starts a look-up at most; requests never wait for it.
    let ip = client.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
    let caller = Callers::at(&worker, ip);
    serve(worker, client, original_dst, caller).await;
}

/// The same for a call of the workload to itself, which never left this process.
pub(crate) async fn serve_own_call(worker: Rc<Worker>, client: TcpStream, to: SocketAddr) {
    let caller = Callers::own(&worker);
    serve(worker, client, to, caller).await;
}

async fn serve(
    worker: Rc<Worker>,
    mut client: TcpStream,
    original_dst: SocketAddr,
    caller: Rc<Caller>,
) {
    // 1. The port the client meant, and the services that own it.
    let port = Port::of(&worker, original_dst.port());
    // 2. What is declared about it.
    let known = port.known();
    // 3. Declared, or by the first bytes of either side.
    let candidates = Candidates::One(Rc::clone(&port.application));
    let none = Refusal::ApplicationUnreachable(port.number, String::new());
    let decided = decide(&mut client, known, pin!(dial_any(&worker, &candidates, none))).await;
    // 4. Requests one after the other, or bytes both ways.
    let served = Served { worker, port, caller: RefCell::new(caller) };
    match decided {
        Decided::Http { reason, held, early } => {
            served.port.state.verdicts.count(Verdict::Http, reason);
            if let Some(early) = early {
                served.worker.keep_unused(early);
            }
            let _by_request = served.worker.shared.connections.by_request();
            serve_requests(&served, Client::new(client, held, INBOUND_IDLE_TIMEOUT)).await;
        }
        Decided::Relay { verdict, reason, held, to } => {
            served.port.state.verdicts.count(verdict, reason);
            let held = Held { from_client: held, from_upstream: None };
            relay(&served, client, held, to, reason).await;
        }
        Decided::HeadTimeout => {
            let client = Client::new(client, None, INBOUND_IDLE_TIMEOUT);
            refuse_head(&served, client, Refusal::HeadTimeout).await;
        }
        Decided::Unserved(refused) => {
            relay(&served, client, Held::default(), Err(refused), Reason::Declared).await
        }
        Decided::Gone => {}
    }
}

/// What all requests of one inbound connection have in common.
struct Served {
    worker: Rc<Worker>,
    port: Port,
    caller: RefCell<Rc<Caller>>,
}

impl Served {
    /// Labels of a call that names `host`.
    fn counted(&self, host: &str) -> Counted {
        Counted::From(self.caller(), Rc::clone(self.port.service(host)))
    }

    /// Who calls: found out at accept, and anew only while it is nobody known.
    fn caller(&self) -> Rc<Caller> {
        let mut caller = self.caller.borrow_mut();
        if caller.is_unknown() {
            *caller = Callers::again(&self.worker, &caller);
        }
        Rc::clone(&caller)
    }
}

async fn serve_requests(served: &Served, mut client: Client) {
    loop {
        let request = match client.read_request().await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(refusal) => return refuse_head(served, client, refusal).await,
        };
        match serve_request(served, &mut client, request).await {
            After::Next => {}
            after => return client.end(after).await,
        }
    }
}

/// The way of one request, from decoded head to recorded outcome.
async fn serve_request(served: &Served, client: &mut Client, request: Request) -> After {
    let Served { worker, port, .. } = served;
    // 1. From here on it is counted, whatever happens.
    let counted = served.counted(request.view(client).authority());
    let mut outcome = RequestOutcome::begin(worker, Direction::Inbound, counted, request.begun);
    // 2. Made ready to be sent.
    let mut sending =
        Sending::prepare(worker, client, &request, || port.default_host(), None, &outcome);
    drop(request);
    // 3. The application's connection and the exchange.
    let result = carry_out(served, client, &mut sending, &mut outcome).await;
    // 4. One exit: the refusal's reply if it is one, and the record.
    client.conclude(worker, result, Some(&sending), outcome).await
}

async fn carry_out(
    served: &Served,
    client: &mut Client,
    sending: &mut Sending,
    outcome: &mut RequestOutcome,
) -> Result<After, Failure> {
    let Served { worker, port, .. } = served;
    sending.take_body(client, outcome)?;
    let way = Way {
        candidates: &Candidates::One(Rc::clone(&port.application)),
        none: &|| Refusal::ApplicationUnreachable(port.number, String::new()),
        counted: &|_| None,
    };
    let forwarded = forward(worker, client, sending, way, outcome).await;
    port.state.speaks_http.set(port.state.speaks_http.get() || forwarded.is_ok());
    forwarded
}

/// Bytes both ways; `to` is the application, or why it cannot be reached.
async fn relay(
    served: &Served,
    mut client: TcpStream,
    held: Held,
    to: Result<Early, Refused>,
    reason: Reason,
) {
    let begin = if held.is_silent(reason) { TcpOutcome::silent } else { TcpOutcome::begin };
    let outcome = begin(&served.worker, served.counted(""));
    match to {
        Ok(Early { attempt: _attempt, mut stream }) => {
            outcome.relay(&mut client, &mut stream, held).await;
        }
        Err(refused) => {
            outcome.refuse(Direction::Inbound, &refused.refusal);
            tcp::reset(client);
        }
    }
}

/// A request without a readable head: answered, counted, and the end of its connection.
async fn refuse_head(served: &Served, mut client: Client, refusal: Refusal) {
    let outcome =
        RequestOutcome::begin(&served.worker, Direction::Inbound, served.counted(""), clock::now());
    let result = Err(refusal.into());
    let after = client.conclude(&served.worker, result, None, outcome).await;
    client.end(after).await;
}
