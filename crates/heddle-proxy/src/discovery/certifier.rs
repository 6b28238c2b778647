//! Keeps this sidecar's certificate: gets the first one by the pod's token, renews it in time, and gets another when
//! it was refused. The key never leaves this process but for the state folder.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use heddle_runtime::clock;
use heddle_wire::{
    discovery::certificates::{CertificateClient, IssueRequest, TOKEN_BYTES_MAX},
    local::proxy_config::SecureControl,
};
use tokio::sync::{Notify, watch};
use tonic::Status;

use super::{
    certificate::{Certificate, CertificateFile, UnfitError, Wanted},
    link::{self, LinkError},
};
use crate::Shared;

/// First pause after a failed attempt to get a certificate, while there is none.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest pause while there is none.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// First and longest pause while there is one that is still good.
const RENEWAL_BACKOFF: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// Least time between two certificates.
const RENEWAL_MIN: Duration = Duration::from_secs(1);
/// One that was got within this time and is refused already…
const NEW: Duration = Duration::from_secs(60);
/// …will hardly be better the next time: the next one waits.
const NEW_REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// An answer to a request for a certificate comes by then: tokens may wait to be reviewed.
const ISSUE_MAX: Duration = Duration::from_secs(25);
/// Clocks that differ by more are worth a warning, seconds.
const CLOCKS_APART: u64 = 60;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
enum IssueError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("{file}: it holds no token")]
    NoToken { file: String },
    #[error("the control plane gave no certificate: {}", .0.message())]
    Refused(#[from] Status),
    #[error("the control plane gave no certificate within {} s", ISSUE_MAX.as_secs())]
    Late,
    #[error(transparent)]
    Unfit(#[from] UnfitError),
    #[error("no key could be made: {0}")]
    Key(#[from] rcgen::Error),
}

/// What the discovery client goes by.
#[derive(Debug, Clone)]
pub(super) struct Certificates {
    /// The newest one, once there is one.
    pub(super) newest: watch::Receiver<Option<Arc<Certificate>>>,
    /// Told when the control plane does not believe it.
    pub(super) refused: Arc<Notify>,
}

/// Keeps the certificate of one sidecar.
#[derive(Debug)]
pub(crate) struct Certifier {
    shared: Arc<Shared>,
    control: SecureControl,
    file: CertificateFile,
    newest: watch::Sender<Option<Arc<Certificate>>>,
    refused: Arc<Notify>,
}

impl Certifier {
    /// One that has taken over what an earlier process of this sidecar left.
    pub(super) fn new(shared: Arc<Shared>, control: SecureControl) -> (Self, Certificates) {
        let file = CertificateFile::in_folder(&shared.config.state_dir);
        let left = file.load(&shared.config.workload, clock::unix_now()).map(Arc::new);
        if left.is_some() {
            shared.identified.store(true, Ordering::Relaxed);
        }
        let (newest, told) = watch::channel(left);
        let refused = Arc::new(Notify::new());
        let certificates = Certificates { newest: told, refused: Arc::clone(&refused) };
        (Self { shared, control, file, newest, refused }, certificates)
    }

    /// Keeps it, for ever.
    pub(crate) async fn run(self) {
        let mut now = clock::unix_now();
        let mut got: Option<Instant> = None;
        loop {
            let due = self.newest.borrow().as_ref().map(|one| {
                // A control plane whose certificates are due at once must not be asked without end.
                one.renewal_in(now, fastrand::f64()).max(RENEWAL_MIN)
            });
            let refused = async {
                self.refused.notified().await;
                tracing::info!(
                    "the control plane does not believe the certificate: another is got"
                );
                let is_new = got.is_some_and(|got| clock::now() < got + NEW);
                let pause = if is_new { NEW_REFUSED_PAUSE } else { RENEWAL_MIN };
                clock::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            };
            // Either way another is needed.
            clock::within(due.unwrap_or_default(), refused).await;
            self.renew().await;
            got = Some(clock::now());
            // What was refused meanwhile was the one before.
            let _stale = self.refused.notified().now_or_never();
            // By the clock of who issued it: this machine's may be wrong by hours.
            now = self.newest.borrow().as_ref().map_or(now, |one| one.issued_at());
        }
    }

    /// Gets one, however often that has to be tried.
    async fn renew(&self) {
        let mut backoff = Duration::ZERO;
        let mut said = String::new();
        loop {
            let error = match self.issue().await {
                Ok(certificate) => return self.publish(certificate),
                Err(error) => error.to_string(),
            };
            let good = self.is_good();
            match said == error {
                true => tracing::debug!(error, "still no certificate"),
                false if good => tracing::warn!(error, "the certificate could not be renewed yet"),
                false => tracing::warn!(error, "not ready: no certificate"),
            }
            said = error;
            let (min, max) = if good { RENEWAL_BACKOFF } else { (BACKOFF_MIN, BACKOFF_MAX) };
            backoff = (backoff * 2).clamp(min, max);
            // Between half and all of it, so that the mesh's sidecars do not come back as one.
            clock::sleep(backoff.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        }
    }

    fn is_good(&self) -> bool {
        let now = clock::unix_now().as_secs();
        self.newest.borrow().as_ref().is_some_and(|one| now < one.not_after())
    }

    fn publish(&self, certificate: Certificate) {
        tracing::info!(not_after = certificate.not_after(), "there is a certificate");
        self.file.save(&certificate);
        self.newest.send_replace(Some(Arc::new(certificate)));
        self.shared.identified.store(true, Ordering::Relaxed);
    }

    async fn issue(&self) -> Result<Certificate, IssueError> {
        let token = self.token()?;
        let wanted = Wanted::new()?;
        // As nobody: the token says who this is, and a certificate that is not believed any more is no help.
        let channel = Box::pin(link::secure(&self.control, None)).await?;
        let request = IssueRequest { csr: wanted.request.clone() };
        let mut client = CertificateClient::new(channel);
        let answer = clock::within(ISSUE_MAX, client.issue(request, &token)).await;
        let answer = answer.ok_or(IssueError::Late)??;
        let apart = clock::unix_now().as_secs().abs_diff(answer.issued_at);
        if apart > CLOCKS_APART {
            tracing::warn!(
                seconds = apart,
                "this machine's clock and the control plane's differ: certificates may not be believed"
            );
        }
        Ok(wanted.granted(answer, &self.shared.config.workload)?)
    }

    /// The token as it is now: who mounts it replaces it.
    fn token(&self) -> Result<String, IssueError> {
        let file = &self.control.token;
        let bytes = link::read(file)?;
        let none = || IssueError::NoToken { file: file.display().to_string() };
        let text = String::from_utf8(bytes).map_err(|_| none())?;
        let token = text.trim();
        match token.len() {
            1..=TOKEN_BYTES_MAX => Ok(token.to_owned()),
            _ => Err(none()),
        }
    }
}
