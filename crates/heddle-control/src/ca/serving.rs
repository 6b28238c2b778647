//! The authority in force, and servers that show a certificate of it: a new one is made when the one before has
//! lived for two thirds of its time, or when the authority was replaced.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    server::{ClientHello, ResolvesServerCert, danger::ClientCertVerifier},
    sign::CertifiedKey,
    version::TLS13,
};

use super::{Authority, CaError, Issued};

/// Tells the time, since the Unix epoch.
pub type Clock = fn() -> Duration;

/// The authority in force.
#[derive(Debug)]
pub struct Trust {
    authority: ArcSwap<Authority>,
}

impl Trust {
    /// Trust in one authority.
    #[must_use]
    pub fn new(authority: Authority) -> Arc<Self> {
        Arc::new(Self { authority: ArcSwap::from_pointee(authority) })
    }

    /// The authority now.
    #[must_use]
    pub fn authority(&self) -> Arc<Authority> {
        self.authority.load_full()
    }

    /// Puts another authority in force: from now on it signs, and only its roots are believed. To go from one root to
    /// another, have both in `root.crt` for as long as certificates of the old one live.
    pub fn replace(&self, authority: Authority) {
        self.authority.store(Arc::new(authority));
    }

    /// How a server of these DNS names and addresses begins TLS 1.3, speaking `protocols` (ALPN); `clients` decides
    /// about certificates of its clients, who are asked for none without it. The certificate renews itself.
    ///
    /// # Errors
    /// A name that cannot be in a certificate, or the authority is past its time.
    pub fn serving_config(
        self: &Arc<Self>,
        names: &[String],
        protocols: &[&[u8]],
        clients: Option<Arc<dyn ClientCertVerifier>>,
        clock: Clock,
    ) -> Result<Arc<ServerConfig>, CaError> {
        let serving = Serving {
            trust: Arc::clone(self),
            names: names.to_vec(),
            clock,
            shown: Mutex::new(None),
        };
        serving.certificate()?;
        let provider = Arc::clone(heddle_runtime::tls::provider());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| CaError::Make(error.to_string()))?;
        let builder = match clients {
            Some(clients) => builder.with_client_cert_verifier(clients),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(serving));
        config.alpn_protocols = protocols.iter().map(|one| one.to_vec()).collect();
        // A session that is taken up again would not show its certificate anew.
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

/// What one server shows.
struct Serving {
    trust: Arc<Trust>,
    names: Vec<String>,
    clock: Clock,
    shown: Mutex<Option<Shown>>,
}

struct Shown {
    of: Arc<Authority>,
    issued: Issued,
    key: Arc<CertifiedKey>,
}

impl Shown {
    /// Is there nothing better to show? Also a clock that was set back asks for a new one.
    fn is_fresh(&self, authority: &Arc<Authority>, now: u64) -> bool {
        let life = self.issued.not_after.saturating_sub(self.issued.not_before);
        let renewal = self.issued.not_before + life / 3 * 2;
        Arc::ptr_eq(&self.of, authority) && (self.issued.not_before..renewal).contains(&now)
    }
}

impl Serving {
    fn certificate(&self) -> Result<Arc<CertifiedKey>, CaError> {
        let now = (self.clock)();
        let authority = self.trust.authority();
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shown) = &*shown
            && shown.is_fresh(&authority, now.as_secs())
        {
            return Ok(Arc::clone(&shown.key));
        }
        match authority.serve_as(&self.names, now) {
            Ok((issued, key)) => {
                let key = Arc::new(key);
                *shown = Some(Shown { of: authority, issued, key: Arc::clone(&key) });
                Ok(key)
            }
            Err(error) => Err(error),
        }
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").field("names", &self.names).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match self.certificate() {
            Ok(key) => Some(key),
            Err(error) => {
                tracing::error!(names = ?self.names, %error, "no certificate can be shown");
                let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
                shown.as_ref().map(|shown| Arc::clone(&shown.key))
            }
        }
    }
}
