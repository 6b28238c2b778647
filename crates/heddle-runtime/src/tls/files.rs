//! Files with certificates and keys: read within bounds, and told apart by what the file system says of them.

use std::{
    fmt,
    fs::{self, File},
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use heddle_model::discovery::ClientTls;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};

/// Most bytes of a file with certificates or a key; a system's whole list has a quarter of that.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where systems keep the list of whom they believe: Debian, Fedora, SUSE, OpenELEC, RHEL, Alpine.
const SYSTEM_LISTS: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// OpenSSL's name of another list.
const SYSTEM_LIST_VARIABLE: &str = "SSL_CERT_FILE";

/// A file that a rule names and that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFault {
    /// Istio's name of the field.
    pub field: &'static str,
    /// Which file.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, path, reason } = self;
        match path.is_empty() {
            true => write!(f, "`{field}`: {reason}"),
            false => write!(f, "`{field}` {path}: {reason}"),
        }
    }
}

/// Can all files of these settings be used? What a sidecar in the same place would find.
///
/// # Errors
/// The first that cannot.
pub fn check(settings: &ClientTls) -> Result<(), FileFault> {
    let Some((chain, key)) = Material::read(settings)?.own else { return Ok(()) };
    let fits = CertifiedKey::from_der(chain, key, super::provider::provider());
    fits.map(|_| ()).map_err(|error| unfit_key(settings, &error))
}

/// A key that does not go with its certificate, or is of no kind that can be used.
pub(super) fn unfit_key(settings: &ClientTls, error: &rustls::Error) -> FileFault {
    let reason = match error {
        rustls::Error::InconsistentKeys(_) => "it is not the key of the certificate".to_owned(),
        other => other.to_string(),
    };
    fault("privateKey", settings.private_key.as_deref(), reason)
}

fn fault(field: &'static str, path: Option<&str>, reason: impl Into<String>) -> FileFault {
    FileFault { field, path: path.unwrap_or_default().to_owned(), reason: reason.into() }
}

/// What the files of a rule hold.
pub(super) struct Material {
    /// The certificate to show, with those behind it, and its key.
    pub(super) own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    pub(super) roots: Arc<RootCertStore>,
    /// The rule's own file, certificate by certificate: a server may be told by its certificate alone.
    pub(super) pinned: Vec<CertificateDer<'static>>,
}

impl Material {
    pub(super) fn read(settings: &ClientTls) -> Result<Self, FileFault> {
        let own = if settings.mutual { Some(own(settings)?) } else { None };
        let (roots, pinned) = match &settings.authorities {
            _ if settings.unverified => (Arc::new(RootCertStore::empty()), Vec::new()),
            None => (system()?, Vec::new()),
            Some(path) => authorities(path)?,
        };
        Ok(Self { own, roots, pinned })
    }
}

fn own(
    settings: &ClientTls,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), FileFault> {
    const UNNAMED: &str =
        "no file is named: MUTUAL needs one (`credentialName` is not in force yet)";
    let named =
        |field, path: &Option<String>| path.clone().ok_or_else(|| fault(field, None, UNNAMED));
    let path = named("clientCertificate", &settings.certificate)?;
    let chain = certificates("clientCertificate", &path)?;
    let path = named("privateKey", &settings.private_key)?;
    let text = read("privateKey", &path)?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        let reason = "it holds no private key in PEM that is not encrypted";
        fault("privateKey", Some(&path), reason)
    })?;
    Ok((chain, key))
}

fn authorities(
    path: &str,
) -> Result<(Arc<RootCertStore>, Vec<CertificateDer<'static>>), FileFault> {
    const FIELD: &str = "caCertificates";
    let certificates = certificates(FIELD, path)?;
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        let added = roots.add(certificate.clone());
        added.map_err(|error| fault(FIELD, Some(path), error.to_string()))?;
    }
    Ok((Arc::new(roots), certificates))
}

fn certificates(
    field: &'static str,
    path: &str,
) -> Result<Vec<CertificateDer<'static>>, FileFault> {
    let text = read(field, path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(fault(field, Some(path), "it holds no certificate in PEM")),
        Err(error) => Err(fault(field, Some(path), format!("it is no PEM: {error}"))),
    }
}

/// A file's bytes. What is no file could keep whoever reads it waiting.
fn read(field: &'static str, path: &str) -> Result<Vec<u8>, FileFault> {
    let wrong = |reason: String| fault(field, Some(path), reason);
    let about = fs::metadata(path).map_err(|error| wrong(error.to_string()))?;
    if !about.is_file() {
        return Err(wrong("it is no file".to_owned()));
    }
    let mut text = Vec::new();
    let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
    let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text);
    read.map_err(|error| wrong(error.to_string()))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(wrong(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// What a file system says of a file, by which a change is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    node: u64,
    bytes: u64,
    changed: Option<SystemTime>,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let about = fs::metadata(path).ok()?;
        Some(Self {
            device: about.dev(),
            node: about.ino(),
            bytes: about.len(),
            changed: about.modified().ok(),
        })
    }
}

/// The same for all files of a rule.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Stamps(Vec<Option<Stamp>>);

impl Stamps {
    pub(super) fn of(settings: &ClientTls) -> Self {
        let own = [&settings.certificate, &settings.private_key];
        let own = own.into_iter().filter(|_| settings.mutual).flatten().map(PathBuf::from);
        let authorities: Option<PathBuf> = match &settings.authorities {
            _ if settings.unverified => None,
            Some(path) => Some(PathBuf::from(path)),
            None => system_list(),
        };
        Self(own.chain(authorities).map(|path: PathBuf| Stamp::of(&path)).collect())
    }
}

fn system_list() -> Option<PathBuf> {
    let named = std::env::var_os(SYSTEM_LIST_VARIABLE).map(PathBuf::from);
    named.or_else(|| SYSTEM_LISTS.iter().map(PathBuf::from).find(|path| path.is_file()))
}

type SystemRoots = Option<(PathBuf, Option<Stamp>, Arc<RootCertStore>)>;

/// Whom the system believes; read once for all rules, and again when that changes.
fn system() -> Result<Arc<RootCertStore>, FileFault> {
    static KNOWN: Mutex<SystemRoots> = Mutex::new(None);
    const FIELD: &str = "caCertificates";
    let path = system_list().ok_or_else(|| {
        let reason = "this system has no list of CA certificates: name a file, or install the package `ca-certificates`";
        fault(FIELD, None, reason)
    })?;
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let stamp = Stamp::of(&path);
    if let Some((of, when, roots)) = &*known
        && (of, when) == (&path, &stamp)
    {
        return Ok(Arc::clone(roots));
    }
    let shown = path.to_string_lossy();
    let text = read(FIELD, &shown)?;
    // A list of hundreds may hold some that nobody can read any more.
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&text).flatten());
    if roots.is_empty() {
        return Err(fault(FIELD, Some(&shown), "it holds no certificate in PEM"));
    }
    let roots = Arc::new(roots);
    *known = Some((path.clone(), stamp, Arc::clone(&roots)));
    Ok(roots)
}
