//! Who a workload is to others, and where it runs.

use std::fmt;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// The trust domain where none is given, as in Istio.
pub const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";
/// The service account of a workload that names none, as in Kubernetes.
pub const DEFAULT_SERVICE_ACCOUNT: &str = "default";

/// A workload's identity. Displayed as its SPIFFE id.
#[derive(
    Debug, Clone, Decode, Encode, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[cbor(map)]
pub struct Identity {
    /// Who vouches for it.
    #[n(1)]
    pub trust_domain: String,
    /// Namespace of the service account.
    #[n(2)]
    pub namespace: String,
    /// Service account: what workloads that run as one share.
    #[n(3)]
    pub service_account: String,
}

impl Identity {
    /// The identity of a workload of one machine, where there are no service accounts: each service
    /// is one of its own.
    #[must_use]
    pub fn local(namespace: &str, service: &str) -> Self {
        Self {
            trust_domain: DEFAULT_TRUST_DOMAIN.to_owned(),
            namespace: namespace.to_owned(),
            service_account: service.to_owned(),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trust_domain, namespace, service_account } = self;
        write!(f, "spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}")
    }
}

/// Where a workload runs, as far as it is known: on one machine nothing is said of it.
#[derive(Debug, Clone, Decode, Encode, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cbor(map)]
pub struct Locality {
    /// Node; empty if not known.
    #[cbor(n(1), default)]
    #[serde(default)]
    pub node: String,
    /// Zone; empty if not known.
    #[cbor(n(2), default)]
    #[serde(default)]
    pub zone: String,
}

impl Locality {
    /// Is nothing known?
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.node.is_empty() && self.zone.is_empty()
    }
}
