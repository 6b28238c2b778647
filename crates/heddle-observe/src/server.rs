//! The HTTP server of the dashboard (its own names only), and of whether we are well: each with a bounded
//! number of connections.

use std::{cell::RefCell, rc::Rc, time::Duration};

use heddle_runtime::{clock, task};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{answers::View, config::ObserveConfig, lifetime::within_its_lifetime, limits, routes};

/// Pause after a failed accept (out of descriptors): nothing else would slow the loop down.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is told at a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Face {
    /// Everything.
    Dashboard,
    /// Whether it is well.
    Health,
}

/// Serves for ever.
pub(crate) async fn serve(
    face: Face,
    listener: TcpListener,
    view: Rc<RefCell<View>>,
    config: Rc<ObserveConfig>,
) {
    let permits = std::sync::Arc::new(Semaphore::new(limits::CONNECTIONS_MAX));
    loop {
        let Ok(permit) = std::sync::Arc::clone(&permits).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (view, config) = (Rc::clone(&view), Rc::clone(&config));
                let served = connection(face, stream, permit, view, config);
                drop(task::spawn_contained("dashboard connection", served));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the dashboard");
                clock::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection to its end: the peer's, an idle limit, or [`limits::CONNECTION_LIFETIME_MAX`].
async fn connection(
    face: Face,
    stream: TcpStream,
    permit: OwnedSemaphorePermit,
    view: Rc<RefCell<View>>,
    config: Rc<ObserveConfig>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (view, config) = (Rc::clone(&view), Rc::clone(&config));
        async move {
            Ok::<_, std::convert::Infallible>(match face {
                Face::Dashboard => routes::answer(request, &view, &config).await,
                Face::Health => routes::health(&request, &view),
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
