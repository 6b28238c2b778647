//! A sidecar's certificate with its key: in memory, and in the state folder for the next process, mode 0600.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use heddle_model::WorkloadId;
use heddle_runtime::tls;
use heddle_wire::discovery::certificates::IssueResponse;
use prost::Message as _;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};

use crate::saved;

const FILE_NAME: &str = "certificate";
/// First bytes of the file; the number is the format's version.
const MAGIC: &[u8] = b"heddle certificate 1\n";
/// Most bytes of the file: some certificates and a key.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Why what the control plane gave is no certificate of this sidecar.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UnfitError {
    #[error(
        "the control plane gave a certificate of `{given}`, and this is the sidecar of `{own}`: is the token of another pod mounted?"
    )]
    Foreign { given: String, own: WorkloadId },
    #[error("the certificate that the control plane gave cannot be used: {0}")]
    Broken(String),
}

/// A key that nobody else has yet, and the request for a certificate of it.
pub(super) struct Wanted {
    key: KeyPair,
    /// PKCS #10, DER.
    pub(super) request: Vec<u8>,
}

impl Wanted {
    /// A new key, ECDSA on P-256.
    ///
    /// # Errors
    /// There is no randomness.
    pub(super) fn new() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        // Who this is the token says.
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key)?.der().to_vec();
        Ok(Self { key, request })
    }

    /// The certificate that came for it.
    ///
    /// # Errors
    /// It is another's, or not of this key.
    pub(super) fn granted(
        self,
        answer: IssueResponse,
        own: &WorkloadId,
    ) -> Result<Certificate, UnfitError> {
        if answer.workload != own.0 {
            return Err(UnfitError::Foreign { given: answer.workload, own: own.clone() });
        }
        let saved = Saved {
            workload: answer.workload,
            key: self.key.serialize_der(),
            chain: answer.chain,
            not_before: answer.not_before,
            not_after: answer.not_after,
            issued_at: answer.issued_at,
        };
        Certificate::of(saved).map_err(UnfitError::Broken)
    }
}

/// As it is in the file.
#[derive(Clone, PartialEq, prost::Message)]
struct Saved {
    #[prost(string, tag = "1")]
    workload: String,
    /// PKCS #8, DER.
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    /// DER, the workload's own first.
    #[prost(bytes = "vec", repeated, tag = "3")]
    chain: Vec<Vec<u8>>,
    /// Seconds of Unix time.
    #[prost(uint64, tag = "4")]
    not_before: u64,
    #[prost(uint64, tag = "5")]
    not_after: u64,
    /// By the clock of who issued it.
    #[prost(uint64, tag = "6")]
    issued_at: u64,
}

/// A certificate with its key.
pub(super) struct Certificate {
    saved: Saved,
    certified: Arc<CertifiedKey>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Certificate");
        shown.field("workload", &self.saved.workload).field("not_after", &self.saved.not_after);
        shown.finish_non_exhaustive()
    }
}

impl Certificate {
    fn of(saved: Saved) -> Result<Self, String> {
        if saved.chain.is_empty() {
            return Err("there is none in the answer".to_owned());
        }
        if saved.not_before >= saved.not_after {
            return Err("it is valid at no time".to_owned());
        }
        let chain = saved.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(saved.key.clone()));
        let certified = CertifiedKey::from_der(chain, key, tls::provider());
        let certified = certified.map_err(|error| error.to_string())?;
        Ok(Self { saved, certified: Arc::new(certified) })
    }

    /// The certificate and its key, as TLS takes them.
    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }

    /// Until when it is good, seconds of Unix time.
    pub(super) fn not_after(&self) -> u64 {
        self.saved.not_after
    }

    /// When it was issued, by the clock of who did, since the Unix epoch.
    pub(super) fn issued_at(&self) -> Duration {
        Duration::from_secs(self.saved.issued_at)
    }

    /// How long after `now` (since the Unix epoch) it is to be renewed: when two thirds of its life are over, and a
    /// little earlier or later, so that sidecars that came together do not renew together. `share` is from 0 to 1.
    pub(super) fn renewal_in(&self, now: Duration, share: f64) -> Duration {
        let life = Duration::from_secs(self.saved.not_after - self.saved.not_before);
        let age = now.saturating_sub(Duration::from_secs(self.saved.not_before)).min(life);
        // From 60 % to two thirds.
        let due = life.mul_f64(0.6 + share.clamp(0.0, 1.0) / 15.0);
        due.saturating_sub(age)
    }
}

/// The file for the next process.
#[derive(Debug)]
pub(super) struct CertificateFile(PathBuf);

impl CertificateFile {
    /// The file in this folder.
    pub(super) fn in_folder(folder: &Path) -> Self {
        Self(folder.join(FILE_NAME))
    }

