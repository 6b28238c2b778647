//! A request of HTTP/2: one stream of its client's connection.

use std::{rc::Rc, time::Instant};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use heddle_logic::{Replayable, retry, route::RequestView, rule};
use heddle_runtime::clock;
use http::{HeaderValue, Uri, header, request, uri};

use super::Call;
use crate::{
    deadline::{self, EXPECTED, GRPC_TIMEOUT},
    exchange::{FramesExchange, Http2Responder, Http2Upload, Responder as _, Upload as _},
    forward::{Terms, forward},
    frames::{Seen, apply, bytes_of, strip_hop_by_hop},
    http1::Persistence,
    mirror,
    outgoing::{ATTEMPT_COUNT, RequestEdits},
    pool::Tenant,
    record::RequestOutcome,
    refusal::{Cut, Failure, Flag, Refusal},
    reply::{AskedFor, REQUEST_ID, Reply, is_grpc, safe_id},
    streams::HttpVersion,
    tee::Tee,
    upstream::Backend,
    worker::Worker,
};

/// A request, its body and where its response goes.
pub(crate) struct Http2Call<'a> {
    head: request::Parts,
    upload: Http2Upload,
    responder: Http2Responder,
    replayable: Replayable,
    /// Of the body, where it is known.
    length: Option<u64>,
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
        let mut call = Self {
            upload: Http2Upload::new(stream),
            responder: Http2Responder::new(respond),
            replayable: Replayable::No,
            length,
            tenant,
            begun: clock::now(),
            head,
        };
        call.replayable = call.replayable_if(false);
        call
    }

    /// `any_method`: a rule says so.
    fn replayable_if(&self, any_method: bool) -> Replayable {
        let has_key = self.head.headers.contains_key("idempotency-key");
        let body = retry::Body::of_length(self.length);
        Replayable::of(self.head.method.as_str(), any_method || has_key, body)
    }

    /// Changes what a rule changes.
    fn change(&mut self, edits: &RequestEdits<'_>) {
        if edits.retries.is_some() {
            self.head.headers.insert(ATTEMPT_COUNT, HeaderValue::from(1));
        }
        if let Some(left) = edits.attempt_limit() {
            let left = HeaderValue::from(deadline::as_expected(left));
            self.head.headers.insert(EXPECTED, left);
        }
        let came = || Some(self.head.headers.get(GRPC_TIMEOUT)?.as_bytes());
        if let Some(grpc) = edits.grpc_timeout(came).and_then(|text| text.parse().ok()) {
            self.head.headers.insert(GRPC_TIMEOUT, grpc);
        }
        if let Some(trace) = edits.trace {
            trace.apply(&mut self.head.headers);
        }
        let Some(changes) = edits.changes else { return };
        if let Some(uri) =
            changes.authority.as_ref().and_then(|to| with_authority(&self.head.uri, to))
        {
            self.head.uri = uri;
            self.head.headers.remove(header::HOST);
        }
        apply(&mut self.head.headers, &changes.request);
        self.responder.edits.clone_from(&changes.answer);
    }

    /// What is told of it where it is refused.
    fn asked_for(&self) -> AskedFor {
        let headers = &self.head.headers;
        let text = |name: &str| {
            let value = headers.get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let uri = &self.head.uri;
        let target = || uri.path_and_query().map_or_else(String::new, ToString::to_string);
        let authority = || uri.authority().map_or_else(String::new, ToString::to_string);
        AskedFor {
            id: headers.get(REQUEST_ID).and_then(|id| safe_id(id.as_bytes())),
            method: self.head.method.to_string(),
            authority: text(rule::ORIGINAL_HOST).unwrap_or_else(authority),
            path: text(rule::ORIGINAL_PATH).unwrap_or_else(target),
            grpc: self.is_grpc(),
        }
    }

    /// One name for whom it is meant: what rules went by, else Host, else whom the client dialled.
    fn name_host(&mut self, edits: &RequestEdits<'_>) {
        let host = self.head.headers.remove(header::HOST);
        if self.head.uri.authority().is_some() {
            return;
        }
        let host = host.and_then(|host| host.to_str().ok().map(str::to_owned));
        let host = host.unwrap_or_else(|| (edits.default_host)());
        if let Some(uri) = with_authority(&self.head.uri, &host) {
            self.head.uri = uri;
        }
    }

    fn is_grpc(&self) -> bool {
        let kind = self.head.headers.get(header::CONTENT_TYPE);
        kind.is_some_and(|kind| is_grpc(kind.as_bytes()))
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

/// The target of somebody else.
fn with_authority(uri: &Uri, authority: &str) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    parts.authority = Some(authority.parse().ok()?);
    parts.scheme.get_or_insert(uri::Scheme::HTTP);
    Uri::from_parts(parts).ok()
}

impl Call for Http2Call<'_> {
    fn seen(&self) -> impl RequestView {
        Seen::of(&self.head)
    }

    fn begun(&self) -> Instant {
        self.begun
    }

    fn protocol(&self) -> &'static str {
        "HTTP/2"
    }

    fn prepare(&mut self, worker: &Worker, edits: &RequestEdits<'_>, outcome: &RequestOutcome) {
        let size = bytes_of(&self.head.headers) + self.head.uri.path().len() as u64;
        outcome.received(size);
        if self.is_grpc() {
            outcome.is_grpc();
            self.upload.messages = outcome.messages().cloned();
        }
        if edits.retries.is_some_and(|policy| policy.any_method) {
            self.replayable = self.replayable_if(true);
        }
        strip_hop_by_hop(&mut self.head.headers);
        self.change(edits);
        if let Some(uri) = edits.path.and_then(|path| with_path(&self.head.uri, path)) {
            self.head.uri = uri;
        }
        self.name_host(edits);
        if !self.head.headers.contains_key(REQUEST_ID)
            && let Ok(id) = HeaderValue::from_str(edits.new_id(worker).as_str())
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

    async fn answer(&mut self, mut reply: Reply, outcome: &RequestOutcome) -> Persistence {
        let head = std::mem::take(&mut reply.head);
        match self.responder.respond((head, true), &mut reply, outcome).await {
            Ok(()) => Persistence::KeepAlive,
            Err(_) => Persistence::Ended,
        }
    }

    async fn forward(
        &mut self,
        worker: &Rc<Worker>,
        backend: &Backend,
        terms: Terms<'_>,
        outcome: &mut RequestOutcome,
    ) -> Result<Persistence, Failure> {
        if !terms.mirrors.is_empty() && self.head.method != http::Method::CONNECT {
            let over = self.upload.is_complete();
            self.upload.tee =
                mirror::begin(worker, &terms.mirrors, (&self.head, HttpVersion::Http2), over);
            self.responder.watch = self.upload.tee.as_ref().and_then(Tee::watch);
        }
        let kept = self.upload.kept();
        let mut exchange = FramesExchange {
            head: &mut self.head,
            upload: &mut self.upload,
            responder: &mut self.responder,
            replayable: self.replayable,
            version: HttpVersion::Http2,
            tenant: self.tenant,
            kept,
            sent: false,
            declined: false,
        };
        forward(worker, &mut exchange, backend, terms, outcome).await
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
                let reply = Reply::refusing(worker, &refused, self.asked_for(), &outcome);
                let mut reply = if self.is_grpc() { reply.for_grpc() } else { reply };
                let head = std::mem::take(&mut reply.head);
                self.responder.respond((head, true), &mut reply, &outcome).await.err()
            }
            Err(failure) => Some(failure),
        };
        match failure {
            None => {}
            Some(Failure::Cut(cut)) => {
                outcome.flag(if cut == Cut::Late { Flag::UT } else { Flag::UC });
                self.responder.reset(match cut {
                    Cut::Stream(reason) => reason,
                    Cut::Late => Reason::CANCEL,
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
