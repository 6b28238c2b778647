//! Why a sidecar did not start, or ended.

use std::io;

/// Why a sidecar did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The configuration contradicts itself.
    #[error("the sidecar's configuration is wrong: {0}")]
    Config(String),
    /// A listener could not be bound.
    #[error("the sidecar's {what} cannot listen on {source}; is the port used by another program?")]
    Bind {
        /// What for.
        what: &'static str,
        /// Address and reason.
        source: io::Error,
    },
    /// It is to call the application from its callers' addresses, and may not.
    #[error(
        "the sidecar may not take its callers' addresses ({0}), as HEDDLE_INTERCEPTION_MODE=TPROXY asks: its container needs the capability NET_RAW or NET_ADMIN, and to run as root (user 0, group 1337), as the injection writes it; or leave interception mode TPROXY out"
    )]
    CallersAddresses(#[source] io::Error),
    /// A descriptor named in the configuration is not there.
    #[error("the inherited descriptor {number} cannot be used: {source}")]
    Inherited {
        /// Which.
        number: i32,
        /// Why.
        source: io::Error,
    },
    /// No runtime, thread or signal handler.
    #[error("the sidecar cannot start: {0}")]
    Start(#[from] io::Error),
    /// A worker ended; the holder starts the sidecar again.
    #[error("worker {0} ended unexpectedly")]
    WorkerEnded(usize),
    /// A task or thread that must not end has ended, by a panic; likewise.
    #[error("the {0} ended unexpectedly")]
    TaskEnded(&'static str),
}
