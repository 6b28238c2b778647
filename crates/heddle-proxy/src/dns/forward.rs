//! Passes a query on to the host's resolvers, through sockets the holder opens, and its answer back.
//!
//! Bytes go both ways untouched but for the id: every query has a socket and a random id of its
//! own, so nobody can answer for the resolver by guessing.

use std::{cell::RefCell, io, pin::pin, time::Duration};

use heddle_runtime::{clock, net};
use hickory_proto::op::ResponseCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Semaphore,
};

#[cfg(test)]
mod tests;

use super::message::{HEADER_LEN, answers};
use crate::broker::{Broker, BrokerError};

/// Queries at the host's resolvers at one time; more are answered SERVFAIL, which clients retry.
pub(super) const FORWARDS_MAX: usize = 256;
/// Resolvers of the host that are asked at most, as many as libc asks. The holder counts modulo
/// their number: an only one is asked again, since a datagram may be lost.
const RESOLVERS_MAX: usize = 3;
/// Time a resolver has before the next one is asked beside it; its own answer is still welcome.
const HEAD_START: Duration = Duration::from_millis(1500);
/// Longest wait for them all: below libc's 5 s, so that its own retransmission is not needed.
const ASK_MAX: Duration = Duration::from_millis(4800);
/// Datagrams that do not answer the query, ignored before a try is given up.
const STRAY_DATAGRAMS_MAX: usize = 16;
/// Largest DNS message.
pub(super) const MESSAGE_MAX: usize = 65_535;

/// How the client asked, and so how the resolver is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DnsTransport {
    /// A datagram. A truncated answer goes back as it is: the client asks again by TCP.
    Udp,
    /// A stream.
    Tcp,
}

/// Why a resolver gave no answer.
#[derive(Debug, thiserror::Error)]
enum TryError {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("answers to other questions")]
    Stray,
}

/// One query on its way through the resolvers.
struct Asking<'q> {
    query: &'q [u8],
    transport: DnsTransport,
    /// The first reply that only says that a resolver cannot tell, for want of a better one.
    unhelpful: RefCell<Option<Vec<u8>>>,
}

impl Asking<'_> {
    /// The reply, if it settles the question: another resolver may know what this one does not.
    fn judge(&self, index: usize, answered: Result<Vec<u8>, TryError>) -> Option<Vec<u8>> {
        match answered {
            Ok(reply) if is_unhelpful(&reply) => {
                tracing::debug!(resolver = index, "a resolver of the host cannot tell");
                self.unhelpful.borrow_mut().get_or_insert(reply);
                None
            }
            Ok(reply) => Some(reply),
            Err(error) => {
                tracing::debug!(resolver = index, %error, "a resolver of the host did not answer");
                None
            }
        }
    }
}

/// The way to the host's resolvers.
#[derive(Debug)]
pub(super) struct Forwarder {
    broker: Broker,
    in_flight: Semaphore,
}

impl Forwarder {
    pub(super) fn new(broker: Broker) -> Self {
        Self { broker, in_flight: Semaphore::new(FORWARDS_MAX) }
    }

    /// The resolvers' answer under the query's own id; `None` if none of them gave one.
    pub(super) async fn ask(&self, query: &[u8], transport: DnsTransport) -> Option<Vec<u8>> {
        let Ok(_permit) = self.in_flight.try_acquire() else {
            tracing::debug!("too many DNS queries wait for the host's resolvers");
            return None;
        };
        let id = query.get(..2)?;
        let mut outgoing = query.to_vec();
        outgoing[..2].copy_from_slice(&fastrand::u16(..).to_be_bytes());
        let asking = Asking { query: &outgoing, transport, unhelpful: RefCell::new(None) };
        let found = clock::within(ASK_MAX, self.ask_from(0, &asking)).await.flatten();
        let mut reply = found.or_else(|| asking.unhelpful.into_inner())?;
        reply[..2].copy_from_slice(id);
        Some(reply)
    }

    /// The answer of resolver `index` or, when that has none or is slow to give it, of those after
    /// it, whichever comes first.
    async fn ask_from(&self, index: usize, asking: &Asking<'_>) -> Option<Vec<u8>> {
        if index == RESOLVERS_MAX {
            return None;
        }
        let mut own = pin!(self.ask_one(asking.query, asking.transport, index));
        let next = || Box::pin(self.ask_from(index + 1, asking));
        if let Some(answered) = clock::within(HEAD_START, own.as_mut()).await {
            return match asking.judge(index, answered) {
                Some(reply) => Some(reply),
                None => next().await,
            };
        }
        tracing::debug!(resolver = index, "a resolver of the host is slow");
        let mut next = next();
        tokio::select! {
            answered = &mut own => match asking.judge(index, answered) {
                Some(reply) => Some(reply),
                None => next.await,
            },
            found = &mut next => match found {
                Some(reply) => Some(reply),
                None => asking.judge(index, own.await),
            },
        }
    }

    async fn ask_one(
        &self,
        query: &[u8],
        transport: DnsTransport,
        index: usize,
    ) -> Result<Vec<u8>, TryError> {
        let descriptor = self.broker.resolver(transport == DnsTransport::Tcp, index).await?;
        match transport {
            DnsTransport::Udp => {
                let socket = net::udp_socket_from(descriptor)?;
                socket.send(query).await?;
                let mut reply = vec![0; MESSAGE_MAX];
                for _ in 0..STRAY_DATAGRAMS_MAX {
                    let length = socket.recv(&mut reply).await?;
                    if is_answer(query, &reply[..length]) {
                        reply.truncate(length);
                        reply.shrink_to_fit();
                        return Ok(reply);
                    }
                }
                Err(TryError::Stray)
            }
            DnsTransport::Tcp => {
                let mut stream = net::tcp_stream_from(descriptor)?;
                stream.write_all(&framed(query)).await?;
                let length = usize::from(stream.read_u16().await?);
                let mut reply = vec![0; length];
                stream.read_exact(&mut reply).await?;
                if is_answer(query, &reply) { Ok(reply) } else { Err(TryError::Stray) }
            }
        }
    }
}

/// A message as it travels on a stream: its length first. `message` is at most [`MESSAGE_MAX`] long.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(message.len() + 2);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&message[..usize::from(length)]);
    bytes
}

fn is_answer(query: &[u8], reply: &[u8]) -> bool {
    reply.len() >= HEADER_LEN && query.get(..2) == reply.get(..2) && answers(query, reply)
}

/// Does the reply only say that this resolver fails, or will not or cannot answer?
fn is_unhelpful(reply: &[u8]) -> bool {
    let code = reply.get(3).map_or(0, |flags| flags & 0x0f);
    [ResponseCode::ServFail, ResponseCode::NotImp, ResponseCode::Refused]
        .iter()
        .any(|unhelpful| unhelpful.low() == code)
}
