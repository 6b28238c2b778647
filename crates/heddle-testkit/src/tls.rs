//! Certificates made for one test, and the server's side of TLS.

use std::{io, path::PathBuf, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer,
    KeyPair, SanType,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::folder::Folder;

/// Somebody who vouches for others.
#[derive(Debug)]
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, both PEM.
#[derive(Debug, Clone)]
pub struct Certified {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Authority {
    /// One of this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Its own certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for these DNS names, addresses and URIs.
    #[must_use]
    pub fn vouch(&self, names: &[&str]) -> Certified {
        self.vouch_until(names, 4000)
    }

    /// The same until a year begins.
    #[must_use]
    pub fn vouch_until(&self, names: &[&str], year: i32) -> Certified {
        let mut params = params(names);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Certified { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

impl Authority {
    /// A certificate for who sent this request (PKCS #10, DER), for these names; all DER.
    #[must_use]
    pub fn vouch_for(&self, request: &[u8], names: &[&str]) -> Vec<u8> {
        let request = CertificateSigningRequestParams::from_der(&request.into()).unwrap();
        let signed = params(names).signed_by(&request.public_key, &self.issuer);
        signed.unwrap().der().to_vec()
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let (uris, others): (Vec<&str>, Vec<&str>) =
        names.iter().partition(|name| name.contains("://"));
    let others: Vec<String> = others.into_iter().map(str::to_owned).collect();
    let mut params = CertificateParams::new(others).unwrap();
    let uris = uris.into_iter().map(|uri| SanType::URI(uri.try_into().unwrap()));
    params.subject_alt_names.extend(uris);
    params
}

/// A certificate that nobody vouches for but itself, and that may vouch for others, as `openssl req -x509`
/// makes it.
#[must_use]
pub fn self_signed(names: &[&str]) -> Certified {
    let mut params = params(names);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Certified { certificate: certificate.pem(), key: key.serialize_pem() }
}

impl Certified {
    /// Writes both into `folder`, as `NAME.pem` and `NAME-key.pem`, and says where.
    #[must_use]
    pub fn write(&self, folder: &Folder, name: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) =
            (folder.join(&format!("{name}.pem")), folder.join(&format!("{name}-key.pem")));
        std::fs::write(&certificate, &self.certificate).unwrap();
        std::fs::write(&key, &self.key).unwrap();
        (certificate, key)
    }
}

/// Who is asked for a certificate.
#[derive(Clone, Copy)]
enum Asked<'a> {
    Nobody,
    Perhaps(&'a [&'a Authority]),
    All(&'a [&'a Authority]),
}

/// The server's side of TLS.
#[derive(Clone)]
pub struct Server(TlsAcceptor);

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Server")
    }
}

impl Server {
    /// One that shows `own`.
    #[must_use]
    pub fn new(own: &Certified) -> Self {
        Self::with(own, None, &[])
    }

    /// One that speaks TLS 1.2 and no later version.
    #[must_use]
    pub fn old(own: &Certified) -> Self {
        Self::built(own, Asked::Nobody, &[], true)
    }

    /// One that lets in whom any of `clients` vouches for, and who shows nothing.
    #[must_use]
    pub fn asking(own: &Certified, clients: &[&Authority], protocols: &[&str]) -> Self {
        Self::built(own, Asked::Perhaps(clients), protocols, false)
    }

    /// One that lets in only whom `clients` vouches for, and offers to speak what `protocols` names.
    #[must_use]
    pub fn with(own: &Certified, clients: Option<&Authority>, protocols: &[&str]) -> Self {
        let clients =
            clients.as_ref().map_or(Asked::Nobody, |one| Asked::All(std::slice::from_ref(one)));
        Self::built(own, clients, protocols, false)
    }

    fn built(own: &Certified, clients: Asked<'_>, protocols: &[&str], old: bool) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = if old { &[&TLS12][..] } else { &[&TLS13, &TLS12] };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .unwrap();
        let builder = match clients {
            Asked::Nobody => builder.with_no_client_auth(),
            Asked::Perhaps(authorities) | Asked::All(authorities) => {
                let mut roots = RootCertStore::empty();
                for authority in authorities {
                    let root = CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap();
                    roots.add(root).unwrap();
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = match clients {
                    Asked::Perhaps(_) => verifier.allow_unauthenticated(),
                    _ => verifier,
                };
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let chain = CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(vec![chain], key).unwrap();
        config.alpn_protocols = protocols.iter().map(|one| one.as_bytes().to_vec()).collect();
        Self(TlsAcceptor::from(Arc::new(config)))
    }

    /// Agrees with a client.
    ///
    /// # Errors
    /// The client does not agree.
    pub async fn accept<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        carrier: T,
    ) -> io::Result<TlsStream<T>> {
        self.0.accept(carrier).await
    }
}

/// Which server the client asked for.
#[must_use]
pub fn asked_for<T>(stream: &TlsStream<T>) -> Option<String> {
    stream.get_ref().1.server_name().map(str::to_owned)
}
