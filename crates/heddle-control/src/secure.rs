//! Discovery and certificates on TCP, over TLS 1.3, for sidecars that are not on this machine.
//!
//! A certificate of the client is asked for and not demanded: a pod's first call is for its certificate, with the
//! token of its service account, which somebody who knows the cluster reviews ([`TokenReviewer`]). A certificate
//! alone renews nothing: a token is bound to its pod and ends with it, so a pod that is gone, or whose key was
//! taken, gets no other certificate. Discovery is for those with a certificate that is believed, and they are who it
//! says. One that is not believed does not end the handshake: who shows it is a stranger, and every call says
//! why, which an alert of TLS could not.
//!
//! Everybody in the cluster can connect, so what a connection may cost before it has shown a certificate is bounded:
//! handshakes at a time, in all and per address; strangers at a time, and how long each may stay.

mod connection;
mod issue;
mod review;
#[cfg(test)]
mod tests;
mod verifier;

use std::sync::Arc;

use heddle_runtime::clock;
use heddle_wire::discovery::{
    certificates,
    transport::{Discovery, tokio_stream::wrappers::ReceiverStream},
};
use tokio::{net::TcpListener, sync::mpsc};

pub use self::review::{ReviewError, TokenReviewer};
use self::{connection::accept, issue::Issuing, verifier::AnyCertificate};
pub use crate::caller::Caller;
use crate::{ca::Trust, error::ControlError};

/// Accepted connections waiting for the transport.
const ACCEPTED_MAX: usize = 64;

/// Serves discovery and certificates on `listener`, as a server of `names` (DNS names and addresses), for ever.
/// Dropped, it accepts nothing more.
///
/// # Errors
/// No certificate can be made for these names, or the transport gave up.
pub async fn serve<D: Discovery, R: TokenReviewer>(
    listener: TcpListener,
    discovery: Arc<D>,
    trust: Arc<Trust>,
    reviewer: Arc<R>,
    names: &[String],
) -> Result<(), ControlError> {
    let clients = Arc::new(AnyCertificate::default());
    let config = trust.serving_config(names, &[b"h2"], Some(clients), clock::unix_now)?;
    let (accepted, incoming) = mpsc::channel(ACCEPTED_MAX);
    let issuing = Arc::new(Issuing::new(Arc::clone(&trust), reviewer));
    let serving =
        certificates::router(discovery, issuing).serve_with_incoming(ReceiverStream::new(incoming));
    let ended = |reason: String| Err(ControlError::Ended { socket: "discovery over TLS", reason });
    tokio::select! {
        () = accept(&listener, config, trust, accepted) => ended("it stopped accepting".to_owned()),
        result = serving => match result {
            Ok(()) => ended("it stopped accepting".to_owned()),
            Err(error) => ended(error.to_string()),
        },
    }
}
