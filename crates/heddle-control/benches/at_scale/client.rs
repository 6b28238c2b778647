//! TLS to the control plane, as its sidecars and the API server make it.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use heddle_wire::discovery::{
    certificates::{CertificateClient, IssueRequest},
    transport::endpoint,
};
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Uri};

/// The name it shows.
const NAME: &str = "heddle-control.heddle-system.svc";

/// Whoever believes it.
#[derive(Debug)]
pub(crate) struct Client {
    roots: RootCertStore,
}

/// A certificate and its key.
#[derive(Debug)]
pub(crate) struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

impl Client {
    /// One that believes these roots, PEM.
    pub(crate) fn believing(pem: &str) -> Self {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            roots.add(root.unwrap()).unwrap();
        }
        Self { roots }
    }

    /// A connection.
    pub(crate) async fn connect(
        &self,
        port: u16,
        alpn: &str,
        shown: Option<&Certificate>,
    ) -> TlsStream<TcpStream> {
        let connector = self.connector(alpn, shown);
        open(&connector, port).await.unwrap()
    }

    fn connector(&self, alpn: &str, shown: Option<&Certificate>) -> TlsConnector {
        let builder =
            ClientConfig::builder_with_provider(Arc::clone(heddle_runtime::tls::provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_root_certificates(self.roots.clone());
        let mut config = match shown {
            Some(own) => {
                let key = PrivateKeyDer::try_from(own.key.clone()).unwrap();
                builder.with_client_auth_cert(own.chain.clone(), key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        TlsConnector::from(Arc::new(config))
    }

    /// A channel of gRPC to discovery.
    pub(crate) async fn channel(&self, shown: Option<&Certificate>) -> Channel {
        let connector = self.connector("h2", shown);
        let connect = tower::service_fn(move |_: Uri| {
            let connector = connector.clone();
            async move { open(&connector, 15_012).await.map(TokioIo::new) }
        });
        endpoint().connect_with_connector(connect).await.unwrap()
    }

    /// A certificate for a pod, by its token.
    pub(crate) async fn certificate(&self, token: &str) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
        let channel = self.channel(None).await;
        let issued = CertificateClient::new(channel).issue(IssueRequest { csr }, token).await;
        let chain = issued.unwrap().chain.into_iter().map(CertificateDer::from).collect();
        Certificate { chain, key: key.serialize_der() }
    }
}

async fn open(connector: &TlsConnector, port: u16) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    connector.connect(ServerName::try_from(NAME).unwrap(), stream).await
}
