//! Connections to the control plane: to a path socket, or over TLS, believing who the roots' file says and showing
//! a certificate where there is one.

use std::{
    fs::File,
    io::{self, Read as _},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use heddle_runtime::{clock, net, tls};
use heddle_wire::{discovery::transport, local::proxy_config::SecureControl};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    client::{ResolvesClientCert, Resumption},
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint, Uri};

/// A connection of TCP and TLS is there by then.
pub(super) const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Most bytes of the file of roots, and of that of the token.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("{file}: {reason}")]
    File { file: PathBuf, reason: String },
    #[error("the control plane's name `{host}` has no address: {reason}")]
    Name { host: String, reason: String },
    #[error("the control plane cannot be connected to at {at}: {source}")]
    Connect { at: String, source: io::Error },
    #[error("no TLS with the control plane `{host}`: {reason}")]
    Tls { host: String, reason: String },
    #[error("the control plane was not connected to within {} s", CONNECT_MAX.as_secs())]
    Late,
    #[error("no connection: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// A connection to a path socket.
pub(super) async fn path_socket(socket: &Path) -> Result<Channel, LinkError> {
    let stream = UnixStream::connect(socket).await.map_err(|source| {
        let at = socket.display().to_string();
        LinkError::Connect { at, source }
    })?;
    Ok(channel(transport::endpoint(), stream).await?)
}

/// A connection over TLS, as the holder of `shown` or as nobody.
pub(super) async fn secure(
    control: &SecureControl,
    shown: Option<Arc<CertifiedKey>>,
) -> Result<Channel, LinkError> {
    let connected = clock::within(CONNECT_MAX, connect(control, shown)).await;
    Ok(channel(transport::endpoint(), connected.ok_or(LinkError::Late)??).await?)
}

/// HTTP/2 on a connection; once it has ended there is no other.
pub(crate) async fn channel<S>(
    endpoint: Endpoint,
    stream: S,
) -> Result<Channel, tonic::transport::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut stream = Some(stream);
    let connect = tower::service_fn(move |_: Uri| {
        let stream = stream.take().map(TokioIo::new);
        async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    endpoint.connect_with_connector(connect).await
}

async fn connect(
    control: &SecureControl,
    shown: Option<Arc<CertifiedKey>>,
) -> Result<TlsStream<TcpStream>, LinkError> {
    let host = &control.host;
    let wrong = |reason: String| LinkError::Tls { host: host.clone(), reason };
    // Read each time: roots follow one another while pods live.
    let config = config(control, shown)?;
    let name = ServerName::try_from(host.clone())
        .map_err(|_| wrong("it is no name that a certificate can have".to_owned()))?;
    let stream = reach(control).await?;
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|error| wrong(explained(&error)))
}

/// What of TLS failed, for people.
fn explained(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(error) => {
            let tls::TlsError { text, fault } = error.clone().into();
            let clock = matches!(fault, tls::TlsFault::Expired | tls::TlsFault::NotYetValid);
            format!("{text}{}", if clock { "; is this machine's clock right?" } else { "" })
        }
        None => error.to_string(),
    }
}

fn config(
    control: &SecureControl,
    shown: Option<Arc<CertifiedKey>>,
) -> Result<ClientConfig, LinkError> {
    let file = &control.roots;
    let wrong = |reason: String| LinkError::File { file: file.clone(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&read(file)?) {
        let certificate = certificate.map_err(|error| wrong(format!("it is no PEM: {error}")))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("it holds no certificate in PEM".to_owned()));
    }
    let builder = ClientConfig::builder_with_provider(Arc::clone(tls::provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| wrong(error.to_string()))?
        .with_root_certificates(roots);
    let mut config = match shown {
        Some(key) => {
            let resolver: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(key));
            builder.with_client_cert_resolver(resolver)
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// A connection of TCP to one of its addresses.
async fn reach(control: &SecureControl) -> Result<TcpStream, LinkError> {
    let (host, port) = (control.host.as_str(), control.port);
    let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => {
            let named = |reason: String| LinkError::Name { host: host.to_owned(), reason };
            let found = tokio::net::lookup_host((host, port)).await;
            found.map_err(|error| named(error.to_string()))?.collect()
        }
    };
    let mut failed = LinkError::Name { host: host.to_owned(), reason: "there is none".to_owned() };
    for address in addresses {
        // Without a mark: what this process opens escapes where control is reached so.
        match net::connect_tcp(address, None).await {
            Ok(stream) => return Ok(stream),
            Err(source) => failed = LinkError::Connect { at: address.to_string(), source },
        }
    }
    Err(failed)
}

/// A mounted file's bytes.
///
/// # Errors
/// It cannot be read, or is too large to be what it should be.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, LinkError> {
    let wrong = |reason: String| LinkError::File { file: file.to_owned(), reason };
    let mut bytes = Vec::new();
    let opened = File::open(file).and_then(|file| {
        if file.metadata()?.is_file() {
            file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"))
        }
    });
    opened.map_err(|error| wrong(error.to_string()))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(wrong(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}
