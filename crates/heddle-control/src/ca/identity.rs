//! Whose a certificate is: the pod it is made for, and what one that is shown says.

use heddle_model::{
    Identity, WorkloadId,
    name::{check_label, check_subdomain},
};
use heddle_wire::peer_extension::{PEER_EXTENSION_OID, PeerExtension};
use x509_parser::{
    asn1_rs::Oid,
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

use super::error::CaError;

/// A pod, as somebody who knows says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodIdentity {
    /// Its namespace.
    pub namespace: String,
    /// The service account it runs as.
    pub service_account: String,
    /// Its name.
    pub pod_name: String,
    /// Its uid; empty if not known.
    pub pod_uid: String,
}

impl PodIdentity {
    /// What the mesh calls it.
    #[must_use]
    pub fn workload(&self) -> WorkloadId {
        WorkloadId::of_pod(&self.namespace, &self.pod_name)
    }

    /// Could Kubernetes have called them so? What is put into a certificate is believed by everybody.
    pub(super) fn check(&self) -> Result<(), CaError> {
        let Self { namespace, service_account, pod_name, pod_uid } = self;
        let names = check_label(namespace).is_ok()
            && check_subdomain(service_account).is_ok()
            && check_subdomain(pod_name).is_ok();
        let uid = pod_uid.len() <= 64 && pod_uid.bytes().all(|b| b.is_ascii_graphic());
        match names && uid {
            true => Ok(()),
            false => Err(CaError::Name(format!(
                "pod {pod_name:?} of service account {service_account:?} in namespace {namespace:?}: Kubernetes has no such names"
            ))),
        }
    }
}

/// Who a certificate of this mesh says its holder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// The workload.
    pub workload: WorkloadId,
    /// What it shares with others of its service account.
    pub identity: Identity,
    /// Uid of its pod; empty if not known.
    pub pod_uid: String,
    /// Until when that holds, seconds of Unix time.
    pub not_after: u64,
}

impl Certified {
    /// Reads a certificate that is believed already.
    pub(super) fn read(der: &[u8], trust_domain: &str) -> Result<Self, CaError> {
        let peer = |reason: &str| CaError::Peer(reason.to_owned());
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| peer("it cannot be read"))?;
        let identity = spiffe(&certificate, trust_domain)?;
        let oid = Oid::from(&PEER_EXTENSION_OID).map_err(|_| peer("its extension has no name"))?;
        let extension = certificate
            .get_extension_unique(&oid)
            .map_err(|_| peer("it names its workload twice"))?
            .ok_or_else(|| peer("it does not say of which workload it is"))?;
        let PeerExtension { workload, pod_uid } = PeerExtension::decode(extension.value)
            .map_err(|reason| CaError::Peer(format!("what it says of its workload: {reason}")))?;
        let not_after = seconds(certificate.validity().not_after.timestamp());
        Ok(Self { workload, identity, pod_uid, not_after })
    }
}

/// The one SPIFFE id in a certificate.
fn spiffe(certificate: &X509Certificate<'_>, trust_domain: &str) -> Result<Identity, CaError> {
    let names = certificate.subject_alternative_name();
    let names = names.map_err(|_| CaError::Peer("its names cannot be read".to_owned()))?;
    let mut uris =
        names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
    let (Some(uri), None) = (uris.next(), uris.next()) else {
        return Err(CaError::Peer("it holds no SPIFFE id, or more than one".to_owned()));
    };
    let parts: Vec<&str> = uri.strip_prefix("spiffe://").unwrap_or_default().split('/').collect();
    match parts.as_slice() {
        [domain, "ns", namespace, "sa", account] if *domain == trust_domain => Ok(Identity {
            trust_domain: trust_domain.to_owned(),
            namespace: (*namespace).to_owned(),
            service_account: (*account).to_owned(),
        }),
        _ => {
            Err(CaError::Peer(format!("`{uri}` is no identity of the trust domain {trust_domain}")))
        }
    }
}

/// A moment of a certificate; one before 1970 is 0.
pub(super) fn seconds(timestamp: i64) -> u64 {
    u64::try_from(timestamp).unwrap_or(0)
}
