//! The key that signs: of any form and kind that people have their own authorities in.

use std::{fmt, sync::Arc};

use rcgen::{
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData,
    SignatureAlgorithm,
};
use rustls::{
    SignatureScheme,
    pki_types::{PrivateKeyDer, pem::PemObject as _},
    sign::SigningKey,
};
use x509_parser::{prelude::FromDer as _, x509::SubjectPublicKeyInfo};

use super::error::CaError;

const PART: &str = "ca.key";

/// A private key that signs certificates.
pub(super) struct IssuingKey {
    signing: Arc<dyn SigningKey>,
    scheme: SignatureScheme,
    algorithm: &'static SignatureAlgorithm,
    public: Vec<u8>,
}

impl fmt::Debug for IssuingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuingKey").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

impl IssuingKey {
    /// Reads PKCS #8, SEC 1 or PKCS #1.
    pub(super) fn from_pem(pem: &str) -> Result<Self, CaError> {
        let wrong = |reason: &str| CaError::Unreadable { part: PART, reason: reason.to_owned() };
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| wrong("it holds no private key in PEM that is not encrypted"))?;
        let provider = heddle_runtime::tls::provider();
        let signing = provider
            .key_provider
            .load_private_key(der)
            .map_err(|error| wrong(&format!("the key cannot be used: {error}")))?;
        let kinds: [(SignatureScheme, &SignatureAlgorithm); 4] = [
            (SignatureScheme::ED25519, &PKCS_ED25519),
            (SignatureScheme::ECDSA_NISTP256_SHA256, &PKCS_ECDSA_P256_SHA256),
            (SignatureScheme::ECDSA_NISTP384_SHA384, &PKCS_ECDSA_P384_SHA384),
            (SignatureScheme::RSA_PKCS1_SHA256, &PKCS_RSA_SHA256),
        ];
        let fits = |scheme| signing.choose_scheme(&[scheme]).is_some();
        let kind = kinds.into_iter().find(|(scheme, _)| fits(*scheme));
        let (scheme, algorithm) = kind
            .ok_or_else(|| wrong("use a key of ECDSA on P-256 or P-384, of Ed25519 or of RSA"))?;
        let spki = signing.public_key().ok_or_else(|| wrong("the key has no public part"))?;
        let public = SubjectPublicKeyInfo::from_der(&spki)
            .map(|(_, spki)| spki.subject_public_key.data.to_vec())
            .map_err(|_| wrong("its public part cannot be read"))?;
        Ok(Self { signing, scheme, algorithm, public })
    }

    /// Its public part: the bits of SubjectPublicKeyInfo.
    pub(super) fn public(&self) -> &[u8] {
        &self.public
    }
}

impl PublicKeyData for IssuingKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

impl rcgen::SigningKey for IssuingKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signer = self.signing.choose_scheme(&[self.scheme]);
        signer.and_then(|signer| signer.sign(message).ok()).ok_or(rcgen::Error::RemoteKeyError)
    }
}
