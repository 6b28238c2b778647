//! One connection to the holder: requests in, answers out, and what its end means.
//!
//! A connection that joined stands for its workload: when it closes, however that comes, the
//! workload ends. What a peer sends is never trusted to be well-formed.

use std::rc::Rc;

use heddle_runtime::{fdpass::FdReader, task};
use heddle_wire::local::holder_api::{HolderReply, HolderRequest, JoinSpec};
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
};

use super::{
    broker::{self, HostSocket},
    outbox::Outbox,
    state::Holder,
    workload::Workload,
};

/// Most host-side sockets that one sidecar may be waiting for.
const OPENING_MAX: usize = 1024;
/// Longest reason for an end that is passed on, characters.
const REASON_MAX: usize = 200;

/// What a connection stands for.
enum Stands {
    /// Nothing: a question, a sidecar's broker.
    Nothing,
    /// A workload on its way in.
    Joining { cancel: watch::Sender<bool>, joined: oneshot::Receiver<Option<Rc<Workload>>> },
    /// A workload.
    Workload(Rc<Workload>),
}

struct Session {
    holder: Rc<Holder>,
    outbox: Rc<Outbox>,
    stands: Stands,
    /// A sidecar's: it knows answers to its questions only.
    is_brokers: bool,
    opening: JoinSet<()>,
    /// Why the end will be asked for.
    because: Option<String>,
}

/// Why a mesh ends whose end was asked for without a reason: by an older version.
const ASKED: &str = "its end was asked for";

/// Serves a connection until it closes or the mesh has ended.
pub(crate) async fn serve(holder: Rc<Holder>, mut reader: FdReader, outbox: Outbox) {
    let mut session = Session {
        holder,
        outbox: Rc::new(outbox),
        stands: Stands::Nothing,
        is_brokers: false,
        opening: JoinSet::new(),
        because: None,
    };
    loop {
        tokio::select! {
            frame = reader.recv() => match frame {
                Ok(Some((text, _))) => session.answer(&text).await,
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, "a connection broke off");
                    break;
                }
            },
            workload = session.stands.joined() => {
                session.stands = workload.map_or(Stands::Nothing, Stands::Workload);
            }
            Some(_) = session.opening.join_next() => {}
            () = session.outbox.broken() => break,
            () = session.holder.until_ending() => {
                session.say_goodbye().await;
                break;
            }
        }
    }
    drop(reader);
    session.close().await;
}

impl Stands {
    /// The outcome of a join under way; never returns otherwise.
    async fn joined(&mut self) -> Option<Rc<Workload>> {
        match self {
            Self::Joining { joined, .. } => joined.await.ok().flatten(),
            Self::Nothing | Self::Workload(_) => std::future::pending().await,
        }
    }
}

impl Session {
    async fn answer(&mut self, text: &[u8]) {
        let request = match serde_json::from_slice(text) {
            Ok(request) => request,
            Err(error) => {
                self.outbox.refuse(format!("this is no request of the holder's: {error}")).await;
                return;
            }
        };
        match request {
            HolderRequest::Info => self.outbox.send(&self.holder.info(), &[]).await,
            HolderRequest::Join(spec) => self.join(*spec).await,
            HolderRequest::Withdraw => match &self.stands {
                Stands::Workload(workload) => {
                    workload.withdraw(&self.holder.book).await;
                    self.outbox.send(&HolderReply::Done, &[]).await;
                }
                _ => self.outbox.refuse("this connection has not joined").await,
            },
            HolderRequest::Leave => self.leave().await,
            HolderRequest::Connect { id, to } => self.open(id, HostSocket::Connect(to)).await,
            HolderRequest::Resolver { id, tcp, index } => {
                self.open(id, HostSocket::Resolver { tcp, index }).await;
            }
            HolderRequest::Supervise { part, restart } => match self.holder.part(&part) {
                Some(part) => {
                    part.set_restart(restart);
                    self.outbox.send(&HolderReply::Done, &[]).await;
                }
                None => {
                    let reason = format!("`{part}` is no part of a mesh: use control or observe");
                    self.outbox.refuse(reason).await;
                }
            },
            HolderRequest::Because { reason } => {
                self.because = Some(reason.chars().take(REASON_MAX).collect());
                self.outbox.send(&HolderReply::Done, &[]).await;
            }
            HolderRequest::Shutdown => {
                let because = self.because.take();
                self.holder.shut_down(because.unwrap_or_else(|| ASKED.to_owned())).await;
                self.outbox.send(&HolderReply::Done, &[]).await;
                self.holder.said_goodbye();
            }
        }
    }

    /// Says why the mesh ends, to those who know what to do with it.
    async fn say_goodbye(&self) {
        if !self.is_brokers {
            self.outbox.send(&HolderReply::Ended { reason: self.holder.reason() }, &[]).await;
        }
    }

    async fn join(&mut self, spec: JoinSpec) {
        if !matches!(self.stands, Stands::Nothing) {
            self.outbox.refuse("this connection has joined already").await;
            return;
        }
        let (cancel, cancelled) = watch::channel(false);
        let (outcome, joined) = oneshot::channel();
        let (holder, outbox) = (Rc::clone(&self.holder), Rc::clone(&self.outbox));
        // A task of its own: a join that is given up half-way must still undo what it has made.
        task::spawn_contained("join", async move {
            let join = Workload::join(&holder.book, &holder.workloads, spec, cancelled, &outbox);
            let workload = holder.during_join(join).await;
            if let Err(Some(orphan)) = outcome.send(workload) {
                orphan.end(&holder.book, &holder.workloads).await;
            }
        });
        self.stands = Stands::Joining { cancel, joined };
    }

    async fn leave(&mut self) {
        match std::mem::replace(&mut self.stands, Stands::Nothing) {
            Stands::Workload(workload) => {
                workload.end(&self.holder.book, &self.holder.workloads).await;
                self.outbox.send(&HolderReply::Done, &[]).await;
            }
            other => {
                self.stands = other;
                self.outbox.refuse("this connection has not joined").await;
            }
        }
    }

    async fn open(&mut self, id: u64, socket: HostSocket) {
        self.is_brokers = true;
        if self.opening.len() >= OPENING_MAX {
            let reason = format!("more than {OPENING_MAX} connections are being opened");
            self.outbox.send(&HolderReply::Refused { id, reason, errno: 0 }, &[]).await;
            return;
        }
        let outbox = Rc::clone(&self.outbox);
        self.opening.spawn_local(task::contained("host socket", async move {
            broker::answer(id, socket, &outbox).await;
        }));
    }

    /// Closes the connection, so that the peer knows, then ends what it stood for.
    async fn close(self) {
        let Self { holder, outbox, stands, opening, is_brokers: _, because: _ } = self;
        drop((outbox, opening));
        match stands {
            Stands::Nothing => {}
            Stands::Joining { cancel, joined } => {
                cancel.send_replace(true);
                if let Ok(Some(workload)) = joined.await {
                    workload.end(&holder.book, &holder.workloads).await;
                }
            }
            Stands::Workload(workload) => workload.end(&holder.book, &holder.workloads).await,
        }
    }
}
