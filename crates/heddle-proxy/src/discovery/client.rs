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
        transport::{DiscoveryClient, tokio_stream::wrappers::ReceiverStream},
    },
    local::proxy_config::{ControlPlane, SecureControl},
};
use tokio::sync::{mpsc, oneshot, watch};
use tonic::{Code, Status, Streaming, transport::Channel};

use super::{
    certificate::Certificate,
    certifier::{Certificates, Certifier},
    link::{self, LinkError},
    state::{ProtocolError, State},
};
use crate::{
    Shared,
    lookup::Ask,
    saved::{SavedFile, SavedSet},
};

/// First pause after a failed or lost stream.
const BACKOFF_MIN: Duration = Duration::from_millis(25);
/// Longest pause between attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// An attempt to open the stream ends after this long; connecting over TLS has its own time.
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
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the stream was not opened within {} s", CONNECT_WAIT.as_secs())]
    Late,
    #[error("{} {}", .0.code(), .0.message())]
    Status(#[from] Status),
    #[error("the control plane ended the stream")]
    Ended,
    #[error("there is no certificate yet")]
    NoCertificate,
    #[error("there is a newer certificate")]
    Renewed,
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

/// The way to the control plane.
#[derive(Debug, Clone)]
enum Way {
    PathSocket(PathBuf),
    Tls(SecureControl, Certificates),
}

/// What a connection shows of this sidecar, where it shows anything.
type Shown = Option<Arc<Certificate>>;

impl Way {
    /// What to show, once there is something, or nothing is needed. `None`: there is no certificate yet.
    async fn shown(&mut self) -> Option<Shown> {
        let Self::Tls(_, certificates) = self else { return Some(None) };
        let first = clock::within(CONNECT_WAIT, certificates.newest.wait_for(Option::is_some));
        Some(first.await?.ok()?.clone())
    }

    async fn connect(&self, shown: &Shown) -> Result<Channel, LinkError> {
        match self {
            Self::PathSocket(socket) => link::path_socket(socket).await,
            Self::Tls(control, _) => {
                // Much larger than the rest, and rare.
                Box::pin(link::secure(control, shown.as_ref().map(|one| one.certified()))).await
            }
        }
    }

    /// Waits until there is another certificate to show.
    async fn renewed(&mut self, shown: &Shown) {
        let (Self::Tls(_, certificates), Some(shown)) = (self, shown) else {
            return std::future::pending().await;
        };
        let other = |newest: &Shown| newest.as_ref().is_some_and(|one| !Arc::ptr_eq(one, shown));
        if certificates.newest.wait_for(other).await.is_err() {
            // Nobody renews any more: the process is about to end.
            std::future::pending().await
        }
    }

    /// Has the control plane not believed what was shown? Then another certificate is needed.
    fn note(&self, error: &StreamError) {
        if let (Self::Tls(_, certificates), StreamError::Status(status)) = (self, error)
            && status.code() == Code::Unauthenticated
        {
            certificates.refused.notify_one();
        }
    }
}

/// The client with its files and handles.
#[derive(Debug)]
pub(crate) struct Discovery {
    shared: Arc<Shared>,
    state: State,
    way: Way,
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
    /// A client that has loaded the saved set, so that the sidecar serves before it is connected; with it who keeps
    /// its certificate, where it needs one. `channel` is told each connection, for other calls to the control plane.
    pub(crate) fn new(
        shared: Arc<Shared>,
        asks: mpsc::Receiver<Ask>,
        channel: watch::Sender<Option<Channel>>,
        saves: mpsc::Receiver<oneshot::Sender<()>>,
    ) -> (Self, Option<Certifier>) {
        let now = clock::now();
        let (way, certifier) = match shared.config.control_plane() {
            ControlPlane::PathSocket(socket) => (Way::PathSocket(socket.to_owned()), None),
            ControlPlane::Tls(control) => {
                let (certifier, certificates) =
                    Certifier::new(Arc::clone(&shared), control.clone());
                (Way::Tls(control.clone(), certificates), Some(certifier))
            }
        };
        let mut client = Self {
            state: State::new(Arc::clone(&shared), now),
            way,
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
        (client, certifier)
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
            if matches!(error, StreamError::Renewed) {
                tracing::info!(%error, "the stream to the control plane is opened anew");
                // Who asks meanwhile waits: there will be an answer in a moment.
                self.channel.send_replace(None);
                self.state.reconnecting();
                continue;
            }
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
        let mut way = self.way.clone();
        let (requests, outgoing) = mpsc::channel(REQUESTS_QUEUED_MAX);
        let opening = async {
            let shown = way.shown().await.ok_or(StreamError::NoCertificate)?;
            let channel = way.connect(&shown).await?;
            Ok((shown, open(channel, outgoing).await?))
        };
        let (shown, (channel, responses)) = match self.serve_until(opening).await {
            Ok(opened) => opened,
            Err(error) => {
                way.note(&error);
                return error;
            }
        };
        tracing::info!("connected to the control plane");
        self.state.connected();
        self.shared.lookup.set_down(false);
        self.channel.send_replace(Some(channel));
        let error = tokio::select! {
            error = self.converse(requests, responses) => error,
            () = way.renewed(&shown) => StreamError::Renewed,
        };
        way.note(&error);
        error
    }

    /// Moves messages until the stream ends.
    async fn converse(
        &mut self,
        requests: mpsc::Sender<DeltaDiscoveryRequest>,
        mut responses: Streaming<DeltaDiscoveryResponse>,
    ) -> StreamError {
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

/// Opens the stream on a connection.
async fn open(
    channel: Channel,
    outgoing: mpsc::Receiver<DeltaDiscoveryRequest>,
) -> Result<(Channel, Streaming<DeltaDiscoveryResponse>), StreamError> {
    let mut client = DiscoveryClient::new(channel.clone());
    let opening = client.stream(ReceiverStream::new(outgoing));
    let responses = clock::within(CONNECT_WAIT, opening).await.ok_or(StreamError::Late)??;
    Ok((channel, responses))
}
