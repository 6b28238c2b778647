//! The certificate that was shown on the connection of a request.

use tonic::{Request, Status};

/// What was shown over TLS: a certificate, DER, or none.
#[derive(Debug, Clone)]
pub(super) struct Shown(pub(super) Option<Vec<u8>>);

/// The certificate shown on the connection of a request; over TLS there must be one.
pub(super) fn shown<T>(request: &Request<T>) -> Result<Option<Vec<u8>>, Status> {
    match request.extensions().get::<Shown>() {
        Some(Shown(None)) => Err(Status::unauthenticated("this needs a certificate")),
        Some(Shown(shown)) => Ok(shown.clone()),
        None => Ok(None),
    }
}
