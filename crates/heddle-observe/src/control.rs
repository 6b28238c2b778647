//! The control plane, asked who there is: on its path socket, or in a cluster over TLS, with the token of our
//! service account.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use heddle_model::discovery::ClientTls;
use heddle_runtime::{
    clock,
    local_http::{self, Ask, CallError, Method},
    net,
    tls::{Asks, Origin},
};
use serde::de::DeserializeOwned;

use crate::limits;

/// Where the control plane is.
#[derive(Debug)]
pub enum ControlSource {
    /// On a path socket of this machine.
    Socket(PathBuf),
    /// In a cluster.
    Cluster(Box<ClusterControl>),
}

/// A control plane in a cluster, as its pods reach it.
#[derive(Debug)]
pub struct ClusterControl {
    host: String,
    port: u16,
    token: PathBuf,
    tls: Origin,
}

impl ClusterControl {
    /// The one behind `host`, who shows a certificate for that name of an issuer in the file `roots`, and is shown
    /// what the file `token` holds. Both files are read again when they change.
    #[must_use]
    pub fn new(host: &str, port: u16, roots: &Path, token: &Path) -> Self {
        let tls = ClientTls {
            authorities: Some(roots.display().to_string()),
            server_name: host.to_owned(),
            ..ClientTls::default()
        };
        Self { host: host.to_owned(), port, token: token.to_owned(), tls: Origin::new(tls) }
    }
}

impl ControlSource {
    /// `GET path`.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        match self {
            Self::Socket(socket) => local_http::call(socket, Method::GET, path, None::<&()>).await,
            Self::Cluster(cluster) => cluster.get(path).await,
        }
    }

    /// Longest wait for an answer.
    pub(crate) fn limit(&self) -> Duration {
        match self {
            Self::Socket(_) => limits::CONTROL_TIMEOUT,
            Self::Cluster(_) => limits::CLUSTER_CONTROL_TIMEOUT,
        }
    }
}

impl ClusterControl {
    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        let peer = format!("{}:{}", self.host, self.port);
        let broken = |reason: String| CallError::Broken { peer: peer.clone(), reason };
        // Tokens of pods are renewed while they live.
        let token = fs::read_to_string(&self.token)
            .map_err(|error| broken(format!("{}: {error}", self.token.display())))?;
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let addresses: Vec<SocketAddr> =
            found.map_err(|source| CallError::NotRunning { peer: peer.clone(), source })?.collect();
        let mut refused = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            let connected =
                clock::within(limits::CONNECT_TIMEOUT, net::connect_tcp(address, None)).await;
            match connected {
                Some(Ok(stream)) => {
                    let begun =
                        self.tls.begin(stream.into(), Asks::Nothing, limits::CONNECT_TIMEOUT);
                    let stream = begun.await.map_err(|error| broken(error.to_string()))?;
                    let ask = Ask::new(&Method::GET, path).by(&self.host, token.trim());
                    return local_http::call_on(&peer, stream, ask, None::<&()>).await;
                }
                Some(Err(error)) => refused = error,
                None => refused = std::io::ErrorKind::TimedOut.into(),
            }
        }
        Err(CallError::NotRunning { peer, source: refused })
    }
}
