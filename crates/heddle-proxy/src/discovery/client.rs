//! Keeps one stream to the control plane, serves look-ups all the time, and saves what is in force.

use std::{
    future::Future,
    path::PathBuf,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use heddle_runtime::clock;
use heddle_wire::{
    discovery::{
        proto::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
        transport::{self, DiscoveryClient, tokio_stream::wrappers::ReceiverStream},
    },
    local::proxy_config::ControlPlane,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot, watch},
};
use tonic::{
    Status, Streaming,
    transport::{Channel, Uri},
};

use super::state::{ProtocolError, State};
use crate::{
    Shared,
    lookup::Ask,
    saved::{SavedFile, SavedSet},
};

/// First pause after a failed or lost stream.
const BACKOFF_MIN: Duration = Duration::from_millis(25);
/// Longest pause between attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// An attempt to open the stream ends after this long.
const CONNECT_WAIT: Duration = Duration::from_secs(2);
/// How long a change waits for more before it is saved.
const SAVE_DELAY: Duration = Duration::from_millis(500);
/// How often idle resources are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// Requests handed to the connection before it takes them.
const REQUESTS_QUEUED_MAX: usize = 16;
/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("no connection: {0}")]
    Connect(#[from] tonic::transport::Error),
    #[error("the stream was not opened within {} s", CONNECT_WAIT.as_secs())]
    Late,
    #[error("{} {}", .0.code(), .0.message())]
    Status(#[from] Status),
    #[error("the control plane ended the stream")]
    Ended,
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

/// The client with its files and handles.
#[derive(Debug)]
pub(crate) struct Discovery {
    shared: Arc<Shared>,
    state: State,
    file: SavedFile,
    asks: mpsc::Receiver<Ask>,
    channel: watch::Sender<Option<Channel>>,
    /// "Save now" at the end of the process.
    saves: mpsc::Receiver<oneshot::Sender<()>>,
    saves_closed: bool,
    /// What was saved is in memory already, or need not be: it is read once per outage.
    saved_read: bool,
    save_at: Option<Instant>,
    sweep_at: Instant,
    asks_closed: bool,
}

impl Discovery {
    /// A client that has loaded the saved set, so that the sidecar serves before it is connected.
    /// `channel` is told each connection, for other calls to the control plane.
    pub(crate) fn new(
        shared: Arc<Shared>,
        asks: mpsc::Receiver<Ask>,
        channel: watch::Sender<Option<Channel>>,
        saves: mpsc::Receiver<oneshot::Sender<()>>,
    ) -> Self {
        let now = clock::now();
        let mut client = Self {
            state: State::new(Arc::clone(&shared), now),
            file: SavedFile::new(&shared.config.state_dir),
            shared,
            asks,
            channel,
            saves,
            saves_closed: false,
            saved_read: false,
            save_at: None,
            sweep_at: now + SWEEP_INTERVAL,
            asks_closed: false,
        };
        client.load(|set| set.resources.retain(|one| one.active));
        // Not known to be down before the first attempt: a program that asks at once can wait for it.
        client.shared.lookup.set_down(false);
        client
    }

    fn load(&mut self, filter: impl FnOnce(&mut SavedSet)) {
        let config = &self.shared.config;
        let mut set = self.file.load(&config.mesh, &config.workload.0);
        filter(&mut set);
        if !set.resources.is_empty() {
            tracing::info!(
                resources = set.resources.len(),
                generation = set.generation,
                "the saved set is in force"
            );
            self.state.merge_saved(set.resources, set.generation, clock::now());
        }
    }

    /// Connects, and connects again, for ever.
    pub(crate) async fn run(mut self) {
        let mut backoff = BACKOFF_MIN;
        let mut logged = false;
        loop {
            let before = self.state.accepted();
            let error = self.stream().await;
            let was_up = !self.shared.lookup.is_down();
            self.shared.lookup.set_down(true);
            self.channel.send_replace(None);
            self.state.disconnected();
            self.saved_read &= !was_up;
            if was_up || !logged {
                logged = true;
                tracing::warn!(%error, "no stream to the control plane; what is known stays in force");
            } else {
                tracing::debug!(%error, "no stream to the control plane");
            }
            if self.state.accepted() > before {
                backoff = BACKOFF_MIN;
            }
            // Between half and all of it, so that the mesh's sidecars do not come back as one.
            let pause = backoff.mul_f64(0.5 + fastrand::f64() / 2.0);
            self.serve_until(clock::sleep(pause)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// One stream, from connecting to its end.
    async fn stream(&mut self) -> StreamError {
        let ControlPlane::PathSocket(socket) = self.shared.config.control_plane();
        let socket = socket.to_owned();
        let (requests, outgoing) = mpsc::channel(REQUESTS_QUEUED_MAX);
        let opening = clock::within(CONNECT_WAIT, open(socket, outgoing));
        let (channel, mut responses) = match self.serve_until(opening).await {
            Some(Ok(opened)) => opened,
            Some(Err(error)) => return error,
            None => return StreamError::Late,
        };
        tracing::info!("connected to the control plane");
        self.state.connected();
        self.shared.lookup.set_down(false);
        self.channel.send_replace(Some(channel));
        loop {
            tokio::select! {
                permit = requests.reserve(), if self.state.has_request() => {
                    let Ok(permit) = permit else { return StreamError::Ended };
                    if let Some(request) = self.state.next_request() {
                        permit.send(request);
                    }
                }
                response = responses.message() => match response {
                    Ok(Some(response)) => {
                        if let Err(error) = self.state.response(response, clock::now()) {
                            return error.into();
                        }
                    }
                    Ok(None) => return StreamError::Ended,
                    Err(status) => return status.into(),
                },
                () = self.chore() => {}
            }
        }
    }

    /// Waits for `future` and does what is to be done meanwhile.
    async fn serve_until<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        loop {
            tokio::select! {
                biased;
                output = &mut future => return output,
                () = self.chore() => {}
            }
        }
    }

    /// The next thing to do that is not about the stream: a look-up, idle resources, saving. Dropped
    /// before it is ready, it has done nothing.
    async fn chore(&mut self) {
        if self.save_at.is_none() && self.state.is_dirty() {
            self.save_at = Some(clock::now() + SAVE_DELAY);
        }
        let resolved = &self.shared.state.resolved;
        let due = self.save_at.map_or(self.sweep_at, |at| at.min(self.sweep_at));
        tokio::select! {
            ask = self.asks.recv(), if !self.asks_closed => match ask {
                Some(ask) => self.ask(ask),
                None => self.asks_closed = true,
            },
            saved = self.saves.recv(), if !self.saves_closed => match saved {
                Some(done) => {
                    self.save();
                    let _asker_may_be_gone = done.send(());
                }
                None => self.saves_closed = true,
            },
            () = resolved.changed() => self.state.rebuild(),
            () = clock::sleep_until(due) => self.tick(),
        }
    }

    fn ask(&mut self, ask: Ask) {
        if self.shared.lookup.is_down() && !self.saved_read && !self.state.can_answer(&ask.question)
        {
            // What was evicted is still in the saved set; now it cannot be fetched again.
            self.saved_read = true;
            self.load(|_| ());
        }
        self.state.ask(ask.question, ask.answer, clock::now());
    }

    fn tick(&mut self) {
        let now = clock::now();
        if self.save_at.is_some_and(|at| at <= now) {
            self.save();
        }
        if self.sweep_at <= now {
            self.sweep_at = now + SWEEP_INTERVAL;
            self.state.sweep(now);
        }
    }

    fn save(&mut self) {
        self.save_at = None;
        let unix_now = clock::unix_now().as_secs();
        let (generation, resources) = self.state.saving(clock::now(), unix_now);
        let config = &self.shared.config;
        self.file.save(SavedSet {
            mesh: config.mesh.clone(),
            workload: config.workload.0.clone(),
            generation,
            resources,
        });
    }
}

/// Connects to the control plane and opens the stream.
async fn open(
    socket: PathBuf,
    outgoing: mpsc::Receiver<DeltaDiscoveryRequest>,
) -> Result<(Channel, Streaming<DeltaDiscoveryResponse>), StreamError> {
    let connect = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let channel = transport::endpoint().connect_with_connector(connect).await?;
    let responses =
        DiscoveryClient::new(channel.clone()).stream(ReceiverStream::new(outgoing)).await?;
    Ok((channel, responses))
}
