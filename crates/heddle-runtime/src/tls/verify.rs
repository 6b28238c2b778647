//! Is the server who it is asked to be? Its certificate must lead to somebody who is believed, be of this
//! time, and hold a name that is wanted.

use std::{net::IpAddr, sync::Arc};

use heddle_model::discovery::ClientTls;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use super::files::Material;

#[derive(Debug)]
pub(super) struct Verifier {
    /// `None`: any certificate will do.
    believes: Option<Believes>,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
struct Believes {
    roots: Arc<RootCertStore>,
    pinned: Vec<CertificateDer<'static>>,
    /// Names of which one must be held; none: the one that was asked for.
    names: Vec<String>,
}

impl Verifier {
    pub(super) fn new(settings: &ClientTls, material: &Material) -> Self {
        let believes = (!settings.unverified).then(|| Believes {
            roots: Arc::clone(&material.roots),
            pinned: material.pinned.clone(),
            names: settings.subject_alt_names.clone(),
        });
        let algorithms = super::provider::provider().signature_verification_algorithms;
        Self { believes, algorithms }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        asked: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(believes) = &self.believes else { return Ok(ServerCertVerified::assertion()) };
        let parsed = ParsedCertificate::try_from(own)?;
        let signed = verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &believes.roots,
            others,
            now,
            self.algorithms.all,
        );
        match signed {
            Err(error) if is_a_root(&error) && believes.pinned.iter().any(|one| one == own) => {}
            result => result?,
        }
        if believes.names.is_empty() {
            verify_server_name(&parsed, asked)?;
        } else if !believes.names.iter().any(|name| holds(own, &parsed, name)) {
            let wanted = believes.names.join(", ");
            let wrong = OtherError(Arc::new(WrongNames(wanted)));
            return Err(CertificateError::Other(wrong).into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The server shows what may sign others' certificates: `openssl req -x509` makes such, and people name them as
/// their own issuer. Its time has been looked at before this is found.
fn is_a_root(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(other)) = error else { return false };
    other.0.downcast_ref::<webpki::Error>() == Some(&webpki::Error::CaUsedAsEndEntity)
}

/// Does the certificate hold this name: a URI or a name as written, a DNS name by its wildcards, an address?
fn holds(own: &CertificateDer<'_>, parsed: &ParsedCertificate<'_>, name: &str) -> bool {
    let Ok(certificate) = webpki::EndEntityCert::try_from(own) else { return false };
    if name.contains("://") {
        return certificate.valid_uri_names().any(|one| one == name);
    }
    let as_written = || certificate.valid_dns_names().any(|one| one.eq_ignore_ascii_case(name));
    let server = match name.parse::<IpAddr>() {
        Ok(ip) => Some(ServerName::from(ip)),
        Err(_) => ServerName::try_from(name).ok(),
    };
    server.is_some_and(|server| verify_server_name(parsed, &server).is_ok()) || as_written()
}

/// A certificate holds none of these names.
#[derive(Debug, thiserror::Error)]
#[error("it holds none of the `subjectAltNames` {0}")]
pub(super) struct WrongNames(String);
