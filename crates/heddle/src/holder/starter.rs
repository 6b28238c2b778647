//! The socket to whoever started the mesh: progress to it, and notice of its end.

use std::{
    fs::File,
    io,
    os::{fd::AsFd as _, unix::net::UnixStream as StdUnixStream},
};

use heddle_runtime::net;
use heddle_wire::local::holder_api::Info;
use tokio::net::UnixStream;

use crate::{
    failure::{Doing as _, Failure},
    up::StartMessage,
};

/// Closes what else was inherited: a pipe somebody left open must not stay open for as long as the
/// mesh lives, nor in its sidecars. Call it before anything is opened.
pub(crate) fn close_stray_descriptors() {
    let listing = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers: Vec<i32> = listing
        .filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()))
        .collect();
    for number in numbers {
        // The standard streams are refused, and the listing's own is closed already.
        drop(net::inherited_fd(number));
    }
}

/// The locked lock file, inherited as standard input.
///
/// # Errors
/// Where the descriptor cannot be duplicated.
pub(crate) fn inherited_lock() -> Result<File, Failure> {
    let fd = io::stdin().as_fd().try_clone_to_owned();
    Ok(File::from(
        fd.doing(|| "take over the lock file (start meshes with `heddle up`)".to_owned())?,
    ))
}

/// The socket to the starter, inherited as standard output.
///
/// # Errors
/// Where the descriptor cannot be duplicated.
pub(crate) fn inherited_socket() -> Result<StdUnixStream, Failure> {
    let fd = io::stdout().as_fd().try_clone_to_owned();
    Ok(StdUnixStream::from(fd.doing(|| "take over the starter's socket".to_owned())?))
}

/// The starter.
#[derive(Debug)]
pub(crate) struct Starter {
    stream: UnixStream,
}

impl Starter {
    /// The starter at the other end of `stream`.
    ///
    /// # Errors
    /// Where the descriptor is no socket.
    pub(crate) fn new(stream: StdUnixStream) -> Result<Self, Failure> {
        let stream = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
        let stream =
            stream.doing(|| "talk to the starter (start meshes with `heddle up`)".to_owned())?;
        Ok(Self { stream })
    }

    /// A line for the user.
    pub(crate) async fn progress(&self, text: &str) {
        self.tell(&StartMessage::Progress { text: text.to_owned() }).await;
    }

    /// The mesh is up.
    pub(crate) async fn ready(&self, info: Info) {
        self.tell(&StartMessage::Ready { info: Box::new(info) }).await;
    }

    /// The mesh cannot be.
    pub(crate) async fn failed(&self, reason: &str) {
        self.tell(&StartMessage::Failed { reason: reason.to_owned() }).await;
    }

    /// The mesh is ending.
    pub(crate) async fn ended(&self, reason: &str) {
        self.tell(&StartMessage::Ended { reason: reason.to_owned() }).await;
    }

    /// Returns when the starter has gone. It never sends anything.
    pub(crate) async fn gone(&self) {
        let mut ignored = [0; 64];
        while self.stream.readable().await.is_ok() {
            match self.stream.try_read(&mut ignored) {
                Ok(0) => return,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
                _ => {}
            }
        }
    }

    async fn tell(&self, message: &StartMessage) {
        if let Err(error) = self.write(message).await {
            // It has gone; `gone` says so to whoever cares.
            tracing::info!(%error, "the starter does not listen");
        }
    }

    async fn write(&self, message: &StartMessage) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        let mut rest = line.as_slice();
        while !rest.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
