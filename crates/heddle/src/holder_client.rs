//! A connection to a mesh's holder, as commands use it: ask, join, withdraw, leave, shut down.
//!
//! No command waits for ever for a holder that hangs. A join takes as long as the control plane
//! lets it wait, so there the holder is asked from time to time whether it is still there.

use std::{io, os::fd::OwnedFd, time::Duration};

use heddle_runtime::{clock, fdpass::FdStream};
use heddle_wire::local::holder_api::{HolderReply, HolderRequest, Info, JoinSpec, Joined};

use crate::{
    failure::Failure,
    mesh::{MeshPaths, ProcessRecord},
};

/// Longest wait for an answer that needs no work.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// A join that is silent for so long has the holder asked whether it still answers others.
const JOIN_SILENCE: Duration = Duration::from_secs(10);
/// Longest wait for the end of a workload or of a mesh.
const END_WAIT: Duration = Duration::from_secs(30);

/// A connection to the holder. After `join` it stands for the workload: closing it ends the workload.
#[derive(Debug)]
pub(crate) struct HolderClient {
    paths: MeshPaths,
    stream: FdStream,
}

impl HolderClient {
    /// Connects to the holder of the mesh with these paths.
    ///
    /// # Errors
    /// A refusal where nobody listens.
    pub(crate) async fn connect(paths: &MeshPaths) -> Result<Self, Failure> {
        let socket = paths.socket();
        match FdStream::connect(&socket).await {
            Ok(stream) => Ok(Self { paths: paths.clone(), stream }),
            // A queue of connections that nobody takes is full.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(hangs(paths, "its queue is full"))
            }
            Err(error) => Err(Failure::refused(format!(
                "mesh `{}` does not answer at {}: {error}",
                paths.name(),
                socket.display()
            ))),
        }
    }

    /// What runs in the mesh.
    ///
    /// # Errors
    /// A refusal where the holder does not answer.
    pub(crate) async fn info(&mut self) -> Result<Info, Failure> {
        match self.ask(&HolderRequest::Info, ANSWER_WAIT).await? {
            (HolderReply::Info(info), _) => Ok(*info),
            (other, _) => Err(self.unexpected(&other)),
        }
    }

    /// Lets a workload in; `progress` hears what takes longer. Returns what it was given and its
    /// namespaces, `[net]` or `[user, net]`.
    ///
    /// # Errors
    /// The holder's or the control plane's refusal.
    pub(crate) async fn join(
        &mut self,
        spec: JoinSpec,
        progress: &mut dyn FnMut(&str),
    ) -> Result<(Joined, Vec<OwnedFd>), Failure> {
        self.send(&HolderRequest::Join(Box::new(spec))).await?;
        loop {
            let Some(received) = clock::within(JOIN_SILENCE, self.receive()).await else {
                Self::connect(&self.paths).await?.info().await?;
                continue;
            };
            match received? {
                (HolderReply::Progress { text }, _) => progress(&text),
                (HolderReply::Joined(joined), fds) => {
                    let expected = if joined.user_namespace { 2 } else { 1 };
                    if fds.len() != expected {
                        return Err(Failure::refused(format!(
                            "the holder passed {} namespaces, {expected} were expected",
                            fds.len()
                        )));
                    }
                    return Ok((*joined, fds));
                }
                (HolderReply::Refused { reason, .. }, _) => return Err(Failure::refused(reason)),
                (other, _) => return Err(self.unexpected(&other)),
            }
        }
    }

    /// Withdraws this workload's endpoint from all proxies; returns when they know, at most after 1 s.
    ///
    /// # Errors
    /// A refusal where the holder does not answer.
    pub(crate) async fn withdraw(&mut self) -> Result<(), Failure> {
        self.done(&HolderRequest::Withdraw, ANSWER_WAIT).await
    }

    /// Ends this workload: what is left of its processes, its sidecar, its namespace.
    ///
    /// # Errors
    /// A refusal where the holder does not answer.
    pub(crate) async fn leave(&mut self) -> Result<(), Failure> {
        self.done(&HolderRequest::Leave, END_WAIT).await
    }

    /// Ends the mesh, for this `reason`; returns when all is gone.
    ///
    /// # Errors
    /// A refusal where the holder does not answer.
    pub(crate) async fn shut_down(&mut self, reason: &str) -> Result<(), Failure> {
        // A holder of an older version refuses this, and ends without.
        let because = HolderRequest::Because { reason: reason.to_owned() };
        drop(self.done(&because, ANSWER_WAIT).await);
        self.done(&HolderRequest::Shutdown, END_WAIT).await
    }

    /// Has the holder restart `control` or `observe` when it ends, or not; starts it if it does not run.
    ///
    /// # Errors
    /// A refusal where there is no such part.
    pub(crate) async fn supervise(&mut self, part: &str, restart: bool) -> Result<(), Failure> {
        let request = HolderRequest::Supervise { part: part.to_owned(), restart };
        self.done(&request, ANSWER_WAIT).await
    }

    /// Returns when the holder has closed the connection, or says that it will: the mesh has ended. Why, as one
    /// sentence for the user.
    pub(crate) async fn closed(&mut self) -> String {
        let name = self.paths.name().to_owned();
        while let Ok(Some((text, _))) = self.stream.recv().await {
            if let Ok(HolderReply::Ended { reason }) = serde_json::from_slice(&text) {
                return format!("mesh `{name}` has ended: {reason}");
            }
        }
        format!(
            "mesh `{name}` has ended: its holder died or was killed; `heddle up --mesh {name}` clears up and starts it again"
        )
    }

    async fn done(&mut self, request: &HolderRequest, wait: Duration) -> Result<(), Failure> {
        match self.ask(request, wait).await? {
            (HolderReply::Done, _) => Ok(()),
            (other, _) => Err(self.unexpected(&other)),
        }
    }

    async fn ask(
        &mut self,
        request: &HolderRequest,
        wait: Duration,
    ) -> Result<(HolderReply, Vec<OwnedFd>), Failure> {
        self.send(request).await?;
        match clock::within(wait, self.receive()).await {
            Some(Ok((HolderReply::Refused { reason, .. }, _))) => Err(Failure::refused(reason)),
            Some(answer) => answer,
            None => Err(hangs(&self.paths, &format!("nothing came within {} s", wait.as_secs()))),
        }
    }

    async fn send(&self, request: &HolderRequest) -> Result<(), Failure> {
        let text = serde_json::to_vec(request)
            .map_err(|error| Failure::refused(format!("cannot write the request: {error}")))?;
        self.stream.send(&text, &[]).await.map_err(|error| self.gone(&error.to_string()))
    }

    async fn receive(&mut self) -> Result<(HolderReply, Vec<OwnedFd>), Failure> {
        match self.stream.recv().await {
            Ok(Some((text, fds))) => match serde_json::from_slice(&text) {
                Ok(HolderReply::Ended { reason }) => Err(self.gone(&reason)),
                Ok(reply) => Ok((reply, fds)),
                Err(error) => Err(Failure::refused(format!(
                    "the holder of mesh `{}` answered something else than expected ({error}): is it another version of Heddle?",
                    self.paths.name()
                ))),
            },
            Ok(None) => Err(self.gone("the connection was closed")),
            Err(error) => Err(self.gone(&error.to_string())),
        }
    }

    fn gone(&self, how: &str) -> Failure {
        Failure::refused(format!("mesh `{}` has ended: {how}", self.paths.name()))
    }

    fn unexpected(&self, reply: &HolderReply) -> Failure {
        Failure::refused(format!("the holder of mesh `{}` answered {reply:?}", self.paths.name()))
    }
}

/// Nobody restarts a holder: its end is the mesh's.
fn hangs(paths: &MeshPaths, how: &str) -> Failure {
    let name = paths.name();
    let process = ProcessRecord::read(&paths.lock());
    let (process, again, end) = match process {
        Some(ProcessRecord { pid, .. }) => (
            format!(" (process {pid})"),
            format!("`kill -CONT {pid}`"),
            format!("`kill -KILL {pid}`"),
        ),
        None => (String::new(), "SIGCONT".to_owned(), "SIGKILL".to_owned()),
    };
    Failure::refused(format!(
        "the holder of mesh `{name}`{process} hangs: {how}; traffic goes on. If it was stopped, {again} continues it; {end} ends the mesh and everything in it, and `heddle up --mesh {name}` clears up"
    ))
}
