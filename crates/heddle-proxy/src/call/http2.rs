//! A request of HTTP/2: one stream of its client's connection.

use std::{rc::Rc, time::Instant};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use heddle_logic::{Replayable, retry, route::RequestView};
use heddle_runtime::clock;
use http::{HeaderValue, Uri, header, request, uri};

use super::Call;
use crate::{
    exchange::{Http2Exchange, Http2Responder, Http2Upload, Responder as _},
    forward::forward,
    frames::{Seen, bytes_of, strip_hop_by_hop},
    http1::Persistence,
    outgoing::RequestEdits,
    pool::Tenant,
    record::RequestOutcome,
    refusal::{Cut, Failure, Flag, Refusal},
    reply::{REQUEST_ID, Reply, safe_id},
    upstream::Backend,
    worker::Worker,
};

/// A request, its body and where its response goes.
pub(crate) struct Http2Call<'a> {
    head: request::Parts,
    upload: Http2Upload,
    responder: Http2Responder,
    replayable: Replayable,
    tenant: &'a Tenant,
    begun: Instant,
}

impl<'a> Http2Call<'a> {
    /// A request just accepted on the connection of `tenant`.
    pub(crate) fn new(
        request: http::Request<RecvStream>,
        respond: SendResponse<Bytes>,
        tenant: &'a Tenant,
    ) -> Self {
        let (head, stream) = request.into_parts();
        let length = match stream.is_end_stream() {
            true => Some(0),
            false => {
                head.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok())
            }
        };
        let has_key = head.headers.contains_key("idempotency-key");
        let body = retry::Body::of_length(length);
        let replayable = Replayable::of(head.method.as_str(), has_key, body);
        Self {
            upload: Http2Upload::new(stream),
            responder: Http2Responder::new(respond),
            replayable,
            tenant,
            begun: clock::now(),
            head,
        }
    }

    fn is_grpc(&self) -> bool {
        let kind = self.head.headers.get(header::CONTENT_TYPE);
        let rest = kind.and_then(|kind| kind.as_bytes().strip_prefix(b"application/grpc"));
        matches!(rest, Some([] | [b'+' | b';', ..]))
    }
}

/// The target with another path; the query stays.
fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    parts.path_and_query = Some(uri::PathAndQuery::try_from(target).ok()?);
    Uri::from_parts(parts).ok()
}

impl Call for Http2Call<'_> {
    fn seen(&self) -> impl RequestView {
        Seen::of(&self.head)
    }

    fn begun(&self) -> Instant {
        self.begun
    }

    fn prepare(&mut self, worker: &Worker, edits: &RequestEdits<'_>, outcome: &RequestOutcome) {
        let size = bytes_of(&self.head.headers) + self.head.uri.path().len() as u64;
        outcome.received(size);
        if self.is_grpc() {
            outcome.is_grpc();
        }
        strip_hop_by_hop(&mut self.head.headers);
        if let Some(uri) = edits.path.and_then(|path| with_path(&self.head.uri, path)) {
            self.head.uri = uri;
        }
        if !self.head.headers.contains_key(REQUEST_ID)
            && let Ok(id) = HeaderValue::from_str(worker.request_id().as_str())
        {
            self.head.headers.insert(REQUEST_ID, id);
        }
    }

    fn take_body(&mut self, _: &RequestOutcome) -> Result<(), Refusal> {
        Ok(())
    }

    async fn gone(&mut self) {
        std::future::poll_fn(|context| self.responder.poll_gone(context)).await;
    }

    async fn forward(
        &mut self,
        worker: &Rc<Worker>,
        backend: &Backend,
        outcome: &mut RequestOutcome,
    ) -> Result<Persistence, Failure> {
        let mut exchange = Http2Exchange {
            head: &self.head,
            upload: &mut self.upload,
            responder: &mut self.responder,
            replayable: self.replayable,
            tenant: self.tenant,
            sent: false,
        };
        forward(worker, &mut exchange, backend, outcome).await
    }

    async fn conclude(
        mut self,
        worker: &Worker,
        result: Result<Persistence, Failure>,
        outcome: RequestOutcome,
    ) -> Persistence {
        outcome.received(self.upload.received);
        let failure = match result {
            Ok(_) => None,
            Err(Failure::Refused(refused)) => {
                let id = self.head.headers.get(REQUEST_ID).and_then(|id| safe_id(id.as_bytes()));
                let reply = Reply::refusing(worker, &refused, id, &outcome);
                let mut reply = if self.is_grpc() { reply.for_grpc() } else { reply };
                let head = std::mem::take(&mut reply.head);
                self.responder.respond(head, &mut reply, &outcome).await.err()
            }
            Err(failure) => Some(failure),
        };
        match failure {
            None => {}
            Some(Failure::Cut(cut)) => {
                outcome.flag(Flag::UC);
                self.responder.reset(match cut {
                    Cut::Stream(reason) => reason,
                    Cut::Closed | Cut::Reset => Reason::INTERNAL_ERROR,
                });
            }
            // Dropped unfinished, the outcome says so itself.
            Some(Failure::ClientGone | Failure::Refused(_)) => return Persistence::Ended,
        }
        outcome.finish();
        Persistence::KeepAlive
    }
}