    /// What an earlier process of this sidecar left, if it is still good at `now` (since the Unix epoch).
    pub(super) fn load(&self, own: &WorkloadId, now: Duration) -> Option<Certificate> {
        let loaded = match self.read() {
            Ok(loaded) => loaded,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(file = %self.0.display(), %error, "the saved certificate is not used");
                return None;
            }
        };
        let good = loaded.saved.workload == own.0 && now.as_secs() < loaded.not_after();
        good.then_some(loaded)
    }

    fn read(&self) -> io::Result<Certificate> {
        let wrong = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
        let mut bytes = Vec::new();
        File::open(&self.0)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        let foreign = || wrong("it is no certificate of this version".to_owned());
        let payload = bytes.strip_prefix(MAGIC).ok_or_else(foreign)?;
        let saved = Saved::decode(payload).map_err(|error| wrong(error.to_string()))?;
        Certificate::of(saved).map_err(wrong)
    }

    /// Keeps it. Without the file a next process needs the control plane before it is ready, and no more.
    pub(super) fn save(&self, certificate: &Certificate) {
        let payload = certificate.saved.encode_to_vec();
        if let Err(error) = saved::replace(&self.0, &[MAGIC, &payload]) {
            tracing::warn!(file = %self.0.display(), %error, "the certificate cannot be saved");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::testing::Folder;

    const DAY: u64 = 24 * 3600;

    fn own() -> WorkloadId {
        WorkloadId::of_pod("shop", "web-1")
    }

    /// As an authority would answer; who signed it matters to nobody here.
    fn answer(wanted: &Wanted, workload: &str) -> IssueResponse {
        let certificate = CertificateParams::default().self_signed(&wanted.key).unwrap();
        IssueResponse {
            chain: vec![certificate.der().to_vec()],
            not_before: 1000,
            not_after: 1000 + DAY,
            issued_at: 1120,
            workload: workload.to_owned(),
            ..IssueResponse::default()
        }
    }

    fn certificate() -> Certificate {
        let wanted = Wanted::new().unwrap();
        let answer = answer(&wanted, "shop.web-1");
        wanted.granted(answer, &own()).unwrap()
    }

    #[test]
    fn a_certificate_of_another_pod_or_another_key_is_refused() {
        let wanted = Wanted::new().unwrap();
        let foreign = answer(&wanted, "bank.vault-0");
        let error = wanted.granted(foreign, &own()).unwrap_err();
        assert!(matches!(error, UnfitError::Foreign { .. }), "{error}");
        assert!(error.to_string().contains("`bank.vault-0`"), "{error}");
        let (wanted, other) = (Wanted::new().unwrap(), Wanted::new().unwrap());
        let of_other = answer(&other, "shop.web-1");
        assert!(matches!(wanted.granted(of_other, &own()), Err(UnfitError::Broken(_))));
        let wanted = Wanted::new().unwrap();
        let empty = IssueResponse { chain: Vec::new(), ..answer(&wanted, "shop.web-1") };
        assert!(matches!(wanted.granted(empty, &own()), Err(UnfitError::Broken(_))));
    }

    #[test]
    fn the_next_process_finds_it_while_it_is_good_and_nobody_else_does() {
        let folder = Folder::new("certificate");
        let file = CertificateFile::in_folder(&folder.path().join("state"));
        let now = Duration::from_secs(2000);
        assert!(file.load(&own(), now).is_none());
        file.save(&certificate());
        assert_eq!(file.load(&own(), now).unwrap().not_after(), 1000 + DAY);
        assert!(file.load(&WorkloadId::of_pod("shop", "web-2"), now).is_none());
        assert!(file.load(&own(), Duration::from_secs(1000 + DAY)).is_none());
        let mode = std::fs::metadata(&file.0).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&file.0, b"heddle certificate 1\ngarbage").unwrap();
        assert!(file.load(&own(), now).is_none());
    }

    #[test]
    fn it_is_renewed_when_two_thirds_of_its_life_are_over_and_not_by_all_at_once() {
        let certificate = certificate();
        let at = |seconds: u64, share: f64| {
            certificate.renewal_in(Duration::from_secs(1000 + seconds), share).as_secs()
        };
        assert_eq!(at(0, 1.0), DAY * 2 / 3);
        assert_eq!(at(0, 0.0), DAY * 6 / 10);
        assert_eq!(at(DAY / 2, 1.0), DAY * 2 / 3 - DAY / 2);
        assert_eq!(at(DAY, 0.5), 0);
        // A clock before its time: at the latest after all of it.
        assert_eq!(certificate.renewal_in(Duration::ZERO, 1.0).as_secs(), DAY * 2 / 3);
    }

    #[test]
    fn no_debug_output_shows_the_key() {
        assert_eq!(
            format!("{:?}", certificate()),
            r#"Certificate { workload: "shop.web-1", not_after: 87400, .. }"#
        );
    }
}
