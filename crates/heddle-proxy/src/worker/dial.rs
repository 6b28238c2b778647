//! Opening connections: to peers, to the own application, to the outside, and to oneself.

use std::{io, net::SocketAddr, pin::Pin, rc::Rc};

use heddle_runtime::{
    clock,
    net::{connect_tcp, listen_tcp},
    task,
};
use tokio::net::TcpStream;

use super::Worker;
use crate::{
    balancers::{Candidates, Upstream, Upstreams, Via},
    inbound::serve_own_call,
    limits::{CONNECT_TIMEOUT, TCP_ATTEMPTS},
    protocol::Early,
    refusal::{Refusal, Refused},
};

/// Foreign connections to the listener of a call to oneself that are turned away before giving up.
const STRANGERS_MAX: usize = 16;

/// Opens a connection to an upstream.
///
/// # Errors
/// The refusal to answer with, if no other upstream is left to try.
pub(crate) async fn dial(worker: &Rc<Worker>, upstream: &Upstream) -> Result<TcpStream, Refusal> {
    let stream = match upstream.via {
        Via::Direct(address) => connect(worker, address)
            .await
            .map_err(|error| Refusal::ConnectFailed(format!("{address}: {error}")))?,
        Via::Own(address) => call_oneself(worker, address)
            .await
            .map_err(|error| Refusal::ConnectFailed(format!("{address}: {error}")))?,
        Via::Application(port) => application(worker, port).await?,
        Via::Outside(address) => {
            let connected = worker.shared.broker.connect(address).await;
            connected.map_err(|error| Refusal::OutsideUnreachable(format!("{address}: {error}")))?
        }
    };
    super::prepare(&stream);
    Ok(stream)
}

/// Connects to one of the candidates, another after each failure. With `all` every candidate is
/// tried: nobody behind the port means a reset, as without a mesh.
///
/// # Errors
/// The last failure.
pub(crate) async fn dial_any(
    worker: &Rc<Worker>,
    candidates: &Candidates,
    none: Refusal,
) -> Result<Early, Refused> {
    let mut tried = Vec::new();
    let mut last = none;
    loop {
        let now = clock::now();
        let picked = worker.upstreams.pick(candidates, &tried, now, worker.random());
        let Some(upstream) = picked else { return Err(last.into()) };
        let mut attempt = upstream.begin(now);
        match Box::pin(dial(worker, &upstream)).await {
            Ok(stream) => {
                attempt.connected(clock::now());
                return Ok(Early { attempt, stream });
            }
            Err(refusal) => {
                attempt.failed(clock::now());
                last = refusal;
            }
        }
        tried.push(upstream);
        if Upstreams::exhausted(candidates, &tried) || tried.len() >= TCP_ATTEMPTS {
            return Err(last.into());
        }
    }
}

async fn connect(worker: &Worker, address: SocketAddr) -> io::Result<TcpStream> {
    let mark = worker.shared.mark();
    match clock::within(CONNECT_TIMEOUT, connect_tcp(address, mark)).await {
        Some(result) => result,
        None => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Wherever the application listens: it may have bound the workload's address, or loopback only.
async fn application(worker: &Worker, port: u16) -> Result<TcpStream, Refusal> {
    let candidates = worker.shared.listening.load().candidates(port);
    let mut first_error = None;
    for address in candidates {
        match connect(worker, address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    let error = first_error.map_or_else(String::new, |error| error.to_string());
    Err(Refusal::ApplicationUnreachable(port, error))
}

/// A connection whose other end is this process's own inbound path, so that what holds for calls
/// from others holds for a call to oneself.
async fn call_oneself(worker: &Rc<Worker>, to: SocketAddr) -> io::Result<TcpStream> {
    let mark = worker.shared.mark();
    let listener = listen_tcp(SocketAddr::from(([127, 0, 0, 1], 0)), mark, false)?;
    let near = connect(worker, listener.local_addr()?).await?;
    let own_address = near.local_addr()?;
    for _ in 0..STRANGERS_MAX {
        let (far, peer) = listener.accept().await?;
        if peer != own_address {
            continue;
        }
        super::prepare(&far);
        let served: Pin<Box<dyn Future<Output = ()>>> =
            Box::pin(serve_own_call(Rc::clone(worker), far, to));
        drop(task::spawn_contained("own call", served));
        return Ok(near);
    }
    Err(io::ErrorKind::ConnectionAborted.into())
}
