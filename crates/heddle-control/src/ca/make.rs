//! What certificates of the mesh look like.

use std::{net::IpAddr, time::Duration};

use heddle_model::Identity;
use heddle_wire::peer_extension::{PEER_EXTENSION_OID, PeerExtension};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType, string::Ia5String,
};

use super::{error::CaError, identity::PodIdentity};

/// How far back a certificate begins: a pod's clock may be behind that of the control plane.
pub const SKEW: Duration = Duration::from_secs(120);
/// How long a certificate of a pod or of control is good for, from when it is made.
pub const LEAF_LIFE: Duration = Duration::from_secs(24 * 3600);
/// The same for a root that was made here.
pub(super) const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Latest moment that a certificate can say (RFC 5280 §4.1.2.5), seconds of Unix time.
const MOMENT_MAX: u64 = 253_402_300_799;

/// A certificate from `not_before` to `not_after`, seconds of Unix time, that says nothing else yet.
fn spanning(not_before: u64, not_after: u64) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |seconds: u64| epoch + Duration::from_secs(seconds.min(MOMENT_MAX));
    let mut params = CertificateParams::default();
    params.not_before = at(not_before);
    params.not_after = at(not_after);
    params.distinguished_name = DistinguishedName::new();
    params
}

/// A root of this trust domain.
pub(super) fn root(trust_domain: &str, now: Duration) -> CertificateParams {
    let now = now.as_secs();
    let mut params = spanning(now.saturating_sub(SKEW.as_secs()), now + ROOT_LIFE.as_secs());
    params.distinguished_name.push(DnType::OrganizationName, trust_domain);
    // Two roots of one mesh, while one follows the other, must not be taken for each other.
    let common = format!("Heddle root {:08x}", fastrand::u32(..));
    params.distinguished_name.push(DnType::CommonName, common);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf(not_before: u64, not_after: u64) -> CertificateParams {
    let mut params = spanning(not_before, not_after);
    params.distinguished_name.push(DnType::OrganizationName, "heddle");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

/// The certificate of a pod.
pub(super) fn pod(
    pod: &PodIdentity,
    trust_domain: &str,
    (not_before, not_after): (u64, u64),
) -> Result<CertificateParams, CaError> {
    pod.check()?;
    let identity = Identity {
        trust_domain: trust_domain.to_owned(),
        namespace: pod.namespace.clone(),
        service_account: pod.service_account.clone(),
    };
    let mut params = leaf(not_before, not_after);
    params.subject_alt_names = vec![SanType::URI(text(&identity.to_string())?)];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let peer = PeerExtension { workload: pod.workload(), pod_uid: pod.pod_uid.clone() };
    params.custom_extensions =
        vec![CustomExtension::from_oid_content(&PEER_EXTENSION_OID, peer.encode())];
    Ok(params)
}

/// The certificate of a server of these DNS names and addresses.
pub(super) fn server(
    names: &[String],
    (not_before, not_after): (u64, u64),
) -> Result<CertificateParams, CaError> {
    if names.is_empty() {
        return Err(CaError::Name("a server without a name".to_owned()));
    }
    let mut params = leaf(not_before, not_after);
    for name in names {
        let name = match name.parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(text(name)?),
        };
        params.subject_alt_names.push(name);
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

fn text(name: &str) -> Result<Ia5String, CaError> {
    name.try_into().map_err(|_| CaError::Name(format!("{name:?}: only ASCII can be in one")))
}
