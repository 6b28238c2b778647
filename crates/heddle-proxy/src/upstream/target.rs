//! How an upstream is reached, and who answers there.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use heddle_model::discovery::DefaultEndpoint;

use crate::{backlog::Server, facts::Place};

/// How an upstream is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum DialTarget {
    /// Marked, directly: a workload of the mesh.
    Workload(SocketAddr),
    /// Through this process's own inbound path: the workload itself.
    Own(SocketAddr),
    /// This workload's application, wherever it listens on the port.
    Application {
        /// The port.
        port: u16,
        /// From whose address; `None`: the sidecar's own.
        caller: Option<IpAddr>,
        /// Where it takes calls of that port; `None`: wherever it listens on it.
        at: Option<DefaultEndpoint>,
    },
    /// Through the holder: outside the mesh.
    Outside(SocketAddr),
}

impl DialTarget {
    /// The port that is asked.
    pub(crate) fn port(&self) -> u16 {
        match *self {
            Self::Workload(address) | Self::Own(address) | Self::Outside(address) => address.port(),
            Self::Application { port, .. } => port,
        }
    }

    /// Where that is, as logs tell it.
    pub(super) fn place(&self) -> Place {
        match self {
            Self::Workload(at) | Self::Own(at) | Self::Outside(at) => Place::Address(*at),
            Self::Application { at: Some(DefaultEndpoint::Socket(path)), .. } => {
                Place::Socket(path.clone())
            }
            Self::Application {
                at: Some(DefaultEndpoint::Loopback(port) | DefaultEndpoint::Own(port)),
                ..
            }
            | Self::Application { port, at: None, .. } => {
                Place::Address((Ipv4Addr::LOCALHOST, *port).into())
            }
        }
    }

    /// Who answers there, if that is no hop of the mesh.
    pub(super) fn server(&self) -> Option<Server> {
        match *self {
            Self::Application { port, .. } => Some(Server::Application(port)),
            Self::Outside(address) => Some(Server::Outside(address)),
            Self::Workload(_) | Self::Own(_) => None,
        }
    }
}

impl fmt::Display for DialTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(address) | Self::Own(address) | Self::Outside(address) => {
                write!(f, "{address}")
            }
            Self::Application { at: Some(DefaultEndpoint::Socket(path)), .. } => {
                write!(f, "unix://{path}")
            }
            Self::Application {
                at: Some(DefaultEndpoint::Loopback(port) | DefaultEndpoint::Own(port)),
                ..
            }
            | Self::Application { port, at: None, .. } => write!(f, "localhost:{port}"),
        }
    }
}
