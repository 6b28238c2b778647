//! The certificate authority of a mesh: whom its sidecars believe, and the key that makes their certificates.
//!
//! An [`Authority`] is a value: it is made or read, it signs, it says who a certificate is of. It reads no clock and
//! no file; moments are arguments, as time since the Unix epoch. [`Trust`] is the authority in force, which may be
//! replaced while it is used, with the certificates of the control plane's own servers.
//!
//! A pod's certificate says the SPIFFE id, which pods of one service account share, and in an extension of our own
//! ([`heddle_wire::peer_extension`]) which workload it is.

mod error;
mod identity;
mod key;
mod make;
mod read;
mod serving;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use heddle_model::name::check_subdomain;
use rcgen::{CertificateParams, CertificateSigningRequestParams, Issuer, KeyPair, PublicKeyData};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};

pub(crate) use self::read::end_of;
pub use self::{
    error::CaError,
    identity::{Certified, PodIdentity},
    make::{LEAF_LIFE, SKEW},
    serving::{Clock, Trust},
};
use self::{
    key::IssuingKey,
    read::{Span, certificates},
};

/// An authority as text: what is in the Secret of the mesh.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthorityPem {
    /// `ca.crt`: the issuing certificate, then those between it and the root.
    pub ca_crt: String,
    /// `ca.key`: its private key, not encrypted.
    pub ca_key: String,
    /// `root.crt`: whom the mesh believes; several while one root follows another.
    pub root_crt: String,
}

impl fmt::Debug for AuthorityPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorityPem").finish_non_exhaustive()
    }
}

/// A certificate that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate, then those that lead from it towards a root.
    pub chain: Vec<CertificateDer<'static>>,
    /// It is good from here on, seconds of Unix time…
    pub not_before: u64,
    /// …until here.
    pub not_after: u64,
}

/// Roots, and the key that signs.
#[derive(Debug)]
pub struct Authority {
    trust_domain: String,
    issuer: Issuer<'static, IssuingKey>,
    /// The issuing certificate and those behind it, without roots: others have those.
    chain: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
    span: Span,
    verifier: Arc<dyn ClientCertVerifier>,
    pem: AuthorityPem,
}

impl Authority {
    /// A new root, whose key signs, good for ten years.
    ///
    /// # Errors
    /// The trust domain cannot be in a SPIFFE id, or there is no randomness.
    pub fn generate(trust_domain: &str, now: Duration) -> Result<Self, CaError> {
        let key = KeyPair::generate().map_err(unmade)?;
        let root = make::root(trust_domain, now).self_signed(&key).map_err(unmade)?.pem();
        let pem =
            AuthorityPem { ca_crt: root.clone(), ca_key: key.serialize_pem(), root_crt: root };
        Self::from_pem(trust_domain, pem, now)
    }

    /// An authority that was made before, or a user's own.
    ///
    /// # Errors
    /// What of it cannot be used: what is no PEM, a foreign key, a certificate past its time or that may not sign, a
    /// chain that does not lead to a root.
    pub fn from_pem(trust_domain: &str, pem: AuthorityPem, now: Duration) -> Result<Self, CaError> {
        if check_subdomain(trust_domain).is_err() {
            return Err(CaError::Name(format!(
                "the trust domain {trust_domain:?}: use a DNS name in lower case, as `cluster.local`"
            )));
        }
        let key = IssuingKey::from_pem(&pem.ca_key)?;
        let chain = certificates("ca.crt", &pem.ca_crt)?;
        let roots = certificates("root.crt", &pem.root_crt)?;
        let span = read::check(&key, &chain, &roots, now.as_secs())?;
        let verifier = verifier(&roots)?;
        let unusable = |error: rcgen::Error| CaError::Unreadable {
            part: "ca.crt",
            reason: format!("nothing can be signed in its name: {error}"),
        };
        let issuer = Issuer::from_ca_cert_der(&chain[0], key).map_err(unusable)?;
        let chain = chain.into_iter().filter(|one| !roots.contains(one) && !is_root(one)).collect();
        let trust_domain = trust_domain.to_owned();
        let authority = Self { trust_domain, issuer, chain, roots, span, verifier, pem };
        authority.prove(now)?;
        Ok(authority)
    }

    /// Signs for nobody and looks whether that is believed: path lengths, constraints on names, and whatever else an
    /// authority may be forbidden to do.
    fn prove(&self, now: Duration) -> Result<(), CaError> {
        let nobody = PodIdentity {
            namespace: "default".to_owned(),
            service_account: "default".to_owned(),
            pod_name: "nobody".to_owned(),
            pod_uid: String::new(),
        };
        let key = KeyPair::generate().map_err(unmade)?;
        let issued = self.make(&key, now, |span| make::pod(&nobody, &self.trust_domain, span))?;
        let verified = self.verify(&issued.chain, now);
        verified.map(drop).map_err(|error| CaError::Chain(error.to_string()))
    }

    /// The authority as text, as it was given.
    #[must_use]
    pub fn to_pem(&self) -> &AuthorityPem {
        &self.pem
    }

