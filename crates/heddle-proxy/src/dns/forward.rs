//! Passes a query on to the host's resolvers, through sockets the holder opens, and its answer back.
//!
//! Bytes go both ways untouched but for the id: every query has a socket and a random id of its
//! own, so nobody can answer for the resolver by guessing.

use std::{io, time::Duration};

use heddle_runtime::{clock, net};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Semaphore,
};

use super::message::{HEADER_LEN, answers};
use crate::broker::{Broker, BrokerError};

/// Queries at the host's resolvers at one time; more are answered SERVFAIL, which clients retry.
pub(super) const FORWARDS_MAX: usize = 256;
/// Waits for the first, second, … resolver. Their sum stays below glibc's 5 s, so that its own
/// retransmission is not needed.
const TRY_WAITS: [Duration; 2] = [Duration::from_millis(2000), Duration::from_millis(2500)];
/// Datagrams that do not answer the query, ignored before a try is given up.
const STRAY_DATAGRAMS_MAX: usize = 16;
/// Largest DNS message.
pub(super) const MESSAGE_MAX: usize = 65_535;

/// How the client asked, and so how the resolver is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
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
    #[error("no answer in time")]
    Late,
    #[error("answers to other questions")]
    Stray,
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
    pub(super) async fn ask(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let Ok(_permit) = self.in_flight.try_acquire() else {
            tracing::debug!("too many DNS queries wait for the host's resolvers");
            return None;
        };
        let id = query.get(..2)?;
        let mut outgoing = query.to_vec();
        outgoing[..2].copy_from_slice(&fastrand::u16(..).to_be_bytes());
        for (index, wait) in TRY_WAITS.into_iter().enumerate() {
            let answered = clock::within(wait, self.ask_one(&outgoing, transport, index)).await;
            match answered.unwrap_or(Err(TryError::Late)) {
                Ok(mut reply) => {
                    reply[..2].copy_from_slice(id);
                    return Some(reply);
                }
                Err(TryError::Broker(BrokerError::NoOutside)) => return None,
                Err(error) => {
                    tracing::debug!(resolver = index, %error, "a resolver of the host did not answer");
                }
            }
        }
        None
    }

    async fn ask_one(
        &self,
        query: &[u8],
        transport: Transport,
        index: usize,
    ) -> Result<Vec<u8>, TryError> {
        let descriptor = self.broker.resolver(transport == Transport::Tcp, index).await?;
        match transport {
            Transport::Udp => {
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
            Transport::Tcp => {
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
