//! A client of HTTP/1 whose Upgrade goes to a server of HTTP/2, as a CONNECT with a protocol (RFC 8441): from
//! the server's consent on, what passes is whatever the connection became. Who does not offer it is asked in
//! HTTP/1.

use std::{
    cell::Cell,
    future::poll_fn,
    io::Write as _,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, ext::Protocol};
use heddle_runtime::transport::ReadHalf;
use heddle_wire::http1::{Framing, Method, RequestHead, Scan};
use http::{header, request};

use super::{
    framed::{Kept, Responder, Upload},
    http1_client::Http1Responder,
};
use crate::{
    buffers::{Buffer, Lent, Output, poll_input},
    frames::{
        Frame, Frames, Head, Reset, apply,
        respond::write_fields,
        tunnel::{Gate, WEBSOCKET_KEY, websocket_accept},
    },
    record::RequestOutcome,
    refusal::{Cut, Failure, Refusal},
};

/// What a head asks its connection to become, where HTTP/2 has a way to ask for it: one protocol, behind a GET
/// without a body. HTTP itself and TLS begin with the connection.
pub(super) fn asked(raw: &[u8]) -> Option<String> {
    let mut head = RequestHead::new();
    head.allow_additions();
    if head.scan(raw).ok()? != Scan::Complete
        || head.method() != Method::Get
        || !matches!(head.framing(), Framing::None | Framing::Length(0))
    {
        return None;
    }
    let fields = head.view(raw).fields();
    let mut all = fields.values(header::UPGRADE.as_str());
    let (Some(protocol), None) = (all.next(), all.next()) else { return None };
    let protocol = str::from_utf8(protocol).ok()?.trim();
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let one = !protocol.is_empty() && protocol.bytes().all(is_token);
    let of_connections =
        ["h2c", "http", "tls"].iter().any(|other| protocol.eq_ignore_ascii_case(other));
    (one && !of_connections).then(|| protocol.to_owned())
}

/// An Upgrade on its way.
pub(super) struct Upgrade {
    protocol: String,
    /// What proves to a client of WebSocket that it was understood.
    accept: Option<String>,
    /// The server consents.
    gate: Gate,
}

impl Upgrade {
    /// Makes a request's head one that asks in the words of HTTP/2.
    pub(super) fn by(protocol: String, head: &mut request::Parts) -> Self {
        // About the connection of HTTP/1; a server of HTTP/2 looks at none (RFC 8441 §5.1).
        let key = head.headers.remove(WEBSOCKET_KEY);
        let accept = key.map(|key| websocket_accept(key.as_bytes()));
        // That of the GET: what follows has none.
        head.headers.remove(header::CONTENT_LENGTH);
        head.method = http::Method::CONNECT;
        head.extensions.insert(Protocol::from(protocol.as_str()));
        Self { protocol, accept, gate: Gate::default() }
    }

    /// What the client is told when the server consents.
    fn switching(&self, fields: &http::HeaderMap) -> Lent<Output> {
        let mut out = Lent::<Output>::take();
        out.0.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n");
        let _ = write!(out.0, "Upgrade: {}\r\n", self.protocol);
        if let Some(accept) = &self.accept {
            let _ = write!(out.0, "Sec-WebSocket-Accept: {accept}\r\n");
        }
        write_fields(&mut out.0, fields);
        out.0.extend_from_slice(b"\r\n");
        out
    }
}

/// What the client sends, which waits for the server's consent.
pub(super) struct UpgradeUpload<'a, 't> {
    client: ReadHalf<'t>,
    input: &'a mut Option<Lent<Buffer>>,
    consent: Pin<Box<dyn Future<Output = ()> + 'a>>,
    consents: bool,
    ended: bool,
    outcome: &'a RequestOutcome,
}

impl<'a, 't> UpgradeUpload<'a, 't> {
    pub(super) fn new(
        client: ReadHalf<'t>,
        input: &'a mut Option<Lent<Buffer>>,
        upgrade: &'a Upgrade,
        outcome: &'a RequestOutcome,
    ) -> Self {
        let consent = Box::pin(upgrade.gate.opened());
        Self { client, input, consent, consents: false, ended: false, outcome }
    }

    /// Reads, so that the end of a client is noticed also while it may not go on.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Reset>> {
        match ready!(poll_input(context, &mut self.client, self.input)) {
            Ok(0) => self.ended = true,
            Ok(_) => {}
            Err(_) => return Poll::Ready(Err(Reset(Reason::CANCEL))),
        }
        Poll::Ready(Ok(()))
    }
}

