//! TLS that a sidecar begins: who is believed, what is shown, and from which files. The bytes are
//! [`crate::transport`]'s.
//!
//! Files are read where they are named, by whoever connects, and again when they change; a change that cannot
//! be used leaves in force what was. Nothing of a private key is ever shown: not in an error, not in a log.

mod files;
mod provider;
mod verify;

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use heddle_model::discovery::ClientTls;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, client::Resumption,
    pki_types::ServerName,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use self::files::{Material, Stamps};
pub use self::{
    files::{FileFault, check},
    provider::provider,
};
use crate::{
    clock,
    transport::{HandshakeError, Transport},
};

/// Files are not looked at more often than this.
pub const FILES_LOOK: Duration = Duration::from_secs(1);

/// Sessions of one rule that can be taken up again.
const SESSIONS_KEPT: usize = 64;

/// Why there is no connection of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsError {
    /// What it is counted as.
    pub fault: TlsFault,
    /// What happened, for people.
    pub text: String,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TLS error: {}", self.text)
    }
}

impl std::error::Error for TlsError {}

/// What kept two sides from agreeing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsFault {
    /// A file of the rule cannot be used.
    File,
    /// Nobody who is believed vouches for the server's certificate.
    UnknownIssuer,
    /// The server's certificate is past its time.
    Expired,
    /// The time of the server's certificate has not come.
    NotYetValid,
    /// The server's certificate is for other names.
    NameMismatch,
    /// The server's certificate is no good for another reason.
    BadCertificate,
    /// The server refused, with an alert.
    Alert,
    /// They did not agree in time.
    Timeout,
    /// The server closed in the middle of it.
    Closed,
    /// The server speaks no TLS, or none that could be agreed on.
    Protocol,
}

impl TlsFault {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::File,
        Self::UnknownIssuer,
        Self::Expired,
        Self::NotYetValid,
        Self::NameMismatch,
        Self::BadCertificate,
        Self::Alert,
        Self::Timeout,
        Self::Closed,
        Self::Protocol,
    ];

    /// Its name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::UnknownIssuer => "unknown-issuer",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::NameMismatch => "name-mismatch",
            Self::BadCertificate => "bad-certificate",
            Self::Alert => "alert",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Protocol => "protocol",
        }
    }
}

/// What is to be spoken over TLS, as far as it is asked for (ALPN, RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// For nothing: HTTP/1, or bytes.
    Nothing,
    /// For HTTP/2, or else HTTP/1.
    Http2,
}

impl Asks {
    fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Http2 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        }
    }
}

/// What a stream of TLS says of its handshake.
fn of_stream(error: io::Error) -> TlsError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(error) => error.clone().into(),
        None => HandshakeError::Io(error).into(),
    }
}

fn late(limit: Duration) -> TlsError {
    TlsError {
        fault: TlsFault::Timeout,
        text: format!("the handshake did not end within {limit:?}"),
    }
}

/// TLS as one rule asks for it, with what its files hold.
#[derive(Debug)]
pub struct Origin {
    settings: ClientTls,
    loaded: Mutex<Loaded>,
}

/// The same settings are the same TLS.
impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings
    }
}

impl Eq for Origin {}

#[derive(Debug, Default)]
struct Loaded {
    /// When files were last looked at.
    looked: Option<Instant>,
    stamps: Stamps,
    /// What came of them.
    config: Option<Result<Arc<ClientConfig>, TlsError>>,
}

impl Origin {
    /// Reads nothing yet.
    #[must_use]
    pub fn new(settings: ClientTls) -> Self {
        Self { settings, loaded: Mutex::default() }
    }

    /// What it is made of.
    #[must_use]
    pub fn settings(&self) -> &ClientTls {
        &self.settings
    }

    /// Begins TLS on a connection.
    ///
    /// # Errors
    /// Why the two sides do not agree, or not within `limit`.
    pub async fn begin(
        &self,
        transport: Transport,
        asks: Asks,
        limit: Duration,
    ) -> Result<Transport, TlsError> {
        let client = self.client(asks)?;
        match clock::within(limit, Box::pin(transport.with_tls(client))).await {
            Some(Ok(transport)) => Ok(transport),
            Some(Err(error)) => Err(error.into()),
            None => Err(late(limit)),
        }
    }

