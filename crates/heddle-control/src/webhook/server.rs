//! Answers behind HTTPS, the webhook's and others'. The API server keeps few connections and uses them again; whoever
//! else comes is bounded in number, size and time.

use std::{convert::Infallible, future::Future, io, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use heddle_runtime::{clock, task::spawn_contained};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, Response,
    body::{Body as _, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;

use super::{REVIEW_BYTES_MAX, Reply, Webhook, too_large};

/// Connections at one time; each may hold a review.
const CONNECTIONS_MAX: usize = 64;
/// Longest a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Longest a request's head, and then its body, may take to come.
const READ_MAX: Duration = Duration::from_secs(10);
/// A connection is closed behind the answer of this time, so that certificates are shown anew.
const AGE_MAX: Duration = Duration::from_secs(600);
/// Pause after a failed accept: descriptors run short, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What answers requests.
pub trait Site: Send + Sync + 'static {
    /// Answers one.
    fn answer(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send;
}

impl Site for Webhook {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        answer(self, request).await
    }
}

/// Serves a site for ever, on this thread's runtime. Whatever protocols `tls` offers, HTTP/1.1 is spoken.
pub async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, site: Arc<impl Site>) {
    let mut tls = ServerConfig::clone(&tls);
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let (acceptor, site) = (acceptor.clone(), Arc::clone(&site));
                spawn_contained("https connection", async move {
                    let _slot = slot;
                    converse(stream, acceptor, site).await.unwrap_or_else(|error| {
                        tracing::debug!(%peer, %error, "a connection ended early");
                    });
                });
            }
            Err(error) => {
                tracing::debug!(%error, "accepting a connection failed");
                clock::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection to its end.
async fn converse(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    site: Arc<impl Site>,
) -> io::Result<()> {
    // That it is not set costs a delay, no answer.
    let _delayed = stream.set_nodelay(true);
    let Some(stream) = clock::within(HANDSHAKE_MAX, acceptor.accept(stream)).await else {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "no handshake in time"));
    };
    let service = service_fn(|request| {
        let site = Arc::clone(&site);
        async move { Ok::<_, Infallible>(site.answer(request).await) }
    });
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_MAX)
        .serve_connection(TokioIo::new(stream?), service);
    let mut conversation = pin!(conversation);
    if let Some(ended) = clock::within(AGE_MAX, conversation.as_mut()).await {
        return ended.map_err(io::Error::other);
    }
    conversation.as_mut().graceful_shutdown();
    clock::within(READ_MAX, conversation).await.unwrap_or(Ok(())).map_err(io::Error::other)
}

async fn answer(webhook: &Webhook, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    // What is announced need not be read to be refused.
    if body.size_hint().lower() > REVIEW_BYTES_MAX as u64 {
        return response(too_large());
    }
    let body = Limited::new(body, REVIEW_BYTES_MAX).collect();
    let reply = match clock::within(READ_MAX, body).await {
        None => Reply::text(408, "the review did not come in time"),
        Some(Err(error)) if error.is::<http_body_util::LengthLimitError>() => too_large(),
        Some(Err(error)) => Reply::text(400, error),
        Some(Ok(body)) => webhook.answer(head.method.as_str(), head.uri.path(), &body.to_bytes()),
    };
    response(reply)
}

fn response(reply: Reply) -> Response<Full<Bytes>> {
    let kind = if reply.status == 200 { "application/json" } else { "text/plain; charset=utf-8" };
    let mut response = Response::new(Full::new(Bytes::from(reply.body)));
    *response.status_mut() = hyper::StatusCode::from_u16(reply.status).unwrap_or_default();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
