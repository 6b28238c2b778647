//! Sidecars that end ask for one more scrape, and wait for it: else what lives shorter than an interval would never be
//! seen, and of everything else the end would be missing.
//!
//! Nothing that is measured comes this way. It is read from the sidecar as ever, into the same ledger, so that nothing
//! is counted twice; who asks for a workload that is not its own makes us look at that one, and no more.

use std::{cell::RefCell, convert::Infallible, path::Path, rc::Rc, sync::Arc, time::Duration};

use heddle_model::ServiceName;
use heddle_runtime::{
    clock,
    path_socket::{self, Peers},
    task,
};
use heddle_wire::local::last_scrape::{
    LAST_SCRAPE, LAST_SCRAPE_BYTES_MAX, LastScrape, observer_socket,
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
};

use crate::{
    answers::View, census::Census, error::ObserveError, lifetime::within_its_lifetime, limits,
    rounds::Ask,
};

/// Pause after a failed accept (out of descriptors): nothing else would slow the loop down.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes such questions.
#[derive(Debug)]
pub(crate) struct Desk {
    view: Rc<RefCell<View>>,
    census: Rc<Census>,
    /// To who scrapes.
    asks: mpsc::Sender<Ask>,
    /// For those who are being answered.
    places: Semaphore,
}

/// Whose word is taken for who a workload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Believed {
    /// The sidecar's own: only the mesh's user reaches us.
    Sidecar,
    /// The control plane's.
    Control,
}

impl Desk {
    /// One that hands questions on by `asks`.
    pub(crate) fn new(
        view: Rc<RefCell<View>>,
        census: Rc<Census>,
        asks: mpsc::Sender<Ask>,
    ) -> Self {
        Self { view, census, asks, places: Semaphore::new(limits::LAST_SCRAPES_MAX) }
    }

    /// Is it such a question?
    pub(crate) fn is_asked<B>(request: &Request<B>) -> bool {
        request.method() == Method::POST && request.uri().path() == LAST_SCRAPE
    }

    /// Answers one, when the scrape is done.
    pub(crate) async fn answer<B>(
        &self,
        request: Request<B>,
        believed: Believed,
    ) -> Response<Full<Bytes>>
    where
        B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        let (status, text) = match self.done(request, believed).await {
            Ok(()) => (StatusCode::NO_CONTENT, String::new()),
            Err((status, reason)) => (status, format!("{reason}\n")),
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response
    }

    async fn done<B>(
        &self,
        request: Request<B>,
        believed: Believed,
    ) -> Result<(), (StatusCode, String)>
    where
        B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        let busy = || (StatusCode::SERVICE_UNAVAILABLE, "too many end at one time".to_owned());
        let _place = self.places.try_acquire().map_err(|_| busy())?;
        let wrong = |reason: String| (StatusCode::BAD_REQUEST, reason);
        let body = Limited::new(request.into_body(), LAST_SCRAPE_BYTES_MAX).collect();
        let body = clock::within(limits::LAST_SCRAPE_BODY_TIMEOUT, body).await;
        let body = body.ok_or_else(|| wrong("the body did not come in time".to_owned()))?;
        let body = body.map_err(|error| wrong(error.to_string()))?.to_bytes();
        let about: LastScrape =
            serde_json::from_slice(&body).map_err(|error| wrong(error.to_string()))?;
        let id = about.workload.0.clone();
        match believed {
            Believed::Sidecar => {
                let service = ServiceName::new(&about.service, &about.namespace);
                let service = service.map_err(|error| wrong(error.to_string()))?;
                self.view.borrow_mut().roster.admit(about, service);
            }
            Believed::Control if self.census.knows(&id).await => {}
            Believed::Control => {
                let reason = format!("the control plane knows no workload `{id}` with a sidecar");
                return Err((StatusCode::NOT_FOUND, reason));
            }
        }
        let (done, scraped) = oneshot::channel();
        let handed = self.asks.send(Ask { id, done }).await;
        match (handed, scraped.await) {
            (Ok(()), Ok(true)) => Ok(()),
            _ => Err((StatusCode::BAD_GATEWAY, "its metrics could not be read".to_owned())),
        }
    }

    /// Binds the path socket of a mesh of this machine.
    ///
    /// # Errors
    /// It cannot be bound.
    pub(crate) fn listen(run_dir: &Path) -> Result<UnixListener, ObserveError> {
        let path = observer_socket(run_dir);
        path_socket::bind(&path).map_err(|source| ObserveError::Socket { path, source })
    }

    /// Serves that socket for ever.
    pub(crate) async fn serve(self: Rc<Self>, listener: UnixListener) {
        let peers = match Peers::new() {
            Ok(peers) => peers,
            Err(error) => return tracing::error!(%error, "nobody is scraped a last time"),
        };
        let permits = Arc::new(Semaphore::new(limits::CONNECTIONS_MAX));
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) if peers.allow(&stream) => {
                    let served = Rc::clone(&self).connection(stream, permit);
                    drop(task::spawn_contained("last scrape", served));
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a sidecar's connection");
                    clock::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn connection(self: Rc<Self>, stream: UnixStream, permit: OwnedSemaphorePermit) {
        let service = service_fn(move |request: Request<Incoming>| {
            let desk = Rc::clone(&self);
            async move {
                Ok::<_, Infallible>(if Self::is_asked(&request) {
                    desk.answer(request, Believed::Sidecar).await
                } else {
                    let mut unknown = Response::new(Full::new(Bytes::new()));
                    *unknown.status_mut() = StatusCode::NOT_FOUND;
                    unknown
                })
            }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits::REQUEST_HEAD_TIMEOUT)
            .max_buf_size(limits::REQUEST_HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        within_its_lifetime(served, |one| one.graceful_shutdown()).await;
        drop(permit);
    }
}

#[cfg(test)]
#[path = "last_scrape/tests.rs"]
mod tests;