    /// As [`Self::begin`], of a connection that is nobody's but the caller's.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub async fn over<S>(
        &self,
        stream: S,
        asks: Asks,
        limit: Duration,
    ) -> Result<TlsStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = TlsConnector::from(self.config(clock::now())?);
        let connector = connector.with_alpn(asks.protocols());
        match clock::within(limit, connector.connect(self.name()?, stream)).await {
            Some(Ok(stream)) => Ok(stream),
            Some(Err(error)) => Err(of_stream(error)),
            None => Err(late(limit)),
        }
    }

    fn client(&self, asks: Asks) -> Result<ClientConnection, TlsError> {
        let config = self.config(clock::now())?;
        Ok(ClientConnection::new_with_alpn(config, self.name()?, asks.protocols())?)
    }

    /// The name that is asked for.
    fn name(&self) -> Result<ServerName<'static>, TlsError> {
        let name = self.settings.server_name.clone();
        ServerName::try_from(name).map_err(|error| TlsError {
            fault: TlsFault::NameMismatch,
            text: format!(
                "`{}` is no name that can be asked for ({error}): set `sni`",
                self.settings.server_name
            ),
        })
    }

    /// As the files have it now.
    fn config(&self, now: Instant) -> Result<Arc<ClientConfig>, TlsError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &loaded.config
            && loaded.looked.is_some_and(|looked| now < looked + FILES_LOOK)
        {
            return known.clone();
        }
        loaded.looked = Some(now);
        let stamps = Stamps::of(&self.settings);
        if let Some(known @ Ok(_)) = &loaded.config
            && loaded.stamps == stamps
        {
            return known.clone();
        }
        let fresh = config(&self.settings);
        if let (Some(known @ Ok(_)), Err(error)) = (&loaded.config, &fresh) {
            // Half a change must not break what works: it is read again with the next change.
            tracing::warn!(%error, "what was read from the files before stays in force");
            let known = known.clone();
            loaded.stamps = stamps;
            return known;
        }
        loaded.stamps = stamps;
        loaded.config = Some(fresh.clone());
        fresh
    }
}

fn config(settings: &ClientTls) -> Result<Arc<ClientConfig>, TlsError> {
    let material = Material::read(settings).map_err(TlsError::from)?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verify::Verifier::new(settings, &material)));
    let mut config = match material.own {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| TlsError::from(files::unfit_key(settings, &error)))?,
    };
    config.resumption = Resumption::in_memory_sessions(SESSIONS_KEPT);
    Ok(Arc::new(config))
}

impl From<FileFault> for TlsError {
    fn from(fault: FileFault) -> Self {
        Self { fault: TlsFault::File, text: fault.to_string() }
    }
}

impl From<HandshakeError> for TlsError {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Tls(error) => error.into(),
            HandshakeError::Ended => Self {
                fault: TlsFault::Closed,
                text: "the server closed the connection during the handshake".to_owned(),
            },
            HandshakeError::Io(error) if error.kind() == io::ErrorKind::ConnectionReset => Self {
                fault: TlsFault::Closed,
                text: "the server reset the connection during the handshake".to_owned(),
            },
            HandshakeError::Io(error) => {
                Self { fault: TlsFault::Closed, text: format!("during the handshake: {error}") }
            }
        }
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        let (fault, text) = match &error {
            rustls::Error::InvalidCertificate(why) => certificate(why),
            rustls::Error::AlertReceived(alert) => (TlsFault::Alert, refused_with(*alert)),
            rustls::Error::InvalidMessage(_) => {
                (TlsFault::Protocol, format!("the server speaks no TLS on this port ({error})"))
            }
            other => (TlsFault::Protocol, other.to_string()),
        };
        Self { fault, text }
    }
}

fn refused_with(alert: AlertDescription) -> String {
    let more = match alert {
        AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure => {
            "; it may want a certificate of its client (`mode: MUTUAL`)"
        }
        AlertDescription::UnrecognisedName => "; it knows no server of that name (`sni`)",
        _ => "",
    };
    format!("the server refused with the alert {alert:?}{more}")
}

fn certificate(why: &CertificateError) -> (TlsFault, String) {
    let (fault, what) = match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            (TlsFault::Expired, "the server's certificate has expired")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            (TlsFault::NotYetValid, "the server's certificate is not valid yet")
        }
        CertificateError::UnknownIssuer => (
            TlsFault::UnknownIssuer,
            "the server's certificate is of an unknown issuer: none of the CA certificates leads to it",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            (TlsFault::NameMismatch, "the server's certificate is for another name")
        }
        CertificateError::Other(other) if other.0.is::<verify::WrongNames>() => {
            (TlsFault::NameMismatch, "the server's certificate is for another name")
        }
        _ => (TlsFault::BadCertificate, "the server's certificate cannot be used"),
    };
    (fault, format!("{what} ({why})"))
}
