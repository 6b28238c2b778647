//! Requests of HTTP/2 behind which a stream carries bytes that are no HTTP: CONNECT (RFC 9113 §8.5), and
//! CONNECT with a protocol, as WebSocket has it (RFC 8441). A server of HTTP/1 is asked for the same by its
//! own words; the bytes themselves go as `over_http1` sends any body.

use std::cell::Cell;

use h2::ext::Protocol;
use heddle_wire::http1::{Method, ResponseHead};
use http::{HeaderMap, header, request};
use ring::digest;
use tokio::sync::Notify;

/// The protocol that browsers ask for.
const WEBSOCKET: &str = "websocket";
pub(crate) const WEBSOCKET_KEY: &str = "sec-websocket-key";
const WEBSOCKET_ACCEPT: &str = "sec-websocket-accept";
/// What a server puts behind a client's key (RFC 6455 §1.3).
const WEBSOCKET_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a request asks a connection to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Becomes<'a> {
    /// It stays HTTP.
    Http,
    /// A relay to whoever the request names.
    Relay,
    /// This protocol.
    Protocol(&'a str),
}

impl<'a> Becomes<'a> {
    pub(crate) fn by(head: &'a request::Parts) -> Self {
        if head.method != http::Method::CONNECT {
            return Self::Http;
        }
        head.extensions.get::<Protocol>().map_or(Self::Relay, |one| Self::Protocol(one.as_str()))
    }

    /// The method by which HTTP/1 asks for it.
    pub(crate) fn method(self, head: &'a request::Parts) -> &'a str {
        if let Self::Protocol(_) = self { "GET" } else { head.method.as_str() }
    }

    /// Has the server of HTTP/1 done so?
    pub(crate) fn is_done(self, response: &ResponseHead) -> bool {
        match self {
            Self::Http => false,
            Self::Relay => response.is_tunnel(Method::Connect),
            Self::Protocol(_) => response.status() == 101,
        }
    }

    /// What its answer would say to a client of HTTP/2 that it does not mean.
    pub(crate) fn misleads(self, response: &ResponseHead) -> Option<&'static str> {
        let success = (200..300).contains(&response.status());
        match self {
            Self::Protocol(_) if success => Some("it answers, but does not switch protocols"),
            _ if response.status() == 101 && !self.is_done(response) => {
                Some("it switches protocols, which was not asked for")
            }
            _ => None,
        }
    }

    /// Makes the head of a server's consent what HTTP/2 has for it.
    pub(crate) fn consent(self, status: &mut u16, fields: &mut HeaderMap) {
        if let Self::Protocol(_) = self {
            *status = 200;
            // About the key, which no client of HTTP/2 has sent.
            fields.remove(WEBSOCKET_ACCEPT);
        }
    }

    /// Fields by which a server of HTTP/1 is asked.
    pub(crate) fn fields(self, fields: &HeaderMap) -> Vec<(&'static str, String)> {
        let Self::Protocol(protocol) = self else { return Vec::new() };
        let mut asked = vec![(header::UPGRADE.as_str(), protocol.to_owned())];
        if protocol == WEBSOCKET && !fields.contains_key(WEBSOCKET_KEY) {
            asked.push((WEBSOCKET_KEY, websocket_key(fastrand::u128(..).to_be_bytes())));
        }
        asked
    }
}

/// 16 bytes in base64 (RFC 6455 §4.1), which no two requests of a client share.
fn websocket_key(bytes: [u8; 16]) -> String {
    base64(&bytes)
}

/// What a server of HTTP/1 answers to a client's key, so that the client knows it was understood (RFC 6455
/// §4.2.2).
pub(crate) fn websocket_accept(key: &[u8]) -> String {
    let mut digest = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key.trim_ascii());
    digest.update(WEBSOCKET_GUID);
    base64(digest.finish().as_ref())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |n: usize| u32::from(three.get(n).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= three.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// What waits for the server's consent.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    open: Cell<bool>,
    changed: Notify,
}

impl Gate {
    /// The server consents.
    pub(crate) fn open(&self) {
        self.open.set(true);
        self.changed.notify_waiters();
    }

    /// Waits until it does.
    pub(crate) async fn opened(&self) {
        let mut changed = std::pin::pin!(self.changed.notified());
        loop {
            changed.as_mut().enable();
            if self.open.get() {
                return;
            }
            changed.as_mut().await;
            changed.set(self.changed.notified());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sixteen_bytes_in_base64() {
        // The example of RFC 6455 §1.3.
        assert_eq!(websocket_key(*b"the sample nonce"), "dGhlIHNhbXBsZSBub25jZQ==");
    }

    #[test]
    fn a_key_is_answered_as_a_server_would() {
        // The same example.
        let accept = websocket_accept(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
