//! The connection to the holder: requests multiplexed by id, descriptors handed to who asked.

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use heddle_runtime::{
    fdpass::{FdReader, FdStream, FdWriter, Frame},
    net,
};
use heddle_wire::local::holder_api::{HolderReply, HolderRequest};
use tokio::sync::{mpsc, oneshot};

use super::{BrokerError, BrokerRequest, HostSocket};

/// Requests the holder has not answered yet; more are refused as [`BrokerError::Busy`]. Their
/// frames together fit a socket buffer, so writing never waits for reading.
pub(crate) const BROKER_PENDING_MAX: usize = 1024;

type Answer = oneshot::Sender<Result<OwnedFd, BrokerError>>;

/// Serves requests for ever; ends when every [`super::Broker`] is gone.
///
/// It connects when first asked and again after the connection was lost. While the holder cannot
/// be reached each request fails at once: there is nothing to wait for, since the holder's end is
/// the mesh's end.
pub(crate) async fn serve(socket: PathBuf, mut requests: mpsc::Receiver<BrokerRequest>) {
    while let Some(request) = requests.recv().await {
        match FdStream::connect(&socket).await {
            Ok(stream) => {
                let error = converse(stream, request, &mut requests).await;
                tracing::warn!(socket = %socket.display(), error, "the connection to the holder ended");
            }
            Err(error) => refuse(&socket, request.answer, &error),
        }
    }
}

fn refuse(socket: &Path, answer: Answer, error: &io::Error) {
    tracing::warn!(socket = %socket.display(), %error, "the holder cannot be reached");
    let _asker_may_be_gone = answer.send(Err(lost(error)));
}

/// Why nobody answers any more: by the drop of its sender a waiting asker would learn less.
fn lost(error: &io::Error) -> BrokerError {
    match net::lacks_descriptors(error) {
        true => BrokerError::NoDescriptor(error.to_string()),
        false => BrokerError::Unreachable,
    }
}

/// Speaks on one connection until it breaks; says why, also to whoever still waits.
async fn converse(
    stream: FdStream,
    first: BrokerRequest,
    requests: &mut mpsc::Receiver<BrokerRequest>,
) -> String {
    let (mut reader, writer) = stream.into_split();
    let mut pending = Pending::default();
    if let Err(error) = pending.send(&writer, first).await {
        return error.to_string();
    }
    loop {
        let step = tokio::select! {
            request = requests.recv() => match request {
                Some(request) => pending.send(&writer, request).await,
                None => return "the sidecar ends".into(),
            },
            frame = receive(&mut reader) => frame.and_then(|frame| pending.complete(frame)),
        };
        if let Err(error) = step {
            pending.give_up(&error);
            return error.to_string();
        }
    }
}

async fn receive(reader: &mut FdReader) -> io::Result<Frame> {
    let frame = reader.recv().await?;
    frame.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "the holder closed it"))
}

/// Requests on their way.
#[derive(Debug, Default)]
struct Pending {
    next_id: u64,
    waiting: BTreeMap<u64, Answer>,
}

impl Pending {
    async fn send(&mut self, writer: &FdWriter, request: BrokerRequest) -> io::Result<()> {
        if self.waiting.len() >= BROKER_PENDING_MAX {
            self.waiting.retain(|_, answer| !answer.is_closed());
        }
        if self.waiting.len() >= BROKER_PENDING_MAX {
            let _asker_may_be_gone = request.answer.send(Err(BrokerError::Busy));
            return Ok(());
        }
        self.next_id += 1;
        let id = self.next_id;
        let message = match request.socket {
            HostSocket::Connect(to) => HolderRequest::Connect { id, to },
            HostSocket::Resolver { tcp, index } => HolderRequest::Resolver { id, tcp, index },
        };
        self.waiting.insert(id, request.answer);
        let frame = serde_json::to_vec(&message).map_err(io::Error::other)?;
        writer.send(&frame, &[]).await
    }

    /// Tells everybody that waits why there will be no answer.
    fn give_up(&mut self, error: &io::Error) {
        for answer in std::mem::take(&mut self.waiting).into_values() {
            let _asker_may_be_gone = answer.send(Err(lost(error)));
        }
    }

    /// Hands a reply to who waits for it. A late one (its asker gave up) closes its descriptor.
    fn complete(&mut self, (bytes, mut descriptors): Frame) -> io::Result<()> {
        let reply: HolderReply = serde_json::from_slice(&bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let (id, result) = match reply {
            HolderReply::Connected { id } => {
                let descriptor = descriptors.pop().ok_or_else(|| {
                    let text = "the holder said `connected` without a descriptor";
                    io::Error::new(io::ErrorKind::InvalidData, text)
                })?;
                (id, Ok(descriptor))
            }
            HolderReply::Refused { id, reason, errno } => {
                (id, Err(BrokerError::Refused { reason, errno }))
            }
            _ => return Ok(()),
        };
        if let Some(answer) = self.waiting.remove(&id) {
            let _asker_may_be_gone = answer.send(result);
        }
        Ok(())
    }
}
