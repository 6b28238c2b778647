//! Why the process could not start. Once it runs, a failed scrape or a silent control plane is
//! shown on the dashboard, never an end.

use std::{io, net::SocketAddr, path::PathBuf};

/// Why `heddle observe` could not start.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// No runtime.
    #[error("cannot start the async runtime: {0}")]
    Runtime(#[source] io::Error),
    /// The inherited descriptor is no listening TCP socket.
    #[error(
        "descriptor {fd} is no listening TCP socket: {source}; pass the dashboard's listener by its number"
    )]
    Inherited {
        /// Its number.
        fd: i32,
        /// What the system said.
        source: io::Error,
    },
    /// The address cannot be bound.
    #[error(
        "cannot listen on {address} for the dashboard: {source}; choose another address or port 0"
    )]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The path socket for sidecars cannot be bound.
    #[error("cannot listen on {}: {source}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
