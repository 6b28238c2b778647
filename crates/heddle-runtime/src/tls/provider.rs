//! The cryptography that TLS uses: `ring`, one for the whole process.

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;

/// The one provider.
pub fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider()))
}
