//! Proves the redirection before the sidecar says that it is ready: an unmarked connection to the
//! workload's own health port arrives at our outbound listener, a marked one at the health port.
//!
//! Rules that are missing would send traffic past the mesh, rules that catch our own sockets would
//! send it in circles; both must be known before the application starts. Where all that this process opens
//! escapes, by its user, the first is proven by who writes the rules, and here only the second.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use heddle_runtime::{clock, net};
use heddle_wire::local::proxy_config::PORT_HEALTH;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::Shared;

/// Limit of one attempt.
const ATTEMPT_WAIT: Duration = Duration::from_secs(1);

/// What is wrong with the redirection.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// A connection without the mark went past us.
    #[error(
        "a connection to {0} was not captured: the redirection rules of this network namespace are missing or changed"
    )]
    NotCaptured(SocketAddr),
    /// Our own connection was captured.
    #[error("the sidecar's own connection to {target} did not escape the redirection: {reason}")]
    NotEscaped {
        /// Where to.
        target: SocketAddr,
        /// What happened instead.
        reason: String,
    },
    /// No connection could be begun.
    #[error("no probing connection to {target}: {source}")]
    Io {
        /// Where to.
        target: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Probes the workload's addresses; the second, IPv6, only where that is in use.
///
/// # Errors
/// [`ProbeError`]: not ready yet, or never.
pub(crate) async fn probe(shared: &Shared) -> Result<(), ProbeError> {
    let config = &shared.config;
    if !config.is_redirected() {
        return Ok(());
    }
    let mut proven = false;
    for ip in config.addresses.iter() {
        let captured = match config.proves_capture() {
            true => capture(shared, ip).await,
            false => bound_socket(ip).map(drop).map_err(|source| {
                let target = SocketAddr::new(ip, PORT_HEALTH);
                ProbeError::Io { target, source }
            }),
        };
        match captured {
            Err(ProbeError::Io { target, source }) if proven => {
                tracing::debug!(%target, %source, "no IPv6 here: its redirection is not probed");
            }
            Err(error) => return Err(error),
            Ok(()) => escape(ip, config.escape_mark()).await?,
        }
        proven = true;
    }
    Ok(())
}

/// An unmarked connection must arrive at a worker.
async fn capture(shared: &Shared, ip: IpAddr) -> Result<(), ProbeError> {
    let target = SocketAddr::new(ip, PORT_HEALTH);
    let failed = |source| ProbeError::Io { target, source };
    // Bound first: the worker may see the connection before `connect` has returned here.
    let (socket, port) = bound_socket(ip).map_err(failed)?;
    let probe = &shared.probe;
    probe.expect(port);
    let connected = clock::within(ATTEMPT_WAIT, socket.connect(target)).await;
    let result = match connected {
        Some(Ok(_stream)) => match clock::within(ATTEMPT_WAIT, probe.taken()).await {
            Some(()) => Ok(()),
            None => Err(ProbeError::NotCaptured(target)),
        },
        Some(Err(source)) => Err(failed(source)),
        None => Err(ProbeError::NotCaptured(target)),
    };
    probe.forget(port);
    result
}

/// A socket without the mark, and its port.
fn bound_socket(ip: IpAddr) -> io::Result<(TcpSocket, u16)> {
    let socket = if ip.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(ip, 0))?;
    let port = socket.local_addr()?.port();
    Ok((socket, port))
}

/// A marked connection must arrive at our health port.
async fn escape(ip: IpAddr, mark: Option<u32>) -> Result<(), ProbeError> {
    let target = SocketAddr::new(ip, PORT_HEALTH);
    let failed = |reason: String| ProbeError::NotEscaped { target, reason };
    let asked = async {
        let stream = net::connect_tcp(target, mark).await?;
        ask_health(stream).await
    };
    match clock::within(ATTEMPT_WAIT, asked).await {
        Some(Ok(true)) => Ok(()),
        Some(Ok(false)) => Err(failed("something else answered".into())),
        Some(Err(error)) => Err(failed(error.to_string())),
        None => Err(failed("no answer".into())),
    }
}

/// Asks the health port; true if it is ours that answers, ready or not.
async fn ask_health(mut stream: TcpStream) -> io::Result<bool> {
    stream
        .write_all(b"GET /healthz/ready HTTP/1.1\r\nhost: probe\r\nconnection: close\r\n\r\n")
        .await?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await?;
    Ok(&answer == b"HTTP/1.1 200" || &answer == b"HTTP/1.1 503")
}