impl Frames for UpgradeUpload<'_, '_> {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, Reset>>> {
        self.consents = self.consents || self.consent.as_mut().poll(context).is_ready();
        loop {
            match self.input.as_mut() {
                Some(held) if self.consents && !held.is_empty() => {
                    let data = Bytes::copy_from_slice(held.filled());
                    held.consume(data.len());
                    self.input.take_if(|held| held.is_empty());
                    self.outcome.received(data.len() as u64);
                    return Poll::Ready(Some(Ok(Frame::Data(data))));
                }
                None if self.ended && self.consents => return Poll::Ready(None),
                Some(held) if !held.is_empty() => return Poll::Pending,
                _ if self.ended => return Poll::Pending,
                _ => {}
            }
            if let Err(reset) = ready!(self.poll_more(context)) {
                return Poll::Ready(Some(Err(reset)));
            }
        }
    }

    fn is_over(&self) -> bool {
        self.consents && self.ended && self.input.is_none()
    }

    async fn gone(&mut self) {
        self.client.reset_by_peer().await;
    }
}

impl Upload for UpgradeUpload<'_, '_> {
    fn refusal(&mut self) -> Option<Refusal> {
        None
    }

    /// Nothing is sent before the server consents.
    fn kept(&mut self) -> Kept {
        Rc::new(Cell::new(true))
    }
}

/// Where the answer goes: as that of any request, unless the server consents.
pub(super) struct UpgradeResponder<'a, 't> {
    pub(super) plain: Http1Responder<'t>,
    pub(super) upgrade: &'a Upgrade,
    /// The server has consented.
    pub(super) switched: bool,
}

impl Responder for UpgradeResponder<'_, '_> {
    async fn interim(&mut self, head: &Head, outcome: &RequestOutcome) -> Result<(), Failure> {
        self.plain.interim(head, outcome).await
    }

    async fn respond(
        &mut self,
        (mut head, _): (Head, bool),
        body: &mut impl Frames,
        outcome: &RequestOutcome,
    ) -> Result<(), Failure> {
        if !(200..300).contains(&head.status) {
            // Nothing is left of a request without a body.
            return self.plain.respond((head, true), body, outcome).await;
        }
        self.switched = true;
        apply(&mut head.fields, self.plain.edits.as_deref().unwrap_or_default());
        outcome.status(101);
        let said = self.upgrade.switching(&head.fields);
        let mut data = Bytes::new();
        let mut out = &said.0[..];
        loop {
            let sent = self.plain.client.write_both(out, &data).await;
            sent.map_err(|_| Failure::ClientGone)?;
            outcome.sent((out.len() + data.len()) as u64);
            out = &[];
            self.upgrade.gate.open();
            data = match poll_fn(|context| body.poll_frame(context)).await {
                Some(Ok(Frame::Data(data))) => data,
                // What it became has no trailers.
                Some(Ok(Frame::Trailers(_))) | None => break,
                Some(Err(_)) => return Err(Failure::Cut(Cut::Reset)),
            };
        }
        self.plain.client.shutdown();
        Ok(())
    }

    /// What is read of its request says so.
    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &str) -> String {
        format!("GET /chat HTTP/1.1\r\nHost: chat\r\nConnection: Upgrade\r\n{fields}\r\n")
    }

    #[test]
    fn one_protocol_behind_a_get_without_a_body_is_asked_for_in_http_2() {
        let asked = |fields: &str| asked(head(fields).as_bytes());
        assert_eq!(asked("Upgrade: WebSocket\r\n").as_deref(), Some("WebSocket"));
        assert_eq!(asked("Upgrade: connect-udp\r\n").as_deref(), Some("connect-udp"));
        let others = ["", "Upgrade: h2c\r\n", "Upgrade: HTTP/2.0\r\n", "Upgrade: TLS/1.2\r\n"];
        for other in others {
            assert_eq!(asked(other), None, "{other}");
        }
        assert_eq!(asked("Upgrade: websocket, other\r\n"), None);
        assert_eq!(asked("Upgrade: websocket\r\nUpgrade: other\r\n"), None);
        assert_eq!(asked("Upgrade: websocket\r\nContent-Length: 1\r\n"), None);
    }

    #[test]
    fn a_post_is_no_such_request() {
        let post = head("Upgrade: websocket\r\n").replacen("GET", "POST", 1);
        assert_eq!(asked(post.as_bytes()), None);
    }
}
