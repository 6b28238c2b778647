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

/// Longest part of a locality, bytes: that of a label's value in Kubernetes.
const LOCALITY_PART_BYTES_MAX: usize = 63;

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
    /// Region, of which the zone is a part; empty if not known.
    #[cbor(n(70), default)]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub region: String,
    /// Part of the zone; empty if not known.
    #[cbor(n(71), default)]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subzone: String,
}

impl Locality {
    /// Is nothing known?
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }

    /// Of `region/zone/subzone`, which may end early.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let wrong = |part: &&str| {
            let fit = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
            part.is_empty() || part.len() > LOCALITY_PART_BYTES_MAX || !part.bytes().all(fit)
        };
        if parts.len() > 3 || parts.iter().any(wrong) {
            return Err(format!(
                "`{text}` is no locality: use `region`, `region/zone` or `region/zone/subzone`, of letters, digits, `-`, `_` and `.`"
            ));
        }
        let part = |at: usize| parts.get(at).map_or_else(String::new, |part| (*part).to_owned());
        Ok(Self { node: String::new(), region: part(0), zone: part(1), subzone: part(2) })
    }

    /// Could it have come from [`Self::parse`], or is nothing known?
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let parts = self.parts();
        let known = parts.iter().rposition(|part| !part.is_empty()).map_or(0, |last| last + 1);
        match known {
            0 => Ok(()),
            known => Self::parse(&parts[..known].join("/")).map(drop),
        }
    }

    /// Region, zone and subzone, the widest first.
    #[must_use]
    pub fn parts(&self) -> [&str; 3] {
        [&self.region, &self.zone, &self.subzone]
    }

    /// `region/zone/subzone`, each part empty if not known: one name for one place.
    #[must_use]
    pub fn place(&self) -> String {
        self.parts().join("/")
    }
}
