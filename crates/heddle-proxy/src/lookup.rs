//! Asks for what a snapshot does not have: immediate if it is there, else one question to thread 0
//! and a wait of at most [`FETCH_WAIT`].
//!
//! What a missing answer means is decided here and nowhere else: a virtual address is refused, any
//! other address passes as not known (data-path rule "never make it worse").

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use heddle_model::{NameAnswer, ServiceName};
use heddle_runtime::clock;
use tokio::sync::{mpsc, oneshot};

use crate::{
    ranges::{AddressKind, Ranges},
    snapshot::{AddressOwner, DestinationPlan, Snapshot},
};

/// Longest wait for the control plane's answer to a question.
pub const FETCH_WAIT: Duration = Duration::from_secs(2);
/// Questions on their way to thread 0; more wait in line, within [`FETCH_WAIT`].
pub const ASKS_QUEUED_MAX: usize = 1024;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// The control plane is connected but did not answer in time.
    #[error("the control plane did not answer within {} s", FETCH_WAIT.as_secs())]
    Timeout,
    /// The control plane is not reachable and the last good set does not have it.
    #[error("the control plane is unreachable and this was never asked before")]
    Unreachable,
    /// The control plane says that it does not exist.
    #[error("the control plane knows no such thing")]
    NotKnown,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Question {
    /// Whose address is this?
    Address(IpAddr),
    /// What are this service's rules and endpoints?
    Destination(ServiceName),
    /// What does this host name, as `NAMESPACE/HOST`?
    Name(String),
}

/// A question with the way back. The answer is a snapshot that has what was asked for.
#[derive(Debug)]
pub struct Ask {
    /// What is asked.
    pub question: Question,
    /// Takes the answer once.
    pub answer: oneshot::Sender<Result<Arc<Snapshot>, LookupError>>,
}

/// Handle to thread 0's discovery client. Cheap to clone, usable on every thread.
#[derive(Debug, Clone)]
pub struct Lookup {
    snapshot: Arc<ArcSwap<Snapshot>>,
    asks: mpsc::Sender<Ask>,
    ranges: Ranges,
    down: Arc<AtomicBool>,
}

impl Lookup {
    /// A handle and the end that answers. The stream counts as down until told otherwise.
    #[must_use]
    pub fn new(snapshot: Arc<ArcSwap<Snapshot>>, ranges: Ranges) -> (Self, mpsc::Receiver<Ask>) {
        let (asks, receiver) = mpsc::channel(ASKS_QUEUED_MAX);
        (Self { snapshot, asks, ranges, down: Arc::new(AtomicBool::new(true)) }, receiver)
    }

    /// Whose address is this?
    ///
    /// An address that is no virtual one always gets an answer: without the control plane it is
    /// [`AddressOwner::NotKnown`] – at once while the stream is known to be down, else after
    /// [`FETCH_WAIT`].
    ///
    /// # Errors
    /// [`LookupError`] for a virtual address only.
    pub async fn address(&self, ip: IpAddr) -> Result<AddressOwner, LookupError> {
        let ip = ip.to_canonical();
        if let Some(owner) = self.snapshot.load().address(ip) {
            return Ok(owner.clone());
        }
        match self.ranges.kind(ip) {
            AddressKind::Vip => {
                let snapshot = self.ask(Question::Address(ip)).await?;
                snapshot.address(ip).cloned().ok_or(LookupError::NotKnown)
            }
            AddressKind::HostGateway => Ok(AddressOwner::NotKnown),
            AddressKind::Workload | AddressKind::Outside if self.is_down() => {
                Ok(AddressOwner::NotKnown)
            }
            AddressKind::Workload | AddressKind::Outside => {
                let answer = self.ask(Question::Address(ip)).await;
                let owner = answer.ok().and_then(|snapshot| snapshot.address(ip).cloned());
                Ok(owner.unwrap_or(AddressOwner::NotKnown))
            }
        }
    }

    /// A service's rules and endpoints.
    ///
    /// # Errors
    /// [`LookupError`] saying why there is none.
    pub async fn destination(
        &self,
        service: &ServiceName,
    ) -> Result<Arc<DestinationPlan>, LookupError> {
        if let Some(plan) = self.snapshot.load().destination(service) {
            return Ok(Arc::clone(plan));
        }
        let snapshot = self.ask(Question::Destination(service.clone())).await?;
        snapshot.destination(service).cloned().ok_or(LookupError::NotKnown)
    }

    /// What a host name, asked from `namespace`, names. `host` in lower case, no trailing dot.
    ///
    /// Also asked while the stream is down: what was given back as unused is still in the saved set.
    ///
    /// # Errors
    /// [`LookupError`] saying why there is no answer; without a wait while the stream is down.
    pub async fn name(&self, namespace: &str, host: &str) -> Result<Arc<NameAnswer>, LookupError> {
        let key = format!("{namespace}/{host}");
        if let Some(answer) = self.snapshot.load().name(&key) {
            return Ok(Arc::clone(answer));
        }
        let snapshot = self.ask(Question::Name(key.clone())).await?;
        snapshot.name(&key).cloned().ok_or(LookupError::NotKnown)
    }

    /// Is the stream to the control plane known to be down?
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// Tells what the stream's state is; thread 0 only.
    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    async fn ask(&self, question: Question) -> Result<Arc<Snapshot>, LookupError> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            let sent = self.asks.send(Ask { question, answer }).await;
            sent.map_err(|_| LookupError::Unreachable)?;
            answered.await.map_err(|_| LookupError::Unreachable)?
        };
        match clock::within(FETCH_WAIT, asked).await {
            Some(result) => result,
            None if self.is_down() => Err(LookupError::Unreachable),
            None => Err(LookupError::Timeout),
        }
    }
}
