//! Who says of which pod a token is: somebody who knows the cluster.

use std::future::Future;

use crate::ca::PodIdentity;

/// Says of which pod a token is.
pub trait TokenReviewer: Send + Sync + 'static {
    /// Whose token is this, if it is meant for `audience` and its pod still exists?
    fn review(
        &self,
        token: &str,
        audience: &str,
    ) -> impl Future<Output = Result<PodIdentity, ReviewError>> + Send;
}

/// Why a token says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// It is no token of a pod, not meant for us, or over. What the cluster said.
    #[error("the token is not accepted: {0}")]
    Refused(String),
    /// Nobody can be asked now.
    #[error("tokens cannot be reviewed now: {0}")]
    Unavailable(String),
}
