//! Certificates for pods, by the token of each.

use std::{sync::Arc, time::Duration};

use heddle_runtime::clock;
use heddle_wire::discovery::certificates::{
    CSR_BYTES_MAX, Certificates, IssueRequest, IssueResponse, TOKEN_AUDIENCE, token,
};
use tokio::sync::Semaphore;
use tonic::{Request, Status};

use super::review::{ReviewError, TokenReviewer};
use crate::{
    ca::{CaError, PodIdentity, Trust},
    caller::Caller,
};

/// Tokens under review at a time: more would only wait at the cluster's own door.
const REVIEWS_MAX: usize = 64;
/// Longest wait for one's turn and for the review, each.
const REVIEW_WAIT: Duration = Duration::from_secs(10);

/// The certificate service.
#[derive(Debug)]
pub(super) struct Issuing<R> {
    trust: Arc<Trust>,
    reviewer: Arc<R>,
    reviews: Semaphore,
}

impl<R: TokenReviewer> Issuing<R> {
    pub(super) fn new(trust: Arc<Trust>, reviewer: Arc<R>) -> Self {
        Self { trust, reviewer, reviews: Semaphore::new(REVIEWS_MAX) }
    }

    async fn review(&self, token: &str) -> Result<PodIdentity, Status> {
        let busy = || {
            Status::resource_exhausted("too many tokens wait to be reviewed: try again in a moment")
        };
        let Some(Ok(_turn)) = clock::within(REVIEW_WAIT, self.reviews.acquire()).await else {
            return Err(busy());
        };
        match clock::within(REVIEW_WAIT, self.reviewer.review(token, TOKEN_AUDIENCE)).await {
            Some(Ok(pod)) => Ok(pod),
            Some(Err(error @ ReviewError::Refused(_))) => {
                tracing::warn!(%error, "no certificate was given");
                Err(Status::unauthenticated(error.to_string()))
            }
            Some(Err(error @ ReviewError::Unavailable(_))) => {
                tracing::warn!(%error, "no certificate was given");
                Err(Status::unavailable(error.to_string()))
            }
            None => Err(Status::unavailable("the token's review was not answered in time")),
        }
    }
}

impl<R: TokenReviewer> Certificates for Issuing<R> {
    async fn issue(&self, request: Request<IssueRequest>) -> Result<IssueResponse, Status> {
        let caller = Caller::of(&request);
        let token = token(&request)?.to_owned();
        let csr = request.into_inner().csr;
        if csr.len() > CSR_BYTES_MAX {
            return Err(Status::invalid_argument(format!(
                "a request for a certificate has at most {CSR_BYTES_MAX} bytes"
            )));
        }
        let pod = self.review(&token).await?;
        let workload = pod.workload();
        if let Caller::Certified(shown) = &caller
            && shown.workload != workload
        {
            return Err(Status::permission_denied(format!(
                "the token is of `{workload}`, the certificate that was shown is of `{}`",
                shown.workload
            )));
        }
        let now = clock::unix_now();
        let authority = self.trust.authority();
        let issued = authority.sign(&csr, &pod, now).map_err(|error| refused(&error))?;
        tracing::info!(%workload, not_after = issued.not_after, "certificate issued");
        let der = |certificates: &[rustls::pki_types::CertificateDer<'_>]| {
            certificates.iter().map(|one| one.to_vec()).collect()
        };
        Ok(IssueResponse {
            chain: der(&issued.chain),
            roots: der(authority.roots()),
            not_before: issued.not_before,
            not_after: issued.not_after,
            issued_at: now.as_secs(),
            workload: workload.0,
        })
    }
}

fn refused(error: &CaError) -> Status {
    tracing::warn!(%error, "no certificate was given");
    match error {
        CaError::Request(_) | CaError::Name(_) => Status::invalid_argument(error.to_string()),
        _ => Status::failed_precondition(error.to_string()),
    }
}