    /// Whom the mesh believes, PEM.
    #[must_use]
    pub fn roots_pem(&self) -> &str {
        &self.pem.root_crt
    }

    /// Whom the mesh believes.
    #[must_use]
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// Until when anything it signs is believed, seconds of Unix time.
    #[must_use]
    pub fn not_after(&self) -> u64 {
        self.span.not_after
    }

    /// Who vouches.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Makes the certificate of a pod. Of the request (PKCS #10, DER) only the key counts, and that its sender has
    /// the private part of it: who it is was told by somebody else.
    ///
    /// # Errors
    /// The request is none, the pod cannot be called so, or the authority is past its time.
    pub fn sign(
        &self,
        request: &[u8],
        pod: &PodIdentity,
        now: Duration,
    ) -> Result<Issued, CaError> {
        let request = CertificateSigningRequestParams::from_der(&request.into())
            .map_err(|error| CaError::Request(error.to_string()))?;
        self.make(&request.public_key, now, |span| make::pod(pod, &self.trust_domain, span))
    }

    /// A certificate with its key for a server of the control plane's own.
    ///
    /// # Errors
    /// A name that cannot be in a certificate, or the authority is past its time.
    pub fn serve_as(
        &self,
        names: &[String],
        now: Duration,
    ) -> Result<(Issued, CertifiedKey), CaError> {
        let key = KeyPair::generate().map_err(unmade)?;
        let issued = self.make(&key, now, |span| make::server(names, span))?;
        let der = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|error| CaError::Make(error.to_owned()))?;
        let certified =
            CertifiedKey::from_der(issued.chain.clone(), der, heddle_runtime::tls::provider());
        let certified = certified.map_err(|error| CaError::Make(error.to_string()))?;
        Ok((issued, certified))
    }

    /// Who shows this certificate, with those behind it.
    ///
    /// # Errors
    /// It is not believed now, or is none of a workload.
    pub fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        now: Duration,
    ) -> Result<Certified, CaError> {
        let Some((own, others)) = chain.split_first() else {
            return Err(CaError::Peer("none was shown".to_owned()));
        };
        let verified =
            self.verifier.verify_client_cert(own, others, UnixTime::since_unix_epoch(now));
        match verified {
            Ok(_) => Certified::read(own, &self.trust_domain),
            Err(error) => Err(CaError::Peer(unbelieved(own, &error))),
        }
    }

    fn make(
        &self,
        key: &impl PublicKeyData,
        now: Duration,
        params: impl FnOnce((u64, u64)) -> Result<CertificateParams, CaError>,
    ) -> Result<Issued, CaError> {
        let now = now.as_secs();
        self.span.check("the authority of this mesh", now)?;
        // Nobody believes it for longer than who signs it.
        let not_after = (now + LEAF_LIFE.as_secs()).min(self.span.not_after);
        let not_before = now.saturating_sub(SKEW.as_secs());
        let made = params((not_before, not_after))?.signed_by(key, &self.issuer);
        let mut chain = vec![CertificateDer::from(made.map_err(unmade)?)];
        chain.extend(self.chain.iter().cloned());
        Ok(Issued { chain, not_before, not_after })
    }
}

/// Has it signed itself? Then others have it, or do not believe it because it is sent.
fn is_root(der: &CertificateDer<'_>) -> bool {
    let parsed = read::parse("ca.crt", der);
    parsed.is_ok_and(|one| one.subject().as_raw() == one.issuer().as_raw())
}

/// Why a certificate is not believed, for people.
fn unbelieved(own: &CertificateDer<'_>, error: &rustls::Error) -> String {
    use heddle_model::timestamp;
    use rustls::CertificateError as Why;

    let Ok(parsed) = read::parse("certificate", own) else { return "it cannot be read".to_owned() };
    let at = |time: i64| timestamp::format(identity::seconds(time));
    let validity = parsed.validity();
    match error {
        rustls::Error::InvalidCertificate(Why::Expired | Why::ExpiredContext { .. }) => {
            format!("it expired at {}", at(validity.not_after.timestamp()))
        }
        rustls::Error::InvalidCertificate(Why::NotValidYet | Why::NotValidYetContext { .. }) => {
            format!(
                "it is valid from {} on only: is the clock right here and there?",
                at(validity.not_before.timestamp())
            )
        }
        rustls::Error::InvalidCertificate(Why::UnknownIssuer) => {
            format!("no root of this mesh leads to its issuer, {}", parsed.issuer())
        }
        other => other.to_string(),
    }
}

fn verifier(roots: &[CertificateDer<'static>]) -> Result<Arc<dyn ClientCertVerifier>, CaError> {
    let wrong = |reason: String| CaError::Unreadable { part: "root.crt", reason };
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(|error| wrong(error.to_string()))?;
    }
    let provider = Arc::clone(heddle_runtime::tls::provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider)
        .build()
        .map_err(|error| wrong(error.to_string()))
}

fn unmade(error: rcgen::Error) -> CaError {
    CaError::Make(error.to_string())
}
