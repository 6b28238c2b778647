//! The HTTP server of the dashboard (its own names only), and of whether we are well: each with a bounded
//! number of connections.

use std::{cell::RefCell, rc::Rc, time::Duration};

use heddle_runtime::{clock, task};
use http_body_util::BodyExt;
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{
    answers::View,
    config::ObserveConfig,
    last_scrape::{Believed, Desk},
    lifetime::within_its_lifetime,
    limits, routes,
};

/// Pause after a failed accept (out of descriptors): nothing else would slow the loop down.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is told at a listener.
#[derive(Debug, Clone)]
pub(crate) enum Face {
    /// Everything.
    Dashboard,
    /// Whether it is well; and sidecars of a cluster are scraped a last time.
    Pods(Rc<Desk>),
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
                let served = connection(face.clone(), stream, permit, view, config);
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
        let (face, view, config) = (face.clone(), Rc::clone(&view), Rc::clone(&config));
        async move {
            Ok::<_, std::convert::Infallible>(match face {
                Face::Dashboard => routes::answer(request, &view, &config).await,
                Face::Pods(desk) if Desk::is_asked(&request) => {
                    let answer = desk.answer(request, Believed::Control).await;
                    answer.map(|body| body.map_err(|never| match never {}).boxed_unsync())
                }
                Face::Pods(_) => routes::health(&request, &view),
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
